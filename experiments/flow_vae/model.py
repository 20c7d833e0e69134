"""The networks of flow_vae, and what they are with their parameters: codes, flows, densities."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, PyTree

from experiments.flow_vae.config import WITH_FLOW, Config
from experiments.runtime.training import Params
from latent_flows import flows, pde, potentials
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
    equation: pde.LearntEquation | None
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
        pde.EQUATIONS[equation],
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
