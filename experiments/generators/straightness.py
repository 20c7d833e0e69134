"""How straight a generator is: how far its factors are linear in the latent, and how fast straight
lines turn away from geodesics."""

import math

import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from latent_flows._transforms import in_chunks
from latent_flows.data.image_factors import Measures
from latent_flows.geometry import geodesic_curvature, unit_metric
from latent_flows.typing import Generator

FEWEST = 4
"""Valid images a latent dimension, below which nothing is said."""
UNIT_OVER = 32
"""Latents over which the mean of a metric is taken."""
BATCH = 16
"""Latents at which it is looked at together."""


def straightness(
    generator: Generator, latents: Float[Array, "n d"], measures: Measures
) -> dict[str, float]:
    """Linear R2 of each factor that is measured on the images of latents, and their mean.

    It is 1 where straight lines move one factor each, evenly and everywhere.

    Args:
        generator: of the images.
        latents: where it is looked at; the map is fitted on one half, and scored on the other.
        measures: the factors, and which images are valid: others do not count.

    Returns:
        R2 by factor and as `mean`; empty where too few images are valid.
    """
    look = in_chunks(lambda z: (measures.measure(x := generator(z)), measures.is_valid(x)))
    values, valid = map(np.asarray, look(latents))
    seen, values = np.asarray(latents)[valid], values[valid]
    if len(seen) < FEWEST * latents.shape[1]:
        return {}
    found = {
        factor.name: linear_r2(seen, values[:, place], factor.period)
        for place, factor in enumerate(measures.factors)
    }
    return {**found, "mean": float(np.mean([*found.values()]))}


def turning(
    generator: Generator, latents: Float[Array, "n d"], key: PRNGKeyArray
) -> dict[str, float]:
    """How fast straight lines turn away from geodesics of the generator's metric.

    In random directions, as they are in the latent space; the metric is in units of its mean, plus
    1% of that along every axis, so that a unit of length is what a unit step in the latent changes.

    Args:
        generator: of the images.
        latents: where lines begin.
        key: of their directions.

    Returns:
        Radians per unit, at half and at nine tenths of the latents at most: 0 where straight lines
        are geodesics.
    """
    metric = unit_metric(generator, latents[:UNIT_OVER])
    directions = jax.random.normal(key, latents.shape)
    found = in_chunks(geodesic_curvature(metric), BATCH)(latents, directions)
    median, most = np.quantile(np.asarray(found), [0.5, 0.9])
    return {"turning": float(median), "turning@90%": float(most)}


def linear_r2(
    latents: Float[np.ndarray, "n d"], values: Float[np.ndarray, "n"], period: float = math.inf
) -> float:
    """R2, on the second half, of a linear map that is fitted on the first.

    Args:
        latents: what it maps.
        values: of a factor.
        period: after how much the factor begins anew; then the point on the circle is meant.

    >>> z = np.random.default_rng(0).normal(size=(200, 3))
    >>> round(linear_r2(z, 2 * z[:, 0] + 1), 6)
    1.0
    """
    from sklearn.linear_model import LinearRegression

    half = len(latents) // 2
    angle = 2 * math.pi * values / period
    target = np.stack([np.cos(angle), np.sin(angle)], -1) if math.isfinite(period) else values
    fitted = LinearRegression().fit(latents[:half], target[:half])
    return float(fitted.score(latents[half:], target[half:]))
