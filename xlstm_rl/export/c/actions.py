"""From the network's outputs to parameters and the most probable action, as statements of C."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from xlstm_rl.export.c.names import c_type
from xlstm_rl.export.c.program import Program, Vector, braces, number, refuse
from xlstm_rl.export.masks import ObservedMask
from xlstm_rl.export.step import ExportedStep
from xlstm_rl.policy.actions.base import ActionDistribution
from xlstm_rl.policy.actions.categorical import (
    LEAST_LOGIT,
    MASKED_LOGIT,
    Categorical,
    MultiCategorical,
)
from xlstm_rl.policy.actions.distributions import JointDistribution
from xlstm_rl.policy.actions.gaussian import (
    FREE_LOG_STD_RANGE,
    LOG_STD_RANGE,
    DiagonalGaussian,
    SquashedGaussian,
)
from xlstm_rl.policy.exploration import LEAST_VARIANCE, StateDependentNoise


@dataclass(frozen=True)
class Part:
    """The distribution of one leaf of the action space."""

    distribution: ActionDistribution
    field: str
    """Of the action."""

    params: str
    """The field of its parameters."""

    type: str
    """Of a number of the action, in C."""

    outputs: int
    """The first of the network's outputs that are its own."""

    free: int
    """The first of the free parameters that are its own."""


def parts_of(step: ExportedStep, fields: dict[str, str]) -> list[Part]:
    """Return the leaves' distributions, in the order of the action's ports.

    Args:
        step: that is exported.
        fields: of the actions, by their ports' names.
    """
    whole = step.policy.network.distribution
    each = list(whole.parts) if isinstance(whole, JointDistribution) else [whole]
    found, outputs, free = [], 0, 0
    for distribution, port in zip(each, step.ports.action, strict=True):
        if type(distribution) not in _WRITERS:
            refuse(f"actions of {type(distribution).__name__}")
        assert isinstance(distribution, ActionDistribution)
        field = fields[port.name]
        params = field.replace("action", "params", 1)
        found.append(Part(distribution, field, params, c_type(port), outputs, free))
        outputs += distribution.num_outputs
        free += distribution.num_free
    return found


def mask_from_info(program: Program, outputs: Vector) -> None:
    """Write the mask that comes with each step: a flag for each output."""
    _floor(program, outputs)
    program.say(
        f"for (int64_t i = 0; i < {outputs.size}; i++)",
        f"  if (!in->action_mask[i]) ({outputs.at})[i] = {number(MASKED_LOGIT)};",
    )


def mask_from_observation(
    program: Program, mask: ObservedMask, fields: dict[str, str], outputs: Vector
) -> None:
    """Write the mask that is a part of the observation; `fields` by the leaf's name."""
    _floor(program, outputs)
    at, masked = 0, number(MASKED_LOGIT)
    for names, sizes, is_bits, width in mask.parts:
        inside = at
        for name, size in zip(names, sizes, strict=True):
            field = f"in->{fields[name]}[i]"
            program.say(f"for (int64_t i = 0; i < {size}; i++) {{")
            if is_bits:
                to = f"({outputs.at})[{inside} + 2 * i"
                program.say(f"  if ({field} == 1) {to}] = {masked};")
                program.say(f"  if ({field} == 0) {to} + 1] = {masked};")
            else:
                program.say(f"  if ({field} == 0) ({outputs.at})[{inside} + i] = {masked};")
            program.say("}")
            inside += size * (1 + is_bits)
        at += width


def _floor(program: Program, outputs: Vector) -> None:
    least = number(LEAST_LOGIT)
    program.say(
        f"for (int64_t i = 0; i < {outputs.size}; i++)",
        f"  if (({outputs.at})[i] < {least}) ({outputs.at})[i] = {least};",
    )


def write_part(
    program: Program, part: Part, outputs: Vector, log_std: Tensor | None, features: str | None
) -> None:
    """Write a leaf's parameters, its action, and what the next step reads of it.

    Args:
        program: takes the statements.
        part: of the leaf.
        outputs: of the network, masked.
        log_std: all free parameters.
        features: where the next step looks for this action, if it does.
    """
    distribution = part.distribution
    own = distribution.num_outputs
    program.say(
        f"memcpy(out->{part.params}, {outputs.at} + {part.outputs}, {own} * sizeof(float));"
    )
    if log_std is not None and distribution.num_free:
        free = log_std[part.free : part.free + distribution.num_free].clamp(*FREE_LOG_STD_RANGE)
        program.say(
            f"memcpy(out->{part.params} + {own}, {program.floats(free)}, "
            f"{distribution.num_free} * sizeof(float));"
        )
    program.say(*_WRITERS[type(distribution)](program, part, features))


