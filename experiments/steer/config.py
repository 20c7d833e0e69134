"""The flags of a run of steering."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, ClassVar, NamedTuple

import tyro

from experiments.directions import config as direction_config
from experiments.directions.config import OWN
from experiments.generators.spec import Flags, Usual
from experiments.runtime import extension
from experiments.runtime.cli import UsageError
from experiments.runtime.defaults import Quick
from experiments.runtime.training import Training
from latent_flows import directions, plots, steering
from latent_flows._validation import at_least, choose
from latent_flows.data.image_factors import SIZE, X, Y, measure, shape, shows_light
from latent_flows.directions.transformations import ENTRIES
from latent_flows.generators import FrozenGenerator, GeneratorSpec
from latent_flows.steering import Attributes
from latent_flows.steering.distilled import FORMS
from latent_flows.typing import Generator, VectorField

PHASE = "distilled"
FRAME = "dual frame"
"""The form of networks that can hold attributes."""

PLACE = (X, Y, SIZE)
"""Where the light is, and how far it spreads."""


class Kept(NamedTuple):
    """What counts beside the image."""

    hold: Attributes | None = None
    """What stays as it is."""
    match: Attributes | None = None
    """What is to be that of the transformed image."""


HOLDS = {
    "nothing": Kept(),
    "place": Kept(match=partial(measure, PLACE)),
    "moments": Kept(shape, partial(measure, PLACE)),
}
"""What may count beside the image while it is transformed, by name."""


def method_of(hold: str, way: str = "steered") -> str:
    """What a way to move latents is called in tables, by what it holds.

    >>> [method_of(hold) for hold in HOLDS]
    ['steered', 'steered, place matched', 'steered, moments held']
    """
    if hold == "nothing":
        return way
    return f"{way}, {hold} {'held' if HOLDS[hold].hold else 'matched'}"


@dataclass(frozen=True)
class Distil:
    """Networks that the exact fields are taught to."""

    forms: Annotated[
        tuple[str, ...],
        tyro.conf.arg(help=f"What they are, one after the other: {', '.join(FORMS)}. None: none."),
    ] = ()
    """What they are."""
    width: int = 256
    """Units of a hidden layer."""
    depth: int = 3
    """Hidden layers."""
    bank: int = 2000
    """Codes of training images (without an encoder: draws of the prior) where lessons begin; those
    of a batch are then moved along the fields, to twice as many lessons."""

    def __post_init__(self) -> None:
        at_least(self, "distil.", width=1, depth=1, bank=2)
        for name in self.forms:
            choose("distil.forms", name, FORMS)


@dataclass(frozen=True)
class Config:
    """Steer a generator by its own geometry, and compare with straight lines."""

    PHASES: ClassVar[extension.Phases] = {"training": (PHASE,)}
    QUICK: ClassVar[Quick] = {
        "starts": 12,
        "amounts": 2,
        "candidates": 2,
        "distil.width": 32,
        "distil.bank": 32,
        "training.steps": 50,
        "training.batch_size": 16,
    }

    run: str = "runs/steer"
    """Run folder; the same command goes on with what it holds."""
    seed: int = 0
    """Source of all randomness."""
    generator: str = Usual("runs/vae-sprites-conv", "train_vae sprites-conv")
    """Run folder of train_vae, train_gan, train_flow or import_weights, or of any experiment on
    one; package.module:function or file.py:function."""
    source: Flags = field(default_factory=GeneratorSpec)
    """How to use it."""
    transformations: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            help=f"What is done to images: {', '.join(ENTRIES)}; or to samples of any shape: {OWN} "
            "of (sample, t) -> (sample, mask), the identity at t = 0."
        ),
    ] = ("translate_x", "translate_y", "zoom_object")
    """What is done to samples."""
    ts: tuple[float, ...] = (0.2, 0.2, 0.5)
    """The largest |t| of each of them; none: the usual ones, 1 of a function that is not registered
    with another reach."""
    attributes: tuple[str, ...] = ()
    """What is measured on images of the data, such as floor_hue of scenes, to be changed by itself
    while all else that is measured is held."""
    attribute_share: float = 0.25
    """The largest change of each, either way, as a share of its range in the data (of a hue, of a
    turn)."""
    hold: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            help=f"What counts beside the image, one after the other: {', '.join(HOLDS)}. Of light "
            "on black: place: place and size are those of the transformed image; moments: so are "
            "they, and stretch, slant, spread and crispness stay. By default nothing of what is no "
            "image."
        ),
    ] = ("nothing", "moments")
    """What counts beside the image."""
    blur: float = 3.0
    """Standard deviation of the blur through which images are compared, in pixels. By default none
    (0) of what is no image."""
    damping: float = 0.03
    """Of the least-squares problems, in units of the mean squared slope of the image."""
    corrections: int = 4
    """Gauss-Newton steps at each amount."""
    tolerance: float = 0.2
    """Of what is missing of a change, as a share of it, up to which it counts as reached."""
    amounts: int = 4
    """Values of t on each side of 0."""
    starts: int = 64
    """Codes of held-out images (without an encoder: draws of the prior) that are led."""
    candidates: int = 6
    """Directions that each straight baseline proposes; the best by ground truth is taken."""
    compare: tuple[str, ...] = ()
    """Run folders of potential_flows (of RBF warps by --flows.family warp), guided, flow_vae or
    directions on the same generator: what they have learnt is led beside steering. Of each run
    that counts which does best by ground truth, told its slope."""
    distil: Distil = field(default_factory=Distil)
    """What the fields are taught to."""
    training: Training = field(
        default_factory=lambda: Training(steps=3000, batch_size=32, decay="cosine")
    )
    """Optimiser and duration of that."""

    def __post_init__(self) -> None:
        at_least(self, seed=0, blur=0, corrections=0, amounts=1, starts=2, candidates=1)
        if not 0 < self.attribute_share < 0.5:
            raise ValueError(f"attribute_share must lie in (0, 0.5), got {self.attribute_share}")
        if len(set(self.attributes)) < len(self.attributes):
            raise ValueError(f"attributes must differ, got {', '.join(self.attributes)}")
        for name in ("damping", "tolerance"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not self.hold:
            raise ValueError(f"hold must name at least one of {', '.join(HOLDS)}")
        for name in self.hold:
            choose("hold", name, HOLDS)
        asked = self.asked
        if FRAME in self.distil.forms:
            unseen = set(self.transformations) - set(direction_config.visible(asked))
            if unseen:
                raise ValueError(
                    "distil.forms: the dual frame is of attributes, and none is known for "
                    f"{', '.join(sorted(unseen))}"
                )

    follow = staticmethod(direction_config.Config.follow)

    @property
    def asked(self) -> direction_config.Config:
        """The same question as it is put to straight directions."""
        return direction_config.Config(
            run=self.run,
            seed=self.seed,
            generator=self.generator,
            source=self.source,
            transformations=self.transformations,
            ts=self.ts,
            losses=("mse",),
            inversion=direction_config.Inversion(count=max(self.starts, 8), sigma=self.blur),
            control=direction_config.Control(starts=self.starts, candidates=self.candidates),
        )


def suited(config: Config, event_shape: Sequence[int]) -> Config:
    """The same for samples of a shape: usually nothing is blurred or held of what is no image.

    >>> found = suited(Config(), (12,))
    >>> found.blur, found.hold
    (0.0, ('nothing',))
    """
    if not shows_light(event_shape) and config.hold == Config.hold:
        config = replace(config, hold=("nothing",))
    if not plots.are_pictures(event_shape) and config.blur == Config.blur:
        config = replace(config, blur=0.0)
    return config


def check(config: Config, generator: FrozenGenerator) -> None:
    """Rejects what is of images for a generator that makes none.

    Raises:
        UsageError: naming the flag to give.
    """
    if plots.are_pictures(generator.event_shape):
        return
    made = f"{generator.name} makes samples of shape {generator.event_shape}"
    if config.blur > 0:
        raise UsageError(f"--blur {config.blur:g} is in pixels of images, and {made}: give 0")
    if held := [name for name in config.hold if name != "nothing"]:
        raise UsageError(f"--hold {held[0]} is of images, and {made}: give --hold nothing")
    if config.attributes:
        raise UsageError(
            f"--attributes are measured on images, and {made}: change these by --transformations"
        )


def exact_field(config: Config, generator: Generator, kind: str) -> VectorField:
    """The field that performs a transformation, as the flags say."""
    return steering.transformation_field(
        generator, directions.transformation(kind), blur=config.blur, damping=config.damping
    )
