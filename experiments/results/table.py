"""Run every method of the project side by side, group by group, and render the table of results.

`run GROUP ...` runs each row with each seed in its own folder and keeps the numbers of what is
finished in RESULTS/GROUP.json; `render` makes RESULTS/RESULTS.md and the figures of them. Rows that
are finished are not run again, and a seed that diverges is kept as such.
"""

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

import numpy as np
import tyro

from experiments.results import meanings
from experiments.results import page as table_page
from experiments.results.groups import GROUPS, Group, Measure, Row
from experiments.results.jobs import Job, arguments, flags_of, run_of, slug
from experiments.results.store import SETTINGS, Entry, Store, results_in
from experiments.results.workers import Workers, available_cores
from experiments.runtime.cli import Failure, UsageError
from experiments.runtime.json_values import is_number
from experiments.runtime.run_dir import read_object
from latent_flows._validation import choose

METRICS = "metrics.json"
Todo: TypeAlias = tuple[str, Job]
"""A job, and the group it is of."""


class Ended(NamedTuple):
    """What came of a job of a group."""

    group: str
    job: Job
    status: str
    """`done` or `diverged`."""
    message: str
    """Why it diverged."""
    seconds: float


@dataclass(frozen=True)
class Run:
    """Run groups of rows."""

    groups: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(help=f"Groups: {', '.join(GROUPS)}."),
    ]
    """Names of `GROUPS`."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of every row."""
    rows: tuple[str, ...] = ()
    """Labels of the rows to run; none: all."""
    root: str = "runs/table"
    """Folder of the runs."""
    generator: str = ""
    """Run folder whose generator to use for every seed; empty: the group's own, which is trained
    with each seed first."""
    results: str = "docs/results"
    """Folder for the numbers."""
    again: bool = False
    """Run again what has diverged."""
    at_once: int = 1
    """Runs side by side, each on its share of the cores: two of small networks, each on half of the
    cores, are done sooner than one after the other."""

    def is_kept(self) -> bool:
        """Whether a row is finished, or has a checkpoint to go on from."""
        return any(
            (Path(self.results) / f"{name}.json").exists()
            or any((Path(self.root) / name).glob("*/checkpoints/*/[0-9]*"))
            for name in self.groups
        )


@dataclass(frozen=True)
class Render:
    """Make the page and the figures of all numbers that there are."""

    results: str = "docs/results"
    """Folder of the numbers, and for what is made of them."""


PRESETS: dict[str, tuple[str, Any]] = {
    "run": ("run the rows of groups: run GROUP ... --seeds 0 1 2", Run(groups=())),
    "render": ("make RESULTS.md and the figures of what was run", Render()),
}


def home(config: Run, group: Group, seed: int) -> Path:
    """Where the generator of a seed of a group is, if it has one of its own."""
    return Path(config.root) / f"{group.home}-{seed}"


def jobs(config: Run, name: str) -> Iterator[Job]:
    """The runs of a group, seed by seed, so that one seed of all rows is there first."""
    group = GROUPS[name]
    for seed in config.seeds:
        generator = config.generator or home(config, group, seed).as_posix()
        for row in group.rows:
            if row.of or (config.rows and row.label not in config.rows):
                continue
            folder = Path(config.root) / name / f"{slug(row.label)}-{seed}"
            used = generator if group.home else ""
            words = arguments(group.module, flags_of(group, row), folder, seed, used)
            yield Job(row.label, seed, folder, words)


def find(metrics: Mapping[str, Any], measure: Measure, method: str) -> float | None:
    """The number of a column in a run's metrics, or None where the run has no such number.

    Args:
        metrics: what the run wrote.
        measure: what is looked for.
        method: of the lines that say of which method they are, which are meant.

    Returns:
        The mean over the lines that fit, and over each of a list of numbers.

    >>> lines = {"rows": [{"method": "a", "share": 0.5}, {"method": "b", "share": [1.0, 3.0]}]}
    >>> find(lines, Measure("share", "rows"), "b"), find(lines, Measure("loss"), "b")
    (2.0, None)
    """
    part = metrics.get(measure.part) if measure.part else metrics
    lines = part if isinstance(part, list) else [part or {}]
    numbers: list[Any] = []
    for line in lines:
        if any(line.get(key) != value for key, value in measure.where.items()):
            continue
        if method and line.get("method", method) != method:
            continue
        value = line.get(measure.name)
        numbers += value if isinstance(value, list) else [value]
    if not numbers or not all(is_number(number) for number in numbers):
        return None
    return float(np.mean(numbers))


