"""What a run of directions is made of: its flags, and the objects that they name."""

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array, Float

from experiments.directions import factors
from experiments.generators import load as sources
from experiments.generators import train_vae, vae_runs
from experiments.generators.spec import Flags, Source, Supply, draws
from experiments.generators.train_vae import Objective
from experiments.runtime import extension
from experiments.runtime.announcements import announced
from experiments.runtime.checks import check_devices, check_image_size
from experiments.runtime.defaults import Quick, Settings
from experiments.runtime.run_dir import Folder
from experiments.runtime.training import Params, Training
from latent_flows import directions
from latent_flows._transforms import closure_convert, in_chunks
from latent_flows._validation import at_least
from latent_flows.data import Dataset
from latent_flows.directions.losses import Loss, blurred_error
from latent_flows.generators import vae as vaes
from latent_flows.generators.vae import VAE, VAEConfig
from latent_flows.typing import Generator

REACH = {
    "translate_x": 0.2,
    "translate_y": 0.2,
    "zoom": 0.4,
    "rotate": 0.5,
    "brightness": 0.5,
    "contrast": 0.5,
    "hue": 0.2,
    "saturation": 0.5,
}
"""The usual largest |t| of each transformation."""
FEWEST = 4
"""Trajectories that must be left after dropping, for some to be held out."""
SURVEYED = 1000
"""Images whose factors' ranges, and latents whose norms, are taken for what is usual."""


@dataclass(frozen=True)
class Inversion:
    """The trajectories."""

    count: int = 48
    """Trajectories of each transformation, from codes of training images (without an encoder: from
    draws of the prior, here and below)."""
    amounts: int = 4
    """Values of t on each side of 0."""
    steps: int = 30
    """Of Adam, at each of them."""
    sigma: float = 3.0
    """Standard deviation of the blur of the loss "blurred", in pixels."""
    batch: int = 48
    """Trajectories that are followed at once."""

    def __post_init__(self) -> None:
        at_least(self, "inversion.", count=1, amounts=1, steps=1, sigma=0, batch=1)


@dataclass(frozen=True)
class Fit:
    """The models of a direction."""

    drop: float = 0.1
    """Share of the trajectories, those of the largest errors, that is left out."""
    knots: int = 11
    """Of the monotone function along a straight direction."""
    width: int = 16
    """Units of a hidden layer of the potential of a curved one."""
    flow_weight: float = 0.0
    """Of the match between its flow and the trajectories' velocities. These also wander where the
    image does not change, which a match takes for slowness: with 1 it goes too far."""
    ridge: float = 0.01
    """Weight of its squared slope, against slopes across the trajectories: without it the curved
    flow leaves them."""
    steps: int = 1000
    """Of Adam, for either."""

    def __post_init__(self) -> None:
        at_least(self, "fit.", drop=0, knots=2, width=1, flow_weight=0, ridge=0, steps=1)
        if not self.drop < 1:
            raise ValueError(f"fit.drop must lie in [0, 1), got {self.drop}")


@dataclass(frozen=True)
class Control:
    """What is measured at the end."""

    starts: int = 128
    """Codes of held-out images that are moved."""
    amounts: int = 10
    """Changes that are asked of each, on each side of 0."""
    stretch: float = 2.0
    """The largest of them, in units of the largest t that was trained on."""
    bound: float = 0.1
    """Error (root mean square, as a share of the factor's range) up to which control counts as
    such when its reach is measured."""
    candidates: int = 6
    """Directions that each baseline proposes, of which the best by ground truth is taken."""

    def __post_init__(self) -> None:
        at_least(self, "control.", starts=2, amounts=1, stretch=1, candidates=1)
        if not self.bound > 0:
            raise ValueError(f"control.bound must be positive, got {self.bound}")


