"""A network of the user's own through which samples are looked at."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments.runtime.announcements import announced
from experiments.runtime.cli import UsageError
from latent_flows._named_function import import_function
from latent_flows._validation import what
from latent_flows.inversion import Features


def read_features(path: str, flag: str, sample: Array | np.ndarray) -> Features:
    """The network that a flag names, once it was seen to take a sample.

    Args:
        path: package.module:function or file.py:function.
        flag: that named it.
        sample: what it shall take.

    Raises:
        UsageError: it fails, or gives no finite floats.
        ValueError: there is none.
    """
    function = import_function(path, flag)

    def features(sample: Array) -> Array:
        return jnp.asarray(function(sample))

    try:
        with announced(f"trying {path}"):
            seen = np.asarray(jax.jit(features)(jnp.asarray(sample)))
    except Exception as error:
        raise UsageError(
            f"{flag} {path} fails on a sample of shape {sample.shape}, one at a time and traced by "
            f"JAX: {what(error)}"
        ) from None
    if seen.dtype.kind != "f" or not seen.size or not np.isfinite(seen).all():
        raise UsageError(
            f"{flag} {path} gives {seen.dtype} of shape {seen.shape}; expected finite "
            "floating-point numbers"
        )
    return features
