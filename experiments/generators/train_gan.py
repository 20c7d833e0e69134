"""Train an SNGAN: residual networks, spectral normalisation, hinge loss, averaged weights.

The run folder holds the averaged generator, metrics.json (Frechet distance of the features of a
classifier trained on the data, and what it makes of the samples), and pictures of samples and
losses.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from experiments.generators import classifier, frechet
from experiments.generators.limits import check_image_size, check_images_are_drawn
from experiments.generators.train_vae import images
from experiments.generators.training_data import (
    ImageSize,
    Reading,
    ReadingFlags,
    load,
    reading_of,
    settled,
)
from experiments.runtime import extension, memory, tables
from experiments.runtime.checks import check_devices
from experiments.runtime.defaults import Quick, Settings
from experiments.runtime.run_dir import Folder, open_folder
from experiments.runtime.training import Batch, Params, State, Training, Update, advance, optimizer
from latent_flows import plots
from latent_flows._transforms import in_chunks
from latent_flows._validation import at_least, fractions
from latent_flows.data import Dataset
from latent_flows.generators import adversarial
from latent_flows.generators.load import GENERATOR
from latent_flows.generators.sngan import SNGAN, Discriminator
from latent_flows.generators.stored import StoredGenerator, to_bytes
from latent_flows.typing import Scalar

PHASE = "gan"
SHOWN = 64  # samples in the picture


@dataclass(frozen=True)
class Networks:
    """The two players."""

    latent_dim: int = 64
    """Latent dimensions."""
    generator: tuple[int, ...] = (64, 64, 32, 16)
    """Features of the generator's first layer and of each of its blocks, which double the size
    from 4 pixels."""
    discriminator: tuple[int, ...] = (16, 32, 64, 64)
    """Features of the discriminator's blocks, which halve the size down to 8 pixels."""

    def __post_init__(self) -> None:
        at_least(self, "networks.", latent_dim=1)
        for name in ("generator", "discriminator"):
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise ValueError(
                    f"networks.{name} must be widths of at least 1, got {getattr(self, name)}"
                )


@dataclass(frozen=True)
class Adversarial:
    """How the two play."""

    critic_steps: int = 1
    """Steps of the discriminator for one of the generator; a batch is shared out among them."""
    average: float = 0.998
    """Decay of the moving average of the generator's weights, which is what is kept."""

    def __post_init__(self) -> None:
        at_least(self, "adversarial.", critic_steps=1)
        fractions(self, "adversarial.", "average")


@dataclass(frozen=True)
class Config:
    """Train an SNGAN."""

    PHASES: ClassVar[extension.Phases] = {"training": (PHASE,), "classifier": (classifier.PHASE,)}
    MADE: ClassVar = (GENERATOR,)
    QUICK: ClassVar[Quick] = {
        "networks.latent_dim": 32,
        "adversarial.critic_steps": 1,
        "networks.generator": (32, 32, 16, 16),
        "networks.discriminator": (16, 16, 32, 32),
        "training.steps": 150,
        "training.batch_size": 16,
        "classifier.steps": 50,
        "classifier.batch_size": 32,
        "samples": 64,
    }

    run: str = "runs/gan"
    """Run folder; the same command goes on with what it holds."""
    seed: int = 0
    """Source of all randomness."""
    data: str = "sprites"
    """Data set: sprites, scenes, a prepared TFDS image set by name (see TFDS_DATA_DIR), or the
    path of a folder of images, or of an .npz or .npy."""
    image_size: ImageSize = None
    """Pixels along each side; by default the data set's own. Black is added around images that
    are smaller than the generator's."""
    reading: ReadingFlags = field(default_factory=Reading)
    """How a folder of images, or a file of arrays, is read."""
    labels: tuple[int, ...] = ()
    """Learn from examples with these labels only; none: all."""
    networks: Networks = field(default_factory=Networks)
    """Architecture."""
    adversarial: Adversarial = field(default_factory=Adversarial)
    """The game."""
    training: Training = field(
        default_factory=lambda: Training(
            steps=4000,
            batch_size=64,
            learning_rate=5e-4,
            b1=0.0,
            b2=0.9,
            clip=0.0,
            checkpoint_every=250,
        )
    )
    """Optimiser and duration."""
    classifier: Training = field(
        default_factory=lambda: Training(
            steps=1000, batch_size=128, learning_rate=2e-3, decay="cosine"
        )
    )
    """Optimiser and duration of the classifier that judges samples."""
    samples: int = 5000
    """Samples, and as many images of the data, that the classifier compares."""

    def __post_init__(self) -> None:
        at_least(self, samples=2, seed=0)
        steps = self.adversarial.critic_steps
        if self.training.batch_size % steps:
            raise ValueError(
                f"training.batch_size ({self.training.batch_size}) must be a multiple of "
                f"adversarial.critic_steps ({steps})"
            )

    @staticmethod
    def follow(settings: Settings) -> None:
        """A batch is shared out evenly among the steps of the discriminator."""
        batch, steps = "training.batch_size", "adversarial.critic_steps"
        if settings.is_given(batch):
            settings.divisor_of(steps, settings[batch])
        settings.multiple_of(batch, settings[steps])


