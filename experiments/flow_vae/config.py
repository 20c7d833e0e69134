"""The flags of flow_vae, and the sequences that they name."""

from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
import tyro

from experiments.generators.limits import check_vae
from experiments.generators.training_data import ImageSize, Reading, ReadingFlags
from experiments.runtime import extension
from experiments.runtime.defaults import Quick, Settings
from experiments.runtime.training import Training
from latent_flows._validation import at_least, choose
from latent_flows.data import Dataset, take
from latent_flows.data.sequences import FRAMES, Sequences, load_sequences
from latent_flows.generators.load import GENERATOR
from latent_flows.generators.vae import VAEConfig
from latent_flows.objectives.flow_vae import FAMILIES, FlowVAE, FlowVAEObjective, flow_vae
from latent_flows.pde import EQUATIONS, described

PHASE = "vae"


@dataclass(frozen=True)
class Fields:
    """The potentials and the flow along them."""

    family: Annotated[
        str, tyro.conf.arg(help="; ".join(f"{k}: {v}" for k, v in FAMILIES.items()) + ".")
    ] = "potential"
    """What the potential of a known factor is."""
    pde: Annotated[
        str,
        tyro.conf.arg(
            help="Equation; empty: wave, and hamilton_jacobi for the kind of that name. "
            f"{described()}."
        ),
    ] = ""
    initial: Literal["", "exact", "free", "static"] = ""
    """exact: at rest at time 0; free: nothing imposed; static: no time. Empty: exact, and free for
    hamilton-jacobi, whose only solution at rest is 0."""
    count: int = 0
    """Number of fields; 0: as many as factors."""
    width: int = 64
    """Units of a hidden layer."""
    depth: int = 2
    """Hidden layers."""
    steps: int = 4
    """Steps of the midpoint rule along a training trajectory."""

    def __post_init__(self) -> None:
        at_least(self, "fields.", count=0, width=1, depth=1, steps=1)
        choose("fields.family", self.family, FAMILIES)
        if self.pde:
            choose("fields.pde", self.pde, EQUATIONS)


@dataclass(frozen=True)
class Scores:
    """What is measured at the end, on held-out data."""

    images: int = 250
    """Starting images; bounds are of each, and of one later image for each factor."""
    sequences: int = 40
    """Of these, those whose whole sequences are measured, of every factor."""
    samples: int = 64
    """Samples of the importance-weighted bounds."""
    steps: int = 16
    """Steps of the midpoint rule along a measured trajectory."""

    def __post_init__(self) -> None:
        at_least(self, "scores.", images=1, sequences=1, samples=1, steps=1)


@dataclass(frozen=True)
class Config:
    """Train a VAE together with flows that move its codes as known factors move the image."""

    PHASES: ClassVar[extension.Phases] = {"training": (PHASE,)}
    MADE: ClassVar = (GENERATOR,)
    QUICK: ClassVar[Quick] = {
        "vae.width": 16,
        "fields.width": 16,
        "training.steps": 150,
        "training.batch_size": 24,
        "scores.images": 20,
        "scores.sequences": 4,
        "scores.samples": 8,
        "scores.steps": 4,
        "measure": False,
    }

    run: str = "runs/flow-vae"
    """Run folder; the same command goes on with what it holds."""
    seed: int = 0
    """Source of all randomness."""
    data: str = "mnist"
    """Data set: sprites, scenes, digits, a prepared TFDS image set by name (see TFDS_DATA_DIR), or
    the path of a folder of images, or of an .npz or .npy."""
    image_size: ImageSize = None
    """Pixels along each side; by default the data set's own."""
    reading: ReadingFlags = field(default_factory=Reading)
    """How a folder of images, or a file of arrays, is read."""
    factors: tuple[str, ...] = ("scale", "rotation", "hue")
    """What changes along sequences, one potential each: scale, rotation, or any image
    transformation by its name; of sprites x, y, orientation, scale, shape; of scenes floor_hue,
    wall_hue, object_hue, scale, shape, orientation."""
    frames: int = FRAMES
    """Images of a sequence."""
    train_images: int = 0
    """Starting images to train on; 0: all."""
    vae: VAEConfig = field(default_factory=VAEConfig)
    """Architecture of the VAE, the same for every kind."""
    fields: Fields = field(default_factory=Fields)
    """Flows."""
    objective: FlowVAEObjective = field(default_factory=FlowVAEObjective)
    """Loss."""
    training: Training = field(default_factory=Training)
    """Optimiser and duration; every example of a batch is a pair of images x_0 and x_t."""
    scores: Scores = field(default_factory=Scores)
    """Measurements."""
    measure: Annotated[bool, tyro.conf.arg(name="scores")] = True
    """Measure scores, which may take longer than all else; without them pictures come first, and
    the same command with scores adds these to the run."""

    def __post_init__(self) -> None:
        at_least(self, seed=0, train_images=0, frames=2)
        if self.vae.decoders > 1:
            raise ValueError(
                f"vae.decoders must be 1 here, got {self.vae.decoders}: ensembles are of train_vae"
            )
        if self.training.batch_size % max(len(self.factors), 1):
            raise ValueError(
                f"training.batch_size ({self.training.batch_size}) must be a multiple of the "
                f"{len(self.factors)} factors: each gets an equal share"
            )

    @staticmethod
    def follow(settings: Settings) -> None:
        """Equal shares of a batch, of no more images than are trained on."""
        most = settings["train_images"] or None
        settings.multiple_of("training.batch_size", len(settings["factors"]), most)


def load(config: Config, split: str) -> Sequences:
    """The sequences that a configuration names; of the first `train_images` examples, shuffled."""
    found = load_sequences(
        config.data,
        config.factors,
        split=split,
        size=config.image_size,
        frames=config.frames,
        **asdict(config.reading),
    )
    if split == "train" and config.train_images:
        if config.train_images > found.dataset.length:
            raise ValueError(
                f"train_images ({config.train_images}) is more than the {found.dataset.length} "
                f"examples of {config.data}"
            )
        return replace(found, dataset=some(found.dataset, config.train_images, config.seed))
    return found


def some(dataset: Dataset, count: int, seed: int) -> Dataset:
    """That many examples, chosen by the seed."""
    rows = np.random.default_rng(seed).permutation(dataset.length)[:count]
    return take(dataset, rows)


def check(config: Config, sequences: Sequences) -> None:
    """Reject what the data cannot give, before a run folder is made.

    Raises:
        ValueError: a batch larger than the data set.
    """
    if config.training.batch_size > sequences.dataset.length:
        raise ValueError(
            f"a batch of {config.training.batch_size} is more than the "
            f"{sequences.dataset.length} examples of {config.data}; lower the batch size"
        )
    check_vae(config.vae, sequences.image_shape, config.training.batch_size)


def build(config: Config, sequences: Sequences) -> FlowVAE:
    """The networks, for images of the sequences' shape."""
    return build_for(config, sequences.image_shape)


def build_for(config: Config, image_shape: tuple[int, ...]) -> FlowVAE:
    """The networks, for images of a shape."""
    fields = config.fields
    height, width, channels = image_shape
    return flow_vae(
        config.objective.kind,
        config.vae,
        (height, width, channels),
        factors=len(config.factors),
        frames=config.frames,
        count=fields.count,
        equation=fields.pde,
        initial=fields.initial,
        width=fields.width,
        depth=fields.depth,
        family=fields.family,
    )
