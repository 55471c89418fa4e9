"""Sections of several kinds, one of which a word in the section, its tag, names.

The kinds are the members of a union of dataclasses, each with a `Literal` of one word,

    agent: PPOConfig | A2CConfig    # with algo: Literal["ppo"] and algo: Literal["a2c"]

or those that were registered for a base class, `memory: MemoryConfig`, of which there can always
be one more. Without a tag the section is of the kind of its default.
"""

import dataclasses
from functools import cache
from typing import Any, Literal, get_args, get_origin

from xlstm_rl.options.arguments import did_you_mean
from xlstm_rl.options.fields import members, own_fields
from xlstm_rl.options.functions import find_named


class Kinds:
    """Which class a section is of, by the word in the field that is its tag."""

    others: tuple[str, ...] = ()
    """What else the tag may be, for messages."""

    def __init__(self, tag: str, classes: dict[str, type]) -> None:
        self.tag = tag
        self.classes = classes

    @property
    def default(self) -> str:
        """The word of a section whose tag nobody set: the first."""
        return next(iter(self.classes))

    def word(self, value: Any) -> str:
        """The word that a value of the tag stands for."""
        return str(value)

    def find(self, word: str) -> type:
        """The class that a word names.

        Raises:
            ValueError: None has that name.
        """
        if word not in self.classes:
            *most, last = [*self.classes, *self.others]
            hint = did_you_mean(word, self.classes)
            raise ValueError(f"expected {', '.join(most)} or {last}, got {word!r}{hint}")
        return self.classes[word]

    def word_of(self, cls: type) -> str:
        """The word of a class."""
        return next(word for word, one in self.classes.items() if one is cls)

    def owners(self, name: str) -> list[str]:
        """The kinds that have an option of this name."""
        return [word for word, cls in self.classes.items() if name in own_fields(cls)]


class Registry(Kinds):
    """Kinds that anybody can add to: the options of each, and what is built from them.

    A name of the form `module:Name` needs no registration: it is imported when it is met, and has
    the class of its options in its attribute `config_class`.

    Args:
        tag: The field of the options that names the kind.
    """

    others = ("module:Name",)

    def __init__(self, tag: str) -> None:
        super().__init__(tag, {})
        self._targets: dict[str, Any] = {}
        self._foreign: dict[str, type] = {}

    def add(self, options: type, target: Any) -> None:
        """Register a kind.

        Args:
            options: The class of its options; the default of the tag is its name.
            target: What is built from them, or `module:Name` of it, which is then not imported
                before something is built.
        """
        word = str(own_fields(options)[self.tag][0].default)
        self.classes[word], self._targets[word] = options, target

    def registered(self, options: Any) -> tuple[type, Any] | None:
        """What to hand to `add` in another process for these options; None: nothing."""
        word = str(getattr(options, self.tag))
        return (type(options), self._targets[word]) if word in self.classes else None

    def find(self, word: str) -> type:
        """The options of a kind.

        Raises:
            ValueError: There is no such kind, or it cannot be imported.
        """
        if word in self.classes or ":" not in word:
            return super().find(word)
        options: type | None = getattr(self.target(word), "config_class", None)
        if options is None:
            raise ValueError(f"{word} lacks `config_class`, the class of its options")
        self._foreign[word] = options
        return options

    def word_of(self, cls: type) -> str:
        """The word of a class that was found."""
        return next(word for word, one in (self.classes | self._foreign).items() if one is cls)

    def target(self, word: str) -> Any:
        """What is built from the options of a kind.

        Raises:
            ValueError: It cannot be imported.
        """
        target = self._targets.get(word, word)
        if not isinstance(target, str):
            return target
        try:
            return find_named(target)
        except ValueError as error:
            raise ValueError(str(error).replace(target, word, 1)) from error


def is_section(annotation: Any) -> bool:
    """Whether a field holds a section, of one class or of several."""
    return all(dataclasses.is_dataclass(one) for one in members(annotation))


@cache
def kinds_of(annotation: Any) -> Kinds | None:
    """The kinds of a section; None where it is of one class.

    Raises:
        TypeError: No field tells the members of a union apart.
    """
    classes = members(annotation)
    if len(classes) == 1:
        kinds: Kinds | None = vars(classes[0]).get("kinds")
        return kinds
    for name in own_fields(classes[0]):
        tags = [own_fields(cls).get(name, (None, None))[1] for cls in classes]
        if all(get_origin(tag) is Literal and len(get_args(tag)) == 1 for tag in tags):
            words = [get_args(tag)[0] for tag in tags]
            return Kinds(name, dict(zip(words, classes, strict=True)))
    raise TypeError(f"{annotation}: no field is a Literal of one word in each of its members")


def classes_of(annotation: Any) -> dict[str, type]:
    """The classes that a section may be of, by their words; of one class, under an empty one."""
    kinds = kinds_of(annotation)
    return {"": members(annotation)[0]} if kinds is None else kinds.classes
