"""Generators that need less memory: narrower numbers, features computed again on the way back."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, PyTree

from latent_flows.typing import Generator

__all__ = ["cast_and_remat", "in_dtype", "remat_layers"]


def remat_layers(net: Any) -> Any:
    """The flax module with each layer's features computed again on the way back, if it can.

    A layer at a time is much less than a whole network at once. The parameters are the same.

    Args:
        net: a flax module.

    Returns:
        The module, of the same variables and results.

    >>> from latent_flows.generators.stylegan2 import StyleGAN2
    >>> remat_layers(StyleGAN2(8)).checkpoint
    True
    """
    return net.clone(checkpoint=True) if hasattr(net, "checkpoint") else net


def cast_and_remat(
    apply: Callable[..., Array],
    params: PyTree,
    *,
    dtype: str = "float32",
    recompute: bool = False,
) -> Generator:
    """A network with its parameters closed over, which saves memory as asked.

    Args:
        apply: `(params, z) -> x`.
        params: its parameters.
        dtype: what it computes in: `"float32"` leaves everything as it is, `"bfloat16"` halves
            what its parameters and features take. Samples have the dtype of the latent.
        recompute: compute the features again on the way back instead of keeping them.

    Returns:
        `z -> x`.

    Raises:
        ValueError: a dtype that is not floating.

    >>> import jax.numpy as jnp
    >>> generator = cast_and_remat(lambda w, z: jnp.sin(w * z), 2.0, recompute=True)
    >>> print(jax.grad(generator)(0.0))
    2.0
    """

    def closed(z: Array) -> Any:  # what a user's function gives is looked at later
        return apply(params, z)

    made = closed if dtype == "float32" else in_dtype(apply, params, dtype)
    return jax.checkpoint(made) if recompute else made


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
