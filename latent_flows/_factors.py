"""Cholesky factors that other programs cannot stop.

jaxlib factorises a batch of matrices on the threads on which the program itself runs, and waits for
them (0.10, on CPUs): where as many such batches are factorised at once as there are threads, each
waits for the others, for ever. Two fields that one program evaluates at many latents are enough on
two cores. A single matrix waits for nobody.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["cholesky", "inverse_of"]


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


@jax.custom_batching.custom_vmap
def _factor(matrix: Array) -> Array:
    return jnp.linalg.cholesky(matrix, symmetrize_input=False)


@_factor.def_vmap
def _(size: int, in_batched: list[bool], matrices: Array) -> tuple[Array, bool]:
    del size, in_batched
    each = jax.lax.platform_dependent(
        matrices,
        cpu=lambda matrices: jax.lax.map(_factor, matrices),
        default=lambda matrices: jnp.linalg.cholesky(matrices, symmetrize_input=False),
    )
    return each, True


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
