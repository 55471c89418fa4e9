"""The kinds of memory: what their options derive from, and where they are registered."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xlstm_rl.options.fields import Count, own_fields
from xlstm_rl.options.kinds import Registry
from xlstm_rl.options.section import Section

MEMORIES = Registry("kind")
"""The kinds of memory: the options of each, and its class."""

_RENAMED = {
    "expansion": "proj_factor",
    "conv_window": "conv1d_kernel_size",
    "slstm_conv_window": "slstm_conv1d_kernel_size",
    "feed_forward_factor": "feedforward_proj_factor",
    "feed_forward_activation": "feedforward_activation",
    "feed_forward_bias": "feedforward_bias",
    "feed_forward_width": "feedforward_width",
}


@dataclass(frozen=True)
class MemoryConfig(Section):
    """A policy memory: `kind` says which, the other options are its own.

    Called, it makes the options of that kind: `MemoryConfig(kind="gru", width=64)` is a
    `GRUConfig`, `MemoryConfig(pattern="ms")` an `XLSTMConfig`. The options of a memory of your own
    derive from this class.

    Raises:
        ValueError: If an option is unknown, is another kind's, is out of range, or does not fit
            another one.
    """

    section = "memory"
    kinds = MEMORIES
    renamed = _RENAMED

    kind: str = ""
    """The kind of memory, which decides the other options of this section."""

    width: Count = 64
    """Size D of the vectors that enter and leave the memory."""

    if TYPE_CHECKING:  # every kind has options of its own

        def __init__(self, kind: str = "xlstm", **options: Any) -> None: ...

    @classmethod
    def upgrade(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Drop the other kinds' options from a file of version 0.1, which held those of all."""
        if not options.keys() >= _OPTIONS_OF_0_1:
            return dict(options)
        known = own_fields(MEMORIES.find(str(options["kind"])))
        return {name: value for name, value in options.items() if _RENAMED.get(name, name) in known}


def register_memory(options: type[MemoryConfig], memory: Any) -> None:
    """Register a memory under the default of `kind` in its options.

    Args:
        options: The class of the memory's options.
        memory: The class of the memory, which is called with such options; or `module:Name` of it,
            which is then imported when the first one is made.
    """
    MEMORIES.add(options, memory)


_OPTIONS_OF_0_1 = {
    *("kind", "pattern", "width", "num_blocks", "num_heads", "conv_window", "expansion"),
    *("qkv_block_size", "feed_forward_factor", "feed_forward_activation", "round_to"),
    *("forget_gate", "final_norm", "bias", "feed_forward_bias", "slstm_num_heads"),
    *("slstm_conv_window", "chunk_size", "backend"),
}
