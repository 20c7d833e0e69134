"""The flags of a run of guided flows, and the networks and schedules that they name."""

import math
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import jax
import jax.numpy as jnp
import tyro
from jaxtyping import Array, PyTree

from experiments.generators.spec import Flags as GeneratorFlags
from experiments.generators.spec import Usual
from experiments.potential_flows.families import EQUATIONS
from experiments.runtime import extension
from experiments.runtime.checks import check_devices
from experiments.runtime.defaults import Quick, Settings
from experiments.runtime.training import Training
from experiments.supervised_flows.factors import KNOWN, NAMES
from experiments.supervised_flows.transformed import is_transformation
from latent_flows import flows
from latent_flows._validation import at_least, choose
from latent_flows.directions.transformations import ENTRIES
from latent_flows.generators import GeneratorSpec
from latent_flows.potentials import TiltedNet, init_stack

PHASE = "guided"
STRETCH = 2
"""How much longer than trained held-out sequences are."""


BEATS = {"uniform": (0.0, 0.0), "swing": (math.pi / 2, math.pi / 2)}
"""Frequency, in radians over the horizon, and phase of the speed of each schedule."""


@dataclass(frozen=True)
class Sequences:
    """What the flows are taught by."""

    factors: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            help="Known factors, one potential each: "
            + "; ".join(f"of {of} {', '.join(known.factors)}" for of, known in KNOWN.items())
            + "; of any images the transformations "
            + ", ".join(name for name, entry in ENTRIES.items() if entry.factor is not None)
            + "; of any samples a transformation of your own, (x, t) -> (x, mask), registered with "
            "a factor: package.module:function or file.py:function."
        ),
    ] = ("x", "y", "scale")
    """Known factors, one potential each."""
    count: int = 1500
    """Sequences of samples, over all factors together."""
    horizon: int = 10
    """Steps of a sequence, T, each of unit time."""
    reach: float = 0.4
    """Change over a sequence that starts at time 0, as a share of the factor's range; that of a
    transformation is from minus to plus the reach that it is registered with."""
    schedule: Literal["uniform", "swing"] = "uniform"
    """When the factor changes: in equal steps, or from rest to rest in twice the trained time."""
    offset: float = 0.0
    """Latest time at which a sequence starts, in units of the horizon; 0: all start at time 0."""
    refine: int = 3
    """Gauss-Newton steps that bring a code's image closer to the image it is the code of."""

    def __post_init__(self) -> None:
        least = len(self.factors)
        at_least(self, "sequences.", count=max(least, 1), horizon=2, offset=0, refine=0)
        if not self.factors or len(set(self.factors)) < least:
            raise ValueError(
                f"sequences.factors must name each factor once, got {self.factors or 'none'}"
            )
        for name in self.factors:
            if not is_transformation(name):
                choose("factor", name, {**NAMES, **ENTRIES})
        if not 0 < self.reach <= 1 / STRETCH:
            raise ValueError(
                f"sequences.reach must lie in (0, {1 / STRETCH}], so that twice the trained time "
                f"stays in the factor's range, got {self.reach}"
            )


@dataclass(frozen=True)
class Flows:
    """The potentials and their flows."""

    initial: Literal["static", "free", "exact", "standing"] = "static"
    """static: u has no time; free: u is any network of time; exact: such a network at rest at
    time 0; standing: a wave u = cos(omega t - phi) f(z)."""
    clock: Literal["known", "learnt"] = "known"
    """Of a standing wave: that of the schedule asked for, or learnt frequency and phase."""
    frame: Literal["ica", "identity"] = "ica"
    """Coordinates the flows live in: independent components of the codes, or the latent's own."""
    pde: str = "wave"
    """Equation of the potentials: wave, heat, hamilton_jacobi, fokker_planck or none."""
    solver: str = "heun"
    """Solver of the training trajectories; one of low order takes unit steps."""
    width: int = 64
    """Units of a potential's hidden layers."""
    depth: int = 2
    """Hidden layers of a potential."""

    def __post_init__(self) -> None:
        at_least(self, "flows.", width=1, depth=1)


