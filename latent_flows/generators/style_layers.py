"""Which layers of a style-based generator a latent is given to."""

import re
from collections.abc import Sequence

__all__ = ["check_layers", "layer_numbers"]

_RANGE = re.compile(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?")


def layer_numbers(text: str, count: int, setting: str = "generator.layers") -> tuple[int, ...]:
    """The layers that a text such as `"4-7"` or `"0,2,5-6"` names, counted from 0.

    Args:
        text: numbers and ranges with both ends, separated by commas.
        count: how many layers there are.
        setting: what the text was given as, for the message.

    Returns:
        The numbers, in increasing order.

    Raises:
        ValueError: a text that is none, or a layer that there is not.

    >>> layer_numbers("4-7", 14), layer_numbers("5, 0-1", 14)
    ((4, 5, 6, 7), (0, 1, 5))
    """
    ranges = _ranges(text, setting)
    if (last := max(high for _, high in ranges)) >= count:
        raise ValueError(
            f"{setting} {text} names layer {last}, and there are {count}: 0 to {count - 1}"
        )
    return tuple(sorted({i for low, high in ranges for i in range(low, high + 1)}))


def check_layers(text: str, setting: str = "generator.layers") -> None:
    """Whether a text names layers, of however many there are.

    Args:
        text: as of `layer_numbers`.
        setting: as there.

    Raises:
        ValueError: it does not.
    """
    _ranges(text, setting)


def _ranges(text: str, setting: str) -> Sequence[tuple[int, int]]:
    found = [_RANGE.fullmatch(part) for part in text.split(",")]
    ranges = [(int(one[1]), int(one[2] or one[1])) for one in found if one is not None]
    if len(ranges) < len(found) or any(low > high for low, high in ranges):
        raise ValueError(
            f"{setting} must be numbers and ranges from 0 such as 4-7 or 0,2,5-6, got {text}"
        )
    return ranges
