"""Flags of potential flows: what moves latents, what the loss is made of, what is measured."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from latent_flows._validation import at_least, choose
from latent_flows.directions.transformations import ENTRIES
from latent_flows.objectives import PotentialFlowWeights
from latent_flows.pde import EQUATIONS, described
from latent_flows.steering.distilled import FORMS


@dataclass(frozen=True)
class Flows:
    """The potentials and their flows."""

    count: int = 4
    """Number of potentials, K."""
    horizon: int = 10
    """Time steps of a traversal, T, each of unit time."""
    pde: Annotated[str, tyro.conf.arg(help=f"Equation of the potentials. {described()}.")] = "wave"
    initial: Literal["exact", "free", "static"] = "exact"
    """exact: at rest at time 0 by construction; free: encouraged by the loss; static: u has no
    time."""
    family: Literal["potential", "linear", "warp", "field"] = "potential"
    """What moves latents: potentials; or, to compare with, constant directions, gradients of RBF
    mixtures, or a vector field that no potential and no equation binds."""
    gradient: Literal["plain", "natural"] = "plain"
    """How potentials are climbed: along their gradient, or along the steepest way as the generator
    measures length."""
    laplacian: Literal["euclidean", "row-sum", "beltrami"] = "euclidean"
    """The Laplacian of the wave and the heat equation: that of the flows' coordinates; the row sums
    of the Hessian, as in published code; or that of the generator's manifold."""
    orthogonal: bool = False
    """Keep the directions of the linear family orthogonal to each other."""
    supports: int = 16
    """Pairs of kernels of a warp."""
    solver: str = "euler"
    """Solver of the training trajectories; euler takes unit steps, as published."""
    width: int = 64
    """Units of a potential's hidden layers."""
    depth: int = 2
    """Hidden layers of a potential."""
    reverse: bool = True
    """Follow half of the training trajectories backwards."""
    frame: Literal["ica", "visible", "identity"] = "ica"
    """Coordinates the flows live in: independent components of the codes (without an encoder:
    whitened principal components of draws); directions that change the image most first; or the
    latent's own."""
    starts: Literal["posterior", "prior"] = "posterior"
    """Where traversals start: codes of data, or draws from the prior (always, without an encoder).
    """
    codes: int = 4096
    """Number of starting points, and of images encoded to find the frame."""
    bank: int = 1024
    """Latents at which the generator's metric is computed once, before training; 0: a
    Jacobian-vector product at every step instead (for large latents)."""
    pace: float = 1.0
    """Data-space length per unit time that flows are drawn to (root mean square, pixels); of
    samples that are no images: 1 takes a flow as far as two of them are apart."""
    reach: float = 0.0
    """Share of the codes' range (from 1% to 99% of them, along each axis) that flows are drawn to
    cross within the horizon, in place of pace: a factor of a short range is then not left sooner
    than others; 0: pace."""
    classifier: Literal["small", "lenet", "resnet18"] = "small"
    """Network that names the potential from an image pair; lenet and resnet18 as published. Of
    samples that are no images, dense layers."""
    avoid: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            help="Transformations of the image that flows shall leave alone, so that they find "
            f"what else there is, one after the other: {', '.join(ENTRIES)}. Their steered fields "
            "are computed once at the bank's latents; see weights.avoided."
        ),
    ] = ()
    """Transformations of the image that flows shall leave alone."""
    at_once: int = 0
    """Image pairs that the generator makes at once in a training step, to save memory; 0: all."""
    turned: bool = False
    """Turn each potential that may as well be its negative (of a linear equation, or none) so that
    its flow goes where the generator's encoder recognises more of what is made."""

    def __post_init__(self) -> None:
        at_least(self, "flows.", count=2, horizon=2, width=1, depth=1, codes=16, bank=0, at_once=0)
        at_least(self, "flows.", supports=1, reach=0)
        for name in self.avoid:
            choose("flows.avoid", name, ENTRIES)
        if self.avoid and not self.bank:
            raise ValueError(
                "flows.avoid needs the generator's metric at latents where its fields are known: "
                "raise flows.bank"
            )
        if self.bank > self.codes:
            raise ValueError(f"flows.bank ({self.bank}) is more than flows.codes ({self.codes})")
        if not self.pace > 0:
            raise ValueError(f"flows.pace must be positive, got {self.pace}")
        if self.family != "potential" and (self.gradient, self.laplacian) != ("plain", "euclidean"):
            raise ValueError(
                "flows.gradient and flows.laplacian are about potentials, and flows.family is "
                f"{self.family}"
            )
        equation = choose("pde", self.pde, EQUATIONS)
        if self.laplacian != "euclidean" and not (equation and equation.on_manifold):
            able = [name for name, found in EQUATIONS.items() if found and found.on_manifold]
            raise ValueError(
                f"flows.laplacian {self.laplacian} is for flows.pde {' or '.join(able)}, not "
                f"{self.pde}"
            )
        if self.orthogonal and self.family != "linear":
            raise ValueError(f"flows.orthogonal is for flows.family linear, not {self.family}")


