"""How real generated images are, to a classifier trained on the data: no network is downloaded."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array

from experiments.generators import classifier
from experiments.runtime.run_dir import Folder
from experiments.runtime.training import Training
from latent_flows._transforms import in_chunks
from latent_flows.classifiers import PairClassifier, shrink
from latent_flows.data import Dataset
from latent_flows.evaluation.frechet import Judge

WIDTH = 32
HIDDEN = "Dense_3"  # the classifier's layer before the last


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
