"""The flags of a run of directions, and what they say of transformations and losses."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, ClassVar

import tyro

from experiments.generators.spec import Flags, Usual
from experiments.runtime.defaults import Quick, Settings
from latent_flows import directions, plots
from latent_flows._named_function import is_named, label
from latent_flows._validation import at_least
from latent_flows.data import ImageFactor
from latent_flows.data.image_factors import SIZE, X, Y
from latent_flows.directions.losses import LOSSES, Loss, blurred_error
from latent_flows.directions.transformations import ENTRIES, entry
from latent_flows.generators import GeneratorSpec

ALWAYS = (X, Y, SIZE)
"""Factors that are measured on images whatever is asked for: what else changes is leakage."""
FEWEST = 4
"""Trajectories that must be left after dropping, for some to be held out."""


OWN = "file.py:function or package.module:function"
"""How a function of one's own is named."""


def _one_of(names: Iterable[str]) -> str:
    return f"{', '.join(names)}."


@dataclass(frozen=True)
class Inversion:
    """The trajectories."""

    count: int = 48
    """Trajectories of each transformation, from codes of training images (without an encoder: from
    draws of the prior, here and below)."""
    amounts: int = 4
    """Values of t on each side of 0."""
    steps: int = 30
    """Of Adam, at each of them."""
    sigma: float = 3.0
    """Standard deviation of the blur of the loss "blurred", in pixels."""
    batch: int = 48
    """Trajectories that are followed at once."""

    def __post_init__(self) -> None:
        at_least(self, "inversion.", count=1, amounts=1, steps=1, sigma=0, batch=1)


@dataclass(frozen=True)
class Fit:
    """The models of a direction."""

    drop: float = 0.1
    """Share of the trajectories, those of the largest errors, that is left out."""
    knots: int = 11
    """Of the monotone function along a straight direction."""
    width: int = 16
    """Units of a hidden layer of the potential of a curved one."""
    flow_weight: float = 0.0
    """Of the match between its flow and the trajectories' velocities. These also wander where the
    image does not change, which a match takes for slowness: with 1 it goes too far."""
    ridge: float = 0.01
    """Weight of its squared slope, against slopes across the trajectories: without it the curved
    flow leaves them."""
    steps: int = 1000
    """Of Adam, for either."""

    def __post_init__(self) -> None:
        at_least(self, "fit.", drop=0, knots=2, width=1, flow_weight=0, ridge=0, steps=1)
        if not self.drop < 1:
            raise ValueError(f"fit.drop must lie in [0, 1), got {self.drop}")


@dataclass(frozen=True)
class Control:
    """What is measured at the end."""

    starts: int = 128
    """Codes of held-out images that are moved."""
    amounts: int = 10
    """Changes that are asked of each, on each side of 0."""
    stretch: float = 2.0
    """The largest of them, in units of the largest t that was trained on."""
    bound: float = 0.1
    """Error (root mean square, as a share of the factor's range) up to which control counts as
    such when its reach is measured."""
    candidates: int = 6
    """Directions that each baseline proposes, of which the best by ground truth is taken."""

    def __post_init__(self) -> None:
        at_least(self, "control.", starts=2, amounts=1, stretch=1, candidates=1)
        if not self.bound > 0:
            raise ValueError(f"control.bound must be positive, got {self.bound}")


