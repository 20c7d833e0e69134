"""What experiments on the geometry of a generator share: its flags, and the objects they name.

The generator is a VAE whose noise has a deviation that was fitted afterwards, once by an RBF
network and once by an ordinary network: two metrics, to be compared with each other and with
straight lines.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from experiments.generators import classifier, noise_std, train_vae, vae_runs
from experiments.generators import load as sources
from experiments.generators.noise_std import KINDS, Deviation, Kind
from experiments.generators.spec import Flags, Source, Supply
from experiments.generators.train_vae import Objective
from experiments.runtime import extension
from experiments.runtime.announcements import announced
from experiments.runtime.checks import check_devices, check_image_size
from experiments.runtime.cli import Presets, UsageError, module_name
from experiments.runtime.defaults import Quick, Settings
from experiments.runtime.run_dir import Folder
from experiments.runtime.training import Params, Training, restore
from latent_flows._transforms import in_chunks
from latent_flows.data import Dataset
from latent_flows.generators import vae as vaes
from latent_flows.generators.vae import VAE, VAEConfig
from latent_flows.geometry.metrics import pullback, stochastic_pullback
from latent_flows.typing import Generator, Metric

EXPERIMENTS = tuple(
    f"experiments.{name}" for name in ("geodesics", "clustering", "land", "random_walk")
)
"""Whose configurations are made of this one, and whose runs hold a generator."""
EUCLIDEAN = "euclidean"
FEWEST = 4
"""Held-out examples without which nothing can be measured."""
METHODS = (*KINDS["both"], EUCLIDEAN)
"""The metrics of a subject, by name."""


@dataclass(frozen=True)
class Config:
    """The generator, and the points whose geometry is studied."""

    PHASES: ClassVar[extension.Phases] = {
        "vae_training": (train_vae.PHASE,),
        "deviation.training": KINDS["both"],
        "classifier": (classifier.PHASE,),
    }
    QUICK: ClassVar[Quick] = {
        **train_vae.QUICK,
        "vae_training.batch_size": 64,
        "deviation.training.steps": 150,
        "deviation.training.batch_size": 64,
        "deviation.codes": 500,
        "deviation.centres": 32,
        "classifier.steps": 100,
        "classifier.batch_size": 64,
        "codes": 300,
    }

    run: str = "runs/manifold"
    """Run folder; the same command goes on with what it holds."""
    seed: int = 0
    """Source of all randomness."""
    generator: str = ""
    """Run folder of a finished train_vae, or of an experiment like this one, whose VAE to use (and
    the deviations, if it has both); for geodesics also of train_gan or import_weights; empty, and
    no generator.path: train the VAE described below first."""
    source: Flags = field(default_factory=Source)
    """A generator that is no VAE's; for geodesics."""
    data: str = "surface"
    """Data set: surface, digits, sprites, or a prepared TFDS image set by name (see
    TFDS_DATA_DIR)."""
    image_size: int | None = None
    """Pixels along each side; by default the data set's own."""
    labels: tuple[int, ...] = ()
    """Take examples with these labels only; none: all."""
    vae: VAEConfig = field(default_factory=VAEConfig)
    """Architecture of the generator."""
    vae_objective: Objective = field(default_factory=Objective)
    """Loss of the generator."""
    vae_training: Training = field(default_factory=Training)
    """Optimiser and duration for the generator."""
    deviation: Deviation = field(default_factory=Deviation)
    """Deviations of the generator's noise."""
    classifier: Training = field(
        default_factory=lambda: Training(
            steps=600, batch_size=128, learning_rate=2e-3, decay="cosine"
        )
    )
    """Optimiser and duration for the classifier that judges decoded images."""
    codes: int = 2000
    """Examples, at most, that are encoded, of the training and of the held-out part each."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if self.codes < 16:
            raise ValueError(f"codes must be at least 16, got {self.codes}")

    @staticmethod
    def follow(settings: Settings) -> None:
        """The VAE's."""
        train_vae.follow(settings, "vae_objective", "vae_training")

    def own_vae(self) -> train_vae.Config:
        """The VAE that is trained where no run is named."""
        more: Any = {"labels": self.labels, "deviation": self.deviation, "variance": "both"}
        return replace(train_vae.embedded(self), **more)


Kinds = TypeVar("Kinds", bound=Config)

GENERATORS = {
    "surface": ("points of a surface with a hole, two latents", train_vae.SURFACE_PLANE),
    "digits": ("scikit-learn's digits, two latents", train_vae.DIGITS_PLANE),
    "mnist012": ("the digits 0, 1 and 2 of MNIST, two latents", train_vae.MNIST012_PLANE),
    "mnist": ("MNIST, two latents", train_vae.MNIST_PLANE),
}
"""The data that every one of these experiments has a preset for, and what to train on it."""


def presets(kind: type[Kinds], **settings: Any) -> Presets[Kinds]:
    """An experiment's presets, one for each of `GENERATORS`.

    Args:
        kind: its configuration, a subclass of `Config`.
        settings: fields that differ from the defaults of `kind`, in all presets.
    """
    experiment = module_name(kind).rpartition(".")[2]
    return {
        name: (text, with_vae(kind(run=f"runs/{experiment}-{name}", **settings), vae))
        for name, (text, vae) in GENERATORS.items()
    }


def with_vae(config: Kinds, generator: train_vae.Config) -> Kinds:
    """A configuration that trains the given VAE as its generator."""
    whole = train_vae.with_vae(config, generator)
    return replace(whole, labels=generator.labels, deviation=generator.deviation)


