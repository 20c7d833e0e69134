"""The table of all benchmarks, as data and as a page."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.ratio import Ratio

MEANING = (
    "A ratio says how many times better the library is, and is less than 1 where it is worse. It "
    "is the median over turns, in which both sides ran one after the other; one more turn would "
    "lie within the spread 19 times of 20, by Student's t of their logarithms, so that it is wide "
    "where there were few turns. What has one turn is counted, and does not vary."
)

COLUMNS = {
    "benchmark": "---",
    "what": "---",
    "against": "---",
    "ours": "---:",
    "theirs": "---:",
    "unit": "---",
    "ratio": "---:",
    "spread": "---",
    "turns": "---:",
}
"""Of the page, and how they are aligned."""


class Measured(NamedTuple):
    """What became of one benchmark."""

    name: str
    ratios: Sequence[Ratio]
    seconds: float
    """That it took."""


def data(
    machine: Mapping[str, Any], measured: Sequence[Measured], missing: Mapping[str, str]
) -> dict[str, Any]:
    """All ratios, ready for JSON.

    Args:
        machine: on which they were measured.
        measured: benchmarks that are finished.
        missing: why others are not, by name.

    Returns:
        Machine, ratios with the benchmark of each, seconds of each benchmark, what is missing.
    """
    return {
        "machine": dict(machine),
        "ratios": [
            {"benchmark": one.name, **row._asdict()} for one in measured for row in one.ratios
        ],
        "seconds": {one.name: one.seconds for one in measured},
        "missing": dict(missing),
    }


def page(
    machine: Mapping[str, Any], measured: Sequence[Measured], missing: Mapping[str, str]
) -> str:
    """The same as a page of Markdown.

    Args:
        machine: as in `data`.
        measured: as in `data`.
        missing: as in `data`.

    Returns:
        The text.

    >>> row = Ratio("a step", "torch", "s", 0.5, 1.0, 2.0, 1.9, 2.2, 3)
    >>> print(page({"device": "cpu"}, [Measured("steps", [row], 9.0)], {}).splitlines()[-1])
    | steps | a step | torch | 0.5 | 1 | s | 2 | 1.9 to 2.2 | 3 |
    """
    about = ", ".join(f"{name} {value}" for name, value in machine.items() if value is not None)
    lines = ["# Benchmarks", "", f"On: {about}.", "", MEANING, ""]
    if missing:
        lines += [f"- missing: {name}, {why}" for name, why in missing.items()] + [""]
    lines.append(_row([*COLUMNS]))
    lines.append("|" + "|".join(COLUMNS.values()) + "|")
    for one in measured:
        for row in one.ratios:
            spread = "" if row.turns == 1 else f"{_short(row.low)} to {_short(row.high)}"
            figures = _short(row.ours), _short(row.theirs), row.unit, _short(row.ratio)
            cells = one.name, row.name, row.against, *figures, spread, str(row.turns)
            lines.append(_row(cells))
    return "\n".join(lines) + "\n"


def outside(before: Sequence[Ratio], after: Sequence[Ratio]) -> list[Ratio]:
    """The ratios of a run that do not lie within the spread that the run before stated.

    Args:
        before: of one run.
        after: of the next; what the one before did not have is left out.

    Returns:
        Those of `after`.
    """
    stated = {(row.name, row.against, row.unit): row for row in before}
    moved = []
    for row in after:
        old = stated.get((row.name, row.against, row.unit))
        if old is not None and not old.low <= row.ratio <= old.high:
            moved.append(row)
    return moved


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _short(number: float) -> str:
    return f"{number:.3g}"
