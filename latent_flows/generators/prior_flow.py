"""A prior that fits: a flow from noise to the codes of an encoder, with its inverse and density."""

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from latent_flows._descent import descend
from latent_flows._normal import log_normal
from latent_flows.generators._flow_map import check_steps, followed, stepping
from latent_flows.generators._mixture import GaussianMixture, best_mixture, mixture_velocity
from latent_flows.generators.frozen import FrozenGenerator, freeze, replace_prior
from latent_flows.typing import Latent, Scalar

__all__ = [
    "PriorFlow",
    "VelocityNet",
    "blend_mixture",
    "draw_codes",
    "fit_prior_flow",
    "held_out",
    "init_prior_flow",
    "prior_flow_loss",
    "through_noise",
    "with_prior",
]

HELD_DRAWS = 32
"""Places on the path to each held-out code, at which velocities are compared."""
LEAST, MOST_HELD = 500, 5000
"""Codes of which some are held out, and the most of them."""
SMALLEST = 1e-6
"""Variance of the least variable combination of standardised codes that has a density."""


class VelocityNet(nn.Module):
    """A residual network `(t, y) -> dy/dt`, zero before it is trained.

    >>> import jax, jax.numpy as jnp
    >>> net = VelocityNet(width=8, depth=1)
    >>> params = net.init(jax.random.key(0), 0.0, jnp.zeros(3))
    >>> net.apply(params, 0.5, jnp.ones(3)).tolist()
    [0.0, 0.0, 0.0]
    """

    width: int = 64
    """Units of a layer."""
    depth: int = 3
    """Residual blocks, of two layers each."""

    @nn.compact
    def __call__(self, t: Scalar | float, y: Latent) -> Latent:
        angles = jnp.asarray(t, y.dtype) * (math.pi / 2) * jnp.array([1, 2, 4], y.dtype)
        times = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)])
        h = nn.Dense(self.width)(jnp.concatenate([y, times]))
        for _ in range(self.depth):
            inner = nn.silu(nn.Dense(self.width)(nn.silu(h)))
            h = h + nn.Dense(self.width)(inner)
        return nn.Dense(y.shape[0], kernel_init=nn.initializers.zeros)(nn.silu(h))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class PriorFlow:
    r"""A prior as a flow: standard normal noise, carried to codes by a velocity field.

    $$z = m + L\, y(1), \qquad \dot y = v(t, y), \qquad y(0) \sim N(0, I)$$

    `m` and `L L'` are mean and covariance of the codes, so that the flow has only to learn what is
    not Gaussian in them. The velocity is a weighted mean of a network's and of that of a mixture of
    Gaussians, see `blend_mixture`. It is a pytree; `fit_prior_flow` makes one.
    """

    params: PyTree
    """Of the velocity field."""
    mean: Float[Array, "d"]
    """Mean of the codes."""
    scale: Float[Array, "d d"]
    """Lower-triangular factor of their covariance."""
    net: VelocityNet = field(metadata={"static": True})
    """The velocity field, from noise at time 0 to standardised codes at time 1."""
    steps: int | None = field(default=16, metadata={"static": True})
    """Equal steps of the solver; None: it chooses them."""
    solver: str = field(default="tsit5", metadata={"static": True})
    """Name of the solver, see `flows.solver`."""
    mixture: GaussianMixture | None = None
    """Of standardised codes; None: the velocity is the network's alone."""
    share: Float[Array, ""] | None = None
    """Of the network in the velocity, from 0 to 1, the rest being that of the mixture."""

    def velocity(self, t: Scalar, y: Latent) -> Latent:
        """The velocity field, of standardised codes.

        Args:
            t: from 0, noise, to 1.
            y: a point on the way.

        Returns:
            Its velocity.
        """
        apply: Any = self.net.apply  # flax types its result as a pair as well
        learnt = apply(self.params, t, y)
        if self.mixture is None or self.share is None:
            return learnt
        known = mixture_velocity(self.mixture, t, y)
        return known + self.share * (learnt - known)

    def standardised(self, z: Latent) -> Latent:
        """A code as the flow has it at time 1.

        Args:
            z: a code.

        Returns:
            `y`, with `z = m + L y`.
        """
        return solve_triangular(self.scale, z - self.mean, lower=True)

    def to_code(self, noise: Latent) -> Latent:
        """The code that noise is carried to.

        Args:
            noise: `[d]`.

        Returns:
            The code, `[d]`.
        """
        return self.mean + self.scale @ self._followed(noise, 0.0, 1.0)

    def to_noise(self, z: Latent) -> Latent:
        """The noise that is carried to a code, as exactly as the solver's steps allow.

        Args:
            z: a code, `[d]`.

        Returns:
            The noise, `[d]`.
        """
        return self._followed(self.standardised(z), 1.0, 0.0)

    def sample(self, key: PRNGKeyArray) -> Latent:
        """A draw of the prior.

        Args:
            key: a random key.

        Returns:
            A code.
        """
        return self.to_code(jax.random.normal(key, self.mean.shape, self.mean.dtype))

    def log_prob(self, z: Latent) -> Scalar:
        """The log-density of the prior, by the change of variables along the flow.

        Args:
            z: a code, `[d]`.

        Returns:
            The log-density, in nats.
        """
        from latent_flows import flows

        y = self.standardised(z)
        along = stepping(1.0, 0.0, self.steps, self.solver)
        volume = jnp.sum(jnp.log(jnp.diagonal(self.scale)))
        return flows.log_density(self.velocity, log_normal, y, 0.0, 1.0, **along) - volume

    def _followed(self, y: Latent, t0: float, t1: float) -> Latent:
        return followed(self.velocity, y, t0, t1, self.steps, self.solver)


