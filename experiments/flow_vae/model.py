"""The networks of flow_vae, and what they are with their parameters: codes, flows, densities."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PyTree

from experiments.flow_vae.config import WITH_FLOW, Config
from experiments.potential_flows.families import EQUATIONS
from experiments.runtime.training import Params
from latent_flows import calculus, flows, pde, potentials
from latent_flows.calculus import Number
from latent_flows.data.sequences import Sequences
from latent_flows.generators.vae import VAE
from latent_flows.typing import Latent, Scalar, VectorField


class Recogniser(nn.Module):
    """What happened between two images: a small network on their codes' means."""

    outputs: int
    width: int = 64

    @nn.compact
    def __call__(self, before: Latent, after: Latent) -> Array:
        h = jnp.concatenate([before, after - before])
        for _ in range(2):
            h = nn.gelu(nn.Dense(self.width)(h))
        return nn.Dense(self.outputs)(h)


class Discriminator(nn.Module):
    """The log-density ratio of codes to shuffled codes."""

    width: int = 128

    @nn.compact
    def __call__(self, z: Latent) -> Scalar:
        for _ in range(2):
            z = nn.leaky_relu(nn.Dense(self.width)(z), 0.2)
        return nn.Dense(1)(z)[0]


class Model(NamedTuple):
    """All networks of a run."""

    vae: VAE
    potential: potentials.PotentialNet
    swirl: potentials.FieldNet
    """Two of these make the matrix of a solenoidal field."""
    recogniser: Recogniser
    discriminator: Discriminator
    equation: Callable[[Any, Scalar], pde.Residual] | None
    members: int
    """Number of fields, K."""
    kind: str


def build(config: Config, sequences: Sequences) -> Model:
    """The networks, for images of the sequences' shape."""
    kind = config.objective.kind
    transported = kind == "hamilton-jacobi"
    initial = config.fields.initial or ("free" if transported else "exact")
    equation = config.fields.pde or ("hamilton_jacobi" if transported else "wave")
    settings: dict[str, Any] = {
        "width": config.fields.width,
        "depth": config.fields.depth,
        "horizon": float(config.frames - 1),
        "initial": initial,
    }
    count = config.fields.count or len(config.factors)
    if kind == "flow" and count != len(config.factors):
        raise ValueError(f"fields.count must be {len(config.factors)}, one a factor, got {count}")
    return Model(
        VAE(config.vae, sequences.image_shape),
        potentials.PotentialNet(**settings),
        potentials.FieldNet(**settings),
        Recogniser(3 * count if kind == "sparse" else count),
        Discriminator(),
        EQUATIONS[equation],
        count,
        kind,
    )


def initial(model: Model, key: Array) -> Params:
    """Fresh parameters of the networks that the kind uses."""
    keys = jax.random.split(key, 5)
    dim = model.vae.config.latent_dim
    params: dict[str, Any] = {"vae": model.vae.init(keys[0], jnp.zeros(model.vae.image_shape))}
    if model.kind == "factor-vae":
        params["discriminator"] = model.discriminator.init(keys[1], jnp.zeros(dim))
    if model.kind in WITH_FLOW:
        params["potentials"] = potentials.init_stack(model.potential, keys[2], model.members, dim)
        params["coefficients"] = jnp.full((model.members,), 0.5)
    if model.kind == "sparse":
        params["swirls"] = [
            potentials.init_stack(model.swirl, k, model.members, dim)
            for k in jax.random.split(keys[3])
        ]
    if model.kind in ("hamilton-jacobi", "sparse"):
        params["recogniser"] = model.recogniser.init(keys[4], jnp.zeros(dim), jnp.zeros(dim))
    return params


# --- the pieces of a model with its parameters ---


def encoder(model: Model, params: Params) -> Callable[[Array], tuple[Latent, Latent]]:
    """`x -> (mean, std)`."""
    apply: Any = model.vae.apply  # flax types its result as a pair as well
    return partial(apply, params["vae"], method=model.vae.encode)


def log_likelihood(model: Model, params: Params) -> Callable[[Array, Latent], Scalar]:
    """`(x, z) -> log p(x | z)`."""
    apply: Any = model.vae.apply
    return partial(apply, params["vae"], method=model.vae.log_likelihood)


def potential(model: Model, params: PyTree) -> Callable[[Any, Latent], Scalar]:
    """One potential, of its own parameters."""
    apply: Any = model.potential.apply
    return partial(apply, params)


def mixture(model: Model, params: Params, weights: Array) -> Callable[[Any, Latent], Scalar]:
    """The weighted sum of all potentials, itself one."""

    apply: Any = model.potential.apply

    def total(t: Any, z: Latent) -> Scalar:
        return weights @ jax.vmap(lambda own: apply(own, t, z))(params["potentials"])

    return total


def swirls(model: Model, params: Params, weights: Array) -> VectorField:
    """The weighted sum of all solenoidal fields, itself one."""
    apply: Any = model.swirl.apply

    def matrix(t: Any, z: Latent) -> Array:
        left, right = (jax.vmap(lambda own: apply(own, t, z))(stack) for stack in params["swirls"])
        return jnp.einsum("k,ki,kj->ij", weights, left, right)

    return flows.solenoidal(matrix)


def acting(model: Model, params: Params, weights: Array) -> VectorField:
    """Gradient and solenoidal fields together."""
    both = [flows.gradient(mixture(model, params, weights)), swirls(model, params, weights)]
    return flows.combine(both, jnp.ones(2))


def path(field: VectorField, z: Latent, ts: Float[Array, "n"]) -> Float[Array, "n d"]:
    """The codes on the way of the flow at the given times, a step of the midpoint rule each."""
    return flows.integrate(field, z, ts, solver=flows.solver("midpoint")).zs


def forward(field: VectorField, z: Latent, t: Number, steps: int) -> Latent:
    """Where the flow takes a code of time 0 by time `t`, in steps of the midpoint rule."""
    return path(field, z, jnp.linspace(0, 1, steps + 1) * t)[-1]


class Origin(NamedTuple):
    """Where a code of time `t` comes from."""

    z: Latent
    """The code at time 0 that the flow takes to it."""
    log_prior: Scalar
    """The log-density at the later code of N(0, I) carried along the flow."""


def origin(u: Callable[[Any, Latent], Scalar], z: Latent, t: Number, steps: int) -> Origin:
    r"""Follow the gradient of `u` backwards from time `t` to 0, with the change of density.

    $$ \log p_t(z) = \log N(z_0; 0, I) - \int_0^t \Delta u(s, z(s))\,ds $$

    The path is taken in steps of the midpoint rule; the integral is the trapezoidal sum over them,
    of the same order, for which all Laplacians are computed at once.
    """
    ts = (1 - jnp.linspace(0, 1, steps + 1)) * t
    zs = path(flows.gradient(u), z, ts)
    gained = jax.vmap(lambda s, y: calculus.laplacian(partial(u, s))(y))(ts, zs)
    return Origin(zs[-1], log_normal(zs[-1]) - jnp.trapezoid(gained[::-1], ts[::-1]))


def backward(field: VectorField, z: Latent, t: Number, steps: int) -> Latent:
    """Where a code of time `t` comes from, where its density is not asked for."""
    return path(field, z, (1 - jnp.linspace(0, 1, steps + 1)) * t)[-1]


def log_normal(z: Latent) -> Scalar:
    """The log-density of N(0, I)."""
    return jnp.sum(jax.scipy.stats.norm.logpdf(z))
