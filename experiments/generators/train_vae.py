"""Train a variational autoencoder: the generator that potential flows and geometry work on.

With --variance the deviation of its noise is fitted afterwards, mean and encoder frozen. The run
folder holds the parameters, metrics.json (held-out ELBO and importance-weighted bound; on sprites
also overlap, linear decodability of the factors and the share of valid samples), and pictures of
reconstructions, samples and losses.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Int

from experiments.generators import noise_std
from experiments.generators.noise_std import KINDS, Deviation, Kind
from experiments.runtime import budget, extension, tables
from experiments.runtime.announcements import announced
from experiments.runtime.checks import check_devices, check_image_size
from experiments.runtime.defaults import Quick, Settings
from experiments.runtime.run_dir import Folder, open_folder
from experiments.runtime.training import Batch, Params, Training, fit
from latent_flows import data, objectives, plots
from latent_flows._transforms import closure_convert_at
from latent_flows._validation import at_least
from latent_flows.data import Dataset, sprites
from latent_flows.directions import transformation
from latent_flows.evaluation import elbo, iwae_bound
from latent_flows.generators.vae import VAE, VAEConfig
from latent_flows.typing import Scalar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PHASE = "vae"
CHUNK = 250  # images that are encoded, or latents that are decoded, at once


@dataclass(frozen=True)
class Objective:
    """The terms of the VAE's loss."""

    beta: float = 1.0
    """Weight of the KL divergence of the posterior from the prior."""
    total_correlation: float = 0.0
    """Extra weight of the total correlation of the codes (beta-TC-VAE's beta, minus 1). Its
    estimate on a batch is far too large where posteriors are narrow: total_correlation_gaussian,
    reported beside it, is the number to trust."""
    warmup: int = 50
    """Steps over which both weights rise from 0."""
    decoded: int = 0
    """Images of a batch that are decoded as well as encoded; 0: all. The total correlation needs
    a large batch, which only the cheap encoder has to see."""
    augment: tuple[str, ...] = ()
    """Transformations that every training image undergoes, each by a random amount, so that the
    generator learns what the data do not show: translate_x, translate_y, zoom, rotate, brightness,
    contrast, hue, saturation."""
    augment_ts: tuple[float, ...] = ()
    """The largest |t| of each of them."""

    def __post_init__(self) -> None:
        at_least(self, "objective.", beta=0, total_correlation=0, warmup=0, decoded=0)
        if len(self.augment) != len(self.augment_ts) or not all(t > 0 for t in self.augment_ts):
            raise ValueError(
                "objective.augment_ts must hold one positive number for each of the "
                f"{len(self.augment)} transformations in objective.augment, got {self.augment_ts}"
            )


@dataclass(frozen=True)
class Config:
    """Train a variational autoencoder."""

    PHASES: ClassVar[extension.Phases] = {
        "training": (PHASE,),
        "deviation.training": KINDS["both"],
    }
    QUICK: ClassVar[Quick] = {
        "training.steps": 300,
        "training.batch_size": 32,
        "vae.width": 32,
        "vae.latent_dim": 16,
        "deviation.training.steps": 150,
        "deviation.training.batch_size": 32,
        "deviation.codes": 500,
        "deviation.centres": 32,
        "test_images": 100,
        "iwae_samples": 8,
    }

    run: str = "runs/vae"
    """Run folder; the same command goes on with what it holds."""
    seed: int = 0
    """Source of all randomness."""
    data: str = "sprites"
    """Data set: sprites, digits, surface, or a prepared TFDS image set by name (see
    TFDS_DATA_DIR)."""
    image_size: int | None = None
    """Pixels along each side; by default the data set's own."""
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
        """No more images are decoded than a batch has."""
        follow(settings, "objective", "training")


def follow(settings: Settings, objective: str, training: str) -> None:
    """What a VAE's defaults become beside flags: it decodes no more images than a batch has."""
    settings.at_most(f"{objective}.decoded", settings[f"{training}.batch_size"])


