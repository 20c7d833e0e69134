"""What is measured in a process of its own, as the peak of its memory is."""

import multiprocessing
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any


def in_own_process(function: Callable, *args: Any) -> Any:
    """What a function of a module gives, called in a process that does nothing else."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def peak_mib() -> float:
    """The most memory that this process has had, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux carries ru_maxrss over from the process that started this one.
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