SPRITES = Config(data="sprites", image_size=32)
SPRITES_FEW = replace(
    SPRITES,
    run="runs/gan-few",
    networks=Networks(4, generator=(32, 32, 16, 16), discriminator=(16, 16, 32, 32)),
    training=replace(SPRITES.training, steps=1500),
)
SCENES = Config(data="scenes", image_size=32)
MNIST = Config(data="mnist")
MNIST_PUBLISHED = replace(
    MNIST,
    networks=Networks(128, generator=(256,) * 4, discriminator=(128,) * 4),
    adversarial=Adversarial(critic_steps=5, average=0.9999),
    training=replace(
        MNIST.training, steps=50_000, batch_size=320, learning_rate=2e-4, checkpoint_every=1000
    ),
)

PRESETS = {
    "sprites": (
        "a small SNGAN of 32 pixels on rendered sprites (half an hour of one core)",
        SPRITES,
    ),
    "sprites-few": ("a narrow one of four latents on the same (minutes)", SPRITES_FEW),
    "scenes": ("the same as the first on coloured scenes (half an hour of one core)", SCENES),
    "mnist": ("a small SNGAN of 32 pixels on MNIST, through TFDS (half an hour)", MNIST),
    "mnist-published": (
        "the published width, latent size and ratio of steps; for a GPU",
        MNIST_PUBLISHED,
    ),
}


class Game(NamedTuple):
    """What training changes besides the averaged generator.

    generator: the generator's variables.
    critic: the discriminator's parameters, before they are normalised.
    vectors: the directions of the power iterations that normalise them.
    optimizers: the memories of the generator's and of the discriminator's optimiser.
    """

    generator: PyTree
    critic: PyTree
    vectors: PyTree
    optimizers: tuple[optax.OptState, optax.OptState]


def model(config: Config, dataset: Dataset) -> SNGAN:
    """The generator, for images with the data set's colours."""
    networks = config.networks
    return SNGAN(networks.generator, dataset.image_shape[2], networks.latent_dim)


def initial(net: SNGAN, key: Array) -> Params:
    """Fresh variables of a generator."""
    return net.init(key, jnp.zeros(net.latent_dim))


def begin(net: SNGAN, critic: Discriminator, config: Config, key: PRNGKeyArray) -> State:
    """Both players before their first step."""
    keys = jax.random.split(key, 3)
    variables = initial(net, keys[0])
    shape = (net.resolution, net.resolution, net.image_channels)
    params = critic.init(keys[1], jnp.zeros(shape))
    method = optimizer(config.training)
    game = Game(
        variables,
        params,
        adversarial.singular_vectors(keys[2], params),
        (method.init(variables["params"]), method.init(params)),
    )
    # The average starts as a copy, since the two buffers are given to the first step.
    return State(jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, variables), game)


