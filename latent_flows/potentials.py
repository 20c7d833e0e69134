"""Potentials and fields: small smooth networks of time and latent, and a stack of them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, ArrayLike, Float, PyTree

from latent_flows._validation import choose
from latent_flows.calculus import Number
from latent_flows.typing import Latent, Potential, Scalar

__all__ = [
    "TIMES",
    "FieldNet",
    "PolynomialPotential",
    "PotentialNet",
    "TiltedNet",
    "init_stack",
    "member",
    "select",
    "time_embedding",
]

_INITIALS = {
    "exact": "u(t, z) = f(t, z) - f(0, z), at rest at time 0",
    "free": "u = f, nothing imposed",
    "static": "u(t, z) = f(z), no time",
}


def time_embedding(t: Number, features: int, horizon: float) -> Float[Array, "features"]:
    r"""Sines and cosines of a time, at frequencies spread over one decade.

    $$\bigl(\sin \omega_k t,\ \cos \omega_k t\bigr)_{k=0}^{n-1}, \qquad
      \omega_k = \frac{10^{k/(n-1)}}{T}$$

    The slowest is nearly linear over `[0, T]`, so that slow motion is easy to express; the fastest
    turns one and a half times. At `T = 10` it is the fastest of the transformer's embedding.

    Args:
        t: a time.
        features: how many numbers to return; even.
        horizon: the longest time of interest, `T`.

    Returns:
        The `features` numbers.

    References:
        Vaswani et al., *Attention Is All You Need*, 2017, section 3.5.

    >>> print(time_embedding(0.0, 4, 10.0))
    [0. 0. 1. 1.]
    """
    angles = jnp.asarray(t) * (np.geomspace(1.0, 10.0, features // 2) / horizon)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])


class _Timed(nn.Module):
    """What potentials and fields have in common: a trunk that sees time and latent, and an exit."""

    width: int = 64
    depth: int = 2
    time_features: int = 16
    horizon: float = 10.0
    initial: str = "exact"

    def exit(self, t: Number, z: Latent, name: str, size: int) -> Float[Array, "size"]:
        """The outputs of a linear layer on the trunk's features, with the initial condition."""
        self._check(t, z)
        t = jnp.asarray(t, z.dtype)

        def dense(name):
            return nn.Dense(self.width, name=name)

        entry, exit_ = dense("latent"), nn.Dense(size, use_bias=False, name=name)
        hidden = [dense(f"hidden_{i}") for i in range(1, self.depth)]
        if self.initial != "static":
            time_in, time_out = dense("time_in"), dense("time_out")

        def features(t):
            h = entry(z)
            if self.initial != "static":
                e = time_embedding(t, self.time_features, self.horizon).astype(z.dtype)
                h = h + time_out(jnp.tanh(time_in(e)))
            h = jnp.tanh(h)
            for layer in hidden:
                h = jnp.tanh(layer(h))
            return h

        h = features(t)
        if self.initial == "exact":
            # At t = 0 both terms must be the same to the last bit, and so must their gradients:
            # hence not the constant 0, which is folded at compile time and rounds otherwise, and
            # hence no shared intermediate, whose cotangents would be summed in another order.
            h = h - features(0 * t)
        return exit_(h)

    def _check(self, t: Number, z: Latent) -> None:
        choose(f"initial condition of {type(self).__name__}", self.initial, _INITIALS)
        if self.width < 1 or self.depth < 1:
            raise ValueError(
                f"width and depth must be at least 1, got {self.width} and {self.depth}"
            )
        if self.time_features < 2 or self.time_features % 2:
            raise ValueError(f"time_features must be even and at least 2, got {self.time_features}")
        if not self.horizon > 0:
            raise ValueError(f"horizon must be positive, got {self.horizon}")
        if jnp.ndim(t) != 0 or jnp.ndim(z) != 1:
            raise ValueError(
                f"expected one time and one latent, got shapes {jnp.shape(t)} and {jnp.shape(z)}; "
                "use jax.vmap for a batch"
            )
        if not jnp.issubdtype(jnp.result_type(z), jnp.floating):
            raise ValueError(f"expected a latent of floats, got dtype {jnp.result_type(z)}")


class PotentialNet(_Timed):
    r"""A smooth network `(t, z) -> u`, for one time and one latent.

    $$f(t, z) = w^\top h_n, \qquad h_{i+1} = \tanh(W_i h_i + b_i), \qquad
      h_1 = \tanh\bigl(W_0 z + b_0 + e(t)\bigr)$$

    with `e` a small network on `time_embedding`. Every activation is smooth, since the equations
    differentiate it twice, and training once more.

    Args:
        width: the units of a hidden layer.
        depth: the number of hidden layers `n`, at least 1.
        time_features: the length of the embedding of time; even, at least 2.
        horizon: the longest time of interest.
        initial: `"exact"` for `u(t, z) = f(t, z) - f(0, z)`, for which $\nabla u(0, z) = 0$ holds
            exactly; `"free"` for `u = f`; `"static"` for an `f` that does not see time.

    Raises:
        ValueError: for an unknown `initial`, for sizes out of range, for an input that is not one
            time and one vector of floats.

    References:
        Song et al., *Latent Traversals in Generative Models as Potential Flows*, 2023, section 3
        (additive fusion of latent and time) and eq. (6) (initial condition).

    >>> import jax, jax.numpy as jnp
    >>> net, z = PotentialNet(width=8), jnp.ones(3)
    >>> params = net.init(jax.random.key(0), 0.0, z)
    >>> print(net.apply(params, 0.0, z), net.apply(params, 1.0, z).shape)
    0.0 ()
    """

    @nn.compact
    def __call__(self, t: Number, z: Latent) -> Scalar:
        return self.exit(t, z, "potential", 1)[0]


