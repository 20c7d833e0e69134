"""The flags of an inversion."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from experiments.generators.spec import Flags
from latent_flows._validation import at_least
from latent_flows.data.image_file import Crop
from latent_flows.generators import GeneratorSpec
from latent_flows.inversion import InversionSettings


@dataclass(frozen=True)
class Config:
    """Find the latents of pictures, from which other commands go on."""

    generator: Annotated[str, tyro.conf.Positional]
    """Run folder of train_vae, train_gan or import_weights, or of any experiment on one;
    package.module:function or file.py:function."""
    pictures: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Files of pictures; of a generator of anything else .npy files, each of one sample."""
    run: str = ""
    """Run folder; the same command goes on with what it holds. Empty: runs/invert-, the name of the
    generator's folder and that of the first picture."""
    seed: int = 0
    """Source of all randomness."""
    source: Flags = field(default_factory=GeneratorSpec)
    """How to use it, such as StyleGAN2 in --generator.space w or w+."""
    starts: int = 8
    """Descents of each picture, from different latents: the encoder's code, where there is an
    encoder; the mean of latents (of W, in W or W+); and of random draws those of the nearest
    samples."""
    steps: int = 200
    """Of each descent."""
    learning_rate: float = 0.1
    """Of Adam at its first step, in deviations of the prior."""
    blurred_weight: float = 1.0
    """Weight of the error of blurred images, beside the 1 of that of pixels; for images."""
    sigma: float | None = None
    """Standard deviation of that blur, in pixels; none: a sixteenth of the shorter side."""
    prior_weight: float = 0.0
    """Weight of the distance from the shell that draws of the prior lie in: larger keeps to samples
    that look real, smaller to the picture."""
    noise: bool = False
    """Of StyleGAN2: choose its noise maps as well, kept white. They are written beside the latents,
    which other commands use with the generator's own noise."""
    features: str = ""
    """A network that pictures are also compared by, as package.module:function or file.py:function:
    from an image [h, w, c] in [0, 1], as JAX can trace it, to an array."""
    feature_weight: float = 1.0
    """Weight of the error of its features; 0: it is measured only."""
    crop: Crop = "centre"
    """How pictures of other proportions are brought to the generator's size: centre: the middle, as
    large as it can be; pad: all of it, with black on two sides; stretch: all of it."""
    batch_size: int = 64
    """Descents, or samples, at once; fewer take less memory."""

    def __post_init__(self) -> None:
        at_least(self, seed=0)
        if not self.pictures:
            raise ValueError(
                "no picture is named: write its file after the run folder of the generator"
            )
        settings(self)

    def is_kept(self) -> bool:
        """Whether the same command would go on from latents on the disk."""
        return any((Path(home(self)).expanduser() / "found").glob("*.json"))


def settings(config: Config) -> InversionSettings:
    """What the flags say of the descents, but for the network.

    Raises:
        ValueError: a value that makes no sense.
    """
    return InversionSettings(
        starts=config.starts,
        steps=config.steps,
        learning_rate=config.learning_rate,
        blurred_weight=config.blurred_weight,
        sigma=config.sigma,
        feature_weight=config.feature_weight,
        prior_weight=config.prior_weight,
        batch_size=config.batch_size,
    )


def home(config: Config) -> str:
    """The run folder.

    >>> home(Config("runs/vae-sprites", ("photos/cat.jpg",)))
    'runs/invert-vae-sprites-cat'
    """
    if config.run:
        return config.run
    where = config.generator.replace(":", "/").rstrip("/")
    return f"runs/invert-{Path(where).name}-{Path(config.pictures[0]).stem}"
