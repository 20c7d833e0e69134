"""`jax.vmap` in bounded memory, and functions as pytrees of the arrays they close over."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun
from jax.tree_util import Partial
from jaxtyping import Array, Float

from latent_flows.typing import Generator

__all__ = [
    "closure_convert",
    "closure_convert_at",
    "even_size",
    "in_chunks",
    "vmap_bounded",
    "vmap_chunked",
]


def even_size(count: int, most: int) -> int:
    """The size of as few batches as there must be, all about as large.

    Args:
        count: how many items there are.
        most: the largest batch that is allowed.

    Returns:
        The size of a batch; the last may be smaller.

    >>> even_size(5, 4), even_size(8, 4), even_size(3, 4)
    (3, 4, 3)
    """
    return -(-count // -(-count // most))


def vmap_chunked(
    function: Callable[..., Any],
    batch_size: int,
    *,
    effort: Callable[..., Float[Array, "n"]] | None = None,
) -> Callable[..., Any]:
    """`jax.vmap` that takes at most `batch_size` elements at a time.

    Unlike `jax.lax.map` it evens the batches out and fills the last one up, so that one batch size
    is compiled and not two. A batch of searches runs until its slowest element is done: where it
    can be foretold which are slow, they share batches, and the others need not wait for them.

    Args:
        function: of one element, any pytree of arrays in each argument.
        batch_size: the most elements at once.
        effort: the batched arguments to a number each, the larger the longer it will take.

    Returns:
        A function of batched arguments, with its results in their order.

    Raises:
        ValueError: a batch size below 1.

    >>> import jax.numpy as jnp
    >>> print(vmap_chunked(lambda x: 2 * x, 2)(jnp.arange(5)))
    [0 2 4 6 8]
    >>> print(vmap_chunked(lambda x: 2 * x, 2, effort=lambda x: -x)(jnp.arange(5)))
    [0 2 4 6 8]
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    batched = jax.vmap(function)

    def mapped(*args: Any) -> Any:
        n = len(jax.tree.leaves(args)[0])
        if n <= batch_size:
            return batched(*args)
        even = even_size(n, batch_size)
        count = -(-n // even)
        order = jnp.arange(n) if effort is None else jnp.argsort(effort(*args))
        # The last batch is filled up with elements of the one before.
        order = jnp.concatenate([order, order[2 * n - count * even :]])
        parts = jax.tree.map(lambda x: x[order].reshape(count, even, *x.shape[1:]), args)
        found = jax.lax.map(lambda part: batched(*part), parts)
        back = jnp.argsort(order[:n])
        # Its size is said: of arrays of nothing it could not be told.
        return jax.tree.map(lambda leaf: leaf.reshape(count * even, *leaf.shape[2:])[back], found)

    return mapped


def vmap_bounded(function: Callable[..., Any], batch_size: int | None) -> Callable[..., Any]:
    """`jax.vmap`, or where a number is given at most so many elements at a time.

    Args:
        function: of one element.
        batch_size: the most elements at once; None: all.

    Returns:
        A function of batched arguments.

    >>> print(vmap_bounded(lambda x: 2 * x, None)(jnp.arange(3)))
    [0 2 4]
    """
    return jax.vmap(function) if batch_size is None else vmap_chunked(function, batch_size)


def closure_convert(generator: Generator, dim: int) -> Generator:
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
    >>> generator = closure_convert(lambda z: weights @ z, 2)
    >>> [leaf.shape for leaf in jax.tree.leaves(generator)]
    [(3, 2)]
    >>> print(jax.jit(lambda generator, z: generator(z))(generator, jnp.ones(2)))
    [1. 5. 9.]
    """
    return closure_convert_at(generator, jax.ShapeDtypeStruct((dim,), jnp.result_type(float)))


def closure_convert_at(function: Callable[..., Any], *examples: Any) -> Partial:
    """The same function of arrays as a pytree, whose leaves are the arrays that it closes over.

    Args:
        function: of pytrees of arrays, to any such.
        *examples: its arguments, or their shapes and dtypes; they are not computed with.

    Returns:
        The function, for arguments of these shapes; it raises a ValueError for any other.

    >>> table = jnp.arange(4.0)
    >>> look = closure_convert_at(lambda i: table[i], jax.ShapeDtypeStruct((2,), jnp.int32))
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


def in_chunks(function: Callable[..., Any], size: int = 250) -> Callable[..., Any]:
    """`jax.vmap` that takes at most `size` points at a time, compiled once for each shape.

    What the function closes over, a generator's parameters, is no constant of the program.

    Args:
        function: of one point, any pytree of arrays in each argument.
        size: the most points at once.

    Returns:
        A function of batched arguments.

    >>> import jax.numpy as jnp
    >>> print(in_chunks(lambda x: 2 * x, 2)(jnp.arange(5)))
    [0 2 4 6 8]
    """

    @jax.jit
    def chunked(one: Callable[..., Any], args: Sequence[Any]) -> Any:
        return jax.lax.map(lambda arg: one(*arg), args, batch_size=size)

    kept: dict[Any, Partial] = {}

    def converted(structure: Any, points: tuple[jax.ShapeDtypeStruct, ...]) -> Partial:
        if (structure, points) in kept:
            return kept[structure, points]
        found = closure_convert_at(function, *jax.tree.unflatten(structure, points))
        # What is closed over while JAX traces belongs to that trace, and ends with it.
        if not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(found)):
            kept[structure, points] = found
        return found

    def apply(*args: Any) -> Any:
        leaves, structure = jax.tree.flatten(args)
        points = tuple(jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) for leaf in leaves)
        return chunked(converted(structure, points), args)

    return apply
