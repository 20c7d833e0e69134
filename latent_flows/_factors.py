"""Cholesky factors that other programs cannot stop.

jaxlib factorises a batch of matrices on the threads on which the program itself runs, and waits for
them (0.10, on CPUs): where as many such batches are factorised at once as there are threads, each
waits for the others, for ever. Two fields that one program evaluates at many latents are enough on
two cores. A single matrix waits for nobody.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["cholesky", "solve_positive"]


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


def solve_positive(matrix: Float[Array, "d d"], b: Float[Array, "d *k"]) -> Float[Array, "d *k"]:
    """The solution of a system whose matrix is positive definite.

    Args:
        matrix: of the system.
        b: its right-hand side, or several.

    >>> print(solve_positive(jnp.diag(jnp.array([2.0, 4.0])), jnp.ones(2)).round(3))
    [0.5  0.25]
    """
    return jax.scipy.linalg.cho_solve((cholesky(matrix), True), b)
