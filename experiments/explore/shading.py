"""What a plane is shaded by: a number at each of its points, some rows at a time."""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import gaussian_kde
from jaxtyping import Array, Float

from experiments.explore.explored import Explored, metric_of
from experiments.explore.plane import Plane
from latent_flows.generators import FrozenGenerator
from latent_flows.geometry.metrics import log_volume, pullback
from latent_flows.typing import Generator, Latent, Scalar

NOTHING, DENSITY = "nothing", "density of codes"
VOLUME, AREA = "log-volume of the metric", "log-area of the plane"
PRIOR = "log-density of the prior"
SIDE = 48
"""Points a side of what a Jacobian is computed at, and of pictures."""
FINE = 96
"""Of what costs little."""
ROWS = 6
"""Rows of points that are computed at once: between two the page hears how far it is."""
LONGEST = 32
"""Numbers of a latent up to which the volume of all of it is computed."""


class Shade(NamedTuple):
    """A number at each point of a map; NaN where there is none."""

    name: str
    values: Float[np.ndarray, "r c"]
    low: float
    """The colour scale's lower end."""
    high: float


def names(explored: Explored) -> tuple[str, ...]:
    """By what a plane of a generator may be shaded."""
    found = [NOTHING, DENSITY]
    if explored.generator.latent_dim <= LONGEST:
        found.append(VOLUME)
    found.append(AREA)
    if explored.generator.log_prior is not None:
        found.append(PRIOR)
    found += explored.learnt.potentials
    found += [f"image: {factor.name}" for factor in explored.factors]
    if not explored.factors:
        found += ["mean of the sample", "norm of the sample"]
    return tuple(found)


def needs_time(explored: Explored, name: str) -> bool:
    """Whether it is a potential, which changes in time."""
    return name in explored.learnt.potentials


def shaded(
    explored: Explored,
    name: str,
    plane: Plane,
    box: tuple[float, float, float, float],
    time: float = 0.0,
    generator: FrozenGenerator | None = None,
) -> Iterator[float | Shade]:
    """Shades a map: gives how far it is, from 0 to 1, and at last the shade.

    Args:
        explored: the generator, and what is known of it.
        name: one of `names`.
        plane: which plane.
        box: left, right, bottom and top of the map.
        time: of a potential.
        generator: another of the same latents.

    Raises:
        ValueError: an unknown name.
    """
    if name not in names(explored):
        raise ValueError(f"a map cannot be shaded by {name!r}; expected one of {names(explored)}")
    if name == NOTHING:
        yield Shade(name, np.full((2, 2), np.nan), 0.0, 1.0)
        return
    cheap = name in (DENSITY, PRIOR) or needs_time(explored, name)
    side = FINE if cheap else SIDE
    points = _points(box, side)
    if name == DENSITY:
        yield _described(name, _density(plane.seen(explored.codes.latents), points), side)
        return
    latents = plane.latents(points).astype(np.float32)
    axes = jnp.asarray(plane.frame.basis)[:, jnp.array([plane.first, plane.second])].T
    compute = _program(explored, name)
    arguments = (generator or explored.generator, axes, jnp.asarray(time, jnp.float32))
    rows, found = side * ROWS, []
    for start in range(0, len(latents), rows):
        found.append(np.asarray(compute(*arguments, jnp.asarray(latents[start : start + rows]))))
        yield min(1.0, (start + rows) / len(latents))
    yield _described(name, np.concatenate(found), side)


@lru_cache(maxsize=64)
def _program(explored: Explored, name: str) -> Callable[..., Any]:
    measure = _measure(explored, name)

    @jax.jit
    def compute(generator: Any, axes: Array, time: Array, latents: Float[Array, "n d"]) -> Array:
        return jax.lax.map(partial(measure, generator, axes, time), latents, batch_size=SIDE)

    return compute


def _measure(explored: Explored, name: str) -> Callable[[Any, Array, Scalar, Latent], Scalar]:
    """`(generator, axes, time, z)` to a number."""
    if name == VOLUME:
        return lambda generator, axes, time, z: log_volume(metric_of(generator))(z)
    if name == AREA:
        return lambda generator, axes, time, z: _area(generator.decode, axes, z)
    if name == PRIOR:
        return lambda generator, axes, time, z: generator.log_prior(z)
    if name in explored.learnt.potentials:
        potential = explored.learnt.potentials[name]
        return lambda generator, axes, time, z: potential(time, z)
    measures: dict[str, Callable[[Array], Scalar]] = {
        f"image: {factor.name}": factor.measure for factor in explored.factors
    }
    measures |= {
        "mean of the sample": jnp.mean,
        "norm of the sample": lambda x: jnp.linalg.norm(x.ravel()),
    }
    measure = measures[name]
    return lambda generator, axes, time, z: measure(generator.decode(z))


def _area(decode: Generator, axes: Float[Array, "2 d"], z: Latent) -> Scalar:
    """The logarithm of how much a piece of the plane covers in data space."""
    on_plane = pullback(lambda s: decode(z + s @ axes))
    return log_volume(on_plane)(jnp.zeros(2, z.dtype))


def _points(box: tuple[float, float, float, float], side: int) -> Float[np.ndarray, "n 2"]:
    """Centres of the cells of a map, row after row from below."""
    left, right, bottom, top = box
    cells = (np.arange(side) + 0.5) / side
    across, up = left + cells * (right - left), bottom + cells * (top - bottom)
    return np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)


def _density(
    places: Float[np.ndarray, "n 2"], points: Float[np.ndarray, "m 2"]
) -> Float[np.ndarray, "m"]:
    """NaN where all places are on a line."""
    # JAX's is there already, and SciPy's takes a second to import.
    return np.asarray(gaussian_kde(jnp.asarray(places.T))(jnp.asarray(points.T)))


def _described(name: str, values: Float[np.ndarray, "n"], side: int) -> Shade:
    grid = np.where(np.isfinite(values), values, np.nan).reshape(side, side)
    known = grid[np.isfinite(grid)]
    low, high = np.quantile(known, [0.01, 0.99]) if known.size else (0.0, 1.0)
    return Shade(name, grid.astype(np.float32), float(low), float(max(high, low + 1e-9)))