@dataclass(frozen=True)
class Weights:
    """Weights of the loss terms, each of which is of order 1; 0 leaves a term out."""

    landing: float = 1.0
    """Squared distance from the codes of the sequence, in the generator's metric, relative to that
    of standing still."""
    residual: float = 1.0
    """PDE residual, relative to the size of the equation's terms."""
    leakage: float = 1.0
    """Squared change of what the factor does not change, relative to that of what it does, each in
    units of its range."""

    def __post_init__(self) -> None:
        at_least(self, "weights.", **dict.fromkeys(vars(self), 0))


@dataclass(frozen=True)
class Config:
    """Learn flows that change known factors of data by known amounts."""

    PHASES: ClassVar[extension.Phases] = {"training": (PHASE,)}
    QUICK: ClassVar[Quick] = {
        "sequences.count": 90,
        "sequences.refine": 1,
        "training.steps": 100,
        "training.batch_size": 8,
        "flows.width": 32,
        "starts": 8,
        "measure": False,
    }

    run: str = "runs/guided"
    """Run folder; the same command goes on with what it holds."""
    seed: int = 0
    """Source of all randomness."""
    generator: str = Usual("runs/vae-sprites", "train_vae sprites")
    """Run folder of train_vae, or of any experiment on such a VAE, of whatever data."""
    source: GeneratorFlags = field(default_factory=GeneratorSpec)
    """How to use it."""
    sequences: Sequences = field(default_factory=Sequences)
    """What the flows are taught by."""
    flows: Flows = field(default_factory=Flows)
    """Potentials."""
    weights: Weights = field(default_factory=Weights)
    """Loss of the potentials."""
    training: Training = field(default_factory=Training)
    """Optimiser and duration for the potentials; a batch has so many sequences of each factor."""
    starts: int = 64
    """Held-out starting points of each factor that is measured."""
    measure: Annotated[bool, tyro.conf.arg(name="scores")] = True
    """Measure scores, which may take longer than all else; without them pictures come first, and
    the same command with scores adds these to the run."""

    def __post_init__(self) -> None:
        at_least(self, seed=0, starts=2)

    @staticmethod
    def follow(settings: Settings) -> None:
        """A sequence of each factor."""
        settings.at_least("sequences.count", len(settings["sequences.factors"]))


def check(config: Config) -> None:
    """Reject unknown names before anything is computed.

    Raises:
        ValueError: naming the nearest valid ones.
        UsageError: a batch that the devices cannot share.
    """
    choose("pde", config.flows.pde, EQUATIONS)
    flows.solver(config.flows.solver)
    check_devices(training=config.training)


def network(config: Config) -> TiltedNet:
    """The network that all potentials share."""
    flags, beat = config.flows, None
    if flags.initial == "standing" and flags.clock == "known":
        beat = BEATS[config.sequences.schedule]
    horizon = float(config.sequences.horizon)
    return TiltedNet(flags.width, flags.depth, horizon, flags.initial, beat)


def initial(config: Config, dim: int, key: Array) -> PyTree:
    """Fresh parameters of the potentials and of the PDE's coefficients."""
    count = len(config.sequences.factors)
    return {
        "potentials": init_stack(network(config), key, count, dim),
        "coefficients": jnp.full((count,), 0.5),
    }


def progress(config: Config, t: Array) -> Array:
    """The change of a factor by time `t`, as a share of its change over the trained time.

    >>> import jax.numpy as jnp
    >>> swinging = Config(sequences=Sequences(schedule="swing"))
    >>> progress(swinging, jnp.array([0.0, 10.0, 20.0])).round(3).tolist()
    [0.0, 1.0, 2.0]
    """
    passed = jnp.asarray(t) / config.sequences.horizon
    if config.sequences.schedule == "uniform":
        return passed
    return 1 - jnp.cos(jnp.pi / 2 * passed)


def residual_is_on(config: Config) -> bool:
    """Whether an equation is imposed."""
    return EQUATIONS[config.flows.pde] is not None and config.weights.residual > 0


def per_factor(config: Config) -> int:
    """Sequences of each factor."""
    return config.sequences.count // len(config.sequences.factors)


def random_keys(config: Config, purpose: int, count: int) -> Array:
    """Keys for one purpose of this seed."""
    return jax.random.split(jax.random.fold_in(jax.random.key(config.seed), purpose), count)
