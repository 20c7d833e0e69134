"""Brownian motion: the random walk that a metric makes fair in every direction."""

from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Key

from latent_flows._compiled import keep_compiled, unjitted
from latent_flows._results import Result, first_failure, message_of
from latent_flows.geometry import _ode, metrics
from latent_flows.geometry.operators import frame_and_bend
from latent_flows.typing import Latent, Metric

__all__ = ["Walk", "brownian_motion"]


class Walk(NamedTuple):
    """The path of one random walk."""

    ts: Float[Array, "n"]
    """The times asked for."""
    zs: Float[Array, "n d"]
    """Where it was; once it is no longer finite, the last point that was."""
    ok: Bool[Array, ""]
    """Whether it stayed finite to the end."""
    result: Result
    """Why it is not `ok`, if it is not; `message` says it in words."""

    @property
    def message(self) -> Any:
        """Why it is not `ok`; empty if it is. Of a batch, an array of such."""
        return message_of(self.result)


@keep_compiled(arrays=["key", "z0", "ts"], check=lambda z0, ts, **_: _times(ts, z0.dtype))
def brownian_motion(
    key: Key[Array, ""],
    metric: Metric,
    z0: Latent,
    ts: ArrayLike,
    *,
    substeps: int = 1,
) -> Walk:
    r"""Brownian motion on the manifold, from one point.

    $$dz = \tfrac12 b(z)\,dt + L(z)\,dW, \qquad L L^\top = M^{-1}, \quad
      b^k = -M^{ij} \Gamma^k_{ij}$$

    in the sense of Ito: its generator is half the Laplace-Beltrami operator, so that the heat
    equation $\partial_t p = \tfrac12 \Delta_M p$ rules its density with respect to the volume
    measure. A step of Euler and Maruyama goes from each time to the next.

    Time is measured in squared length: after a short time `t` the walk is about $\sqrt{d\,t}$ from
    its start, in data space for a metric that is pulled back from there. A step should therefore
    be short compared with the squared distance over which the metric changes.

    Args:
        key: a random key.
        metric: any metric.
        z0: where it starts.
        ts: at least two increasing times, of which the first is where it starts.
        substeps: how many equal steps to take from one time to the next.

    Returns:
        A `Walk`. A metric that stops being positive definite or finite gives `ok=False`.

    Raises:
        ValueError: for a `z0` that is not one vector, `ts` that are not at least two increasing
            times, `substeps` less than 1, a metric of another shape.

    References:
        Hsu, *Stochastic Analysis on Manifolds*, 2002, example 3.3.5; Arvanitidis, Hansen and
        Hauberg, *Latent Space Oddity*, 2018, section 5.4, for the walk on a generator.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> half_plane = lambda z: jnp.eye(2) / z[1] ** 2
    >>> ts = jnp.linspace(0.0, 1.0, 101)
    >>> walk = brownian_motion(jax.random.key(0), half_plane, jnp.array([0.0, 1.0]), ts)
    >>> print(walk.zs.shape, walk.ok)
    (101, 2) True
    """
    z0 = _ode.start("z0", z0)
    times = _times(ts, z0.dtype)
    if substeps < 1:
        raise ValueError(f"substeps must be at least 1, got {substeps}")
    metrics.matrix(metric, z0)
    frame = frame_and_bend(metric)

    def rates(t: Any, z: Latent, args: None) -> Float[Array, "d 1+d"]:
        root, bend = frame(z)
        return jnp.concatenate([bend[:, None] / 2, root], 1)

    count = times.size - 1
    grid = jnp.interp(jnp.arange(count * substeps + 1) / substeps, jnp.arange(count + 1.0), times)
    grid = grid.astype(z0.dtype)
    increment = jax.ShapeDtypeStruct(z0.shape, z0.dtype)
    noise = diffrax.VirtualBrownianTree(
        times[0], times[-1], jnp.diff(grid).min() / 2, increment, key
    )
    solution = unjitted(diffrax.diffeqsolve)(
        diffrax.ControlTerm(rates, _TimeAndNoise(noise)),
        diffrax.Euler(),
        times[0],
        times[-1],
        None,
        z0,
        saveat=diffrax.SaveAt(ts=times),
        stepsize_controller=diffrax.StepTo(ts=grid),
        max_steps=count * substeps,
        throw=False,
    )
    zs = jnp.asarray(solution.ys)
    ok = jnp.isfinite(zs).all()
    return Walk(times, _ode.hold(zs), ok, first_failure((ok, Result.nonfinite)))


class _TimeAndNoise(diffrax.AbstractPath):
    """Time and Brownian motion as one control.

    Drift and spread in one term share one factorisation of the metric. Two batched ones at a time
    cost twice as much, and on two threads wait for each other without end in jaxlib 0.10.
    """

    noise: diffrax.AbstractBrownianPath

    @property
    def t0(self) -> Any:  # type: ignore[override]
        return self.noise.t0

    @property
    def t1(self) -> Any:  # type: ignore[override]
        return self.noise.t1

    def evaluate(
        self, t0: Any, t1: Any = None, left: bool = True, use_levy: bool = False
    ) -> Float[Array, "n"]:
        """How much time passes from `t0` to `t1`, and what the noise adds."""
        return jnp.append(t1 - t0, self.noise.evaluate(t0, t1, left))


def _times(ts: ArrayLike, dtype: jnp.dtype) -> Float[Array, "n"]:
    """The times as floats, once they are known to make sense."""
    times = jnp.asarray(ts)
    if times.ndim != 1 or times.size < 2:
        raise ValueError(f"ts must be a vector of at least two times, got shape {times.shape}")
    if not isinstance(times, jax.core.Tracer) and not (np.diff(np.asarray(times)) > 0).all():
        raise ValueError(f"ts must only increase, got {times}")
    return times.astype(dtype)
