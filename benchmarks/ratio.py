"""How the library compares with something else: one number, and within what the next one lies."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from benchmarks.turns import median

SURE = 0.95
"""How sure it is that one more turn lies within the spread."""


class Ratio(NamedTuple):
    """A row of the table of all benchmarks."""

    name: str
    """What is done."""
    against: str
    """Who else does it, or what it is measured by."""
    unit: str
    """Of the next two."""
    ours: float
    """The median of the library."""
    theirs: float
    """That of the other."""
    ratio: float
    """How many times better the library is: less than 1 where it is worse."""
    low: float
    """Between this and `high` one more turn's ratio lies 19 times of 20, if they are log-normal."""
    high: float
    turns: int
    """In which both were measured; 1 of what does not vary."""


def compared(
    name: str, found: Mapping[str, Sequence[float]], *, ours: str, unit: str = "s"
) -> list[Ratio]:
    """The library against each other side, by what they took in the same turns.

    Args:
        name: what was done.
        found: seconds, or whatever else is better the less it is, by side, one number a turn.
        ours: the side of the library.
        unit: of the numbers.

    Returns:
        A row for each other side. Its ratio is the median of those of the turns.

    >>> [row] = compared("a step", {"JAX": [1.0, 1.0, 2.0], "torch": [2.0, 3.0, 8.0]}, ours="JAX")
    >>> row.against, row.ours, row.theirs, row.ratio, row.turns
    ('torch', 1.0, 3.0, 3.0, 3)
    >>> f"{row.low:.2f} to {row.high:.2f}"
    '0.53 to 16.92'
    """
    return [
        _row(name, other, unit, found[ours], theirs, np.divide(theirs, found[ours]))
        for other, theirs in found.items()
        if other != ours
    ]


def rate(
    name: str, against: str, unit: str, ours: Sequence[float], theirs: Sequence[float]
) -> Ratio:
    """The library against another by what each gets done in a time, one number a turn.

    >>> rate("a step", "a product", "operations/s", [3.0, 4.0, 5.0], [10.0, 10.0, 10.0]).ratio
    0.4
    """
    return _row(name, against, unit, ours, theirs, np.divide(ours, theirs))


def less(name: str, against: str, unit: str, ours: float, theirs: float) -> Ratio:
    """The library against another by what each needs, where that does not vary.

    >>> less("a step", "two images", "operations", 4.0, 2.0).ratio
    0.5
    """
    return _row(name, against, unit, [ours], [theirs], np.divide([theirs], [ours]))


def _row(
    name: str,
    against: str,
    unit: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    ratios: np.ndarray,
) -> Ratio:
    middle, turns = float(np.median(ratios)), len(ratios)
    both = median([*ours]), median([*theirs])
    apart = math.exp(_half_width(np.log(ratios))) if turns > 1 else 1.0
    return Ratio(name, against, unit, *both, middle, middle / apart, middle * apart, turns)


def _half_width(numbers: np.ndarray) -> float:
    """Of the interval in which one more number like these lies, by Student's t."""
    count = len(numbers)
    beyond = stats.t.ppf(0.5 + SURE / 2, count - 1)
    return float(beyond * numbers.std(ddof=1) * math.sqrt(1 + 1 / count))
