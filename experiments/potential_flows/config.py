"""What a run of potential flows is made of: its flags, and the objects rebuilt from them."""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array, Float

from experiments.generators import load as source
from experiments.generators import train_vae, vae_runs
from experiments.generators.spec import Flags, Source, Supply, draws
from experiments.generators.train_vae import Objective
from experiments.potential_flows import families as flow_families
from experiments.potential_flows.families import EQUATIONS
from experiments.potential_flows.flags import Flows, Scores, Weights
from experiments.runtime import extension
from experiments.runtime.announcements import announced
from experiments.runtime.checks import check_devices, check_image_size
from experiments.runtime.cli import Failure
from experiments.runtime.defaults import Quick, Settings
from experiments.runtime.run_dir import read_config
from experiments.runtime.training import Params, Training, restore
from latent_flows import _memory, coordinates, flows, potentials
from latent_flows._transforms import in_chunks
from latent_flows._validation import choose
from latent_flows.classifiers import CLASSIFIERS, SIDES, Network, pair_features
from latent_flows.coordinates import AffineCoordinates
from latent_flows.data import Dataset
from latent_flows.generators import vae as vaes
from latent_flows.generators.vae import VAE, VAEConfig
from latent_flows.geometry.interpolation import blend
from latent_flows.geometry.metrics import pullback, stochastic_pullback
from latent_flows.potentials import PotentialNet
from latent_flows.typing import Field, Generator, Latent, Metric

PHASE = "flows"
FACTORS = ("x", "y", "size", "elongation")
VISIBLE_AT = 128
"""Latents at which the most visible axes are looked for."""
DAMPING = 0.01
"""Added to a metric in units of its mean, for where nothing that is generated changes."""
CLIMBING = 0.3
"""The same for natural gradients: with 0.01 and 0.1, unit steps along the inverse explode."""


@dataclass(frozen=True)
class Config:
    """Learn potential flows of a generator."""

    PHASES: ClassVar[extension.Phases] = {"vae_training": (train_vae.PHASE,), "training": (PHASE,)}
    QUICK: ClassVar[Quick] = {
        **train_vae.QUICK,
        "flows.codes": 512,
        "flows.bank": 128,
        "flows.width": 64,
        "training.steps": 100,
        "training.batch_size": 32,
        "scores.starts": 16,
        "scores.pairs": 64,
        "scores.test_images": 64,
        "scores.vp_steps": 20,
        "scores.seeds": 1,
        "measure": False,
    }

    run: str = "runs/potential_flows"
    """Run folder; the same command goes on with what it holds."""
    seed: int = 0
    """Source of all randomness."""
    generator: str = ""
    """Run folder whose generator to use: of train_vae, train_gan, import_weights or
    potential_flows; empty, and no generator.path: train the VAE described below first."""
    source: Flags = field(default_factory=Source)
    """A generator that is no VAE's."""
    data: str = "sprites"
    """Data set: sprites, digits, or a prepared TFDS image set by name (see TFDS_DATA_DIR)."""
    image_size: int | None = None
    """Pixels along each side; by default the data set's own."""
    vae: VAEConfig = field(default_factory=VAEConfig)
    """Architecture of the generator."""
    vae_objective: Objective = field(default_factory=Objective)
    """Loss of the generator."""
    vae_training: Training = field(default_factory=Training)
    """Optimiser and duration for the generator."""
    flows: Flows = field(default_factory=Flows)
    """Potentials."""
    weights: Weights = field(default_factory=Weights)
    """Loss of the potentials."""
    training: Training = field(default_factory=Training)
    """Optimiser and duration for the potentials."""
    scores: Scores = field(default_factory=Scores)
    """Measurements."""
    measure: Annotated[bool, tyro.conf.arg(name="scores")] = True
    """Measure scores, which may take longer than all else; without them pictures come first, and
    the same command with scores adds these to the run."""

    def __post_init__(self) -> None:
        pairs = self.scores.pairs
        if most := [share for share in self.scores.fractions if round(share * pairs) >= pairs]:
            raise ValueError(
                f"scores.fractions leave nothing of {pairs} pairs to score: {most[0]}; raise "
                "scores.pairs or lower it"
            )
        if self.training.batch_size % self.flows.count:
            raise ValueError(
                f"training.batch_size ({self.training.batch_size}) must be a multiple of "
                f"flows.count ({self.flows.count}): each potential gets an equal share"
            )
        if self.training.batch_size > (self.flows.bank or self.flows.codes):
            raise ValueError(
                f"training.batch_size ({self.training.batch_size}) is more than the "
                f"{self.flows.bank or self.flows.codes} latents to draw from; raise flows.bank "
                "and flows.codes"
            )

    @staticmethod
    def follow(settings: Settings) -> None:
        """Equal shares of a batch, which is drawn from enough latents."""
        train_vae.follow(settings, "vae_objective", "vae_training")
        batch, bank, codes = "training.batch_size", "flows.bank", "flows.codes"
        if settings.is_given(batch):
            settings.divisor_of("flows.count", settings[batch], least=2)
            settings.at_least(codes, settings[batch])
            if settings[bank]:
                settings.put(bank, max(settings[bank], min(settings[batch], settings[codes])))
        if settings.is_given(bank) or not settings.is_given(codes):
            settings.at_least(codes, settings[bank])
        settings.at_most(bank, settings[codes])
        settings.multiple_of(batch, settings["flows.count"], settings[bank] or settings[codes])

    def own_vae(self) -> train_vae.Config:
        """The VAE that is trained where no run is named."""
        return replace(train_vae.embedded(self), test_images=self.scores.test_images)


