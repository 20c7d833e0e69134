"""LAND: normal distributions whose distance is that of a metric, and mixtures of them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PRNGKeyArray

from latent_flows._compiled import keep_compiled, unjitted
from latent_flows._results import Result, first_failure, message_of
from latent_flows._transforms import vmap_chunked
from latent_flows._validation import choose
from latent_flows.geometry import metrics
from latent_flows.geometry._spokes import Spokes, check_points, lines, spokes
from latent_flows.geometry.kmeans import kmeans
from latent_flows.typing import Latent, Metric, Scalar

__all__ = [
    "MEASURES",
    "Land",
    "Proposal",
    "fewest_samples",
    "fit_land",
    "land_log_prob",
    "normalise_land",
    "sample_land",
]

MEASURES: Mapping[str, bool] = MappingProxyType({"volume": True, "lebesgue": False})
"""What a density is a density of, and whether that is the volume of the metric."""

_REPLICATES = 8  # independent estimates, whose spread is the error that is reported
_UNKNOWN = 0.5  # standard error of a constant's logarithm above which it is not known
_WIDE = 2.0  # deviations of the data that the wide part of the proposal has
_START = 256  # points, at most, that k-means looks at for first means


class Proposal(NamedTuple):
    """Where a LAND is integrated: half around data points, half a wide normal distribution."""

    centres: Float[Array, "m d"]
    """Points of data."""
    mean: Latent
    """Their mean."""
    factor: Float[Array, "d d"]
    """Cholesky factor of their covariance, in latent coordinates."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "means",
        "precisions",
        "weights",
        "log_constants",
        "log_constant_errors",
        "log_likelihood",
        "converged",
        "proposal",
    ],
    meta_fields=["measure", "segments"],
)
@dataclass(frozen=True, eq=False)
class Land:
    """A mixture of locally adaptive normal distributions; see `fit_land`."""

    means: Float[Array, "k d"]
    """Where the components are centred."""
    precisions: Float[Array, "k d d"]
    """Their precisions, in the coordinates of the tangent space at each mean."""
    weights: Float[Array, "k"]
    """Their shares; they add up to 1."""
    log_constants: Float[Array, "k"]
    """Logarithms of the integrals of their exponentials."""
    log_constant_errors: Float[Array, "k"]
    """Standard errors of these, from independent estimates."""
    log_likelihood: Scalar
    """Mean log-density, with respect to Lebesgue measure, of the points that it was fitted to."""
    converged: Bool[Array, ""]
    """Whether no further step of the means raised the likelihood by more than the tolerance."""
    proposal: Proposal
    """Where it is integrated."""
    measure: str
    """What the exponentials are densities with respect to: volume or lebesgue."""
    segments: int
    """Of the geodesics that distances are measured along."""

    @property
    def result(self) -> Result:
        """Why it has not converged, or cannot be relied on; `message` says it in words."""
        return first_failure(
            (self.converged, Result.max_steps_reached),
            (self.log_constant_errors.max(-1) < _UNKNOWN, Result.unknown_constants),
        )

    @property
    def message(self) -> Any:
        """What the result is in words; empty if all is well. Of a batch, an array of such."""
        return message_of(self.result)


