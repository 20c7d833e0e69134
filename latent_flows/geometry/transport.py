"""Parallel transport: a tangent vector carried along a curve without turning."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp

from latent_flows import flows
from latent_flows._compiled import keep_compiled
from latent_flows.geometry import _ode, metrics
from latent_flows.geometry.curvature import connection
from latent_flows.typing import Curve, Latent, Metric, Scalar

__all__ = ["parallel_transport"]


@keep_compiled(arrays=["curve", "v"])
def parallel_transport(
    metric: Metric,
    curve: Curve,
    v: Latent,
    *,
    tolerance: float | None = None,
    solver: diffrax.AbstractSolver | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    max_steps: int = 4096,
) -> Latent:
    r"""Carry a tangent vector from the start of a curve to its end.

    $$\dot w = -\Gamma(\dot c, w), \qquad w(0) = v$$

    Lengths, and angles between vectors carried along the same curve, stay as they are. Back along
    the reversed curve, the vector returns to itself; around a loop it comes back turned by the
    curvature enclosed.

    Args:
        metric: any metric.
        curve: `s -> z` for `s` in [0, 1], differentiable; a `Geodesic` for one.
        v: a tangent vector at `curve(0)`.
        tolerance: of the error of one step, relative and absolute; 1e-5 in 32 bits and 1e-9 in 64
            by default.
        solver: any of diffrax that estimates its error; by default `Tsit5`, or `Dopri8` where the
            tolerance is below 1e-6.
        adjoint: how derivatives go through the solver, as in `flows.integrate`; reverse mode by
            default.
        max_steps: the most steps it may take.

    Returns:
        The tangent vector at `curve(1)`.

    Raises:
        ValueError: for a vector of another shape than that of the points of the curve, a metric
            of another shape.
        RuntimeError: when run, if the solver does not get to the end of the curve.

    References:
        do Carmo, *Riemannian Geometry*, 1992, chapter 2, proposition 2.6.

    >>> import jax.numpy as jnp
    >>> polar = lambda z: jnp.diag(jnp.array([1.0, z[0] ** 2]))
    >>> quarter = lambda s: jnp.stack([jnp.ones_like(s), jnp.pi / 2 * s])
    >>> print(jnp.abs(parallel_transport(polar, quarter, jnp.array([0.0, 1.0]))).round(3))
    [1. 0.]
    """
    v = _ode.start("v", v)
    tolerance = _ode.precision(v) if tolerance is None else tolerance
    gamma = connection(metric)
    times = jnp.array([0.0, 1.0], v.dtype)
    metrics.check_tangent("v", curve(times[0]), v)

    def field(s: Scalar, w: Latent) -> Latent:
        z, velocity = jax.jvp(curve, (s,), (jnp.ones_like(s),))
        return -gamma(z, velocity, w)

    solver, controller = _ode.adaptive(tolerance, solver)
    path = flows.integrate(
        field,
        v,
        times,
        solver=solver,
        stepsize_controller=controller,
        adjoint=adjoint,
        max_steps=max_steps,
    )
    return eqx.error_if(
        path.zs[-1], ~path.ok, "the tangent vector could not be carried to the end of the curve"
    )
