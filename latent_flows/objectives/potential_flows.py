"""The loss of K potential flows on a frozen generator: what each flow does, its terms, their sum.

`sample_flow` follows one flow, `potential_flow_terms` makes the terms of K, `weighted_sum` adds
them up. A new term is a field of `PotentialFlowTerms`, of the same name in `PotentialFlowWeights`,
and a line of `potential_flow_terms`.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from latent_flows import flows, pde
from latent_flows._transforms import vmap_chunked
from latent_flows._validation import at_least
from latent_flows.geometry.operators import frame_and_bend, operator_in
from latent_flows.objectives.traversals import (
    direction_consistency,
    outside,
    overlap,
    relative_start,
    share_along,
    sparsity,
    speed_loss,
    unit_contributions,
    variation_loss,
)
from latent_flows.typing import Generator, Latent, Metric, Scalar, VectorField

__all__ = [
    "Axes",
    "FlowSample",
    "PotentialFlowTerms",
    "PotentialFlowWeights",
    "potential_flow_terms",
    "sample_flow",
    "weighted_sum",
]

Axes = tuple[Float[Array, "*n d d"], Float[Array, "*n d"]]
"""What `geometry.operators.frame_and_bend` gives at each point."""


class PotentialFlowTerms(NamedTuple):
    """The unweighted terms, each of order 1; those of contributions need a known metric."""

    classification: Scalar
    """Cross-entropy of naming the flow from a pair of samples, in units of `log K`."""
    residual: Scalar
    """Residual of the equation, relative to the size of its terms; in [0, number of terms]."""
    initial: Scalar
    """Squared velocity at time 0, relative to that along the flow; in [0, 1]."""
    variation: Scalar
    """`variation_loss`, in (0, 1]."""
    speed: Scalar
    """`speed_loss`."""
    outside: Scalar
    """Squared distance that paths go beyond the box of starting points."""
    sparsity: Scalar | None
    """Entropy of a flow over the axes; in [0, 1]. None without a metric."""
    overlap: Scalar | None
    """Share of axes that two flows have in common; in [0, 1]. None without a metric."""
    consistency: Scalar | None
    """`direction_consistency`; in [0, 1]. None without a metric."""
    avoided: Scalar | None
    """`share_along` what flows shall not do; in [0, 1]. None where nothing is to be avoided."""
    accuracy: Scalar
    """Share of pairs whose flow is named rightly: to be looked at, and of no weight."""


@dataclass(frozen=True)
class PotentialFlowWeights:
    """Weights of the loss terms, each of which is of order 1; 0 leaves a term out."""

    classification: float = 1.0
    """Cross-entropy of naming the potential from an image pair, in units of log K."""
    residual: float = 1.0
    """PDE residual, relative to the size of the equation's terms."""
    initial: float = 1.0
    """Squared velocity at time 0, relative to that along the flow, of flows that may move then."""
    variation: float = 1.0
    """Lack of variation along the flow: bounded form of the published - E |J v|^2."""
    speed: float = 0.0
    """Squared log-ratio of each flow's speed to the wanted pace."""
    outside: float = 0.0
    """Squared distance that paths go beyond the range of the codes."""
    sparsity: float = 0.0
    """Entropy of a flow over the coordinates' axes, in the generator's metric."""
    overlap: float = 0.0
    """Share of axes that two flows have in common, in the generator's metric."""
    consistency: float = 0.0
    """Lack of a common direction of a flow over starting points and times."""
    avoided: float = 0.0
    """Share of what flows change that lies along known fields, in the generator's metric."""

    def __post_init__(self) -> None:
        at_least(self, "weights.", **dict.fromkeys(vars(self), 0))


class FlowSample(NamedTuple):
    """What one flow does from each of `n` starting points."""

    before: Float[Array, "n d"]
    """The points at the start of a random step of each path."""
    after: Float[Array, "n d"]
    """The points at its end."""
    velocity: Float[Array, "n d"]
    """After the step; where the metric is known, at a random time at the starting points."""
    outside: Float[Array, "n t"]
    """Squared distance of each point of the paths from the box."""
    initial: Scalar
    """`relative_start`, or zero."""
    residual: Scalar
    """Relative residual of the equation, or zero."""
    squared_speed: Float[Array, "n"] | None
    """Of the velocity in data space, where the metric is known."""
    contributions: Float[Array, "n d"] | None
    """Of the axes to the velocity, where the metric is known."""
    squared_crossing: Float[Array, "n"]
    """Of the velocity in widths of the box: the share of its range crossed per unit time."""
    avoided: Float[Array, "n"] | None = None
    """`share_along` the directions to avoid, where there are some."""


