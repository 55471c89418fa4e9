"""Raw observations, and what stands beside them, as the encoder reads them."""

from torch import Tensor

from xlstm_rl.envs.spaces.leaves import Leaf, space_leaves
from xlstm_rl.export.c.program import Program, Vector, braces, refuse
from xlstm_rl.export.step import ExportedStep
from xlstm_rl.normalization import NestedNormalizer, ObservationNormalizer
from xlstm_rl.policy.auxiliary.inputs import (
    FIRST_STEP,
    OBSERVATION,
    PREVIOUS_ACTION,
    PREVIOUS_REWARD,
)


class Reader:
    """Writes how the inputs of an encoder come about.

    Args:
        program: takes the statements.
        step: that is exported.
        fields: of the inputs, by their ports' names.
        offsets: where each of the state's tensors begins, by its port's name.
    """

    def __init__(
        self,
        program: Program,
        step: ExportedStep,
        fields: dict[str, str],
        offsets: dict[str, int],
    ) -> None:
        self._program = program
        policy = step.policy
        self._auxiliary = policy.auxiliary
        self._offsets = offsets
        leaves = space_leaves(policy.observation_space)
        self.leaves: dict[str, Leaf] = {leaf.name or OBSERVATION: leaf for leaf in leaves}
        self._fields = {
            leaf.name or OBSERVATION: fields[port.name]
            for leaf, port in zip(leaves, step.ports.observation, strict=True)
        }
        normalizer = policy.normalizer
        self._normalizers: dict[str, ObservationNormalizer] = (
            dict(zip(normalizer.names, normalizer.parts, strict=True))  # type: ignore[arg-type]
            if isinstance(normalizer, NestedNormalizer)
            else {OBSERVATION: normalizer}
        )
        self._statuses = 0
        if policy.auxiliary.state_shapes:
            started = offsets["state.previous.started"]
            program.say(f"const int is_first = state[{started}] == 0;")

    @property
    def only(self) -> str:
        """The name of the one leaf of a space without parts."""
        return OBSERVATION

    def numbers(self, name: str) -> Vector:
        """Return the numbers of a leaf, normalised, or of what stands beside the observation."""
        if name not in self.leaves:
            return self._beside(name)
        normalizer, field = self._normalizers[name], f"in->{self._fields[name]}"
        size = 1
        for length in normalizer.observation_shape:
            size *= length
        x = self._program.vector(size)
        value = f"(float){field}[i]"
        if normalizer.moments is not None:
            kind = "double" if normalizer.is_wide else "float"
            place = self._program.doubles if normalizer.is_wide else self._program.floats
            center, scale = place(normalizer.center), place(normalizer.scale)
            clip = repr(float(normalizer.clip)) + ("" if normalizer.is_wide else "f")
            clipped = "clipped_wide" if normalizer.is_wide else "clipped"
            inner = f"(({kind}){field}[i] - {center}[i]) * {scale}[i]"
            value = f"(float){clipped}({inner}, -{clip}, {clip})"
        self._program.say(f"for (int64_t i = 0; i < {size}; i++) ({x.at})[i] = {value};")
        return x

    def embedded(self, name: str, counts: list[int], weight: Tensor) -> Vector:
        """Return the sum of the rows of `weight [sum of counts, width]` that a leaf chooses."""
        normalizer, width = self._normalizers[name], weight.shape[1]
        start = normalizer.start
        starts = normalizer.starts.tolist() if start is None else [start]
        y = self._program.vector(width)
        self._statuses += 1
        first = [sum(counts[:k]) for k in range(len(counts))]
        table = "static const uint64_t"
        self._program.say(
            "{",
            f"  {table} starts[] = {braces(f'UINT64_C({one % 2**64})' for one in starts)};",
            f"  {table} counts[] = {braces(counts)}, rows[] = {braces(first)};",
            f"  memset({y.at}, 0, {width} * sizeof(float));",
            f"  for (int64_t k = 0; k < {len(counts)}; k++) {{",
            f"    const uint64_t choice = (uint64_t)in->{self._fields[name]}[k] - starts[k];",
            f"    if (choice >= counts[k]) return {self._statuses}; /* not in the space */",
            f"    add({width}, {self._program.floats(weight)} + (rows[k] + choice) * {width}, "
            f"{y.at});",
            "  }",
            "}",
        )
        return y

    def pixels(self, name: str) -> str:
        """Return the image of a leaf, as the environment has it."""
        return f"in->{self._fields[name]}"

    def _beside(self, name: str) -> Vector:
        auxiliary = self._auxiliary
        x = self._program.vector(auxiliary.sizes[name])
        if name == PREVIOUS_ACTION:
            at = self._offsets["state.previous.action"]
            value = f"is_first ? 0 : state[{at} + i]"
        elif name == PREVIOUS_REWARD:
            clip = repr(float(auxiliary.clip))
            scaled = f"(double)in->reward * {self._program.doubles(auxiliary.scale)}[0]"
            value = f"is_first ? 0 : (float)clipped_wide({scaled}, -{clip}, {clip})"
        elif name == FIRST_STEP:
            value = "(float)is_first"
        else:
            refuse(f"the input {name!r}")
        self._program.say(f"for (int64_t i = 0; i < {x.size}; i++) ({x.at})[i] = {value};")
        return x
