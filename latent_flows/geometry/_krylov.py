"""The leading eigenvectors of a matrix that is known by its products alone."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from latent_flows.typing import Scalar

__all__ = ["leading"]

WIDTH = 128
"""Vectors, about, that a basis has before it begins anew from the best of them."""
ROUNDS = 4
"""The most bases."""
TOLERANCE = 1e-4
"""Residual of an eigenvector, over its eigenvalue, that is good enough."""
ROUNDING = 64
"""The same over the largest, in units of rounding: no residual gets smaller."""

Times = Callable[[Float[Array, "d k"]], Float[Array, "d k"]]
"""From columns to their products with the matrix."""


class _Search(NamedTuple):
    blocks: Int[Array, ""]
    """Of the basis, so far."""
    fresh: Float[Array, "d k"]
    """Its next one."""
    basis: Float[Array, "d m"]
    products: Float[Array, "d m"]
    values: Float[Array, "k"]
    vectors: Float[Array, "d k"]
    excess: Scalar
    """The largest residual over what is good enough."""


def leading(times: Times, first: Float[Array, "d k"]) -> tuple[Array, Array]:
    r"""The largest eigenvalues of a positive semidefinite matrix, and their vectors.

    The best vectors of the Krylov space $[Q, A Q, A^2 Q, \dots]$ of a block, whose basis is kept
    orthogonal: a step takes as many products as there are vectors. Equal eigenvalues are told apart
    as far as the block is wide.

    Args:
        times: the matrix.
        first: where the space begins, as many columns as eigenvalues are asked for; twice as many
            are fewer than rows.

    Returns:
        The values `[k]`, the largest first, and orthonormal vectors `[d, k]`.

    References:
        Musco and Musco, *Randomized Block Krylov Methods for Stronger and Faster Approximate
        Singular Value Decomposition*, 2015.

    >>> scales = jnp.arange(8.0)
    >>> values, _ = leading(lambda x: scales[:, None] * x, jnp.eye(8)[:, :2] + 1.0)
    >>> bool(jnp.allclose(values, jnp.array([7.0, 6.0])))
    True
    """
    d, k = first.shape
    most = max(2, min(d, max(8 * k, WIDTH)) // k)
    eps = jnp.finfo(first.dtype).eps

    def step(search: _Search) -> _Search:
        place = search.blocks * k
        made = times(search.fresh)
        basis = jax.lax.dynamic_update_slice(search.basis, search.fresh, (0, place))
        products = jax.lax.dynamic_update_slice(search.products, made, (0, place))
        gram = basis.T @ products
        # Columns that are not there yet are no candidates.
        missing = jnp.arange(most * k) >= place + k
        gram = (gram + gram.T) / 2 - jnp.diag(missing * (1 + jnp.trace(gram)))
        values, mix = jnp.linalg.eigh(gram)
        values, mix = values[::-1][:k], mix[:, ::-1][:, :k]
        vectors = basis @ mix
        residual = jnp.linalg.norm(products @ mix - vectors * values, axis=0)
        enough = TOLERANCE * jnp.abs(values) + ROUNDING * eps * jnp.abs(values[0])
        excess = jnp.max(residual / jnp.where(enough > 0, enough, 1))
        fresh = _orthonormal(made, basis)
        return _Search(search.blocks + 1, fresh, basis, products, values, vectors, excess)

    def begun(vectors: Float[Array, "d k"]) -> _Search:
        none = jnp.zeros((d, most * k), first.dtype)
        infinite = jnp.asarray(jnp.inf, first.dtype)
        values = jnp.zeros(k, first.dtype)
        return _Search(jnp.zeros((), int), vectors, none, none, values, vectors, infinite)

    def advance(state: tuple[Int[Array, ""], _Search]) -> tuple[Int[Array, ""], _Search]:
        rounds, search = state
        # Begun anew by `where` and not by a loop around, so that there is one program of a product.
        is_full = search.blocks >= most
        anew = begun(search.vectors)
        search = jax.tree.map(lambda a, b: jnp.where(is_full, a, b), anew, search)
        return rounds + is_full, step(search)

    def goes_on(state: tuple[Int[Array, ""], _Search]) -> Array:
        rounds, search = state
        return (search.excess > 1) & ((search.blocks < most) | (rounds < ROUNDS - 1))

    start = jnp.linalg.qr(first)[0]
    _, found = jax.lax.while_loop(goes_on, advance, (jnp.zeros((), int), begun(start)))
    return found.values, found.vectors


def _orthonormal(block: Float[Array, "d k"], basis: Float[Array, "d m"]) -> Float[Array, "d k"]:
    """An orthonormal block that spans what another has beside a basis, to rounding."""
    for _ in range(3):
        block = jnp.linalg.qr(block - basis @ (basis.T @ block))[0]
    return block
