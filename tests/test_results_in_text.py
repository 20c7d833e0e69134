"""Tables that were set by hand in READMEs say what the numbers in docs/results say."""

import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

import pytest

ROOT = Path(__file__).parents[1]
Row: TypeAlias = list[dict[str, float]]
"""What was measured, seed by seed."""
Column: TypeAlias = Callable[[str], list[float]]
"""The numbers of a cell, in the order of the text, by what its row is called."""


class Table(NamedTuple):
    """A table of a README."""

    readme: str
    after: str
    """What stands before it, maybe far."""
    head: Sequence[str]
    """What its columns are called, but for the first."""
    columns: Sequence[Column]


@cache
def rows(group: str) -> Mapping[str, Row]:
    """What was measured of a group."""
    found: dict[str, Row] = {}
    for each in json.loads((ROOT / f"docs/results/{group}.json").read_text())["entries"]:
        if each["status"] == "done":
            found.setdefault(each["label"], []).append(each["values"])
    return found


def spread(row: Row, measure: str) -> list[float]:
    """Mean and deviation over seeds, or the number of one."""
    values = [values[measure] for values in row if measure in values]
    return [statistics.mean(values), statistics.stdev(values)] if values[1:] else values


def column(
    group: str, measures: Sequence[str], called: Mapping[str, str], name: str
) -> list[float]:
    """Of a row that may have another name: the first of some measures that it has."""
    row = rows(group)[called.get(name, name)]
    return next((found for measure in measures if (found := spread(row, measure))), [])


GENERATORS = {
    "VAE that shifts coordinates, sprites": "baselines-sprites",
    "plain VAE, sprites": "baselines-sprites-conv",
    "SNGAN, sprites": "baselines-sprites-gan",
    "VAE of moved digits": "baselines-mnist-moved",
    "VAE of scenes": "baselines-scenes",
}
"""Groups of results, by the columns of the table."""
OF_GENERATORS = {"linear R² of the factors": "linear R2", "turning, radians": "turning"}
"""Rows that are about generators, which the run of the first row measures."""
TRAVERSALS = {
    "ICA or most visible axes": ("ICA axes", "most visible axes"),
    "potentials, not aligned": ("wave",),
    "potentials, aligned in the metric": ("ours: wave, aligned in the metric",),
    "local basis at each start": ("local basis",),
    "true factors, re-encoded": ("re-encoded truth",),
}


def share(group: str, name: str) -> list[float]:
    """The factor share of a traversal, and of the worst one; or what is said of generators."""
    if name in OF_GENERATORS:
        found = spread(rows(group)["wave"], OF_GENERATORS[name])
        return found if len(found) > 1 else []
    labels = TRAVERSALS.get(name, (name,))
    row = [values for label in labels for values in rows(group).get(label, [])]
    worst = [min(values["worst share"] for values in row)] if row else []
    return spread(row, "factor share") + worst


SEQUENCES = {
    "one for each frame (VAE)": "VAE, a code for each frame",
    "along a line": "codes along a line",
    "by a linear map": "codes along a linear map",
    "along a potential flow": "potential flow",
    "the same, factor inferred": "potential flow, factor inferred",
}
EQUIVARIANCE = ("equivariance error", "straight directions' error")
OF_SEQUENCES = {
    "a frame of a sequence": ("a frame of a sequence",),
    # Of a VAE with a code for each frame both are one.
    "a frame alone": ("a frame alone", "a frame alone, N(0, I)"),
    "alone, under N(0, I)": ("a frame alone, N(0, I)",),
    "equivariance error": EQUIVARIANCE,
}
"""Measures, by the columns of the tables."""
JOINT = {
    "beta-VAE, beta 2": "beta-VAE",
    "potential flow": "potential flow, factor known",
    "potential flow, standard prior and small weights": "potential flow, standard prior",
}
OF_JOINT = {
    "plain images": ("bound, plain",),
    "transformed": ("bound, transformed",),
    "a frame of a whole sequence": ("bound, a frame of a sequence",),
    "equivariance error, pixels a frame": EQUIVARIANCE,
}


def parameters(group: str, name: str) -> list[float]:
    return spread(rows(group)[SEQUENCES[name]], "parameters")[:1]


def guided(measures: Sequence[str], count: int, name: str) -> list[float]:
    """What was measured with so many sequences."""
    row = rows("guided-sprites")[f"{count} sequences, {name}"]
    return [number for measure in measures for number in spread(row, measure)]


LEAKAGE = ("leakage", "over that of constant directions")
TABLES = {
    "flows and lines": Table(
        "potential_flows",
        "## When flows beat straight lines",
        list(GENERATORS),
        [partial(share, group) for group in GENERATORS.values()],
    ),
    **{
        f"sequences of {data}": Table(
            "flow_vae",
            after,
            [*OF_SEQUENCES, "parameters"],
            [
                *(
                    partial(column, f"sequences-{data}", measures, SEQUENCES)
                    for measures in OF_SEQUENCES.values()
                ),
                partial(parameters, f"sequences-{data}"),
            ],
        )
        for data, after in {
            "digits": "## What part is the flow",
            "sprites": "(`sequences-sprites`",
            "mnist": "(`sequences-mnist`",
            "scenes": "(`sequences-scenes`",
        }.items()
    },
    **{
        f"likelihood of {data}": Table(
            "flow_vae",
            after,
            list(OF_JOINT),
            [partial(column, f"joint-{data}", each, JOINT) for each in OF_JOINT.values()],
        )
        for data, after in (("mnist", "| on MNIST"), ("sprites", "| on sprites"))
    },
    "guided flows": Table(
        "supervised_flows",
        "## What reproduces",
        [
            "R² of x",
            "y",
            "scale",
            "leakage with 15",
            "150",
            "1,500",
            "error at twice the time with 15",
            "150",
            "1,500",
        ],
        [
            *(partial(guided, [f"R2 of {factor}"], 1500) for factor in ("x", "y", "scale")),
            *(partial(guided, LEAKAGE, count) for count in (15, 150, 1500)),
            *(partial(guided, ["error at twice the time"], count) for count in (15, 150, 1500)),
        ],
    ),
}


def read(table: Table) -> list[list[str]]:
    """The cells of a table, row by row, its head first."""
    text = (ROOT / f"experiments/{table.readme}/README.md").read_text(encoding="utf-8")
    _, found, rest = text.partition(table.after)
    lines = re.search(r"(?:^\|.*\n)+", found + rest, re.MULTILINE)[0].splitlines()
    del lines[1]  # the rule
    return [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in lines]


def said(cell: str) -> list[str]:
    return re.findall(r"-?[\d.]+", cell.replace(",", ""))


def as_said(number: float, text: str) -> str:
    """A number with as many decimals as another one has."""
    return f"{number:.{len(text.partition('.')[2])}f}"


@pytest.mark.parametrize("name", TABLES)
def test_each_cell_is_what_was_measured(name):
    table = TABLES[name]
    (_, *head), *body = read(table)
    assert head == [*table.head]
    for label, *cells in body:
        for cell, numbers in zip(cells, (of(label) for of in table.columns), strict=True):
            texts = said(cell)
            assert len(texts) == len(numbers), (label, cell, numbers)
            assert texts == [*map(as_said, numbers, texts)], (label, cell)


def test_nothing_is_left_out():
    shown = {
        label
        for name, *_ in read(TABLES["flows and lines"])[1:]
        for label in TRAVERSALS.get(name, (name,))
    }
    assert rows("baselines-sprites-gan").keys() <= shown
