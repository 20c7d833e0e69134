"""What a run of potential flows is made of: its flags, and the objects rebuilt from them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from experiments import train_vae
from experiments.command import UsageError, module_name
from experiments.folder import Folder, made_by, read_config
from experiments.source import Flags, Source, Supply, draws, is_given, supply
from experiments.train_vae import Objective, in_chunks
from experiments.training import Params, Training, restore
from latent_flows import flows, frames, pde, potentials
from latent_flows.choices import choose
from latent_flows.classifiers import CLASSIFIERS, SIDES, Network, pair_features
from latent_flows.data import Dataset
from latent_flows.frames import Frame
from latent_flows.generators import vae as vaes
from latent_flows.generators.vae import VAE, VAEConfig
from latent_flows.geometry.metrics import pullback
from latent_flows.limits import at_least
from latent_flows.typing import Generator, Latent, Potential, Scalar

PHASE = "flows"
FACTORS = ("x", "y", "size", "elongation")
SPEED_FLOOR = 0.1
VISIBLE_AT = 128
"""Latents at which the most visible axes are looked for."""

Equation = Callable[[Potential, Scalar], pde.Residual]

EQUATIONS: dict[str, Equation | None] = {
    "wave": pde.wave,
    "heat": pde.heat,
    "hamilton_jacobi": lambda u, _: pde.hamilton_jacobi(u),
    # The potential as a density that relaxes to the prior N(0, I).
    "fokker_planck": lambda u, d: pde.fokker_planck(u, lambda t, z: -z, d),
    "none": None,
}
"""Residuals by name, as functions of a potential and one positive learnt coefficient."""


@dataclass(frozen=True)
class Flows:
    """The potentials and their flows."""

    count: int = 4
    """Number of potentials, K."""
    horizon: int = 10
    """Time steps of a traversal, T, each of unit time."""
    pde: str = "wave"
    """Equation of the potentials: wave, heat, hamilton_jacobi, fokker_planck or none."""
    initial: Literal["exact", "free", "static"] = "exact"
    """exact: at rest at time 0 by construction; free: encouraged by the loss; static: u has no
    time."""
    solver: str = "euler"
    """Solver of the training trajectories; euler takes unit steps, as published."""
    width: int = 64
    """Units of a potential's hidden layers."""
    depth: int = 2
    """Hidden layers of a potential."""
    reverse: bool = True
    """Follow half of the training trajectories backwards."""
    frame: Literal["ica", "visible", "identity"] = "ica"
    """Coordinates the flows live in: independent components of the codes (without an encoder:
    whitened principal components of draws); directions that change the image most first; or the
    latent's own."""
    starts: Literal["posterior", "prior"] = "posterior"
    """Where traversals start: codes of data, or draws from the prior (always, without an encoder).
    """
    codes: int = 4096
    """Number of starting points, and of images encoded to find the frame."""
    bank: int = 1024
    """Latents at which the generator's metric is computed once, before training; 0: a
    Jacobian-vector product at every step instead (for large latents)."""
    pace: float = 1.0
    """Data-space length per unit time that flows are drawn to (root mean square, pixels)."""
    classifier: Literal["small", "lenet", "resnet18"] = "small"
    """Network that names the potential from an image pair; lenet and resnet18 as published."""
    at_once: int = 0
    """Image pairs that the generator makes at once in a training step, to save memory; 0: all."""

    def __post_init__(self) -> None:
        at_least(self, "flows.", count=2, horizon=2, width=1, depth=1, codes=16, bank=0, at_once=0)
        if self.bank > self.codes:
            raise ValueError(f"flows.bank ({self.bank}) is more than flows.codes ({self.codes})")
        if not self.pace > 0:
            raise ValueError(f"flows.pace must be positive, got {self.pace}")


@dataclass(frozen=True)
class Weights:
    """Weights of the loss terms, each of which is of order 1; 0 leaves a term out."""

    classification: float = 1.0
    """Cross-entropy of naming the potential from an image pair, in units of log K."""
    residual: float = 1.0
    """PDE residual, relative to the size of the equation's terms."""
    initial: float = 1.0
    """Squared velocity at time 0, relative to that along the flow (with --flows.initial free)."""
    stillness: float = 1.0
    """Lack of variation along the flow: bounded form of the published - E |J v|^2."""
    pace: float = 0.0
    """Squared log-ratio of each flow's speed in data space to flows.pace."""
    outside: float = 0.0
    """Squared distance that paths go beyond the range of the codes."""
    sparsity: float = 0.0
    """Entropy of a flow over the frame's axes, in the generator's metric."""
    overlap: float = 0.0
    """Share of axes that two flows have in common, in the generator's metric."""
    inconsistency: float = 0.0
    """Lack of a common direction of a flow over starting points and times."""

    def __post_init__(self) -> None:
        at_least(self, "weights.", **dict.fromkeys(vars(self), 0))