@dataclass(frozen=True)
class Config:
    """Find the directions of a generator that perform given transformations."""

    QUICK: ClassVar[Quick] = {
        "losses": ("blurred",),
        "inversion.count": 12,
        "inversion.amounts": 2,
        "inversion.steps": 15,
        "inversion.batch": 36,
        "fit.steps": 200,
        "control.starts": 16,
        "control.amounts": 4,
        "control.candidates": 2,
        "measure": False,
    }

    run: str = "runs/directions"
    """Run folder; the same command goes on with what it holds."""
    seed: int = 0
    """Source of all randomness."""
    generator: str = Usual("runs/vae-sprites", "train_vae sprites")
    """Run folder of train_vae, train_gan, train_flow or import_weights, or of any experiment on
    one; package.module:function or file.py:function."""
    source: Flags = field(default_factory=GeneratorSpec)
    """How to use it."""
    transformations: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            help=f"Of images: {_one_of(ENTRIES)} Of your own, for samples of any shape: {OWN} of "
            "(sample, t) -> (sample, mask), the identity at t = 0."
        ),
    ] = ("translate_x", "translate_y", "zoom")
    """What the directions shall do."""
    ts: tuple[float, ...] = ()
    """The largest |t| of each of them; none: the usual ones, 1 of a function that is not registered
    with another reach."""
    losses: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            help=f"Of the images of a trajectory and their targets: {_one_of(LOSSES)} Of your own: "
            f"{OWN} of (x, y, mask) -> number. The first is that of all comparisons but the one of "
            "losses. What is no image is compared by mse where no other loss than usual is named."
        ),
    ] = ("blurred", "mse", "dssim")
    """What a trajectory is found by."""
    inversion: Inversion = field(default_factory=Inversion)
    """Trajectories."""
    fit: Fit = field(default_factory=Fit)
    """Models."""
    control: Control = field(default_factory=Control)
    """Measurements."""
    measure: Annotated[bool, tyro.conf.arg(name="scores")] = True
    """Measure scores, which may take longer than all else; without them pictures come first, and
    the same command with scores adds these to the run."""

    latent: str = ""
    """Draw the directions from these latents as well: an .npy file, such as experiments.invert
    writes. A finished run is not learnt anew for it."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if not self.transformations or not self.losses:
            raise ValueError("name at least one of the transformations and one of the losses")
        for what in ("transformations", "losses"):
            _check_labels(what, getattr(self, what))
        # Those of one's own are read when they are needed, so that a run can be looked at without.
        for name in self.transformations:
            if not is_named(name):
                directions.transformation(name)
        for name in self.losses:
            if not is_named(name):
                directions.loss(name)
        if self.ts and len(self.ts) != len(self.transformations):
            raise ValueError(
                f"ts must have one value for each of the {len(self.transformations)} "
                f"transformations, got {len(self.ts)}; give --ts as well as --transformations"
            )
        if not all(t > 0 for t in self.ts):
            raise ValueError(f"ts must be positive, got {self.ts}")
        left = self.inversion.count - int(self.fit.drop * self.inversion.count)
        if left < FEWEST:
            raise ValueError(
                f"too few trajectories: of inversion.count ({self.inversion.count}) only {left} "
                f"are left after fit.drop ({self.fit.drop}); at least {FEWEST} are needed"
            )

    @staticmethod
    def follow(settings: Settings) -> None:
        """The usual reach of transformations that are named."""
        if settings.is_given("transformations"):
            settings.put("ts", ())


def _check_labels(what: str, names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        raise ValueError(f"{what} must differ from each other, got {', '.join(names)}")
    first: dict[str, str] = {}
    for name in names:
        if (other := first.setdefault(label(name), name)) != name:
            raise ValueError(
                f"{what} {other} and {name} would both be called {label(name)!r} in tables and "
                "files: give one of the functions another name"
            )


def check_functions(config: Config) -> None:
    """Finds the functions that are named.

    Raises:
        ValueError: a file, module or function is not there.
    """
    for name in config.transformations:
        entry(name)
    for name in config.losses:
        loss(config, name)


def suited(config: Config, event_shape: Sequence[int]) -> Config:
    """The same for samples of a shape: the usual losses are of images, and mse is of anything.

    >>> suited(Config(), (28, 28, 1)).losses, suited(Config(), (12,)).losses
    (('blurred', 'mse', 'dssim'), ('mse',))
    """
    is_usual = config.losses in (Config.losses, Config.QUICK["losses"])
    if plots.are_pictures(event_shape) or not is_usual:
        return config
    return replace(config, losses=("mse",))


def loss(config: Config, name: str) -> Loss:
    """A reconstruction loss by its name, blurred as much as the flags say."""
    if name == "blurred":
        return partial(blurred_error, sigma=config.inversion.sigma)
    return directions.loss(name)


def reach(config: Config) -> dict[str, float]:
    """The largest |t| of each transformation."""
    given = config.ts or [entry(name).reach for name in config.transformations]
    return dict(zip(config.transformations, given, strict=True))


def visible(config: Config) -> dict[str, str]:
    """The transformations whose effect can be measured, each with the name of its factor.

    >>> visible(Config(transformations=("zoom", "rotate", "brightness")))
    {'zoom': 'size', 'brightness': 'light'}
    """
    found = {name: entry(name).factor for name in config.transformations}
    return {name: factor.name for name, factor in found.items() if factor is not None}


def measured(config: Config, always: tuple[ImageFactor, ...] = ALWAYS) -> tuple[ImageFactor, ...]:
    """The factors to measure: some always, and what else transformations change.

    >>> [factor.name for factor in measured(Config(transformations=("hue", "brightness")))]
    ['x', 'y', 'size', 'light', 'hue']
    """
    wanted = visible(config)
    # Those of the library come in its order, whatever is asked for first.
    order = {name: place for place, name in enumerate(ENTRIES)}
    names = sorted(wanted, key=lambda name: order.get(name, len(order)))
    others = [factor for name in names if (factor := entry(name).factor)]
    return tuple(dict.fromkeys((*always, *others)))
