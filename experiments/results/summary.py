"""Mean and standard deviation over the metrics of several finished runs, such as seeds."""

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from experiments.runtime import tables as printed
from experiments.runtime.cli import UsageError
from experiments.runtime.json_values import is_number
from experiments.runtime.run_dir import made_by, read_header, read_object
from latent_flows._validation import choose

METRICS = "metrics.json"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Config:
    """Average the metrics of several runs of one experiment."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Finished run folders, at least two, of one experiment."""
    measures: tuple[str, ...] = ()
    """Measures to show, such as f_measure; none: all."""


def tables(metrics: Row, name: str = "metrics") -> dict[str, list[Row]]:
    """The tables in the metrics of a run: its lists of rows, and its numbers as a row of one.

    Example:
        >>> tables({"loss": 1.0, "methods": [{"method": "a", "share": 0.5}]})
        {'metrics': [{'loss': 1.0}], 'methods': [{'method': 'a', 'share': 0.5}]}
    """
    found: dict[str, list[Row]] = {}
    if numbers := {key: value for key, value in metrics.items() if is_number(value)}:
        found[name] = [numbers]
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            found |= tables(value, key)
        elif isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
            found[key] = value
    return found


def identity(row: Row) -> tuple[tuple[str, str], ...]:
    """The words of a row, which say what its numbers are of."""
    return tuple((name, value) for name, value in row.items() if isinstance(value, str))


def average(runs: Sequence[Sequence[Row]]) -> list[dict[str, Any]]:
    """One row for each row that all runs have, with `mean ± deviation` of every number in it.

    Args:
        runs: the rows of the same table in each run. Rows belong together when their words agree.

    Returns:
        The rows, in the order of the first run. The deviation is that of a sample (`n - 1`).

    Example:
        >>> average([[{"method": "a", "share": 0.5}], [{"method": "a", "share": 0.7}]])
        [{'method': 'a', 'share': '0.6 ± 0.1414'}]
    """
    keyed = [{identity(row): row for row in rows} for rows in runs]
    result = []
    for words, first in keyed[0].items():
        if not all(words in rows for rows in keyed):
            continue
        same = [rows[words] for rows in keyed]
        numbers = {
            name: [row[name] for row in same]
            for name in first
            if all(is_number(row.get(name)) for row in same)
        }
        result.append(
            {**dict(words), **{name: _spread(values) for name, values in numbers.items()}}
        )
    return result


def _spread(values: Sequence[float]) -> str:
    return f"{printed.text(float(np.mean(values)))} ± {printed.text(float(np.std(values, ddof=1)))}"


def load(config: Config) -> list[dict[str, list[Row]]]:
    """The tables of each run.

    Raises:
        UsageError: fewer than two runs, runs of several experiments, or a run without metrics.
    """
    if len(config.runs) < 2:
        raise UsageError(f"a summary needs at least two run folders, got {len(config.runs)}")
    seen: dict[Path, str] = {}
    for run in config.runs:
        path = Path(run).expanduser().resolve()
        if path in seen:
            raise UsageError(f"{seen[path]} and {run} are one run: it says nothing of a deviation")
        seen[path] = run
    makers = {run: made_by(run) for run in config.runs}
    if len(set(makers.values())) > 1:
        raise UsageError(f"the runs are of several experiments: {makers}")
    paths = [Path(run).expanduser() / METRICS for run in config.runs]
    for path in paths:
        if not path.exists():
            raise UsageError(
                f"{path.parent} has no {METRICS}; run it to its end first, without --no-scores"
            )
    configs = {run: read_header(run)["config"] for run in config.runs}
    for first, second in itertools.combinations(config.runs, 2):
        if configs[first] and configs[first] == configs[second]:
            print(
                f"warning: {first} and {second} have the same settings and seed: their deviation "
                "says nothing",
                file=sys.stderr,
                flush=True,
            )
    return [tables(read_object(path)) for path in paths]


def chosen(row: Row, measures: Sequence[str]) -> dict[str, Any]:
    """The words of a row, and those of its numbers that are asked for.

    >>> chosen({"method": "a", "x": 1.0, "y": 2.0}, ["y"])
    {'method': 'a', 'y': 2.0}
    """
    return dict(identity(row)) | {name: row[name] for name in measures if name in row}


def run(config: Config) -> None:
    """Print every table that the runs have in common.

    Raises:
        UsageError: also a measure that no table has.
    """
    found = load(config)
    if config.measures:
        known = {name for rows in found[0].values() for row in rows for name in row}
        for name in config.measures:
            choose("measure", name, dict.fromkeys(known))
        found = [
            {
                name: [
                    chosen(row, config.measures) for row in rows if row.keys() & {*config.measures}
                ]
                for name, rows in tables.items()
            }
            for tables in found
        ]
    for name, rows in found[0].items():
        averaged = average([rows, *(other.get(name, []) for other in found[1:])])
        if averaged:
            printed.show(f"{name}, mean ± standard deviation of {len(found)} runs", averaged)