def init_prior_flow(
    key: PRNGKeyArray,
    codes: ArrayLike,
    *,
    width: int = 64,
    depth: int = 3,
    steps: int | None = 16,
    solver: str = "tsit5",
) -> PriorFlow:
    """The flow before it is trained: the Gaussian of the mean and covariance of codes.

    Args:
        key: of the parameters.
        codes: `[n, d]`, one a row, concrete.
        width: units of a layer of the velocity field.
        depth: its residual blocks.
        steps: of the solver, all equal; None: it chooses them.
        solver: its name, see `flows.solver`.

    Returns:
        The flow.

    Raises:
        ValueError: codes that are not a finite matrix, that do not vary in every direction (such
            codes have no density), or a setting out of range.

    >>> codes = jax.random.normal(jax.random.key(0), (1000, 2)) * jnp.array([1.0, 3.0]) + 5.0
    >>> flow = init_prior_flow(jax.random.key(1), codes, steps=1)
    >>> flow.sample(jax.random.key(2)).shape, round(float(flow.log_prob(jnp.full(2, 5.0))), 1)
    ((2,), -2.9)
    """
    if min(width, depth) < 1:
        raise ValueError(f"width and depth must be at least 1, got {width} and {depth}")
    check_steps(steps, solver)
    points = np.asarray(codes)
    if points.ndim != 2 or 0 in points.shape or not np.isfinite(points).all():
        raise ValueError(f"codes must be finite and of shape [n, d], got shape {points.shape}")
    dim, dtype = points.shape[1], jnp.result_type(jnp.asarray(points), float)
    net = VelocityNet(width, depth)
    return PriorFlow(
        params=net.init(key, 0.0, jnp.zeros(dim, dtype)),
        mean=jnp.asarray(points.mean(0, np.float64), dtype),
        scale=jnp.asarray(_factor(points.astype(np.float64)), dtype),
        net=net,
        steps=steps,
        solver=solver,
    )


