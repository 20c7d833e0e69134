"""The exponential map and its inverse: geodesics as solutions of their differential equation."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
from jaxtyping import Array, ArrayLike, Bool, Float

from latent_flows import flows
from latent_flows._compiled import keep_compiled, unjitted
from latent_flows._results import Result, first_failure, message_of
from latent_flows.geometry import _ode, metrics
from latent_flows.geometry._multiple_shooting import State, multiple_shooting
from latent_flows.geometry.curvature import acceleration
from latent_flows.geometry.curves import spline_weights
from latent_flows.geometry.geodesics import geodesic, is_positive
from latent_flows.typing import Latent, Metric, Scalar

__all__ = [
    "GeodesicFlow",
    "Logarithm",
    "exponential_map",
    "geodesic_flow",
    "logarithm",
    "logarithm_map",
]

_DRIFT = 0.01
"""Relative change of the squared speed by which a curve is no geodesic any more."""


class GeodesicFlow(NamedTuple):
    """Points and velocities along one geodesic."""

    ts: Float[Array, "n"]
    """The times asked for."""
    zs: Float[Array, "n d"]
    """The points at these times; where the geodesic did not get to, the last one it reached."""
    velocities: Float[Array, "n d"]
    """The velocities there."""
    ok: Bool[Array, ""]
    """Whether the solver reached the last time with finite numbers and the speed of the start,
    which geodesics keep, at points where the metric is positive definite."""
    result: Result
    """Why it is not `ok`, if it is not; `message` says it in words."""

    @property
    def message(self) -> Any:
        """Why it is not `ok`; empty if it is. Of a batch, an array of such."""
        return message_of(self.result)


class Logarithm(NamedTuple):
    """The initial velocity of a geodesic between two points."""

    vector: Latent
    """The velocity at the first point, for a journey that takes one unit of time."""
    converged: Bool[Array, ""]
    """Whether a geodesic that leaves with this velocity arrives, and is no detour."""
    result: Result
    """Why it has not converged, if it has not; `message` says it in words."""

    @property
    def message(self) -> Any:
        """Why it has not converged; empty if it has. Of a batch, an array of such."""
        return message_of(self.result)


@keep_compiled(arrays=["z", "v", "ts"], check=lambda z, ts, **_: flows.check_times(z, ts))
def geodesic_flow(
    metric: Metric,
    z: Latent,
    v: Latent,
    ts: ArrayLike | Sequence[float | int],
    *,
    tolerance: float | None = None,
    solver: diffrax.AbstractSolver | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    max_steps: int = 4096,
) -> GeodesicFlow:
    r"""Follow the geodesic that leaves a point with a velocity.

    $$\ddot z = -\Gamma(\dot z, \dot z), \qquad z(t_0) = z, \quad \dot z(t_0) = v$$

    Args:
        metric: any metric.
        z: where it starts.
        v: the velocity there.
        ts: at least two times, increasing or decreasing, of which the first is where it starts.
        tolerance: of the error of one step, relative and absolute; 1e-5 in 32 bits and 1e-9 in 64
            by default.
        solver: any of diffrax that estimates its error; by default `Tsit5`, or `Dopri8` where the
            tolerance is below 1e-6.
        adjoint: how derivatives go through the solver, as in `flows.integrate`; reverse mode by
            default.
        max_steps: the most steps it may take.

    Returns:
        A `GeodesicFlow`. A solver that runs out of steps, a metric that stops being positive
        definite or finite, or a curve that does not keep its speed, as beyond a border of the
        manifold, gives `ok=False` and never raises.

    Raises:
        ValueError: for a velocity of another shape than that of `z`, `ts` that are not at least
            two monotone times, a metric of another shape.

    References:
        Arvanitidis, Hansen and Hauberg, *Latent Space Oddity*, 2018, eq. (4).

    >>> import jax.numpy as jnp
    >>> polar = lambda z: jnp.diag(jnp.array([1.0, z[0] ** 2]))
    >>> path = geodesic_flow(polar, jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]), [0.0, 1.0])
    >>> print(path.zs[-1].round(3), path.ok)  # r = sqrt(2), angle = pi / 4
    [1.414 0.785] True
    """
    z, v = _ode.start("z", z), _ode.start("v", v)
    metrics.check_tangent("v", z, v)
    tolerance = _ode.precision(z) if tolerance is None else tolerance
    dim = z.shape[0]
    equation = _equation(metric)
    solver, controller = _ode.adaptive(tolerance, solver)
    path = flows.integrate(
        lambda t, state: equation(state),
        jnp.concatenate([z, v]),
        ts,
        solver=solver,
        stepsize_controller=controller,
        adjoint=adjoint,
        max_steps=max_steps,
    )
    good = _is_geodesic(metric, path.zs[:, :dim], path.zs[:, dim:])
    states = _ode.hold(jnp.where(good[:, None], path.zs, jnp.nan))
    result = first_failure((path.ok, path.result), (good.all(), Result.left_manifold))
    ok = result == Result.successful
    return GeodesicFlow(path.ts, states[:, :dim], states[:, dim:], ok, result)


@keep_compiled(arrays=["z", "v"])
def exponential_map(
    metric: Metric,
    z: Latent,
    v: Latent,
    *,
    tolerance: float | None = None,
    solver: diffrax.AbstractSolver | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    max_steps: int = 4096,
) -> Latent:
    r"""Where the geodesic with a given initial velocity is after one unit of time.

    $$\exp_z(v) = \gamma(1), \qquad \gamma(0) = z, \quad \dot\gamma(0) = v$$

    The length of the journey is $|v|_M$.

    Args:
        metric: any metric.
        z: where it starts.
        v: the velocity there.
        tolerance: as in `geodesic_flow`.
        solver: as in `geodesic_flow`.
        adjoint: as in `geodesic_flow`.
        max_steps: as in `geodesic_flow`.

    Returns:
        The end point.

    Raises:
        ValueError: as `geodesic_flow` does.
        RuntimeError: when run, if the solver does not get there, which a point alone could not
            say; `geodesic_flow` has a flag instead.

    >>> import jax.numpy as jnp
    >>> half_plane = lambda z: jnp.eye(2) / z[1] ** 2
    >>> end = exponential_map(half_plane, jnp.array([0.0, 1.0]), jnp.array([0.0, 1.0]))
    >>> print(jnp.log(end[1]).round(3))
    1.0
    """
    path = geodesic_flow(
        metric,
        z,
        v,
        [0.0, 1.0],
        tolerance=tolerance,
        solver=solver,
        adjoint=adjoint,
        max_steps=max_steps,
    )
    return eqx.error_if(
        path.zs[-1],
        ~path.ok,
        "the geodesic could not be followed for one unit of time; geodesic_flow says how far it is",
    )


@keep_compiled(arrays=["z0", "z1"])
def logarithm(
    metric: Metric,
    z0: Latent,
    z1: Latent,
    *,
    segments: int = 32,
    tolerance: float | None = None,
    solver: diffrax.AbstractSolver | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    max_steps: int = 256,
    max_shots: int = 16,
) -> Logarithm:
    r"""The initial velocity of the geodesic from one point to another, and whether it is one.

    $$\exp_{z_0}(v) = z_1$$

    The curve of least energy, `geodesic`, comes first. `multiple_shooting` refines it, and a few
    shots all the way, corrected by what that knows of their sensitivity, make the differential
    equation itself arrive. Where it does not arrive, or only by a detour, the velocity of the
    curve is kept.

    The derivative is implicit: that of the equation above, whatever way its solution was found.

    Args:
        metric: any metric.
        z0: the first point.
        z1: the second.
        segments: of the curve, and arcs of multiple shooting; a more crooked surface takes more.
        tolerance: as in `geodesic_flow`; the answer has converged if it arrives within a hundred
            times as much of the distance in coordinates.
        solver: as in `geodesic_flow`.
        adjoint: as in `geodesic_flow`; derivatives in forward mode need `diffrax.DirectAdjoint()`.
        max_steps: as in `geodesic_flow`; a shot that takes more has missed.
        max_shots: the most steps of its Newton's method, and then of shooting all the way.

    Returns:
        A `Logarithm`; its vector is finite. Where it is not `converged` the vector is that of the
        curve and its derivative is zero.

    Raises:
        ValueError: for end points that are not two vectors of one shape, a metric of another
            shape.

    >>> import jax.numpy as jnp
    >>> half_plane = lambda z: jnp.eye(2) / z[1] ** 2
    >>> there = logarithm(half_plane, jnp.array([0.0, 1.0]), jnp.array([0.0, 2.0]))
    >>> print(there.vector[1].round(3), there.converged)  # log 2
    0.693 True
    """
    z0, z1 = _ode.start("z0", z0), _ode.start("z1", z1)
    metrics.check_tangent("z1", z0, z1)
    tolerance = _ode.precision(z0) if tolerance is None else tolerance

    flow = partial(geodesic_flow, metric, tolerance=tolerance, solver=solver, max_steps=max_steps)

    def search(
        z0: Latent, z1: Latent
    ) -> tuple[Latent, Latent, Float[Array, "d d"], Scalar, Result]:
        curve = geodesic(metric, z0, z1, segments=segments)
        slopes = spline_weights(segments, np.arange(segments) / segments, 1)
        velocities = jnp.asarray(slopes, z0.dtype) @ curve.points
        states = jnp.concatenate([curve.points[:-1], velocities], 1)
        vector, slope = multiple_shooting(_equation(metric), states, z1, max_steps=max_shots)

        def aim(v: Latent, _: None) -> Latent:
            return v - jnp.linalg.solve(slope, flow(z0, v, [0.0, 1.0]).zs[-1] - z1)

        vector = unjitted(optimistix.fixed_point)(
            aim,
            optimistix.FixedPointIteration(rtol=tolerance, atol=tolerance),
            vector,
            max_steps=max_shots,
            throw=False,
        ).value
        # Where no shortest curve is known, none can be told from a detour.
        length = jnp.where(curve.converged, curve.length, -jnp.inf)
        return velocities[0], vector, slope, length, curve.result

    # Nothing is differentiated through the search: its inputs, those closed over too, are held.
    closed, held = jax.closure_convert(search, z0, z1)
    rough, vector, slope, length, curved = closed(*jax.lax.stop_gradient((z0, z1, *held)))
    usable = jnp.isfinite(vector).all() & jnp.isfinite(slope).all()
    vector = jnp.where(usable, vector, 0)
    slope = jnp.where(usable, slope, jnp.eye(z0.shape[0], dtype=z0.dtype))
    # One more step of Newton, the only part that is differentiated, has the implicit derivative.
    path = flow(z0, vector, [0.0, 1.0], adjoint=adjoint)
    miss = path.zs[-1] - z1
    vector -= jnp.linalg.solve(slope, miss)
    # What rounding alone makes of the end point, for ends that are close together.
    rounding = 100 * jnp.finfo(z0.dtype).eps * jnp.linalg.norm(z1)
    near = jnp.linalg.norm(miss) <= 100 * tolerance * jnp.linalg.norm(z1 - z0) + rounding
    direct = jnp.sqrt(metrics.squared_norm(metric, z0, vector)) <= 1.1 * length + rounding
    result = first_failure(
        (direct | (curved == Result.successful), curved),
        (usable & near & jnp.isfinite(vector).all(), Result.missed),
        (path.ok, path.result),
        (direct, Result.detour),
    )
    converged = result == Result.successful
    return Logarithm(jnp.where(converged, vector, rough), converged, result)


@keep_compiled(arrays=["z0", "z1"])
def logarithm_map(
    metric: Metric,
    z0: Latent,
    z1: Latent,
    *,
    segments: int = 32,
    tolerance: float | None = None,
    solver: diffrax.AbstractSolver | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    max_steps: int = 256,
    max_shots: int = 16,
) -> Latent:
    r"""The initial velocity of the geodesic from one point to another.

    $$\log_{z_0}(z_1) = v \quad\text{with}\quad \exp_{z_0}(v) = z_1, \qquad
      |v|_M = \mathrm{dist}(z_0, z_1)$$

    It is the vector of `logarithm`, for those who know that it converges.

    Args:
        metric: any metric.
        z0: the first point.
        z1: the second.
        segments: as in `logarithm`.
        tolerance: as in `logarithm`.
        solver: as in `logarithm`.
        adjoint: as in `logarithm`.
        max_steps: as in `logarithm`.
        max_shots: as in `logarithm`.

    Returns:
        The tangent vector at `z0`, finite; only as good as the discretised curve where
        `logarithm` would say that it did not converge.

    Raises:
        ValueError: as `logarithm` does.

    >>> import jax.numpy as jnp
    >>> print(logarithm_map(lambda z: 4 * jnp.eye(2), jnp.zeros(2), jnp.ones(2)).round(3))
    [1. 1.]
    """
    return logarithm(
        metric,
        z0,
        z1,
        segments=segments,
        tolerance=tolerance,
        solver=solver,
        adjoint=adjoint,
        max_steps=max_steps,
        max_shots=max_shots,
    ).vector


def _is_geodesic(
    metric: Metric, zs: Float[Array, "n d"], velocities: Float[Array, "n d"]
) -> Bool[Array, "n"]:
    """At which times, and at all before, a curve has kept the speed that geodesics conserve."""
    zs, velocities = jax.lax.stop_gradient((zs, velocities))
    squares = jax.vmap(partial(metrics.squared_norm, metric))(zs, velocities)
    # Of the start, which is taken as it is, nothing is asked.
    kept = jnp.abs(squares - squares[0]) <= _DRIFT * squares[0]
    good = (kept & is_positive(metric, zs)).at[0].set(True)
    return jax.lax.cummin(good.astype(int)) > 0


def _equation(metric: Metric) -> Callable[[State], State]:
    """The geodesic equation, of first order: `(z, v) -> (v, acceleration)`."""
    bend = acceleration(metric)

    def field(state: State) -> State:
        z, v = jnp.split(state, 2)
        return jnp.concatenate([v, bend(z, v)])

    return field
