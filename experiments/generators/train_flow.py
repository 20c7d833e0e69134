"""Train a flow-matching generator: noise, carried to data or to codes of a VAE by a velocity field.

Without --generator the field is of the data themselves, a small U-Net of images or an MLP of
vectors. With --generator and a run folder of train_vae it is an MLP of that VAE's codes, which its
decoder turns into samples. The latent is the noise. The run folder holds the generator with
averaged weights, metrics.json (of images with labels: Frechet distance of the features of a
classifier trained on the data, and what it makes of the samples), and pictures of samples and
losses.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.generators import averaged, classifier, frechet, prior_flow
from experiments.generators.limits import check_image_size, check_images, check_images_are_drawn
from experiments.generators.prior_flow import PriorSettings
from experiments.generators.spec import Usual
from experiments.generators.train_vae import images
from experiments.generators.training_data import (
    ImageSize,
    Reading,
    ReadingFlags,
    load,
    load_data,
    reading_of,
    settled,
)
from experiments.runtime import extension, memory, tables
from experiments.runtime.announcements import announced
from experiments.runtime.checks import check_devices
from experiments.runtime.cli import UsageError
from experiments.runtime.defaults import Quick, Settings
from experiments.runtime.run_dir import Folder, open_folder
from experiments.runtime.training import Batch, Params, Training
from latent_flows import plots
from latent_flows._transforms import in_chunks
from latent_flows._validation import at_least, fractions
from latent_flows.data import Dataset
from latent_flows.evaluation.frechet import frechet_distance
from latent_flows.generators import FrozenGenerator, GeneratorSpec, draw_latents
from latent_flows.generators import stored as stored_generators
from latent_flows.generators._flow_map import check_steps
from latent_flows.generators.data_flow import DataFlow, data_flow_loss, init_data_flow
from latent_flows.generators.load import GENERATOR, is_function, reference
from latent_flows.generators.stored import StoredGenerator, restore_generator, to_bytes
from latent_flows.generators.vae import VAE
from latent_flows.typing import Scalar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PHASE = "flow"
SHOWN = 64
"""Samples in the picture."""
STANDARD = 10_000
"""Examples whose mean and deviation are taken for those of all."""
CHUNK = 250
"""Samples that are made at once."""


@dataclass(frozen=True)
class Network:
    """The velocity field."""

    widths: tuple[int, ...] = (32, 64)
    """Features of the U-Net of images at each resolution, the finest first; each halves it."""
    blocks: int = 1
    """Residual blocks of the U-Net at each resolution, down and up."""
    patch: int = 2
    """Pixels along a side of the blocks that the U-Net starts from."""
    width: int = 64
    """Units of a layer of the MLP, of vectors and codes."""
    depth: int = 3
    """Residual blocks of the MLP."""

    def __post_init__(self) -> None:
        at_least(self, "network.", blocks=1, patch=1, width=1, depth=1)
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"network.widths must be at least 1, got {self.widths}")


@dataclass(frozen=True)
class Config:
    """Train a flow-matching generator."""

    PHASES: ClassVar[extension.Phases] = {
        "training": (PHASE, prior_flow.PHASE),
        "classifier": (classifier.PHASE,),
    }
    MADE: ClassVar = (GENERATOR,)
    QUICK: ClassVar[Quick] = {
        "network.widths": (16, 32),
        "network.width": 32,
        "training.steps": 200,
        "training.batch_size": 32,
        "classifier.steps": 50,
        "classifier.batch_size": 32,
        "codes": 2000,
        "samples": 64,
    }

    run: str = "runs/fm"
    """Run folder; the same command goes on with what it holds."""
    seed: int = 0
    """Source of all randomness."""
    generator: str = ""
    """Run folder of train_vae, or about one, whose codes are learnt instead of the data; none: the
    data themselves."""
    data: str = "sprites"
    """Data set: sprites, scenes, digits, a prepared TFDS image set by name (see TFDS_DATA_DIR), or
    the path of a folder of images, or of an .npz or .npy. Of a VAE they are its own."""
    image_size: ImageSize = None
    """Pixels along each side; by default the data set's own."""
    reading: ReadingFlags = field(default_factory=Reading)
    """How a folder of images, or a file of arrays, is read."""
    labels: tuple[int, ...] = ()
    """Learn from examples with these labels only; none: all."""
    network: Network = field(default_factory=Network)
    """Architecture."""
    ode_steps: int = 8
    """Steps of the solver from noise to samples, all equal; 0: it chooses them. Whoever takes the
    generator can choose others by --generator.steps."""
    solver: str = "midpoint"
    """Solver: euler, heun, midpoint, ralston, bosh3, tsit5, dopri5 or dopri8; also
    --generator.solver."""
    average: float = 0.998
    """Decay of the moving average of the weights, which is what is kept of a flow of data."""
    codes: int = 20_000
    """Training images, at most, whose posteriors codes are drawn from."""
    training: Training = field(
        default_factory=lambda: Training(
            steps=3000,
            batch_size=64,
            learning_rate=2e-3,
            warmup=100,
            decay="cosine",
            checkpoint_every=250,
        )
    )
    """Optimiser and duration."""
    classifier: Training = field(
        default_factory=lambda: Training(
            steps=1000, batch_size=128, learning_rate=2e-3, decay="cosine"
        )
    )
    """Optimiser and duration of the classifier that judges images."""
    samples: int = 5000
    """Samples, and as many examples of the data, that are compared."""

    def __post_init__(self) -> None:
        at_least(self, samples=2, seed=0, codes=2, ode_steps=0)
        check_steps(self.ode_steps or None, self.solver)
        fractions(self, "", "average")

    @staticmethod
    def follow(settings: Settings) -> None:
        """The data of a VAE are its own."""
        if settings.is_given("generator"):
            for name, nothing in (("data", ""), ("image_size", None), ("labels", ())):
                settings.put(name, nothing)


