"""Factors of matrices that other programs cannot stop.

jaxlib factorises a batch of matrices on the threads on which the program itself runs, and waits for
them (0.10, on CPUs): where as many such batches are factorised at once as there are threads, each
waits for the others, for ever. Two fields that one program evaluates at many latents are enough on
two cores. A single matrix waits for nobody. Batched triangular solves wait in the same way.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent_flows.typing import Scalar

__all__ = ["cholesky", "inverse_of", "log_volume"]

Factors: TypeAlias = Any
"""One array or several."""


def _one_by_one(function: Callable[..., Factors]) -> Callable[..., Factors]:
    """Of a batch, each by itself on a CPU."""

    @jax.custom_batching.custom_vmap
    def alone(*matrices: Array) -> Factors:
        return function(*matrices)

    @alone.def_vmap
    def _(size: int, in_batched: list[bool], *given: Array) -> tuple[Factors, Any]:
        batches = tuple(
            each if is_batch else jnp.broadcast_to(each, (size, *each.shape))
            for each, is_batch in zip(given, in_batched, strict=True)
        )
        found = jax.lax.platform_dependent(
            *batches,
            cpu=lambda *batches: jax.lax.map(lambda each: alone(*each), batches),
            default=jax.vmap(function),
        )
        return found, jax.tree.map(lambda _: True, found)

    return alone


_TRIANGULAR = {
    transposed: _one_by_one(
        partial(jax.scipy.linalg.solve_triangular, lower=True, trans=int(transposed))
    )
    for transposed in (False, True)
}


def _solve_lower(factor: Array, b: Array, transposed: bool = False) -> Array:
    """`x` with `L x = b`, or `L' x = b`."""
    lower = jnp.tril(factor)
    return jax.lax.custom_linear_solve(
        lambda x: (lower.T if transposed else lower) @ x,
        b,
        lambda _, b: _TRIANGULAR[transposed](factor, b),
        lambda _, b: _TRIANGULAR[not transposed](factor, b),
    )


@jax.custom_jvp
def cholesky(matrix: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """The lower Cholesky factor of a positive definite matrix.

    Args:
        matrix: of which the lower triangle is read.

    Returns:
        `L` with `L L' = matrix`; NaN where there is none.

    >>> print(cholesky(jnp.array([[4.0, 2.0], [2.0, 2.0]])))
    [[2. 0.]
     [1. 1.]]
    """
    return _factor(matrix)


@cholesky.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    r"""$\dot L = L\, \Phi(L^{-1} \dot A L^{-\top})$, where $\Phi$ halves the diagonal."""
    factor = cholesky(*primals)
    [change] = tangents
    within = _solve_lower(factor, (change + change.T) / 2)
    within = _solve_lower(factor, within.T)
    return factor, factor @ (jnp.tril(within) - jnp.diag(jnp.diag(within)) / 2)


_factor = _one_by_one(lambda matrix: jnp.linalg.cholesky(matrix, symmetrize_input=False))


def inverse_of(matrix: Float[Array, "d d"]) -> Callable[[Array], Array]:
    """`b -> matrix^-1 b` of a positive definite matrix, which is factorised once.

    Args:
        matrix: of which the lower triangle is read.

    Returns:
        The solution for one right-hand side `[d]`, or several `[d, k]`.

    >>> print(inverse_of(jnp.diag(jnp.array([2.0, 4.0])))(jnp.ones(2)).round(3))
    [0.5  0.25]
    """
    factor = cholesky(matrix)
    return lambda b: _solve_lower(factor, _solve_lower(factor, b), transposed=True)


@jax.custom_jvp
def log_volume(matrix: Float[Array, "d d"]) -> Scalar:
    """The logarithm by which a matrix changes volumes, that of the size of its determinant.

    Args:
        matrix: any square one.

    Returns:
        A scalar; minus infinity where the matrix is singular.

    >>> print(log_volume(jnp.diag(jnp.array([-1.0, 1.0]))))
    0.0
    """
    return _log_diagonal(_decompose(matrix))


@log_volume.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Scalar, Scalar]:
    r"""$\operatorname{tr} (A^{-1} \dot A)$, by the same factors."""
    [change] = tangents
    lu, inverse = _inverted(*primals)
    return _log_diagonal(lu), jnp.sum(inverse.T * change)


@_one_by_one
def _decompose(matrix: Array) -> Array:
    """`L` and `U` in one."""
    return jax.lax.linalg.lu(matrix)[0]


@_one_by_one
def _inverted(matrix: Array) -> tuple[Array, Array]:
    """The same, and the inverse."""
    lu, _, order = jax.lax.linalg.lu(matrix)
    rows = jnp.eye(len(lu), dtype=lu.dtype)[order]
    inner = jax.scipy.linalg.solve_triangular(lu, rows, lower=True, unit_diagonal=True)
    return lu, jax.scipy.linalg.solve_triangular(lu, inner, lower=False)


def _log_diagonal(lu: Array) -> Scalar:
    return jnp.sum(jnp.log(jnp.abs(jnp.diagonal(lu))))
