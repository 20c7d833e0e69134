"""Paths between pairs of latents: geodesics by the batch, their lengths, even steps along them."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from experiments.folder import Folder
from latent_flows.batches import in_batches
from latent_flows.geometry import curves
from latent_flows.geometry.geodesics import geodesic, reach
from latent_flows.geometry.graph import Graph, graph_path
from latent_flows.limits import at_least
from latent_flows.typing import Latent, Metric, Scalar

BATCH = 20
"""Pairs that are joined, or paths that are measured, at once."""
TIMES = ("seconds", "compiling", "searching")
"""Of the measures of a method's paths, those that are no property of the paths."""
STRAIGHT = "straight line"


@dataclass(frozen=True)
class Geodesics:
    """The paths, and what is measured and drawn."""

    pairs: int = 100
    """Pairs of held-out codes, or of draws where there is no encoder, that are joined."""
    segments: int = 32
    """Parts that a path is discretised in."""
    neighbours: int = 10
    """Neighbours of a code in the graph over training codes, whose shortest paths the search for
    geodesics of the RBF metric starts from as well as from straight lines; 0: only from these."""
    off: int = 1000
    """Points off the data at which the volume measure is compared with that on it."""
    shown: int = 8
    """Pairs whose paths are drawn."""
    strips: int = 3
    """Pairs whose paths are decoded to rows of images."""

    def __post_init__(self) -> None:
        at_least(self, "geodesics.", pairs=1, segments=1, off=1, shown=1, strips=1)
        if self.neighbours < 0:
            raise ValueError(f"geodesics.neighbours must not be negative, got {self.neighbours}")


class Paths(NamedTuple):
    """Paths of one method."""

    points: Float[np.ndarray, "m n+1 d"]
    converged: Bool[np.ndarray, "m"]
    seconds: float
    """Spent on the solver for all of them, without compiling."""
    compiling: float
    searching: float
    """Spent on shortest paths over the graph, compiling included."""


def recalled(folder: Folder, name: str, compute: Callable[[], Paths]) -> Paths:
    """Paths that are computed once and kept in a run folder."""
    points, converged, *times = folder.remember(name, compute).values()
    return Paths(np.array(points, np.float32), np.array(converged), *times)


def straight(pairs: Float[Array, "m 2 d"], segments: int) -> Paths:
    """The straight lines between pairs."""
    lines = jax.vmap(partial(curves.straight, segments=segments))(pairs[:, 0], pairs[:, 1])
    return Paths(np.asarray(lines), np.ones(len(lines), bool), 0.0, 0.0, 0.0)


def joined(
    metric: Metric,
    pairs: Float[Array, "m 2 d"],
    segments: int,
    graph: Graph | None = None,
    batch_size: int = BATCH,
) -> Paths:
    """Geodesics between pairs: with a graph, the shorter of those that are found from the straight
    line and from the shortest path over the graph."""

    def path(pair: Float[Array, "2 d"], *starts: Array) -> tuple[Array, Array]:
        find = partial(geodesic, metric, pair[0], pair[1], segments=segments)
        found = [find(), *(find(initial=start) for start in starts)]
        energies = jnp.stack([jnp.where(one.converged, one.energy, jnp.inf) for one in found])
        best = jnp.argmin(energies)
        points = jnp.stack([one.points for one in found])[best]
        return points, jnp.stack([one.converged for one in found])[best]

    begun = time.monotonic()
    starts = () if graph is None else (over_graph(graph, pairs, segments),)
    searched = time.monotonic()
    solve = jax.jit(in_batches(path, batch_size, effort=lambda pairs, *_: reach(pairs)))
    compiled_solve = solve.lower(pairs, *starts).compile()
    compiled = time.monotonic()
    points, converged = jax.block_until_ready(compiled_solve(pairs, *starts))
    seconds = time.monotonic() - compiled
    return Paths(
        np.asarray(points), np.asarray(converged), seconds, compiled - searched, searched - begun
    )


def over_graph(
    graph: Graph, pairs: Float[Array, "m 2 d"], segments: int
) -> Float[Array, "m n+1 d"]:
    """Shortest paths over a graph; a straight line where the graph does not join a pair."""

    def path(pair: Float[Array, "2 d"]) -> Array:
        try:
            return graph_path(graph, pair[0], pair[1], segments=segments)
        except ValueError:
            return curves.straight(pair[0], pair[1], segments)

    return jnp.stack([path(pair) for pair in pairs]).astype(pairs.dtype)


def length_of(metric: Metric) -> Callable[[Array], Scalar]:
    """From points of a path to its length."""
    return lambda points: curves.length(metric, partial(curves.evaluate, points))


def evenly(points: Float[Array, "n d"], places: Float[np.ndarray, "k"]) -> Float[Array, "k d"]:
    """The polygon through `points` at shares of its length."""
    steps = jnp.linalg.norm(jnp.diff(points, axis=0), axis=1)
    gone = jnp.concatenate([jnp.zeros(1), jnp.cumsum(steps)])

    def coordinate(values: Float[Array, "n"]) -> Latent:
        return jnp.interp(jnp.asarray(places) * gone[-1], gone, values)

    return jax.vmap(coordinate, in_axes=1, out_axes=1)(points)
