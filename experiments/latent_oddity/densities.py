"""A metric that is made of a density of codes, beside those that a deviation makes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.runtime.announcements import announced
from latent_flows._validation import at_least
from latent_flows.evaluation.plausibility import BANDWIDTHS, code_box
from latent_flows.generators.prior_flow import fit_prior_flow
from latent_flows.geometry import density_metric
from latent_flows.geometry.interpolation import tabulate
from latent_flows.typing import Latent, Metric, Scalar

NAME = "density"
"""What the metric is called among others."""
REACH = 1.4
"""Half the side of a table, in halves of the box of the training codes and a margin."""


@dataclass(frozen=True)
class Density:
    """A metric that is larger where few codes are, whatever a deviation says."""

    kind: Literal["none", "kernel", "flow"] = "none"
    """kernel: an estimate by Gaussian kernels on the training codes; flow: a prior flow that is
    fitted to them; none: no such metric."""
    base: Literal["pullback", "euclidean"] = "pullback"
    """The metric that it stretches: the generator's own, or the latent's."""
    far: float = 10.0
    """How many times longer lengths are where there are no codes, more than 1."""
    rare: float = 0.05
    """Share of the codes that lie where the density counts as low."""
    steps: int = 3000
    """Of the flow's training."""
    table: int = 256
    """Points on each side of the table that it is kept in where latents are two; 0: no table."""

    def __post_init__(self) -> None:
        at_least(self, "density.", steps=1)
        if not self.far > 1:
            raise ValueError(f"density.far must be more than 1, got {self.far}")
        if not 0 < self.rare < 1:
            raise ValueError(f"density.rare must lie in (0, 1), got {self.rare}")
        if self.table != 0 and self.table < 8:
            raise ValueError(f"density.table must be 0 or at least 8, got {self.table}")


def made_of(density: Density, seed: int, base: Metric, codes: Float[Array, "n d"]) -> Metric:
    """The metric that the flags describe.

    Args:
        density: the flags, of a kind.
        seed: of a flow's training.
        base: the generator's own metric.
        codes: of training data, or draws.
    """
    with announced(f"fitting a density to {len(codes)} latents, by {density.kind}"):
        metric = density_metric(
            LOG_DENSITIES[density.kind](density, seed, codes),
            codes,
            far=density.far,
            rare=density.rare,
            base=base if density.base == "pullback" else None,
        )
        if not density.table or codes.shape[1] != 2:
            return metric
        return tabulate(metric, *corners(np.asarray(codes)), resolution=density.table)


def corners(codes: Float[np.ndarray, "n d"]) -> tuple[np.ndarray, np.ndarray]:
    """Of a table that holds the codes and what lies around them."""
    low, high = code_box(codes)
    centre, half = (low + high) / 2, REACH * (high - low) / 2
    return centre - half, centre + half


def kernel_density(codes: Float[Array, "n d"]) -> Callable[[Latent], Scalar]:
    r"""The logarithm of a kernel density estimate, as smooth as suits other codes best.

    $$\log p(z) = \log \frac1n \sum_i N(z;\, c_i,\, h^2 I)$$

    with the `h` by which one half of the codes is likeliest under the other.

    >>> codes = jax.random.normal(jax.random.key(0), (400, 1))
    >>> bool(abs(kernel_density(codes)(jnp.zeros(1)) + 0.92) < 0.2)  # of N(0, 1): -0.92
    True
    """
    half = len(codes) // 2
    spread = codes.std()

    def likelihood(width: Array) -> Scalar:
        return jax.lax.map(partial(_of_kernels, codes[:half], width), codes[half:]).mean()

    widths = spread * jnp.asarray(BANDWIDTHS, codes.dtype)
    best = widths[jnp.argmax(jnp.stack([likelihood(width) for width in widths]))]
    return partial(_of_kernels, codes, best)


def _of_kernels(centres: Float[Array, "n d"], width: Scalar, z: Latent) -> Scalar:
    squares = ((centres - z) ** 2).sum(-1) / width**2
    volume = centres.shape[1] * (jnp.log(width) + jnp.log(2 * jnp.pi) / 2)
    return jax.nn.logsumexp(-squares / 2) - jnp.log(len(centres)) - volume


def _flow(density: Density, seed: int, codes: Float[Array, "n d"]) -> Callable[[Latent], Scalar]:
    return fit_prior_flow(jax.random.key(seed), codes, steps=density.steps).log_prob


def _kernels(density: Density, seed: int, codes: Float[Array, "n d"]) -> Callable[[Latent], Scalar]:
    del density, seed
    return kernel_density(codes)


LOG_DENSITIES = {"kernel": _kernels, "flow": _flow}
"""By the name that the command line has: `(flags, seed, codes)` to the log-density."""