def values(group: Group, row: Row, metrics: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of one row of the table, by column.

    What a run says of itself alone is left out of the rows of others that it has measured as well.
    """
    found = {
        column: find(metrics, measure, row.method)
        for column, measure in group.measures.items()
        if not (row.of and isinstance(metrics.get(measure.part), Mapping))
    }
    return {column: number for column, number in found.items() if number is not None}


def short(number: float) -> float:
    """A number as it is kept: to five digits, or whole.

    >>> short(-178.71234), short(1347912.0)
    (-178.71, 1347912.0)
    """
    return number if number.is_integer() else float(f"{number:.5g}")


def keep(
    store: Store, name: str, job: Job, generator: Path | None, status: str, message: str
) -> None:
    """Put what came of a run into the store: its own row, and those that are taken from it.

    Raises:
        UsageError: the folder holds a run, or its generator's the training of one, that was set to
            something else than the flags mean.
    """
    group = GROUPS[name]
    path = job.folder / METRICS
    metrics = read_object(path) if status == "done" else {}
    settings = meanings.kept(job.folder, generator)
    if differs := meanings.changed(settings, group, run_of(group, job.label)):
        raise UsageError(
            f"{name}: {job.folder} was run with other settings than its row has now "
            f"({', '.join(differs[:3])}); choose another --root"
        )
    for row in group.rows:
        if job.label not in (row.label, row.of):
            continue
        entry: Entry = {
            "label": row.label,
            "seed": job.seed,
            "command": shlex.join(job.command),
            "status": status,
            "values": {k: short(v) for k, v in values(group, row, metrics).items()},
            **({"message": message} if message else {}),
            **({SETTINGS: settings} if settings else {}),
        }
        store.put(entry)


def train_generators(config: Run, todo: Sequence[Todo], workers: Workers) -> None:
    """Make the generators that rows need, unless they are there or another one is given.

    Raises:
        Failure: the training of one failed.
    """
    needed = {}
    for name, job in todo:
        group = GROUPS[name]
        folder = home(config, group, job.seed)
        is_there = any((run / METRICS).exists() for run in (folder, job.folder))
        if group.home and not config.generator and not is_there:
            module, flags = group.generator.split(" ", 1)
            words = arguments(module, flags, folder, job.seed, "")
            needed[folder] = (name, Job("generator", job.seed, folder, words))

    def train(name: str, job: Job) -> tuple[str, str, str]:
        _say(f"{name}: training the generator in {job.folder}")
        return name, *workers.run(job)

    def check(ended: tuple[str, str, str]) -> None:
        name, status, message = ended
        if status != "done":
            raise Failure(f"the generator of {name}: {message}")

    workers.each([partial(train, *one) for one in needed.values()], check)


def run_groups(config: Run) -> None:
    """Run what is not finished: the generators first, then the rows."""
    if not config.groups:
        raise UsageError(f"name at least one group of {', '.join(GROUPS)}")
    cores = len(available_cores())
    if not 1 <= config.at_once <= cores:
        raise UsageError(
            f"at_once must lie in [1, {cores}], of which each has a core, got {config.at_once}"
        )
    for name in config.groups:
        group = choose("group", name, GROUPS)
        for label in config.rows:
            choose(f"row of {name}", label, {row.label: row for row in group.rows if not row.of})
    stores = {name: Store(config.results, name) for name in config.groups}
    everything = {name: [*jobs(config, name)] for name in config.groups}
    todo = [
        (name, job)
        for name, rows in everything.items()
        for job in rows
        if (status := stores[name].status(job, GROUPS[name])) != "done"
        and (status != "diverged" or config.again)
    ]
    workers = Workers(config.at_once)

    def where(name: str, job: Job) -> str:
        rows = everything[name]
        return f"{name}, {rows.index(job) + 1} of {len(rows)}: {job.label}, seed {job.seed}"

    def row(name: str, job: Job) -> Ended:
        begun = time.monotonic()
        status, message = "done", ""
        if not (job.folder / METRICS).exists():
            _say(f"{where(name, job)} ...")
            status, message = workers.run(job)
        return Ended(name, job, status, message, time.monotonic() - begun)

    def put(ended: Ended) -> None:
        name, job, status, message, took = ended
        group = GROUPS[name]
        own = home(config, group, job.seed) if group.home and not config.generator else None
        keep(stores[name], name, job, own, status, message)
        _say(f"{where(name, job)}: {status} in {took:.0f} s{message and ': '}{message}")

    train_generators(config, todo, workers)
    workers.each([partial(row, *one) for one in todo], put)


def _say(line: str) -> None:
    """Prints a line at once, so that those of several threads do not mix."""
    print(f"{line}\n", end="", flush=True)


def run(config: Run | Render) -> None:
    """Run rows, or render what was run."""
    if isinstance(config, Render):
        for path in table_page.render(str(results_in(config.results))):
            print(path)
    else:
        run_groups(config)
