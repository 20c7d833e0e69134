"""Curves of a latent space: their length, their energy, and the geodesic as one of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from latent_flows._norms import safe_norm, safe_sqrt
from latent_flows._results import Result, message_of
from latent_flows._transforms import vmap_bounded
from latent_flows.calculus import Number
from latent_flows.geometry.metrics import squared_norm
from latent_flows.typing import Curve, Latent, Metric, Scalar

if TYPE_CHECKING:
    from scipy.interpolate import CubicSpline

__all__ = [
    "LOBATTO",
    "PANELS",
    "SIMPSON",
    "Geodesic",
    "Measures",
    "differentiate",
    "energy",
    "evaluate",
    "gauss_places",
    "great_circle",
    "length",
    "measure",
    "on_great_circle",
    "resample",
    "resample_by_length",
    "spline_weights",
    "straight",
]

PANELS = 16
"""Parts, at least, in which the length of a spline is measured."""
LOBATTO = (0.5 - np.sqrt(0.05), 0.5 + np.sqrt(0.05))
"""Inner places, in [0, 1], of four-point Gauss-Lobatto quadrature; its outer ones are the ends."""
SIMPSON = (0.5,)
"""The inner place of Simpson's rule."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Geodesic:
    r"""A shortest path between two latents, or the best that was found; see `geodesic`.

    It is a curve: called with `s` in [0, 1] it gives the latent there, by the cubic spline through
    `points` (not-a-knot, twice continuously differentiable).
    """

    points: Float[Array, "n+1 d"]
    """The latents at `s = 0, 1/n, ..., 1`; the first and the last are the end points, exactly."""
    length: Scalar
    """Its length in the metric: never less than the distance, and no more than where the search
    started. Infinite where the metric gives none."""
    energy: Scalar
    r"""Half the integral of its squared speed, $\tfrac12 \int |c'|_M^2\,ds$; at a geodesic half the
    squared length. Infinite where the length is."""
    residual: Scalar
    r"""How far it is from the geodesic equation: the root mean square, over the points between the
    ends, of $|\nabla_{c'} c'|_M / |c'|_M$, with derivatives of the spline. It is the angle, in
    radians, by which a curve as crooked as this everywhere turns from its start to its end, and
    says whether `n` is large enough. It is taken at seven places between the ends, less what
    rounding of the points makes of it. Infinite where the metric gives none."""
    converged: Bool[Array, ""]
    """Whether the discretised energy is at a minimum to tolerance, the curve is as long as its
    points say, and every number finite."""
    result: Result
    """Why it has not converged, if it has not; `message` says it in words."""

    @property
    def message(self) -> Any:
        """Why it has not converged; empty if it has. Of a batch, an array of such."""
        return message_of(self.result)

    def __call__(self, s: Number) -> Latent:
        return evaluate(self.points, s)


def length(metric: Metric, curve: Curve, *, segments: int = 64) -> Scalar:
    r"""The length of a curve.

    $$\int_0^1 |c'(s)|_{M(c(s))}\,ds$$

    By two-point Gauss quadrature on equal segments, with one forward-mode pass through the curve
    and, where the metric is pulled back, one through the immersion: no Jacobian is formed.

    Args:
        metric: any metric.
        curve: `s -> z`, differentiable.
        segments: how many equal parts of [0, 1] the quadrature takes, at least 1.

    Returns:
        The length; NaN where a squared speed is NaN, or negative beyond rounding.

    Raises:
        ValueError: fewer segments than one.

    >>> import jax.numpy as jnp
    >>> circle = lambda s: jnp.array([jnp.cos(jnp.pi * s), jnp.sin(jnp.pi * s)])
    >>> print(jnp.allclose(length(lambda z: jnp.eye(2), circle), jnp.pi))
    True
    """
    return _roots(_squared_speeds(metric, curve, segments)).mean()


def energy(metric: Metric, curve: Curve, *, segments: int = 64) -> Scalar:
    r"""The energy of a curve.

    $$\frac12 \int_0^1 |c'(s)|_{M(c(s))}^2\,ds$$

    At least half the squared length, with equality where the speed is constant.

    Args:
        metric: any metric.
        curve: `s -> z`, differentiable.
        segments: as in `length`.

    Returns:
        The energy.

    Raises:
        ValueError: fewer segments than one.

    >>> import jax.numpy as jnp
    >>> print(energy(lambda z: jnp.eye(2), lambda s: s * jnp.array([3.0, 4.0])))
    12.5
    """
    return _squared_speeds(metric, curve, segments).mean() / 2


def evaluate(points: Float[Array, "k d"], s: Number) -> Latent:
    """The cubic spline through `points`, which lie at equal distances in `s`, at one `s`.

    Outside of [0, 1] the first and the last cubic go on, so that the ends have derivatives too.

    Args:
        points: at equal distances in `s`.
        s: where; in [0, 1].

    Returns:
        The latent there.
    """
    segments = points.shape[0] - 1
    place = jnp.asarray(s) * segments
    index = jnp.clip(jnp.floor(place).astype(int), 0, segments - 1)
    table = jnp.asarray(_spline(segments), points.dtype)
    x = (place - index).astype(points.dtype)
    cubic = table[:, index] @ points
    return ((cubic[0] * x + cubic[1]) * x + cubic[2]) * x + cubic[3]


