"""The frame that flows of a run live in, kept in its folder: finding it again takes seconds."""

from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from experiments.runtime.run_dir import Folder
from latent_flows.coordinates import AffineCoordinates

FRAME = "frame.json"
"""The file of a run folder that holds it."""


def kept_frame(
    folder: Folder | None, dim: int, find: Callable[[], AffineCoordinates]
) -> AffineCoordinates:
    """The frame of a run, found once.

    Args:
        folder: of the run; None where it shall not be kept.
        dim: numbers of a latent.
        find: finds it.

    Raises:
        UsageError: what the folder holds is none.
    """
    if folder is None:
        return find()
    if (known := read_frame(folder.path, dim)) is not None:
        return known
    found = find()
    folder.write_json(FRAME, {"origin": found.origin, "basis": found.basis})
    return found


def read_frame(path: Path, dim: int) -> AffineCoordinates | None:
    """The frame that a run folder holds, or None: earlier versions kept none.

    Args:
        path: the run folder.
        dim: numbers of a latent.

    Raises:
        UsageError: what it holds is none.
    """
    if not (path / FRAME).exists():
        return None
    folder = Folder(path)
    kept = folder.read_object(FRAME)
    with folder.understood(FRAME):
        # A number that was not finite is null in the file.
        origin, basis = (np.asarray(kept[name], float) for name in ("origin", "basis"))
        if origin.shape != (dim,) or basis.ndim != 2 or len(basis) != dim:
            raise ValueError(f"axes {basis.shape} at {origin.shape}, of latents [{dim}]")
        if not (np.isfinite(origin).all() and np.isfinite(basis).all()):
            raise ValueError("numbers that are not finite")
        return AffineCoordinates(jnp.asarray(origin, float), jnp.asarray(basis, float))