SPRITES = Config(run="runs/fm-sprites", data="sprites", image_size=32)
MNIST = Config(run="runs/fm-mnist", data="mnist")
CODES = Training(
    steps=5000, batch_size=256, learning_rate=4e-3, decay="cosine", checkpoint_every=1000
)
MNIST_CODES = Config(
    run="runs/fm-mnist-codes",
    generator=Usual("runs/vae-mnist", "train_vae mnist"),
    data="",
    solver="tsit5",
    training=CODES,
)
IMAGES = Config(run="runs/fm-images", data="", image_size=32)
VECTORS = Config(run="runs/fm-vectors", data="", training=CODES)

PRESETS = {
    "sprites": ("a small U-Net on rendered sprites of 32 pixels (minutes)", SPRITES),
    "mnist": ("a small U-Net on MNIST, through TFDS (minutes)", MNIST),
    "mnist-codes": ("an MLP on the codes of a VAE, of MNIST or by --generator", MNIST_CODES),
    "images": ("a small U-Net of 32 pixels on a folder of images: --data PATH", IMAGES),
    "vectors": ("an MLP on vectors, the rows of an .npy or .npz [n, d]: --data PATH", VECTORS),
}


class Task(NamedTuple):
    """What is learnt, and how."""

    name: str
    """Of the data."""
    sets: Mapping[str, Dataset]
    """The parts "train" and "test"."""
    train: Callable[[Folder], StoredGenerator]
    """Trains, or goes on training, in a run folder."""
    phase: str


