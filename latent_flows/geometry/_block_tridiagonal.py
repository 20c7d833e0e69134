"""Symmetric block-tridiagonal systems: on a curve, every point is coupled to the next."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

__all__ = ["from_product", "solve", "times"]


def solve(
    diagonal: Float[Array, "m d d"],
    upper: Float[Array, "m-1 d d"],
    right: Float[Array, "m d"],
    *,
    definite: bool = True,
) -> Float[Array, "m d"]:
    r"""Solve $D_i x_i + U_{i-1}^\top x_{i-1} + U_i x_{i+1} = b_i$ by block elimination.

    It takes `m` steps with matrices of `d` rows, forwards and backwards.

    Args:
        diagonal: the symmetric blocks $D_i$.
        upper: the blocks $U_i$ that couple each row to the next.
        right: the right side $b_i$.
        definite: whether the matrix is known to be positive definite. Its Cholesky factors are
            taken if so, which are not finite where it is not; LU factors of the blocks otherwise.

    Returns:
        `[m, d]`; not finite where the matrix, with `definite`, is not positive definite.

    >>> import jax.numpy as jnp
    >>> blocks, links = 2 * jnp.ones((3, 1, 1)), -jnp.ones((2, 1, 1))
    >>> print(solve(blocks, links, jnp.array([[1.0], [0.0], [1.0]])).round(3)[:, 0])
    [1. 1. 1.]
    """
    links = jnp.concatenate([jnp.zeros_like(diagonal[:1]), upper])

    def forward(carry, row):
        factor, reduced = carry
        block, link, b = row
        gain = _apply(factor, link, definite).T
        factor = _factor(block - _times(gain, link), definite)
        b = b - _times(gain, reduced)
        return (factor, b), (factor, b)

    first = (jnp.eye(right.shape[-1], dtype=right.dtype), right[0])
    _, (factors, reduced) = jax.lax.scan(forward, first, (diagonal, links, right))

    def backward(below, row):
        factor, link, b = row
        x = _apply(factor, b - _times(link, below), definite)
        return x, x

    following = jnp.concatenate([upper, jnp.zeros_like(diagonal[:1])])
    last = jnp.zeros_like(right[0])
    return jax.lax.scan(backward, last, (factors, following, reduced), reverse=True)[1]


def times(
    diagonal: Float[Array, "m d d"], upper: Float[Array, "m-1 d d"], x: Float[Array, "m d"]
) -> Float[Array, "m d"]:
    """The product of a matrix, as `solve` takes it, with a vector.

    Args:
        diagonal: the symmetric blocks on the diagonal.
        upper: the blocks that couple each row to the next.
        x: the vector.

    Returns:
        `[m, d]`.

    >>> import jax.numpy as jnp
    >>> print(times(2 * jnp.ones((2, 1, 1)), -jnp.ones((1, 1, 1)), jnp.array([[1.0], [0.0]]))[:, 0])
    [ 2. -1.]
    """
    product = jnp.einsum("mde,me->md", diagonal, x)
    product = product.at[:-1].add(jnp.einsum("mde,me->md", upper, x[1:]))
    return product.at[1:].add(jnp.einsum("med,me->md", upper, x[:-1]))


def from_product(
    product: Callable[[Float[Array, "m d"]], Float[Array, "m d"]], m: int, d: int, dtype: DTypeLike
) -> tuple[Float[Array, "m d d"], Float[Array, "m-1 d d"]]:
    """The blocks of a block-tridiagonal matrix that is only known by its products.

    It takes `3 d` products, with vectors that touch every third point: what they hit then belongs
    to one of them.

    Args:
        product: the linear function.
        m: how many blocks lie on the diagonal.
        d: the rows of a block.
        dtype: of the vectors.

    Returns:
        The blocks on the diagonal and those above it, as `solve` takes them.

    >>> import jax.numpy as jnp
    >>> _, upper = from_product(lambda x: jnp.roll(x, -1, 0), 2, 1, jnp.float32)
    >>> print(upper)
    [[[1.]]]
    """
    colour = jnp.arange(m) % 3
    probes = (colour == jnp.arange(3)[:, None]).astype(dtype)  # [3, m]
    units = jnp.einsum("cm,de->cdme", probes, jnp.eye(d, dtype=dtype))
    hits = jax.vmap(jax.vmap(product))(units)  # [3, column, m, row]
    at = jnp.arange(m)
    diagonal = hits[colour, :, at].mT
    return diagonal, hits[colour[1:], :, at[:-1]].mT


def _factor(block: Float[Array, "d d"], definite: bool) -> Float[Array, "d d"]:
    """What `_apply` needs to solve with a block; not finite if it should be definite and is not."""
    if _is_small(block):
        return _small_inverse(block, definite)
    return _lower_inverse(jnp.linalg.cholesky(block)) if definite else jnp.linalg.inv(block)


def _apply(factor: Float[Array, "d d"], right: Array, definite: bool) -> Array:
    if _is_small(factor) or not definite:
        return _times(factor, right)
    return factor.T @ (factor @ right)


def _lower_inverse(factor: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """The inverse of a lower triangular matrix, from those of ever larger blocks.

    Where LAPACK solves with many right sides it starts threads that wait for each other: on two
    busy cores blocks of 32 rows took a hundred times longer than by these products.
    """
    d = factor.shape[0]
    whole = 1 << (d - 1).bit_length()
    factor = jnp.eye(whole, dtype=factor.dtype).at[:d, :d].set(factor)
    inverses = 1 / jnp.diagonal(factor)[:, None, None]
    size = 1
    while size < whole:
        count = whole // (2 * size)
        at = jnp.arange(count)
        pairs = factor.reshape(count, 2 * size, count, 2 * size)[at, :, at]
        first, second = inverses[::2], inverses[1::2]
        below = -second @ pairs[:, size:, :size] @ first
        inverses = jnp.block([[first, jnp.zeros_like(first)], [below, second]])
        size *= 2
    return inverses[0, :d, :d]


def _is_small(block: Float[Array, "d d"]) -> bool:
    """Whether a formula is faster than calling LAPACK, which costs more than it computes here."""
    return block.shape[0] <= 2


def _small_inverse(block: Float[Array, "d d"], definite: bool) -> Float[Array, "d d"]:
    first = block[0, 0]
    if block.shape[0] == 1:
        determinant, adjugate = first, jnp.ones_like(block)
    else:
        determinant = first * block[1, 1] - block[0, 1] * block[1, 0]
        adjugate = jnp.stack(
            [
                jnp.stack([block[1, 1], -block[0, 1]]),
                jnp.stack([-block[1, 0], first]),
            ]
        )
    inverse = adjugate / determinant
    return jnp.where((first > 0) & (determinant > 0), inverse, jnp.nan) if definite else inverse


def _times(a: Float[Array, "d d"], b: Array) -> Array:
    """A matrix product; of small matrices as a sum, which XLA fuses with what is around it."""
    if not _is_small(a):
        return a @ b
    products = (a[:, i, *(None,) * (b.ndim - 1)] * b[i] for i in range(len(b)))
    return functools.reduce(jnp.add, products)
