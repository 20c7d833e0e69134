"""Several processes at work on one run: they split every batch, and the first one writes.

Each is started with the same command line and three environment variables, on one machine or on
several: `JAX_COORDINATOR_ADDRESS` (host:port of the first), `JAX_NUM_PROCESSES` and
`JAX_PROCESS_ID`. All of them compute everything but the training steps, which they share; only the
first writes the run folder and prints, and the others keep what they would write to themselves.
"""

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Sharding

from experiments.runtime import interrupts

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")

Result = TypeVar("Result")


def join() -> None:
    """Joins the other processes, if the environment names them; before anything is computed.

    Raises:
        ValueError: the environment says who is there by halves, or nonsense.
    """
    found = [os.environ.get(name) for name in VARIABLES]
    if not any(found) or jax.distributed.is_initialized():
        return
    try:
        address, count, own = found[0], int(found[1] or ""), int(found[2] or "")
    except ValueError:
        address, count, own = None, 0, 0
    if not address or not 0 <= own < count:
        given = ", ".join(f"{name}={value}" for name, value in zip(VARIABLES, found, strict=True))
        raise ValueError(
            "several processes need an address host:port, their number, and which of them this "
            f"is, from 0; got {given}"
        )
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, count, own)
    interrupts.rearm()  # its preemption service takes SIGTERM, which it would leave without effect
    if own:
        # What C++ libraries print as well.
        sys.stdout.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def several() -> bool:
    """Whether there is more than this process."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return not several() or jax.process_index() == 0


def together(act: Callable[[], Result]) -> Result | None:
    """Does something in the first process; where that fails, all processes do.

    Returns:
        What `act` returned, in the first process; None in the others.

    Raises:
        Exception: what `act` raised, in the first process.
        SystemExit: in the others, which leave it to the first to say why.

    >>> together(lambda: 3)
    3
    """
    if not several():
        return act()
    error: Exception | None = None
    result: Result | None = None
    if is_first():
        try:
            result = act()
        except Exception as raised:
            error = raised
    well = bool(multihost_utils.broadcast_one_to_all(np.asarray(error is None)))
    if error is not None:
        raise error
    if not well:
        raise SystemExit(1)
    return result


def from_first(value: Any, like: Any) -> Any:
    """A tree of arrays of the first process, in every process.

    Args:
        value: the tree, in the first process.
        like: a tree of the same structure, shapes and dtypes, in the others.
    """
    if not several():
        return value
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
    return multihost_utils.broadcast_one_to_all(value if is_first() else zeros)


def place(tree: Any, sharding: Sharding) -> Any:
    """Arrays that every process holds alike, on the devices of all of them."""
    if not several():
        return jax.device_put(tree, sharding)

    def one(leaf: Any) -> jax.Array:
        held = np.asarray(leaf)
        return jax.make_array_from_callback(held.shape, sharding, lambda index: held[index])

    return jax.tree.map(one, tree)


def own(tree: Any) -> Any:
    """Arrays that all devices hold alike as arrays of this process, bound to none of its devices.

    Programs are compiled for where their arrays are bound to: with these they are the same programs
    as with any others.
    """
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf.addressable_data(0))), tree)


def private_copy(path: Path) -> Path:
    """A folder of this process alone with what a run folder holds, checkpoints left out.

    It goes when the process does.
    """
    home = Path(tempfile.mkdtemp(prefix=f"{path.name}-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    if path.exists():
        ignored = shutil.ignore_patterns("checkpoints", "tensorboard", ".*")
        shutil.copytree(path, home, dirs_exist_ok=True, ignore=ignored)
    return home
