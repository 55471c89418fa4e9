"""Classes and functions of the user's own, by a name that an option can hold."""

from contextlib import suppress
from importlib import import_module
from typing import Any

_KEPT: dict[str, Any] = {}


def name_of(thing: Any) -> str:
    """Return `module:Name` of a class or function.

    What cannot be imported by that, such as a lambda, gets a name such as `<lambda>`, by which
    `find_named` knows it in this process and nobody else does.
    """
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    word = f"{module}:{name}"
    with suppress(ValueError):
        if find_named(word) is thing:
            return word
    label = str(name or type(thing).__name__).rpartition(".")[2].strip("<>")
    word, count = f"<{label}>", 1
    while _KEPT.setdefault(word, thing) is not thing:
        count += 1
        word = f"<{label} {count}>"
    return word


def find_named(word: str) -> Any:
    """Return the class or function that has a name.

    Raises:
        ValueError: it cannot be imported, or is one of another process.
    """
    if word in _KEPT:
        return _KEPT[word]
    if word.startswith("<"):
        raise ValueError(
            f"{word} was an object of the training process and is not saved: pass it again, or put "
            "it into a module and name it module:Name"
        )
    module, _, name = word.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{word} cannot be imported: {error}") from error
