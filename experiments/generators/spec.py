"""A generator, and the flags that say which one and how to use it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array, Float, PRNGKeyArray

from experiments.runtime.cli import UsageError
from latent_flows import _memory
from latent_flows._validation import at_least
from latent_flows.data import Dataset
from latent_flows.typing import Generator, Latent

SAME = 1e-6
"""Up to which pixels in [0, 1] are the same."""


class Usual(str):
    """A preset's run folder of a generator, which one that is named by its path takes the place of.

    A folder that was given as a flag is a plain string.
    """


@dataclass(frozen=True)
class Source:
    """A generator that is no VAE's: a function of your own, and what to draw its latents from."""

    path: str = ""
    """Your own, instead of a run's: package.module:function or file.py:function, from a latent to
    an image [h, w, c]; with a checkpoint from (params, latent)."""
    checkpoint: str = ""
    """Its parameters: an orbax folder, .npz or .safetensors; names with / are nested
    dictionaries."""
    latent_dim: int | None = None
    """Its latent dimensions, unless the function or the checkpoint has a `latent_dim`."""
    range: tuple[float, float] = (0.0, 1.0)
    """Its black and white."""
    prior: Literal["normal", "truncated", "sphere", "uniform"] = "normal"
    """Latents of any generator but a VAE's: normal; truncated to [-truncation, truncation];
    sphere, of the norm that normal ones have; uniform in [-1, 1]."""
    truncation: float = 1.0
    """Of the truncated prior; also what StyleGAN2 multiplies the distance from the mean of W by."""
    space: Literal["z", "w", "w+"] = "z"
    """StyleGAN2's latent space."""
    label: int | None = None
    """BigGAN's class; none: a random one."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What it computes in; latents, images and everything around it keep their precision."""
    recompute: bool = False
    """Compute its features again on the way back instead of keeping them: less memory, more
    time."""

    def __post_init__(self) -> None:
        if self.latent_dim is not None:
            at_least(self, "generator.", latent_dim=1)
        if not self.range[0] < self.range[1]:
            raise ValueError(f"generator.range must be black and white, got {self.range}")
        if not self.truncation > 0:
            raise ValueError(f"generator.truncation must be positive, got {self.truncation}")
        if self.label is not None and self.label < 0:
            raise ValueError(f"generator.label must not be negative, got {self.label}")


Flags = Annotated[Source, tyro.conf.arg(name="generator")]
"""As a field of a configuration: `--generator.path` and so on, beside `--generator RUN`."""


class Supply(NamedTuple):
    """A frozen generator, ready to use."""

    name: str
    """What it is, for captions."""
    generator: Generator
    """From a latent to an image `[h, w, c]`, nominally in [0, 1]; its parameters are its leaves."""
    latent_dim: int
    image_shape: tuple[int, int, int]
    prior: Callable[[PRNGKeyArray], Latent]
    weight: Float[Array, "m d"] | None
    """Of the layers that take the latent, stacked; None where it meets no linear layer."""
    data: Dataset | None
    """The data it was trained on, where their factors can be measured."""


def check_changes(name: str, images: Float[np.ndarray, "n h w c"]) -> None:
    """Whether images of different latents differ at all.

    Raises:
        UsageError: they are the same.

    >>> check_changes("a bowl", np.stack([np.zeros((2, 2, 1)), np.ones((2, 2, 1))]))
    """
    if np.ptp(images, axis=0).max() <= SAME:
        raise UsageError(
            f"{name} makes the same image of every latent: there is nothing to move through or "
            "to measure"
        )


def prior(source: Source, dim: int) -> Callable[[PRNGKeyArray], Latent]:
    """A function that draws a latent of `dim` numbers.

    >>> z = prior(Source(prior="sphere"), 9)(jax.random.key(0))
    >>> print(jnp.linalg.norm(z).round(4))
    3.0
    """

    def sphere(key: PRNGKeyArray) -> Latent:
        z = jax.random.normal(key, (dim,))
        return math.sqrt(dim) * z / jnp.linalg.norm(z)

    priors: dict[str, Callable[[PRNGKeyArray], Latent]] = {
        "normal": lambda key: jax.random.normal(key, (dim,)),
        "truncated": lambda key: jax.random.truncated_normal(
            key, -source.truncation, source.truncation, (dim,)
        ),
        "sphere": sphere,
        "uniform": lambda key: jax.random.uniform(key, (dim,), minval=-1.0),
    }
    return priors[source.prior]


def draws(
    prior: Callable[[PRNGKeyArray], Latent], key: PRNGKeyArray, count: int
) -> Float[Array, "n d"]:
    """Independent latents.

    Raises:
        ValueError: there is too little memory for so many.
    """
    one = jax.eval_shape(prior, jax.random.key(0))
    _memory.require(
        count * (8 + _memory.size_of(one)),
        f"drawing {count} latents of {one.shape[0]} numbers",
        "lower --flows.codes, --inversion.count, --geodesics.pairs or the latent dimensions",
    )
    return jax.jit(jax.vmap(prior))(jax.random.split(key, count))
