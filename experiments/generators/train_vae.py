"""Train a variational autoencoder: the generator that potential flows and geometry work on.

With --vae.decoders 8 eight decoders share the encoder, each example of a batch training one of
them: an ensemble, whose disagreement tells where there are no data (geometry.ensemble_pullback).
With --variance the deviation of its noise is fitted afterwards, mean and encoder frozen; with
--prior flow a flow from noise to its codes, through which latents are drawn from then on. The run
folder holds the parameters, metrics.json (held-out ELBO and importance-weighted bound; on sprites
also overlap, linear decodability of the factors and the share of valid samples), and pictures of
reconstructions, samples and losses.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Int

from experiments.generators import noise_std, prior_flow
from experiments.generators.bounds import measure
from experiments.generators.limits import (
    check_image_size,
    check_images_are_drawn,
    check_vae,
)
from experiments.generators.noise_std import KINDS, Deviation, Kind
from experiments.generators.prior_flow import PriorSettings
from experiments.generators.training_data import (
    ImageSize,
    Reading,
    ReadingFlags,
    augmented,
    encoded,
    load,
    reading_of,
    settled,
)
from experiments.runtime import extension, tables
from experiments.runtime.announcements import announced
from experiments.runtime.checks import check_devices
from experiments.runtime.defaults import Quick, Settings
from experiments.runtime.run_dir import Folder, open_folder
from experiments.runtime.training import Batch, Params, Training, fit
from latent_flows import data, objectives, plots
from latent_flows._transforms import in_chunks
from latent_flows._validation import at_least
from latent_flows.data import Dataset
from latent_flows.directions.transformations import TRANSFORMATIONS
from latent_flows.generators.frozen import FrozenGenerator, draw_latents
from latent_flows.generators.load import GENERATOR
from latent_flows.generators.stored import (
    StoredGenerator,
    StoredStd,
    restore_generator,
    to_bytes,
)
from latent_flows.generators.vae import VAE, VAEConfig, standardised
from latent_flows.typing import Scalar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PHASE = "vae"
STANDARD = 10_000
"""Vectors whose mean and deviation are taken for those of all."""
SAMPLES = 36
"""Draws from the prior that are shown."""


@dataclass(frozen=True)
class Objective:
    """The terms of the VAE's loss."""

    beta: float = 1.0
    """Weight of the KL divergence of the posterior from the prior."""
    total_correlation: float = 0.0
    """Extra weight of the total correlation of the codes (beta-TC-VAE's beta, minus 1). Its
    estimate on a batch is far too large where posteriors are narrow: total_correlation_gaussian,
    reported beside it, is the number to trust."""
    delay: int = 0
    """Steps in which both weights are 0, at first."""
    warmup: int = 50
    """Steps over which they rise after that."""
    decoded: int = 0
    """Images of a batch that are decoded as well as encoded; 0: all. The total correlation needs
    a large batch, which only the cheap encoder has to see."""
    augment: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            help="Transformations that every training image undergoes, each by a random amount, so "
            f"that the generator learns what the data do not show: {', '.join(TRANSFORMATIONS)}."
        ),
    ] = ()
    """Transformations that every training image undergoes, each by a random amount."""
    augment_ts: tuple[float, ...] = ()
    """The largest |t| of each of them."""

    def __post_init__(self) -> None:
        at_least(self, "objective.", beta=0, total_correlation=0, delay=0, warmup=0, decoded=0)
        if len(self.augment) != len(self.augment_ts) or not all(t > 0 for t in self.augment_ts):
            raise ValueError(
                "objective.augment_ts must hold one positive number for each of the "
                f"{len(self.augment)} transformations in objective.augment, got {self.augment_ts}"
            )

    @property
    def augmented(self) -> tuple[tuple[str, float], ...]:
        """Each transformation with its largest |t|."""
        return tuple(zip(self.augment, self.augment_ts, strict=True))


