"""Geodesics: the shortest paths between latents."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, ArrayLike, Bool, Float

from latent_flows._compiled import keep_compiled
from latent_flows._norms import safe_norm, safe_sqrt
from latent_flows._results import Result, first_failure
from latent_flows._transforms import vmap_bounded, vmap_chunked
from latent_flows._validation import choose
from latent_flows.geometry import _block_tridiagonal, _discrete_energy, _ode, metrics
from latent_flows.geometry._newton import minimise, minimum
from latent_flows.geometry.curvature import acceleration
from latent_flows.geometry.curves import (
    PANELS,
    SIMPSON,
    Geodesic,
    Measures,
    differentiate,
    measure,
    resample,
    spline_weights,
    straight,
)
from latent_flows.typing import Curve, Generator, Latent, Metric, Scalar

__all__ = [
    "described",
    "distance",
    "end_points",
    "geodesic",
    "geodesic_batch",
    "is_positive",
    "join",
    "reach",
    "start_points",
]

_ROUGH = 0.1
"""Tolerance for a chain of few points, which is only where a longer one starts."""
_UNEVEN = 1.1
"""How much longer the square root of twice the energy may be, squared, than the curve: speeds that
vary more are those of a chain whose few points miss what lies between them."""
_BETWEEN = 4
"""Places on each segment where draws are seen, to tell whether its ends have missed any."""
_SOLVED, _PRODUCTS = 0.05, 20
"""Relative residual at which conjugate gradients end, and their most steps: what they solve for is
known to about its square."""
_DOUBT = 0.02
"""Relative difference of two rules for the length of a curve that is known well enough."""


@keep_compiled(arrays=["z0", "z1", "initial"])
def geodesic(
    metric: Metric,
    z0: ArrayLike | Sequence[float],
    z1: ArrayLike | Sequence[float],
    *,
    segments: int = 32,
    initial: Float[ArrayLike, "k d"] | Curve | None = None,
    tolerance: float | None = None,
    max_iterations: int = 100,
) -> Geodesic:
    r"""The shortest path between two latents.

    $$\min_c \; \tfrac12 \int_0^1 |c'(s)|_{M(c(s))}^2\,ds, \qquad c(0) = z_0,\; c(1) = z_1$$

    It is a local minimum: the one downhill from where the search starts, past saddles such as a
    curve beyond a conjugate point. The curve is known at `segments + 1` points. Where the metric is
    a `pullback` without an ambient metric, the energy is a sum of squares of chords in data space,
    minimised by damped Gauss-Newton steps that learn the rest of the Hessian on the way; a step
    costs one evaluation of the immersion and of its Jacobian at the points. For any other metric it
    is minimised by Newton's method, with the metric averaged over each segment by Simpson's rule; a
    step costs its first and second derivatives at twice as many places. For an immersion, from 16
    segments and without `initial`, a curve of a quarter of the segments comes first.

    Points that are few can miss what lies between them. No step is taken to where they do, and in
    the end the curve through them is measured: where it is longer than the start, or its speed is
    uneven, or two rules of quadrature differ, it is not called a geodesic; more segments may help.

    Derivatives in `z0`, `z1` and anything that the metric closes over are those of the minimum, by
    the implicit function theorem, in forward and reverse mode.

    It compiles in seconds, once for a metric and shapes of its arguments. It can be mapped by
    `jax.vmap`; for many pairs `geodesic_batch` is faster and bounds the memory.

    Args:
        metric: any metric, positive definite along the way.
        z0: where the path starts. Whole numbers are taken as floats.
        z1: where it ends. If it is `z0`, the path stays there and has length zero.
        segments: how many segments the discretised curve has, at least 1. The error of the length
            falls with the fourth power.
        initial: where the search starts: points at equal distances in `s`, of which there may be
            more or fewer than `segments + 1`, or a curve. Its ends are moved to `z0` and `z1`.
            The straight line by default. It does not matter for derivatives.
        tolerance: relative size of the energy's gradient at which the search stops, as
            `descent.minimise` measures it; the energy is then exact to about its square. By
            default 1e-3 in single precision and 1e-6 in double.
        max_iterations: the most evaluations at a number of segments.

    Returns:
        A `Geodesic`. Where the metric is not finite or not positive definite on the way, or the
        search did not end at a minimum that the points can show, `converged` is False; the points
        are then the best that were found, or where the search started, always finite if the end
        points are, and the length is an upper bound of the distance. `message` says why.

    Raises:
        ValueError: end points that are not two vectors of the same length, or not numbers; fewer
            segments or iterations than one; a tolerance that is not positive; an `initial` of
            another shape; a metric that is not a square matrix of the length of `z0`.

    References:
        Arvanitidis, Hansen and Hauberg, *Latent Space Oddity*, 2018, section 3.
        Shao, Kumar and Fletcher, *The Riemannian Geometry of Deep Generative Models*, 2018,
        algorithm 1, for the energy.
        Dennis, Gay and Welsch, *An Adaptive Nonlinear Least-Squares Algorithm*, 1981, for the
        learnt part of the Hessian.

    >>> import jax.numpy as jnp
    >>> half_plane = lambda z: jnp.eye(2) / z[1] ** 2
    >>> path = geodesic(half_plane, jnp.array([-1.0, 1.0]), jnp.array([1.0, 1.0]))
    >>> print(path.converged, jnp.allclose(path.length, jnp.arccosh(3.0), rtol=1e-5))
    True True
    >>> print(jnp.allclose(jnp.linalg.norm(path(0.3)), jnp.sqrt(2.0), rtol=1e-3))  # a circle
    True
    """
    z0, z1, dtype = end_points(metric, z0, z1)
    start = start_points(initial, z0, z1, segments)
    if tolerance is None:
        tolerance = 1e-3 if jnp.finfo(dtype).bits <= 32 else 1e-6
    if not (segments >= 1 and max_iterations >= 1 and tolerance > 0):
        raise ValueError(
            "segments and max_iterations must be at least 1 and tolerance positive, got "
            f"{segments}, {max_iterations} and {tolerance}"
        )
    line = straight(z0, z1, segments)
    begun = line if start is None else start
    ended = first_failure()
    points = line
    if segments > 1:
        inner, ended = _inner(
            metric, z0, z1, line, start, tolerance=tolerance, max_iterations=max_iterations
        )
        points = join(z0, inner, z1)
    return described(metric, points, begun, ended)


@keep_compiled(arrays=["z0", "z1", "initial"])
def geodesic_batch(
    metric: Metric,
    z0: Float[ArrayLike, "p d"],
    z1: Float[ArrayLike, "p d"],
    *,
    initial: Float[ArrayLike, "p k d"] | None = None,
    batch_size: int = 32,
    **settings: Any,
) -> Geodesic:
    """The shortest paths between many pairs of latents, in bounded memory.

    As `jax.vmap` of `geodesic` would find them, which solves all pairs until the last has
    converged. Here pairs are solved in batches of those whose starts are about equally long, so
    that easy ones do not wait for hard ones.

    Args:
        metric: any metric.
        z0: `[p, d]`, where the paths start.
        z1: `[p, d]`, where they end.
        initial: `[p, k+1, d]`, where the searches start; straight lines by default.
        batch_size: pairs that are solved at once. For an immersion into `D` numbers the memory is
            about `3 * batch_size * segments * (d + 2) * D` of them.
        **settings: of `geodesic`.

    Returns:
        A `Geodesic` whose every part has a leading axis of `p`; `jax.vmap` evaluates it.

    Raises:
        ValueError: as `geodesic` does; end points that are not two matrices of one shape; starts
            or a batch size that do not suit them.

    >>> import jax.numpy as jnp
    >>> origin, corners = jnp.zeros((3, 2)), jnp.array([[3.0, 4.0], [0.0, 1.0], [1.0, 0.0]])
    >>> paths = jax.jit(lambda a, b: geodesic_batch(lambda z: jnp.eye(2), a, b, segments=4))
    >>> print(paths(origin, corners).length.round(3))
    [5. 1. 1.]
    """
    starts, stops = jnp.asarray(z0), jnp.asarray(z1)
    if starts.ndim != 2 or starts.shape != stops.shape:
        raise ValueError(
            f"z0 and z1 must be matrices [pairs, d] of one shape, got {starts.shape} and "
            f"{stops.shape}"
        )
    given = () if initial is None else (jnp.asarray(initial),)
    if given and len(given[0]) != len(starts):
        raise ValueError(
            f"initial must hold one start for each of the {len(starts)} pairs, got {len(given[0])}"
        )

    def effort(starts: Array, stops: Array, *curves: Array) -> Float[Array, "p"]:
        return reach(curves[0] if curves else jnp.stack([starts, stops], 1))

    def connect(start: Latent, stop: Latent, *curves: Array) -> Geodesic:
        first = curves[0] if curves else None
        return geodesic(metric, start, stop, initial=first, **settings)

    return vmap_chunked(connect, batch_size, effort=effort)(starts, stops, *given)


def reach(chains: Float[Array, "p n d"]) -> Float[Array, "p"]:
    """How long chains of points are in latent space: geodesics take the more iterations for it.

    Args:
        chains: points, `[p, n, d]`.

    Returns:
        One length a chain.
    """
    return safe_norm(jnp.diff(chains, axis=1), axis=2).sum(1)


@keep_compiled(arrays=["z0", "z1", "initial"])
def distance(
    metric: Metric,
    z0: ArrayLike | Sequence[float],
    z1: ArrayLike | Sequence[float],
    *,
    segments: int = 32,
    initial: Float[ArrayLike, "k d"] | Curve | None = None,
    tolerance: float | None = None,
    max_iterations: int = 100,
    unknown: Literal["bound", "nan"] = "bound",
) -> Scalar:
    """The length of the shortest path between two latents that `geodesic` finds.

    Where it finds none, the distance is not known, but the length of the best path is a bound: it
    is no less than the distance and no more than the length of the straight line. The derivative at
    `z0 = z1`, where the distance has none, is zero.

    Args:
        metric: any metric.
        z0: one latent.
        z1: another.
        segments: as in `geodesic`, as are all below.
        initial: where the search starts.
        tolerance: when it ends.
        max_iterations: when it gives up.
        unknown: what stands for a distance that is not known, where `geodesic` has not converged:
            the `"bound"`, or `"nan"`.

    Returns:
        The distance. Infinite, or NaN, where an end or the metric on the way is not finite, or the
        metric is negative.

    Raises:
        ValueError: as `geodesic` does; another word for `unknown`.

    >>> import jax.numpy as jnp
    >>> print(distance(lambda z: 4 * jnp.eye(2), jnp.zeros(2), jnp.array([3.0, 4.0])).round(4))
    10.0
    """
    choose("unknown", unknown, {"bound": 0, "nan": 0})
    found = geodesic(
        metric,
        z0,
        z1,
        segments=segments,
        initial=initial,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
    if unknown == "bound":
        return found.length
    return jnp.where(found.converged, found.length, jnp.nan)


def _inner(
    metric: Metric,
    z0: Latent,
    z1: Latent,
    line: Float[Array, "k d"],
    start: Float[Array, "k d"] | None,
    *,
    tolerance: float,
    max_iterations: int,
) -> tuple[Float[Array, "k-2 d"], Result]:
    """The points between the ends where the energy is least, as an implicit function."""
    segments = len(line) - 1
    energy = _discrete_energy.total(metric)

    def force(inner: Float[Array, "m d"]) -> Float[Array, "m d"]:
        return jax.grad(lambda inner: energy(join(z0, inner, z1)))(inner)

    def no_worse(chain: Float[Array, "k d"], other: Float[Array, "k d"]) -> Bool[Array, ""]:
        """Draws count less in the energy of few points: what is least there may not be lower."""
        is_free = metrics.drawn(metric) is None
        return jnp.array(True) if is_free else energy(chain) <= energy(other)

    def solve(_, inner: Float[Array, "m d"]) -> tuple[Float[Array, "m d"], Result]:
        points = join(z0, inner, z1)
        if start is None and metrics.euclidean(metric) is not None:
            for coarse in _levels(segments):
                # So few points need to be told what lies between them.
                problem = _discrete_energy.halved(metric, z0, z1, coarse)
                found = minimise(
                    problem.advance,
                    problem.blank,
                    resample(points, coarse)[1:-1],
                    tolerance=_ROUGH,
                    max_iterations=max_iterations,
                )
                finer = resample(join(z0, found.points, z1), segments)
                points = jnp.where(found.converged & no_worse(finer, points), finer, points)
        found = minimum(
            _discrete_energy.model(metric, z0, z1, segments),
            points[1:-1],
            tolerance=tolerance,
            max_iterations=max_iterations,
        )
        # As a number, because custom_root differentiates whatever else it returns.
        return found.points, jax.tree.map(lambda code: code.astype(inner.dtype), found.result)

    def solve_linear(product, right: Float[Array, "m d"]) -> Float[Array, "m d"]:
        blocks = _block_tridiagonal.from_product(
            product, right.shape[0], right.shape[1], right.dtype
        )
        return jax.lax.custom_linear_solve(
            product,
            right,
            lambda _, b: _block_tridiagonal.solve(*blocks, b, definite=False),
            symmetric=True,
        )

    guess = jax.lax.stop_gradient(_evenly(metric, line) if start is None else start)
    inner, ended = jax.lax.custom_root(force, guess[1:-1], solve, solve_linear, has_aux=True)
    return inner, jax.tree.map(lambda code: code.astype(jnp.int32), ended)


def _evenly(metric: Metric, line: Float[Array, "k d"]) -> Float[Array, "k d"]:
    """A straight line with points at equal distances in the metric; left as it is where the metric
    breaks down.

    Points that are far apart where the metric is large could step over it.
    """
    count = 4 * (len(line) - 1)
    s = jnp.linspace(0, 1, count + 1, dtype=line.dtype)
    across = line[-1] - line[0]
    squares = jax.vmap(lambda s: metrics.squared_norm(metric, line[0] + s * across, across))(s)
    speeds = jnp.sqrt(squares)
    gone = jnp.cumulative_sum((speeds[:-1] + speeds[1:]) / 2, include_initial=True)
    shares = jnp.interp(jnp.linspace(0, 1, len(line), dtype=line.dtype), gone / gone[-1], s)
    usable = jnp.isfinite(shares).all() & (gone[-1] > 0)
    even = line[0] + shares[:, None] * across
    return jnp.where(usable, even.at[0].set(line[0]).at[-1].set(line[-1]), line)


def _levels(segments: int) -> list[int]:
    """Numbers of segments to begin with, increasing.

    >>> _levels(32), _levels(100), _levels(8)
    ([8], [6, 25], [])
    """
    return [] if segments < 16 else [*_levels(segments // 4), segments // 4]


def described(
    metric: Metric,
    points: Float[Array, "k d"],
    start: Float[Array, "k d"],
    ended: Result,
    segments: int | None = None,
    batch_size: int | None = None,
) -> Geodesic:
    """The better of where a search ended and where it started, as a spline with its measures.

    A chain of few points may be short only because it misses what lies between them. Its spline is
    then longer than where the search started, or unevenly fast, or not known well enough. Of a
    metric with draws, whose energy is not that of lengths alone, its energy is then larger than the
    points say, or than where the search started.

    Args:
        metric: any metric.
        points: where the search ended, at equal distances in `s`.
        start: where it started.
        ended: whether it has ended at a minimum, and if not, why.
        segments: those whose energy was made least, where they are not the parts between points.
        batch_size: places at which the metric is measured at once; None: all.

    Returns:
        The `Geodesic`.
    """
    if segments is None:
        found, begun = measure(metric, points), measure(metric, start, SIMPSON)
    else:
        # Between knots an image may turn as often as there are chords.
        panels = max(2 * segments, PANELS)
        seen = partial(measure, metric, inside=SIMPSON, panels=panels, batch_size=batch_size)
        found, begun = seen(points), seen(start)
    rounding = _rounding(metric, points)

    def known(measures: Measures) -> Bool[Array, ""]:
        return measures.doubt * measures.length <= _DOUBT * measures.length + rounding

    # A start that is a geodesic is a little shorter than the best that is known by points.
    longer = known(begun) & (found.length > 1.001 * begun.length + rounding)
    good = jnp.isfinite(points).all() & known(found) & ~longer
    even = known(found) & (2 * found.energy <= _UNEVEN * found.length**2 + rounding**2)
    if segments is not None:
        # So crooked may images be that neither is known: much shorter is shorter all the same.
        good |= found.length * (1 + found.doubt) < begun.length * (1 - begun.doubt)
    if (drawn := metrics.drawn(metric)) is not None:
        parts = _BETWEEN * (segments or len(points) - 1)
        by_points, whole = _discrete_energy.refined(drawn, resample(points, parts), _BETWEEN)
        before, _ = _discrete_energy.refined(drawn, resample(start, parts), _BETWEEN)
        good = jnp.isfinite(points).all() & (by_points <= 1.001 * before)
        even = known(found) & (whole <= _UNEVEN * by_points + rounding**2)
    # Between ends that are one to rounding, nothing is shorter than the straight line.
    is_point = known(begun) & (begun.length <= found.length) & (found.length <= rounding)
    better = good & ~is_point
    points = jnp.where(better, points, start)
    # More rather than less, where the rules differ.
    bound = found.length * jnp.where(known(found), 1, 1 + found.doubt)
    length = jnp.where(better, bound, begun.length * (1 + begun.doubt))
    energy = jnp.where(better, found.energy, begun.energy)
    # Where the metric breaks down nothing is known of the length. The line is no worse an answer.
    numbers = jnp.stack([length, energy, _residual(metric, points)])
    finite = jnp.isfinite(numbers)
    sound = finite[0] & is_positive(metric, points).all()
    length, energy, residual = jnp.where(finite & sound, numbers, jnp.inf)
    result = first_failure(
        (finite.all() & sound, Result.indefinite),
        (ended == Result.successful, ended),
        (good & even, Result.undersampled if drawn is None else Result.undersampled_draws),
    )
    return Geodesic(points, length, energy, residual, result == Result.successful, result)


def _rounding(metric: Metric, points: Float[Array, "k d"]) -> Scalar:
    """The length that rounding of the points can make of nothing."""
    start = points[0]
    # Rounding is never differentiated.
    size = metrics.squared_norm(metric, *jax.lax.stop_gradient((start, start)))
    return 64 * jnp.finfo(start.dtype).eps * jnp.sqrt(jnp.maximum(size, 0))


def _residual(metric: Metric, points: Float[Array, "k d"]) -> Scalar:
    """The residual of the geodesic equation, as `Geodesic` describes it."""
    segments = len(points) - 1
    if segments == 1:
        return jnp.zeros((), points.dtype)
    places = np.linspace(0, 1, min(segments, 8) + 1)[1:-1]
    z = jnp.asarray(spline_weights(segments, places), points.dtype) @ points
    v, bend = (differentiate(points, places, order) for order in (1, 2))
    # Where Jacobians are too long to be held, one place is work enough.
    turn = vmap_bounded(partial(_turn, metric), None if points.shape[1] <= metrics.FORMED else 1)
    squared, speed = (each.mean() for each in turn(z, v, bend))
    squared = jnp.maximum(squared - (segments**2 * _rounding(metric, points)) ** 2, 0)
    still = speed == 0
    return safe_sqrt(jnp.where(still, 0, squared / jnp.where(still, 1, speed)))


def _turn(metric: Metric, z: Latent, v: Latent, bend: Latent) -> tuple[Scalar, Scalar]:
    """Squared lengths of a curve's covariant acceleration and of its velocity at one point.

    Through an immersion the former is the part along the surface of how the image accelerates. It
    needs no acceleration in the latent space, which axes that the image hardly shows would fill.
    """
    if (immersed := metrics.euclidean(metric)) is None:
        turn = bend - acceleration(metric)(z, v)
        return metrics.squared_norm(metric, z, turn), metrics.squared_norm(metric, z, v)

    def velocity(s: Scalar) -> Array:
        return jax.jvp(
            lambda s: immersed.flat(z + s * v + s**2 / 2 * bend), (s,), (jnp.ones_like(s),)
        )[1]

    here = jnp.zeros((), z.dtype)
    speed, change = jax.jvp(velocity, (here,), (jnp.ones_like(here),))
    if len(z) > metrics.FORMED:
        return _along(immersed.flat, z, change), speed @ speed
    _, rows = immersed.push(z)
    matrix, force = metrics.products(rows), metrics.products(rows, change[None])[:, 0]
    # An axis that the image does not show at all is no matter of rounding.
    shown = (jnp.diagonal(matrix) > 0).all()
    factor = jax.scipy.linalg.cho_factor(_discrete_energy.ridge(matrix), lower=True)
    along = force @ jax.scipy.linalg.cho_solve(factor, force)
    return jnp.where(shown, along, jnp.nan), speed @ speed


def _along(immersion: Generator, z: Latent, change: Array) -> Scalar:
    """The squared length of the part along the surface of a vector, by products alone.

    It is the best of a few steps of conjugate gradients, and so rather too short. NaN where the
    image does not show an axis at all.
    """
    _, push = jax.linearize(immersion, z)
    pull = jax.linear_transpose(push, z)
    (force,) = pull(change)
    found, _ = cg(lambda v: pull(push(v))[0], force, tol=_SOLVED, maxiter=_PRODUCTS)
    # An axis that shows is orthogonal to no random image.
    (shown,) = pull(jax.random.normal(jax.random.key(0), change.shape, change.dtype))
    return jnp.where((shown != 0).all(), force @ found, jnp.nan)


def is_positive(metric: Metric, points: Float[Array, "n d"]) -> Bool[Array, "n"]:
    """At which points a metric is positive semidefinite, to rounding.

    What is pulled back from Euclidean space cannot be negative, and where a metric does not show an
    axis at all the residual is not finite.

    Args:
        metric: any metric.
        points: `[n, d]`.

    Returns:
        One truth value a point.
    """
    if metrics.euclidean(metric) is not None:
        return jnp.ones(len(points), bool)
    matrices = _discrete_energy.ridge(jax.vmap(metric)(points))
    return jnp.isfinite(jnp.linalg.cholesky(matrices)).all((1, 2))


def join(z0: Latent, inner: Float[Array, "m d"], z1: Latent) -> Float[Array, "m+2 d"]:
    """A chain of points with its ends.

    Args:
        z0: one end.
        inner: the points between.
        z1: the other end.

    Returns:
        All of them, in their order.
    """
    return jnp.concatenate([z0[None], inner, z1[None]])


def end_points(metric: Metric, z0, z1) -> tuple[Latent, Latent, jnp.dtype]:
    """The end points as floats of one dtype, once they are known to suit the metric.

    Args:
        metric: any metric.
        z0: one end.
        z1: the other.

    Returns:
        Both ends, and the dtype of what is computed.
    """
    ends = {name: _ode.floats(z) for name, z in (("z0", z0), ("z1", z1))}
    for name, z in ends.items():
        if z.ndim != 1 or z.size == 0 or not jnp.issubdtype(z.dtype, jnp.number):
            raise ValueError(
                f"{name} must be one latent, a vector of numbers, got shape {z.shape} and dtype "
                f"{z.dtype}; use jax.vmap for a batch"
            )
        if jnp.issubdtype(z.dtype, jnp.complexfloating):
            raise ValueError(f"{name} must be real, got dtype {z.dtype}")
    if ends["z0"].shape != ends["z1"].shape:
        raise ValueError(
            f"z1 must have the shape of z0, {ends['z0'].shape}, got {ends['z1'].shape}"
        )
    dtype = jnp.result_type(*ends.values())
    start, end = (z.astype(dtype) for z in ends.values())
    jax.eval_shape(partial(metrics.matrix, metric), start)
    return start, end, dtype


def start_points(
    initial: Float[ArrayLike, "k d"] | Curve | None, z0: Latent, z1: Latent, segments: int
) -> Float[Array, "{segments}+1 d"] | None:
    """The points to start from, ends included; None for the straight line.

    Args:
        initial: as in `geodesic`.
        z0: one end.
        z1: the other.
        segments: how many parts the curve has.

    Returns:
        The points, or None.
    """
    if initial is None or segments < 2:
        return None
    if callable(initial):
        points = jax.vmap(initial)(jnp.linspace(0, 1, segments + 1, dtype=z0.dtype))
    else:
        points = jnp.asarray(initial)
    if points.ndim != 2 or len(points) < 2 or points.shape[1:] != z0.shape:
        raise ValueError(
            f"initial must be at least 2 points of shape {z0.shape}, or a curve through such, "
            f"got shape {points.shape}"
        )
    return resample(points.astype(z0.dtype), segments)
