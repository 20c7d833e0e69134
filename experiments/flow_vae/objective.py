"""The losses of flow_vae: what each kind makes of the same pairs of images."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from experiments.flow_vae.config import WITH_FLOW, Config
from experiments.flow_vae.model import (
    Model,
    acting,
    backward,
    encoder,
    forward,
    log_likelihood,
    mixture,
    origin,
    potential,
)
from experiments.potential_flows.families import coefficient
from experiments.runtime.training import Batch, Params
from latent_flows import flows, objectives, pde
from latent_flows.data.sequences import Sequences
from latent_flows.typing import Potential, Scalar


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


class Codes(NamedTuple):
    """Posteriors of both images of each pair, and a draw from each; all `[n, K, d]`."""

    mean: tuple[Array, Array]
    std: tuple[Array, Array]
    z: tuple[Array, Array]


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
    stats = [jax.vmap(jax.vmap(encode))(images) for images in (found.before, found.after)]
    mean, std = zip(*stats, strict=True)
    z = tuple(
        m + s * jax.random.normal(k, m.shape)
        for k, m, s in zip((first_key, second_key), mean, std, strict=True)
    )
    codes = Codes(mean, std, z)  # type: ignore[arg-type]
    each = jax.vmap(jax.vmap(likelihood))
    kls = [
        jnp.mean(jnp.sum(objectives.gaussian_kl(m, s), -1)) for m, s in zip(mean, std, strict=True)
    ]
    terms = {
        "reconstruction": -0.5 * jnp.mean(each(found.before, z[0]) + each(found.after, z[1])),
        "kl": 0.5 * (kls[0] + kls[1]),
    }
    rise = jnp.minimum(1.0, (step + 1) / max(config.objective.warmup, 1))
    if model.kind in WITH_FLOW:
        own = follow(model, config, params, own_key, found, codes)
        if "log_prior" in own:
            density = jnp.sum(jax.scipy.stats.norm.logpdf(z[1], mean[1], std[1]), -1)
            terms["kl"] = 0.5 * (kls[0] + jnp.mean(density - own["log_prior"]))
        carried = each(found.after, own["end"]) + each(found.before, own["start"])
        fit = jax.vmap(jax.vmap(objectives.latent_matching))
        terms |= {
            "transport": -0.5 * jnp.mean(carried),
            "mismatch": jnp.mean(fit(own["end"], mean[1], std[1])),
            "residual": own["residual"],
            "inference": own["inference"],
        }
        share = config.objective.transport
        total = (1 - share) * terms["reconstruction"] + share * terms["transport"]
        total += rise * (terms["kl"] + config.objective.inference * terms["inference"])
        total += config.objective.mismatch * terms["mismatch"]
        total += config.objective.residual * terms["residual"]
    else:
        weight, penalty, more = regulariser(model, config, params, own_key, codes)
        terms |= more
        total = terms["reconstruction"] + rise * (weight * terms["kl"] + penalty)
        total += more.get("discriminator", 0.0)
    return total / found.before[0, 0].size, terms


def regulariser(
    model: Model, config: Config, params: Params, key: Array, codes: Codes
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
    model: Model, config: Config, params: Params, key: Array, found: Pairs, codes: Codes
) -> dict[str, Array]:
    """What the flow makes of each pair.

    Returns:
        `end`, where it takes the code of `x_0`, and `start`, where the code of `x_t` comes from;
        `log_prior` of the latter, if it has one of its own; `residual` of the equation;
        `inference`, the divergence of what was inferred.
    """
    if model.kind == "flow":
        along = partial(known_factor, model, config)
        result = jax.vmap(along, in_axes=(0, 0, 1, 1, 1), out_axes=(1, 0))(
            params["potentials"], params["coefficients"], found.t, *codes.z
        )
        return {
            **result[0],
            "residual": jnp.mean(result[1]),
            "inference": jnp.zeros(()),
        }
    return inferred(model, config, params, key, found, codes)


def known_factor(
    model: Model, config: Config, params: PyTree, raw: Scalar, t: Array, z0: Array, zt: Array
) -> tuple[dict[str, Array], Scalar]:
    """One potential on its share of the batch: ends and log-densities, and the residual."""
    u, steps = potential(model, params), config.fields.steps
    end = jax.vmap(lambda z, t: forward(flows.gradient(u), z, t, steps))(z0, t)
    result = {"end": end, **origins(config, u, zt, t)}
    if model.equation is None:
        return result, jnp.zeros(())
    return result, pde.relative_residual(model.equation(u, coefficient(raw)), t, end)


def origins(config: Config, u: Potential, zt: Array, t: Array) -> dict[str, Array]:
    """Where codes of later images come from, and their prior if it is the flowed one."""
    steps = config.fields.steps
    if config.objective.prior == "standard":
        return {"start": jax.vmap(lambda z, t: backward(flows.gradient(u), z, t, steps))(zt, t)}
    found = jax.vmap(lambda z, t: origin(u, z, t, steps))(zt, t)
    return {"start": found.z, "log_prior": found.log_prior}


def inferred(
    model: Model, config: Config, params: Params, key: Array, found: Pairs, codes: Codes
) -> dict[str, Array]:
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
    steps = config.fields.steps

    def both_ways(weights: Array, z0: Array, zt: Array, t: Array) -> dict[str, Array]:
        u = mixture(model, params, weights)
        if model.kind != "sparse":
            found = jax.tree.map(lambda leaf: leaf[0], origins(config, u, zt[None], t[None]))
            return {"end": forward(flows.gradient(u), z0, t, steps), **found}
        field = acting(model, params, weights)
        return {"end": forward(field, z0, t, steps), "start": backward(field, zt, t, steps)}

    moved = jax.vmap(both_ways)(weights, z0, zt, t)
    ends = moved["end"]
    result = jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), moved)
    result["inference"] = jnp.mean(divergence)
    result["residual"] = jnp.zeros(())
    if (equation := model.equation) is not None:
        dim, speeds = z0.shape[-1], coefficient(params["coefficients"])

        def terms(t: Array, both: Array) -> tuple[Scalar, ...]:
            z, own = both[:dim], both[dim:]
            return equation(mixture(model, params, own), jnp.mean(speeds)).terms(t, z)

        result["residual"] = pde.relative_residual(
            pde.Residual(terms), t, jnp.concatenate([ends, weights], -1)
        )
    return result


def gates(config: Config, key: Array, read: Float[Array, "3K"]) -> tuple[Array, Scalar]:
    """A draw of spike-and-slab weights, and their divergence from the prior."""
    logits, mean, raw = jnp.split(read, 3)
    std = jax.nn.softplus(raw) + 1e-3
    gate_key, slab_key = jax.random.split(key)
    opened = objectives.concrete_gates(gate_key, logits, config.objective.temperature)
    slab = mean + std * jax.random.normal(slab_key, mean.shape)
    divergence = objectives.spike_and_slab_kl(logits, mean, std, config.objective.open_share)
    return opened * slab, jnp.sum(divergence)
