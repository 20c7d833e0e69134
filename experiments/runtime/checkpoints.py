"""Checkpoints on disk: a tree of arrays per step, checked by a checksum when it is read back."""

import contextlib
import io
import shutil
import sys
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from experiments.runtime.errors import UsageError

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

KEEP = 3
_CHECKSUM = "crc32"


def open_manager(path: Path) -> "ocp.CheckpointManager":
    """The orbax manager that writes the checkpoints of one phase and keeps the newest few."""
    import orbax.checkpoint as ocp

    path.mkdir(parents=True, exist_ok=True)
    options = ocp.CheckpointManagerOptions(
        max_to_keep=KEEP, create=False, multiprocessing_options=_alone()
    )
    return ocp.CheckpointManager(path.absolute(), options=options)


def _alone() -> "ocp.options.MultiprocessingOptions":
    """Of several processes the first alone has to do with checkpoints, which are all its own."""
    import orbax.checkpoint as ocp

    return ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})


def save(manager: "ocp.CheckpointManager", step: int, tree: Any) -> None:
    """Writes a tree in the background; waits only for the copy from the device.

    Raises an error of an earlier write, if there was one.
    """
    import orbax.checkpoint as ocp

    if manager.latest_step() != step:
        flat = flatten(tree)
        flat[_CHECKSUM] = _checksum(flat)
        manager.save(step, args=ocp.args.StandardSave(flat), force=True)


class Newest(NamedTuple):
    """What there is on the disk."""

    step: int | None
    """Of the newest checkpoint that is whole; None if there is none."""
    flat: dict[str, np.ndarray]
    """Its arrays by name."""
    damaged: list[int]
    """Steps of newer ones that are not whole, newest first."""


def newest(path: Path) -> Newest:
    """Reads the newest checkpoint that is whole, of the folder of one phase."""
    damaged: list[int] = []
    steps = [int(child.name) for child in path.glob("*") if child.name.isdigit()]
    for step in sorted(steps, reverse=True):
        flat = _read(path / str(step))
        if flat is not None:
            return Newest(step, flat, damaged)
        damaged.append(step)
    return Newest(None, {}, damaged)


def tidy(path: Path, found: Newest) -> None:
    """Removes what is half written, or damaged, and says so of the latter."""
    for child in [child for child in path.glob("*") if not child.name.isdigit()]:
        shutil.rmtree(child)
    for step in found.damaged:
        shutil.rmtree(path / str(step))
    if found.damaged:
        which = ", ".join(map(str, found.damaged))
        back = f"going back to step {found.step}"
        what = "no good one is left, starting anew" if found.step is None else back
        print(
            f"warning: {path}: damaged checkpoint at step {which} removed; {what}",
            file=sys.stderr,
            flush=True,
        )


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """The leaves of a tree by name, copied to the host.

    Empty arrays are left out: orbax writes none.

    >>> flatten({"a": [np.ones(1), np.zeros(2)]})
    {'a/0': array([1.]), 'a/1': array([0., 0.])}
    """
    # A copy, because the device's memory is given to the next step while orbax still writes.
    return {name: np.array(leaf) for name, leaf in _names(tree).items() if np.size(leaf)}


def unflatten(flat: dict[str, np.ndarray], like: Any, where: str) -> Any:
    """A tree of the structure of `like` from its leaves by name; names of no leaf are ignored.

    Args:
        flat: arrays by name, as from `flatten`.
        like: a tree of arrays or of `jax.ShapeDtypeStruct`.
        where: what is being read, for the message.

    Raises:
        UsageError: a leaf is missing or has another shape or dtype.
    """
    leaves = []
    for name, leaf in _names(like).items():
        empty = np.zeros(leaf.shape, leaf.dtype) if 0 in leaf.shape else None
        got = flat.get(name, empty)
        wanted = f"{np.dtype(leaf.dtype)}{list(leaf.shape)}"
        if got is None:
            raise UsageError(f"{where} holds another model: {name} {wanted} is missing")
        if (got.shape, got.dtype) != (leaf.shape, leaf.dtype):
            found = f"{got.dtype}{list(got.shape)}"
            raise UsageError(f"{where} holds another model: {name} is {found}, expected {wanted}")
        leaves.append(got)
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _names(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _read(path: Path) -> dict[str, np.ndarray] | None:
    # Whatever orbax raises for a damaged checkpoint, it means one thing here. It also writes to
    # stderr from its threads, which would drown the one line that matters.
    import orbax.checkpoint as ocp

    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with ocp.StandardCheckpointer(multiprocessing_options=_alone()) as reader:
                # orbax takes a relative path for damage.
                stored = reader.restore(path.absolute() / "default")
                flat = {k: np.asarray(v) for k, v in stored.items()}
        except Exception:
            return None
    checksum = flat.pop(_CHECKSUM, None)
    return flat if checksum is not None and checksum == _checksum(flat) else None


def _checksum(flat: dict[str, np.ndarray]) -> np.ndarray:
    total = 0
    for name in sorted(flat):
        content = np.ascontiguousarray(flat[name]).reshape(-1).view(np.uint8)
        total = zlib.crc32(content.data, zlib.crc32(name.encode(), total))
    return np.asarray(total, np.uint32)