QUICK: Quick = {
    "vae_training.steps": 300,
    "vae_training.batch_size": 32,
    "vae.width": 32,
    "vae.latent_dim": 16,
}
"""Settings of a short run of an experiment that trains a VAE first."""

Outer = TypeVar("Outer")


def with_vae(config: Outer, generator: Config) -> Outer:
    """A configuration of another experiment that trains the given VAE as its generator."""
    return replace(
        config,  # type: ignore[type-var]
        data=generator.data,
        image_size=generator.image_size,
        vae=generator.vae,
        vae_objective=generator.objective,
        vae_training=generator.training,
    )


def embedded(config: Any) -> Config:
    """The VAE that such a configuration trains."""
    return Config(
        run=config.run,
        seed=config.seed,
        data=config.data,
        image_size=config.image_size,
        vae=config.vae,
        objective=config.vae_objective,
        training=config.vae_training,
    )


SPRITES = Config(
    data="sprites",
    vae=VAEConfig(latent_dim=6, decoder="broadcast", depth=2, width=64),
    objective=Objective(total_correlation=3.0),
    training=Training(steps=3400, batch_size=64, learning_rate=4e-3, warmup=50, decay="cosine"),
    test_images=500,
)
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
    deviation=Deviation(centres=256, reach=1.25, noise=0.002),
)
DIGITS_PLANE = replace(
    DIGITS, vae=PLANE, objective=Objective(), deviation=Deviation(centres=32, reach=1.25)
)
MNIST_PLANE = replace(
    MNIST,
    vae=PLANE,
    objective=Objective(),
    training=replace(MNIST.training, steps=4000, learning_rate=1e-3),
)
MNIST012_PLANE = replace(MNIST_PLANE, labels=(0, 1, 2))

PRESETS = {
    "sprites": ("beta-TC-VAE with a broadcast decoder on rendered sprites (minutes)", SPRITES),
    "digits": ("a small MLP on scikit-learn's 8x8 digits (a minute)", DIGITS),
    "mnist": ("a convolutional VAE with 16 latents on MNIST, through TFDS", MNIST),
    "mnist-paper": ("the published latent size, 324, on MNIST; for a GPU", MNIST_PAPER),
    "surface-plane": ("two latents on points of a surface with a hole", SURFACE_PLANE),
    "digits-plane": ("two latents on scikit-learn's digits", DIGITS_PLANE),
    "mnist012-plane": ("two latents on the digits 0, 1 and 2 of MNIST", MNIST012_PLANE),
    "mnist-plane": ("two latents on MNIST", MNIST_PLANE),
}


def load(config: Config, part: str) -> Dataset:
    """A part of the data set that a configuration names."""
    with announced(f"loading the {part} images of {config.data}"):
        dataset = data.load_part(config.data, part, size=config.image_size)
        return data.with_labels(dataset, config.labels)


def check(config: Config, dataset: Dataset) -> None:
    """Reject what the data cannot give, before a run folder is made.

    Raises:
        ValueError: a batch larger than the data set, images that nobody draws or that make no
            sense, or more than the memory.
    """
    plots.check_drawable(dataset.image_shape, f"images of {dataset.name}")
    stages = [config.training] + ([config.deviation.training] if KINDS[config.variance] else [])
    if (largest := max(stage.batch_size for stage in stages)) > dataset.length:
        raise ValueError(
            f"a batch of {largest} is more than the {dataset.length} examples "
            f"of {dataset.name}; lower the batch size"
        )
    budget.check_vae(config.vae, dataset.image_shape, largest)
    image = jax.ShapeDtypeStruct(dataset.image_shape, jnp.float32)
    jax.eval_shape(partial(augmented, config.objective), jax.random.key(0), image)


def model(config: Config, dataset: Dataset) -> VAE:
    """The architecture, for images of the data set's shape."""
    height, width, channels = dataset.image_shape
    return VAE(config.vae, (height, width, channels))


