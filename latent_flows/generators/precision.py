"""Generators that compute in another precision than what is around them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, PyTree

from latent_flows.typing import Generator

__all__ = ["in_dtype"]


def in_dtype(apply: Callable[..., Array], params: PyTree, dtype: DTypeLike) -> Generator:
    """A network with its parameters closed over, which computes in a floating dtype.

    Samples have the dtype of the latent, so that losses, and the networks around the generator,
    keep their precision.

    Args:
        apply: `(params, z) -> x`.
        params: its parameters, of which those that are floats are cast.
        dtype: such as `jnp.bfloat16`.

    Returns:
        `z -> x`.

    Raises:
        ValueError: a dtype that is not floating.

    >>> half = in_dtype(lambda w, z: w @ z, jnp.eye(2), jnp.bfloat16)
    >>> print(half(jnp.array([1.001, 2.0])))
    [1. 2.]
    """
    if not jnp.issubdtype(jnp.dtype(dtype), jnp.floating):
        raise ValueError(f"dtype must be floating, got {jnp.dtype(dtype)}")

    def cast(leaf: Any) -> Array:
        leaf = jnp.asarray(leaf)
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    narrow = jax.tree.map(cast, params)
    return lambda z: apply(narrow, z.astype(dtype)).astype(z.dtype)
