"""Loss terms of potential flows on a frozen generator, each bounded or relative."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent_flows._norms import safe_sqrt
from latent_flows.typing import Latent, Scalar

__all__ = [
    "direction_consistency",
    "outside",
    "overlap",
    "relative_start",
    "share_along",
    "sparsity",
    "speed_loss",
    "unit_contributions",
    "variation_loss",
]


def unit_contributions(velocity: Latent, metric: Float[Array, "d d"]) -> Latent:
    r"""How much each latent axis contributes to a step, as the generator's metric sees it.

    $$ w_i = v_i \sqrt{G_{ii}} \Big/ \Big(\sum_j v_j^2 G_{jj}\Big)^{1/2} $$

    `v_i sqrt(G_ii)` is the length in data space of the step's component along axis `i`; without
    the metric a flow can look sparse in the latent and not in the image. The result has unit
    length, or is zero where the velocity is.

    Args:
        velocity: `v`, the velocity of a flow at one point.
        metric: `G`, the generator's metric at that point; only its diagonal is used.

    Returns:
        The contributions, one an axis.

    >>> import jax.numpy as jnp
    >>> unit_contributions(jnp.array([3.0, 1.0]), jnp.diag(jnp.array([1.0, 16.0]))).tolist()
    [0.6..., 0.8...]
    """
    # An axis that the generator ignores has no length, and must not make gradients NaN.
    steps = velocity * safe_sqrt(jnp.diagonal(metric))
    square = jnp.sum(steps**2)
    return steps * jax.lax.rsqrt(jnp.where(square > 0, square, 1.0))


def share_along(
    velocity: Latent, known: Float[Array, "m d"], metric: Float[Array, "d d"]
) -> Scalar:
    r"""The share of a flow's squared speed that lies along known directions, in [0, 1].

    $$ \frac{|P v|_G^2}{|v|_G^2}, \qquad P = V^\top (V G V^\top)^{-1} V G $$

    with the known directions as the rows of $V$: the projection is orthogonal as the generator's
    metric measures. A direction along which nothing changes counts for nothing.

    Args:
        velocity: of a flow at one point.
        known: directions there, one a row.
        metric: `G`, the generator's metric there.

    Returns:
        The share; 0 where the flow stands still.

    >>> import jax.numpy as jnp
    >>> axis, metric = jnp.array([[1.0, 0.0]]), jnp.diag(jnp.array([1.0, 3.0]))
    >>> print(share_along(jnp.array([1.0, 1.0]), axis, metric).round(3))
    0.25
    """
    lowered = metric @ velocity
    square = velocity @ lowered
    gram = known @ metric @ known.T
    # Directions are brought to one length, so that the damping means the same for each of them.
    length = safe_sqrt(jnp.diagonal(gram))
    unit = jnp.where(length > 0, 1 / jnp.where(length > 0, length, 1), 0)
    alike = gram * unit * unit[:, None] + 1e-6 * jnp.eye(len(known))
    along = (known @ lowered) * unit
    solution = jax.scipy.linalg.solve(alike, along, assume_a="pos")
    return (along @ solution) / jnp.where(square > 0, square, 1)


def sparsity(contributions: Float[Array, "count n d"]) -> Scalar:
    r"""Entropy of each flow's mean squared contributions over axes, in [0, 1].

    0: every flow moves along one axis, everywhere; 1: along all axes alike.

    Args:
        contributions: `unit_contributions` of each flow at `n` points.

    Returns:
        The entropy over its largest value.
    """
    shares = jnp.mean(contributions**2, axis=1)
    entropy = jnp.sum(jax.scipy.special.entr(shares + 1e-12), axis=-1)
    return jnp.mean(entropy) / jnp.log(max(contributions.shape[-1], 2))


def overlap(contributions: Float[Array, "count n d"]) -> Scalar:
    """How much of an axis two flows share, averaged over pairs of flows, in [0, 1].

    0: no two flows move along the same axis; 1: all move along the same single one.

    Args:
        contributions: `unit_contributions` of each flow at `n` points.

    Returns:
        The overlap.
    """
    count = contributions.shape[0]
    shares = jnp.mean(contributions**2, axis=1)
    gram = shares @ shares.T
    return jnp.sum(gram * (1 - jnp.eye(count))) / max(count * (count - 1), 1)


def direction_consistency(contributions: Float[Array, "count n d"]) -> Scalar:
    """One minus the length of each flow's mean direction, averaged over flows, in [0, 1].

    0: a flow points the same way, sign included, from every starting point and at every time.

    Args:
        contributions: `unit_contributions` of each flow at `n` points.

    Returns:
        The inconsistency.
    """
    mean = jnp.mean(contributions, axis=1)
    return jnp.mean(1 - jnp.sqrt(jnp.sum(mean**2, axis=-1) + 1e-12))


def variation_loss(squared_speed: Float[Array, "count n"], scale: float) -> Scalar:
    r"""One minus the variation along the flows, made bounded: in (0, 1].

    $$ \frac1K \sum_k \frac{s^2}{s^2 + \mathbb{E}|J_g v_k|^2} $$

    The published term, `-E |J_g v|^2` (Song et al., ICML 2023, eq. 7), is unbounded below; this has
    the same minimiser direction, but each flow gains less the faster it already is, and a flow
    that stands still costs the whole of its share.

    Args:
        squared_speed: `|J_g v|^2` of each flow at `n` points.
        scale: `s`, the data-space length per unit time at which half is gained.

    Returns:
        The loss.
    """
    return jnp.mean(scale**2 / (scale**2 + jnp.mean(squared_speed, axis=1)))


def speed_loss(squared_speed: Float[Array, "count n"], pace: float) -> Scalar:
    r"""Squared log-ratio of each flow's root-mean-square speed to a wanted pace.

    Keeps every flow moving, and all of them alike: in data space, or in widths of the box that
    latents fill, where some factors have a shorter range than others.

    Args:
        squared_speed: of each flow at `n` points, `|J_g v|^2` in data space.
        pace: the wanted length per unit time.

    Returns:
        The loss, at least 0.
    """
    mean = jnp.mean(squared_speed, axis=1)
    return jnp.mean((0.5 * jnp.log(mean + 1e-12) - jnp.log(pace)) ** 2)


def outside(z: Latent, low: Latent, high: Latent) -> Scalar:
    """Squared distance of a latent from a box, in box half-widths; 0 inside.

    Args:
        z: a latent.
        low: the lower corner of the box, for instance the codes' 1% quantiles.
        high: the upper one.

    Returns:
        The squared distance.
    """
    beyond = jnp.maximum(z - high, 0) + jnp.maximum(low - z, 0)
    return jnp.sum((2 * beyond / (high - low)) ** 2)


def relative_start(at_start: Float[Array, "n d"], moving: Float[Array, "n d"]) -> Scalar:
    r"""Squared velocity at time 0 relative to that along the flow, in [0, 1].

    $$ \frac{\mathbb E |\nabla u(0, z)|^2}
            {\mathbb E |\nabla u(0, z)|^2 + \mathbb E |\nabla u(t, z)|^2} $$

    The initial condition of Song et al. (ICML 2023, eq. 6), `grad u(0, z) = 0`, made relative so
    that a flow cannot satisfy it by being slow.

    Args:
        at_start: velocities at time 0.
        moving: velocities at later times.

    Returns:
        The loss.
    """
    start, later = jnp.mean(jnp.sum(at_start**2, -1)), jnp.mean(jnp.sum(moving**2, -1))
    return start / (start + later + 1e-12)