def loss(
    vae: VAE, objective: Objective, params: Params, key: Array, step: Array, batch: Batch
) -> tuple[Scalar, dict[str, Scalar]]:
    """Negative bound per pixel; the terms are in nats per image."""
    images, apply = batch["image"], _apply(vae)
    if objective.augment:
        key, augment_key = jax.random.split(key)
        keys = jax.random.split(augment_key, len(images))
        images = jax.vmap(partial(augmented, objective))(keys, images)
    mean, std = jax.vmap(partial(apply, params, method=vae.encode))(images)
    z = mean + std * jax.random.normal(key, mean.shape)
    kept = objective.decoded or len(images)
    log_likelihood = partial(apply, params, method=vae.log_likelihood)
    reconstruction = -jnp.mean(jax.vmap(log_likelihood)(images[:kept], z[:kept]))
    kl = jnp.mean(jnp.sum(jax.vmap(objectives.gaussian_kl)(mean, std), -1))
    correlation = objectives.total_correlation(z, mean, std)
    rise = jnp.minimum(1.0, (step + 1) / max(objective.warmup, 1))
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


def augmented(objective: Objective, key: Array, image: Array) -> Array:
    """An image after the transformations of the objective, each by an even draw from [-t, t]."""
    amounts = jax.random.uniform(key, (len(objective.augment),), image.dtype, -1, 1)
    for name, t, amount in zip(objective.augment, objective.augment_ts, amounts, strict=True):
        image = jnp.clip(transformation(name)(image, t * amount)[0], 0, 1)
    return image


def shown(
    config: Config, dataset: Dataset, chosen: Int[np.ndarray, "n"]
) -> Float[Array, "n h w c"]:
    """Images of some examples, transformed as the generator sees them in training."""
    images = jnp.asarray(dataset.examples(chosen)["image"])
    keys = jax.random.split(jax.random.key(config.seed), len(images))
    return jax.vmap(partial(augmented, config.objective))(keys, images)


def _apply(vae: VAE) -> Callable[..., Any]:
    # flax types every result as a pair as well.
    return vae.apply


def train(folder: Folder, config: Config, dataset: Dataset) -> Params:
    """Train, or go on training, the VAE of a run folder."""
    vae = model(config, dataset)
    return fit(
        folder,
        PHASE,
        init=partial(initial, vae),
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


def initial(vae: VAE, key: Array) -> Params:
    """Fresh parameters."""
    return vae.init(key, jnp.zeros(vae.image_shape))


def in_chunks(function: Callable[..., Any], size: int = CHUNK) -> Callable[..., Any]:
    """`jax.vmap` that takes at most `size` points at a time, compiled once for each shape.

    What the function closes over, a generator's parameters, is no constant of the program.
    """

    @jax.jit
    def chunked(one: Callable[..., Any], args: Sequence[Any]) -> Any:
        return jax.lax.map(lambda arg: one(*arg), args, batch_size=size)

    @cache
    def hoisted(structure: Any, *leaves: jax.ShapeDtypeStruct) -> Callable[..., Any]:
        return closure_convert_at(function, *jax.tree.unflatten(structure, leaves))

    def apply(*args: Any) -> Any:
        leaves, structure = jax.tree.flatten(args)
        points = (jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) for leaf in leaves)
        return chunked(hoisted(structure, *points), args)

    return apply


def measure(
    vae: VAE,
    params: Params,
    test: Dataset,
    config: Config,
    deviations: Mapping[Kind, Params] | None = None,
) -> dict[str, float]:
    """Bounds on held-out images, how well deviations fit them, and what ground truth allows."""
    chosen = np.random.default_rng(config.seed).permutation(test.length)
    examples = test.examples(chosen[: config.test_images])
    images = jnp.asarray(examples["image"])
    encode = partial(_apply(vae), params, method=vae.encode)
    log_likelihood = partial(_apply(vae), params, method=vae.log_likelihood)
    keys = jax.random.split(jax.random.key(config.seed), len(images))
    bounds = in_chunks(
        lambda key, x: (
            elbo(key, encode, log_likelihood, x),
            iwae_bound(key, encode, log_likelihood, x, samples=config.iwae_samples),
        )
    )
    elbos, iwaes = bounds(keys, images)
    result = {
        "test_images": float(len(images)),
        "elbo": float(elbos.mean()),
        "iwae": float(iwaes.mean()),
    }
    for kind, fitted in (deviations or {}).items():
        std = noise_std.close(kind, config.deviation, vae, fitted)
        evaluate = noise_std.negative_log_likelihood
        values, _ = in_chunks(partial(evaluate, config.deviation, vae, params, std))(keys, images)
        result[f"log_likelihood_{kind}"] = -float(values.mean())
    if test.name == "sprites":
        truth = examples["factors"]
        result |= measure_sprites(vae, params, images, truth, jax.random.key(config.seed))
    return result


