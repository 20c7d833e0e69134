"""The share of draws that a classifier is sure of: do latents decode to what data are?"""

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from experiments.evaluate.readers import HeldOut
from experiments.generators import frechet
from experiments.generators.training_data import drawn_codes, load_data
from experiments.runtime.run_dir import Folder
from experiments.runtime.training import Training
from latent_flows._transforms import in_chunks
from latent_flows.evaluation.frechet import Judge
from latent_flows.generators import FrozenGenerator, draw_latents

SURE = 0.9
"""Probability of a class from which a classifier is sure."""
BATCH = 128
"""Examples of a step of the classifier."""


def confidence(
    generator: FrozenGenerator,
    held_out: HeldOut,
    rows: Int[np.ndarray, "n"],
    *,
    is_normal: bool,
    steps: int,
    seed: int,
) -> dict[str, float]:
    """Shares of images, as many each, that a classifier gives a class of at least `SURE`.

    Args:
        generator: a VAE.
        held_out: labelled examples of its data.
        rows: of those, which.
        is_normal: whether its prior is N(0, I).
        steps: of the classifier, which is trained first.
        seed: source of all randomness.

    Returns:
        The shares: of its prior's draws; of N(0, I), where that is not its prior; of draws from the
        posteriors of held-out images; and of these images. Beside them the accuracy.
    """
    assert held_out.labels is not None
    judge = _judge(generator, steps, seed)
    images, key = held_out.images(rows), jax.random.key(seed)
    latents = {"prior": draw_latents(generator.prior, key, len(rows))}
    if not is_normal:
        latents["normal"] = jax.random.normal(key, (len(rows), generator.latent_dim))
    latents["posterior"] = drawn_codes(generator, images, seed)
    decode = in_chunks(generator.decode)
    found = {name: _sure(judge, decode(zs)) for name, zs in latents.items()}
    guesses = np.asarray(judge(images)[1]).argmax(-1)
    return {
        **found,
        "held_out_images": _sure(judge, images),
        "accuracy": float(np.mean(guesses == held_out.labels(rows))),
        "images": len(rows),
    }


def _judge(generator: FrozenGenerator, steps: int, seed: int) -> Judge:
    dataset, devices = load_data(generator, "train"), len(jax.devices())
    size = max(min(BATCH, dataset.length) // devices * devices, 1)
    config = Training(steps=steps, batch_size=size, learning_rate=2e-3, decay="cosine")
    # Nothing but the scores is left in the folder of a run.
    with tempfile.TemporaryDirectory() as home:
        return frechet.train_judge(Folder(Path(home)), dataset, config, seed)


def _sure(judge: Judge, images: Float[Array, "n h w c"]) -> float:
    return float(jnp.mean(jnp.max(judge(images)[1], axis=-1) >= SURE))