@dataclass(frozen=True)
class Config:
    """Find the directions of a generator that perform given transformations."""

    PHASES: ClassVar[extension.Phases] = {"vae_training": (train_vae.PHASE,)}
    QUICK: ClassVar[Quick] = {
        **train_vae.QUICK,
        "losses": ("blurred",),
        "inversion.count": 12,
        "inversion.amounts": 2,
        "inversion.steps": 15,
        "inversion.batch": 36,
        "fit.steps": 200,
        "control.starts": 16,
        "control.amounts": 4,
        "control.candidates": 2,
        "measure": False,
    }

    run: str = "runs/directions"
    """Run folder; the same command goes on with what it holds."""
    seed: int = 0
    """Source of all randomness."""
    generator: str = ""
    """Run folder whose generator to use: of train_vae, train_gan, import_weights, or of another
    experiment on one; empty, and no generator.path: train the VAE described below first."""
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
    transformations: tuple[str, ...] = ("translate_x", "translate_y", "zoom")
    """translate_x, translate_y, zoom, rotate, brightness, contrast, hue, saturation."""
    ts: tuple[float, ...] = ()
    """The largest |t| of each of them; none: the usual ones."""
    losses: tuple[str, ...] = ("blurred", "mse", "dssim")
    """Of the images of a trajectory and their targets: blurred, mse, dssim. The first is that of
    all comparisons but the one of losses."""
    inversion: Inversion = field(default_factory=Inversion)
    """Trajectories."""
    fit: Fit = field(default_factory=Fit)
    """Models."""
    control: Control = field(default_factory=Control)
    """Measurements."""
    measure: Annotated[bool, tyro.conf.arg(name="scores")] = True
    """Measure scores, which may take longer than all else; without them pictures come first, and
    the same command with scores adds these to the run."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if not self.transformations or not self.losses:
            raise ValueError("name at least one of the transformations and one of the losses")
        for what in ("transformations", "losses"):
            names = getattr(self, what)
            if len(set(names)) < len(names):
                raise ValueError(f"{what} must differ from each other, got {', '.join(names)}")
        if self.ts and len(self.ts) != len(self.transformations):
            raise ValueError(
                f"ts must have one value for each of the {len(self.transformations)} "
                f"transformations, got {len(self.ts)}; give --ts as well as --transformations"
            )
        if not all(t > 0 for t in self.ts):
            raise ValueError(f"ts must be positive, got {self.ts}")
        left = self.inversion.count - int(self.fit.drop * self.inversion.count)
        if left < FEWEST:
            raise ValueError(
                f"too few trajectories: of inversion.count ({self.inversion.count}) only {left} "
                f"are left after fit.drop ({self.fit.drop}); at least {FEWEST} are needed"
            )

    @staticmethod
    def follow(settings: Settings) -> None:
        """The VAE's, and the usual reach of transformations that are named."""
        train_vae.follow(settings, "vae_objective", "vae_training")
        if settings.is_given("transformations"):
            settings.put("ts", ())

    def own_vae(self) -> train_vae.Config:
        """The VAE that is trained where no run is named."""
        return train_vae.embedded(self)


class Subject(NamedTuple):
    """A frozen generator, where to start from, and what can be measured on its images."""

    generator: Generator
    """Its parameters are its leaves."""
    weight: Float[Array, "k d"] | None
    """Of the layers that take the latent, stacked; None where none is linear."""
    starts: Float[Array, "n d"]
    """Codes of training images, drawn from the posterior; draws from the prior without an
    encoder."""
    held_out: Float[Array, "m d"]
    """Codes of held-out images, or other draws."""
    radius: float
    """The largest norm of a code or draw: latents farther out are not searched."""
    data: str
    """Name of the data set, or of a generator whose data are not at hand."""
    factors: tuple[str, ...]
    """Names of what can be measured."""
    low: np.ndarray
    """1% quantile of each factor over images of data, or of draws where these are not at hand."""
    high: np.ndarray
    """99% quantile."""
    faintest: float
    """Mean of an image below which nothing is measured on it."""
    bounded: bool
    """Whether no factor leaves its range: those of data that were made so."""


def supplied(config: Config) -> Supply | None:
    """The generator that the flags name, or None where it is that of a VAE.

    Raises:
        UsageError: there is no such generator.
    """
    return sources.supplied(config.generator, config.source, config.seed)


