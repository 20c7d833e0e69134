"""Who says whether a latent, or the image it decodes to, could be data, and what of paths and of
the volume is told by that: a density of the codes, and a classifier of images."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from experiments.generators import classifier
from experiments.generators.noise_std import KINDS
from experiments.latent_oddity import setup
from experiments.latent_oddity.paths import BATCH, Paths, length_of
from experiments.latent_oddity.setup import Subject, box, everywhere
from experiments.runtime import extension
from experiments.runtime.announcements import announced
from experiments.runtime.checks import check_devices
from experiments.runtime.defaults import Quick
from experiments.runtime.run_dir import Folder
from experiments.runtime.training import Training
from latent_flows._transforms import in_chunks
from latent_flows.geometry.metrics import log_volume, pullback
from latent_flows.typing import Metric

BANDWIDTHS = (0.05, 0.1, 0.2, 0.4)
"""Of the density, in standard deviations of the codes: the best on other codes is taken."""
BORDER = 0.5
"""In standard deviations of the codes: how far from the nearest code the border of data ends."""

Points: TypeAlias = Array | np.ndarray
"""Latents `[n, d]` or images `[n, h, w, c]`."""


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


def check(config: Config, subject: Subject) -> None:
    """Reject a classifier that cannot be trained, before anything is written.

    Raises:
        ValueError: a batch larger than the data set, or one that the devices cannot share.
    """
    check_devices(classifier=config.classifier)
    if config.classifier.batch_size > subject.data.length:
        raise ValueError(
            f"classifier.batch_size ({config.classifier.batch_size}) is more than the "
            f"{subject.data.length} examples of {subject.data.name}"
        )


def appoint(folder: Folder, config: Config, subject: Subject) -> Judges:
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
        subject.data,
        lambda key: network.init(key, jnp.zeros(subject.data.image_shape)),
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


def measure_paths(
    subject: Subject, judge: Judges, paths: Mapping[str, Paths]
) -> list[dict[str, Any]]:
    """What the paths of each method are like on average.

    `gap` is the distance in data space from the point of a path that is farthest from all training
    images to the nearest of them.
    """

    from sklearn.neighbors import NearestNeighbors

    # Those of all methods at once, so that each measure is compiled once.
    points = np.stack([found.points for found in paths.values()])
    methods, count, steps, dim = points.shape
    latents = points.reshape(-1, dim)
    images = everywhere(subject.generator.decode, latents)
    train_images = np.asarray(subject.train.images).reshape(len(subject.train.images), -1)
    nearest = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(train_images)
    gaps, _ = nearest.kneighbors(images.reshape(len(images), -1))
    along = {"log_density": judge.log_density(latents), "gap": gaps}
    if judge.confidence is not None:
        along["confidence"] = judge.confidence(images)
    along = {name: values.reshape(methods, count, steps) for name, values in along.items()}
    metrics: dict[str, Metric] = {
        "length": pullback(subject.generator.decode),
        **{f"length_{kind}": subject.metrics[kind] for kind in KINDS["both"]},
    }
    lengths = {
        name: everywhere(length_of(metric), points.reshape(-1, steps, dim), BATCH)
        for name, metric in metrics.items()
    }
    rows = []
    for i, (name, found) in enumerate(paths.items()):
        row: dict[str, Any] = {"path": name}
        row |= {key: float(v.reshape(methods, count)[i].mean()) for key, v in lengths.items()}
        for key in ("confidence", "log_density"):
            if key in along:
                row[key] = float(along[key][i].mean())
                row[f"lowest_{key}"] = float(along[key][i].min(1).mean())
        row["gap"] = float(along["gap"][i].max(1).mean())
        row["converged"] = float(found.converged.mean())
        rows.append(row)
    return rows


def measure_volume(
    metrics: Mapping[str, Metric],
    codes: Float[np.ndarray, "n d"],
    off: Mapping[str, Float[np.ndarray, "m d"]],
) -> list[dict[str, Any]]:
    """The log volume of metrics on codes, and at places off the data.

    `border_above` and `far_above` are the probabilities that the volume there is larger than on a
    code: 1/2 where the two cannot be told apart.

    Args:
        metrics: by the name that their row has.
        codes: held-out ones.
        off: other places, by name.
    """

    from sklearn.metrics import roc_auc_score

    rows = []
    for name, metric in metrics.items():
        volume = log_volume(metric)
        # A point where the metric is not regular counts as the smallest volume of all.
        values = {
            place: np.nan_to_num(everywhere(volume, points, 64), nan=-np.inf)
            for place, points in {"data": codes, **off}.items()
            if len(points)
        }
        on = values.pop("data")
        row: dict[str, Any] = {"deviation": name, "on_data": float(np.median(on))}
        for place, found in values.items():
            truth = np.repeat([0, 1], [len(on), len(found)])
            scores = np.maximum(np.concatenate([on, found]), np.finfo(np.float32).min)
            row[place] = float(np.median(found))
            row[f"{place}_above"] = float(roc_auc_score(truth, scores))
        rows.append(row)
    return rows


def off_data(
    codes: Float[np.ndarray, "n d"], judge: Judges, count: int, seed: int
) -> dict[str, Float[np.ndarray, "m d"]]:
    """Points of the box of the codes where hardly any data is.

    Args:
        codes: held-out ones.
        judge: its density says where data is.
        count: how many points of each kind, at most.
        seed: source of all randomness.

    Returns:
        Those in holes and near the "border", and those "far": farther from all codes than `BORDER`.
    """

    from sklearn.neighbors import NearestNeighbors

    low, high = box(codes)
    limit = np.quantile(judge.log_density(codes), 0.01)
    points = np.random.default_rng(seed).uniform(low, high, (20 * count, codes.shape[1]))
    outside = points[judge.log_density(points) < limit].astype(np.float32)
    gaps, _ = NearestNeighbors(n_neighbors=1).fit(codes).kneighbors(outside)
    near = gaps[:, 0] < BORDER * codes.std()
    return {"border": outside[near][:count], "far": outside[~near][:count]}
