"""The table of results as a page: mean and deviation over seeds, figures, and commands."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from experiments.results.groups import ACROSS, GROUPS, STRAIGHT, STRAIGHTNESS, Across, Group
from experiments.results.jobs import generator_of, is_of, run_of
from experiments.results.meanings import changed
from experiments.results.store import SETTINGS, read_entries
from experiments.runtime.cli import UsageError
from experiments.runtime.run_dir import Folder, understood
from latent_flows import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "RESULTS.md"
Rows: TypeAlias = Mapping[str, Sequence[Mapping[str, Any]]]
"""The entries of a group, one a seed, by the label of their row."""
INTRODUCTION = """\
# Results

Mean and deviation (of a sample) over seeds. Each group is run again by
`python -m experiments.table run GROUP`, and this page made by `python -m experiments.table render`;
both go on from what is there. The numbers of each seed are in `GROUP.json`."""


def spread(numbers: Sequence[float]) -> str:
    """Mean and deviation, to two digits of the deviation; of a single number four digits.

    >>> spread([0.5, 0.7]), spread([0.5]), spread([])
    ('0.60 ± 0.14', '0.5', '-')
    """
    if not numbers:
        return "-"
    mean = float(np.mean(numbers))
    if len(numbers) == 1:
        return f"{mean:.4g}"
    deviation = float(np.std(numbers, ddof=1))
    size = deviation if deviation > 0 else abs(mean) / 1000
    digits = 2 if size == 0 else int(np.clip(1 - np.floor(np.log10(size)), 0, 4))
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def by_row(group: Group, entries: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The entries of each row that has any, in the order of the group; former rows come last.

    Those of a row are in the order of their seeds, whichever was done first.
    """
    labels = [*(row.label for row in group.rows), *(entry["label"] for entry in entries)]
    in_order = sorted(entries, key=lambda entry: entry["seed"])
    found = {
        label: [entry for entry in in_order if entry["label"] == label]
        for label in dict.fromkeys(labels)
    }
    return {label: own for label, own in found.items() if own}


def check(name: str, group: Group, entries: Sequence[Mapping[str, Any]]) -> None:
    """Rejects numbers that were measured by other flags or settings than their row has now.

    Settings are those of the run and of the training of its generator, where they were kept.

    Raises:
        UsageError: there are some.
    """
    for entry in entries:
        label, seed = entry["label"], entry["seed"]
        # A row that is no longer there had flags of its own.
        if (own := run_of(group, label)) is None:
            continue
        if not is_of(group, own, entry["command"]):
            said = "other flags than it has now"
        elif differs := changed(entry.get(SETTINGS, {}), group, own):
            said = f"other settings than its flags mean now ({', '.join(differs[:3])})"
        else:
            continue
        raise UsageError(
            f"{name}: {label}, seed {seed}, was run by {said}; run it again: "
            f"python -m experiments.table run {name} --seeds {seed} --rows '{own.label}'"
        )


