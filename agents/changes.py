"""Options that change where a run goes on, and what becomes of those that belonged to them."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from xlstm_rl.agents.config import TrainConfig
from xlstm_rl.config import ConfigError, config_to_dict
from xlstm_rl.options.fields import own_fields
from xlstm_rl.options.kinds import is_section, kinds_of

_FIXED = {
    "memory": ("backend",),
    "policy": (),
    "normalization": ("clip_observation", "clip_reward"),
}
"""Sections that a trained policy has, with the options that may change all the same."""

FIXED_SECTIONS = tuple(_FIXED)


def paths_of(sections: Mapping[str, Any]) -> set[str]:
    """Return the paths, such as `agent.epochs`, of options that are given as mappings."""
    return {
        f"{section}.{name}"
        for section, options in sections.items()
        if isinstance(options, Mapping)
        for name in options
    }


def without_exchanged_kinds(
    before: Mapping[str, Any], given: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return a configuration without options of kinds in whose place others are given.

    Of `logger.kind=wandb` the project goes where `logger.kind=csv` is given, say.

    Args:
        before: the configuration, as plain data.
        given: options by section.

    Raises:
        ConfigError: the algorithm, or what a trained policy is made of, would be another one.
    """
    values = dict(before)
    for section, (_, annotation) in own_fields(TrainConfig).items():
        kinds = kinds_of(annotation) if is_section(annotation) else None
        word = None if kinds is None else given.get(section, {}).get(kinds.tag)
        if kinds is None or word is None:
            continue
        try:
            known = own_fields(kinds.find(kinds.word(word)))
        except ValueError:
            continue  # it is refused where it is read
        if section in ("agent", *_FIXED) and word != values[section][kinds.tag]:
            raise _cannot_change(section, kinds.tag, word, values[section][kinds.tag])
        values[section] = {name: one for name, one in values[section].items() if name in known}
    return values


def refuse_changes(before: TrainConfig, config: TrainConfig, asked_for: Collection[str]) -> None:
    """Refuse other options where those of a trained policy cannot change.

    Args:
        before: the configuration of the run.
        config: that with which it is to go on.
        asked_for: paths of the options that are given, which are named before what follows.

    Raises:
        ConfigError: one has changed.
    """
    own, other = config_to_dict(before), config_to_dict(config)
    if own["seed"] != other["seed"]:
        raise ConfigError(
            f"seed={other['seed']}: the random streams of a run go on from its own seed, "
            f"{own['seed']}; train a new run with another one"
        )
    if own["agent"]["algo"] != other["agent"]["algo"]:
        raise _cannot_change("agent", "algo", other["agent"]["algo"], own["agent"]["algo"])
    for section, free in _FIXED.items():
        for name in _in_order(section, [*own[section], *other[section]], asked_for):
            one, new = own[section].get(name), other[section].get(name)
            if one != new and name not in free:
                raise _cannot_change(section, name, new, one)


def _cannot_change(section: str, name: str, new: object, old: object) -> ConfigError:
    if section == "agent":
        return ConfigError(
            f"agent.{name}={new}: the run is trained by {old}, which cannot change; train a new run"
        )
    return ConfigError(
        f"{section}.{name}={new!r}: the policy was trained with {old!r}, which cannot change; "
        "train a new run"
    )


def _in_order(section: str, names: Iterable[str], asked_for: Collection[str]) -> list[str]:
    names = dict.fromkeys(names)
    return sorted(names, key=lambda one: (one != "kind", f"{section}.{one}" not in asked_for))
