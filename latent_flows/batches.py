"""`jax.vmap` in bounded memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["even_size", "in_batches"]


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


def in_batches(
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
    >>> print(in_batches(lambda x: 2 * x, 2)(jnp.arange(5)))
    [0 2 4 6 8]
    >>> print(in_batches(lambda x: 2 * x, 2, effort=lambda x: -x)(jnp.arange(5)))
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
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[back], found)

    return mapped
