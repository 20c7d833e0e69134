"""Which generator, and how to use it: what a command line, or a notebook, says of one."""

import math
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from latent_flows._normal import log_normal
from latent_flows._validation import at_least
from latent_flows.generators._flow_map import check_steps
from latent_flows.generators.frozen import LogPrior, Prior, standard_normal
from latent_flows.generators.style_layers import check_layers
from latent_flows.typing import Latent

__all__ = ["GeneratorSpec", "check_no_flow", "log_prior", "prior"]


@dataclass(frozen=True)
class GeneratorSpec:
    """Where a generator is, and how its latents are drawn and its samples computed."""

    path: str = ""
    """Run folder that holds a generator, or was about one; or a function of your own as
    package.module:function or file.py:function, from a latent to a sample; with a checkpoint from
    (params, latent). Or a FrozenGenerator, a PyTorch module or what builds one, named in the same
    way."""
    checkpoint: str = ""
    """Parameters of a function of your own: an orbax folder, .npz or .safetensors; names with / are
    nested dictionaries. Of a PyTorch module its state: .pt, .pth, .pkl or .safetensors."""
    data: str = ""
    """Data that it was trained on, where it does not know or they were moved: a name, or the path
    of a folder of images, or of an .npz or .npy."""
    latent_dim: int | None = None
    """Latent dimensions of a function of your own, unless it or its checkpoint has a `latent_dim`.
    """
    range: tuple[float, float] = (0.0, 1.0)
    """Black and white of a function of your own that makes images."""
    prior: Literal["normal", "truncated", "sphere", "uniform"] = "normal"
    """Latents of any generator but a VAE's: normal; truncated to [-truncation, truncation];
    sphere, of the norm that normal ones have; uniform in [-1, 1]."""
    truncation: float = 1.0
    """Of the truncated prior; also what StyleGAN2 multiplies the distance from the mean of W by."""
    space: Literal["z", "w", "w+"] = "z"
    """StyleGAN2's latent space."""
    layers: str = ""
    """Of StyleGAN2: layers that the latent is given to, from 0, such as 4-7 or 0,2,5-6; the others
    keep the styles of one draw, so that only what these layers make moves. Empty: all of them."""
    base: int = 0
    """Seed of that draw."""
    label: int | None = None
    """Class of BigGAN, or of a StyleGAN2 that has some; none: a random one."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What it computes in; latents, samples and everything around it keep their precision."""
    recompute: bool = False
    """Compute its features again on the way back instead of keeping them: less memory, more
    time."""
    steps: int | None = None
    """Steps of the solver of a generator with a flow, all equal; 0: it chooses them; none: as many
    as it was made with."""
    solver: str = ""
    """That solver: euler, heun, midpoint, ralston, bosh3, tsit5, dopri5 or dopri8; by default the
    one that it was made with."""

    def __post_init__(self) -> None:
        if self.latent_dim is not None:
            at_least(self, "generator.", latent_dim=1)
        if not self.range[0] < self.range[1]:
            raise ValueError(f"generator.range must be black and white, got {self.range}")
        if not self.truncation > 0:
            raise ValueError(f"generator.truncation must be positive, got {self.truncation}")
        at_least(self, "generator.", base=0)
        if self.layers:
            check_layers(self.layers)
        if self.label is not None and self.label < 0:
            raise ValueError(f"generator.label must not be negative, got {self.label}")
        if self.steps is not None:
            at_least(self, "generator.", steps=0)
        if self.solver:
            check_steps(1, self.solver)


def check_no_flow(spec: GeneratorSpec, name: str) -> None:
    """Rejects settings of a flow, where there is none to follow.

    Args:
        spec: of a generator without one.
        name: what it is.

    Raises:
        ValueError: a number of steps, or a solver.

    >>> check_no_flow(GeneratorSpec(steps=4), "a GAN")
    Traceback (most recent call last):
    ...
    ValueError: generator.steps is of a generator with a flow, and a GAN has none: leave it out
    """
    for setting in ("steps", "solver"):
        if getattr(spec, setting) != getattr(GeneratorSpec(), setting):
            raise ValueError(
                f"generator.{setting} is of a generator with a flow, and {name} has none: leave it "
                "out"
            )


def prior(spec: GeneratorSpec, dim: int) -> Prior:
    """A function that draws a latent of `dim` numbers.

    Args:
        spec: which prior.
        dim: numbers of a latent.

    Returns:
        From a random key to a latent.

    >>> z = prior(GeneratorSpec(prior="sphere"), 9)(jax.random.key(0))
    >>> print(jnp.linalg.norm(z).round(4))
    3.0
    """

    def sphere(key: PRNGKeyArray) -> Latent:
        z = jax.random.normal(key, (dim,))
        return math.sqrt(dim) * z / jnp.linalg.norm(z)

    priors: dict[str, Prior] = {
        "normal": standard_normal(dim),
        "truncated": lambda key: jax.random.truncated_normal(
            key, -spec.truncation, spec.truncation, (dim,)
        ),
        "sphere": sphere,
        "uniform": lambda key: jax.random.uniform(key, (dim,), minval=-1.0),
    }
    return priors[spec.prior]


def log_prior(spec: GeneratorSpec) -> LogPrior | None:
    """The log-density of `prior`, in nats.

    Args:
        spec: which prior.

    Returns:
        From a latent to its log-density; None of any prior but the normal one.

    >>> log_prior(GeneratorSpec(prior="sphere")) is None
    True
    """
    return log_normal if spec.prior == "normal" else None
