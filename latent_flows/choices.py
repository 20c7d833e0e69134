"""Choosing one thing of several by its name, with an error that helps."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar

__all__ = ["Choice", "choose"]

Choice = TypeVar("Choice")


def choose(what: str, name: str, options: Mapping[str, Choice]) -> Choice:
    """The option called `name`.

    Args:
        what: the noun that the names stand for, used in the message.
        name: the name asked for.
        options: every valid name, with what it stands for.

    Returns:
        `options[name]`.

    Raises:
        ValueError: naming the valid names, and the nearest one, if `name` is not among them.

    >>> choose("colour", "red", {"red": 1, "blue": 2})
    1
    >>> choose("colour", "bleu", {"red": 1, "blue": 2})
    Traceback (most recent call last):
    ...
    ValueError: unknown colour 'bleu' (did you mean 'blue'?); expected one of 'blue', 'red'
    """
    if isinstance(name, str) and name in options:
        return options[name]
    near = get_close_matches(str(name).lower(), list(options), n=1, cutoff=0.0)
    guess = f" (did you mean {near[0]!r}?)" if near else ""
    valid = ", ".join(repr(option) for option in sorted(options))
    raise ValueError(f"unknown {what} {name!r}{guess}; expected one of {valid}")