def check(config: Config) -> None:
    """Reject unknown names before anything is computed.

    Raises:
        ValueError: naming the nearest valid ones.
    """
    choose("pde", config.flows.pde, EQUATIONS)
    flows.solver(config.flows.solver)
    check_image_size(config.image_size)
    is_given = bool(config.generator or config.source.path)
    check_devices(
        training=config.training, **({} if is_given else {"vae_training": config.vae_training})
    )


def check_images(config: Config, image_shape: tuple[int, ...]) -> None:
    """Reject a classifier that cannot see such images before anything is computed.

    Raises:
        ValueError: they are too small for it.
    """
    image = jax.ShapeDtypeStruct(image_shape, jnp.float32)
    jax.eval_shape(
        lambda image: classifier(config).init(jax.random.key(0), seen(config, image, image)), image
    )


def check_data(config: Config, dataset: Dataset, latent_dim: int) -> None:
    """Reject what so few images cannot give, before anything is computed.

    Raises:
        ValueError: fewer codes than a batch has, or than components can be found from.
    """
    codes = min(config.flows.codes, dataset.length)
    starts = min(config.flows.bank or codes, codes)
    if config.training.batch_size > starts:
        raise ValueError(
            f"training.batch_size ({config.training.batch_size}) is more than the {starts} codes "
            f"of {dataset.name} to draw from; lower it"
        )
    if config.flows.frame == "ica" and codes < 2 * latent_dim:
        raise ValueError(
            f"flows.codes: {codes} codes are too few to find up to {latent_dim} components, which "
            f"takes {2 * latent_dim}; raise it, or take flows.frame identity"
        )


def check_memory(config: Config, dim: int) -> None:
    """Reject latents so long, or so many, that their arrays alone do not fit into memory.

    Args:
        config: the run's.
        dim: numbers of a latent.

    Raises:
        ValueError: there is less memory than that.
    """
    matrices = max(config.flows.bank, VISIBLE_AT if config.flows.frame == "visible" else 1)
    _memory.require(
        4 * (2 * config.flows.codes * dim + matrices * dim**2),
        f"{config.flows.codes} latents of {dim} numbers with {matrices} matrices of their size",
        "lower --generator.latent-dim or --vae.latent-dim, --flows.codes or --flows.bank",
    )


def supplied(config: Config) -> Supply | None:
    """The generator that the flags name, or None where it is that of a VAE.

    Raises:
        UsageError: there is no such generator.
    """
    return source.supplied(config.generator, config.source, config.seed)


