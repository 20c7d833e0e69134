"""A VAE trained together with flows of its codes: its networks, and the loss of each kind.

A kind is a plain VAE, one of the regularised ones that flows are compared with, or a VAE whose
codes flow as a factor of the sample changes, which is known or has to be inferred. All of them see
the same pairs of samples. `flow_vae` makes the networks, `sample_pairs` the pairs, and
`flow_vae_loss` the loss.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from latent_flows import flows, pde, potentials
from latent_flows._validation import at_least, choose
from latent_flows.data.sequences import Sequences
from latent_flows.generators.vae import VAE, VAEConfig
from latent_flows.objectives.autoencoders import (
    density_ratio_loss,
    gaussian_kl,
    gaussian_total_correlation,
    permuted,
    total_correlation,
)
from latent_flows.objectives.joint_flows import (
    PairCodes,
    Transported,
    encode_pairs,
    joint_sum,
    joint_terms,
    origins,
    transport_codes,
)
from latent_flows.objectives.sequences import (
    categorical_kl,
    concrete_gates,
    gumbel_softmax,
    spike_and_slab_kl,
)
from latent_flows.typing import Latent, Potential, Scalar, VectorField

__all__ = [
    "FAMILIES",
    "KINDS",
    "WITH_FLOW",
    "Discriminator",
    "FlowVAE",
    "FlowVAEObjective",
    "Pairs",
    "Recogniser",
    "flow_vae",
    "flow_vae_loss",
    "sample_pairs",
]

KINDS: Mapping[str, str] = {
    "vae": "the bound alone",
    "beta-vae": "a weight on the divergence from the prior",
    "tc-vae": "a penalty on total correlation, estimated on the batch (far too large where "
    "posteriors are narrow: trust total_correlation_gaussian beside it)",
    "factor-vae": "a penalty on total correlation, by a discriminator",
    "flow": "one potential for each known factor",
    "hamilton-jacobi": "optimal-transport potentials, the factor inferred from two images",
    "sparse": "gradient and solenoidal fields behind inferred gates, unsupervised",
}
"""What a VAE can be, by name."""
WITH_FLOW = ("flow", "hamilton-jacobi", "sparse")
"""The kinds whose codes flow."""
FAMILIES: Mapping[str, str] = {
    "potential": "a network that obeys an equation",
    "line": "a straight line: a constant gradient",
    "linear": "a symmetric linear map and a shift: the gradient of a quadratic",
}
"""What the potential of a known factor can be, by name."""


@dataclass(frozen=True)
class FlowVAEObjective:
    """The loss. Its terms are in nats per image."""

    kind: str = "flow"
    """vae, beta-vae, tc-vae, factor-vae: no flow; flow: the factor is known; hamilton-jacobi: it is
    inferred from the image pair; sparse: so are which fields act, and how strongly."""
    beta: float = 2.0
    """Weight of the divergence from the prior (beta-vae), or of total correlation (tc-vae and
    factor-vae: beta - 1)."""
    prior: Literal["flowed", "standard"] = "flowed"
    """Prior of the codes of x_t: N(0, I) carried along the flow, or N(0, I) itself. Without a flow
    always standard; sparse too, whose flow is not known before x_t is seen."""
    transport: float = 0.5
    """Share of the reconstruction at the points to which the flow takes the code of the other image
    of the pair, x_t from that of x_0 and back; the rest is at the image's own code."""
    mismatch: float = 0.02
    """Weight of the negative log-density of the point for x_t under the posterior of x_t."""
    residual: float = 1.0
    """Weight of the PDE's relative residual."""
    inference: float = 1.0
    """Weight of the divergence of the inferred factor or gates from their prior."""
    open_share: float = 0.3
    """Prior probability that a gate is open (sparse)."""
    temperature: float = 0.5
    """Temperature of relaxed draws of factors and gates."""
    warmup: int = 200
    """Steps over which divergences rise from 0 to their weight."""
    density: Literal["integral", "steps"] = "integral"
    """Of the flowed prior. integral: of the Laplacian along the path, which is cheap, but no
    density where a flow becomes too steep for its steps (a KL divergence below 0 shows it). steps:
    that which the steps themselves give, at two to three times the time of a training step."""

    def __post_init__(self) -> None:
        choose("objective.kind", self.kind, KINDS)
        least = ("beta", "transport", "mismatch", "residual", "inference", "warmup")
        at_least(self, "objective.", **dict.fromkeys(least, 0))
        if self.transport > 1:
            raise ValueError(f"objective.transport must lie in [0, 1], got {self.transport}")
        if not (0 < self.open_share < 1 and self.temperature > 0):
            raise ValueError(
                "objective.open_share must lie in (0, 1) and objective.temperature above 0, got "
                f"{self.open_share} and {self.temperature}"
            )