def column(entries: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """The numbers of a column over the seeds that have one."""
    return [entry["values"][name] for entry in entries if name in entry["values"]]


def seeds(entries: Sequence[Mapping[str, Any]]) -> str:
    """How many seeds there are, and what became of those that have no numbers.

    >>> seeds([{"status": "done"}, {"status": "diverged"}])
    '1 (and 1 diverged)'
    """
    lost = sum(entry["status"] == "diverged" for entry in entries)
    return f"{len(entries) - lost}" + (f" (and {lost} diverged)" if lost else "")


def table(group: Group, rows: Rows) -> list[str]:
    """The rows as lines of Markdown; a column that no row has a number for is left out."""
    columns = [
        name for name in group.measures if any(column(entries, name) for entries in rows.values())
    ]
    lines = [
        "| " + " | ".join(["", *columns, "seeds"]) + " |",
        "|" + "---|" * (len(columns) + 2),
    ]
    for label, entries in rows.items():
        cells = [spread(column(entries, name)) for name in columns]
        lines.append("| " + " | ".join([label, *cells, seeds(entries)]) + " |")
    return lines


def commands(rows: Rows) -> list[str]:
    """The command of each row's first seed, once for rows of one run, and why others diverged."""
    lines = ["<details><summary>The command of each row, first seed</summary>", ""]
    labels: dict[str, list[str]] = {}
    for label, entries in rows.items():
        labels.setdefault(entries[0]["command"], []).append(label)
    for command, own in labels.items():
        lines.append(f"- {', '.join(own)}: `{command}`")
        lines += [
            f"  - seed {entry['seed']} diverged: {entry.get('message', '')}"
            for entry in rows[own[0]]
            if entry["status"] == "diverged"
        ]
    return [*lines, "", "</details>"]


def on_which(group: Group, rows: Rows) -> str:
    """Which generator the rows of a group are about, and the command that makes it."""
    if not group.generator:
        return ""
    entries = [entry for own in rows.values() for entry in own]
    generators = {generator_of(entry["command"]) for entry in entries}
    is_one = len(generators) == 1 < len({entry["seed"] for entry in entries})
    which = "one generator" if is_one else "a generator of each seed"
    return f", on {which} by `python -m {group.generator}`"


class Beside(NamedTuple):
    """The rows of several groups side by side."""

    labels: list[str]
    lines: list[str]
    """Of Markdown."""
    panels: dict[str, list[list[float]]]
    """What is drawn, by what a group is called."""


def beside(across: Across, found: Mapping[str, Rows]) -> Beside:
    """The rows of several groups side by side, each with how straight its generators are."""
    named = {}
    for heading, name in across.groups.items():
        if rows := found.get(name):
            how = [
                spread([n for entries in rows.values() for n in column(entries, name)])
                for name in STRAIGHTNESS
            ]
            named[f"{heading} ({', '.join(how)})"] = rows
    labels = [*dict.fromkeys(label for rows in named.values() for label in rows)]
    headings = [f"{heading}: {name}" for heading in named for name in across.columns]
    lines = ["| " + " | ".join(["", *headings]) + " |", "|" + "---|" * (len(headings) + 1)]
    for label in labels:
        cells = [
            spread(column(rows.get(label, ()), name))
            for rows in named.values()
            for name in across.columns
        ]
        lines.append("| " + " | ".join([label, *cells]) + " |")
    drawn = {
        # On two lines, for panels that are side by side.
        heading.replace(" (", "\n("): [
            column(rows.get(label, ()), across.columns[0]) for label in labels
        ]
        for heading, rows in named.items()
    }
    return Beside(labels, lines, drawn)


def against_straightness(
    across: Across, found: Mapping[str, Rows]
) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """The first column of the rows that are followed, beside how straight the generator of the
    same seed is: points by what a row and a group are called."""
    measure = across.columns[0]
    points: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for kind, name in across.groups.items():
        rows = found.get(name, {})
        straight = {
            entry["seed"]: entry["values"][STRAIGHT]
            for entries in rows.values()
            for entry in entries
            if STRAIGHT in entry["values"]
        }
        for called, label in across.followed.items():
            points.setdefault(called, {})[kind] = [
                (straight[entry["seed"]], entry["values"][measure])
                for entry in rows.get(label, ())
                if entry["seed"] in straight and measure in entry["values"]
            ]
    return points


def render(results: str) -> list[Path]:
    """Write the page and the figures.

    Returns:
        The files written.

    Raises:
        UsageError: there are no numbers, or some of other flags than the row has now.
    """
    path = Path(results).expanduser().absolute()
    folder, page, written = Folder(path), [INTRODUCTION], []
    found: dict[str, Rows] = {}
    for name, group in GROUPS.items():
        if (path / f"{name}.json").exists():
            with understood(path / f"{name}.json"):
                entries = read_entries(path / f"{name}.json")
                check(name, group, entries)
                found[name] = by_row(group, entries)

    def put(name: str, figure: "Figure", title: str) -> list[str]:
        folder.write_bytes(f"{name}.png", plots.png_bytes(figure))
        written.append(path / f"{name}.png")
        return ["", f"![{title}]({name}.png)"]

    def draw(
        name: str, panels: Mapping[str, Any], labels: Sequence[str], title: str, one_scale: bool
    ) -> list[str]:
        caption = f"{title}. Small: one seed each; large: mean and deviation."
        figure = plots.dots(panels, labels=labels, caption=caption, one_scale=one_scale)
        return put(name, figure, title)

    for name, across in ACROSS.items():
        if sum(bool(found.get(of)) for of in across.groups.values()) > 1:
            both = beside(across, found)
            page += ["", f"## {across.title}", "", across.notes.strip(), "", *both.lines]
            title = f"{across.title}: {across.columns[0]}"
            curves = against_straightness(across, found)
            if any(any(kinds.values()) for kinds in curves.values()):
                how = f"{title}, against {STRAIGHT}"
                caption = f"{how}. Small: one seed each; large: their mean."
                figure = plots.scatter(curves, x=STRAIGHT, y=across.columns[0], caption=caption)
                page += put(f"{name}-straightness", figure, how)
            page += draw(name, both.panels, both.labels, title, one_scale=True)
    for name, rows in found.items():
        if not rows:
            continue
        group = GROUPS[name]
        page += ["", f"## {group.title}", "", group.notes.strip(), "", *table(group, rows)]
        panels = {c: [column(entries, c) for entries in rows.values()] for c in group.figure}
        if panels := {c: numbers for c, numbers in panels.items() if any(numbers)}:
            page += draw(name, panels, [*rows], group.title, one_scale=False)
        run = f"`python -m experiments.table run {name}`{on_which(group, rows)}"
        page += ["", run, "", *commands(rows)]
    if len(page) == 1:
        raise UsageError(
            f"{path} has no numbers of any group; python -m experiments.table run GROUP makes them"
        )
    folder.write_bytes(PAGE, ("\n".join(page) + "\n").encode())
    return [path / PAGE, *written]
