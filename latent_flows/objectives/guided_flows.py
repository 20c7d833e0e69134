"""The loss of a flow that is taught by sequences of codes in which one known factor changes."""

from collections.abc import Callable
from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from latent_flows import flows, pde
from latent_flows.typing import Latent, Potential, Scalar

__all__ = ["GuidedBatch", "GuidedTerms", "guided_flow_terms"]


class GuidedBatch(NamedTuple):
    """Sequences of `T + 1` codes, at times one apart."""

    start: Float[Array, "n"]
    """The time at which each begins."""
    sign: Float[Array, "n"]
    """1 where the factor grows, -1 where it falls."""
    codes: Float[Array, "n t d"]
    """The codes."""
    metric: Float[Array, "n d d"]
    """By which misses are measured, such as the generator's."""
    slopes: Float[Array, "n p f d"]
    """Derivatives of factors at the first, middle and last code."""


class GuidedTerms(NamedTuple):
    """The unweighted terms."""

    landing: Scalar
    """Mean squared distance from the codes, in the metric."""
    leakage: Scalar
    """Squared change of what the factor does not change, relative to that of what it does."""
    residual: Scalar
    """Relative residual of the equation, or zero."""


def guided_flow_terms(
    key: PRNGKeyArray,
    potential: Potential,
    batch: GuidedBatch,
    kept: Float[Array, "f"],
    *,
    horizon: int,
    solver: diffrax.AbstractSolver | None = None,
    equation: Callable[[Potential], pde.Residual] | None = None,
) -> GuidedTerms:
    r"""The terms of the flow of one potential on sequences of its factor.

    With the flow $\phi$ from a sequence's first code, its codes $z_t$ and the derivatives $J$ of
    the factors, of which $K$ are to stay and $C$ to change,

    $$\mathbb E\, |\phi_t(z_0) - z_t|_M^2, \qquad
      \frac{\mathbb E \sum_{f \in K} (J_f v)^2}{\mathbb E \sum_{f \in C} (J_f v)^2}$$

    Args:
        key: randomness of the times at which leakage is looked at.
        potential: `(t, z) -> scalar`, along whose gradient the factor grows.
        batch: the sequences.
        kept: 1 for each factor that is to stay, 0 for others.
        horizon: time of a sequence, its number of codes less one.
        solver: of the trajectories; by default that of `flows.integrate`.
        equation: from the potential to the residual of what it shall obey, if anything.

    Returns:
        The terms.

    References:
        Song, Keller, Sebe and Welling, *Flow Factorized Representation Learning*, 2023, for the
        guidance.

    >>> codes = jnp.arange(3.0)[None, :, None] * jnp.array([1.0, 0.0])
    >>> ones, slopes = jnp.ones(1), jnp.ones((1, 3, 1, 2)) * jnp.array([1.0, 0.0])
    >>> batch = GuidedBatch(0 * ones, ones, codes, jnp.eye(2)[None], slopes)
    >>> flat = lambda t, z: 0 * z.sum()
    >>> terms = guided_flow_terms(jax.random.key(0), flat, batch, jnp.zeros(1), horizon=2)
    >>> print(terms.landing)
    2.5
    """
    field, ts = flows.gradient(potential), jnp.arange(horizon + 1.0)

    def path(z: Latent, sign: Scalar, start: Scalar) -> Array:
        def moving(t: Scalar, z: Latent) -> Latent:
            return sign * field(start + t, z)

        return flows.integrate(moving, z, ts, solver=solver).zs

    paths = jax.vmap(path)(batch.codes[:, 0], batch.sign, batch.start)
    missed = paths - batch.codes
    squares = jnp.einsum("nti,nij,ntj->nt", missed, batch.metric, missed)
    # At any time: a potential would learn to hold still at those of the frames.
    times = batch.start[:, None] + horizon * jax.random.uniform(key, (len(batch.codes), 3))
    probes = batch.codes[:, jnp.array([0, horizon // 2, horizon])]
    moving = jax.vmap(jax.vmap(field))(times, probes)
    changes = jnp.einsum("npfi,npi->npf", batch.slopes, moving) ** 2
    landing = jnp.mean(squares[:, 1:])
    leakage = jnp.sum(kept * changes) / (jnp.sum((1 - kept) * changes) + 1e-12)
    residual = jnp.zeros(())
    if equation is not None:
        obeyed = equation(potential)
        when = (batch.start[:, None] + ts[1:]).reshape(-1)
        where = paths[:, 1:].reshape(-1, paths.shape[-1])
        residual = pde.relative_residual(obeyed, when, where)
    return GuidedTerms(landing, leakage, residual)
