"""How real generated images are, to a classifier trained on the data: no network is downloaded."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from experiments.generators import classifier
from experiments.runtime.run_dir import Folder
from experiments.runtime.training import Training
from latent_flows._transforms import in_chunks
from latent_flows.classifiers import PairClassifier, shrink
from latent_flows.data import Dataset
from latent_flows.evaluation.frechet import Judge, realism

WIDTH = 32
HIDDEN = "Dense_3"  # the classifier's layer before the last


def measure(
    folder: Folder,
    sample: Callable[[int], Float[Array, "n h w c"]],
    sets: Mapping[str, Dataset],
    config: Training,
    *,
    count: int,
    side: int,
    seed: int,
) -> dict[str, float]:
    """How real samples are to a classifier, which is trained first. Nothing without labels.

    Args:
        folder: the run folder.
        sample: from a number to so many images in [0, 1].
        sets: the parts "train" and "test" of the data.
        config: how the classifier is trained.
        count: samples, and as many images of the data, that are compared.
        side: pixels a side that the classifier sees, black around what is smaller.
        seed: source of all randomness.
    """
    picked: dict[str, Any] = {}
    for name, dataset in sets.items():
        chosen = np.random.default_rng(seed).permutation(dataset.length)[:count]
        examples = dataset.examples(chosen)
        images = on_canvas(jnp.asarray(examples["image"]), side)
        picked[name] = (images, classifier.labels(examples))
    (known, labels), (held_out, truth) = picked["train"], picked["test"]
    result = {"samples": float(len(held_out))}
    if labels is None:
        return result
    judge = train_judge(folder, _canvases(sets["train"], side), config, seed)
    made = on_canvas(sample(len(held_out)), side)
    return result | realism(judge, made, known, held_out, truth)


def on_canvas(images: Float[Array, "n h w c"], side: int) -> Float[Array, "n side side c"]:
    """Images with black around what is smaller."""
    margins = [((side - length) // 2, (side - length + 1) // 2) for length in images.shape[1:3]]
    return jnp.pad(images, [(0, 0), *margins, (0, 0)])


def _canvases(dataset: Dataset, side: int) -> Dataset:
    """The data set with black around its images."""

    def examples(rows: np.ndarray) -> dict[str, Any]:
        found = dict(dataset.examples(rows))
        return found | {"image": np.asarray(on_canvas(jnp.asarray(found["image"]), side))}

    shape = (side, side, dataset.image_shape[2])
    return replace(dataset, image_shape=shape, examples=examples)


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