def sample_flow(
    key: PRNGKeyArray,
    field: VectorField,
    starts: Float[Array, "n d"],
    low: Latent,
    high: Latent,
    *,
    horizon: int = 10,
    equation: Callable[..., pde.Residual] | None = None,
    manifold: Metric | None = None,
    metric: Float[Array, "n d d"] | None = None,
    avoid: Float[Array, "n m d"] | None = None,
    axes: Axes | None = None,
    solver: diffrax.AbstractSolver | None = None,
    reverse: bool = True,
    at_rest: bool = True,
) -> FlowSample:
    """Follows one flow, backwards from half of its starting points, and looks at a random step.

    Args:
        key: a random key.
        field: the flow's velocity `(t, z) -> dz/dt`.
        starts: where it starts.
        low: lower corner of the box that paths should stay in.
        high: upper corner.
        horizon: the number `T` of steps, each of unit time.
        equation: of the flow's potential; takes `laplacian=` alone, as
            `partial(pde.wave, u, speed)` does.
        manifold: metric in whose Laplacian the equation holds, at one point of each path; by
            default in the equation's own, at all points.
        metric: the generator's metric at each start, computed before: velocities are then looked at
            there, since paths stay among such points.
        avoid: directions at each start that the flow shall not go along, as a steered field gives
            them; the metric has to be known.
        axes: `frame_and_bend(manifold)` at each start, computed before.
        solver: of the paths; Euler's unit steps by default, as published.
        reverse: whether half of the paths are followed backwards.
        at_rest: whether the flow is at rest at time 0 by construction, so that the initial
            condition is no term.

    Returns:
        What the flow does.

    Raises:
        ValueError: directions to avoid without a metric to measure them in.

    References:
        Song et al., *Latent Traversals in Generative Models as Potential Flows*, 2023, section 3.

    >>> starts, box = jnp.zeros((2, 3)), jnp.ones(3)
    >>> found = sample_flow(jax.random.key(0), lambda t, z: 0.1 * box, starts, -box, box, horizon=4)
    >>> bool(jnp.allclose(found.after - found.before, found.velocity * jnp.sign(found.after)))
    True
    """
    if avoid is not None and metric is None:
        raise ValueError("avoid needs the generator's metric at each start: give metric= as well")
    sign_key, step_key, time_key = jax.random.split(key, 3)
    count = len(starts)
    signs = jax.random.rademacher(sign_key, (count,), starts.dtype)
    if not reverse:
        signs = jnp.ones_like(signs)
    ts = jnp.arange(horizon + 1.0)

    def path(z: Array, sign: Array) -> Array:
        signed = flows.combine([field], sign[None])
        return flows.integrate(signed, z, ts, solver=solver or flows.solver("euler")).zs

    paths = jax.vmap(path)(starts, signs)
    beyond = partial(outside, low=low, high=high)
    rows, chosen = jnp.arange(count), jax.random.randint(step_key, (count,), 0, horizon)
    before, after = paths[rows, chosen], paths[rows, chosen + 1]
    times, points = ts[chosen + 1], after
    if metric is not None:
        # Where the metric is known, at any time: paths stay among these points.
        times, points = jax.random.uniform(time_key, (count,), maxval=horizon), starts
    velocity = jax.vmap(field)(times, points)
    squared_speed = contributions = avoided = None
    if metric is not None:
        squared_speed = jnp.einsum("ni,nij,nj->n", velocity, metric, velocity)
        contributions = jax.vmap(unit_contributions)(velocity, metric)
    if metric is not None and avoid is not None:
        avoided = jax.vmap(share_along)(velocity, avoid, metric)
    initial = residual = jnp.zeros(())
    if not at_rest:
        initial = relative_start(jax.vmap(partial(field, jnp.zeros(())))(starts), velocity)
    if equation is not None and manifold is None:
        at = jnp.tile(ts[1:], count), paths[:, 1:].reshape(-1, starts.shape[-1])
        residual = pde.relative_residual(equation(), *at)
    elif equation is not None and manifold is not None:
        axes = jax.vmap(frame_and_bend(manifold))(points) if axes is None else axes
        residual = _on_manifold(equation, times, points, axes)
    return FlowSample(
        before,
        after,
        velocity,
        outside=jax.vmap(jax.vmap(beyond))(paths),
        initial=initial,
        residual=residual,
        squared_speed=squared_speed,
        contributions=contributions,
        squared_crossing=jnp.sum((velocity / (high - low)) ** 2, axis=-1),
        avoided=avoided,
    )


def _on_manifold(
    equation: Callable[..., pde.Residual], times: Array, points: Array, axes: Axes
) -> Scalar:
    """The relative residual of an equation in the Laplacian of a metric whose axes are known."""

    def terms(t: Scalar, place: tuple[Array, Array, Array]) -> tuple[Scalar, ...]:
        z, root, bend = place
        return equation(laplacian=operator_in(lambda _: (root, bend))).terms(t, z)

    return pde.relative_size(jax.vmap(terms)(times, (points, *axes)))