def measure_sprites(
    vae: VAE, params: Params, images: Float[Array, "n h w c"], truth: Any, key: Array
) -> dict[str, float]:
    """Overlap of image and reconstruction, linear decodability of factors, valid samples."""

    from sklearn.linear_model import LinearRegression

    mean, std = in_chunks(partial(vae.apply, params, method=vae.encode))(images)
    decode = in_chunks(partial(vae.apply, params, method=vae.decode))
    rebuilt = decode(mean)
    pixels = (1, 2, 3)
    overlap = jnp.minimum(rebuilt, images).sum(pixels) / jnp.maximum(rebuilt, images).sum(pixels)
    valid = jax.vmap(sprites.is_valid)
    sample = mean + std * jax.random.normal(key, mean.shape)
    prior = jax.random.normal(key, mean.shape)
    half = len(images) // 2
    linear = {}
    for name in ("x", "y", "scale"):
        target = np.asarray(getattr(truth, name))
        fitted = LinearRegression().fit(mean[:half], target[:half])
        linear[f"linear_r2_{name}"] = float(fitted.score(mean[half:], target[half:]))
    return {
        "iou": float(overlap.mean()),
        **linear,
        "valid_posterior": float(valid(decode(sample)).mean()),
        "valid_prior": float(valid(decode(prior)).mean()),
    }


def draw(folder: Folder, vae: VAE, params: Params, test: Dataset) -> list[str]:
    """Save the pictures of a VAE; gives the files of those that could not be drawn."""
    figures = {"reconstructions": partial(reconstructions, vae, params, test)}
    for phase in (PHASE, *KINDS["both"]):
        if rows := folder.rows(phase):
            caption = f"Loss per pixel of the phase '{phase}', and its terms."
            figures[f"losses_{phase}"] = partial(plots.loss_curves, rows, caption=caption)
    return tables.save_figures(folder, figures)


def reconstructions(vae: VAE, params: Params, test: Dataset) -> "Figure":
    """Held-out images and what becomes of them."""
    chosen = np.arange(0, test.length, max(test.length // 16, 1))[:16]
    images = jnp.asarray(test.examples(chosen)["image"])
    encode = jax.vmap(partial(vae.apply, params, method=vae.encode))
    decode = jax.vmap(partial(vae.apply, params, method=vae.decode))
    mean, _ = encode(images)
    return plots.reconstructions(
        np.asarray(images),
        np.asarray(decode(mean)),
        f"Held-out images of {test.name} and their reconstructions.",
    )


def run(config: Config) -> int | None:
    """Train, measure, draw."""
    check_image_size(config.image_size)
    fitted = {"deviation.training": config.deviation.training} if KINDS[config.variance] else {}
    check_devices(training=config.training, **fitted)
    train_set, test_set = load(config, "train"), load(config, "test")
    check(config, train_set)
    jax.eval_shape(partial(initial, model(config, train_set)), jax.random.key(0))
    folder = open_folder(config.run, config)
    params = train(folder, config, train_set)
    vae = model(config, train_set)
    deviations = {
        kind: train_deviation(folder, kind, config, train_set, params)
        for kind in KINDS[config.variance]
    }
    failed = draw(folder, vae, params, test_set)
    metrics = folder.remember("metrics", lambda: measure(vae, params, test_set, config, deviations))
    with folder.understood("metrics"):
        tables.show(f"VAE on {train_set.name}, held out", [metrics])
    return tables.where(folder, failed)
