"""The settings of a run of potential flows, and its presets."""

from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal

import tyro

from experiments.generators.spec import Flags, Usual
from experiments.potential_flows.flags import Flows, Scores, Weights
from experiments.runtime import extension
from experiments.runtime.defaults import Quick, Settings
from experiments.runtime.training import Training
from latent_flows.generators import GeneratorSpec

PHASE = "flows"


@dataclass(frozen=True)
class Config:
    """Learn potential flows of a generator."""

    PHASES: ClassVar[extension.Phases] = {"training": (PHASE,)}
    QUICK: ClassVar[Quick] = {
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
    """Run folder of train_vae, train_gan, train_flow or import_weights, or of any experiment on
    one; package.module:function or file.py:function."""
    source: Flags = field(default_factory=GeneratorSpec)
    """How a generator that is no VAE is used."""
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


# --- presets ---

ALIGNED = Weights(
    residual=3.0,
    variation=0.0,
    speed=1.0,
    outside=2.0,
    sparsity=1.0,
    overlap=8.0,
    consistency=1.0,
)
PUBLISHED = Weights()

TRAINING = Training(steps=2200, batch_size=60, learning_rate=3e-3, decay="cosine")

LEARNT = Config(
    weights=ALIGNED,
    training=TRAINING,
    scores=Scores(starts=128, pairs=256, test_images=0, vp_steps=100, short=0.0),
)
"""What presets of aligned flows have in common."""
DEMO = replace(
    LEARNT,
    run="runs/demo",
    generator=Usual("runs/vae-sprites-apart", "train_vae sprites-apart"),
    flows=Flows(count=4, pace=0.9, reach=0.22, turned=True),
    weights=replace(ALIGNED, residual=6.0),
    # With a shorter memory of squared gradients and larger steps fewer of them do.
    training=replace(TRAINING, steps=1600, learning_rate=6e-3, b2=0.99),
)
SCENES = replace(
    LEARNT,
    run="runs/scenes",
    generator=Usual("runs/vae-scenes", "train_vae scenes"),
    flows=Flows(count=6, pace=0.9),
)
DIGITS = replace(
    LEARNT,
    run="runs/digits",
    generator=Usual("runs/vae-digits", "train_vae digits"),
    flows=Flows(count=6, codes=1024, bank=512, pace=0.2),
    training=replace(TRAINING, steps=1500),
    scores=Scores(pairs=256),
)
MNIST = replace(
    LEARNT,
    run="runs/mnist",
    generator=Usual("runs/vae-mnist", "train_vae mnist"),
    flows=Flows(count=10, codes=8192, bank=2048, pace=0.6),
    training=Training(steps=6000, batch_size=100, learning_rate=2e-3, decay="cosine"),
    scores=replace(LEARNT.scores, test_images=256, short=0.25),
)
MNIST_PAPER = Config(
    run="runs/mnist-paper",
    generator=Usual("runs/vae-mnist-paper", "train_vae mnist-paper"),
    flows=Flows(count=16, frame="identity", initial="free", starts="prior", bank=0, width=324),
    training=Training(steps=100_000, batch_size=128, learning_rate=1e-4),
)
GAN = Config(
    run="runs/flows-gan",
    generator=Usual("runs/gan", "train_gan sprites"),
    flows=Flows(count=8, pace=1.0, frame="visible", starts="prior", codes=4096, bank=1024),
    weights=replace(ALIGNED, overlap=4.0),
    training=Training(steps=1500, batch_size=64, learning_rate=3e-3, decay="cosine"),
    scores=Scores(starts=128, pairs=256, vp_steps=100, closed_form=True),
)


def published(
    name: str,
    latent_dim: int,
    classifier: Literal["lenet", "resnet18"],
    batch_size: int,
    space: Literal["z", "w"] = "z",
) -> tuple[str, Config]:
    """The published setting for a GAN, as a preset: 32 potentials, 20 steps, truncated latents."""
    config = Config(
        run=f"runs/flows-{name}",
        generator=Usual(f"runs/{name}", f"import_weights {name} --weights FILE", has_quick=False),
        source=GeneratorSpec(space=space),
        flows=Flows(
            count=32,
            horizon=20,
            initial="free",
            width=latent_dim,
            frame="identity",
            starts="prior",
            bank=0,
            classifier=classifier,
        ),
        weights=PUBLISHED,
        training=Training(steps=120_000, batch_size=batch_size, learning_rate=1e-4),
        scores=Scores(pairs=256, closed_form=True),
    )
    return f"the published size on imported weights of {name}; for a GPU", config


PRESETS = {
    "demo": ("sprites: aligned flows of a beta-TC-VAE, in minutes on a CPU", DEMO),
    "published": (
        "sprites: the demo's generator with the published loss only",
        replace(
            DEMO,
            run="runs/published",
            flows=Flows(count=4, pace=0.9, frame="identity", initial="free"),
            weights=PUBLISHED,
            training=replace(TRAINING, steps=1400),
        ),
    ),
    "scenes": ("scenes: hues, size, shape and angle, in minutes on a CPU", SCENES),
    "digits": ("scikit-learn's digits, in minutes on a CPU", DIGITS),
    "mnist": ("MNIST through TFDS, within an hour on 2 CPU cores", MNIST),
    "mnist-paper": ("the published size, latent 324 and K = 16; for a GPU", MNIST_PAPER),
    "gan": ("the generator of a run of train_gan, in minutes on a CPU", GAN),
    "sngan-mnist": published("sngan-mnist", 128, "lenet", 128),
    "sngan-animefaces": published("sngan-animefaces", 128, "lenet", 128),
    "biggan-128": published("biggan-128", 120, "resnet18", 32),
    "biggan-256": published("biggan-256", 140, "resnet18", 32),
    "proggan-1024": published("proggan-1024", 512, "resnet18", 32),
    "stylegan2-256": published("stylegan2-256", 512, "resnet18", 32, space="w"),
    "stylegan2-1024": published("stylegan2-1024", 512, "resnet18", 32, space="w"),
}
