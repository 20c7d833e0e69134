"""Times of functions that take turns: a change in the load of the machine meets all of them."""

import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

LEAST = 3
"""Turns without which there is no saying how far their times lie apart."""
SHORT = 0.02
"""Seconds of which a single call is measured well."""
MOST_CALLS = 100
"""Of a function in a turn."""


def no_cached_programs() -> None:
    """No programs from a cache, so that compiling is timed."""
    jax.config.update("jax_enable_compilation_cache", False)


def compiled(function: Callable, *args: Any) -> tuple[Callable, float]:
    """The compiled function, and the seconds that tracing and compiling took."""
    ready, seconds, _ = both_clocks(lambda: jax.jit(function).lower(*args).compile())
    return ready, seconds


def both_clocks(function: Callable[..., Any], *args: Any) -> tuple[Any, float, float]:
    """The result of a call, and the seconds that it took by the clock, and of all cores together.

    The latter say much the same on a busy machine.
    """
    began, spent = time.perf_counter(), time.process_time()
    found = jax.block_until_ready(function(*args))
    return found, time.perf_counter() - began, time.process_time() - spent


def turns(
    functions: Mapping[str, Callable],
    args: tuple,
    repeats: int,
    *,
    warm: int = 1,
    least: float = SHORT,
    patience: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """The seconds of a call of each function, in turns.

    Args:
        functions: by name.
        args: of every one.
        repeats: turns that are counted.
        warm: turns before them that are not.
        least: seconds that a function is called for in a turn, as often as the turns that are not
            counted say: one call of what takes less is mostly noise.
        patience: seconds after which fewer turns do, but at least three.
        clock: that is read, in seconds.

    Returns:
        The seconds by name, one a turn, the mean of its calls.
    """

    def timed(function: Callable, calls: int) -> float:
        start = clock()
        for _ in range(calls):
            jax.block_until_ready(function(*args))
        return (clock() - start) / calls

    calls = dict.fromkeys(functions, 1)
    for _ in range(warm):
        for name, function in functions.items():
            calls[name] = min(MOST_CALLS, 1 + int(least / max(timed(function, 1), 1e-9)))
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    began = clock()
    for turn in range(repeats):
        if turn >= LEAST and (clock() - began) * (turn + 1) > patience * turn:
            break
        for name, function in functions.items():
            seconds[name].append(timed(function, calls[name]))
    return seconds


def medians(functions: Mapping[str, Callable], args: tuple, repeats: int) -> dict[str, float]:
    """The median seconds of a call of each, taken in turns, the first turn not counted."""
    return {name: median(taken) for name, taken in turns(functions, args, repeats).items()}


def median(seconds: list[float]) -> float:
    """The median as a plain number."""
    return float(np.median(seconds))


def patient_turns(
    sides: Mapping[str, Callable[..., Any]],
    repeats: int,
    patience: float,
    *,
    args: tuple = (),
    choose: bool = True,
) -> dict[str, list[float]]:
    """Turns of sides that are warm, fewer of them, but at least three, where they take long.

    Args:
        sides: by name.
        repeats: turns.
        patience: seconds after which fewer do.
        args: of every side.
        choose: whether the number of `threads` is chosen first, of sides that have them.

    Returns:
        The seconds by name, one a turn.
    """
    for side in sides.values():
        if choose and hasattr(side, "threads"):
            choose_threads(side, args)
    return turns(sides, args, max(LEAST, repeats), warm=0, patience=patience)


def choose_threads(step: Any, args: tuple = ()) -> None:
    """Give a PyTorch step one thread or one a core, whichever is faster.

    Its operations are small: where another process takes a core, every one of them waits for a
    thread that does not run, and a step on two threads was ten times slower than on one.
    """
    seconds = {}
    for step.threads in {1, os.cpu_count() or 1}:
        seconds[step.threads] = min(turns({"": step}, args, 2, warm=0)[""])
    step.threads = min(seconds, key=seconds.__getitem__)