@dataclass(frozen=True)
class Weights(PotentialFlowWeights):
    """Weights of the loss terms, each of which is of order 1; 0 leaves a term out."""

    # Their earlier flags go on working.
    variation: Annotated[float, tyro.conf.arg(aliases=("--weights.stillness",))] = 1.0
    """Lack of variation along the flow: bounded form of the published - E |J v|^2."""
    speed: Annotated[float, tyro.conf.arg(aliases=("--weights.pace",))] = 0.0
    """Squared log-ratio of each flow's speed in data space to flows.pace."""
    consistency: Annotated[float, tyro.conf.arg(aliases=("--weights.inconsistency",))] = 0.0
    """Lack of a common direction of a flow over starting points and times."""
    avoided: float = 8.0
    """Share of what flows change that lies along the fields of flows.avoid, in the generator's
    metric; of no account without any."""


@dataclass(frozen=True)
class Scores:
    """What is measured at the end."""

    starts: int = 128
    """Starting points of the measured traversals, of each traversal."""
    pairs: int = 1024
    """Image pairs per traversal for variation predictability (VP)."""
    fractions: tuple[float, ...] = (0.01, 0.1)
    """Shares of the pairs that the VP classifier learns from."""
    length: float = 0.0
    """Data-space length of the long displacement; 0: the median of the flows' own, or with
    flows.reach the shortest, for which none has to go beyond what it was taught."""
    short: float = 0.25
    """Short displacement, as a share of the long one; 0: none."""
    test_images: int = 1000
    """Held-out images that the generator's bounds are measured on, once more; 0: none."""
    vp_steps: int = 150
    """Training steps of a VP classifier."""
    seeds: int = 3
    """VP classifiers per score."""
    others: bool = True
    """Compare with directions that need no learning, and measure the generator."""
    closed_form: bool = False
    """Compare with SeFa (where a linear layer takes the latent) and GANSpace directions too."""
    local_basis: bool = False
    """Compare with the directions that show most at each start too."""
    steered: bool = False
    """Compare with steered fields too: of moving and zooming where these change what is measured,
    else of each factor that is, all others held."""
    taught: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            help="Compare with networks that are taught steered fields on 2,048 latents, too: "
            f"{', '.join(FORMS)}. None: none."
        ),
    ] = ()
    """Compare with what is taught steered fields, too."""
    factors: tuple[str, ...] = ()
    """Factors of images to measure, such as x y size light, in units of their ranges in what the
    generator makes; none: those of the data, where these come with factors."""

    def __post_init__(self) -> None:
        at_least(self, "scores.", starts=2, pairs=2, test_images=0, vp_steps=1, seeds=1, length=0)
        wrong = [f"scores.fractions {share}" for share in self.fractions if not 0 < share < 1]
        if wrong:
            raise ValueError(f"scores.fractions must lie in (0, 1), got {wrong[0]}")
        if not 0 <= self.short <= 1:
            raise ValueError(f"scores.short must lie in [0, 1], got {self.short}")
        for name in self.taught:
            choose("scores.taught", name, FORMS)
        if len(set(self.factors)) < len(self.factors):
            raise ValueError(f"scores.factors must differ, got {', '.join(self.factors)}")