def of_data(config: Config) -> Task:
    """A flow of the data themselves.

    Raises:
        ValueError: the data are not there, or nobody draws them, or a batch is more than they are,
            or the network is larger than the memory.
    """
    config = settled(config)
    check_image_size(config.image_size)
    sets = {part: load(config, part) for part in ("train", "test")}
    known = sets["train"]
    if len(known.image_shape) == 3:
        check_images_are_drawn(known)
        if config.network.patch > min(known.image_shape[:2]):
            raise ValueError(
                f"network.patch ({config.network.patch}) is more than the pixels of "
                f"{known.name}, {known.image_shape[:2]}"
            )
    check_images(2 * config.training.batch_size, known.image_shape, "a batch of examples")
    net = network(config, known)
    memory.check_init(
        lambda key: net.init(key, *net.example_inputs()),
        4,
        f"a velocity field of width {max(config.network.widths)}",
        "lower --network.widths or --network.width",
    )
    return Task(known.name, sets, partial(train, config=config, dataset=known), PHASE)


def network(config: Config, dataset: Dataset) -> DataFlow:
    """The velocity field, of examples of the data set's shape."""
    sizes = config.network
    return DataFlow(
        dataset.image_shape,
        widths=sizes.widths,
        blocks=sizes.blocks,
        patch=sizes.patch,
        width=sizes.width,
        depth=sizes.depth,
        steps=config.ode_steps or None,
        solver=config.solver,
    )


def train(folder: Folder, config: Config, dataset: Dataset) -> StoredGenerator:
    """Train, or go on training, the flow of the data in a run folder."""
    net = network(config, dataset)
    chosen = np.random.default_rng(config.seed).permutation(dataset.length)[:STANDARD]
    examples = jnp.asarray(dataset.examples(np.sort(chosen))["image"])
    standard = init_data_flow(net, jax.random.key(0), examples)["standard"]
    params = averaged.fit(
        folder,
        PHASE,
        init=lambda key: net.init(key, *net.example_inputs())["params"],
        loss=partial(loss, net, standard),
        batches=partial(images, dataset, config.training.batch_size, config.seed),
        config=config.training,
        decay=config.average,
        seed=config.seed,
        describe=f"flow of {dataset.name}",
    )
    return StoredGenerator(
        net,
        {"params": params, "standard": standard},
        f"flow of {dataset.name}",
        config.data,
        config.labels,
        reading=reading_of(config),
    )


def loss(net: DataFlow, standard: Params, params: Params, key: Array, batch: Batch) -> Scalar:
    """The flow-matching loss of a batch."""
    variables = {"params": params, "standard": standard}
    return data_flow_loss(net, variables, key, batch["image"])


def of_codes(config: Config) -> Task:
    """A flow of the codes of a VAE.

    Raises:
        UsageError: other data are named as well, or it is no VAE of this library, or does not know
            its data.
    """
    if config.data or config.image_size is not None or config.labels:
        raise UsageError(
            "--generator is learnt on its own data: leave out --data, --image-size and --labels"
        )
    kept = read_vae(config.generator)
    vae = restore_generator(kept)
    sets = {part: load_data(vae, part) for part in ("train", "test")}
    settings = PriorSettings(
        width=config.network.width,
        depth=config.network.depth,
        codes=config.codes,
        steps=config.ode_steps,
        solver=config.solver,
        training=config.training,
    )
    prior_flow.check(settings, vae.latent_dim, sets["train"], flags="--")

    def train(folder: Folder) -> StoredGenerator:
        flow = prior_flow.train(folder, settings, vae, sets["train"], config.seed)
        return kept._replace(name=f"flow of {vae.name}", prior_flow=flow, from_noise=True)

    return Task(sets["train"].name, sets, train, prior_flow.PHASE)


def read_vae(path: str) -> StoredGenerator:
    """A VAE in a run folder, as it was stored, with its own prior.

    Raises:
        UsageError: no run folder, or another generator.
    """
    if isinstance(path, Usual) and not Path(path).expanduser().exists():
        raise UsageError(
            f"the VAE of this preset, {path}, is not there yet: make it with `python -m "
            f"experiments.{path.command}`, or name another by --generator"
        )
    if is_function(path) or not Path(path).expanduser().exists():
        raise UsageError(f"--generator {path} is no run folder of train_vae")
    place = Path(reference(GeneratorSpec(str(path)), 0, Path.cwd())["spec"]["path"])
    with announced(f"loading the generator {path}"):
        found = stored_generators.read(place / GENERATOR if place.is_dir() else place)
    if not isinstance(found.net, VAE) or found.from_noise:
        raise UsageError(
            f"--generator {path} is {found.name}, which has no encoder: a run of train_vae is "
            "needed, whose codes are learnt"
        )
    return found._replace(prior_flow=None)