class Recogniser(nn.Module):
    """What happened between two images: a small network on their codes' means."""

    outputs: int
    """Numbers that it reads off."""
    width: int = 64
    """Units of a hidden layer."""

    @nn.compact
    def __call__(self, before: Latent, after: Latent) -> Array:
        h = jnp.concatenate([before, after - before])
        for _ in range(2):
            h = nn.gelu(nn.Dense(self.width)(h))
        return nn.Dense(self.outputs)(h)


class Discriminator(nn.Module):
    """The log-density ratio of codes to shuffled codes."""

    width: int = 128
    """Units of a hidden layer."""

    @nn.compact
    def __call__(self, z: Latent) -> Scalar:
        for _ in range(2):
            z = nn.leaky_relu(nn.Dense(self.width)(z), 0.2)
        return nn.Dense(1)(z)[0]


class FlowVAE(NamedTuple):
    """All networks of a VAE whose codes may flow."""

    vae: VAE
    """Encoder, decoder and likelihood."""
    potential: potentials.PotentialNet | potentials.PolynomialPotential
    """That all fields share."""
    swirl: potentials.FieldNet
    """Two of these make the matrix of a solenoidal field."""
    recogniser: Recogniser
    """What reads factors, or gates, off a pair."""
    discriminator: Discriminator
    """What tells codes from shuffled ones, of a FactorVAE."""
    equation: pde.LearntEquation | None
    """That potentials obey."""
    members: int
    """Number of fields, K."""
    kind: str
    """Of `KINDS`."""

    def init(self, key: PRNGKeyArray) -> dict[str, Any]:
        """Fresh parameters of the networks that the kind uses."""
        keys = jax.random.split(key, 5)
        dim = self.vae.config.latent_dim
        params: dict[str, Any] = {"vae": self.vae.init(keys[0], jnp.zeros(self.vae.image_shape))}
        if self.kind == "factor-vae":
            params["discriminator"] = self.discriminator.init(keys[1], jnp.zeros(dim))
        if self.kind in WITH_FLOW:
            params["potentials"] = potentials.init_stack(self.potential, keys[2], self.members, dim)
            params["coefficients"] = jnp.full((self.members,), 0.5)
        if self.kind == "sparse":
            params["swirls"] = [
                potentials.init_stack(self.swirl, k, self.members, dim)
                for k in jax.random.split(keys[3])
            ]
        if self.kind in ("hamilton-jacobi", "sparse"):
            params["recogniser"] = self.recogniser.init(keys[4], jnp.zeros(dim), jnp.zeros(dim))
        return params

    def encoder(self, params: PyTree) -> Callable[[Array], tuple[Latent, Latent]]:
        """`x -> (mean, std)`."""
        apply: Any = self.vae.apply  # flax types its result as a pair as well
        return partial(apply, params["vae"], method=self.vae.encode)

    def log_likelihood(self, params: PyTree) -> Callable[[Array, Latent], Scalar]:
        """`(x, z) -> log p(x | z)`."""
        apply: Any = self.vae.apply
        return partial(apply, params["vae"], method=self.vae.log_likelihood)

    def one(self, own: PyTree) -> Potential:
        """One potential, of its own parameters."""
        apply: Any = self.potential.apply
        return partial(apply, own)

    def mixture(self, params: PyTree, weights: Float[Array, "k"]) -> Potential:
        """The weighted sum of all potentials, itself one."""
        apply: Any = self.potential.apply

        def total(t: Any, z: Latent) -> Scalar:
            return weights @ jax.vmap(lambda own: apply(own, t, z))(params["potentials"])

        return total

    def swirls(self, params: PyTree, weights: Float[Array, "k"]) -> VectorField:
        """The weighted sum of all solenoidal fields, itself one."""
        apply: Any = self.swirl.apply

        def matrix(t: Any, z: Latent) -> Array:
            left, right = (
                jax.vmap(lambda own: apply(own, t, z))(stack) for stack in params["swirls"]
            )
            return jnp.einsum("k,ki,kj->ij", weights, left, right)

        return flows.solenoidal(matrix)

    def acting(self, params: PyTree, weights: Float[Array, "k"]) -> VectorField:
        """Gradient and solenoidal fields together."""
        both = [flows.gradient(self.mixture(params, weights)), self.swirls(params, weights)]
        return flows.combine(both, jnp.ones(2))