def _factor(codes: np.ndarray) -> np.ndarray:
    """The lower-triangular factor of the covariance.

    Raises:
        ValueError: some direction in which codes do not vary.
    """
    std = codes.std(0)
    # Rounding leaves equal numbers a deviation that is not quite zero.
    flat = std <= 1e-6 * np.abs(codes).max(0)
    if flat.any():
        raise ValueError(
            f"the codes do not vary in dimension {', '.join(map(str, np.flatnonzero(flat)[:10]))}, "
            "so they have no density: leave out what is constant, or draw codes from a posterior "
            "that has a deviation"
        )
    centred = (codes - codes.mean(0)) / std
    correlation = centred.T @ centred / len(codes)
    if np.linalg.eigvalsh(correlation)[0] < SMALLEST:
        raise ValueError(
            f"{len(codes)} codes of {codes.shape[1]} numbers do not vary in every direction, so "
            "they have no density: give more of them, or leave out numbers that follow from others"
        )
    return std[:, None] * np.linalg.cholesky(correlation)


def prior_flow_loss(flow: PriorFlow, key: PRNGKeyArray, codes: Float[Array, "n d"]) -> Scalar:
    """What a prior flow minimises: the flow-matching loss of its velocity field.

    Args:
        flow: of whose leaves the `params` are to be learnt.
        key: randomness of times and noise.
        codes: a batch.

    Returns:
        The loss, see `objectives.flow_matching.flow_matching_loss`.
    """
    from latent_flows.objectives.flow_matching import flow_matching_loss

    return flow_matching_loss(flow.velocity, key, jax.vmap(flow.standardised)(codes))


def fit_prior_flow(
    key: PRNGKeyArray,
    codes: ArrayLike,
    *,
    std: ArrayLike | None = None,
    width: int = 64,
    depth: int = 3,
    steps: int = 10_000,
    batch_size: int = 256,
    learning_rate: float = 4e-3,
    ode_steps: int | None = 16,
    solver: str = "tsit5",
) -> PriorFlow:
    r"""Learns the distribution of codes by flow matching.

    The codes of an encoder rarely fill the prior that it was trained with: draws of `N(0, I)` fall
    between them, where the decoder has seen nothing. The flow's draws are distributed as codes are.

    Of 500 codes and more a tenth, at most 5000, are held out of the training. They say how much of
    the velocity is the network's and how much that of a mixture of Gaussians, see `blend_mixture`.

    Args:
        key: all randomness.
        codes: `[n, d]`, one a row, concrete: an encoder's means, or any points.
        std: the deviations of their posteriors, of the same shape; a code is drawn anew from its
            posterior at every step. Without it the codes are taken as they are.
        width: units of a layer of the velocity field.
        depth: its residual blocks.
        steps: of the optimiser, Adam with a step size that falls along a cosine.
        batch_size: codes a step.
        learning_rate: the largest step size.
        ode_steps: equal steps of the solver from noise to codes; None: it chooses them.
        solver: its name, see `flows.solver`.

    Returns:
        The flow.

    Raises:
        ValueError: as `init_prior_flow`, deviations of another shape or that are not positive, or
            no step.

    References:
        Lipman et al., *Flow Matching for Generative Modeling*, 2023; Albergo and Vanden-Eijnden,
        *Building Normalizing Flows with Stochastic Interpolants*, 2023; on the codes of a trained
        autoencoder: Dai and Wipf, *Diagnosing and Enhancing VAE Models*, 2019, section 4.

    >>> codes = jnp.array([[-1.0], [1.0]])
    >>> small = dict(width=16, depth=1, steps=1000, batch_size=32, ode_steps=8)
    >>> flow = fit_prior_flow(jax.random.key(0), codes, std=0.1 + 0 * codes, **small)
    >>> draws = jax.vmap(flow.sample)(jax.random.split(jax.random.key(1), 100))
    >>> bool((jnp.abs(draws) > 0.5).mean() > 0.9)
    True
    """
    if min(steps, batch_size) < 1 or not learning_rate > 0:
        raise ValueError(
            "steps and batch_size must be at least 1 and learning_rate positive, got "
            f"{steps}, {batch_size} and {learning_rate}"
        )
    means = jnp.asarray(codes, jnp.result_type(jnp.asarray(codes), float))
    stds = None if std is None else jnp.asarray(std, means.dtype)
    if stds is not None and (stds.shape != means.shape or not bool((stds > 0).all())):
        raise ValueError(
            f"std must be positive, one number for each of the codes of shape {means.shape}, got "
            f"shape {stds.shape}"
        )
    init_key, spread_key, train_key = jax.random.split(key, 3)
    spread = draw_codes(spread_key, means, stds)
    held = held_out(len(means))
    order = jax.random.permutation(jax.random.fold_in(spread_key, 1), len(means))
    means, stds, spread = means[order], None if stds is None else stds[order], spread[order]
    flow = init_prior_flow(
        init_key, spread, width=width, depth=depth, steps=ode_steps, solver=solver
    )
    rate = optax.cosine_decay_schedule(learning_rate, steps)
    method = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    seen = None if stds is None else stds[held:]
    params = _trained(method, batch_size, steps, flow, means[held:], seen, train_key)
    flow = replace(flow, params=params)
    if not held:
        return flow
    return blend_mixture(flow, jax.random.fold_in(train_key, 1), spread[held:], spread[:held])


