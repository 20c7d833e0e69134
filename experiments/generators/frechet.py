"""How real generated images are, to a classifier trained on the data: no network is downloaded."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from experiments.generators import classifier
from experiments.runtime.run_dir import Folder
from experiments.runtime.training import Training
from latent_flows._transforms import in_chunks
from latent_flows.classifiers import PairClassifier, shrink
from latent_flows.data import Dataset
from latent_flows.evaluation.frechet import frechet_distance

WIDTH = 32
HIDDEN = "Dense_3"  # the classifier's layer before the last

Judge: TypeAlias = Callable[[Array], tuple[Float[Array, "n d"], Float[Array, "n classes"]]]
"""From images in [0, 1] to features and to probabilities of the classes."""


def train_judge(folder: Folder, dataset: Dataset, config: Training, seed: int) -> Judge:
    """Train, or go on training, a classifier of a labelled data set in a run folder."""
    # Spread over the set, which may be in the order of its classes.
    some = np.unique(np.linspace(0, dataset.length - 1, 5000).astype(int))
    found = classifier.labels(dataset.examples(some))
    if found is None:
        raise ValueError(f"{dataset.name} has no labels that a classifier could learn")
    network = PairClassifier(WIDTH, int(found.max()) + 1)
    apply: Any = network.apply  # flax types its result as a pair as well
    params = classifier.train(
        folder,
        dataset,
        lambda key: network.init(key, shrink(jnp.zeros((1, *dataset.image_shape)))),
        lambda params, images: apply(params, shrink(images)),
        config,
        seed,
        f"classifier of {dataset.name}",
    )

    def judge(image: Array) -> tuple[Array, Array]:
        logits, seen = apply(
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