@dataclass(frozen=True)
class Scores:
    """What is measured at the end."""

    starts: int = 128
    """Starting points of the measured traversals, of each traversal."""
    pairs: int = 1024
    """Image pairs per traversal for variation predictability (VP)."""
    fractions: tuple[float, ...] = (0.01, 0.1)
    """Shares of the pairs that the VP classifier learns from."""
    length: float = 0.0
    """Data-space length of the long displacement; 0: the median of the flows' own."""
    short: float = 0.25
    """Short displacement, as a share of the long one."""
    test_images: int = 1000
    """Held-out images that the generator's bounds are measured on."""
    vp_steps: int = 150
    """Training steps of a VP classifier."""
    seeds: int = 3
    """VP classifiers per score."""
    closed_form: bool = False
    """Compare with SeFa (where a linear layer takes the latent) and GANSpace directions too."""

    def __post_init__(self) -> None:
        at_least(self, "scores.", starts=2, pairs=2, test_images=1, vp_steps=1, seeds=1, length=0)
        if not (0 < self.short <= 1 and all(0 < f < 1 for f in self.fractions)):
            raise ValueError(f"scores.short and scores.fractions must lie in (0, 1), got {self}")


@dataclass(frozen=True)
class Config:
    """Learn potential flows of a generator."""

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

    def __post_init__(self) -> None:
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


def check(config: Config) -> None:
    """Reject unknown names before anything is computed.

    Raises:
        ValueError: naming the nearest valid ones.
    """
    choose("pde", config.flows.pde, EQUATIONS)
    flows.solver(config.flows.solver)


def generator_run(config: Config) -> Path:
    """The run folder that holds the generator: this one, or that of an earlier run."""
    if not config.generator or config.source.path:
        return Path(config.run)
    if made_by(config.generator) == module_name(Config):
        return generator_run(read_config(config.generator, Config))
    return Path(config.generator)


def supplied(config: Config) -> Supply | None:
    """The generator that the flags name, or None where it is that of a VAE.

    Raises:
        UsageError: there is no such generator.
    """
    own = bool(config.source.path)
    if not own and config.generator and made_by(config.generator) == module_name(Config):
        earlier = read_config(config.generator, Config)
        if config.source != Source():
            raise UsageError(
                f"--generator {config.generator} is a run of flows, which has its own generator; "
                "leave out the other flags of the generator"
            )
        return supplied(earlier)
    if not is_given(config.generator, config.source):
        if config.source != Source():
            raise UsageError(
                "flags such as --generator.prior and --generator.space are for a generator without "
                "an encoder: name one by --generator.path, or by --generator and its run folder"
            )
        return None
    return supply(config.generator, config.source, config.seed)


def vae_config(config: Config) -> train_vae.Config:
    """The VAE's own configuration: that of the run named, or of the fields given here.

    Raises:
        UsageError: the generator is no VAE's.
    """
    if config.source.path:
        raise UsageError(
            f"{config.run} is about the generator {config.source.path}, which is no VAE's; "
            "an encoder is needed here"
        )
    if config.generator:
        folder = generator_run(config)
        if made_by(folder) == module_name(Config):
            return vae_config(read_config(folder, Config))
        return read_config(folder, train_vae.Config)
    return replace(train_vae.embedded(config), test_images=config.scores.test_images)


class Subject(NamedTuple):
    """The frozen generator, the frame that flows live in, and where they start."""

    vae: VAE | None
    """Whose decoder the generator is; None for a generator without an encoder."""
    params: Params
    """Of the VAE."""
    frame: Frame
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

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return jax.eval_shape(self.generator, self.starts[0]).shape


def load_subject(config: Config, dataset: Dataset, params: Params) -> Subject:
    """Build the frame and the starting points on a trained VAE."""
    vae = train_vae.model(vae_config(config), dataset)
    key = jax.random.key(config.seed)
    count = min(config.flows.codes, dataset.length)
    chosen = np.random.default_rng(config.seed).permutation(dataset.length)[:count]
    images = jnp.asarray(dataset.examples(chosen)["image"])
    mean, std = in_chunks(partial(vae.apply, params, method=vae.encode))(images)
    noise = jax.random.normal(key, mean.shape)
    latents = mean + std * noise if config.flows.starts == "posterior" else noise
    decode = vaes.generator(vae, params)
    if config.flows.frame == "ica":
        frame = frames.independent_components(mean, frames.active(std), seed=config.seed)
    else:
        frame = frame_of(config, decode, latents)
    weight = vaes.first_weights(vae, params)
    return _subject(vae, params, frame, decode, latents, dataset.name, weight)