def step(net: SNGAN, critic: Discriminator, config: Config) -> Update:
    """Some steps of the discriminator, one of the generator, one of the average."""
    method = optimizer(config.training)
    apply: Any = net.apply
    judge: Any = critic.apply

    def draw(params: PyTree, stats: PyTree, key: Array, count: int) -> tuple[Array, PyTree]:
        z = jax.random.normal(key, (count, net.latent_dim))
        variables = {"params": params, "batch_stats": stats}
        fake, changed = apply(variables, z, train=True, mutable=["batch_stats"])
        return fake, changed["batch_stats"]

    def critic_loss(
        params: PyTree, vectors: PyTree, real: Array, fake: Array
    ) -> tuple[Scalar, tuple[PyTree, dict[str, Scalar]]]:
        normalised, vectors = adversarial.normalise(params, vectors)
        scores = judge(normalised, jnp.concatenate([real, fake]))
        of_real, of_fake = scores[: len(real)], scores[len(real) :]
        terms = {"score_of_data": of_real.mean(), "score_of_samples": of_fake.mean()}
        return adversarial.discriminator_hinge(of_real, of_fake), (vectors, terms)

    def generator_loss(
        params: PyTree, stats: PyTree, critic_params: PyTree, key: Array, count: int
    ) -> tuple[Scalar, PyTree]:
        fake, stats = draw(params, stats, key, count)
        return adversarial.generator_hinge(judge(critic_params, fake)), stats

    def update(state: State, key: PRNGKeyArray, batch: Batch) -> tuple[State, dict[str, Scalar]]:
        game: Game = state.opt_state
        rounds = config.adversarial.critic_steps
        keys = jax.random.split(jax.random.fold_in(key, state.step), rounds + 1)
        reals = to_canvas(batch["image"], net.resolution)
        reals = reals.reshape(-1, rounds, *reals.shape[1:])
        count = len(reals)
        params, stats = game.generator["params"], game.generator["batch_stats"]
        critic_params, vectors = game.critic, game.vectors
        own, its = game.optimizers
        for i in range(rounds):
            fake, _ = draw(params, stats, keys[i], count)
            gradient = jax.value_and_grad(critic_loss, has_aux=True)
            (value, (vectors, terms)), grads = gradient(
                critic_params, vectors, reals[:, i], jax.lax.stop_gradient(fake)
            )
            change, its = method.update(grads, its)
            critic_params = optax.apply_updates(critic_params, change)
        normalised, vectors = adversarial.normalise(critic_params, vectors)
        gradient = jax.value_and_grad(generator_loss, has_aux=True)
        (generator_value, stats), grads = gradient(params, stats, normalised, keys[-1], count)
        change, own = method.update(grads, own)
        variables = {"params": optax.apply_updates(params, change), "batch_stats": stats}
        kept = config.adversarial.average
        average = adversarial.average(state.params, variables, state.step, kept)
        metrics = {"loss": value, "generator": generator_value, **terms}
        metrics["grad_norm"] = optax.global_norm(grads)
        game = Game(variables, critic_params, vectors, (own, its))
        return State(state.step + 1, average, game), metrics

    return update


def to_canvas(images: Float[Array, "n h w c"], size: int) -> Float[Array, "n size size c"]:
    """Images in [0, 1] as the generator makes them: in [-1, 1], black around what is smaller."""
    return 2 * frechet.on_canvas(images, size) - 1


