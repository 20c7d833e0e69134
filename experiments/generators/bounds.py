"""How good a generator with an encoder is: likelihood bounds, and what ground truth allows."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.generators.training_data import encoded
from latent_flows._transforms import in_chunks
from latent_flows.data import Dataset, sprites
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
    if test.name == "sprites":
        result |= _sprites(generator, images, examples["factors"], jax.random.key(seed), flow)
    return result


def _sprites(
    generator: FrozenGenerator,
    images: Float[Array, "n h w c"],
    truth: Any,
    key: Array,
    flow: PriorFlow | None,
) -> dict[str, float]:
    """Overlap of image and reconstruction, linear decodability of factors, valid samples."""

    from sklearn.linear_model import LinearRegression

    mean, std = encoded(generator, images)
    decode = in_chunks(generator.decode)
    rebuilt = decode(mean)
    pixels = (1, 2, 3)
    overlap = jnp.minimum(rebuilt, images).sum(pixels) / jnp.maximum(rebuilt, images).sum(pixels)
    valid = jax.vmap(sprites.is_valid)
    sample = mean + std * jax.random.normal(key, mean.shape)
    normal = jax.random.normal(key, mean.shape)
    prior = normal if flow is None else in_chunks(flow.to_code)(normal)
    half = len(images) // 2
    linear = {}
    for name in ("x", "y", "scale"):
        target = np.asarray(getattr(truth, name))
        fitted = LinearRegression().fit(mean[:half], target[:half])
        linear[f"linear_r2_{name}"] = float(fitted.score(mean[half:], target[half:]))
    return {
        "iou": float(overlap.mean()),
        **linear,
        "valid_posterior": float(valid(decode(sample)).mean()),
        "valid_prior": float(valid(decode(prior)).mean()),
        **({} if flow is None else {"valid_normal": float(valid(decode(normal)).mean())}),
    }
