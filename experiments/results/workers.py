"""What runs the rows: processes, one after the other or several side by side.

A small network does not fill the cores of a machine: two runs, each on half of the cores, are done
sooner than one after the other on all of them (`python -m benchmarks.seeds`).
"""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import pairwise
from queue import SimpleQueue
from threading import Event
from typing import TypeVar

from experiments.results.jobs import Job
from experiments.runtime.cli import Failure, UsageError, is_of_the_disk

Outcome = TypeVar("Outcome")


class Workers:
    """Runs jobs, at most so many at once, each on a share of the cores that it has for itself."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._shares: SimpleQueue[set[int]] = SimpleQueue()
        for share in shares(available_cores(), at_once):
            self._shares.put(share)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = Event()

    def each(self, tasks: Sequence[Callable[[], Outcome]], then: Callable[[Outcome], None]) -> None:
        """Call functions that call `run`, side by side.

        Args:
            tasks: each in a thread, which should do little but wait: Python 3.11 may fail to
                parse source, as for what the flags of a row mean, in two of them at once.
            then: called with what each has returned, one after the other, in this thread.

        Raises:
            Exception: what the first of them raised; the others were stopped, and have saved.
        """
        with ThreadPoolExecutor(self._at_once) as pool:
            futures = [pool.submit(task) for task in tasks]
            try:
                for future in as_completed(futures):
                    then(future.result())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self._stop()
                raise

    def run(self, job: Job) -> tuple[str, str]:
        """Run a job, with what it prints in a file beside its folder.

        Returns:
            `done`, or `diverged` and why.

        Raises:
            UsageError: the run was refused.
            Failure: it stopped for a reason that does not lie in the job.
        """
        job.folder.parent.mkdir(parents=True, exist_ok=True)
        log = job.folder.with_suffix(".log")
        with open(log, "ab") as file:
            code, stderr = self._finish([sys.executable, *job.command[1:]], file.fileno())
            file.write(stderr)
        lines = stderr.decode(errors="replace").strip().splitlines()
        last = lines[-1] if lines else f"exit code {code}"
        if code == 0:
            return "done", ""
        if code == 1 and last.startswith("error: ") and not is_of_the_disk(last):
            return "diverged", last.removeprefix("error: ")
        kind = UsageError if code == 2 else Failure
        raise kind(f"{job.label}, seed {job.seed}: {last.removeprefix('error: ')} (see {log})")

    def _finish(self, words: list[str], stdout: int) -> tuple[int, bytes]:
        """Waits for a process, which has a share of the cores while it runs."""
        share = self._shares.get()
        process = subprocess.Popen(
            words, stdout=stdout, stderr=subprocess.PIPE, env=_environment(self._at_once)
        )
        self._running.add(process)
        try:
            if self._at_once > 1:
                keep_to(process.pid, share)
            if self._stopped.is_set():
                process.terminate()
            _, stderr = process.communicate()
        finally:
            self._running.discard(process)
            self._shares.put(share)
        return process.returncode, stderr

    def _stop(self) -> None:
        """Stops what runs, which saves its last step, as Ctrl-C would."""
        self._stopped.set()
        for process in tuple(self._running):
            process.terminate()


def available_cores() -> set[int]:
    """The cores that this process may use."""
    if sys.platform == "linux":
        return os.sched_getaffinity(0)
    return {*range(os.cpu_count() or 1)}


def shares(cores: set[int], count: int) -> list[set[int]]:
    """Cores dealt out evenly, neighbours together.

    >>> shares({0, 1, 2, 3, 4}, 2)
    [{0, 1}, {2, 3, 4}]
    """
    ordered, ends = sorted(cores), [place * len(cores) // count for place in range(count + 1)]
    return [{*ordered[begin:end]} for begin, end in pairwise(ends)]


def keep_to(pid: int, cores: set[int]) -> None:
    """Keep a process that has just begun to some cores, where the system can; 0: this one."""
    if sys.platform == "linux":
        os.sched_setaffinity(pid, cores)


def _environment(at_once: int) -> dict[str, str]:
    """Of a process: of several on one GPU, each takes the memory that it needs, and not most."""
    several = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} if at_once > 1 else {}
    return {**several, **os.environ}
