"""Generators that need less memory: narrower numbers, features computed again on the way back."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, PyTree

from latent_flows.generators.precision import in_dtype
from latent_flows.typing import Generator

__all__ = ["layerwise", "thrifty"]


def layerwise(net: Any) -> Any:
    """The flax module with each layer's features computed again on the way back, if it can.

    A layer at a time is much less than a whole network at once. The parameters are the same.

    Args:
        net: a flax module.

    Returns:
        The module, of the same variables and results.

    >>> from latent_flows.generators.stylegan2 import StyleGAN2
    >>> layerwise(StyleGAN2(8)).checkpoint
    True
    """
    return net.clone(checkpoint=True) if hasattr(net, "checkpoint") else net


def thrifty(
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
    >>> generator = thrifty(lambda w, z: jnp.sin(w * z), 2.0, recompute=True)
    >>> print(jax.grad(generator)(0.0))
    2.0
    """

    def closed(z: Array) -> Array:
        return apply(params, z)

    made = closed if dtype == "float32" else in_dtype(apply, params, dtype)
    return jax.checkpoint(made) if recompute else made