def write_explored_std(
    program: Program, part: Part, features: Vector, exploration: StateDependentNoise
) -> None:
    """Write the log standard deviations of gSDE behind a leaf's means: those of the features."""
    weights = (2.0 * exploration.log_sigma.detach().double()).exp() / features.size
    table = program.floats(weights.float())
    count = part.distribution.num_features
    least, most = map(number, FREE_LOG_STD_RANGE)
    program.say(
        f"for (int64_t i = 0; i < {count}; i++) {{",
        f"  float variance = {number(LEAST_VARIANCE)};",
        f"  for (int64_t d = 0; d < {features.size}; d++)",
        f"    variance += ({features.at})[d] * ({features.at})[d] * {table}[d * {count} + i];",
        f"  out->{part.params}[{count} + i] = clipped(0.5f * logf(variance), {least}, {most});",
        "}",
    )


def _one_choice(program: Program, part: Part, features: str | None) -> Iterator[str]:
    distribution = part.distribution
    assert isinstance(distribution, Categorical)
    count, start = distribution.num_params, distribution.start % 2**64
    yield "{"
    yield f"  const int64_t choice = largest({count}, out->{part.params});"
    yield f"  out->{part.field} = ({part.type})((uint64_t)choice + UINT64_C({start}));"
    if features is not None:
        yield f"  for (int64_t i = 0; i < {count}; i++) ({features})[i] = (float)(i == choice);"
    yield "}"


def _choices(program: Program, part: Part, features: str | None) -> Iterator[str]:
    distribution = part.distribution
    assert isinstance(distribution, MultiCategorical)
    counts = torch.bincount(distribution.number).tolist()
    starts = [f"UINT64_C({start % 2**64})" for start in distribution.starts.tolist()]
    yield "{"
    yield f"  static const int64_t counts[] = {braces(counts)};"
    yield f"  static const uint64_t starts[] = {braces(starts)};"
    yield f"  const float *logits = out->{part.params};"
    if features is not None:
        yield f"  float *features = {features};"
    yield f"  for (int64_t k = 0; k < {len(counts)}; k++) {{"
    yield "    const int64_t choice = largest(counts[k], logits);"
    yield f"    out->{part.field}[k] = ({part.type})((uint64_t)choice + starts[k]);"
    yield "    logits += counts[k];"
    if features is not None:
        yield "    for (int64_t i = 0; i < counts[k]; i++) *features++ = (float)(i == choice);"
    yield "  }"
    yield "}"


def _numbers(program: Program, part: Part, features: str | None) -> Iterator[str]:
    distribution = part.distribution
    assert isinstance(distribution, DiagonalGaussian)
    size = distribution.num_features
    if distribution.state_std:
        shift = number(distribution.initial_log_std)
        least, most = map(number, LOG_STD_RANGE)
        place = f"out->{part.params}[{size} + i]"
        yield f"for (int64_t i = 0; i < {size}; i++)"
        yield f"  {place} = clipped({place} + {shift}, {least}, {most});"
    wide = part.type == "double"
    place_numbers = program.doubles if wide else program.floats
    names = ("center", "scale", "low", "high")
    where = [place_numbers(getattr(distribution, name)) for name in names]
    yield f"for (int64_t i = 0; i < {size}; i++) {{"
    yield f"  float unit = out->{part.params}[i];"
    if isinstance(distribution, SquashedGaussian):
        yield f"  if ({program.floats(distribution.squashed)}[i] != 0) unit = tanhf(unit);"
        feature = "unit"
    else:
        lower, upper = program.floats(distribution.lower), program.floats(distribution.upper)
        feature = f"clipped(unit, {lower}[i], {upper}[i])"
    center, scale, low, high = (f"{one}[i]" for one in where)
    clip = "clipped_wide" if wide else "clipped"
    yield f"  out->{part.field}[i] = {clip}({center} + unit * {scale}, {low}, {high});"
    if features is not None:
        yield f"  ({features})[i] = {feature};"
    yield "}"


_WRITERS = {
    Categorical: _one_choice,
    MultiCategorical: _choices,
    DiagonalGaussian: _numbers,
    SquashedGaussian: _numbers,
}
