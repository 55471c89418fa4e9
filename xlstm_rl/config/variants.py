"""Sections of several kinds: a union of dataclasses, one of which a tag in the section names.

    agent: PPOConfig | A2CConfig    # with algo: Literal["ppo"] and algo: Literal["a2c"]

The tag is the field that holds one word in each of them. It is set like any other field, wherever
the others may be set; without it the section is of the kind of its default.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from xlstm_rl.config.values import members


@dataclass(frozen=True)
class Variants:
    """The kinds of a section by the word that names them, and the field with that word."""

    tag: str
    classes: Mapping[str, type]

    @property
    def tag_kind(self) -> Any:
        """The type of the tag: any of the words."""
        return Literal[tuple(self.classes)]


def variants_of(annotation: Any) -> Variants | None:
    """The kinds of a section; None where the annotation is not a union of dataclasses.

    Raises:
        TypeError: No field tells the members of the union apart.
    """
    classes = members(annotation)
    if len(classes) < 2 or not all(map(dataclasses.is_dataclass, classes)):
        return None
    hints = [get_type_hints(cls) for cls in classes]
    for name in hints[0]:
        kinds = [hint.get(name) for hint in hints]
        if all(get_origin(kind) is Literal and len(get_args(kind)) == 1 for kind in kinds):
            return Variants(
                name, {get_args(kind)[0]: cls for kind, cls in zip(kinds, classes, strict=True)}
            )
    raise TypeError(f"{annotation}: no field is a Literal of one word in each of its members")