class FieldNet(_Timed):
    r"""A smooth vector field `(t, z) -> dz/dt` that is the gradient of nothing in particular.

    $$v(t, z) = W h_n(t, z)$$

    on the trunk of `PotentialNet`: what a flow is when no potential and no equation binds it.

    Args:
        width: the units of a hidden layer.
        depth: the number of hidden layers, at least 1.
        time_features: the length of the embedding of time; even, at least 2.
        horizon: the longest time of interest.
        initial: `"exact"` for a field that is zero at time 0; `"free"` for any; `"static"` for one
            that does not see time.

    Raises:
        ValueError: as `PotentialNet` does.

    References:
        Song et al., *Latent Traversals in Generative Models as Potential Flows*, 2023 (the
        baseline without potentials).

    >>> import jax, jax.numpy as jnp
    >>> net, z = FieldNet(width=8), jnp.ones(3)
    >>> params = net.init(jax.random.key(0), 0.0, z)
    >>> print(net.apply(params, 0.0, z), net.apply(params, 1.0, z).shape)
    [0. 0. 0.] (3,)
    """

    @nn.compact
    def __call__(self, t: Number, z: Latent) -> Latent:
        return self.exit(t, z, "field", z.shape[0])


class PolynomialPotential(nn.Module):
    r"""A potential without a network: its flow is a straight line, or a linear map.

    $$u(z) = w^\top z + \tfrac12 z^\top S z, \qquad \nabla u = w + S z$$

    with a symmetric `S`, and without it for degree 1: what any transport does, to tell from it
    what a potential that is learnt adds.

    Args:
        degree: 1 or 2.
        horizon: the longest time of interest; the potential does not see it.

    Raises:
        ValueError: for another degree.

    >>> import jax, jax.numpy as jnp
    >>> net, z = PolynomialPotential(degree=1), jnp.ones(3)
    >>> params = net.init(jax.random.key(0), 0.0, z)
    >>> slope = jax.grad(lambda z: net.apply(params, 0.0, z))
    >>> print(jnp.array_equal(slope(z), slope(2 * z)))
    True
    """

    degree: int = 2
    horizon: float = 1.0

    @nn.compact
    def __call__(self, t: Number, z: Latent) -> Scalar:
        del t
        if self.degree not in (1, 2):
            raise ValueError(f"degree must be 1 or 2, got {self.degree}")
        dim, small = z.shape[0], nn.initializers.normal(0.01)
        value: Scalar = jnp.dot(self.param("slope", small, (dim,)), z)
        if self.degree == 2:
            half = self.param("bend", small, (dim, dim))
            value += z @ (half + half.T) @ z / 4
        return value


def init_stack(net: nn.Module, key: Array, count: int, dim: int) -> PyTree:
    """Parameters of `count` independent potentials, stacked on a leading axis.

    Args:
        net: the network they share, `(t, z) -> scalar`.
        key: a random key.
        count: how many, at least 1.
        dim: the length of a latent, at least 1.

    Returns:
        The variables of `net`, each leaf with a leading axis of length `count`.

    Raises:
        ValueError: for a `count` or `dim` that is not a whole number of at least 1.

    >>> import jax
    >>> params = init_stack(PotentialNet(width=8), jax.random.key(0), count=5, dim=3)
    >>> params["params"]["latent"]["kernel"].shape
    (5, 3, 8)
    """
    for name, value in (("count", count), ("dim", dim)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    return jax.vmap(lambda key: net.init(key, jnp.zeros(()), jnp.zeros(dim)))(
        jax.random.split(key, count)
    )


def select(net: nn.Module, params: PyTree, k: ArrayLike) -> Potential:
    """One potential of a stack.

    Args:
        net: the network that the stack was made for.
        params: stacked parameters, as `init_stack` makes them.
        k: which one, from 0; may be traced, and is then not checked.

    Returns:
        `(t, z) -> scalar`.

    Raises:
        ValueError: for a `k` known to be out of range, or one that is not a whole number.

    >>> import jax, jax.numpy as jnp
    >>> net = PotentialNet(width=8)
    >>> u = select(net, init_stack(net, jax.random.key(0), count=5, dim=3), 4)
    >>> u(1.0, jnp.ones(3)).shape
    ()
    """
    chosen = member(params, k)

    def potential(t: Number, z: Latent) -> Any:
        return net.apply(chosen, t, z)

    return potential


def member(params: PyTree, k: ArrayLike) -> PyTree:
    """The parameters of one member of a stack.

    Args:
        params: stacked parameters, as `init_stack` makes them.
        k: which one, from 0; may be traced, and is then not checked.

    Returns:
        The `k`-th part of every leaf.

    Raises:
        ValueError: for a `k` known to be out of range, or one that is not a whole number.

    >>> import jax.numpy as jnp
    >>> print(member({"w": jnp.arange(3.0)}, 2))
    {'w': Array(2., dtype=float32)}
    """
    count = jax.tree.leaves(params)[0].shape[0]
    if jnp.ndim(k) != 0 or not jnp.issubdtype(jnp.result_type(k), jnp.integer):
        raise ValueError(f"k must be one whole number, got {k!r}")
    if not isinstance(k, jax.core.Tracer) and not 0 <= np.asarray(k) < count:
        raise ValueError(f"k must be in [0, {count}), got {k!r}")
    return jax.tree.map(lambda leaf: leaf[k], params)


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
