"""Who says whether a latent, or the image it decodes to, could be data: a density of the codes, and
a classifier of images."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from experiments.generators import classifier
from experiments.latent_oddity import setup
from experiments.latent_oddity.paths import Paths, length_of
from experiments.latent_oddity.setup import Manifold
from experiments.runtime import extension
from experiments.runtime.announcements import announced
from experiments.runtime.checks import check_devices
from experiments.runtime.defaults import Quick
from experiments.runtime.run_dir import Folder
from experiments.runtime.training import Training
from latent_flows._transforms import in_chunks
from latent_flows.evaluation.plausibility import Judge, code_density, path_plausibility
from latent_flows.geometry.metrics import pullback
from latent_flows.typing import Metric


@dataclass(frozen=True)
class Config(setup.Config):
    """A generator whose images are judged by a classifier."""

    PHASES: ClassVar[extension.Phases] = {"classifier": (classifier.PHASE,)}
    QUICK: ClassVar[Quick] = {
        **setup.Config.QUICK,
        "classifier.steps": 100,
        "classifier.batch_size": 64,
    }

    classifier: Training = field(
        default_factory=lambda: Training(
            steps=600, batch_size=128, learning_rate=2e-3, decay="cosine"
        )
    )
    """Optimiser and duration for the classifier that judges decoded images."""


class Judges(NamedTuple):
    """What latents and images are judged by."""

    log_density: Judge
    """Of latents, estimated from the first half of the held-out codes."""
    confidence: Judge | None
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


def check(config: Config, manifold: Manifold) -> None:
    """Reject a classifier that cannot be trained, before anything is written.

    Raises:
        ValueError: a batch larger than the data set, or one that the devices cannot share.
    """
    check_devices(classifier=config.classifier)
    if manifold.data is None:
        return  # without labels there is no classifier
    if config.classifier.batch_size > manifold.data.length:
        raise ValueError(
            f"classifier.batch_size ({config.classifier.batch_size}) is more than the "
            f"{manifold.data.length} examples of {manifold.data.name}"
        )


def appoint(folder: Folder, config: Config, manifold: Manifold) -> Judges:
    """Fit the density, and train the classifier in the run's folder."""
    with announced("fitting a density to the codes"):
        log_density = code_density(*np.array_split(np.asarray(manifold.test.codes), 2))
    if manifold.data is None or manifold.train.labels is None or manifold.test.labels is None:
        return Judges(log_density, None, None)
    classes = int(max(manifold.train.labels.max(), manifold.test.labels.max())) + 1
    network = Classifier(classes)
    apply: Any = network.apply  # flax types its result as a pair as well
    data = manifold.data
    params = classifier.train(
        folder,
        data,
        lambda key: network.init(key, jnp.zeros(data.image_shape)),
        lambda params, images: jax.vmap(partial(apply, params))(images),
        config.classifier,
        config.seed,
        "classifier",
    )
    probabilities = in_chunks(lambda x: nn.softmax(apply(params, x)))
    found = np.asarray(probabilities(manifold.test.images)).argmax(-1)
    return Judges(
        log_density,
        lambda images: np.asarray(probabilities(jnp.asarray(images))).max(-1),
        float(np.mean(found == manifold.test.labels)),
    )


def measure_paths(
    manifold: Manifold, judge: Judges, paths: Mapping[str, Paths]
) -> list[dict[str, Any]]:
    """What the paths of each method are like on average; see `path_plausibility`."""
    metrics: dict[str, Metric] = {
        "length": pullback(manifold.generator.decode),
        **{f"length_{kind}": manifold.metrics[kind] for kind in manifold.kinds},
    }
    rows = path_plausibility(
        manifold.generator.decode,
        {name: found.points for name, found in paths.items()},
        {name: length_of(metric) for name, metric in metrics.items()},
        manifold.train.images,
        judge.log_density,
        judge.confidence,
    )
    converged = [float(found.converged.mean()) for found in paths.values()]
    return [{**row, "converged": share} for row, share in zip(rows, converged, strict=True)]
