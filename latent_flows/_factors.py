"""Factors of matrices that other programs cannot stop.

jaxlib factorises a batch of matrices on the threads on which the program itself runs, and waits for
them (0.10, on CPUs): where as many such batches are factorised at once as there are threads, each
waits for the others, for ever. Two fields that one program evaluates at many latents are enough on
two cores. A single matrix waits for nobody. Batched triangular solves wait in the same way, and are
still batched here: on few cores they may stop a program yet.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent_flows.typing import Scalar

__all__ = ["cholesky", "inverse_of", "log_volume"]

Factors: TypeAlias = Any
"""One array or several."""


def _one_by_one(factorise: Callable[[Array], Factors]) -> Callable[[Array], Factors]:
    """Of a batch, each by itself on a CPU."""

    @jax.custom_batching.custom_vmap
    def alone(matrix: Array) -> Factors:
        return factorise(matrix)

    @alone.def_vmap
    def _(size: int, in_batched: list[bool], matrices: Array) -> tuple[Factors, Any]:
        del size, in_batched
        each = jax.lax.platform_dependent(
            matrices,
            cpu=lambda matrices: jax.lax.map(alone, matrices),
            default=jax.vmap(factorise),
        )
        return each, jax.tree.map(lambda _: True, each)

    return alone


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
    within = jax.scipy.linalg.solve_triangular(factor, (change + change.T) / 2, lower=True)
    within = jax.scipy.linalg.solve_triangular(factor, within.T, lower=True)
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
    return lambda b: jax.scipy.linalg.cho_solve((factor, True), b)


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
    return _log_diagonal(_decompose(matrix)[0])


@log_volume.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Scalar, Scalar]:
    r"""$\operatorname{tr} (A^{-1} \dot A)$, by the same factors."""
    lu, order = _decompose(*primals)
    [change] = tangents
    one = jnp.eye(len(lu), dtype=lu.dtype)
    inner = jax.scipy.linalg.solve_triangular(lu, one[order], lower=True, unit_diagonal=True)
    inverse = jax.scipy.linalg.solve_triangular(lu, inner, lower=False)
    return _log_diagonal(lu), jnp.sum(inverse.T * change)


@_one_by_one
def _decompose(matrix: Array) -> tuple[Array, Array]:
    """`L` and `U` in one, and the order of the rows."""
    lu, _, order = jax.lax.linalg.lu(matrix)
    return lu, order


def _log_diagonal(lu: Array) -> Scalar:
    return jnp.sum(jnp.log(jnp.abs(jnp.diagonal(lu))))
