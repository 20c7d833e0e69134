"""Latents in files: what `experiments.invert` writes, and other commands start from."""

import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.runtime.errors import UsageError
from latent_flows._validation import what

__all__ = ["one_latent", "read_latents"]


def read_latents(name: str, dim: int, flag: str) -> Float[Array, "n d"]:
    """The latents of a file of NumPy.

    Args:
        name: of an .npy file that holds one, `[d]`, or several, `[n, d]`.
        dim: numbers of a latent of the generator.
        flag: that named the file, for the message.

    Returns:
        Them, one a row.

    Raises:
        UsageError: there is no such file, it holds something else, or latents of another generator.
    """
    path = Path(os.path.expanduser(name))
    if not path.is_file():
        raise UsageError(f"{flag} {name}: there is no such file")
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(
            f"{flag} {name} is no .npy file of latents ({what(error)}); experiments.invert writes "
            "such files"
        ) from None
    if not isinstance(found, np.ndarray):
        raise UsageError(f"{flag} {name} is an archive; name an .npy file of latents")
    if found.ndim not in (1, 2) or not found.size or found.dtype.kind not in "fiu":
        raise UsageError(
            f"{flag} {name} holds {found.dtype} of shape {found.shape}; expected the numbers of "
            f"one latent, [{dim}], or of several, [n, {dim}]"
        )
    latents = np.atleast_2d(found)
    if latents.shape[1] != dim:
        raise UsageError(
            f"{flag} {name} holds latents of {latents.shape[1]} numbers, and those of this "
            f"generator have {dim}; were they found for another one, or in another space?"
        )
    if not np.isfinite(latents).all():
        raise UsageError(f"{flag} {name} holds numbers that are not finite")
    return jnp.asarray(latents, jnp.result_type(float))


def one_latent(name: str, dim: int, flag: str, place: int = 0, choose: str = "") -> Array:
    """One of the latents of a file.

    Args:
        name: as in `read_latents`.
        dim: as there.
        flag: as there.
        place: which of them, counted from 0.
        choose: the flag that says which, for the message.

    Returns:
        The latent.

    Raises:
        UsageError: as in `read_latents`, or there are fewer.
    """
    latents = read_latents(name, dim, flag)
    if not 0 <= place < len(latents):
        raise UsageError(
            f"{flag} {name} holds {len(latents)} latents, of which {choose} {place} is none"
        )
    return latents[place]
