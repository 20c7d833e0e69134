"""Mixtures of Gaussians: fitted to points, and the velocity that carries noise to one."""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from latent_flows.typing import Latent, Scalar

__all__ = ["GaussianMixture", "best_mixture", "fit_mixture", "mixture_log_prob", "mixture_velocity"]

COUNTS = (1, 2, 4, 8, 16)
"""Components that are tried."""
PER_NUMBER = 10
"""Least points for each number that a mixture has to learn."""
MOST_POINTS = 100_000
"""Of which a mixture is fitted."""
ITERATIONS = 100
FLOOR = 1e-3
"""Least variance, in units of that of the points."""


class GaussianMixture(NamedTuple):
    """A mixture of Gaussians, each with axes of its own."""

    weights: Float[Array, "k"]
    means: Float[Array, "k d"]
    variances: Float[Array, "k d"]
    """Along the axes."""
    axes: Float[Array, "k d d"]
    """In columns."""


def mixture_log_prob(mixture: GaussianMixture, y: Latent) -> Scalar:
    """The log-density of a mixture.

    >>> one = GaussianMixture(jnp.ones(1), jnp.zeros((1, 2)), jnp.ones((1, 2)), jnp.eye(2)[None])
    >>> print(mixture_log_prob(one, jnp.zeros(2)).round(3))
    -1.838
    """
    return jax.nn.logsumexp(_log_parts(mixture, y))


def mixture_velocity(mixture: GaussianMixture, t: Scalar | float, y: Latent) -> Latent:
    r"""The mean velocity of all trigonometric paths from noise to a mixture, in closed form.

    $$v(t, y) = \dot a\, E[\varepsilon \mid y] + \dot b\, E[x \mid y], \qquad
      y = a(t)\, \varepsilon + b(t)\, x$$

    >>> one = GaussianMixture(jnp.ones(1), jnp.zeros((1, 2)), jnp.ones((1, 2)), jnp.eye(2)[None])
    >>> print(jnp.abs(mixture_velocity(one, 0.3, jnp.ones(2))).max().round(5))
    0.0
    """
    from latent_flows.objectives.flow_matching import trigonometric_bridge

    t = jnp.asarray(t, y.dtype)
    (a, b), (da, db) = jax.jvp(trigonometric_bridge, (t,), (jnp.ones_like(t),))
    weights, means, variances, axes = mixture
    there = a**2 + b**2 * variances
    moved = GaussianMixture(weights, b * means, there, axes)
    share = jax.nn.softmax(_log_parts(moved, y))
    inner = jnp.einsum("kij,ki->kj", axes, y - b * means) / there
    # The means of noise and of the sample given the place, of each component.
    noise = a * inner
    sample = b * variances * inner
    along = jnp.einsum("k,kij,kj->i", share, axes, da * noise + db * sample)
    return along + db * (share @ means)


def _log_parts(mixture: GaussianMixture, y: Latent) -> Float[Array, "k"]:
    weights, means, variances, axes = mixture
    inner = jnp.einsum("kij,ki->kj", axes, y - means)
    squares = jnp.sum(inner**2 / variances + jnp.log(variances), axis=1)
    return jnp.log(weights) - (squares + y.size * math.log(2 * math.pi)) / 2


@partial(jax.jit, static_argnums=2)
def fit_mixture(key: PRNGKeyArray, points: Float[Array, "n d"], count: int) -> GaussianMixture:
    """Expectation maximisation, from random points with the covariance of all.

    Args:
        key: which points.
        points: of mean 0 and covariance 1.
        count: of components.

    Returns:
        The mixture.
    """
    n, dim = points.shape
    start = GaussianMixture(
        jnp.full(count, 1 / count, points.dtype),
        # One component is what the points are standardised to.
        jax.random.choice(key, points, (count,), replace=False) * (count > 1),
        jnp.ones((count, dim), points.dtype),
        jnp.tile(jnp.eye(dim, dtype=points.dtype), (count, 1, 1)),
    )

    def step(mixture: GaussianMixture, _: None) -> tuple[GaussianMixture, None]:
        shares = jax.nn.softmax(jax.vmap(partial(_log_parts, mixture))(points), axis=1)
        sizes = shares.sum(0) + 1e-6 * n
        means = shares.T @ points / sizes[:, None]

        def spread(share: Array, size: Array, mean: Array) -> tuple[Array, Array]:
            apart = points - mean
            return jnp.linalg.eigh((apart * share[:, None]).T @ apart / size)

        variances, axes = jax.lax.map(lambda one: spread(*one), (shares.T, sizes, means))
        variances = jnp.maximum(variances, FLOOR)
        return GaussianMixture(sizes / sizes.sum(), means, variances, axes), None

    return jax.lax.scan(step, start, length=ITERATIONS)[0]


def best_mixture(
    key: PRNGKeyArray,
    points: Float[Array, "n d"],
    held: Float[Array, "m d"],
    counts: Sequence[int] = COUNTS,
) -> GaussianMixture:
    """The mixture, of as many components as held-out points are likeliest in.

    Args:
        key: where fits start.
        points: that it is fitted to, of mean 0 and covariance 1.
        held: of the same distribution.
        counts: of components that are tried, where there are points enough; one always is.

    Returns:
        The mixture.
    """
    dim = points.shape[1]
    numbers = dim * (dim + 3) // 2
    few = points[:MOST_POINTS]
    tried = [k for k in counts if k == 1 or PER_NUMBER * k * numbers <= len(few)]
    found = [fit_mixture(key, few, k) for k in tried]
    score = jax.jit(lambda one: jax.vmap(partial(mixture_log_prob, one))(held).mean())
    return found[max(range(len(found)), key=lambda i: float(score(found[i])))]
