"""How near inversion comes: to the best of many long descents, and to latents that are known.

Run as `python -m benchmarks.inversion GENERATOR ...`, each a run folder. Of a generator with an
encoder held-out examples are inverted, and again from more starts and with more steps, on pixels
alone: the ratio of the errors is 1 where nothing was missed. Of any other draws are recovered, of
which it is known that they can be, and the share of those is said whose blurred error is small.
"""

import time
from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array, Float

from latent_flows import data
from latent_flows.directions.losses import blurred_error
from latent_flows.generators import FrozenGenerator, draw_latents, load_generator
from latent_flows.inversion import InversionSettings, invert


@dataclass(frozen=True)
class Config:
    """What is measured."""

    generators: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Run folders."""
    images: int = 20
    """Held-out examples that are inverted."""
    draws: int = 50
    """Samples of a generator without an encoder that are."""
    starts: int = 8
    """Descents of each."""
    steps: int = 200
    """Of each descent."""
    more_starts: int = 20
    """Of the descents that it is compared with."""
    longer: int = 5
    """How many times as many steps these have."""
    bound: float = 1e-3
    """Of the blurred error up to which a draw counts as recovered."""
    seed: int = 0
    """Of the draws, and of the starts."""


def nearness(config: Config, generator: FrozenGenerator) -> dict[str, float]:
    """How near the samples of held-out examples come, beside those of longer descents."""
    if generator.dataset is None:
        raise SystemExit(f"{generator.name} does not say which data it was trained on")
    size = generator.event_shape[0]
    examples = data.load_part(generator.dataset, "test", size=size)
    chosen = np.random.default_rng(config.seed).permutation(examples.length)[: config.images]
    images = jnp.asarray(examples.examples(chosen)["image"])
    key = jax.random.key(config.seed)
    began = time.perf_counter()
    settings = InversionSettings(starts=config.starts, steps=config.steps)
    errors = np.asarray(invert(key, generator, images, settings).error)
    seconds = time.perf_counter() - began
    thorough = InversionSettings(
        starts=config.more_starts,
        steps=config.longer * config.steps,
        candidates=1,
        blurred_weight=0.0,
    )
    ratios = errors / np.asarray(invert(key, generator, images, thorough).error)
    return {
        "error": float(errors.mean()),
        "ratio": float(np.median(ratios)),
        "worst_ratio": float(ratios.max()),
        "seconds_an_image": seconds / len(images),
    }


def recovery(config: Config, generator: FrozenGenerator) -> dict[str, float]:
    """The share of draws that are recovered, and how near they come."""
    key, other = jax.random.split(jax.random.key(config.seed))
    latents = draw_latents(generator.prior, key, config.draws)
    images = jax.jit(lambda g, zs: jax.lax.map(g.decode, zs))(generator, latents)
    began = time.perf_counter()
    settings = InversionSettings(starts=config.starts, steps=config.steps)
    found = invert(other, generator, images, settings)
    error = np.asarray(jax.vmap(_blurred)(found.image, images))
    return {
        "recovered": float((error <= config.bound).mean()),
        "blurred_error": float(np.median(error)),
        "worst_blurred_error": float(error.max()),
        "error": float(jnp.mean(found.error)),
        "variance": float(images.var(0).mean()),
        "seconds_an_image": (time.perf_counter() - began) / len(images),
    }


def _blurred(x: Float[Array, "h w c"], y: Float[Array, "h w c"]) -> Array:
    return blurred_error(x, y, jnp.ones(x.shape[:2]), sigma=min(x.shape[:2]) / 16)


def main(config: Config) -> None:
    """Print a row for each generator."""
    for run in config.generators:
        generator = load_generator(run)
        if generator.encode is None:
            row, count = recovery(config, generator), f"{config.draws} draws"
        else:
            row, count = nearness(config, generator), f"{config.images} held-out examples"
        said = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in row.items())
        print(f"{run}, {count}, {config.starts} starts of {config.steps} steps: {said}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