def fit_land(
    key: PRNGKeyArray,
    metric: Metric,
    points: Float[Array, "n d"],
    components: int = 1,
    *,
    measure: str = "volume",
    initial: Float[Array, "k d"] | None = None,
    samples: int = 1024,
    final_samples: int = 4096,
    segments: int = 16,
    tolerance: float = 1e-3,
    regularisation: float = 1e-3,
    max_iterations: int = 30,
    batch_size: int = 256,
    progress: Callable[[int, float], object] | None = None,
) -> Land:
    r"""The mixture of locally adaptive normal distributions of greatest likelihood.

    $$p(z) = \sum_k \frac{w_k}{C_k} \exp\!\big(-\tfrac12\, v_k^\top \Gamma_k v_k\big)\,m(z), \qquad
      v_k = \log_{\mu_k}(z), \quad
      C_k = \int \exp\!\big(-\tfrac12\, v_k^\top \Gamma_k v_k\big)\,m(z)\,dz$$

    with the precision $\Gamma_k$ in coordinates of the tangent space at $\mu_k$. With
    `measure="volume"`, as published, $m(z) = \sqrt{\det M(z)}$: the exponentials are densities
    with respect to the volume of the metric, and `p` as written here is one with respect to
    Lebesgue measure, which can be compared with any other density of latents. With
    `measure="lebesgue"`, $m = 1$ and the exponentials themselves are. They differ: where the
    metric grows away from data, the volume counts in favour of what is far from data.

    The constants are integrals over latent space, by importance sampling on a randomly shifted
    lattice, with logarithms found as those of data points are. This needs no Jacobian of the
    exponential map, and no region on which it is injective: the density integrates to 1 whatever
    the map of logarithms is.

    Weights and precisions are found by BFGS for given means, for which no geodesic is needed. The
    means then move, in turn, along the responsible points' mean logarithm less that expected under
    the component, the published direction; a step is taken back if the likelihood, on the same
    sample, falls, and goes no farther than the box of the points. Constants are estimated again at
    the end, on a sample that the fit has not seen.

    Args:
        key: decides about samples and start.
        metric: any metric.
        points: `[n, d]`, more than `d` of them that do not lie in a plane.
        components: of the mixture.
        measure: `"volume"` or `"lebesgue"`, as above.
        initial: `[k, d]`, the first means; by default those of `kmeans`, from at most 256 points,
            or for one component the point that is nearest to the average.
        samples: number of latents that constants are estimated with during the fit, no fewer than
            a precision has free entries, `d (d + 1) / 2`: constants that are estimated with fewer
            can be driven to zero, and the likelihood without end.
        final_samples: the same, at the end.
        segments: of each geodesic.
        tolerance: gain in mean log-likelihood, in nats, below which the fit ends.
        regularisation: weight of a pull of each covariance towards the second moment of all points
            around the mean (a Wishart prior) and of the weights towards each other (a Dirichlet
            prior), in shares of the points: against components that shrink to a point, spread
            without end or die out. It does not change a single normal distribution in flat space.
        max_iterations: the most steps of each mean, those taken back included.
        batch_size: geodesics that are solved at once.
        progress: is called after each step of a mean with how many were made, of at most
            `(1 + max_iterations) * components`, and the mean log-likelihood of the points, which is
            `-inf` in the first round. Not within `jax.jit`.

    Returns:
        A `Land`.

    Raises:
        ValueError: points that are not a matrix, too few of them, an unknown measure, first means
            of another shape, a number of samples below 16 or `d (d + 1) / 2`.

    References:
        Arvanitidis, Hansen and Hauberg, *A Locally Adaptive Normal Distribution*, 2016, sections 3
        and 4.

    >>> import jax, jax.numpy as jnp
    >>> points = jax.random.normal(jax.random.key(0), (50, 1))
    >>> flat = lambda z: jnp.eye(1)
    >>> fit = jax.jit(lambda key: fit_land(key, flat, points, segments=2, max_iterations=3))
    >>> land = fit(jax.random.key(1))
    >>> print(abs(land.means[0, 0] - points.mean()) < 0.02)
    True
    >>> print(land_log_prob(land, flat, jnp.ones(1)) > land_log_prob(land, flat, 2 * jnp.ones(1)))
    True
    """
    points = check_points(points)
    n, d = points.shape
    choose("measure", measure, MEASURES)
    if not 1 <= components < n or n <= d:
        raise ValueError(
            f"points must be more than components ({components}) and than dimensions ({d}), got {n}"
        )
    for name, count in (("samples", samples), ("final_samples", final_samples)):
        if count < 2 * _REPLICATES:
            raise ValueError(f"{name} must be at least {2 * _REPLICATES}, got {count}")
    if samples < (least := fewest_samples(d)):
        raise ValueError(
            f"samples must be at least {least}, the free entries of a precision of {d} numbers, "
            f"got {samples}"
        )
    start_key, sample_key, final_key = jax.random.split(key, 3)
    if initial is None and components == 1:
        # The point of data nearest to the average, which itself may lie in a hole.
        initial = points[jnp.argmin(jnp.sum((points - points.mean(0)) ** 2, 1))][None]
    elif initial is None:
        few = jax.random.permutation(start_key, points)[:_START]
        initial = kmeans(
            start_key,
            metric,
            few,
            components,
            segments=segments,
            tolerance=0.1,
            max_iterations=10,
            batch_size=batch_size,
        ).centres
    initial = jnp.asarray(initial, points.dtype)
    if initial.shape != (components, d):
        raise ValueError(f"initial must have shape {(components, d)}, got {initial.shape}")
    # Outside of `jit` these are programs of their own: smaller ones, of which the two that take
    # long to compile are the same for both measures.
    proposal = _propose(points)
    drawn = _draw(sample_key, proposal, samples)
    log_weights = _log_weights(metric, measure, proposal, drawn, batch_size)
    most = (1 + max_iterations) * components

    def climb(state: _State, last: ArrayLike) -> _State:
        return _climb(
            metric,
            points,
            state,
            drawn,
            log_weights,
            last,
            tolerance=tolerance,
            regularisation=regularisation,
            batch_size=batch_size,
        )

    state = _unseen(initial, jnp.concatenate([points, drawn]), segments)
    if progress is None:
        state = climb(state, most)
    else:
        # A step is many geodesics, beside which a return to the host is nothing.
        while state.iteration < most and not state.settled.all():
            state = climb(state, state.iteration + 1)
            progress(int(state.iteration), float(state.log_likelihood))
    land = _fitted(state, proposal, measure, segments)
    land = normalise_land(final_key, land, metric, samples=final_samples, batch_size=batch_size)
    return _scored(metric, land, points, state.spokes, batch_size)