def potential_flow_terms(
    samples: FlowSample,
    generator: Generator,
    classify: Callable[[Array, Array], Float[Array, "K n K"]],
    *,
    pace: float = 1.0,
    crossing: float | None = None,
    at_once: int = 0,
) -> PotentialFlowTerms:
    r"""The terms of K flows, from what each of them does.

    A classifier has to name the flow from the samples before and after a step; flows obey their
    equation, start at rest, and change what is generated. Where the metric is known, they can also
    be kept sparse, apart, and of one direction.

    Args:
        samples: of `sample_flow`, each leaf with a leading axis of length K.
        generator: `z -> x`, of any event shape.
        classify: from samples before and after, `[K, n, *event]` each, to logits of the K flows.
        pace: length in data space per unit time that flows are drawn to.
        crossing: share of the box's width per unit time that they are drawn to instead: factors
            of a short range are then not left sooner than others.
        at_once: pairs that the generator makes at once, to save memory; 0: all.

    Returns:
        The terms.

    References:
        Song et al., *Latent Traversals in Generative Models as Potential Flows*, 2023, eqs. (5)
        to (8); terms are made bounded or relative, see `variation_loss` and `relative_start`.

    >>> axes, box = jnp.eye(2), jnp.ones(2)
    >>> samples = jax.vmap(
    ...     lambda key, v: sample_flow(key, lambda t, z: v, jnp.zeros((3, 2)), -box, box)
    ... )(jax.random.split(jax.random.key(0)), axes)
    >>> terms = potential_flow_terms(samples, jnp.sin, lambda a, b: 100 * jnp.abs(b - a))
    >>> print(terms.accuracy, terms.sparsity)
    1.0 None
    """
    count = len(samples.before)
    before, after, squared_speed = _pairs(generator, samples, at_once)
    logits = classify(before, after)
    labels = jnp.broadcast_to(jnp.arange(count)[:, None], logits.shape[:2])
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    contributions = samples.contributions
    return PotentialFlowTerms(
        classification=jnp.mean(entropy) / jnp.log(count),
        residual=jnp.mean(samples.residual),
        initial=jnp.mean(samples.initial),
        variation=variation_loss(squared_speed, pace),
        speed=speed_loss(squared_speed, pace)
        if crossing is None
        else speed_loss(samples.squared_crossing, crossing),
        outside=jnp.mean(samples.outside),
        sparsity=None if contributions is None else sparsity(contributions),
        overlap=None if contributions is None else overlap(contributions),
        consistency=None if contributions is None else direction_consistency(contributions),
        avoided=None if samples.avoided is None else jnp.mean(samples.avoided),
        accuracy=jnp.mean(jnp.argmax(logits, -1) == labels),
    )


def _pairs(
    generator: Generator, samples: FlowSample, at_once: int
) -> tuple[Array, Array, Float[Array, "K n"]]:
    """Generated samples before and after, and squared speeds: known, or pushed forward.

    With `at_once` the generator makes no more pairs than that at a time, and keeps nothing of them
    for the way back but the samples.
    """
    known = samples.squared_speed

    def pair(before: Array, after: Array, velocity: Array) -> tuple[Array, Array, Array]:
        if known is not None:
            return generator(before), generator(after), jnp.zeros(())
        sample, change = jax.jvp(generator, (after,), (velocity,))
        return generator(before), sample, jnp.sum(change**2)

    points = (samples.before, samples.after, samples.velocity)
    count, share, dim = samples.before.shape
    flat = [leaf.reshape(-1, dim) for leaf in points]
    batched = vmap_chunked(jax.checkpoint(pair), at_once) if at_once else jax.vmap(pair)
    before, after, pushed = jax.tree.map(
        lambda leaf: leaf.reshape(count, share, *leaf.shape[1:]), batched(*flat)
    )
    return before, after, pushed if known is None else known


def weighted_sum(weights: PotentialFlowWeights, terms: PotentialFlowTerms) -> Scalar:
    """The loss.

    Args:
        weights: of the terms.
        terms: that there are; a weight of a term that is not known is of no account.

    Returns:
        The sum.

    >>> ones = PotentialFlowTerms(*jnp.ones(6), None, None, None, None, jnp.zeros(()))
    >>> print(weighted_sum(PotentialFlowWeights(speed=0.5), ones))
    4.5
    """
    known = {field.name: getattr(terms, field.name) for field in fields(weights)}
    parts = [getattr(weights, name) * term for name, term in known.items() if term is not None]
    return jnp.asarray(sum(parts))
