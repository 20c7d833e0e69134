"""Families of traversals: K ways to move a latent, whatever they are made of, as `(k, t, z) -> z`.

A family is a *field* `(parameters, t, z) -> dz/dt` and parameters stacked over its members: the
gradient of a potential, a constant direction, the warp of a mixture of kernels, a free network.
`motion` turns any of them into the one interface.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, ArrayLike, Float, PyTree

from latent_flows import flows, potentials
from latent_flows.calculus import Number
from latent_flows.coordinates import AffineCoordinates
from latent_flows.typing import Field, Latent, Potential, Scalar, VectorField

__all__ = [
    "Line",
    "Motion",
    "Solve",
    "Warp",
    "adaptive",
    "climbing",
    "constant",
    "following",
    "mixture",
    "motion",
    "orthogonal",
]

Motion: TypeAlias = Callable[[ArrayLike, ArrayLike, Latent], Latent]
"""`(k, t, z) -> z`: where a latent gets to, along the k-th of several ways."""

Solve: TypeAlias = Callable[[VectorField, Latent], Latent]
"""The end of a path over times 0 to 1."""

START_SPEED = 0.1
"""Latent length per unit time at which learnt lines and warps set out."""


FLAT = 1e-6
"""Length of a gradient below which it counts as none."""


# --- fields ---


def constant(direction: Latent, t: Number, z: Latent) -> Latent:
    """The field of a straight line, whose parameters are its direction.

    Args:
        direction: the velocity, the field's parameters.
        t: a time, of no account.
        z: a latent, of no account.

    Returns:
        The direction.

    >>> print(constant(jnp.array([1.0, 2.0]), 0.0, jnp.zeros(2)))
    [1. 2.]
    """
    del t, z
    return direction


def following(net: nn.Module) -> Field:
    """The field that a network of time and latent gives itself.

    Args:
        net: a network `(t, z) -> dz/dt`, such as `potentials.FieldNet`.

    Returns:
        The field, `(parameters, t, z) -> dz/dt`.

    >>> net, z = Line(), jnp.zeros(3)
    >>> params = net.init(jax.random.key(0), 0.0, z)
    >>> print(jnp.linalg.norm(following(net)(params, 0.0, z)).round(3))
    0.1
    """
    return lambda params, t, z: jnp.asarray(net.apply(params, t, z))


def climbing(net: nn.Module, climb: Callable[[Potential], VectorField] = flows.gradient) -> Field:
    """The field that climbs the potential that a network gives.

    Args:
        net: `(t, z) -> scalar`.
        climb: from a potential to a field, for instance `flows.gradient` or
            `partial(flows.natural_gradient, metric=metric)`.

    Returns:
        The field, `(parameters, t, z) -> dz/dt`.

    >>> net, z = potentials.PotentialNet(width=8), jnp.ones(3)
    >>> params = net.init(jax.random.key(0), 0.0, z)
    >>> print(climbing(net)(params, 0.0, z))
    [0. 0. 0.]
    """

    def field(params: PyTree, t: Number, z: Latent) -> Latent:
        apply: Any = net.apply  # flax types its result as a pair as well
        climbed: Any = climb(partial(apply, params))  # Python's numbers are times too
        return climbed(t, z)

    return field


class Line(nn.Module):
    r"""A learnt constant direction: `v(t, z) = s a / |a|`, with `s > 0` learnt too.

    The linear directions of Voynov and Babenko, *Unsupervised Discovery of Interpretable
    Directions in the GAN Latent Space*, 2020, section 3, with columns of unit length; `orthogonal`
    makes those of a stack orthogonal. There the length of a step is drawn; here it is learnt.

    >>> net = Line()
    >>> params = net.init(jax.random.key(0), 0.0, jnp.zeros(4))
    >>> bool((net.apply(params, 0.0, jnp.zeros(4)) == net.apply(params, 3.0, jnp.ones(4))).all())
    True
    """

    @nn.compact
    def __call__(self, t: Number, z: Latent) -> Latent:
        del t
        direction = self.param("direction", nn.initializers.normal(1.0), z.shape, z.dtype)
        return _unit(direction) * _speed(self, z)


class Warp(nn.Module):
    r"""A learnt warp of the latent space by a mixture of Gaussian kernels in opposite pairs.

    $$v(z) = s\, \frac{\nabla u(z)}{|\nabla u(z)|}, \qquad
      u(z) = \sum_{i=1}^{n} \alpha_i \left(e^{-\gamma_i |z - q_i^+|^2}
             - e^{-\gamma_i' |z - q_i^-|^2}\right)$$

    Each pair sets out as two opposite points. The gradient is taken by JAX. Where it vanishes, the
    field is zero.

    Args:
        pairs: the number `n` of pairs of supports.

    Raises:
        ValueError: for less than one pair.

    References:
        Tzelepis, Tzimiropoulos and Patras, *WarpedGANSpace: Finding Non-linear RBF Paths in GAN
        Latent Space*, 2021, section 3; there the length of a step is drawn, not learnt.

    >>> net, z = Warp(pairs=4), jnp.ones(3)
    >>> params = net.init(jax.random.key(0), 0.0, z)
    >>> print(jnp.linalg.norm(net.apply(params, 0.0, z)).round(3))
    0.1
    """

    pairs: int = 16

    @nn.compact
    def __call__(self, t: Number, z: Latent) -> Latent:
        del t
        if self.pairs < 1:
            raise ValueError(f"pairs must be at least 1, got {self.pairs}")

        def opposite(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
            first = jax.random.normal(key, (self.pairs, shape[-1]), dtype)
            return jnp.concatenate([first, -first])

        # Kernels as wide as a standard normal code is long.
        narrow = nn.initializers.constant(-jnp.log(float(len(z))))
        supports = self.param("supports", opposite, (2 * self.pairs, len(z)), z.dtype)
        log_gammas = self.param("log_gammas", narrow, (2 * self.pairs,), z.dtype)
        alphas = self.param("alphas", nn.initializers.normal(1.0), (self.pairs,), z.dtype)
        signed = jnp.concatenate([alphas, -alphas])
        gammas = jnp.exp(log_gammas)
        # Far from all supports every kernel underflows; one factor for all turns no gradient.
        nearest = jnp.min(gammas * jnp.sum((z - supports) ** 2, axis=-1))
        slope = jax.grad(partial(mixture, supports, signed, gammas))(
            z, offset=jax.lax.stop_gradient(nearest)
        )
        return _unit(slope) * _speed(self, z)


def mixture(
    supports: Float[Array, "n d"],
    alphas: Float[Array, "n"],
    gammas: Float[Array, "n"],
    z: Latent,
    offset: Number = 0.0,
) -> Scalar:
    r"""A weighted sum of Gaussian kernels, $\sum_i \alpha_i \exp(o - \gamma_i |z - q_i|^2)$.

    Args:
        supports: the centres `q_i`.
        alphas: their weights.
        gammas: their inverse squared widths.
        z: a latent.
        offset: `o`, against underflow.

    Returns:
        The sum.

    >>> print(mixture(jnp.zeros((1, 2)), jnp.array([3.0]), jnp.ones(1), jnp.zeros(2)))
    3.0
    """
    return alphas @ jnp.exp(offset - gammas * jnp.sum((z - supports) ** 2, axis=-1))


def orthogonal(params: PyTree) -> PyTree:
    """The parameters of a stack of `Line`, with directions that are orthogonal to each other.

    The first keeps its direction, each other the part of its own that no earlier one has.

    Args:
        params: of `potentials.init_stack`, not more lines than the latent has dimensions.

    Returns:
        Parameters of the same structure.

    Raises:
        ValueError: for more directions than dimensions.

    >>> params = potentials.init_stack(Line(), jax.random.key(0), 2, 3)
    >>> a, b = orthogonal(params)["params"]["direction"]
    >>> bool(jnp.abs(a @ b) < 1e-6)
    True
    """
    rows = params["params"]["direction"]
    count, dim = rows.shape
    if count > dim:
        raise ValueError(f"{count} directions cannot be orthogonal in {dim} dimensions")
    basis, triangle = jnp.linalg.qr(rows.T)
    # The factorisation leaves signs open.
    signs = jnp.where(jnp.diagonal(triangle) < 0, -1.0, 1.0)
    return {**params, "params": {**params["params"], "direction": (basis * signs).T}}


def _unit(vector: Latent) -> Latent:
    """A vector of unit length, or zero; differentiable at zero as well."""
    square = vector @ vector
    # Below this its direction is noise, and the derivative of the direction has no bound.
    moves = square > FLAT**2
    return jnp.where(moves, vector, 0.0) * jax.lax.rsqrt(jnp.where(moves, square, 1.0))


def _speed(module: nn.Module, z: Latent) -> Scalar:
    at_start = nn.initializers.constant(jnp.log(START_SPEED))
    return jnp.exp(module.param("log_speed", at_start, (), z.dtype))


# --- the one interface ---


def adaptive(field: VectorField, z: Latent) -> Latent:
    """The end of a path over times 0 to 1 by `flows.integrate`; not finite where that fails.

    Args:
        field: `(t, z) -> dz/dt`.
        z: where the path starts.

    Returns:
        The latent where it ends.
    """
    return flows.integrate(field, z, jnp.array([0.0, 1.0])).zs[-1]


def motion(
    field: Field, params: PyTree, frame: AffineCoordinates | None = None, *, solve: Solve = adaptive
) -> Motion:
    r"""A family as a map of the generator's own latent space.

    With `z = origin + B s` in the frame's coordinates,

    $$\frac{ds}{d\tau} = \operatorname{sign}(t)\, v_k(\tau, s), \quad 0 \le \tau \le |t|,
      \qquad z \mapsto z + B\, \bigl(s(|t|) - s(0)\bigr)$$

    so that a negative time follows the reversed flow, and what of `z` lies outside the frame's
    span stays. Directions that need no learning are the family `motion(constant, directions)`.

    Args:
        field: `(parameters, t, s) -> ds/dt`.
        params: parameters of the members, stacked.
        frame: coordinates that the field is a function of; the latent's own by default.
        solve: how a path is followed.

    Returns:
        `(k, t, z) -> z`, for `k` from 0, which may be traced.

    Raises:
        ValueError: when called, for a `z` that is not one vector of the length of the frame's
            latents, or a `k` known to be out of range.

    References:
        Song et al., *Latent Traversals in Generative Models as Potential Flows*, 2023, eq. (4).

    >>> move = motion(constant, jnp.array([[1.0, 0.0], [0.0, 2.0]]))
    >>> print(move(1, 0.5, jnp.zeros(2)).round(3), move(1, -0.5, jnp.zeros(2)).round(3))
    [0. 1.] [ 0. -1.]
    """
    # Found here and not at every call: platforms differ in how they decompose a matrix.
    inverse = None if frame is None else jnp.linalg.pinv(frame.basis)

    def move(k: ArrayLike, t: ArrayLike, z: Latent) -> Latent:
        size = None if frame is None else frame.origin.shape[0]
        if jnp.ndim(z) != 1 or (size is not None and len(z) != size):
            raise ValueError(f"z must have shape [{size or 'd'}], got {list(jnp.shape(z))}")
        chosen = potentials.member(params, k)
        t = jnp.asarray(t, z.dtype)

        def whole(share: Scalar, s: Latent) -> Latent:
            # In units of the whole path's time.
            return t * field(chosen, share * jnp.abs(t), s)

        if frame is None or inverse is None:
            return solve(whole, z)
        start = inverse @ (z - frame.origin)
        return z + frame.basis @ (solve(whole, start) - start)

    return move
