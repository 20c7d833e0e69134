"""Who says whether a latent, or the image it decodes to, could be data: a density, a classifier."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from experiments.generators import classifier
from experiments.latent_oddity.setup import Config, Subject
from experiments.runtime.announcements import announced
from experiments.runtime.run_dir import Folder
from latent_flows._transforms import in_chunks
from latent_flows.data import Dataset

BANDWIDTHS = (0.05, 0.1, 0.2, 0.4)
"""Of the density, in standard deviations of the codes: the best on other codes is taken."""

Points: TypeAlias = Array | np.ndarray
"""Latents `[n, d]` or images `[n, h, w, c]`."""


class Judges(NamedTuple):
    """What latents and images are judged by."""

    log_density: Callable[[Points], Float[np.ndarray, "n"]]
    """Of latents, estimated from the first half of the held-out codes."""
    confidence: Callable[[Points], Float[np.ndarray, "n"]] | None
    """The classifier's probability of the label it finds most likely; None without labels."""
    accuracy: float | None
    """The classifier's, on held-out images."""


class Classifier(nn.Module):
    """Dense layers on the flattened image."""

    classes: int
    width: int = 128

    @nn.compact
    def __call__(self, x: Array) -> Float[Array, "classes"]:
        return nn.Dense(self.classes)(nn.gelu(nn.Dense(self.width)(x.reshape(-1))))


def appoint(folder: Folder, config: Config, subject: Subject, train_set: Dataset) -> Judges:
    """Fit the density, and train the classifier in the run's folder."""
    with announced("fitting a density to the codes"):
        log_density = density(*np.array_split(np.asarray(subject.test.codes), 2))
    if subject.train.labels is None or subject.test.labels is None:
        return Judges(log_density, None, None)
    classes = int(max(subject.train.labels.max(), subject.test.labels.max())) + 1
    network = Classifier(classes)
    apply: Any = network.apply  # flax types its result as a pair as well
    params = classifier.train(
        folder,
        train_set,
        lambda key: network.init(key, jnp.zeros(train_set.image_shape)),
        lambda params, images: jax.vmap(partial(apply, params))(images),
        config.classifier,
        config.seed,
        "classifier",
    )
    probabilities = in_chunks(lambda x: nn.softmax(apply(params, x)))
    found = np.asarray(probabilities(subject.test.images)).argmax(-1)
    return Judges(
        log_density,
        lambda images: np.asarray(probabilities(jnp.asarray(images))).max(-1),
        float(np.mean(found == subject.test.labels)),
    )


def density(
    codes: Float[np.ndarray, "n d"], others: Float[np.ndarray, "m d"]
) -> Callable[[Points], Float[np.ndarray, "k"]]:
    """The logarithm of a kernel density estimate from codes, as smooth as suits other codes best.

    Args:
        codes: where the kernels are.
        others: codes that choose the bandwidth.
    """

    from sklearn.neighbors import KernelDensity

    spread = codes.std()
    estimates = [KernelDensity(bandwidth=width * spread).fit(codes) for width in BANDWIDTHS]
    best = max(estimates, key=lambda estimate: estimate.score(others))
    return lambda points: best.score_samples(np.asarray(points))