def resample(points: Float[Array, "k d"], segments: int) -> Float[Array, "{segments}+1 d"]:
    """The cubic spline through `points` at other equally distant places.

    Args:
        points: at equal distances in `s`.
        segments: how many parts the result has.

    Returns:
        The points, `[segments + 1, d]`.
    """
    if segments == points.shape[0] - 1:
        return points
    places = np.linspace(0, 1, segments + 1)
    weights = jnp.asarray(spline_weights(points.shape[0] - 1, places), points.dtype)
    return points[0] + weights @ (points - points[0])


def resample_by_length(
    points: Float[Array, "n d"], shares: Float[ArrayLike, "k"] | Sequence[float]
) -> Float[Array, "k d"]:
    """The polygon through `points` at shares of its Euclidean length.

    At even shares it shows a curve without dwelling where the curve is slow.

    Args:
        points: the corners, at any distances.
        shares: of the length, in [0, 1].

    Returns:
        The points, one row a share.

    >>> corner = jnp.array([[0.0, 0.0], [1.0, 0.0], [1.0, 3.0]])
    >>> print(resample_by_length(corner, [0.0, 0.25, 0.5, 1.0]))
    [[0. 0.]
     [1. 0.]
     [1. 1.]
     [1. 3.]]
    """
    steps = jnp.linalg.norm(jnp.diff(points, axis=0), axis=1)
    gone = jnp.concatenate([jnp.zeros(1, steps.dtype), jnp.cumsum(steps)])
    places = jnp.asarray(shares, steps.dtype) * gone[-1]
    return jax.vmap(partial(jnp.interp, places, gone), in_axes=1, out_axes=1)(points)


def straight(z0: Latent, z1: Latent, segments: int) -> Float[Array, "{segments}+1 d"]:
    """The straight line; its first and last points are the given ones, exactly.

    Args:
        z0: where it starts.
        z1: where it ends.
        segments: how many parts it has.

    Returns:
        The points, `[segments + 1, d]`.
    """
    s = jnp.linspace(0, 1, segments + 1, dtype=z0.dtype)[:, None]
    # Points between ends that are one are that one, exactly.
    return (z0 + s * (z1 - z0)).at[-1].set(z1)


def great_circle(z0: Latent, z1: Latent, segments: int) -> Float[Array, "{segments}+1 d"]:
    r"""The arc about the origin; its first and last points are the given ones, exactly.

    $$c(s) = r(s)\, \frac{\sin((1 - s)\omega)\, u_0 + \sin(s \omega)\, u_1}{\sin \omega}$$

    with the directions `u` of the ends, the angle between them, and a norm `r` that goes evenly
    from one's to the other's. Draws of `N(0, I)` in many dimensions have all about one norm, and so
    have the points of the arc, where those of a straight line are nearer to the origin.

    Args:
        z0: where it starts.
        z1: where it ends.
        segments: how many parts it has.

    Returns:
        The points, `[segments + 1, d]`; of the straight line where the ends lie on one through the
        origin, since no arc, or no single one, joins them.

    References:
        Shoemake, *Animating Rotation with Quaternion Curves*, 1985; for latents: White, *Sampling
        Generative Networks*, 2016.

    >>> middle = great_circle(jnp.array([1.0, 0.0]), jnp.array([0.0, 3.0]), 2)[1]
    >>> print(jnp.allclose(middle, 2**0.5, atol=1e-5))
    True
    """
    s = jnp.linspace(0, 1, segments + 1, dtype=z0.dtype)
    return on_great_circle(z0, z1, s).at[0].set(z0).at[-1].set(z1)


def on_great_circle(z0: Latent, z1: Latent, s: Float[Array, "n"]) -> Float[Array, "n d"]:
    """Points of `great_circle`, at any places from 0 to 1.

    Args:
        z0: where it starts.
        z1: where it ends.
        s: the places.

    Returns:
        The points.
    """
    s = s[:, None]
    line = z0 + s * (z1 - z0)
    ends = jnp.stack([z0, z1])
    norms = safe_norm(ends, axis=1, keepdims=True)
    first, last = ends / jnp.where(norms == 0, 1, norms)
    # More exact than the arc cosine where the ends are near each other.
    angle = 2 * jnp.arctan2(safe_norm(last - first), safe_norm(last + first))
    sine = jnp.sin(angle)
    is_line = (sine < 1e-4) | (norms == 0).any()
    turned = jnp.sin((1 - s) * angle) * first + jnp.sin(s * angle) * last
    arc = ((1 - s) * norms[0] + s * norms[1]) * turned / jnp.where(is_line, 1, sine)
    return jnp.where(is_line, line, arc)