def fewest_samples(dim: int) -> int:
    """Latents with which constants must be estimated, so that a fit cannot drive them to zero.

    Args:
        dim: numbers of a latent.

    Returns:
        How many, at least.

    >>> fewest_samples(2), fewest_samples(64)
    (16, 2080)
    """
    return max(2 * _REPLICATES, dim * (dim + 1) // 2)


def normalise_land(
    key: PRNGKeyArray,
    land: Land,
    metric: Metric,
    *,
    samples: int = 4096,
    batch_size: int = 256,
) -> Land:
    r"""A LAND with its normalising constants estimated again.

    $$C_k \approx \frac1S \sum_s \exp\!\big(-\tfrac12\, v_{ks}^\top \Gamma_k v_{ks}\big)\,
      \frac{m(z_s)}{q(z_s)}, \qquad z_s \sim q$$

    The latents are eight randomly shifted lattices of quasi-random numbers, each of which gives an
    unbiased estimate; the spread of the eight gives the standard error.

    Args:
        key: decides about the samples.
        land: the distribution.
        metric: the metric it was fitted with.
        samples: number of latents.
        batch_size: geodesics that are solved at once.

    Returns:
        The same distribution with other `log_constants` and `log_constant_errors`.
    """
    key, land = jax.tree.map(jnp.asarray, (key, land))
    drawn = _draw(key, land.proposal, samples)
    log_weights = _log_weights(metric, land.measure, land.proposal, drawn, batch_size)
    found = _connected(metric, land.means, drawn, land.segments, batch_size)
    return _normalised(land, found, log_weights)


@keep_compiled(arrays=["land", "z"])
def land_log_prob(land: Land, metric: Metric, z: Latent, *, measure: str = "lebesgue") -> Scalar:
    r"""The log-density of a LAND at one point.

    With respect to Lebesgue measure it is $\log p(z)$ of `fit_land`; with respect to the volume of
    the metric, $\log p(z) - \log\sqrt{\det M(z)}$.

    Args:
        land: the distribution.
        metric: the metric it was fitted with.
        z: where.
        measure: `"lebesgue"` or `"volume"`: with respect to which the density is given.

    Returns:
        The log-density; `-inf` where no component has a curve of finite length to `z`, or the
        volume that is asked for is none.

    Raises:
        ValueError: for a `z` of another shape than the means, or an unknown measure.
    """
    wanted, given = choose("measure", measure, MEASURES), MEASURES[land.measure]
    z = jnp.asarray(z)
    if z.shape != land.means.shape[1:]:
        raise ValueError(f"z must have shape {land.means.shape[1:]}, got {z.shape}")
    found = _connected(metric, land.means, z[None], land.segments, land.means.shape[0])
    log_prob = _log_mixture(land, _exponents(land, found.logarithms, found.distances))[0]
    if wanted == given:
        return log_prob
    log_volume = metrics.log_volume(metric)(z)
    other = log_prob + log_volume if given else log_prob - log_volume
    return jnp.where(jnp.isnan(other), -jnp.inf, other)


@keep_compiled(arrays=["key", "land"])
def sample_land(
    key: PRNGKeyArray,
    land: Land,
    metric: Metric,
    count: int,
    *,
    oversampling: int = 16,
    batch_size: int = 256,
) -> Float[Array, "n d"]:
    r"""Points from a LAND, by importance resampling.

    Of `oversampling * count` candidates from the proposal, each is kept with a chance that grows as
    $p(z) / q(z)$. Kept points may repeat, the less the more candidates there are.

    Args:
        key: decides.
        land: the distribution.
        metric: the metric it was fitted with.
        count: number of points.
        oversampling: candidates for each of them.
        batch_size: candidates that are weighed at once.

    Returns:
        The points, `[count, d]`, in random order.

    Raises:
        ValueError: for a count or an oversampling below 1.
        RuntimeError: when run, if no candidate has a positive density.
    """
    if count < 1 or oversampling < 1:
        raise ValueError(
            f"count and oversampling must be at least 1, got {count} and {oversampling}"
        )
    draw_key, shift_key, order_key = jax.random.split(key, 3)
    candidates = _draw(draw_key, land.proposal, max(count * oversampling, 2 * _REPLICATES))
    log_prob = vmap_chunked(lambda z: land_log_prob(land, metric, z), batch_size)(candidates)
    log_weights = log_prob - jax.vmap(partial(_log_proposal, land.proposal))(candidates)
    cumulative = jnp.cumsum(jax.nn.softmax(log_weights))
    # Equally spaced with one random shift: fewer repetitions than independent choices have.
    at = (jnp.arange(count) + jax.random.uniform(shift_key)) / count
    chosen = jnp.minimum(jnp.searchsorted(cumulative, at), len(candidates) - 1)
    points = jax.random.permutation(order_key, candidates[chosen])
    return eqx.error_if(
        points, ~(log_weights.max() > -jnp.inf), "no candidate has a positive density"
    )


class _Parameters(NamedTuple):
    """What is fitted for given means."""

    factors: Float[Array, "k d d"]
    """Cholesky factors of the precisions."""
    logits: Float[Array, "k"]
    """Of the weights."""


class _State(NamedTuple):
    """The best fit so far. Means move in turn, each on its own."""

    iteration: Int[Array, ""]
    means: Float[Array, "k d"]
    spokes: Spokes
    """From the means to data points, then to samples."""
    parameters: _Parameters
    log_likelihood: Scalar
    steps: Float[Array, "k"]
    settled: Bool[Array, "k"]
    """Which means no step has helped since another one's last did."""


def _likelihood(
    parameters: _Parameters, found: Spokes, log_weights: Float[Array, "s"]
) -> tuple[Scalar, Float[Array, "k n"], Float[Array, "k s"]]:
    """The mean log-likelihood, and the terms of data points and of samples behind it."""
    n = found.distances.shape[1] - log_weights.shape[0]
    exponents = _quadratic(parameters.factors, found.logarithms, found.distances)
    of_samples = exponents[:, n:] + log_weights
    constants = jax.nn.logsumexp(of_samples, axis=1) - math.log(len(log_weights))
    shares = jax.nn.log_softmax(parameters.logits) - constants
    of_data = exponents[:, :n] + shares[:, None]
    return jnp.mean(jax.nn.logsumexp(of_data, axis=0)), of_data, of_samples


def _moments(found: Spokes, member: Float[Array, "k n"]) -> Float[Array, "k d d"]:
    """Second moments of data points around each mean, weighted."""
    logs = found.logarithms[:, : member.shape[1]]
    return jnp.einsum("kn,kni,knj->kij", member, logs, logs)


def _refine(
    parameters: _Parameters,
    found: Spokes,
    log_weights: Float[Array, "s"],
    regularisation: float,
) -> _Parameters:
    """The best weights and precisions for given means."""
    n = found.distances.shape[1] - log_weights.shape[0]
    reached = jnp.isfinite(found.distances[:, :n]).astype(log_weights.dtype)
    pull = _moments(found, reached / jnp.maximum(reached.sum(1, keepdims=True), 1))

    # Relative to where it starts the factor is near the identity, whatever the units are.
    def unpack(change: tuple[Array, Array]) -> _Parameters:
        raw, logits = change
        lower = jnp.tril(raw, -1) + jax.vmap(jnp.diag)(jnp.exp(jax.vmap(jnp.diag)(raw)))
        return _Parameters(parameters.factors @ lower, logits)

    def loss(change: tuple[Array, Array], _: object) -> Scalar:
        new = unpack(change)
        value, _, _ = _likelihood(new, found, log_weights)
        relative = jnp.einsum("kij,kil,klj->k", new.factors, pull, new.factors)
        log_determinant = 2 * jnp.log(jax.vmap(jnp.diag)(new.factors)).sum(1)
        prior = jax.nn.log_softmax(new.logits) + (log_determinant - relative) / 2
        return -value - regularisation * jnp.sum(prior)

    start = (jnp.zeros_like(parameters.factors), parameters.logits)
    best = unjitted(optimistix.minimise)(
        loss,
        optimistix.BFGS(rtol=1e-4, atol=1e-6),
        start,
        max_steps=64,
        throw=False,
    ).value
    good = loss(best, None) <= loss(start, None)
    return jax.tree.map(lambda a, b: jnp.where(good, a, b), unpack(best), parameters)


def _guess(found: Spokes, n: int) -> _Parameters:
    """Each component from the points that are nearest to its mean."""
    distances = found.distances[:, :n]
    k, d, dtype = distances.shape[0], found.logarithms.shape[-1], distances.dtype
    member = (jnp.argmin(distances, axis=0) == jnp.arange(k)[:, None]).astype(dtype)
    counts = member.sum(1)
    everyone = _moments(found, jnp.isfinite(distances) / n)
    own = _moments(found, member / jnp.maximum(counts, 1)[:, None])
    covariance = jnp.where((counts > d)[:, None, None], own, everyone) + 1e-3 * everyone
    size = jnp.trace(covariance, axis1=1, axis2=2) / d
    tiny = jnp.finfo(dtype).eps * jnp.where(size > 0, size, 1)
    covariance += tiny[:, None, None] * jnp.eye(d, dtype=dtype)
    factors = jnp.linalg.cholesky(jnp.linalg.inv(covariance))
    sound = jnp.isfinite(factors).all((1, 2), keepdims=True)
    plain = jnp.eye(d, dtype=dtype) / jnp.sqrt(size + tiny)[:, None, None]
    return _Parameters(jnp.where(sound, factors, plain), jnp.log(counts + 1))


@keep_compiled()
def _unseen(means: Float[Array, "k d"], ends: Float[Array, "m d"], segments: int) -> _State:
    """Where the search begins, with nothing known of any mean."""
    (k, d), m, dtype = means.shape, len(ends), means.dtype
    blank = Spokes(
        jnp.zeros((k, m, d), dtype),
        jnp.full((k, m), jnp.inf, dtype),
        lines(means, ends, segments),
        jnp.zeros((k, m), bool),
    )
    return _State(
        jnp.array(0),
        means,
        blank,
        _Parameters(jnp.tile(jnp.eye(d, dtype=dtype), (k, 1, 1)), jnp.zeros(k, dtype)),
        jnp.array(-jnp.inf, dtype),
        jnp.ones(k, dtype),
        jnp.zeros(k, bool),
    )


@keep_compiled(arrays=["last"])
def _climb(
    metric: Metric,
    points: Float[Array, "n d"],
    state: _State,
    samples: Float[Array, "s d"],
    log_weights: Float[Array, "s"],
    last: ArrayLike,
    *,
    tolerance: float,
    regularisation: float,
    batch_size: int,
) -> _State:
    """The search for the greatest likelihood, on one sample for all constants, up to a step."""
    n, k = len(points), len(state.means)
    ends = jnp.concatenate([points, samples])
    # Where nothing is known a mean could go on for ever.
    low, high = points.min(0), points.max(0)

    def direction(mean: Latent, chosen: Int[Array, ""], state: _State) -> Latent:
        _, of_data, of_samples = _likelihood(state.parameters, state.spokes, log_weights)
        responsible = jax.nn.softmax(of_data, axis=0)[chosen]
        responsible /= jnp.maximum(responsible.sum(), 1e-6)
        expected = jax.nn.softmax(of_samples[chosen])
        towards = jnp.concatenate([responsible, -expected]) @ state.spokes.logarithms[chosen]
        # No farther than points are from the mean: one that few points hold could run away.
        distances = state.spokes.distances[chosen, :n]
        reached = jnp.isfinite(distances)
        far = jnp.sum(jnp.where(reached, distances**2, 0)) / jnp.maximum(reached.sum(), 1)
        square = metrics.squared_norm(metric, mean, towards)
        return towards * jnp.sqrt(jnp.minimum(1, far / jnp.where(square > 0, square, 1)))

    def update(state: _State) -> _State:
        # In the first round every mean is looked at where it is; then they begin to move.
        first, begun = state.iteration < k, state.iteration >= k - 1
        chosen = state.iteration % k
        mean = state.means[chosen]
        step = jnp.where(first, 0, state.steps[chosen] * direction(mean, chosen, state))
        moved = jnp.clip(jnp.where(jnp.isfinite(step), mean + step, mean), low, high)
        guesses = state.spokes.curves[chosen][None]
        fresh = spokes(metric, moved[None], ends, guesses, batch_size=batch_size)
        found = jax.tree.map(lambda all, one: all.at[chosen].set(one[0]), state.spokes, fresh)
        start = jax.tree.map(
            lambda a, b: jnp.where(first, a, b), _guess(found, n), state.parameters
        )
        parameters = _refine(start, found, log_weights, regularisation)
        value = jnp.where(begun, _likelihood(parameters, found, log_weights)[0], -jnp.inf)
        gain = value - state.log_likelihood
        take = first | (gain > tolerance / 10)  # less could be rounding
        size = state.steps[chosen]
        size = jnp.where(first, 1, jnp.where(take, jnp.minimum(1, 1.5 * size), size / 3))
        # A step of a hundredth is as good as none.
        done = ~first & jnp.where(take, gain <= tolerance, size < 1e-2)
        others = state.settled & ~(take & (gain > tolerance))
        new = _State(
            state.iteration + 1,
            state.means.at[chosen].set(moved),
            found,
            parameters,
            value,
            state.steps.at[chosen].set(size),
            others.at[chosen].set(done),
        )
        back = state._replace(iteration=new.iteration, steps=new.steps, settled=new.settled)
        return jax.tree.map(lambda a, b: jnp.where(take, a, b), new, back)

    return jax.lax.while_loop(
        lambda state: ~state.settled.all() & (state.iteration < last), update, state
    )


@keep_compiled()
def _connected(
    metric: Metric,
    means: Float[Array, "k d"],
    ends: Float[Array, "n d"],
    segments: int,
    batch_size: int,
) -> Spokes:
    """The geodesics from all means to all ends, from straight lines."""
    return spokes(metric, means, ends, lines(means, ends, segments), batch_size=batch_size)


@keep_compiled()
def _fitted(state: _State, proposal: Proposal, measure: str, segments: int) -> Land:
    """The mixture that was found, without its constants and its likelihood."""
    k, dtype = state.means.shape[0], state.means.dtype
    return Land(
        means=state.means,
        precisions=jax.vmap(lambda a: a @ a.T)(state.parameters.factors),
        weights=jax.nn.softmax(state.parameters.logits),
        log_constants=jnp.zeros(k, dtype),
        log_constant_errors=jnp.zeros(k, dtype),
        log_likelihood=jnp.zeros((), dtype),
        converged=state.settled.all(),
        proposal=proposal,
        measure=measure,
        segments=segments,
    )


@keep_compiled()
def _normalised(land: Land, found: Spokes, log_weights: Float[Array, "s"]) -> Land:
    """The mixture with its constants, each the mean of independent estimates."""
    terms = _exponents(land, found.logarithms, found.distances) + log_weights
    terms = terms.reshape(len(terms), _REPLICATES, -1)
    each = jax.nn.logsumexp(terms, axis=2) - math.log(terms.shape[2])
    constants = jax.nn.logsumexp(each, axis=1) - math.log(_REPLICATES)
    relative = jnp.exp(each - constants[:, None])
    errors = jnp.std(relative, axis=1, ddof=1) / math.sqrt(_REPLICATES)
    return replace(land, log_constants=constants, log_constant_errors=errors)


@keep_compiled()
def _scored(
    metric: Metric, land: Land, points: Float[Array, "n d"], found: Spokes, batch_size: int
) -> Land:
    """The mixture with its likelihood on the points, to which the first spokes lead."""
    n = points.shape[0]
    base = _log_base(metric, land.measure, points, batch_size)
    exponents = _exponents(land, found.logarithms[:, :n], found.distances[:, :n])
    return replace(land, log_likelihood=jnp.mean(_log_mixture(land, exponents) + base))


def _quadratic(
    factors: Float[Array, "k d d"],
    logarithms: Float[Array, "k n d"],
    distances: Float[Array, "k n"],
) -> Float[Array, "k n"]:
    """The exponents of the components, far below any other where there is no distance."""
    white = jnp.einsum("kij,kni->knj", factors, logarithms)
    reached = jnp.isfinite(distances)
    white = jnp.where(reached[..., None], white, 0)
    return jnp.where(reached, -jnp.sum(white**2, -1) / 2, -1e6)


def _exponents(
    land: Land, logarithms: Float[Array, "k n d"], distances: Float[Array, "k n"]
) -> Float[Array, "k n"]:
    exponents = -jnp.einsum("kni,kij,knj->kn", logarithms, land.precisions, logarithms) / 2
    return jnp.where(jnp.isfinite(distances), exponents, -jnp.inf)


def _log_mixture(land: Land, exponents: Float[Array, "k n"]) -> Float[Array, "n"]:
    log_shares = jnp.log(land.weights) - land.log_constants
    return jax.nn.logsumexp(exponents + log_shares[:, None], axis=0)


def _log_base(
    metric: Metric, measure: str, points: Float[Array, "n d"], batch_size: int
) -> Float[Array, "n"]:
    """The logarithm of `m` at each point; `-inf` where the metric has no volume."""
    if not MEASURES[measure]:
        return jnp.zeros(points.shape[0], points.dtype)
    found = vmap_chunked(metrics.log_volume(metric), batch_size)(points)
    return jnp.where(jnp.isfinite(found), found, -jnp.inf)


@keep_compiled()
def _log_weights(
    metric: Metric,
    measure: str,
    proposal: Proposal,
    drawn: Float[Array, "s d"],
    batch_size: int,
) -> Float[Array, "s"]:
    """The logarithm of what each latent counts in an integral, `m / q`."""
    log_q = jax.vmap(partial(_log_proposal, proposal))(drawn)
    return _log_base(metric, measure, drawn, batch_size) - log_q


@keep_compiled()
def _propose(points: Float[Array, "n d"]) -> Proposal:
    n, d = points.shape
    covariance = jnp.atleast_2d(jnp.cov(points.T))
    covariance += 1e-6 * jnp.trace(covariance) / d * jnp.eye(d, dtype=points.dtype)
    centres = points[np.linspace(0, n - 1, min(n, 512)).astype(int)]
    return Proposal(centres, points.mean(0), jnp.linalg.cholesky(covariance))


def _bandwidth(proposal: Proposal) -> float:
    """Half of Scott's rule: clusters are narrower than all of the data."""
    count, d = proposal.centres.shape
    return count ** (-1 / (d + 4)) / 2


def _log_proposal(proposal: Proposal, z: Latent) -> Scalar:
    solve = partial(jax.scipy.linalg.solve_triangular, proposal.factor, lower=True)
    d = z.shape[0]
    scale = jnp.log(jnp.diag(proposal.factor)).sum() + d / 2 * math.log(2 * math.pi)

    def normal(offsets: Float[Array, "n d"], width: float) -> Scalar:
        squares = jnp.sum(solve(offsets.T) ** 2, 0) / width**2
        return jax.nn.logsumexp(-squares / 2) - math.log(len(offsets)) - d * math.log(width) - scale

    near = normal(z - proposal.centres, _bandwidth(proposal))
    return jnp.logaddexp(near, normal(z[None] - proposal.mean, _WIDE)) - math.log(2)


@keep_compiled()
def _draw(key: PRNGKeyArray, proposal: Proposal, count: int) -> Float[Array, "s d"]:
    """Latents from the proposal: independent lattices, of which each point alone has its law.

    They come one lattice after the other, all of one size.
    """
    m, d = proposal.centres.shape
    each = -(-count // _REPLICATES)
    shifts = jax.random.uniform(key, (_REPLICATES, 1, d + 1), proposal.centres.dtype)
    u = (shifts + jnp.asarray(_kronecker(each, d + 1), shifts.dtype)) % 1
    which, tiny = u[..., 0], jnp.finfo(u.dtype).eps
    normal = jax.scipy.special.ndtri(jnp.clip(u[..., 1:], tiny, 1 - tiny)) @ proposal.factor.T
    chosen = jnp.clip(((2 * which - 1) * m).astype(int), 0, m - 1)
    wide = (which < 0.5)[..., None]
    near = proposal.centres[chosen] + _bandwidth(proposal) * normal
    return jnp.where(wide, proposal.mean + _WIDE * normal, near).reshape(-1, d)


def _kronecker(count: int, dim: int) -> np.ndarray:
    """Points of the unit cube that fill it evenly, `[count, dim]`.

    Multiples, modulo 1, of the powers of the root of `x^(dim + 1) = x + 1`, the generalised golden
    ratio (Roberts, *The Unreasonable Effectiveness of Quasirandom Sequences*, 2018).
    """
    root = 2.0
    for _ in range(64):
        root = (1 + root) ** (1 / (dim + 1))
    return np.outer(np.arange(1, count + 1), root ** -np.arange(1.0, dim + 1)) % 1