@dataclass(frozen=True)
class Config:
    """Train a variational autoencoder."""

    PHASES: ClassVar[extension.Phases] = {
        "training": (PHASE,),
        "deviation.training": KINDS["both"],
        "prior_flow.training": (prior_flow.PHASE,),
    }
    LATER: ClassVar = {"variance": ("none", "deviation."), "prior": ("normal", "prior_flow.")}
    MADE: ClassVar = (GENERATOR,)
    QUICK: ClassVar[Quick] = {
        "training.steps": 300,
        "training.batch_size": 32,
        "vae.width": 32,
        "vae.latent_dim": 16,
        "deviation.training.steps": 150,
        "deviation.training.batch_size": 32,
        "deviation.codes": 500,
        "deviation.centres": 32,
        "prior_flow.training.steps": 300,
        "prior_flow.codes": 2000,
        "test_images": 100,
        "iwae_samples": 8,
    }

    run: str = "runs/vae"
    """Run folder; the same command goes on with what it holds."""
    seed: int = 0
    """Source of all randomness."""
    data: str = "sprites"
    """Data set: sprites, scenes, digits, surface, a prepared TFDS image set by name (see
    TFDS_DATA_DIR), or the path of a folder of images, or of an .npz or .npy."""
    image_size: ImageSize = None
    """Pixels along each side; by default the data set's own."""
    reading: ReadingFlags = field(default_factory=Reading)
    """How a folder of images, or a file of arrays, is read."""
    labels: tuple[int, ...] = ()
    """Learn from examples with these labels only; none: all."""
    vae: VAEConfig = field(default_factory=VAEConfig)
    """Architecture."""
    objective: Objective = field(default_factory=Objective)
    """Loss."""
    training: Training = field(default_factory=Training)
    """Optimiser and duration."""
    variance: Literal["none", "rbf", "network", "both"] = "none"
    """Deviation of the noise to fit in a second stage: by an RBF network that grows away from data,
    by an ordinary network, or by both."""
    deviation: Deviation = field(default_factory=Deviation)
    """The second stage."""
    prior: Literal["normal", "flow"] = "normal"
    """Where latents come from: N(0, I), which codes may not fill; or a flow from there to codes,
    fitted in a stage of its own."""
    prior_flow: PriorSettings = field(default_factory=PriorSettings)
    """That stage."""
    test_images: int = 1000
    """Held-out images that the bounds are measured on."""
    iwae_samples: int = 64
    """Samples of the importance-weighted bound."""

    def __post_init__(self) -> None:
        for name in ("test_images", "iwae_samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if self.objective.decoded > self.training.batch_size:
            raise ValueError(
                f"objective.decoded ({self.objective.decoded}) is more than "
                f"training.batch_size ({self.training.batch_size})"
            )

    @staticmethod
    def follow(settings: Settings) -> None:
        """No more images are decoded than a batch has, and weights have risen by the end."""
        settings.at_most("objective.decoded", settings["training.batch_size"])
        steps = settings["training.steps"]
        settings.at_most("objective.warmup", steps)
        settings.at_most("objective.delay", max(steps - settings["objective.warmup"], 0))


SPRITES = Config(
    data="sprites",
    vae=VAEConfig(latent_dim=6, decoder="broadcast", depth=2, width=64),
    # Discs are drawn within a few hundred steps, that shapes have a direction is learnt some 500
    # later, and from many seeds never if weights, or the memory of the first gradients, are there
    # by then.
    objective=Objective(total_correlation=3.0, delay=1000, warmup=2000),
    training=Training(
        steps=3400, batch_size=64, learning_rate=4e-3, warmup=50, decay="cosine", b2=0.99
    ),
    test_images=500,
)
SPRITES_APART = replace(SPRITES, vae=replace(SPRITES.vae, apart=True))
DIGITS = Config(
    data="digits",
    vae=VAEConfig(latent_dim=8, encoder="mlp", decoder="mlp", width=32),
    objective=Objective(total_correlation=1.0),
    training=Training(steps=3000, batch_size=128, learning_rate=2e-3, warmup=50, decay="cosine"),
    test_images=297,
)
MNIST = Config(
    data="mnist",
    vae=VAEConfig(latent_dim=16, encoder="conv", decoder="conv", width=64),
    objective=Objective(total_correlation=1.0),
    training=Training(steps=8000, batch_size=128, learning_rate=2e-3, warmup=100, decay="cosine"),
)
MNIST_PAPER = replace(
    MNIST,
    vae=VAEConfig(latent_dim=324, encoder="conv", decoder="conv", width=64),
    objective=Objective(),
    training=replace(MNIST.training, steps=50_000, batch_size=256),
)

PLANE = VAEConfig(latent_dim=2, encoder="mlp", decoder="mlp", width=32)
SURFACE_PLANE = Config(
    data="surface",
    vae=replace(PLANE, width=8, likelihood="gaussian"),
    objective=Objective(beta=0.1),
    training=Training(steps=4000, batch_size=128, learning_rate=3e-3, warmup=50, decay="cosine"),
    variance="both",
    deviation=Deviation(centres=256, reach=1.25, noise=0.002),
)
DIGITS_PLANE = replace(
    DIGITS,
    vae=PLANE,
    objective=Objective(),
    variance="both",
    deviation=Deviation(centres=32, reach=1.25),
)
MNIST_PLANE = replace(
    MNIST,
    vae=PLANE,
    objective=Objective(),
    variance="both",
    training=replace(MNIST.training, steps=4000, learning_rate=1e-3),
)
MNIST012_PLANE = replace(MNIST_PLANE, labels=(0, 1, 2))

DIGITS_MOVED = replace(
    DIGITS,
    # Digits are centred and of one size: a generator of theirs can move none.
    objective=replace(
        DIGITS.objective,
        augment=("translate_x", "translate_y", "zoom"),
        augment_ts=(0.15, 0.15, 0.4),
    ),
)
MNIST_MOVED = Config(
    data="mnist",
    vae=VAEConfig(latent_dim=12, decoder="broadcast", depth=2, width=64),
    objective=Objective(
        total_correlation=1.0,
        augment=("translate_x", "translate_y", "zoom", "brightness"),
        augment_ts=(0.2, 0.2, 0.5, 0.7),
    ),
    training=Training(steps=3000, batch_size=64, learning_rate=3e-3, warmup=50, decay="cosine"),
)
SPRITES_CONV = Config(
    data="sprites",
    image_size=32,
    vae=VAEConfig(latent_dim=10, decoder="conv", width=64),
    training=Training(steps=4000, batch_size=64, learning_rate=2e-3, warmup=50, decay="cosine"),
    test_images=500,
)
SPRITES_SMALL = Config(
    data="sprites",
    image_size=32,
    vae=VAEConfig(latent_dim=6, decoder="broadcast", depth=2, width=48),
    training=Training(steps=2400, batch_size=64, learning_rate=4e-3, warmup=50, decay="cosine"),
)

SCENES = Config(
    data="scenes",
    image_size=32,
    # A hue takes two latents to go around in, and there are three.
    vae=VAEConfig(latent_dim=10, decoder="conv", width=64, likelihood="gaussian"),
    objective=Objective(total_correlation=1.0),
    training=Training(steps=3000, batch_size=64, learning_rate=2e-3, warmup=50, decay="cosine"),
    test_images=500,
)

IMAGES = Config(
    data="",
    image_size=32,
    vae=VAEConfig(latent_dim=16, encoder="conv", decoder="conv", width=64),
    training=Training(steps=3000, batch_size=64, learning_rate=2e-3, warmup=50, decay="cosine"),
    test_images=500,
)

VECTORS = Config(
    data="",
    vae=VAEConfig(latent_dim=8, encoder="mlp", decoder="mlp", width=32, likelihood="gaussian"),
    training=Training(steps=3000, batch_size=128, learning_rate=2e-3, warmup=50, decay="cosine"),
)

PRESETS = {
    name: (about, replace(config, run=f"runs/vae-{name}"))
    for name, about, config in (
        (
            "sprites",
            "beta-TC-VAE with a broadcast decoder on rendered sprites (minutes)",
            SPRITES,
        ),
        ("sprites-apart", "the same, where what shifts them does nothing else", SPRITES_APART),
        ("sprites-conv", "a plain convolutional VAE on sprites, of folded latents", SPRITES_CONV),
        ("sprites-small", "a small plain VAE on sprites, to vary its beta and seed", SPRITES_SMALL),
        ("scenes", "a convolutional beta-TC-VAE on scenes of six factors (minutes)", SCENES),
        ("digits", "a small MLP on scikit-learn's 8x8 digits (a minute)", DIGITS),
        ("digits-moved", "the same, of digits that are moved and zoomed", DIGITS_MOVED),
        ("mnist", "a convolutional VAE with 16 latents on MNIST, through TFDS", MNIST),
        ("mnist-moved", "MNIST, of digits that are moved, zoomed and dimmed", MNIST_MOVED),
        ("mnist-paper", "the published latent size, 324, on MNIST; for a GPU", MNIST_PAPER),
        ("surface-plane", "two latents on points of a surface with a hole", SURFACE_PLANE),
        ("digits-plane", "two latents on scikit-learn's digits", DIGITS_PLANE),
        ("mnist012-plane", "two latents on the digits 0, 1 and 2 of MNIST", MNIST012_PLANE),
        ("mnist-plane", "two latents on MNIST", MNIST_PLANE),
        ("vectors", "vectors, the rows of an .npy or .npz [n, d]: --data PATH", VECTORS),
        ("images", "a convolutional VAE of 32 pixels on a folder of images: --data PATH", IMAGES),
    )
}


def check(config: Config, dataset: Dataset) -> None:
    """Reject what the data cannot give, before a run folder is made.

    Raises:
        ValueError: a batch larger than the data set, images that nobody draws or that make no
            sense, or more than the memory.
    """
    if len(dataset.image_shape) == 3:
        check_images_are_drawn(dataset)
    elif config.objective.augment:
        raise ValueError(f"objective.augment transforms images, and {dataset.name} holds vectors")
    stages = [config.training] + ([config.deviation.training] if KINDS[config.variance] else [])
    if config.prior == "flow":
        prior_flow.check(config.prior_flow, config.vae.latent_dim, dataset)
    if (largest := max(stage.batch_size for stage in stages)) > dataset.length:
        raise ValueError(
            f"a batch of {largest} is more than the {dataset.length} examples "
            f"of {dataset.name}; lower the batch size"
        )
    check_vae(config.vae, dataset.image_shape, largest)
    image = jax.ShapeDtypeStruct(dataset.image_shape, jnp.float32)
    jax.eval_shape(partial(augmented, config.objective.augmented), jax.random.key(0), image)


def model(config: Config, dataset: Dataset) -> VAE:
    """The architecture, for examples of the data set's shape."""
    return VAE(config.vae, dataset.image_shape)


def loss(
    vae: VAE, objective: Objective, params: Params, key: Array, step: Array, batch: Batch
) -> tuple[Scalar, dict[str, Scalar]]:
    """Negative bound per pixel; the terms are in nats per image."""
    images, apply = batch["image"], _apply(vae)
    if objective.augment:
        key, augment_key = jax.random.split(key)
        keys = jax.random.split(augment_key, len(images))
        images = jax.vmap(partial(augmented, objective.augmented))(keys, images)
    mean, std = apply(params, images, method=vae.encode)
    z = mean + std * jax.random.normal(key, mean.shape)
    kept = objective.decoded or len(images)
    if vae.config.decoders == 1:
        log_likelihoods = apply(params, images[:kept], z[:kept], method=vae.log_likelihood)
        reconstruction = -jnp.mean(log_likelihoods)
    else:
        shares = equal_shares(jax.random.fold_in(key, 1), kept, vae.config.decoders)
        each = partial(apply, params, method=vae.member_log_likelihoods)
        reconstruction = -jnp.mean(jax.vmap(each)(images[shares], z[shares]))
    kl = jnp.mean(jnp.sum(jax.vmap(objectives.gaussian_kl)(mean, std), -1))
    correlation = objectives.total_correlation(z, mean, std)
    rise = jnp.clip((step + 1 - objective.delay) / max(objective.warmup, 1), 0.0, 1.0)
    total = reconstruction + rise * (
        objective.beta * kl + objective.total_correlation * correlation
    )
    terms = {
        "reconstruction": reconstruction,
        "kl": kl,
        "total_correlation": correlation,
        "total_correlation_gaussian": objectives.gaussian_total_correlation(mean, std),
    }
    return total / images[0].size, terms


def equal_shares(key: Array, count: int, members: int) -> Int[Array, "rows members"]:
    """Which example trains which decoder: every one a random one, and all as many.

    Args:
        key: source of randomness.
        count: examples of a batch.
        members: decoders.

    Returns:
        Places in the batch. Where it cannot be shared out, some are there twice, each as likely.

    >>> sorted(equal_shares(jax.random.key(0), 6, 3).ravel().tolist())
    [0, 1, 2, 3, 4, 5]
    """
    rows = -(-count // members)
    places = jax.random.permutation(key, count)
    return jnp.resize(places, (rows, members))


def _apply(vae: VAE) -> Callable[..., Any]:
    # flax types every result as a pair as well.
    return vae.apply


def train(folder: Folder, config: Config, dataset: Dataset) -> Params:
    """Train, or go on training, the VAE of a run folder."""
    vae = model(config, dataset)
    return fit(
        folder,
        PHASE,
        init=partial(initial, vae, known=standard(config, dataset)),
        loss=partial(loss, vae, config.objective),
        batches=partial(images, dataset, config.training.batch_size, config.seed),
        config=config.training,
        seed=config.seed,
        describe=f"VAE on {dataset.name}",
    )


def train_deviation(
    folder: Folder, kind: Kind, config: Config, dataset: Dataset, params: Params
) -> Params:
    """Fit, or go on fitting, the deviation of a trained VAE's noise."""
    vae = model(config, dataset)
    with announced("encoding images, to place the kernels of the deviation"):
        codes = kernel_codes(config, dataset, vae, params)
    return noise_std.train(
        folder,
        kind,
        config.deviation,
        vae,
        params,
        codes=codes,
        batches=partial(images, dataset, config.deviation.training.batch_size, config.seed),
        seed=config.seed,
    )


def kernel_codes(config: Config, dataset: Dataset, vae: VAE, params: Params) -> Float[Array, "n d"]:
    """Codes of some training images: where the kernels of an RBF network belong."""
    chosen = np.random.default_rng(config.seed).permutation(dataset.length)
    examples = dataset.examples(chosen[: config.deviation.codes])
    encode = in_chunks(partial(_apply(vae), params, method=vae.encode))
    return encode(jnp.asarray(examples["image"]))[0]


def images(
    dataset: Dataset, size: int, seed: int, start: int, sharding: NamedSharding
) -> Iterator[Batch]:
    """Batches of images alone, from the batch of step `start` on."""
    for batch in data.batches(dataset, batch_size=size, seed=seed, start=start, sharding=sharding):
        yield {"image": batch["image"]}


def initial(vae: VAE, key: Array, known: Float[Array, "n d"] | None = None) -> Params:
    """Fresh parameters; of a VAE of vectors with the mean and the deviation of some."""
    params = vae.init(key, jnp.zeros(vae.image_shape))
    return params if known is None else standardised(params, known)


def standard(config: Config, dataset: Dataset) -> Float[Array, "n d"] | None:
    """Vectors of the data that say what their mean and deviation are; None of images."""
    if len(dataset.image_shape) == 3:
        return None
    chosen = np.random.default_rng(config.seed).permutation(dataset.length)[:STANDARD]
    return jnp.asarray(dataset.examples(chosen)["image"])


def draw(folder: Folder, generator: FrozenGenerator, test: Dataset) -> list[str]:
    """Save the pictures of a VAE; gives the files of those that could not be drawn."""
    figures: dict[str, Callable[[], Figure]] = {
        "reconstructions": partial(reconstructions, generator, test)
    }
    if len(generator.event_shape) == 3:
        figures["samples"] = partial(samples, generator)
    for phase in (PHASE, *KINDS["both"], prior_flow.PHASE):
        if rows := folder.rows(phase):
            unit = "latent" if phase == prior_flow.PHASE else "pixel"
            caption = f"Loss per {unit} of the phase '{phase}', and its terms."
            figures[f"losses_{phase}"] = partial(plots.loss_curves, rows, caption=caption)
    return tables.save_figures(folder, figures)


def reconstructions(generator: FrozenGenerator, test: Dataset) -> "Figure":
    """Held-out examples and what becomes of them."""
    chosen = np.arange(0, test.length, max(test.length // 16, 1))[:16]
    images = jnp.asarray(test.examples(chosen)["image"])
    mean, _ = encoded(generator, images)
    rebuilt = np.asarray(jax.vmap(generator.decode)(mean))
    draw = plots.reconstructions if images.ndim == 4 else plots.vector_reconstructions
    return draw(
        np.asarray(images), rebuilt, f"Held-out examples of {test.name} and their reconstructions."
    )


def samples(generator: FrozenGenerator) -> "Figure":
    """What the generator makes of draws from its prior."""
    drawn = draw_latents(generator.prior, jax.random.key(0), SAMPLES)
    made = np.asarray(in_chunks(generator.decode)(drawn))
    return plots.samples_grid(made, caption=f"Draws from the prior of {generator.name}.")


def run(config: Config) -> int | None:
    """Train, measure, draw."""
    config = settled(config)
    check_image_size(config.image_size)
    fitted = {"deviation.training": config.deviation.training} if KINDS[config.variance] else {}
    if config.prior == "flow":
        fitted["prior_flow.training"] = config.prior_flow.training
    check_devices(training=config.training, **fitted)
    train_set, test_set = load(config, "train"), load(config, "test")
    check(config, train_set)
    jax.eval_shape(partial(initial, model(config, train_set)), jax.random.key(0))
    folder = open_folder(config.run, config)
    params = train(folder, config, train_set)
    vae = model(config, train_set)
    stds: dict[str, StoredStd] = {
        kind: noise_std.stored(
            kind, config.deviation, train_deviation(folder, kind, config, train_set, params)
        )
        for kind in KINDS[config.variance]
    }
    found = StoredGenerator(
        vae,
        params,
        f"the VAE of {train_set.name}",
        config.data,
        config.labels,
        config.objective.augmented,
        stds,
        reading_of(config),
    )
    if config.prior == "flow":
        flow = prior_flow.train(
            folder, config.prior_flow, restore_generator(found), train_set, config.seed
        )
        found = found._replace(prior_flow=flow)
    folder.write_bytes(GENERATOR, to_bytes(found))
    generator = restore_generator(found)
    failed = draw(folder, generator, test_set)
    metrics = folder.remember(
        "metrics",
        lambda: measure(
            generator,
            test_set,
            count=config.test_images,
            samples=config.iwae_samples,
            noise=config.deviation.noise,
            seed=config.seed,
            flow=found.prior_flow,
        ),
    )
    with folder.understood("metrics"):
        tables.show(f"VAE on {train_set.name}, held out", [metrics])
    return tables.where(folder, failed)
