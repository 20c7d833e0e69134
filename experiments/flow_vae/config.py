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
from latent_flows.generators.vae import VAEConfig
from latent_flows.pde import EQUATIONS, described

PHASE = "vae"

KINDS = {
    "vae": "the bound alone",
    "beta-vae": "a weight on the divergence from the prior",
    "tc-vae": "a penalty on total correlation, estimated on the batch (far too large where "
    "posteriors are narrow: trust total_correlation_gaussian beside it)",
    "factor-vae": "a penalty on total correlation, by a discriminator",
    "flow": "one potential for each known factor",
    "hamilton-jacobi": "optimal-transport potentials, the factor inferred from two images",
    "sparse": "gradient and solenoidal fields behind inferred gates, unsupervised",
}
WITH_FLOW = ("flow", "hamilton-jacobi", "sparse")


@dataclass(frozen=True)
class Objective:
    """The loss. Its terms are in nats per image."""

    kind: str = "flow"
    """vae, beta-vae, tc-vae, factor-vae: no flow; flow: the factor is known; hamilton-jacobi: it is
    inferred from the image pair; sparse: so are which fields act, and how strongly."""
    beta: float = 2.0
    """Weight of the divergence from the prior (beta-vae), or of total correlation (tc-vae and
    factor-vae: beta - 1)."""
    prior: Literal["flowed", "standard"] = "flowed"
    """Prior of the codes of x_t: N(0, I) carried along the flow, or N(0, I) itself. Without a flow
    always standard; sparse too, whose flow is not known before x_t is seen."""
    transport: float = 0.5
    """Share of the reconstruction at the points to which the flow takes the code of the other image
    of the pair, x_t from that of x_0 and back; the rest is at the image's own code."""
    mismatch: float = 0.02
    """Weight of the negative log-density of the point for x_t under the posterior of x_t."""
    residual: float = 1.0
    """Weight of the PDE's relative residual."""
    inference: float = 1.0
    """Weight of the divergence of the inferred factor or gates from their prior."""
    open_share: float = 0.3
    """Prior probability that a gate is open (sparse)."""
    temperature: float = 0.5
    """Temperature of relaxed draws of factors and gates."""
    warmup: int = 200
    """Steps over which divergences rise from 0 to their weight."""

    def __post_init__(self) -> None:
        choose("objective.kind", self.kind, KINDS)
        least = ("beta", "transport", "mismatch", "residual", "inference", "warmup")
        at_least(self, "objective.", **dict.fromkeys(least, 0))
        if self.transport > 1:
            raise ValueError(f"objective.transport must lie in [0, 1], got {self.transport}")
        if not (0 < self.open_share < 1 and self.temperature > 0):
            raise ValueError(
                "objective.open_share must lie in (0, 1) and objective.temperature above 0, got "
                f"{self.open_share} and {self.temperature}"
            )


@dataclass(frozen=True)
class Fields:
    """The potentials and the flow along them."""

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
    """Data set: sprites, digits, a prepared TFDS image set by name (see TFDS_DATA_DIR), or the path
    of a folder of images, or of an .npz or .npy."""
    image_size: ImageSize = None
    """Pixels along each side; by default the data set's own."""
    reading: ReadingFlags = field(default_factory=Reading)
    """How a folder of images, or a file of arrays, is read."""
    factors: tuple[str, ...] = ("scale", "rotation", "hue")
    """What changes along sequences, one potential each: scale, rotation, or any image
    transformation by its name; of sprites x, y, orientation, scale, shape."""
    frames: int = FRAMES
    """Images of a sequence."""
    train_images: int = 0
    """Starting images to train on; 0: all."""
    vae: VAEConfig = field(default_factory=VAEConfig)
    """Architecture of the VAE, the same for every kind."""
    fields: Fields = field(default_factory=Fields)
    """Flows."""
    objective: Objective = field(default_factory=Objective)
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