def gauss_places(segments: int) -> Float[np.ndarray, "q"]:
    """The nodes of two-point Gauss quadrature on equal segments of [0, 1]; all weigh the same.

    Args:
        segments: how many there are.

    Returns:
        The nodes, two a segment.
    """
    if segments < 1:
        raise ValueError(f"segments must be at least 1, got {segments}")
    offsets = 0.5 + np.array([-0.5, 0.5]) / np.sqrt(3)
    return ((np.arange(segments)[:, None] + offsets) / segments).ravel()


def differentiate(
    points: Float[Array, "k d"], places: Float[np.ndarray, "q"], order: int = 1
) -> Float[Array, "q d"]:
    """Derivatives in `s` of the spline through `points`; exactly zero where all points are one.

    Args:
        points: at equal distances in `s`.
        places: where; in [0, 1].
        order: of the derivative.

    Returns:
        The derivatives, one row a place.
    """
    weights = spline_weights(len(points) - 1, places, order)
    return jnp.asarray(weights, points.dtype) @ (points - points[0])


def spline_weights(
    segments: int, places: Float[np.ndarray, "q"], derivative: int = 0
) -> Float[np.ndarray, "q {segments}+1"]:
    """What every point contributes to its spline, or a derivative in `s`, at given places.

    Args:
        segments: parts between the points.
        places: where; in [0, 1].
        derivative: its order; 0 for the spline itself.

    Returns:
        One row a place, one column a point.
    """
    return _unit_splines(segments)(places, derivative)


class Measures(NamedTuple):
    """What the spline through points is like."""

    length: Scalar
    """Its length; not finite where a squared speed is negative or not finite."""
    energy: Scalar
    """Its energy; not finite where the length is not."""
    doubt: Scalar
    """How far two rules of quadrature differ in the length, relative to it."""


def measure(
    metric: Metric,
    points: Float[Array, "k d"],
    inside: tuple[float, ...] = LOBATTO,
    panels: int = PANELS,
    batch_size: int | None = None,
) -> Measures:
    """Length and energy of the spline through points.

    By Gauss-Lobatto quadrature, or Simpson's rule. Their difference from the trapezoidal rule tells
    whether the metric was seen often enough.

    Args:
        metric: any metric.
        points: at equal distances in `s`.
        inside: the places inside each part: `LOBATTO`, or `SIMPSON` for a third fewer.
        panels: parts, at least, that are measured.
        batch_size: places at once; None: all.

    Returns:
        The `Measures`.
    """
    segments = len(points) - 1
    parts = segments * -(-panels // segments)
    corners = np.linspace(0, 1, parts + 1)
    between = ((np.arange(parts)[:, None] + inside) / parts).ravel()
    places = np.concatenate([corners, between])
    z = jnp.asarray(spline_weights(segments, places), points.dtype) @ points
    v = differentiate(points, places)
    squares = vmap_bounded(lambda z, v: squared_norm(metric, z, v), batch_size)(z, v)
    share = {LOBATTO: 5 / 6, SIMPSON: 2 / 3}[inside]

    def integral(values: Float[Array, "q"]) -> tuple[Scalar, Scalar]:
        rough = (values[:parts].mean() + values[1 : parts + 1].mean()) / 2
        return rough + share * (values[parts + 1 :].mean() - rough), rough

    length, rough = integral(_roots(squares))
    energy = jnp.where(jnp.isnan(length), jnp.nan, integral(squares)[0] / 2)
    moves = length > 0
    doubt = jnp.where(moves, jnp.abs(length - rough) / jnp.where(moves, length, 1), 0)
    return Measures(length, energy, doubt)


def _squared_speeds(metric: Metric, curve: Curve, segments: int) -> Float[Array, "q"]:
    def squared_speed(s: Scalar) -> Scalar:
        z, v = jax.jvp(curve, (s,), (jnp.ones_like(s),))
        return squared_norm(metric, z, v)

    return jax.vmap(squared_speed)(jnp.asarray(gauss_places(segments)))


def _roots(squares: Float[Array, "q"]) -> Float[Array, "q"]:
    """Square roots, with derivative zero where the square is; NaN for what is no length.

    What rounding may make of zero counts as zero.
    """
    rounding = jnp.sqrt(jnp.finfo(squares.dtype).eps) * jnp.abs(squares).max()
    return jnp.where(squares < -rounding, jnp.nan, safe_sqrt(jnp.maximum(squares, 0)))


@lru_cache
def _unit_splines(segments: int) -> "CubicSpline":
    """One spline a point: 1 there and 0 at the others. Splines are linear in their points."""
    from scipy.interpolate import CubicSpline

    return CubicSpline(np.linspace(0, 1, segments + 1), np.eye(segments + 1))


@lru_cache
def _spline(segments: int) -> Float[np.ndarray, "4 {segments} {segments}+1"]:
    """Coefficients of the cubics, highest power first, each in units of its segment."""
    powers = np.arange(3, -1, -1.0)
    return _unit_splines(segments).c / float(segments) ** powers[:, None, None]
