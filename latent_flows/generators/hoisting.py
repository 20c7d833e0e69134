"""Generators as arguments of compiled programs, which then hold no copy of their parameters."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun
from jax.tree_util import Partial
from jaxtyping import Array

from latent_flows.typing import Generator, Latent


def hoist(generator: Generator, dim: int) -> Generator:
    """The same generator as a pytree, whose leaves are the arrays that it closes over.

    A compiled program holds whatever it closes over as constants, which are copied into it and may
    be computed with while it is compiled. What is an argument of it is neither, and two calls with
    one such generator compile once.

    Args:
        generator: `z -> x`, of any framework; whatever it closes over.
        dim: the length of a latent.

    Returns:
        `z -> x` for a `z` of this length, a `jax.tree_util.Partial`; it raises a ValueError for any
        other.

    >>> weights = jnp.arange(6.0).reshape(3, 2)
    >>> generator = hoist(lambda z: weights @ z, 2)
    >>> [leaf.shape for leaf in jax.tree.leaves(generator)]
    [(3, 2)]
    >>> print(jax.jit(lambda generator, z: generator(z))(generator, jnp.ones(2)))
    [1. 5. 9.]
    """
    latent = jax.ShapeDtypeStruct((dim,), jnp.result_type(float))
    traced, made = jax.make_jaxpr(generator, return_shape=True)(latent)
    call = partial(_call, latent, traced.jaxpr, jax.tree.structure(made))
    return Partial(call, [jnp.asarray(leaf) for leaf in traced.consts])


def _call(
    latent: jax.ShapeDtypeStruct, jaxpr: Jaxpr, structure: Any, consts: list[Array], z: Latent
) -> Any:
    if jnp.shape(z) != latent.shape:
        raise ValueError(f"z must have shape {latent.shape}, got {jnp.shape(z)}")
    z = jnp.asarray(z, latent.dtype)
    return jax.tree.unflatten(structure, jaxpr_as_fun(ClosedJaxpr(jaxpr, consts))(z))
