"""What names, settings and arguments must be, with errors that help."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

import jax.numpy as jnp

__all__ = ["Choice", "at_least", "choose", "floats", "fractions", "what"]

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
    >>> choose("network", "SNGN", {"BigGAN": 1, "SNGAN": 2})
    Traceback (most recent call last):
    ...
    ValueError: unknown network 'SNGN' (did you mean 'SNGAN'?); expected one of 'BigGAN', 'SNGAN'
    """
    if isinstance(name, str) and name in options:
        return options[name]
    lower = {option.lower(): option for option in options}
    near = get_close_matches(str(name).lower(), lower, n=1, cutoff=0.0)
    guess = f" (did you mean {lower[near[0]]!r}?)" if near else ""
    valid = ", ".join(repr(option) for option in sorted(options))
    raise ValueError(f"unknown {what} {name!r}{guess}; expected one of {valid}")


def at_least(settings: Any, prefix: str = "", /, **least: float) -> None:
    """Checks that numbers of a configuration are not too small.

    Args:
        settings: any object with the named attributes.
        prefix: what stands before the name of an attribute in the message, such as `"flows."`.
        **least: the smallest value that each attribute may have.

    Raises:
        ValueError: for the first attribute that is smaller, or not a number.

    >>> from types import SimpleNamespace
    >>> at_least(SimpleNamespace(steps=0), "training.", steps=1)
    Traceback (most recent call last):
    ...
    ValueError: training.steps must be at least 1, got 0
    """
    for name, smallest in least.items():
        value = getattr(settings, name)
        if not value >= smallest:
            raise ValueError(f"{prefix}{name} must be at least {smallest}, got {value}")


def fractions(settings: Any, prefix: str = "", /, *names: str) -> None:
    """Checks that numbers of a configuration, as decays of averages, lie in [0, 1).

    Args:
        settings: any object with the named attributes.
        prefix: what stands before the name of an attribute in the message.
        *names: the attributes.

    Raises:
        ValueError: for the first attribute that does not, or is no number.

    >>> from types import SimpleNamespace
    >>> fractions(SimpleNamespace(average=1.0), "adversarial.", "average")
    Traceback (most recent call last):
    ...
    ValueError: adversarial.average must lie in [0, 1), got 1.0
    """
    for name in names:
        value = getattr(settings, name)
        if not 0 <= value < 1:
            raise ValueError(f"{prefix}{name} must lie in [0, 1), got {value}")


def floats(name: str, /, **arrays: Any) -> None:
    """Checks that arrays are of floats: differences and squares of 8-bit integers wrap around.

    Args:
        name: of the function that takes them, for the message.
        **arrays: the arrays, or their shapes and dtypes, by the names of the arguments.

    Raises:
        ValueError: for the first that is not, with what to do.

    >>> import jax.numpy as jnp
    >>> floats("mse", x=jnp.zeros((2, 2, 1), jnp.uint8))
    Traceback (most recent call last):
    ...
    ValueError: mse takes floating-point images, got uint8 for x: divide 8-bit images by 255 first
    """
    for argument, array in arrays.items():
        dtype = jnp.result_type(array)
        if not jnp.issubdtype(dtype, jnp.floating):
            eight_bits = dtype == jnp.uint8
            remedy = "divide 8-bit images by 255 first" if eight_bits else "convert it first"
            raise ValueError(
                f"{name} takes floating-point images, got {dtype} for {argument}: {remedy}"
            )


def what(error: BaseException) -> str:
    """An error's kind and first line, for a message.

    Args:
        error: any.

    Returns:
        One line.

    >>> what(ValueError("a\\nb"))
    'ValueError: a'
    """
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
