"""Generators as arguments of compiled programs, which then hold no copy of their parameters."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun
from jax.tree_util import Partial
from jaxtyping import Array

from latent_flows.typing import Generator

__all__ = ["hoist", "hoist_at"]


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
    return hoist_at(generator, jax.ShapeDtypeStruct((dim,), jnp.result_type(float)))


def hoist_at(function: Callable[..., Any], *examples: Any) -> Partial:
    """The same function of arrays as a pytree, whose leaves are the arrays that it closes over.

    Args:
        function: of pytrees of arrays, to any such.
        *examples: its arguments, or their shapes and dtypes; they are not computed with.

    Returns:
        The function, for arguments of these shapes; it raises a ValueError for any other.

    >>> table = jnp.arange(4.0)
    >>> look = hoist_at(lambda i: table[i], jax.ShapeDtypeStruct((2,), jnp.int32))
    >>> print(look(jnp.array([3, 1])), len(jax.tree.leaves(look)))
    [3. 1.] 1
    """
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), leaf.dtype), examples)
    traced, made = jax.make_jaxpr(function, return_shape=True)(*shapes)
    call = partial(_call, shapes, traced.jaxpr, jax.tree.structure(made))
    return Partial(call, [jnp.asarray(leaf) for leaf in traced.consts])


def _call(
    shapes: tuple[Any, ...], jaxpr: Jaxpr, structure: Any, consts: list[Array], *arguments: Any
) -> Any:
    given = jax.tree.leaves(arguments)
    wanted = jax.tree.leaves(shapes)
    if [jnp.shape(one) for one in given] != [like.shape for like in wanted]:
        raise ValueError(f"expected {_spelt(wanted)}, got {_spelt(given)}")
    cast = [_as(like.dtype, one) for one, like in zip(given, wanted, strict=True)]
    return jax.tree.unflatten(structure, jaxpr_as_fun(ClosedJaxpr(jaxpr, consts))(*cast))


def _as(dtype: Any, one: Any) -> Array:
    is_key = jax.dtypes.issubdtype(dtype, jax.dtypes.extended)
    return one if is_key else jnp.asarray(one, dtype)


def _spelt(arrays: list[Any]) -> str:
    return "shape " + ", ".join(str(jnp.shape(one)) for one in arrays)