@partial(jax.jit, static_argnums=(0, 1, 2))
def _trained(
    method: optax.GradientTransformation,
    batch_size: int,
    steps: int,
    flow: PriorFlow,
    means: Array,
    stds: Array | None,
    key: PRNGKeyArray,
) -> PyTree:
    def loss(params: PyTree, key: PRNGKeyArray) -> Scalar:
        rows_key, code_key, loss_key = jax.random.split(key, 3)
        rows = jax.random.randint(rows_key, (batch_size,), 0, len(means))
        codes = draw_codes(code_key, means[rows], None if stds is None else stds[rows])
        return prior_flow_loss(replace(flow, params=params), loss_key, codes)

    return descend(method, loss, flow.params, steps, key)


def held_out(count: int, least: int = 0) -> int:
    """How many codes, of so many, are not trained on: none of few.

    Args:
        count: of all codes.
        least: how many must be left.

    Returns:
        The number.

    >>> held_out(400), held_out(20_000), held_out(1_000_000)
    (0, 2000, 5000)
    """
    held = min(count // 10, MOST_HELD) if count >= LEAST else 0
    return held if count - held >= least else 0


def blend_mixture(
    flow: PriorFlow,
    key: PRNGKeyArray,
    codes: Float[Array, "n d"],
    held: Float[Array, "m d"],
) -> PriorFlow:
    r"""Takes as much of the closed form of a mixture of Gaussians as is true of held-out codes.

    $$v = v_{mix} + s\, (v_{net} - v_{mix}), \qquad
      s = \arg\min_{0 \le s \le 1} E \| v - \dot x_t \|^2$$

    The error of a network that is trained on `n` codes is mostly what it learns of their chance,
    and a mixture has far fewer numbers to learn. Where codes are clusters, `s` is small; where they
    are not, it is 1 and the flow stays as it is. Components are as many as held-out codes are
    likeliest in.

    Args:
        flow: after its training.
        key: all randomness.
        codes: that it was trained on.
        held: others of the same distribution, of which `s` is found.

    Returns:
        The flow.

    References:
        Wolpert, *Stacked Generalization*, 1992; mixtures as priors of trained autoencoders: Ghosh
        et al., *From Variational to Deterministic Autoencoders*, 2020, section 4.
    """
    mixture_key, share_key = jax.random.split(key)
    standardised = jax.jit(jax.vmap(flow.standardised))
    points, there = standardised(codes), standardised(held)
    mixture = best_mixture(mixture_key, points, there)
    share = _share(flow, mixture, there, jax.random.split(share_key, HELD_DRAWS))
    if share > 1 - 1e-3:
        return flow
    return replace(flow, mixture=mixture, share=share)


@jax.jit
def _share(flow: PriorFlow, mixture: GaussianMixture, held: Array, keys: Array) -> Float[Array, ""]:
    """The least-squares weight of the network, over random places on paths to held-out codes."""

    from latent_flows.objectives.flow_matching import trigonometric_bridge

    def sums(key: PRNGKeyArray) -> tuple[Array, Array]:
        time_key, noise_key = jax.random.split(key)
        ts = jax.random.uniform(time_key, (len(held),), held.dtype)
        noise = jax.random.normal(noise_key, held.shape, held.dtype)

        def one(t: Array, noise: Array, x: Array) -> tuple[Array, Array]:
            (a, b), (da, db) = jax.jvp(trigonometric_bridge, (t,), (jnp.ones_like(t),))
            y = a * noise + b * x
            known = mixture_velocity(mixture, t, y)
            apart = flow.velocity(t, y) - known
            return apart @ (da * noise + db * x - known), apart @ apart

        return jax.tree.map(jnp.sum, jax.vmap(one)(ts, noise, held))

    along, apart = jax.tree.map(jnp.sum, jax.lax.map(sums, keys))
    return jnp.clip(along / jnp.maximum(apart, jnp.finfo(held.dtype).tiny), 0, 1)


def draw_codes(key: PRNGKeyArray, mean: Array, std: Array | None) -> Array:
    """A draw from each posterior, or its mean where it has no deviation.

    Args:
        key: a random key.
        mean: of the posteriors.
        std: their deviations, or None.

    Returns:
        Codes of the shape of `mean`.
    """
    return mean if std is None else mean + std * jax.random.normal(key, mean.shape, mean.dtype)


def with_prior(generator: FrozenGenerator, flow: PriorFlow) -> FrozenGenerator:
    """The same generator, whose latents are drawn through a flow.

    Args:
        generator: any.
        flow: of its codes.

    Returns:
        The generator with the flow's draws as its `prior` and the flow's density as `log_prior`.

    Raises:
        ValueError: the flow is of latents of another length.

    >>> from latent_flows.generators import freeze
    >>> codes = 3.0 + jax.random.normal(jax.random.key(0), (1000, 2))
    >>> flow = init_prior_flow(jax.random.key(1), codes, steps=1)
    >>> generator = with_prior(freeze(lambda z: z, 2), flow)
    >>> round(float(generator.log_prior(jnp.full(2, 3.0))), 1)
    -1.8
    """
    _check_length(generator, flow)
    return replace_prior(generator, flow.sample, flow.log_prob)


def through_noise(generator: FrozenGenerator, flow: PriorFlow) -> FrozenGenerator:
    """A latent flow-matching generator: from noise through a flow to codes, and decoded.

    Its latent is the noise, of prior `N(0, I)`, in which flows, directions and geodesics can be
    studied as in any other; `flow.to_code` and `flow.to_noise` go from one to the other.

    Args:
        generator: that decodes codes.
        flow: of its codes.

    Returns:
        `noise -> x`, without an encoder: a posterior in the noise is no Gaussian.

    Raises:
        ValueError: the flow is of latents of another length.

    >>> from latent_flows.generators import freeze
    >>> codes = 3.0 + jax.random.normal(jax.random.key(0), (1000, 2))
    >>> flow = init_prior_flow(jax.random.key(1), codes, steps=1)
    >>> print(through_noise(freeze(lambda z: z, 2), flow)(jnp.zeros(2)).round(0))
    [3. 3.]
    """
    _check_length(generator, flow)
    stack = generator.members
    return freeze(
        lambda noise: generator.decode(flow.to_code(noise)),
        generator.latent_dim,
        name=f"{generator.name}, from noise",
        dataset=generator.dataset,
        labels=generator.labels,
        augment=generator.augment,
        reading=generator.reading,
        members=None if stack is None else lambda noise: stack(flow.to_code(noise)),
    )


def _check_length(generator: FrozenGenerator, flow: PriorFlow) -> None:
    if flow.mean.shape != (generator.latent_dim,):
        raise ValueError(
            f"the flow is of latents of {flow.mean.size} numbers, and {generator.name} takes "
            f"{generator.latent_dim}"
        )
