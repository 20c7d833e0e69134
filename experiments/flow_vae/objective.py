"""The losses of flow_vae: what each kind makes of the same pairs of images."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from experiments.flow_vae.config import WITH_FLOW, Config
from experiments.flow_vae.model import Model, acting, encoder, log_likelihood, mixture
from experiments.runtime.training import Batch, Params
from latent_flows import flows, objectives, pde
from latent_flows.data.sequences import Sequences
from latent_flows.evaluation.likelihood import LogLikelihood
from latent_flows.objectives import PairCodes, Transported
from latent_flows.typing import Scalar


class Pairs(NamedTuple):
    """Two images of each sequence of a batch; axes `[n, K]` first, so that K share out a batch."""

    before: Float[Array, "n K h w c"]
    """`x_0`."""
    after: Float[Array, "n K h w c"]
    """`x_t`, in which the factor of the column has changed."""
    t: Float[Array, "n K"]
    """From 1 to T."""


def pairs(sequences: Sequences, key: Array, examples: Float[Array, "B ..."]) -> Pairs:
    """Images at time 0 and at a random later one, each factor on an equal share of the batch."""
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


def loss(
    model: Model,
    config: Config,
    sequences: Sequences,
    params: Params,
    key: Array,
    step: Int[Array, ""],
    batch: Batch,
) -> tuple[Scalar, dict[str, Scalar]]:
    """The weighted sum of the terms of one step, per pixel; the terms are in nats per image."""
    pair_key, own_key = jax.random.split(key)
    found = pairs(sequences, pair_key, batch["example"])
    return loss_of_pairs(model, config, params, own_key, step, found)


def loss_of_pairs(
    model: Model, config: Config, params: Params, key: Array, step: Int[Array, ""], found: Pairs
) -> tuple[Scalar, dict[str, Scalar]]:
    """The same, of images that are there already."""
    first_key, second_key, own_key = jax.random.split(key, 3)
    encode, likelihood = encoder(model, params), log_likelihood(model, params)
    codes = objectives.encode_pairs((first_key, second_key), encode, found.before, found.after)
    settings = config.objective
    rise = jnp.minimum(1.0, (step + 1) / max(settings.warmup, 1))
    pixels = found.before[0, 0].size
    if model.kind in WITH_FLOW:
        moved = follow(model, config, params, own_key, found, codes)
        terms = objectives.joint_terms(likelihood, found.before, found.after, codes, moved)
        total = objectives.joint_sum(
            terms,
            transport=settings.transport,
            matching=settings.mismatch,
            residual=settings.residual,
            inference=settings.inference,
            rise=rise,
        )
        return total / pixels, terms._asdict()
    shown = plain_terms(likelihood, found, codes)
    weight, penalty, more = regulariser(model, config, params, own_key, codes)
    total = shown["reconstruction"] + rise * (weight * shown["kl"] + penalty)
    total += more.get("discriminator", 0.0)
    return total / pixels, {**shown, **more}


def plain_terms(likelihood: LogLikelihood, found: Pairs, codes: PairCodes) -> dict[str, Scalar]:
    """The bound of images whose codes do not flow, in its two parts."""
    each = jax.vmap(jax.vmap(likelihood))
    kls = [
        jnp.mean(jnp.sum(objectives.gaussian_kl(m, s), -1))
        for m, s in zip(codes.mean, codes.std, strict=True)
    ]
    explained = each(found.before, codes.z[0]) + each(found.after, codes.z[1])
    return {"reconstruction": -0.5 * jnp.mean(explained), "kl": 0.5 * (kls[0] + kls[1])}


def regulariser(
    model: Model, config: Config, params: Params, key: Array, codes: PairCodes
) -> tuple[float, Scalar, dict[str, Scalar]]:
    """The weight of the KL divergence, what is added to it, and terms to report."""
    kind, beta = model.kind, config.objective.beta
    if kind in ("vae", "beta-vae"):
        return (beta if kind == "beta-vae" else 1.0), jnp.zeros(()), {}
    z, mean, std = (
        jnp.concatenate([leaf.reshape(-1, leaf.shape[-1]) for leaf in both])
        for both in (codes.z, codes.mean, codes.std)
    )
    # Either estimate may be far off; this one is exact of Gaussian codes.
    measured = {"total_correlation_gaussian": objectives.gaussian_total_correlation(mean, std)}
    if kind == "tc-vae":
        correlation = objectives.total_correlation(z, mean, std)
        return 1.0, (beta - 1) * correlation, {"total_correlation": correlation, **measured}
    # The discriminator learns from codes it does not change, and is not changed by the codes.
    judge: Any = model.discriminator.apply
    learnt, fixed = params["discriminator"], jax.lax.stop_gradient(params["discriminator"])
    codes_only = jax.lax.stop_gradient(z)
    shuffled = objectives.permuted(key, codes_only)
    own = objectives.density_ratio_loss(
        jax.vmap(partial(judge, learnt))(codes_only), jax.vmap(partial(judge, learnt))(shuffled)
    )
    correlation = jnp.mean(jax.vmap(partial(judge, fixed))(z))
    more = {"total_correlation": correlation, **measured, "discriminator": own}
    return 1.0, (beta - 1) * correlation, more


def follow(
    model: Model, config: Config, params: Params, key: Array, found: Pairs, codes: PairCodes
) -> Transported:
    """What the flow makes of each pair, whose factor is known or has to be inferred."""
    if model.kind != "flow":
        return inferred(model, config, params, key, found, codes)
    apply: Any = model.potential.apply  # flax types its result as a pair as well
    equation = model.equation
    return objectives.transport_codes(
        lambda own, t, z: apply(own[0], t, z),
        (params["potentials"], params["coefficients"]),
        codes,
        found.t,
        equation=None if equation is None else lambda own, u: equation(u, pde.coefficient(own[1])),
        flowed=config.objective.prior == "flowed",
        steps=config.fields.steps,
    )


def inferred(
    model: Model, config: Config, params: Params, key: Array, found: Pairs, codes: PairCodes
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
        t = jnp.full_like(t, config.frames - 1)  # how far is told by the weights
        weights, divergence = jax.vmap(partial(gates, config))(keys, read)
    else:
        temperature = config.objective.temperature
        weights = jax.vmap(lambda key, logits: objectives.gumbel_softmax(key, logits, temperature))(
            keys, read
        )
        divergence = jax.vmap(objectives.categorical_kl)(read)
    steps, flowed = config.fields.steps, config.objective.prior == "flowed"

    def both_ways(weights: Array, z0: Array, zt: Array, t: Array) -> dict[str, Array]:
        u = mixture(model, params, weights)
        if model.kind != "sparse":
            back = objectives.origins(u, zt[None], t[None], flowed=flowed, steps=steps)
            end = flows.carry(flows.gradient(u), z0, 0.0, t, steps=steps)
            return {"end": end, **jax.tree.map(lambda leaf: leaf[0], back)}
        field = acting(model, params, weights)
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
            return equation(mixture(model, params, own), jnp.mean(speeds)).terms(t, z)

        residual = pde.relative_residual(
            pde.Residual(terms), t, jnp.concatenate([ends, weights], -1)
        )
    return Transported(
        result["end"], result["start"], result.get("log_prior"), residual, jnp.mean(divergence)
    )


def gates(config: Config, key: Array, read: Float[Array, "3K"]) -> tuple[Array, Scalar]:
    """A draw of spike-and-slab weights, and their divergence from the prior."""
    logits, mean, raw = jnp.split(read, 3)
    std = jax.nn.softplus(raw) + 1e-3
    gate_key, slab_key = jax.random.split(key)
    opened = objectives.concrete_gates(gate_key, logits, config.objective.temperature)
    slab = mean + std * jax.random.normal(slab_key, mean.shape)
    divergence = objectives.spike_and_slab_kl(logits, mean, std, config.objective.open_share)
    return opened * slab, jnp.sum(divergence)