def check(config: Config, image_shape: tuple[int, ...]) -> None:
    """Reject what makes no sense for such images before anything is computed.

    Raises:
        ValueError: an unknown transformation or loss, or one that needs colours where there are
            none.
    """
    image = jax.ShapeDtypeStruct(image_shape, jnp.float32)
    mask = jax.ShapeDtypeStruct(image_shape[:2], jnp.float32)
    amount = jax.ShapeDtypeStruct((), jnp.float32)
    for name in config.transformations:
        jax.eval_shape(directions.transformation(name), image, amount)
    for name in config.losses:
        jax.eval_shape(loss(config, name), image, image, mask)
    check_image_size(config.image_size)
    if not config.generator and not config.source.path:
        check_devices(vae_training=config.vae_training)


def check_data(config: Config, dataset: Dataset) -> None:
    """Reject more trajectories than there are images, and what makes no sense for the VAE.

    Raises:
        ValueError: that.
    """
    if config.inversion.count > dataset.length:
        raise ValueError(
            f"inversion.count ({config.inversion.count}) is more than the {dataset.length} "
            f"examples of {dataset.name}"
        )
    train_vae.check(vae_runs.source(config)[1], dataset)
    vae_runs.check(config, dataset)


def loss(config: Config, name: str) -> Loss:
    """A reconstruction loss by its name, blurred as much as the flags say."""
    if name == "blurred":
        return partial(blurred_error, sigma=config.inversion.sigma)
    return directions.loss(name)


def reach(config: Config) -> dict[str, float]:
    """The largest |t| of each transformation."""
    given = config.ts or [REACH[name] for name in config.transformations]
    return dict(zip(config.transformations, given, strict=True))


def load_subject(folder: Folder, config: Config, train: Dataset, test: Dataset) -> Subject:
    """Train the VAE in the run's folder or take it from where it is; encode data."""
    _, settings = vae_runs.source(config)
    vae, params = vae_runs.load_vae(folder, config, train)
    with announced("encoding images, and measuring their factors"):
        return encoded(config, settings, vae, params, train, test)


def encoded(
    config: Config,
    settings: train_vae.Config,
    vae: VAE,
    params: Params,
    train: Dataset,
    test: Dataset,
) -> Subject:
    """A trained VAE's decoder, and data as its encoder sees them."""
    images = partial(some, config, settings)
    starts = codes(config, vae, params, images(train, config.inversion.count))
    held_out = codes(config, vae, params, images(test, config.control.starts))
    norms = jnp.linalg.norm(codes(config, vae, params, images(train, SURVEYED)), axis=1)
    names = factors.measurable(config.transformations)
    return Subject(
        closure_convert(vaes.generator(vae, params), vae.config.latent_dim),
        vaes.first_weights(vae, params),
        starts,
        held_out,
        float(norms.max()),
        train.name,
        names,
        *factors.survey(names, train.name, images(test, SURVEYED)),
        bounded=train.name == "sprites" or bool(settings.objective.augment),
    )


def supplied_subject(config: Config, supply: Supply) -> Subject:
    """A generator without an encoder, between draws from its prior."""
    counts = config.inversion.count, config.control.starts, SURVEYED
    keys = jax.random.split(jax.random.key(config.seed), len(counts))
    starts, held_out, others = (
        draws(supply.prior, key, count) for key, count in zip(keys, counts, strict=True)
    )
    names, data = factors.measurable(config.transformations), supply.data
    if data is not None and data.image_shape == supply.image_shape:
        name = data.name
        seen = factors.survey(names, name, some(config, train_vae.Config(), data, SURVEYED))
    else:
        name = supply.name
        seen = factors.survey(names, name, others, supply.generator)
    return Subject(
        supply.generator,
        supply.weight,
        starts,
        held_out,
        float(jnp.linalg.norm(others, axis=1).max()),
        name,
        names,
        *seen,
        bounded=name == "sprites",
    )


def some(
    config: Config, settings: train_vae.Config, dataset: Dataset, count: int
) -> Float[Array, "n h w c"]:
    """Random examples, as the generator was shown them."""
    chosen = np.random.default_rng(config.seed).permutation(dataset.length)[:count]
    return train_vae.shown(settings, dataset, chosen)


def codes(
    config: Config, vae: VAE, params: Params, images: Float[Array, "n h w c"]
) -> Float[Array, "n d"]:
    """Draws from the posterior of images."""
    mean, std = in_chunks(partial(vae.apply, params, method=vae.encode))(images)
    return mean + std * jax.random.normal(jax.random.key(config.seed), mean.shape)
