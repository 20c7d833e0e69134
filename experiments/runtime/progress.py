"""What a training phase shows while it runs: a bar on a terminal, else a line now and then."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from latent_flows._transforms import even_size

Report = Callable[[int, str], None]
"""`(steps done, text)`: shows where the phase is."""

EVERY = 10.0  # seconds between two lines when stdout is no terminal


@contextlib.contextmanager
def progress(name: str, start: int, total: int) -> Iterator[Report]:
    """Shows the progress of a phase that begins at step `start` of `total`."""
    console = Console()
    with (
        _bar(console, name, start, total)
        if console.is_terminal
        else _lines(name, start, total) as report
    ):
        yield report


def in_parts(
    name: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    size: int,
    told: Callable[[Any], str],
) -> Any:
    """A function of arrays, some rows at a time, with its progress.

    All parts have one number of rows, so that one program is compiled: the last are filled up.

    Args:
        name: what is done.
        function: of arrays with a common first axis, to a pytree of such.
        args: the arrays.
        size: the most rows of a part.
        told: from what it gives for a part to what is shown.

    Returns:
        What it gives, of all rows.

    >>> in_parts("halves", lambda x: x / 2, (np.arange(5.0),), 2, lambda x: f"sum {x.sum()}")
    halves: step 0 of 5, begins
    halves: step 5 of 5, sum 2.0
    array([0. , 0.5, 1. , 1.5, 2. ])
    """
    count = len(args[0])
    size = even_size(count, size)
    found = []
    with progress(name, 0, count) as report:
        report(0, "begins")
        for first in range(0, count, size):
            number = min(size, count - first)
            filled = np.resize(np.arange(first, first + number), size)
            made = function(*(arg[filled] for arg in args))
            found.append(jax.tree.map(lambda leaf, n=number: np.asarray(leaf)[:n], made))
            report(first + number, told(found[-1]))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)


@contextlib.contextmanager
def _bar(console: Console, name: str, start: int, total: int) -> Iterator[Report]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(name, total=total, completed=start, text="")

        def report(done: int, text: str) -> None:
            bar.update(task, completed=done, text=text)

        yield report


@contextlib.contextmanager
def _lines(name: str, start: int, total: int) -> Iterator[Report]:
    shown = -float("inf")
    last = -1
    first: tuple[int, float] | None = None  # before which programs are compiled

    def report(done: int, text: str) -> None:
        nonlocal shown, last, first
        now = time.monotonic()
        if first is None and done > start:
            first = done, now
        # Where nothing has been done since the last report, something else begins.
        if now - shown < EVERY and last != done < total:
            last = done
            return
        shown, last = now, done
        rest = ""
        if first is not None and first[0] < done < total:
            rest = f", {(total - done) * (now - first[1]) / (done - first[0]):.0f} s left"
        print(f"{name}: step {done} of {total}, {text}{rest}", flush=True)

    yield report
