"""Damped least squares on the image of a generator's Jacobian, formed or matrix-free."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from latent_flows._factors import inverse_of
from latent_flows.typing import Latent, Scalar

FORMED = 96
"""Latents up to this length have their Jacobian formed; longer ones are solved matrix-free."""
PROBES = 4
"""Random vectors from which the mean square of a Jacobian that is not formed is estimated."""
ITERATIONS = 30
"""Most steps of conjugate gradients. A blurred metric has few directions that matter."""
TOLERANCE = 1e-3
"""Relative residual at which these end."""


class Normal(NamedTuple):
    """The normal equations `(F' F + l I) v = F' f` of a map of a latent, at one latent."""

    value: Float[Array, "m"]
    """The map there."""
    pull: Callable[[Float[Array, "m"]], Latent]
    """`f -> F' f`."""
    solve: Callable[[Latent], Latent]
    """`b -> (F' F + l I)^-1 b`."""


def normal(
    function: Callable[[Latent], Float[Array, "m"]], z: Latent, damping: Scalar | float
) -> Normal:
    """Damped normal equations; the damping is in units of the mean of `F' F`'s diagonal."""
    dim = z.shape[0]
    if dim <= FORMED:
        value, jacobian = _with_jacobian(function, z)
        gram = jacobian.T @ jacobian
        level = _level(jnp.trace(gram) / dim, damping)
        damped = gram + level * jnp.eye(dim, dtype=z.dtype)
        return Normal(value, lambda f: jacobian.T @ f, inverse_of(damped))
    value, push = jax.linearize(function, z)
    transpose = jax.linear_transpose(push, z)
    level = _level(mean_square(push, z), damping)

    def times(v: Latent) -> Latent:
        return transpose(push(v))[0] + level * v

    operator = lx.FunctionLinearOperator(
        times, jax.ShapeDtypeStruct(z.shape, z.dtype), lx.positive_semidefinite_tag
    )
    solver = lx.CG(rtol=TOLERANCE, atol=0.0, max_steps=ITERATIONS)

    def solve(b: Latent) -> Latent:
        # Where it has not converged it is an approximation all the same, and a damped one.
        scale = jnp.sqrt(jnp.sum(b**2))
        unit = b / jnp.where(scale > 0, scale, 1)
        return scale * lx.linear_solve(operator, unit, solver, throw=False).value

    return Normal(value, lambda f: transpose(f)[0], solve)


def mean_square(push: Callable[[Latent], Float[Array, "m"]], z: Latent) -> Scalar:
    """The mean square of a linear map over the coordinates of `z`, from a few random vectors."""
    probes = jax.random.rademacher(jax.random.key(0), (PROBES, z.shape[0]), z.dtype)
    return jnp.mean(jax.vmap(lambda p: jnp.sum(push(p) ** 2))(probes)) / z.shape[0]


def _with_jacobian(
    function: Callable[[Latent], Float[Array, "m"]], z: Latent
) -> tuple[Float[Array, "m"], Float[Array, "m d"]]:
    value, push = jax.linearize(function, z)
    return value, jax.vmap(push, out_axes=1)(jnp.eye(z.shape[0], dtype=z.dtype))


def _level(mean: Scalar, damping: Scalar | float) -> Scalar:
    # Where nothing changes at all, there is no unit to damp in, and nothing to solve.
    return jnp.where(mean > 0, damping * mean, 1).astype(mean.dtype)


def dual(
    rows: Float[Array, "k d"], inverse: Callable[[Latent], Latent], damping: Scalar | float
) -> Callable[[Float[Array, "k"]], Latent]:
    r"""The least change that moves `k` functions as asked, given their gradients.

    $$ r \mapsto G^{-1} A^\top (A G^{-1} A^\top + \delta)^{-1} r $$

    with the rows of `A` in units of their own length, and the damping in units of the mean of the
    diagonal. Two steps of iterative refinement take away what the damping costs where it was not
    needed, and leave it where the matrix is singular.

    Args:
        rows: gradients, `A`.
        inverse: `b -> G^-1 b`.
        damping: `delta`.
    """
    sizes = jnp.sqrt(jnp.sum(rows**2, -1))
    sizes = jnp.where(sizes > 0, sizes, 1)
    unit = rows / sizes[:, None]
    raised = jax.vmap(inverse)(unit)
    gram = raised @ unit.T
    count = len(rows)
    mean = jnp.trace(gram) / count
    level = jnp.where(mean > 0, damping * mean, 1).astype(rows.dtype)
    solve = inverse_of((gram + gram.T) / 2 + level * jnp.eye(count, dtype=rows.dtype))

    def change(rates: Float[Array, "k"]) -> Latent:
        asked = rates / sizes
        found = solve(asked)
        for _ in range(2):
            found += solve(asked - gram @ found)
        return found @ raised

    return change