def flow_vae(
    kind: str,
    vae: VAEConfig,
    image_shape: tuple[int, int, int],
    *,
    factors: int,
    frames: int,
    count: int = 0,
    equation: str = "",
    initial: str = "",
    width: int = 64,
    depth: int = 2,
    family: str = "potential",
) -> FlowVAE:
    """The networks of a kind of VAE, for samples of a shape.

    Args:
        kind: of `KINDS`.
        vae: the VAE's architecture.
        image_shape: height, width and channels of a sample.
        factors: how many change along sequences.
        frames: samples of a sequence; the last one is at time `frames - 1`.
        count: number of fields; 0: as many as factors.
        equation: of the potentials, by its name in `pde.EQUATIONS`; empty: `"wave"`, and
            `"hamilton_jacobi"` for the kind of that name.
        initial: of `PotentialNet`; empty: `"exact"`, and `"free"` for hamilton-jacobi, whose only
            solution at rest is 0.
        width: units of a potential's hidden layers.
        depth: how many of these.
        family: of `FAMILIES`; what is no network obeys no equation.

    Returns:
        The networks.

    Raises:
        ValueError: an unknown kind, equation or family, another number of potentials than of
            factors where each is to have its own, or a family without a network where the factor
            is not known.

    >>> flow_vae("flow", VAEConfig(latent_dim=2), (8, 8, 1), factors=3, frames=4).members
    3
    """
    choose("kind", kind, KINDS)
    transported = kind == "hamilton-jacobi"
    settings: dict[str, Any] = {
        "width": width,
        "depth": depth,
        "horizon": float(frames - 1),
        "initial": initial or ("free" if transported else "exact"),
    }
    members = count or factors
    if kind == "flow" and members != factors:
        raise ValueError(f"fields.count must be {factors}, one a factor, got {members}")
    name = equation or ("hamilton_jacobi" if transported else "wave")
    learnt = choose("equation", name, pde.EQUATIONS)
    potential: Any = potentials.PotentialNet(**settings)
    choose("fields.family", family, FAMILIES)
    if family != "potential":
        if kind != "flow":
            raise ValueError(f"fields.family {family} is of the kind flow, got {kind}")
        degree = 1 if family == "line" else 2
        potential = potentials.PolynomialPotential(degree, settings["horizon"])
        learnt = None
    return FlowVAE(
        VAE(vae, image_shape),
        potential,
        potentials.FieldNet(**settings),
        Recogniser(3 * members if kind == "sparse" else members),
        Discriminator(),
        learnt,
        members,
        kind,
    )


class Pairs(NamedTuple):
    """Two samples of each sequence of a batch; axes `[n, K]` first, so that K share out a batch."""

    before: Float[Array, "n K h w c"]
    """`x_0`."""
    after: Float[Array, "n K h w c"]
    """`x_t`, in which the factor of the column has changed."""
    t: Float[Array, "n K"]
    """From 1 to T."""


def sample_pairs(sequences: Sequences, key: PRNGKeyArray, examples: Float[Array, "B ..."]) -> Pairs:
    """Samples at time 0 and at a random later one, each factor on an equal share of the batch.

    Args:
        sequences: what makes a sequence of an example.
        key: a random key, for the times.
        examples: as many for each factor.

    Returns:
        The pairs.
    """
    count = len(sequences.factors)
    columns = examples.reshape(-1, count, *examples.shape[1:])
    t = jax.random.randint(key, columns.shape[:2], 1, sequences.frames).astype(float)
    made = [
        jax.vmap(
            lambda example, t, k=k: (
                sequences.frame(example, k, 0.0),
                sequences.frame(example, k, t),
            )
        )(columns[:, k], t[:, k])
        for k in range(count)
    ]
    before, after = (jnp.stack(images, 1) for images in zip(*made, strict=True))
    return Pairs(before, after, t)