def check(config: Config, task: Task) -> None:
    """Reject what the data cannot give, before a run folder is made.

    Raises:
        ValueError: fewer examples than a batch has, or than two that are held out.
    """
    known, test = task.sets["train"], task.sets["test"]
    batches = [config.training.batch_size]
    if len(known.image_shape) == 3:
        batches.append(config.classifier.batch_size)
    if max(batches) > known.length:
        raise ValueError(
            f"a batch of {max(batches)} is more than the {known.length} examples of {known.name}; "
            "lower --training.batch-size or --classifier.batch-size"
        )
    if test.length < 2:
        raise ValueError(
            f"{test.name} holds out {test.length} example, samples are compared with at least 2"
        )


def sample(generator: FrozenGenerator, seed: int, count: int) -> Float[Array, "n *event"]:
    """What the generator makes of draws from its prior; images without what lies beyond [0, 1]."""
    made = in_chunks(generator.decode, CHUNK)(
        draw_latents(generator.prior, jax.random.key(seed), count)
    )
    return jnp.clip(made, 0, 1) if len(generator.event_shape) == 3 else made


def measure(
    folder: Folder, config: Config, generator: FrozenGenerator, sets: Mapping[str, Dataset]
) -> dict[str, float]:
    """How real the samples are: images to a classifier, vectors by their mean and covariance."""
    make = partial(sample, generator, config.seed + 1)
    if len(generator.event_shape) == 3:
        return frechet.measure(
            folder,
            make,
            sets,
            config.classifier,
            count=config.samples,
            side=1 << (max(generator.event_shape[:2]) - 1).bit_length(),
            seed=config.seed,
        )
    known, test = (
        np.asarray(dataset.examples(np.arange(min(dataset.length, config.samples)))["image"])
        for dataset in (sets["train"], sets["test"])
    )
    known, test = (rows.reshape(len(rows), -1) for rows in (known, test))
    scale = np.where(known.std(0) > 0, known.std(0), 1)
    made = np.asarray(make(len(test))).reshape(len(test), -1)
    return {
        "samples": float(len(made)),
        "frechet_of_vectors": frechet_distance(made / scale, test / scale),
        "frechet_of_training_vectors": frechet_distance(known / scale, test / scale),
    }


def draw(folder: Folder, generator: FrozenGenerator, phase: str) -> list[str]:
    """Save the pictures of a flow; gives the files of those that could not be drawn."""
    caption = "Flow-matching loss per number of a sample or a code."
    figures: dict[str, Callable[[], Figure]] = {
        f"losses_{phase}": lambda: plots.loss_curves(folder.rows(phase), caption=caption),
    }
    if len(generator.event_shape) == 3:
        figures["samples"] = lambda: plots.samples_grid(
            np.asarray(sample(generator, 0, SHOWN)), caption=f"Samples: {generator.name}."
        )
    return tables.save_figures(folder, figures)


def run(config: Config) -> int | None:
    """Train, draw, measure."""
    check_devices(training=config.training, classifier=config.classifier)
    task = of_codes(config) if config.generator else of_data(config)
    check(config, task)
    folder = open_folder(config.run, config)
    found = task.train(folder)
    folder.write_bytes(GENERATOR, to_bytes(found))
    generator = restore_generator(found)
    with announced("drawing samples"):
        failed = draw(folder, generator, task.phase)
    metrics = folder.remember("metrics", lambda: measure(folder, config, generator, task.sets))
    with folder.understood("metrics"):
        tables.show(f"{generator.name}", [metrics])
    return tables.where(folder, failed)
