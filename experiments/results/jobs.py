"""The runs that make up a group of results."""

import shlex
from pathlib import Path
from typing import NamedTuple

from experiments.results.groups import Group, Row


class Job(NamedTuple):
    """A run of one row with one seed."""

    label: str
    seed: int
    folder: Path
    command: list[str]
    """From `python` on."""


def arguments(module: str, flags: str, folder: Path, seed: int, generator: str) -> list[str]:
    """The command of a run.

    >>> arguments("experiments.x", "small --a 1", Path("runs/x"), 2, "")
    ['python', '-m', 'experiments.x', 'small', '--a', '1', '--seed', '2', '--run', 'runs/x']
    """
    given = ["--generator", generator] if generator else []
    words = [*shlex.split(flags), *given, "--seed", str(seed), "--run", folder.as_posix()]
    return ["python", "-m", module, *words]


def slug(label: str) -> str:
    """A label as the name of a folder.

    >>> slug("ours: wave, natural gradient")
    'ours-wave-natural-gradient'
    """
    kept = "".join(letter if letter.isalnum() else " " for letter in label)
    return "-".join(kept.split())


def flags_of(group: Group, row: Row) -> str:
    """The flags of a row: those that all share, and its own."""
    return f"{group.shared} {row.flags}"


def run_of(group: Group, label: str) -> Row | None:
    """The row whose run the numbers of a row are taken from; None of one that is no longer there.

    >>> rows = (Row("a"), Row("b", of="a"))
    >>> run_of(Group("", "", rows, {}), "b").label
    'a'
    """
    rows = {row.label: row for row in group.rows}
    return rows[rows[label].of or label] if label in rows else None


def is_of(group: Group, row: Row, command: str) -> bool:
    """Whether a command has the flags that a row has now, whatever its generator and its folder.

    Args:
        group: the row's.
        row: that is run.
        command: as it was run.
    """
    words = ["python", "-m", group.module, *shlex.split(flags_of(group, row))]
    found = shlex.split(command)
    return found[: len(words)] == words and found[len(words)] in ("--generator", "--seed")


def generator_of(command: str) -> str:
    """The generator that a command names, or nothing.

    >>> generator_of("python -m experiments.x small --generator runs/vae-1 --seed 1")
    'runs/vae-1'
    """
    words = shlex.split(command)
    return words[words.index("--generator") + 1] if "--generator" in words else ""