def flow_vae_loss(
    model: FlowVAE,
    objective: FlowVAEObjective,
    params: PyTree,
    key: PRNGKeyArray,
    step: Array | int,
    found: Pairs,
    *,
    steps: int = 4,
) -> tuple[Scalar, dict[str, Scalar]]:
    """The weighted sum of the terms of one step, per number of a sample.

    Args:
        model: the networks.
        objective: what the loss is made of.
        params: their parameters.
        key: a random key.
        step: how many steps were taken, for the warm-up.
        found: the pairs of samples.
        steps: of the midpoint rule along each path.

    Returns:
        The loss, and its terms in nats a sample.

    References:
        Song et al., *Latent Traversals in Generative Models as Potential Flows*, 2023, section
        3.3; Song et al., *Flow Factorized Representation Learning*, 2023; for the other kinds
        Higgins et al., *beta-VAE*, 2017, Chen et al., *Isolating Sources of Disentanglement in
        VAEs*, 2018, and Kim and Mnih, *Disentangling by Factorising*, 2018.

    >>> model = flow_vae(
    ...     "vae", VAEConfig(2, "mlp", "mlp", 1, 1), (4, 4, 1), factors=1, frames=2
    ... )
    >>> images = jnp.full((2, 1, 4, 4, 1), 0.5)
    >>> pairs, key = Pairs(images, images, jnp.ones((2, 1))), jax.random.key(0)
    >>> loss, terms = flow_vae_loss(
    ...     model, FlowVAEObjective("vae", warmup=0), model.init(key), key, 0, pairs
    ... )
    >>> bool(jnp.isclose(loss, (terms["reconstruction"] + terms["kl"]) / 16))
    True
    """
    first_key, second_key, own_key = jax.random.split(key, 3)
    encode, likelihood = model.encoder(params), model.log_likelihood(params)
    codes = encode_pairs((first_key, second_key), encode, found.before, found.after)
    rise = jnp.minimum(1.0, (step + 1) / max(objective.warmup, 1))
    pixels = found.before[0, 0].size
    if model.kind in WITH_FLOW:
        moved = _follow(model, objective, params, own_key, found, codes, steps)
        terms = joint_terms(likelihood, found.before, found.after, codes, moved)
        total = joint_sum(
            terms,
            transport=objective.transport,
            matching=objective.mismatch,
            residual=objective.residual,
            inference=objective.inference,
            rise=rise,
        )
        return total / pixels, terms._asdict()
    shown = _plain_terms(likelihood, found, codes)
    weight, penalty, more = _regulariser(model, objective.beta, params, own_key, codes)
    total = shown["reconstruction"] + rise * (weight * shown["kl"] + penalty)
    total += more.get("discriminator", 0.0)
    return total / pixels, {**shown, **more}


def _plain_terms(
    likelihood: Callable[[Array, Latent], Scalar], found: Pairs, codes: PairCodes
) -> dict[str, Scalar]:
    """The bound of images whose codes do not flow, in its two parts."""
    each = jax.vmap(jax.vmap(likelihood))
    kls = [
        jnp.mean(jnp.sum(gaussian_kl(m, s), -1)) for m, s in zip(codes.mean, codes.std, strict=True)
    ]
    explained = each(found.before, codes.z[0]) + each(found.after, codes.z[1])
    return {"reconstruction": -0.5 * jnp.mean(explained), "kl": 0.5 * (kls[0] + kls[1])}


def _regulariser(
    model: FlowVAE, beta: float, params: PyTree, key: Array, codes: PairCodes
) -> tuple[float, Scalar, dict[str, Scalar]]:
    """The weight of the KL divergence, what is added to it, and terms to report."""
    kind = model.kind
    if kind in ("vae", "beta-vae"):
        return (beta if kind == "beta-vae" else 1.0), jnp.zeros(()), {}
    z, mean, std = (
        jnp.concatenate([leaf.reshape(-1, leaf.shape[-1]) for leaf in both])
        for both in (codes.z, codes.mean, codes.std)
    )
    # Either estimate may be far off; this one is exact of Gaussian codes.
    measured = {"total_correlation_gaussian": gaussian_total_correlation(mean, std)}
    if kind == "tc-vae":
        correlation = total_correlation(z, mean, std)
        return 1.0, (beta - 1) * correlation, {"total_correlation": correlation, **measured}
    # The discriminator learns from codes it does not change, and is not changed by the codes.
    judge: Any = model.discriminator.apply
    learnt, fixed = params["discriminator"], jax.lax.stop_gradient(params["discriminator"])
    codes_only = jax.lax.stop_gradient(z)
    shuffled = permuted(key, codes_only)
    own = density_ratio_loss(
        jax.vmap(partial(judge, learnt))(codes_only), jax.vmap(partial(judge, learnt))(shuffled)
    )
    correlation = jnp.mean(jax.vmap(partial(judge, fixed))(z))
    more = {"total_correlation": correlation, **measured, "discriminator": own}
    return 1.0, (beta - 1) * correlation, more


