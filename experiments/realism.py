"""How real generated images are, to a classifier trained on the data: no network is downloaded."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Int

from experiments.folder import Folder
from experiments.train_vae import in_chunks
from experiments.training import Batch, Params, Training, fit
from latent_flows import data
from latent_flows.classifiers import PairClassifier, shrink
from latent_flows.data import Dataset
from latent_flows.data.dataset import Examples
from latent_flows.evaluation.frechet import frechet_distance
from latent_flows.typing import Scalar

PHASE = "classifier"
WIDTH = 32
HIDDEN = "Dense_3"  # the classifier's layer before the last

Judge: TypeAlias = Callable[[Array], tuple[Float[Array, "n d"], Float[Array, "n classes"]]]
"""From images in [0, 1] to features and to probabilities of the classes."""


def labels(examples: Examples) -> Int[np.ndarray, "n"] | None:
    """What a classifier of the data can tell apart: its labels, the shape of a sprite, or None."""
    if "label" in examples:
        return np.asarray(examples["label"])
    if "factors" in examples:
        return np.rint(np.asarray(examples["factors"].shape)).astype(int)
    return None


def train_judge(folder: Folder, dataset: Dataset, config: Training, seed: int) -> Judge:
    """Train, or go on training, a classifier of a labelled data set in a run folder."""
    # Spread over the set, which may be in the order of its classes.
    some = np.unique(np.linspace(0, dataset.length - 1, 5000).astype(int))
    found = labels(dataset.examples(some))
    if found is None:
        raise ValueError(f"{dataset.name} has no labels that a classifier could learn")
    network = PairClassifier(WIDTH, int(found.max()) + 1)
    params = fit(
        folder,
        PHASE,
        init=lambda key: network.init(key, shrink(jnp.zeros((1, *dataset.image_shape)))),
        loss=partial(_loss, network),
        batches=partial(_batches, dataset, config.batch_size, seed),
        config=config,
        seed=seed,
        describe=f"classifier of {dataset.name}",
    )

    def judge(image: Array) -> tuple[Array, Array]:
        logits, seen = network.apply(
            params, shrink(image[None]), capture_intermediates=True, mutable=["intermediates"]
        )
        features = nn.relu(seen["intermediates"][HIDDEN]["__call__"][0])
        return features[0], nn.softmax(logits[0])

    return in_chunks(judge)


def measure(
    judge: Judge,
    samples: Float[Array, "n h w c"],
    train: Float[Array, "m h w c"],
    test: Float[Array, "m h w c"],
    truth: Int[np.ndarray, "m"],
) -> dict[str, float]:
    """Distances from held-out images, and what the classifier makes of the samples.

    Args:
        judge: from `train_judge`.
        samples: generated images.
        train: training images; their distance is that of a perfect generator.
        test: held-out images.
        truth: their labels.
    """
    features, probabilities = map(np.asarray, judge(samples))
    known, _ = judge(train)
    held_out, guesses = map(np.asarray, judge(test))
    shares = np.bincount(probabilities.argmax(-1), minlength=probabilities.shape[-1])
    return {
        "frechet": frechet_distance(features, held_out),
        "frechet_of_training_images": frechet_distance(np.asarray(known), held_out),
        "confidence": float(probabilities.max(-1).mean()),
        "confidence_of_held_out_images": float(guesses.max(-1).mean()),
        "smallest_share_of_a_class": float(shares.min() / shares.sum()),
        "classifier_accuracy": float(np.mean(guesses.argmax(-1) == truth)),
    }


def _loss(
    network: PairClassifier, params: Params, key: Array, step: Array, batch: Batch
) -> tuple[Scalar, dict[str, Scalar]]:
    del key, step
    logits: Any = network.apply(params, shrink(batch["image"]))
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
    return jnp.mean(entropy), {"accuracy": jnp.mean(jnp.argmax(logits, -1) == batch["label"])}


def _batches(
    dataset: Dataset, size: int, seed: int, start: int, sharding: NamedSharding
) -> Iterator[dict[str, Any]]:
    for batch in data.batches(dataset, batch_size=size, seed=seed, start=start, sharding=sharding):
        yield {"image": batch["image"], "label": labels(batch)}
