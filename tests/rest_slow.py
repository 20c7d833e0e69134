"""Cases of one property, of which some stand for all among the quick tests."""

from collections.abc import Iterable
from typing import Any

import pytest


def rest_slow(cases: Iterable[Any], every: int) -> list[Any]:
    """The cases, of which the first of each so many is quick and the others are slow.

    >>> [bool(getattr(case, "marks", ())) for case in rest_slow("abcd", every=3)]
    [False, True, True, False]
    """
    return [
        case if place % every == 0 else pytest.param(case, marks=pytest.mark.slow)
        for place, case in enumerate(cases)
    ]
