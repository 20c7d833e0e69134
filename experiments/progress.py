"""What a training phase shows while it runs: a bar on a terminal, else a line now and then."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

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
    begun = time.monotonic()
    shown = -float("inf")

    def report(done: int, text: str) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown < EVERY and done < total:
            return
        shown = now
        elapsed = now - begun
        left = (total - done) * elapsed / (done - start) if done > start else None
        rest = "" if left is None or done == total else f", {left:.0f} s left"
        print(f"{name}: step {done} of {total}, {text}{rest}", flush=True)

    yield report
