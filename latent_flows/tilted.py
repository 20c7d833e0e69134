"""Potentials for flows whose way is nearly known: a straight line, bent by a network."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, PyTree

from latent_flows.calculus import Number
from latent_flows.choices import choose
from latent_flows.potentials import PotentialNet
from latent_flows.typing import Latent, Scalar

__all__ = ["TIMES", "TiltedNet"]

TIMES = {
    "static": "u(t, z) = w.z + f(z)",
    "free": "u(t, z) = w.z + f(t, z)",
    "exact": "u(t, z) = (t / T) w.z + f(t, z) - f(0, z), at rest at time 0",
    "standing": "u(t, z) = cos(omega t - phi) (w.z + f(z)), a standing wave",
}
"""How a potential may depend on time."""

_BEND = 0.1  # of the network's own size: a fresh potential is nearly a plane
_EAGER = 5.0  # times the pace of other parameters at which an optimiser turns the clock


class TiltedNet(nn.Module):
    r"""A plane bent by a smooth network, `(t, z) -> u`, for one time and one latent.

    $$u(t, z) = w^\top z + f(t, z)$$

    The gradient of the plane is a constant direction, which a wave or a heat equation leaves alone.
    The standing wave $\cos(\omega t - \varphi)\,(w^\top z + f(z))$ separates time from place: its
    flow is that of $w^\top z + f$, run by another clock. It solves the wave equation where
    $\Delta f = -(\omega / c)^2 (w^\top z + f)$. Its clock goes on beyond the times it was trained
    on, which a network of time does not; but from a quarter period alone it is badly learnt.

    Args:
        width: the units of a hidden layer of `f`.
        depth: its number of hidden layers, at least 1.
        horizon: the longest time of interest, `T`.
        time: one of `TIMES`.
        beat: frequency, in radians over the horizon, and phase of the standing wave; None: learnt.

    Raises:
        ValueError: for an unknown `time`, and as `PotentialNet` does.

    References:
        Evans, *Partial Differential Equations*, 2010, section 4.1, for the separation of variables.

    >>> net, z = TiltedNet(width=8, time="exact"), jnp.ones(3)
    >>> params = net.init(jax.random.key(0), 0.0, z)
    >>> print(net.apply(params, 0.0, z))
    0.0
    """

    width: int = 64
    depth: int = 2
    horizon: float = 10.0
    time: str = "static"
    beat: tuple[float, float] | None = None

    @nn.compact
    def __call__(self, t: Number, z: Latent) -> Scalar:
        choose("time dependence of TiltedNet", self.time, TIMES)
        network_time = "static" if self.time == "standing" else self.time
        f = PotentialNet(
            self.width, self.depth, horizon=self.horizon, initial=network_time, name="bend"
        )
        tilt = self.param("tilt", _slightly, jnp.shape(z)[-1:])
        plane, bent = tilt @ z, _BEND * f(t, z)
        passed = jnp.asarray(t, z.dtype) / self.horizon
        if self.time == "exact":
            return passed * plane + bent
        if self.time == "standing":
            if self.beat is None:
                for name, value in {"frequency": 1.0, "phase": 0.5}.items():
                    self.param(name, nn.initializers.constant(value / _EAGER), ())
            omega, phase = self.clock(self.variables)
            return jnp.cos(omega * passed - phase) * (plane + bent)
        return plane + bent

    def clock(self, params: PyTree) -> tuple[Number, Number]:
        """Frequency, in radians over the horizon, and phase of the standing wave.

        >>> net = TiltedNet(width=8, time="standing")
        >>> omega, phase = net.clock(net.init(jax.random.key(0), 0.0, jnp.ones(3)))
        >>> print(omega, phase)
        1.0 0.5
        """
        if self.beat is not None:
            return self.beat
        held = params["params"]
        return _EAGER * held["frequency"], _EAGER * held["phase"]


def _slightly(key: Array, shape: tuple[int, ...]) -> Any:
    return 0.01 * jax.random.normal(key, shape)