def _follow(
    model: FlowVAE,
    objective: FlowVAEObjective,
    params: PyTree,
    key: Array,
    found: Pairs,
    codes: PairCodes,
    steps: int,
) -> Transported:
    """What the flow makes of each pair, whose factor is known or has to be inferred."""
    if model.kind != "flow":
        return _inferred(model, objective, params, key, found, codes, steps)
    apply: Any = model.potential.apply  # flax types its result as a pair as well
    equation = model.equation
    return transport_codes(
        lambda own, t, z: apply(own[0], t, z),
        (params["potentials"], params["coefficients"]),
        codes,
        found.t,
        equation=None if equation is None else lambda own, u: equation(u, pde.coefficient(own[1])),
        flowed=objective.prior == "flowed",
        steps=steps,
        exact=objective.density == "steps",
    )


def _inferred(
    model: FlowVAE,
    objective: FlowVAEObjective,
    params: PyTree,
    key: Array,
    found: Pairs,
    codes: PairCodes,
    steps: int,
) -> Transported:
    """Factors, or gates, read off both images' codes, and the flow along the fields they weigh."""
    shape = found.t.shape
    t, before, after, z0, zt = (
        leaf.reshape(-1, *leaf.shape[2:]) for leaf in (found.t, *codes.mean, *codes.z)
    )
    apply: Any = model.recogniser.apply
    read = jax.vmap(partial(apply, params["recogniser"]))(before, after)
    keys = jax.random.split(key, len(read))
    if model.kind == "sparse":
        t = jnp.full_like(t, model.potential.horizon)  # how far is told by the weights
        weights, divergence = jax.vmap(partial(_gates, objective))(keys, read)
    else:
        temperature = objective.temperature
        weights = jax.vmap(lambda key, logits: gumbel_softmax(key, logits, temperature))(keys, read)
        divergence = jax.vmap(categorical_kl)(read)
    prior = {"flowed": objective.prior == "flowed", "exact": objective.density == "steps"}

    def both_ways(weights: Array, z0: Array, zt: Array, t: Array) -> dict[str, Array]:
        u = model.mixture(params, weights)
        if model.kind != "sparse":
            back = origins(u, zt[None], t[None], steps=steps, **prior)
            end = flows.carry(flows.gradient(u), z0, 0.0, t, steps=steps)
            return {"end": end, **jax.tree.map(lambda leaf: leaf[0], back)}
        field = model.acting(params, weights)
        return {
            "end": flows.carry(field, z0, 0.0, t, steps=steps),
            "start": flows.carry(field, zt, t, 0.0, steps=steps),
        }

    moved = jax.vmap(both_ways)(weights, z0, zt, t)
    ends = moved["end"]
    result = jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), moved)
    residual = jnp.zeros(())
    if (equation := model.equation) is not None:
        dim, speeds = z0.shape[-1], pde.coefficient(params["coefficients"])

        def terms(t: Array, both: Array) -> tuple[Scalar, ...]:
            z, own = both[:dim], both[dim:]
            return equation(model.mixture(params, own), jnp.mean(speeds)).terms(t, z)

        residual = pde.relative_residual(
            pde.Residual(terms), t, jnp.concatenate([ends, weights], -1)
        )
    return Transported(
        result["end"], result["start"], result.get("log_prior"), residual, jnp.mean(divergence)
    )


def _gates(
    objective: FlowVAEObjective, key: Array, read: Float[Array, "3K"]
) -> tuple[Array, Scalar]:
    """A draw of spike-and-slab weights, and their divergence from the prior."""
    logits, mean, raw = jnp.split(read, 3)
    std = jax.nn.softplus(raw) + 1e-3
    gate_key, slab_key = jax.random.split(key)
    opened = concrete_gates(gate_key, logits, objective.temperature)
    slab = mean + std * jax.random.normal(slab_key, mean.shape)
    divergence = spike_and_slab_kl(logits, mean, std, objective.open_share)
    return opened * slab, jnp.sum(divergence)
