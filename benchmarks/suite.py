"""All benchmarks one after the other, each in a process of its own, and their ratios in one table.

Run as `python -m benchmarks`. It ends by itself: what has not begun when the time is over is left
for the next time, and what is finished is kept as long as its flags, the code and the machine are
the same.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from benchmarks import bench
from benchmarks.bench import Measured
from benchmarks.command import stop, write_json, write_text
from benchmarks.machine import sources
from benchmarks.peers import has
from benchmarks.ratio import Ratio
from latent_flows._validation import choose


class Benchmark(NamedTuple):
    """One of the modules, at a size that fits into the whole."""

    name: str
    flags: tuple[str, ...]
    seconds: float
    """A guess for two quiet cores, from which the time left is said before any is known."""
    needs: tuple[str, ...] = ()
    """Packages without which there is nothing to compare."""


SUITE = (
    Benchmark("laplacian", ("--dims", "8", "128", "--widths", "64"), 60),
    Benchmark(
        "potential_flows",
        (
            *("--parts", "peers", "memory", "--latents", "64", "--repeats", "9"),
            *("--patience", "15", "--weighed", "torch loop, columns", "torch stacked, hessian"),
        ),
        150,
    ),
    Benchmark("joint_step", ("--parts", "peers", "--repeats", "9", "--patience", "15"), 60),
    Benchmark(
        "geodesics",
        (
            *("--pairs", "64", "--parts", "peers", "bare", "cost"),
            *("--repeats", "9", "--patience", "15"),
        ),
        120,
    ),
    Benchmark("trajectories", ("--size.amounts", "1", "--patience", "15"), 120),
    Benchmark(
        "gan_step",
        ("--size.count", "4", "--size.batch", "4", "--repeats", "5", "--patience", "30"),
        120,
    ),
    Benchmark("steering", ("--latents", "6", "64", "--batch", "8", "--repeats", "1"), 30),
    Benchmark(
        "input",
        ("--sets", "sprites", "folder", "lazy", "--steps", "15", "--turns", "5", "--files", "400"),
        90,
    ),
    Benchmark("from_torch", (), 90, needs=("torch",)),
    Benchmark("operations", (), 150),
)
"""In the order in which they run: last what runs nothing, and only compiles."""

ENVIRONMENT = {
    # XLA frees its buffers after each step on CPU, and without this glibc maps them anew.
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(2**28),
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_ARENA_MAX": "1",
    # Alarms about slow compilations.
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
"""What the environment of each process says besides."""


@dataclass(frozen=True)
class Settings:
    """What is run, and where its table goes."""

    benchmarks: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(
            metavar="NAME", help=f"Which; none: all of {', '.join(one.name for one in SUITE)}."
        ),
    ] = ()
    """Which, by name; all of them by default."""
    out: str = "build/bench"
    """Folder for bench.json, bench.md and a file for each benchmark."""
    again: bool = False
    """Measure anew what is finished already, and say which ratios left their spread."""
    minutes: float = 20.0
    """After which what runs is stopped, and nothing else is begun."""


class UnfinishedError(Exception):
    """A benchmark did not come to its end, and why."""


def run(
    settings: Settings,
    suite: Sequence[Benchmark] = SUITE,
    measure: Callable[[Benchmark, Path, float], None] | None = None,
    machine: Mapping[str, Any] | None = None,
) -> int:
    """Run what is not finished, and write the table after each.

    Args:
        settings: what the command line says.
        suite: the benchmarks that there are.
        measure: runs one, which writes what it found into a file, within so many seconds; raises
            `UnfinishedError`.
        machine: on which they run.

    Returns:
        The exit code: 0; 1 where a benchmark is missing from the table; 2 for a wrong setting.
    """
    measure = in_process if measure is None else measure
    chosen = _chosen(settings, suite)
    folder = Path(settings.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        stop(f"--out {settings.out} cannot be written ({error.strerror}); name another folder", 2)
    found = _machine() if machine is None else machine
    table = _Table(suite, folder, {"code": sources(), "machine": dict(found)})
    for one in suite:
        # What was measured before stays in the table where only some are asked for.
        if one not in chosen and not table.keep(one, again=False):
            table.left_out[one.name] = table.missing.pop(one.name)
    able = [one for one in chosen if not table.leave_out(one)]
    ahead = [one for one in able if not table.keep(one, settings.again)]
    clock = _Clock(settings.minutes, ahead)
    for number, one in enumerate(able, 1):
        at = f"[{number}/{len(able)}] {one.name}"
        if one not in ahead:
            print(f"{at}: kept from before; --again measures it anew", flush=True)
        elif clock.left() <= 0:
            table.missing[one.name] = f"not begun within {settings.minutes:g} minutes"
        else:
            expected = _minutes(clock.expected())
            print(f"{at}: about {_minutes(one.seconds)}; {expected} left in all", flush=True)
            table.add(one, measure, clock.left())
            clock.passed(one)
        table.write()
    table.say()
    if not table.missing:
        return 0
    names = ", ".join(table.missing)
    print(f"not in the table: {names}; the same command goes on with them", file=sys.stderr)
    return 1


def in_process(one: Benchmark, file: Path, seconds: float) -> None:
    """Run a benchmark in a process of its own, and what that starts with it.

    Raises:
        UnfinishedError: it failed, or did not end in time.
    """
    words = [sys.executable, "-m", f"benchmarks.{one.name}", *one.flags, "--json", str(file)]
    environment = ENVIRONMENT | os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(words, env=environment, start_new_session=True) as process:
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise UnfinishedError("did not end before the time was over") from None
        finally:
            # Its own processes as well, whatever stops us.
            _end(process)
    if code:
        raise UnfinishedError(f"failed with exit code {code}")


def main(settings: Settings) -> int:
    """What the command does, and what it says when it is interrupted."""
    # Ctrl-C too: what a script starts in the background would be deaf to it otherwise.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        return run(settings)
    except KeyboardInterrupt as error:
        number = error.args[0] if error.args else signal.SIGINT
        print(
            "interrupted: what is finished is kept, and the same command goes on with the rest",
            file=sys.stderr,
        )
        return 128 + int(number)


class _Table:
    """What is finished, what is missing, and the folder for both."""

    def __init__(
        self, suite: Sequence[Benchmark], folder: Path, identity: dict[str, dict[str, Any] | str]
    ):
        self.suite, self.folder, self.identity = suite, folder, identity
        self.finished: dict[str, Measured] = {}
        self.before: dict[str, Measured] = {}
        self.missing: dict[str, str] = {}
        self.left_out: dict[str, str] = {}

    def leave_out(self, one: Benchmark) -> bool:
        """Whether something that is not installed is needed, which is said."""
        if has(*one.needs):
            return False
        why = f"{' and '.join(one.needs)} not installed: pip install 'latent-flows[peers]'"
        self.left_out[one.name] = why
        print(f"{one.name} is left out: {why}", flush=True)
        return True

    def keep(self, one: Benchmark, again: bool) -> bool:
        """Whether what was measured before is kept."""
        if (before := self.read(one)) is not None:
            self.before[one.name] = before
            if not again:
                self.finished[one.name] = before
                return True
        self.missing[one.name] = "not measured yet"
        return False

    def read(self, one: Benchmark) -> Measured | None:
        """What was measured before with the same flags, code and machine."""
        try:
            record = json.loads(self.file(one).read_text())
            same = all(record[name] == value for name, value in self.identity.items())
            return _measured(one, record) if same and record["flags"] == [*one.flags] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def add(self, one: Benchmark, measure: Callable, seconds: float) -> None:
        """Measure one, within so many seconds."""
        half = self.folder / f".{one.name}.json"
        began = time.monotonic()
        try:
            measure(one, half, seconds)
            content = json.loads(half.read_text())
        except (UnfinishedError, OSError, json.JSONDecodeError) as error:
            self.missing[one.name] = " ".join(str(error).split())
            print(f"error: {one.name}: {self.missing[one.name]}", file=sys.stderr, flush=True)
            return
        finally:
            half.unlink(missing_ok=True)
        about = {"flags": [*one.flags], "seconds": time.monotonic() - began}
        record = self.identity | about | content
        write_json(self.file(one), record)
        self.finished[one.name] = _measured(one, record)
        del self.missing[one.name]

    def file(self, one: Benchmark) -> Path:
        """For what one benchmark found."""
        return self.folder / f"{one.name}.json"

    def write(self) -> None:
        """The table of all that is finished."""
        machine: Any = self.identity["machine"]
        done = [self.finished[one.name] for one in self.suite if one.name in self.finished]
        missing = self.left_out | self.missing
        write_json(self.folder / "bench.json", bench.data(machine, done, missing))
        write_text(self.folder / "bench.md", bench.page(machine, done, missing))

    def say(self) -> None:
        """Where the table is, and how it compares with one that was there before."""
        again = [self.finished[n] for n in self.before if n in self.finished]
        again = [one for one in again if one is not self.before[one.name]]
        if again:
            moved = [
                row
                for one in again
                for row in bench.outside(self.before[one.name].ratios, one.ratios)
            ]
            count = sum(len(one.ratios) for one in again)
            print(f"{count - len(moved)} of {count} ratios lie within the spread stated before")
            for row in moved:
                print(f"  outside: {row.name}, against {row.against}: {row.ratio:.3g}")
        done = self.finished.values()
        count, spent = sum(len(one.ratios) for one in done), sum(one.seconds for one in done)
        print(f"{count} ratios of {len(done)} benchmarks, measured in {_minutes(spent)}:")
        for name in ("bench.md", "bench.json"):
            print(f"  {self.folder / name}")


class _Clock:
    """How long the rest will take, by how long what is done took."""

    def __init__(self, minutes: float, ahead: Sequence[Benchmark]):
        self.began = time.monotonic()
        self.end = self.began + 60 * minutes
        self.ahead = {one.name: one.seconds for one in ahead}
        self.done = 0.0

    def left(self) -> float:
        """Seconds until the end."""
        return self.end - time.monotonic()

    def passed(self, one: Benchmark) -> None:
        """One more is over."""
        self.done += self.ahead.pop(one.name)

    def expected(self) -> float:
        """Seconds that the rest will take."""
        slower = (time.monotonic() - self.began) / self.done if self.done else 1.0
        return slower * sum(self.ahead.values())


def _chosen(settings: Settings, suite: Sequence[Benchmark]) -> list[Benchmark]:
    if not settings.minutes > 0:
        stop(f"--minutes must be positive, got {settings.minutes}", 2)
    try:
        for name in settings.benchmarks:
            choose("benchmark", name, {one.name: one for one in suite})
    except ValueError as error:
        stop(str(error), 2)
    return [one for one in suite if not settings.benchmarks or one.name in settings.benchmarks]


def _machine() -> dict[str, Any]:
    words = [sys.executable, "-m", "benchmarks.machine"]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    if found.returncode:
        stop(f"JAX finds no device: {found.stderr.strip().splitlines()[-1]}", 1)
    return json.loads(found.stdout.splitlines()[-1])


def _measured(one: Benchmark, record: Mapping[str, Any]) -> Measured:
    return Measured(one.name, [Ratio(**row) for row in record["ratios"]], record["seconds"])


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _interrupt(number: int, _: Any) -> None:
    raise KeyboardInterrupt(number)


def _end(process: subprocess.Popen) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            continue
        except OSError:
            return
