"""Which kind a section is of, where it may be of several."""

import dataclasses
from collections.abc import Sequence
from dataclasses import MISSING
from typing import Any

from xlstm_rl.config.errors import ConfigError
from xlstm_rl.config.fields import Chosen, Setting, default_of, own_fields
from xlstm_rl.config.variants import Variants, variants_of


def choose_variants(
    cls: type, settings: Sequence[Setting], prefix: str = "", parent: Any = None
) -> Chosen:
    """The class of each section that may be of several, by the section's path and a dot.

    Args:
        cls: The class of the whole.
        settings: What was set, later ones last.
        prefix: What stands before the names of its fields, with a dot behind it.
        parent: An object of it whose values are the defaults; None: the class's own.

    Raises:
        ConfigError: A value is set that belongs to another class of its section.
    """
    chosen: dict[str, type] = {}
    for field, annotation in own_fields(cls):
        path, default = f"{prefix}{field.name}.", default_of(field, parent)
        variants = variants_of(annotation)
        if variants is not None:
            words = [s.value for s in settings if s.field.path == path + variants.tag]
            unset = next(iter(variants.classes.values())) if default is MISSING else type(default)
            annotation = chosen[path] = variants.classes[words[-1]] if words else unset
            _refuse_others_settings(variants, path, annotation, settings)
        if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
            section = default if type(default) is annotation else None
            chosen |= choose_variants(annotation, settings, path, section)
    return chosen


def _refuse_others_settings(
    variants: Variants, prefix: str, chosen: type, settings: Sequence[Setting]
) -> None:
    names = {word: {f.name for f in dataclasses.fields(c)} for word, c in variants.classes.items()}
    (word,) = (word for word, cls in variants.classes.items() if cls is chosen)
    for setting in settings:
        name = setting.field.path.removeprefix(prefix).partition(".")[0]
        if setting.field.path.startswith(prefix) and name not in names[word]:
            tag = prefix + variants.tag
            owners = " or ".join(owner for owner, known in names.items() if name in known)
            raise ConfigError(f"{setting.source}: an option of {tag}={owners}, but {tag} is {word}")
