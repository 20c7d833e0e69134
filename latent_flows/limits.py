"""The ranges that settings must lie in, with errors that name the setting."""

from typing import Any


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
