"""The way from one latent to another: straight, and along the shortest path in data space."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.explore.explored import immersed, metric_of
from latent_flows.generators import FrozenGenerator
from latent_flows.geometry import curves
from latent_flows.geometry.geodesics import geodesic
from latent_flows.geometry.metrics import pullback
from latent_flows.geometry.splines import spline_geodesic
from latent_flows.typing import Latent

SEGMENTS = 16
"""Parts of a shortest path."""
SHORT = 16
"""Numbers of a latent up to which Jacobians along a path cost little."""
KNOTS = 6
"""Parts of a spline between longer latents."""
TOLERANCE = 1e-2
"""Where a search ends: the length is then known to about its square."""
TIED = 0.5
"""How much a change of the latent counts beside one of the sample, on average along the line:
where a sample hardly shows some numbers of a latent, shortest paths would wander off in them."""
MEASURED = 16
"""Parts that the length of a line is measured over."""


class Ways(NamedTuple):
    """The two ways between two latents."""

    line: Float[np.ndarray, "n d"]
    """Points of the straight one."""
    geodesic: Float[np.ndarray, "n d"]
    """Of the shortest that was found."""
    line_length: float
    """In data space: the root of the sum of squares over the numbers of a sample."""
    geodesic_length: float
    converged: bool
    """Whether the shortest path is one, and not only the best that was found."""


def ways(
    generator: FrozenGenerator, start: Float[np.ndarray, "d"], end: Float[np.ndarray, "d"]
) -> Ways:
    """Both ways from one latent to another."""
    found = _ways(generator, jnp.asarray(start), jnp.asarray(end))
    line, path, line_length, length, converged = map(np.asarray, found)
    if not length < line_length:
        return Ways(line, line, float(line_length), float(line_length), bool(converged))
    return Ways(line, path, float(line_length), float(length), bool(converged))


@jax.jit
def _ways(generator: FrozenGenerator, start: Latent, end: Latent) -> tuple[Array, ...]:
    metric = metric_of(generator)
    line = curves.straight(start, end, SEGMENTS)
    length = curves.length(metric, lambda s: start + s * (end - start), segments=MEASURED)
    # In data units a latent length: what the image does not show shall not lead far away.
    rate = TIED * length / jnp.maximum(jnp.linalg.norm(end - start), 1e-12)
    tied = pullback(lambda z: jnp.concatenate([immersed(generator, z), rate * z]))
    if len(start) <= SHORT:
        found = geodesic(
            tied, start, end, segments=SEGMENTS, tolerance=TOLERANCE, max_iterations=30
        )
    else:
        found = spline_geodesic(
            tied, start, end, knots=KNOTS, segments=SEGMENTS, tolerance=TOLERANCE
        )
    shortest = curves.length(
        metric, lambda s: curves.evaluate(found.points, s), segments=2 * MEASURED
    )
    return line, found.points, length, shortest, found.converged


def between(points: Float[np.ndarray, "n d"], count: int) -> Float[np.ndarray, "m d"]:
    """So many points along a path, at equal distances of its parameter."""
    places = np.linspace(0, len(points) - 1, count)
    lower = np.minimum(places.astype(int), len(points) - 2)
    share = (places - lower)[:, None].astype(points.dtype)
    return (1 - share) * points[lower] + share * points[lower + 1]
