"""Shortest paths among splines of few knots, by gradients alone: for large latents and images."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optimistix
from jaxtyping import Array, ArrayLike, Float

from latent_flows._compiled import keep_compiled, unjitted
from latent_flows._convolutions import channels_last
from latent_flows._results import Result, first_failure
from latent_flows._transforms import closure_convert_at, vmap_bounded
from latent_flows.geometry import _discrete_energy, metrics
from latent_flows.geometry.curves import Geodesic, spline_weights, straight
from latent_flows.geometry.geodesics import described, end_points, join, start_points
from latent_flows.typing import Curve, Latent, Metric, Scalar

__all__ = ["spline_geodesic"]

_PLACES = 5
"""Points of the straight line whose metrics, on average, are the unit of steps."""
_FLOOR = 0.1
"""Least eigenvalue of that unit, over their mean: axes that the image hardly shows on the line may
be shown elsewhere."""
_PROBES = 24
"""Products with the metric at each of these places, of latents too long to form it."""
_HISTORY = 20
"""Steps that the estimate of the Hessian is made of."""
_FIRST = 2
"""Chords between knots that the search begins with, if there are at least twice as many."""


@keep_compiled(arrays=["z0", "z1", "initial"])
def spline_geodesic(
    metric: Metric,
    z0: ArrayLike | Sequence[float],
    z1: ArrayLike | Sequence[float],
    *,
    knots: int = 8,
    segments: int = 64,
    initial: Float[ArrayLike, "k d"] | Curve | None = None,
    tolerance: float = 1e-3,
    max_iterations: int = 200,
    batch_size: int | None = None,
) -> Geodesic:
    r"""The shortest path between two latents among cubic splines of few knots.

    $$\min_{c} \; \frac n2 \sum_{i=1}^n |f(c(i/n)) - f(c((i-1)/n))|^2$$

    over the knots between the ends, by L-BFGS; for a metric without an immersion, the same sum with
    the metric in the middle of each chord. A step costs one or two gradients: `segments` passes
    through the generator and back, where a step of `geodesic` takes `d` passes for each of its
    points. Chords are many more than knots, so that the curve cannot jump between images that look
    alike, as a chain of few points does through a generator with a long latent; two between knots
    are where the search begins. For short latents `geodesic` is faster and more exact.

    Steps are measured in the mean of the metric along the straight line (of latents of more than 64
    numbers, in what a few products tell of it), and by their slope along the curve; the scale of
    the latents is of no account.

    Outside of `jax.jit` it compiles once for a metric; it can be mapped by `jax.vmap`. Derivatives
    through it are zero.

    Args:
        metric: any metric.
        z0: `[d]`, where the path starts.
        z1: `[d]`, where it ends.
        knots: parts that the spline is made of, at least 1.
        segments: chords whose lengths make the energy, `n`; at least `knots`.
        initial: where the search starts: points at equal distances in `s`, or a curve. The straight
            line by default.
        tolerance: relative change of the energy, and of the knots' distances from the start, in a
            step after which the search stops.
        max_iterations: the most gradients, at each of the two numbers of chords.
        batch_size: where the features of all images of a path do not fit into memory, how many
            images of an immersion are made at once: a third more work. None: all.

    Returns:
        A `Geodesic` with `knots + 1` points. Its energy, by chords, is no larger than where the
        search started. `converged` says whether the search has stopped by itself and the path can
        be measured to two per cent; else `length` is a bound. Images of a GAN are so crooked that
        it may go on for long, with ever smaller gains.

    Raises:
        ValueError: as `geodesic` does; fewer segments than knots; a batch size below 1.

    References:
        Liu and Nocedal, *On the Limited Memory BFGS Method for Large Scale Optimization*, 1989.
        Shao, Kumar and Fletcher, *The Riemannian Geometry of Deep Generative Models*, 2018.

    >>> import jax.numpy as jnp
    >>> half_plane = lambda z: jnp.eye(2) / z[1] ** 2
    >>> path = spline_geodesic(half_plane, jnp.array([-1.0, 1.0]), jnp.array([1.0, 1.0]))
    >>> print(path.converged, jnp.allclose(path.length, jnp.arccosh(3.0), rtol=1e-3))
    True True
    """
    if not (1 <= knots <= segments and max_iterations >= 1 and tolerance > 0):
        raise ValueError(
            "knots must lie in [1, segments], max_iterations be at least 1 and tolerance positive, "
            f"got {knots}, {segments}, {max_iterations} and {tolerance}"
        )
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    z0, z1, _ = end_points(metric, z0, z1)
    start = start_points(initial, z0, z1, knots)
    start = straight(z0, z1, knots) if start is None else start
    points, ended = jax.lax.stop_gradient(start), first_failure()
    if knots > 1:
        points, ended = _shorten(metric, points, segments, tolerance, max_iterations, batch_size)
    return jax.lax.stop_gradient(described(metric, points, start, ended, segments, batch_size))


def _shorten(
    metric: Metric,
    start: Float[Array, "k d"],
    segments: int,
    tolerance: float,
    steps: int,
    batch_size: int | None,
) -> tuple[Float[Array, "k d"], Result]:
    """The spline of least energy downhill from another, and whether the search has stopped."""
    knots = len(start) - 1
    into = _units(metric, start[0], start[-1], knots, batch_size)
    energy_of = _discrete_energy.with_slope(metric, batch_size)
    zero = jnp.zeros_like(start[1:-1])

    def moved(by: Float[Array, "m d"]) -> Float[Array, "m+2 d"]:
        return join(start[0], start[1:-1] + into(by), start[-1])

    def energy_by(chords: int) -> tuple[Callable[[Array, Any], Scalar], Any]:
        places = np.linspace(0, 1, chords + 1)
        weights = jnp.asarray(spline_weights(knots, places), start.dtype)

        def both(by: Float[Array, "m d"]) -> tuple[Scalar, Float[Array, "m d"]]:
            chain, back = jax.vjp(lambda by: weights @ moved(by), by)
            value, slope = energy_of(chain)
            return value, back(slope)[0]

        return _known(both, zero)

    def search(chords: int, begun: Float[Array, "m d"]) -> optimistix.Solution:
        energy, slope = energy_by(chords)
        return unjitted(optimistix.minimise)(
            energy,
            optimistix.LBFGS(
                rtol=tolerance, atol=tolerance, norm=optimistix.rms_norm, history_length=_HISTORY
            ),
            begun,
            slope,
            max_steps=steps,
            throw=False,
        )

    begun = zero
    if (coarse := _FIRST * knots) * 2 <= segments and metrics.drawn(metric) is None:
        first = search(coarse, zero).value
        energy, slope = energy_by(segments)
        # Fewer chords can miss what lies between their ends.
        begun = jnp.where(energy(first, slope) < energy(zero, slope), first, zero)
    found = search(segments, begun)
    points = moved(found.value)
    finite = jnp.isfinite(points).all()
    # At a minimum that it started from no step is taken, of which the search would know.
    _, slope = energy_by(segments)
    value, gradient = slope(found.value)
    still = (gradient**2).sum() <= tolerance**2 * value
    stopped = found.result != optimistix.RESULTS.nonlinear_max_steps_reached
    return jnp.where(finite, points, start), first_failure(
        (finite, Result.nonfinite),
        (still | stopped, Result.max_steps_reached),
        (still | (found.result == optimistix.RESULTS.successful), Result.stalled),
    )


def _known(
    both: Callable[[Array], tuple[Scalar, Array]], x: Array
) -> tuple[Callable[[Array, Any], Scalar], Any]:
    """A scalar function whose derivative is ready with its value, and is one alone.

    Args:
        both: value and derivative of an array.
        x: such an array.

    Returns:
        A function of the array and of what comes second: all that it captures.
    """
    slope = closure_convert_at(channels_last(both), x)

    @jax.custom_jvp
    def value(x: Array, slope: Any) -> Scalar:
        return slope(x)[0]

    @value.defjvp
    def _(primals: tuple[Array, Any], tangents: tuple[Array, Any]) -> tuple[Scalar, Scalar]:
        (x, slope), (change, _) = primals, tangents
        found, gradient = slope(x)
        return found, (gradient * change).sum()

    return value, jax.lax.stop_gradient(slope)


def _units(
    metric: Metric, z0: Latent, z1: Latent, knots: int, batch_size: int | None
) -> Callable[[Float[Array, "m d"]], Float[Array, "m d"]]:
    """From steps in units of their length to those of the knots between the ends.

    In these units the energy's Hessian is the identity where the metric is constant.
    """
    line = straight(z0, z1, _PLACES - 1)
    immersed = metrics.euclidean(metric)
    if immersed is None or len(z0) <= metrics.FORMED:
        mean = jax.lax.map(metric, line).mean(0)
        values, vectors = jnp.linalg.eigh((mean + mean.T) / 2)
        inward = (vectors * jnp.maximum(values, _FLOOR * values.mean()) ** -0.5) @ vectors.T
    else:
        inward = _sketched(immersed, line, batch_size)
    inside, beside = np.eye(knots - 1), np.eye(knots - 1, k=1)
    stiffness = knots * (2 * inside - beside - beside.T)
    along = jnp.asarray(np.linalg.inv(np.linalg.cholesky(stiffness)).T, z0.dtype)
    return lambda by: along @ by @ inward


def _sketched(
    metric: metrics.Pullback, line: Float[Array, "k d"], batch_size: int | None
) -> Float[Array, "d d"]:
    r"""The root of the inverse of the mean metric, from products of it with a few vectors.

    Its best approximation of that rank, $M \approx Y (\Omega^\top Y)^+ Y^\top$ with
    $Y = M \Omega$, knows the axes that show most, which are few; all others take what is left of
    the trace, or the floor if that is more.

    References:
        Tropp, Yurtsever, Udell and Cevher, *Fixed-Rank Approximation of a Positive-Semidefinite
        Matrix from Streaming Data*, 2017, for the approximation.
    """
    d = line.shape[1]
    probes = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (d, _PROBES), line.dtype))[0]

    def products_at(z: Latent) -> Float[Array, "r d"]:
        _, push = jax.linearize(metric.flat, z)
        pull = jax.linear_transpose(push, z)
        return vmap_bounded(lambda v: pull(push(v))[0], batch_size)(probes.T)

    made = jax.lax.map(products_at, line).mean(0).T
    # As large as what rounding leaves of the metric, which may show fewer axes than there are.
    shift = jnp.finfo(line.dtype).eps * jnp.sqrt(d * (made**2).sum())
    made = made + shift * probes
    core = jnp.linalg.cholesky(probes.T @ made + shift * jnp.eye(_PROBES, dtype=line.dtype))
    factor = jax.scipy.linalg.solve_triangular(core, made.T, lower=True).T
    vectors, roots, _ = jnp.linalg.svd(factor, full_matrices=False)
    values = roots**2
    mean = jnp.trace(probes.T @ made) / _PROBES
    rest = jnp.maximum((d * mean - values.sum()) / (d - _PROBES), _FLOOR * mean)
    apart = jnp.maximum(values, rest) ** -0.5 - rest**-0.5
    return rest**-0.5 * jnp.eye(d, dtype=line.dtype) + (vectors * apart) @ vectors.T
