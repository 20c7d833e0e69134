"""Paths between pairs of latents: geodesics by the batch, and their lengths."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from experiments.runtime.progress import in_parts
from experiments.runtime.run_dir import Folder
from latent_flows import _memory
from latent_flows._transforms import closure_convert_at, even_size
from latent_flows._validation import at_least
from latent_flows.geometry import curves
from latent_flows.geometry.curves import Geodesic
from latent_flows.geometry.geodesics import geodesic, reach
from latent_flows.geometry.graph import Graph, graph_paths
from latent_flows.geometry.splines import spline_geodesic
from latent_flows.typing import Metric, Scalar

BATCH = 20
"""Pairs that are joined, or paths that are measured, at once."""
TIMES = ("seconds", "compiling", "searching")
"""What is timed of a method: no property of its paths, and so no part of the metrics."""
STRAIGHT = "straight line"
GREAT_CIRCLE = "great circle"
SHORT = 16
"""Numbers of a latent up to which Jacobians along a path cost little."""
SPLINE_TOLERANCE = 2e-3
"""Where the search for a spline ends. Half of it takes half as long again on a GAN."""


@dataclass(frozen=True)
class Geodesics:
    """The paths, and what is measured and drawn."""

    pairs: int = 100
    """Pairs of held-out codes, or of draws where there is no encoder, that are joined."""
    segments: int = 32
    """Parts that a path is discretised in."""
    method: Literal["auto", "newton", "spline"] = "auto"
    """newton: a chain of points, by Jacobians; spline: knots of a smooth curve, by gradients alone;
    auto: newton for latents of up to 16 numbers."""
    knots: int = 8
    """Parts of such a spline, each of several segments."""
    neighbours: int = 10
    """Neighbours of a code in the graph over training codes, whose shortest paths the search for
    geodesics of the RBF metric starts from as well as from straight lines; 0: only from these."""
    features: str = ""
    """A network through which lengths are measured, as package.module:function or file.py:function:
    from a sample, as JAX can trace it, to an array. Then pairs of draws are joined (or those of
    --from and --to), by the metric that is pulled back through it; none: of samples themselves."""
    off: int = 1000
    """Points off the data at which the volume measure is compared with that on it."""
    shown: int = 8
    """Pairs whose paths are drawn."""
    strips: int = 3
    """Pairs whose paths are decoded to rows of images."""

    def __post_init__(self) -> None:
        at_least(self, "geodesics.", pairs=1, segments=1, knots=1, off=1, shown=1, strips=1)
        if self.neighbours < 0:
            raise ValueError(f"geodesics.neighbours must not be negative, got {self.neighbours}")

    def by_splines(self, dim: int) -> bool:
        """Whether paths between latents of `dim` numbers are splines."""
        return self.method == "spline" or (self.method == "auto" and dim > SHORT)

    def check_memory(self, dim: int) -> None:
        """Reject paths that do not fit into memory, before any is looked for.

        Raises:
            ValueError: there is less memory than their points take.
        """
        _memory.require(
            4 * self.pairs * (self.segments + 1) * dim,
            f"{self.pairs} paths of {self.segments} segments between latents of {dim} numbers",
            "lower --geodesics.pairs or --geodesics.segments",
        )


class Paths(NamedTuple):
    """Paths of one method."""

    points: Float[np.ndarray, "m n+1 d"]
    converged: Bool[np.ndarray, "m"]
    times: Mapping[str, float]
    """Seconds that `TIMES` took for all of them, where that is known: on the solver without
    compiling, on compiling, and on shortest paths over the graph, compiling included."""


def recalled(folder: Folder, name: str, compute: Callable[[], Paths]) -> Paths:
    """Paths that are computed once and kept in a run folder."""

    def timed() -> tuple[dict[str, Any], Mapping[str, float]]:
        found = compute()
        return {"points": found.points, "converged": found.converged}, found.times

    kept, times = folder.remember_timed(name, timed)
    with folder.understood(name):
        return Paths(np.array(kept["points"], np.float32), np.array(kept["converged"], bool), times)


def straight(pairs: Float[Array, "m 2 d"], segments: int) -> Paths:
    """The straight lines between pairs."""
    return _by_formula(curves.straight, pairs, segments)


def great_circles(pairs: Float[Array, "m 2 d"], segments: int) -> Paths:
    """The arcs about the origin between pairs."""
    return _by_formula(curves.great_circle, pairs, segments)


def _by_formula(curve: Callable[..., Array], pairs: Float[Array, "m 2 d"], segments: int) -> Paths:
    points = jax.vmap(partial(curve, segments=segments))(pairs[:, 0], pairs[:, 1])
    return Paths(np.asarray(points), np.ones(len(points), bool), dict.fromkeys(TIMES, 0.0))


def joined(
    metric: Metric,
    pairs: Float[Array, "m 2 d"],
    settings: Geodesics,
    graph: Graph | None = None,
    batch_size: int = BATCH,
    images: int | None = None,
) -> Paths:
    """Geodesics between pairs: with a graph, the shorter of those that are found from the straight
    line and from the shortest path over the graph; of splines, so many images at once."""
    segments = settings.segments
    find: Callable[..., Geodesic] = partial(geodesic, metric, segments=segments)
    if settings.by_splines(pairs.shape[-1]):
        knots = min(settings.knots, segments)
        find = partial(
            spline_geodesic,
            metric,
            knots=knots,
            segments=segments,
            tolerance=SPLINE_TOLERANCE,
            batch_size=images,
        )

    def path(pair: Float[Array, "2 d"], *starts: Array) -> tuple[Array, Array]:
        found = [find(*pair), *(find(*pair, initial=start) for start in starts)]
        energies = jnp.stack([jnp.where(one.converged, one.energy, jnp.inf) for one in found])
        best = jnp.argmin(energies)
        points = jnp.stack([curves.resample(one.points, segments) for one in found])[best]
        return points, jnp.stack([one.converged for one in found])[best]

    begun = time.monotonic()
    starts = () if graph is None else (graph_paths(graph, pairs, segments=segments),)
    # Those of like length together, so that easy ones do not wait for hard ones.
    order = np.argsort(np.asarray(reach(pairs)), kind="stable")
    given = tuple(array[order] for array in (pairs, *starts))
    searched = time.monotonic()
    size = even_size(len(pairs), batch_size)
    first = [array[:size] for array in given]
    batch = closure_convert_at(jax.vmap(path), *first)
    solve = jax.jit(lambda batch, *parts: batch(*parts)).lower(batch, *first).compile()
    compiled = time.monotonic()
    points, converged = in_parts(
        "geodesics",
        partial(solve, batch),
        given,
        size,
        lambda found: f"{found[1].mean():.0%} converged",
    )
    seconds = time.monotonic() - compiled
    back = np.argsort(order)
    points, converged = points[back], converged[back]
    times = (seconds, compiled - searched, searched - begun)
    return Paths(points, converged, dict(zip(TIMES, times, strict=True)))


def length_of(metric: Metric) -> Callable[[Array], Scalar]:
    """From points of a path to its length."""
    return lambda points: curves.length(metric, partial(curves.evaluate, points))