def supplied(config: Config) -> Supply | None:
    """The generator that the flags name, or None where it is that of a VAE.

    Raises:
        UsageError: there is no such generator.
    """
    return sources.supplied(config.generator, config.source, config.seed)


class Sample(NamedTuple):
    """Examples, and where the encoder puts them."""

    images: Float[Array, "n h w c"]
    codes: Float[Array, "n d"]
    """Means of the posterior."""
    labels: Int[np.ndarray, "n"] | None


class Subject(NamedTuple):
    """A frozen generator with its metrics, and data seen through it."""

    vae: VAE
    params: Params
    """Of the VAE."""
    mean: Generator
    """`z -> image`."""
    stds: Mapping[Kind, Generator]
    """`z -> sigma`, of the RBF network ("rbf") and of the ordinary one ("network")."""
    metrics: Mapping[str, Metric]
    """The expected metric with each of these deviations, and "euclidean", the latent's own."""
    train: Sample
    """Of the data that the generator was trained on."""
    test: Sample
    """Of held-out data."""


def datasets(config: Config) -> tuple[Dataset, Dataset]:
    """The training and the held-out part of the data, checked.

    Raises:
        UsageError: the generator is no VAE's, so that there is nothing to encode data with.
        ValueError: a batch larger than the data set.
    """
    if sources.is_supplied(config.generator, config.source):
        raise UsageError(
            f"{module_name(type(config))} is about codes of data, and this generator has no "
            "encoder: only a VAE will do (experiments.geodesics takes any generator)"
        )
    home, settings = vae_runs.source(config)
    check_image_size(config.image_size)
    finished = KINDS[settings.variance] if config.generator else ()
    stages = {"classifier": config.classifier}
    if not config.generator:
        stages["vae_training"] = config.vae_training
    if set(finished) != set(KINDS["both"]):
        stages["deviation.training"] = config.deviation.training
    check_devices(**stages)
    train = train_vae.load(settings, "train")
    train_vae.check(replace(settings, deviation=config.deviation), train)
    if config.classifier.batch_size > train.length:
        raise ValueError(
            f"classifier.batch_size ({config.classifier.batch_size}) is more than the "
            f"{train.length} examples of {train.name}"
        )
    test = train_vae.load(settings, "test")
    if test.length < FEWEST:
        raise ValueError(
            f"{test.name} has {test.length} held-out examples; at least {FEWEST} are needed, half "
            "of them for a density"
        )
    if config.generator:
        vae = train_vae.model(settings, train)
        restore(home, train_vae.PHASE, partial(train_vae.initial, vae))
    return train, test


def count(config: Config, dataset: Dataset) -> int:
    """How many examples of a part of the data are encoded."""
    return min(config.codes, dataset.length)


def labels(config: Config, dataset: Dataset) -> Int[np.ndarray, "n"] | None:
    """The labels of the examples that are encoded."""
    if "label" not in dataset.examples(np.arange(1)):
        return None
    chosen = np.random.default_rng(config.seed).permutation(dataset.length)[: config.codes]
    return np.asarray(dataset.examples(chosen)["label"])


def load_subject(folder: Folder, config: Config, train: Dataset, test: Dataset) -> Subject:
    """Train the generator in the run's folder, or take it from where it is."""
    home, settings = vae_runs.source(config)
    vae, params = vae_runs.load_vae(folder, config, train)
    finished = KINDS[settings.variance] if config.generator else ()
    stds = {}
    for kind in KINDS["both"]:
        if kind in finished:
            shape = settings
            with announced(f"loading the deviation of {home}"):
                codes = train_vae.kernel_codes(settings, train, vae, params)
                init = partial(
                    noise_std.initial, kind, settings.deviation, vae, codes, settings.seed
                )
                fitted = restore(home, kind, init)
        else:
            shape = replace(settings, deviation=config.deviation)
            fitted = train_vae.train_deviation(folder, kind, shape, train, params)
        stds[kind] = noise_std.close(kind, shape.deviation, vae, fitted)
    return subject(config, vae, params, stds, train, test)


def subject(
    config: Config,
    vae: VAE,
    params: Params,
    stds: Mapping[Kind, Generator],
    train: Dataset,
    test: Dataset,
) -> Subject:
    """The metrics of a generator, and data encoded."""
    mean = vaes.generator(vae, params)
    metrics: dict[str, Metric] = {
        kind: stochastic_pullback(mean, std) for kind, std in stds.items()
    }
    metrics[EUCLIDEAN] = pullback(lambda z: z)
    draw = partial(sample, config, vae, params)
    with announced("encoding images"):
        return Subject(vae, params, mean, stds, metrics, draw(train), draw(test))


def sample(config: Config, vae: VAE, params: Params, dataset: Dataset) -> Sample:
    """Random examples and their codes."""
    chosen = np.random.default_rng(config.seed).permutation(dataset.length)[: config.codes]
    examples = dataset.examples(chosen)
    images = jnp.asarray(examples["image"])
    codes, _ = in_chunks(partial(vae.apply, params, method=vae.encode))(images)
    labels = np.asarray(examples["label"]) if "label" in examples else None
    return Sample(images, codes, labels)


def everywhere(
    function: Callable[[Array], Any], points: Array | np.ndarray, batch_size: int = 256
) -> np.ndarray:
    """A function of one point at many, in bounded memory."""
    return np.asarray(in_chunks(function, batch_size)(jnp.asarray(points)))
