"""How good a generator with an encoder is: likelihood bounds, and what ground truth allows."""

import math
from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.generators.straightness import linear_r2
from experiments.generators.training_data import encoded
from latent_flows import data
from latent_flows._transforms import in_chunks
from latent_flows.data import Dataset
from latent_flows.evaluation import elbo, iwae_bound
from latent_flows.generators import FrozenGenerator
from latent_flows.generators.prior_flow import PriorFlow
from latent_flows.objectives import noisy_negative_log_likelihood


def measure(
    generator: FrozenGenerator,
    test: Dataset,
    *,
    count: int,
    samples: int,
    noise: float,
    seed: int,
    flow: PriorFlow | None = None,
) -> dict[str, float]:
    """Bounds on held-out images, how well deviations fit them, and what ground truth allows.

    Args:
        generator: with an encoder and a likelihood.
        test: held-out images.
        count: how many of them, at most.
        samples: of the importance-weighted bound.
        noise: deviation of the noise that images are taken to carry already.
        seed: source of all randomness.
        flow: from noise to codes, where that is the prior.
    """
    encode, log_likelihood = generator.encode, generator.log_likelihood
    assert encode is not None
    assert log_likelihood is not None
    chosen = np.random.default_rng(seed).permutation(test.length)
    examples = test.examples(chosen[:count])
    images = jnp.asarray(examples["image"])
    keys = jax.random.split(jax.random.key(seed), len(images))
    bounds = in_chunks(
        lambda key, x: (
            elbo(key, encode, log_likelihood, x),
            iwae_bound(key, encode, log_likelihood, x, samples=samples),
        )
    )
    elbos, iwaes = bounds(keys, images)
    result = {
        "test_images": float(len(images)),
        "elbo": float(elbos.mean()),
        "iwae": float(iwaes.mean()),
    }
    if flow is not None:
        # Beside those of N(0, I), which the VAE was trained with.
        fitting = in_chunks(
            lambda key, x: elbo(key, encode, log_likelihood, x, log_prior=flow.log_prob)
        )
        result["elbo_prior_flow"] = float(fitting(keys, images).mean())
    for kind, std in generator.noise_std.items():
        fit = partial(noisy_negative_log_likelihood, encode, generator.decode, std, noise)
        values, _ = in_chunks(fit)(keys, images)
        result[f"log_likelihood_{kind}"] = -float(values.mean())
    if (drawn := data.DRAWN.get(test.name)) is not None:
        truth = {name: np.asarray(getattr(examples["factors"], name)) for name in drawn.shown}
        result |= _drawn(generator, test.name, images, truth, jax.random.key(seed), flow)
    return result


def _drawn(
    generator: FrozenGenerator,
    name: str,
    images: Float[Array, "n h w c"],
    truth: Mapping[str, Float[np.ndarray, "n"]],
    key: Array,
    flow: PriorFlow | None,
) -> dict[str, float]:
    """Overlap of image and reconstruction, linear decodability of factors, valid samples.

    Of coloured images there is no overlap, but an error; a hue is decodable if the point on the
    colour circle is.
    """
    measures = data.measures(name)
    periods = {factor.name: factor.period for factor in measures.factors}
    mean, std = encoded(generator, images)
    decode = in_chunks(generator.decode)
    rebuilt = decode(mean)
    pixels = (1, 2, 3)
    overlap = jnp.minimum(rebuilt, images).sum(pixels) / jnp.maximum(rebuilt, images).sum(pixels)
    near = (
        {"iou": float(overlap.mean())}
        if images.shape[-1] == 1
        else {"rmse": float(jnp.sqrt(jnp.mean((rebuilt - images) ** 2)))}
    )
    valid = in_chunks(measures.is_valid)
    sample = mean + std * jax.random.normal(key, mean.shape)
    normal = jax.random.normal(key, mean.shape)
    prior = normal if flow is None else in_chunks(flow.to_code)(normal)
    linear = {
        f"linear_r2_{factor}": linear_r2(np.asarray(mean), values, periods.get(factor, math.inf))
        for factor, values in truth.items()
    }
    return {
        **near,
        **linear,
        "valid_posterior": float(valid(decode(sample)).mean()),
        "valid_prior": float(valid(decode(prior)).mean()),
        **({} if flow is None else {"valid_normal": float(valid(decode(normal)).mean())}),
    }