def check(config: Config, net: SNGAN, dataset: Dataset, test: Dataset) -> None:
    """Reject what the data cannot give, before a run folder is made.

    Raises:
        ValueError: images larger than the generator's, or that nobody draws; fewer than a batch,
            or fewer than two that are held out; networks larger than the memory.
    """
    if test.length < 2:
        raise ValueError(
            f"{test.name} holds out {test.length} example, samples are compared with at least 2"
        )
    if max(dataset.image_shape[:2]) > net.resolution:
        raise ValueError(
            f"{dataset.name} has images of {dataset.image_shape[:2]} pixels, networks.generator "
            f"makes {net.resolution}: add a width, or lower --image-size"
        )
    if (largest := max(config.training.batch_size, config.classifier.batch_size)) > dataset.length:
        raise ValueError(
            f"a batch of {largest} is more than the {dataset.length} examples of {dataset.name}; "
            "lower the batch size"
        )
    critic = Discriminator(config.networks.discriminator)
    memory.check_init(
        partial(begin, net, critic, config),
        0,
        f"an SNGAN of {net.latent_dim} latents",
        "lower --networks.latent-dim, --networks.generator or --networks.discriminator",
    )


def train(folder: Folder, config: Config, dataset: Dataset) -> Params:
    """Train, or go on training, the SNGAN of a run folder; the averaged generator's variables."""
    net, critic = model(config, dataset), Discriminator(config.networks.discriminator)
    return advance(
        folder,
        PHASE,
        begin=partial(begin, net, critic, config),
        update=step(net, critic, config),
        batches=partial(images, dataset, config.training.batch_size, config.seed),
        config=config.training,
        seed=config.seed,
        describe=f"SNGAN on {dataset.name}",
    ).params


def sample(
    net: SNGAN, variables: Params, key: PRNGKeyArray, count: int
) -> Float[Array, "count h w c"]:
    """Images of the prior's latents, in [0, 1]."""
    apply: Any = net.apply
    z = jax.random.normal(key, (count, net.latent_dim))
    return in_chunks(lambda z: (apply(variables, z) + 1) / 2)(z)


def measure(
    folder: Folder, config: Config, net: SNGAN, variables: Params, sets: dict[str, Dataset]
) -> dict[str, float]:
    """How real the samples are to a classifier, which is trained first. Nothing without labels."""
    return frechet.measure(
        folder,
        partial(sample, net, variables, jax.random.key(config.seed + 1)),
        sets,
        config.classifier,
        count=config.samples,
        side=net.resolution,
        seed=config.seed,
    )


def draw(folder: Folder, net: SNGAN, variables: Params, dataset: Dataset) -> list[str]:
    """Save the pictures of a GAN; gives the files of those that could not be drawn."""
    figures = {
        "samples": lambda: plots.samples_grid(
            np.asarray(sample(net, variables, jax.random.key(0), SHOWN)),
            caption=f"Samples of an SNGAN trained on {dataset.name}.",
        ),
        f"losses_{PHASE}": lambda: plots.loss_curves(
            folder.rows(PHASE), caption="Hinge loss of the discriminator, and what goes with it."
        ),
    }
    return tables.save_figures(folder, figures)


def run(config: Config) -> int | None:
    """Train, measure, draw."""
    config = settled(config)
    check_image_size(config.image_size)
    check_devices(training=config.training, classifier=config.classifier)
    sets = {part: load(config, part) for part in ("train", "test")}
    check_images_are_drawn(sets["train"])
    net = model(config, sets["train"])
    check(config, net, sets["train"], sets["test"])
    critic = Discriminator(config.networks.discriminator)
    jax.eval_shape(partial(begin, net, critic, config), jax.random.key(0))
    folder = open_folder(config.run, config)
    variables = train(folder, config, sets["train"])
    found = StoredGenerator(
        net,
        variables,
        f"SNGAN trained on {sets['train'].name}",
        config.data,
        config.labels,
        reading=reading_of(config),
    )
    folder.write_bytes(GENERATOR, to_bytes(found))
    failed = draw(folder, net, variables, sets["train"])
    metrics = folder.remember("metrics", lambda: measure(folder, config, net, variables, sets))
    with folder.understood("metrics"):
        tables.show(f"SNGAN on {sets['train'].name}", [metrics])
    return tables.where(folder, failed)
