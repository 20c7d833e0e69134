"""Directions: one way through latent space that changes one factor, fitted to trajectories.

Two models of it, with the interface of a `Direction`: called on a latent, each gives the factor `t`
up to a constant; `latent_flows.directions.control` moves latents with either.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from latent_flows._descent import descend, settling
from latent_flows._norms import safe_sqrt
from latent_flows.directions.trajectories import Trajectories
from latent_flows.potentials import PotentialNet
from latent_flows.typing import Latent, Scalar

__all__ = [
    "Direction",
    "DirectionModel",
    "FittedDirection",
    "PotentialModel",
    "calibrate",
    "fit_direction",
    "fit_potential",
]

_FEWEST = 4  # trajectories left after dropping, so that some can be held out
_SLOPE_FLOOR = 1e-3  # least slope of g as a share of its mean, so that g has an inverse
_SPEED_LIMIT = 10.0  # how much faster a flow may be than where it was trained, typically


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class DirectionModel:
    r"""A straight direction and a monotone function along it, $t = g(\langle z, u \rangle)$.

    `g` is linear between its knots and goes on with the slopes of its ends beyond them.
    """

    direction: Latent
    """`u`, of unit length."""
    knots: Float[Array, "m"]
    """Projections `<z, u>`, increasing and equally spaced."""
    values: Float[Array, "m"]
    """`g` at the knots, strictly increasing."""
    limits: Float[Array, "2"]
    """The least and the greatest `t` of the latents that it was fitted to."""
    r2: Scalar
    """Of predicted against asked change of `t`, on trajectories that were held out."""
    train_r2: Scalar
    """The same on those it was fitted to."""

    @property
    def latent_dim(self) -> int:
        """Length of the latents."""
        return self.direction.shape[-1]

    def __call__(self, z: Latent) -> Scalar:
        return self.value(z @ self.direction)

    def value(self, projection: Float[Array, "*n"] | float) -> Float[Array, "*n"]:
        """`g`: the factor from the projection."""
        return _piecewise_linear(projection, self.knots, self.values)

    def inverse(self, t: Float[Array, "*n"] | float) -> Float[Array, "*n"]:
        """The projection at which `g` has a value, in closed form."""
        return _piecewise_linear(t, self.values, self.knots)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class PotentialModel:
    r"""A curved direction: the normalised gradient flow of a potential changes `t` at unit rate.

    $$t = u(z), \qquad \frac{dz}{dt} = \frac{\nabla u}{|\nabla u|^2}, \qquad
      u(z) = \langle a, z \rangle + f(z / s) + c$$
    """

    linear: Latent
    """`a`."""
    params: PyTree
    """Of the network `f`."""
    scale: Scalar
    """`s`, the root mean square of the latents that it was fitted to."""
    offset: Scalar
    """`c`, of no meaning until `calibrate` gives it one."""
    floor: Scalar
    """The least squared slope that the flow divides by: it bounds how fast latents move."""
    limits: Float[Array, "2"]
    """The least and the greatest `t` of the latents that it was fitted to."""
    r2: Scalar
    """Of predicted against asked change of `t`, on trajectories that were held out."""
    train_r2: Scalar
    """The same on those it was fitted to."""
    net: PotentialNet = field(metadata={"static": True})
    """`f`, a network that does not see time."""

    @property
    def latent_dim(self) -> int:
        """Length of the latents."""
        return self.linear.shape[-1]

    def __call__(self, z: Latent) -> Scalar:
        curved: Any = self.net.apply(self.params, 0.0, z / self.scale)
        return z @ self.linear + curved + self.offset


FittedDirection: TypeAlias = DirectionModel | PotentialModel
"""Either of them."""


@runtime_checkable
class Direction(Protocol):
    """What `latent_flows.directions.control` moves latents with: `z -> t`, up to a constant.

    A straight direction, a curved one, or `latent_flows.steering.SteeredModel`; how a latent moves
    by one of yours is said with `control.move.register`.
    """

    @property
    def limits(self) -> Float[Array, "2"]:
        """The least and the greatest `t` that it is known to be good for."""

    @property
    def latent_dim(self) -> int:
        """Length of the latents."""

    def __call__(self, z: Latent, /) -> Scalar:
        """The factor, up to a constant."""


@partial(
    jax.jit,
    static_argnames=(
        "knots",
        "span",
        "drop",
        "held_out",
        "anchor",
        "smoothness",
        "steps",
        "learning_rate",
    ),
)
def fit_direction(
    key: PRNGKeyArray,
    trajectories: Trajectories,
    *,
    knots: int = 21,
    span: tuple[float, float] | None = None,
    direction: Latent | None = None,
    drop: float = 0.1,
    held_out: float = 0.2,
    anchor: float = 0.1,
    smoothness: float = 1e-3,
    steps: int = 1000,
    learning_rate: float = 0.02,
) -> DirectionModel:
    r"""The straight direction along which a transformation happens.

    $$\min_{|u| = 1,\; g \text{ increasing}} \mathbb{E}
      \bigl(g(\langle z_t, u \rangle) - g(\langle z_0, u \rangle) - t\bigr)^2$$

    plus $w\, |u - u_0|^2$. The factor of a random latent is not known, only by how much it was
    changed; so `g` is known up to a constant, chosen such that the starts that are not dropped have
    `t = 0` on average. `g` begins as a straight line and `u` as `u_0`, the regression of
    `z_t - z_0` on `t`; then both descend together.

    The published objective is that of `w = 0`. It leaves open what `u` has of directions in which
    no trajectory moves, as long as `g` is straight, and settles that by noise; yet moving along `u`
    then changes what it should not. `w` holds on to the way that the trajectories went.

    Args:
        key: randomness of which trajectories are held out.
        trajectories: of one transformation. Their worst `drop` by error are left out.
        knots: of `g`, at least 2.
        span: projections `<z, u>` of the first and the last knot; by default what the
            trajectories reach.
        direction: `u`, if it is given and only `g` is to be fitted: baselines such as `sefa`. It is
            turned round where `t` falls along it.
        drop: share of the trajectories that is left out, in [0, 1).
        held_out: share of the others that the model is scored on, in (0, 1).
        anchor: `w`, at least 0.
        smoothness: weight of the squared changes in (the softplus inverse of) the slope of `g`,
            which decides where there are no data.
        steps: of Adam, all data at once.
        learning_rate: at the first step; it falls to 0 along a cosine.

    Returns:
        The model. Trajectories without movement give an `r2` of about 0, not NaN.

    Raises:
        ValueError: for shapes that do not fit, settings out of range, or fewer than 4 trajectories
            left after dropping.

    References:
        Plumerault, Le Borgne and Hudelot, *Controlling generative models with continuous factors
        of variations*, 2020, section 2.2.

    >>> import jax, jax.numpy as jnp
    >>> z0, ts = jax.random.normal(jax.random.key(0), (20, 3)), jnp.array([-1.0, 1.0])
    >>> zs = z0[:, None] + 2 * ts[:, None] * jnp.array([0.0, 1.0, 0.0])
    >>> found = Trajectories(z0, zs, ts, jnp.zeros((20, 2)))
    >>> model = fit_direction(jax.random.key(1), found, steps=100)
    >>> print(jnp.allclose(model.direction, jnp.eye(3)[1], atol=0.01), model.r2 > 0.99)
    True True
    """
    if not (anchor >= 0 and smoothness >= 0):
        raise ValueError(f"anchor and smoothness must be at least 0, got {anchor} and {smoothness}")
    if knots < 2:
        raise ValueError(f"knots must be at least 2, got {knots}")
    if span is not None and not span[0] < span[1]:
        raise ValueError(f"span must be two increasing numbers, got {span}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    train, test = _split(key, trajectories, drop, held_out)
    z0, zs, ts = train.z0, train.zs, train.ts
    moved = zs - z0[:, None]
    if direction is None:
        u0 = _unit(jnp.einsum("t,ntd->d", ts, moved))
    else:
        direction = jnp.asarray(direction)
        if direction.shape != z0.shape[1:]:
            raise ValueError(
                f"direction must have the shape of a latent, {z0.shape[1:]}, got {direction.shape}"
            )
        u0 = _unit(direction.astype(z0.dtype))
        along = jnp.einsum("t,ntd,d->", ts, moved, u0)
        u0 = jnp.where(along < 0, -u0, u0)

    def projections(u: Latent) -> Array:
        return jnp.concatenate([z0[:, None], zs], 1) @ u

    if span is None:
        reach = projections(u0)
        low = reach.min()
        high = jnp.maximum(reach.max(), low + 1e-3)
    else:
        low, high = jnp.asarray(span, z0.dtype)
    at = jnp.linspace(low, high, knots, dtype=z0.dtype)
    step_mean = _slope(moved @ u0, ts) * (high - low) / (knots - 1)

    def model(parameters: PyTree) -> tuple[Latent, Array]:
        # Increments are shares of the mean one, so that all parameters are of order one.
        rise = jax.nn.softplus(parameters["rises"]) + _SLOPE_FLOOR
        values = jnp.concatenate([jnp.zeros(1, rise.dtype), jnp.cumsum(rise)]) * step_mean
        u = u0 if direction is not None else _unit(parameters["direction"])
        return u, values

    def predicted(u: Latent, values: Array, z0: Array, zs: Array) -> Array:
        rises = jnp.diff(values)
        return _ramps(zs @ u, at) @ rises - (_ramps(z0 @ u, at) @ rises)[:, None]

    unit = jnp.maximum(jnp.mean(ts**2), jnp.finfo(ts.dtype).tiny)

    def objective(parameters: PyTree) -> Scalar:
        u, values = model(parameters)
        error = jnp.mean((predicted(u, values, z0, zs) - ts) ** 2) / unit
        bend = jnp.sum(jnp.diff(parameters["rises"]) ** 2) / knots
        return error + smoothness * bend + anchor * jnp.sum((u - u0) ** 2)

    start = {"direction": u0, "rises": jnp.full(knots - 1, jnp.log(jnp.expm1(1.0)), z0.dtype)}
    parameters = descend(settling(learning_rate, steps), objective, start, steps)
    u, values = model(parameters)
    starts = jnp.concatenate([z0, test.z0])
    values = values - jnp.mean(_piecewise_linear(starts @ u, at, values))

    def score(part: Trajectories) -> Scalar:
        return _r2(predicted(u, values, part.z0, part.zs), part.ts)

    seen = _piecewise_linear(projections(u), at, values)
    limits = jnp.stack([seen.min(), seen.max()])
    return DirectionModel(u, at, values, limits, score(test), score(train))


@partial(
    jax.jit,
    static_argnames=(
        "width",
        "depth",
        "flow_weight",
        "ridge",
        "drop",
        "held_out",
        "steps",
        "batch_size",
        "learning_rate",
    ),
)
def fit_potential(
    key: PRNGKeyArray,
    trajectories: Trajectories,
    *,
    width: int = 64,
    depth: int = 2,
    flow_weight: float = 0.0,
    ridge: float = 0.01,
    drop: float = 0.1,
    held_out: float = 0.2,
    steps: int = 1000,
    batch_size: int = 32,
    learning_rate: float = 5e-3,
) -> PotentialModel:
    r"""A potential whose gradient flow performs a transformation.

    $$\mathbb{E}\,\bigl(u(z_t) - u(z_0) - t\bigr)^2 / \mathbb{E}\,t^2
      + w\, \mathbb{E}\, |\dot z|^2\, \bigl|\nabla u - \dot z / |\dot z|^2\bigr|^2
      + \rho\, \mathbb{E}\, |\nabla u|^2 / |a|^2$$

    with $\dot z = dz/dt$ from neighbouring points of a trajectory. The second term vanishes where
    $\nabla u / |\nabla u|^2 = \dot z$, so that the flow follows the trajectory at its own pace;
    written this way both are quadratic in `u`. The flow is a gradient's: what a trajectory does
    that no potential can, is left out. The third term, in units of the slope `a` of `t` along the
    mean movement, decides what the others leave open: values along trajectories say little about
    the gradient across them, which would lead the flow away and slow it down.

    Args:
        key: randomness of the network, the batches, and of which trajectories are held out.
        trajectories: of one transformation. Their worst `drop` by error are left out.
        width: units of a hidden layer of the network.
        depth: its hidden layers.
        flow_weight: `w`, at least 0. Trajectories that also wander where the image does not change
            make it find too slow a flow.
        ridge: `rho`, at least 0.
        drop: share of the trajectories that is left out, in [0, 1).
        held_out: share of the others that the model is scored on, in (0, 1).
        steps: of Adam.
        batch_size: trajectories a step, drawn with replacement.
        learning_rate: at the first step; it falls to 0 along a cosine.

    Returns:
        The model.

    Raises:
        ValueError: for shapes that do not fit, settings out of range, or fewer than 4 trajectories
            left after dropping.

    >>> import jax, jax.numpy as jnp
    >>> z0, ts = jax.random.normal(jax.random.key(0), (20, 3)), jnp.array([-1.0, 1.0])
    >>> zs = z0[:, None] + 2 * ts[:, None] * jnp.array([0.0, 1.0, 0.0])
    >>> found = Trajectories(z0, zs, ts, jnp.zeros((20, 2)))
    >>> model = fit_potential(jax.random.key(1), found, width=8, steps=100)
    >>> print(model.r2 > 0.99)
    True
    """
    for name, weight in (("flow_weight", flow_weight), ("ridge", ridge)):
        if not weight >= 0:
            raise ValueError(f"{name} must be at least 0, got {weight}")
    if steps < 1 or batch_size < 1:
        raise ValueError(f"steps and batch_size must be at least 1, got {steps} and {batch_size}")
    split_key, net_key, batch_key = jax.random.split(key, 3)
    train, test = _split(split_key, trajectories, drop, held_out)
    ts = train.ts
    dtype = train.z0.dtype
    net = PotentialNet(width=width, depth=depth, initial="static")
    scale = jnp.sqrt(jnp.maximum(jnp.mean(train.zs**2), jnp.finfo(dtype).tiny))
    moved = train.zs - train.z0[:, None]
    u0 = _unit(jnp.einsum("t,ntd->d", ts, moved))
    zero = jnp.zeros((), dtype)
    start = {
        "linear": _slope(moved @ u0, ts) * u0,
        "params": jax.tree.map(
            lambda leaf: leaf.astype(dtype),
            net.init(net_key, 0.0, jnp.zeros(train.z0.shape[1:], dtype)),
        ),
    }

    def model(parameters: PyTree, **others: Any) -> PotentialModel:
        parts = {"floor": zero, "limits": jnp.zeros(2, dtype), "r2": zero, "train_r2": zero}
        return PotentialModel(
            **parameters, **{**parts, "offset": zero, **others}, scale=scale, net=net
        )

    def predicted(u: PotentialModel, part: Trajectories) -> Array:
        return jax.vmap(jax.vmap(u))(part.zs) - jax.vmap(u)(part.z0)[:, None]

    points, velocities = _velocities(train)
    unit = jnp.maximum(jnp.mean(ts**2), jnp.finfo(dtype).tiny)
    tiny = jnp.finfo(dtype).tiny

    def objective(parameters: PyTree, key: PRNGKeyArray) -> Scalar:
        chosen = jax.random.randint(key, (batch_size,), 0, len(train.z0))
        u = model(parameters)
        batch = train._replace(z0=train.z0[chosen], zs=train.zs[chosen])
        error = jnp.mean((predicted(u, batch) - ts) ** 2) / unit
        climb = jax.vmap(jax.vmap(jax.grad(u)))(points[chosen])
        velocity = velocities[chosen]
        speed = jnp.sqrt(jnp.maximum(jnp.sum(velocity**2, -1, keepdims=True), tiny))
        flow = jnp.mean(jnp.sum((speed * climb - velocity / speed) ** 2, -1))
        steepness = jnp.mean(jnp.sum(climb**2, -1)) / gentle
        return error + flow_weight * flow + ridge * steepness

    gentle = jnp.sum(start["linear"] ** 2)
    parameters = descend(settling(learning_rate, steps), objective, start, steps, batch_key)
    raw = model(parameters)
    offset = -jnp.mean(jax.vmap(raw)(jnp.concatenate([train.z0, test.z0])))
    seen = jax.vmap(jax.vmap(raw))(jnp.concatenate([train.z0[:, None], train.zs], 1)) + offset
    slopes = jnp.sum(jax.vmap(jax.vmap(jax.grad(raw)))(points) ** 2, -1)
    return model(
        parameters,
        offset=offset,
        floor=jnp.maximum(jnp.median(slopes) / _SPEED_LIMIT**2, tiny),
        limits=jnp.stack([seen.min(), seen.max()]),
        r2=_r2(predicted(raw, test), ts),
        train_r2=_r2(predicted(raw, train), ts),
    )


def calibrate(
    model: FittedDirection, zs: Float[Array, "n d"], measured: Float[Array, "n"]
) -> FittedDirection:
    r"""The same model, with the constant that makes its `t` agree with measurements on average.

    $$\frac1n \sum_i \bigl(t(z_i) - m_i\bigr) = 0$$

    After it, `place` sets the factor itself and not only a change of it. The measurements must be
    in the units of `t`, such as positions in image widths for `translate_x`.

    Args:
        model: of either kind.
        zs: latents.
        measured: the factor of each of their images.

    Returns:
        The model, shifted.

    Raises:
        ValueError: for shapes that do not fit.

    >>> import jax.numpy as jnp
    >>> line = jnp.array([0.0, 1.0])
    >>> model = DirectionModel(jnp.array([1.0, 0.0]), line, line, line, jnp.ones(()), jnp.ones(()))
    >>> print(calibrate(model, jnp.zeros((3, 2)), jnp.full(3, 0.5))(jnp.zeros(2)))
    0.5
    """
    zs, measured = jnp.asarray(zs), jnp.asarray(measured)
    if zs.ndim != 2 or measured.shape != zs.shape[:1] or not len(zs):
        raise ValueError(
            f"expected latents [n, d] and n measurements, got shapes {zs.shape} and "
            f"{measured.shape}"
        )
    constant = jnp.mean(measured - jax.vmap(model)(zs)).astype(model.limits.dtype)
    limits = model.limits + constant
    if isinstance(model, DirectionModel):
        return replace(model, values=model.values + constant, limits=limits)
    return replace(model, offset=model.offset + constant, limits=limits)


def _piecewise_linear(x: ArrayLike, at: Array, values: Array) -> Array:
    """Linear between the points, and beyond them with the slopes of the ends."""
    return jnp.interp(x, at, values, left="extrapolate", right="extrapolate")


def _ramps(x: Array, at: Float[Array, "m"]) -> Array:
    """The piecewise linear functions that rise by one from each point to the next, `[..., m - 1]`.

    The first and the last go on beyond the ends. Any piecewise linear function is a constant and a
    sum of these; unlike a look-up it differentiates to products, which matters in a fit.
    """
    share = (x[..., None] - at[:-1]) / jnp.diff(at)
    first, last = jnp.arange(len(at) - 1) == 0, jnp.arange(len(at) - 1) == len(at) - 2
    return jnp.clip(share, jnp.where(first, -jnp.inf, 0), jnp.where(last, jnp.inf, 1))


def _unit(vector: Latent) -> Latent:
    """The vector with length one; the first axis where it is zero."""
    square = jnp.sum(vector**2)
    length = jnp.sqrt(jnp.where(square > 0, square, 1))
    first = jnp.zeros_like(vector).at[0].set(1)
    return jnp.where(square > 0, vector / length, first)


def _slope(along: Float[Array, "n T"], ts: Float[Array, "T"]) -> Scalar:
    """The slope of `t` against movement, by least squares through the origin, made positive."""
    tiny = jnp.finfo(ts.dtype).tiny
    slope = jnp.sum(along * ts) / jnp.maximum(jnp.sum(along**2), tiny)
    return jnp.where(slope > 0, slope, safe_sqrt(jnp.mean(ts**2)) + tiny)


def _r2(predicted: Float[Array, "n T"], ts: Float[Array, "T"]) -> Scalar:
    """Share of the variance of the asked changes that is predicted."""
    asked = jnp.broadcast_to(ts, predicted.shape)
    # One value of t alone has no variance; then the error is judged against zero change.
    centre = asked.mean() if ts.shape[0] > 1 else 0.0
    spread = jnp.maximum(jnp.sum((asked - centre) ** 2), jnp.finfo(ts.dtype).tiny)
    return 1 - jnp.sum((predicted - asked) ** 2) / spread


def _split(
    key: PRNGKeyArray, trajectories: Trajectories, drop: float, held_out: float
) -> tuple[Trajectories, Trajectories]:
    """Trajectories to learn from and to be scored on, without the worst of them."""
    z0, zs, ts, errors = map(jnp.asarray, trajectories)
    if (
        z0.ndim != 2
        or ts.ndim != 1
        or zs.shape != (z0.shape[0], ts.shape[0], z0.shape[1])
        or errors.shape != zs.shape[:2]
    ):
        raise ValueError(
            "expected trajectories of one transformation, with shapes z0 [n, d], zs [n, T, d], "
            f"ts [T] and errors [n, T], got {z0.shape}, {zs.shape}, {ts.shape} and {errors.shape}; "
            "use jax.vmap for several"
        )
    if not 0 <= drop < 1 or not 0 < held_out < 1:
        raise ValueError(
            f"drop must lie in [0, 1) and held_out in (0, 1), got {drop} and {held_out}"
        )
    count = len(z0)
    kept = count - int(drop * count)
    if kept < _FEWEST:
        raise ValueError(
            f"too few trajectories: {count}, of which {kept} are left after dropping "
            f"{drop:.0%}; at least {_FEWEST} are needed"
        )
    score = jnp.mean(errors, 1)
    best = jnp.argsort(jnp.where(jnp.isfinite(score), score, jnp.inf))[:kept]
    best = jax.random.permutation(key, best)
    held = min(max(round(held_out * kept), 1), kept - 2)

    def part(which: Array) -> Trajectories:
        return Trajectories(z0[which], zs[which], ts, errors[which])

    return part(best[held:]), part(best[:held])


def _velocities(part: Trajectories) -> tuple[Float[Array, "n T d"], Float[Array, "n T d"]]:
    """Midpoints between neighbours of each trajectory, its start among them, and `dz/dt` there."""
    times = jnp.concatenate([jnp.zeros(1, part.ts.dtype), part.ts])
    order = jnp.argsort(times)
    times = times[order]
    path = jnp.concatenate([part.z0[:, None], part.zs], 1)[:, order]
    elapsed = jnp.diff(times)[:, None]
    # Where t = 0 is one of the times it is there twice, with nothing between.
    real = elapsed > 0
    velocity = jnp.where(real, jnp.diff(path, axis=1) / jnp.where(real, elapsed, 1), 0)
    return (path[:, 1:] + path[:, :-1]) / 2, velocity