class Subject(NamedTuple):
    """The frozen generator, the frame that flows live in, and where they start."""

    vae: VAE | None
    """Whose decoder the generator is; None for a generator without an encoder."""
    params: Params
    """Of the VAE."""
    frame: AffineCoordinates
    generator: Generator
    """From the frame's coordinates to an image."""
    starts: Float[Array, "n m"]
    """Starting points, in the frame's coordinates."""
    low: Latent
    """1% quantile of the starting points."""
    high: Latent
    """99% quantile."""
    name: str = ""
    """What the generator is or was trained on, for captions."""
    weight: Float[Array, "k d"] | None = None
    """Of the layers that take the latent, stacked."""
    metric: Metric | None = None
    """Of the generator, for flows that climb in it."""
    manifold: Metric | None = None
    """Of the generator, for equations that hold on its manifold."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return jax.eval_shape(self.generator, self.starts[0]).shape


def load_subject(config: Config, dataset: Dataset, vae: VAE, params: Params) -> Subject:
    """Build the frame and the starting points on a trained VAE."""
    key = jax.random.key(config.seed)
    count = min(config.flows.codes, dataset.length)
    chosen = np.random.default_rng(config.seed).permutation(dataset.length)[:count]
    with announced(f"encoding {count} images"):
        images = jnp.asarray(dataset.examples(chosen)["image"])
        mean, std = in_chunks(partial(vae.apply, params, method=vae.encode))(images)
    noise = jax.random.normal(key, mean.shape)
    latents = mean + std * noise if config.flows.starts == "posterior" else noise
    decode = vaes.generator(vae, params)
    if config.flows.frame == "ica":
        if not coordinates.active(std).any():
            raise Failure(
                "the VAE says nothing of its data: no latent dimension is active, so there are no "
                "components to find; give it more --vae-training.steps or a smaller "
                "--vae-objective.beta in a new --run, or take --flows.frame identity"
            )
        with announced("finding independent components of the codes"):
            frame = coordinates.independent_components(
                mean, coordinates.active(std), seed=config.seed
            )
    else:
        frame = frame_of(config, decode, latents)
    weight = vaes.first_weights(vae, params)
    return _subject(config, vae, params, frame, decode, latents, dataset.name, weight)


def supplied_subject(config: Config, supply: Supply) -> Subject:
    """Build the frame and the starting points on a generator without an encoder."""
    with announced(f"drawing {config.flows.codes} latents"):
        latents = draws(supply.prior, jax.random.key(config.seed), config.flows.codes)
    frame = frame_of(config, supply.generator, latents)
    generator, name, weight = supply.generator, supply.name, supply.weight
    return _subject(config, None, None, frame, generator, latents, name, weight)


def frame_of(
    config: Config, generator: Generator, latents: Float[Array, "n d"]
) -> AffineCoordinates:
    """The frame that the flags name, for latents about which no more is known."""
    if config.flows.frame == "identity":
        return coordinates.identity(latents.shape[1])
    if config.flows.frame == "visible":
        with announced("finding the axes that change images most"):
            return visible_axes(generator, latents)
    return principal_axes(latents)


def principal_axes(latents: Float[Array, "n d"]) -> AffineCoordinates:
    """Coordinates in which latents have mean 0 and covariance 1, by decreasing variance."""
    mean = latents.mean(0)
    variances, axes = jnp.linalg.eigh(jnp.atleast_2d(jnp.cov(latents.T)))
    kept = np.asarray(variances > 1e-6 * variances[-1])
    return AffineCoordinates(mean, (axes * jnp.sqrt(jnp.maximum(variances, 0)))[:, kept][:, ::-1])


def visible_axes(generator: Generator, latents: Float[Array, "n d"]) -> AffineCoordinates:
    """Orthogonal unit axes by how much an image changes along them: of the mean metric `E J' J`."""
    metrics = pullback_metrics(generator, latents[:VISIBLE_AT])
    _, axes = jnp.linalg.eigh(metrics.mean(0))
    return AffineCoordinates(jnp.zeros(latents.shape[1]), axes[:, ::-1])


def pullback_metrics(generator: Generator, points: Float[Array, "n m"]) -> Float[Array, "n m m"]:
    """The generator's pull-back metric `J' J` at each point, a few at a time."""
    return jax.jit(partial(jax.lax.map, pullback(generator), batch_size=64))(points)


def unit_metric(
    generator: Generator, points: Float[Array, "n m"], damping: float = DAMPING
) -> Metric:
    """The generator's metric in units of its mean over points, nowhere singular."""
    size = jnp.trace(pullback_metrics(generator, points[:VISIBLE_AT]).mean(0)) / points.shape[1]
    unit = jax.lax.rsqrt(jnp.maximum(size, 1e-12))
    return stochastic_pullback(
        lambda z: unit * generator(z), lambda z: jnp.sqrt(jnp.asarray(damping, z.dtype)) * z
    )


def _subject(
    config: Config,
    vae: VAE | None,
    params: Params,
    frame: AffineCoordinates,
    generator: Generator,
    latents: Float[Array, "n d"],
    name: str,
    weight: Array | None,
) -> Subject:
    starts = jax.vmap(partial(coordinates.from_latent, frame))(latents)
    low, high = jnp.quantile(starts, 0.01, axis=0), jnp.quantile(starts, 0.99, axis=0)
    within = coordinates.compose(generator, frame)
    subject = Subject(vae, params, frame, within, starts, low, high, name, weight)
    with announced("measuring the generator's metric"):
        return _with_metrics(config, subject)


def _with_metrics(config: Config, subject: Subject) -> Subject:
    settings, within, starts = config.flows, subject.generator, subject.starts
    if settings.laplacian == "beltrami":
        subject = subject._replace(manifold=unit_metric(within, starts))
    if settings.gradient == "natural":
        metric = unit_metric(within, starts, CLIMBING)
        if settings.bank:
            bank = starts[: settings.bank]
            found = jax.jit(partial(jax.lax.map, metric, batch_size=64))(bank)
            metric = blend(bank, found)
        subject = subject._replace(metric=metric)
    return subject


def network(config: Config) -> PotentialNet:
    """The network all potentials share.

    Raises:
        UsageError: the run is not about potentials.
    """
    return flow_families.potential_network(config.flows)


def vector_field(config: Config, subject: Subject) -> Field:
    """How one member of the family moves a latent, given its parameters."""
    return flow_families.field(config.flows, subject.metric)


def initial(config: Config, subject: Subject, key: Array) -> Params:
    """Fresh parameters of the potentials, the PDE's coefficients and the pair classifier."""
    potential_key, classifier_key = jax.random.split(key)
    count, dim = config.flows.count, subject.starts.shape[1]
    image = jnp.zeros(subject.image_shape)
    return {
        "potentials": potentials.init_stack(
            flow_families.network(config.flows), potential_key, count, dim
        ),
        "coefficients": jnp.full((count,), 0.5),
        "classifier": classifier(config).init(classifier_key, seen(config, image, image)),
    }


def classifier(config: Config) -> Network:
    """The network that names the potential from an image pair."""
    return CLASSIFIERS[config.flows.classifier](config.flows.count)


def seen(
    config: Config, before: Float[Array, "*n h w c"], after: Float[Array, "*n h w c"]
) -> Array:
    """What the classifier sees of pairs of images."""
    return pair_features(before, after, side=SIDES[config.flows.classifier])


def load_run(path: str | Path) -> tuple[Config, Dataset | None, Subject, Params]:
    """Everything of a finished run: configuration, training data, subject, learnt parameters.

    Raises:
        UsageError: the folder holds no finished run of this experiment.
    """
    config = read_config(path, Config)
    dataset: Dataset | None = None
    if (found := supplied(config)) is not None:
        subject = supplied_subject(config, found)
    else:
        home, settings = vae_runs.source(config)
        dataset = train_vae.load(settings, "train")
        vae = train_vae.model(settings, dataset)
        vae_params = restore(home, train_vae.PHASE, partial(train_vae.initial, vae))
        subject = load_subject(config, dataset, vae, vae_params)
    return config, dataset, subject, restore(path, PHASE, partial(initial, config, subject))