def supplied_subject(config: Config, supply: Supply) -> Subject:
    """Build the frame and the starting points on a generator without an encoder."""
    latents = draws(supply.prior, jax.random.key(config.seed), config.flows.codes)
    frame = frame_of(config, supply.generator, latents)
    return _subject(None, None, frame, supply.generator, latents, supply.name, supply.weight)


def frame_of(config: Config, generator: Generator, latents: Float[Array, "n d"]) -> Frame:
    """The frame that the flags name, for latents about which no more is known."""
    if config.flows.frame == "identity":
        return frames.identity(latents.shape[1])
    if config.flows.frame == "visible":
        return visible_axes(generator, latents)
    return principal_axes(latents)


def principal_axes(latents: Float[Array, "n d"]) -> Frame:
    """Coordinates in which latents have mean 0 and covariance 1, by decreasing variance."""
    mean = latents.mean(0)
    variances, axes = jnp.linalg.eigh(jnp.cov(latents.T))
    kept = np.asarray(variances > 1e-6 * variances[-1])
    return Frame(mean, (axes * jnp.sqrt(jnp.maximum(variances, 0)))[:, kept][:, ::-1])


def visible_axes(generator: Generator, latents: Float[Array, "n d"]) -> Frame:
    """Orthogonal unit axes by how much an image changes along them: of the mean metric `E J' J`."""
    metrics = pullback_metrics(generator, latents[:VISIBLE_AT])
    _, axes = jnp.linalg.eigh(metrics.mean(0))
    return Frame(jnp.zeros(latents.shape[1]), axes[:, ::-1])


def pullback_metrics(generator: Generator, points: Float[Array, "n m"]) -> Float[Array, "n m m"]:
    """The generator's pull-back metric `J' J` at each point, a few at a time."""
    return jax.jit(partial(jax.lax.map, pullback(generator), batch_size=64))(points)


def _subject(
    vae: VAE | None,
    params: Params,
    frame: Frame,
    generator: Generator,
    latents: Float[Array, "n d"],
    name: str,
    weight: Array | None,
) -> Subject:
    starts = jax.vmap(partial(frames.from_latent, frame))(latents)
    low, high = jnp.quantile(starts, 0.01, axis=0), jnp.quantile(starts, 0.99, axis=0)
    within = frames.compose(generator, frame)
    return Subject(vae, params, frame, within, starts, low, high, name, weight)


def network(config: Config) -> potentials.PotentialNet:
    """The network all potentials share."""
    return potentials.PotentialNet(
        width=config.flows.width,
        depth=config.flows.depth,
        horizon=float(config.flows.horizon),
        initial=config.flows.initial,
    )


def coefficient(raw: Scalar) -> Scalar:
    """A positive coefficient of the PDE (wave speed, diffusivity) that cannot vanish."""
    return SPEED_FLOOR + jax.nn.softplus(raw)


def velocity(net: potentials.PotentialNet, params: PyTree, t: Scalar, z: Latent) -> Latent:
    """The gradient of one potential."""
    return jax.grad(lambda z: net.apply(params, t, z))(z)


def load_vae(folder: Folder, config: Config, dataset: Dataset) -> Params:
    """The VAE's parameters: trained here, or taken from the run named by `generator`."""
    settings = vae_config(config)
    if not config.generator:
        return train_vae.train(folder, settings, dataset)
    vae = train_vae.model(settings, dataset)
    return restore(generator_run(config), train_vae.PHASE, partial(train_vae.initial, vae))


def initial(config: Config, subject: Subject, key: Array) -> Params:
    """Fresh parameters of the potentials, the PDE's coefficients and the pair classifier."""
    potential_key, classifier_key = jax.random.split(key)
    count, dim = config.flows.count, subject.starts.shape[1]
    image = jnp.zeros(subject.image_shape)
    return {
        "potentials": potentials.init_stack(network(config), potential_key, count, dim),
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
        settings = vae_config(config)
        dataset = train_vae.load(settings, "train")
        vae = train_vae.model(settings, dataset)
        home = generator_run(config)
        vae_params = restore(home, train_vae.PHASE, partial(train_vae.initial, vae))
        subject = load_subject(config, dataset, vae_params)
    return config, dataset, subject, restore(path, PHASE, partial(initial, config, subject))
