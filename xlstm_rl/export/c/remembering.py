"""What the next step reads of an action that the caller took, where it is not the most probable."""

from collections.abc import Iterator

import torch

from xlstm_rl.export.c.actions import Part
from xlstm_rl.export.c.program import Program, braces
from xlstm_rl.policy.actions.categorical import Categorical, MultiCategorical
from xlstm_rl.policy.actions.gaussian import DiagonalGaussian

_DECLARATION = """
/* For one who acts otherwise than a step said, such as with a sample: puts the action that is in
   `out` into the state, from which the next step reads it. */
void @LOWER@_acted(const void *weights, const @LOWER@_outputs *out, float *state);
"""
_DEFINITION = """
void @LOWER@_acted(const void *weights, const @LOWER@_outputs *out, float *state) {
  (void)weights;
@LINES@
}
"""


def write_acted(program: Program, parts: list[Part], features: int | None) -> tuple[str, str]:
    """Return declaration and definition of a function that remembers an action.

    Args:
        program: takes the numbers that it needs; none of its statements.
        parts: the distributions of the action's leaves.
        features: the float of the state where they begin; None: nothing is remembered, and there
            is no function.
    """
    if features is None:
        return "", ""
    lines: list[str] = []
    for part in parts:
        lines += _lines(program, part, f"state + {features}")
        features += part.distribution.num_features
    body = "\n".join("  " + line for line in lines)
    return _DECLARATION, _DEFINITION.replace("@LINES@", body)


def _lines(program: Program, part: Part, to: str) -> Iterator[str]:
    distribution = part.distribution
    if isinstance(distribution, Categorical):
        yield from _one_hot(part, to, [distribution.num_params], [distribution.start], "&")
    elif isinstance(distribution, MultiCategorical):
        counts = torch.bincount(distribution.number).tolist()
        yield from _one_hot(part, to, counts, distribution.starts.tolist(), "")
    elif isinstance(distribution, DiagonalGaussian):
        wide = part.type == "double"
        place = program.doubles if wide else program.floats
        center, scale = place(distribution.center), place(distribution.scale)
        lower, upper = program.floats(distribution.lower), program.floats(distribution.upper)
        unit = f"(float)((out->{part.field}[i] - {center}[i]) / {scale}[i])"
        yield f"for (int64_t i = 0; i < {distribution.num_features}; i++)"
        yield f"  ({to})[i] = clipped({unit}, {lower}[i], {upper}[i]);"


def _one_hot(
    part: Part, to: str, counts: list[int], starts: list[int], address: str
) -> Iterator[str]:
    firsts = braces(f"UINT64_C({start % 2**64})" for start in starts)
    yield "{"
    yield f"  static const int64_t counts[] = {braces(counts)};"
    yield f"  static const uint64_t starts[] = {firsts};"
    yield f"  const {part.type} *action = {address}out->{part.field};"
    yield f"  float *to = {to};"
    yield f"  for (int64_t k = 0; k < {len(counts)}; k++)"
    yield "    for (int64_t i = 0; i < counts[k]; i++)"
    yield "      *to++ = (float)((uint64_t)action[k] - starts[k] == (uint64_t)i);"
    yield "}"
