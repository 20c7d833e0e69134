"""The table of flows and lines in a README says what the numbers beside it say."""

import json
import re
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "experiments/potential_flows/README.md"
COLUMNS = {
    "VAE that shifts coordinates, sprites": "baselines-sprites",
    "plain VAE, sprites": "baselines-sprites-conv",
    "SNGAN, sprites": "baselines-sprites-gan",
    "VAE of moved digits": "baselines-mnist-moved",
    "VAE of scenes": "baselines-scenes",
}
"""Groups of results, by the columns of the table."""
MEASURES = {"linear R² of the factors": "linear R2", "turning, radians": "turning"}
"""Rows that are about generators, which the run of the first row measures."""
CALLED = {
    "ICA or most visible axes": ("ICA axes", "most visible axes"),
    "potentials, not aligned": ("wave",),
    "potentials, aligned in the metric": ("ours: wave, aligned in the metric",),
    "local basis at each start": ("local basis",),
    "true factors, re-encoded": ("re-encoded truth",),
}
"""Rows of the results, where they have another name here."""


def table() -> dict[str, dict[str, str]]:
    """The cells of the table, by row and column."""
    text = README.read_text(encoding="utf-8").split("## When flows beat straight lines", 1)[1]
    lines = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)[0].splitlines()
    head, _, *rows = ([cell.strip(" *") for cell in line.split("|")[1:-1]] for line in lines)
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


def entries(group: str) -> list[dict]:
    return json.loads((ROOT / f"docs/results/{group}.json").read_text())["entries"]


def spread(numbers: list[float]) -> str:
    return f"{statistics.mean(numbers):.2f} ± {statistics.stdev(numbers):.2f}"


def cell(group: str, row: str) -> str:
    """What the results say."""
    if row in MEASURES:
        values = [each["values"].get(MEASURES[row]) for each in entries(group)]
        found = [value for value in values if value is not None]
        return spread(found) if len(found) > 1 else ""
    labels = CALLED.get(row, (row,))
    values = [each["values"] for each in entries(group) if each["label"] in labels]
    if not values:
        return ""
    worst = min(value["worst share"] for value in values)
    return f"{spread([value['factor share'] for value in values])} ({worst:.2f})"


@pytest.mark.parametrize("row", table())
def test_each_cell_is_what_was_measured(row):
    found = table()[row]
    assert found == {column: cell(group, row) for column, group in COLUMNS.items()}


def test_nothing_is_left_out():
    shown = {label for row in table() for label in CALLED.get(row, (row,))}
    followed = {each["label"] for each in entries("baselines-sprites-gan")}
    assert followed <= shown
