"""Shortest paths along data: where to start the search for a geodesic when the metric has holes.

A geodesic is found downhill from where the search starts. From a straight line across a hole that
can be the wrong way round; a path over a graph of neighbouring data starts on the right side. The
graph is built and searched by scikit-learn and SciPy, outside of any `jax.jit`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from latent_flows._extras import extra
from latent_flows.geometry.curves import length, straight
from latent_flows.typing import Latent, Metric, Scalar

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from sklearn.neighbors import NearestNeighbors

__all__ = ["Ends", "Graph", "graph_path", "graph_paths", "knn_graph"]

_EDGES_AT_ONCE = 1024
_FINE = 64
"""Parts, at least, into which a path is divided to round its corners off."""
_ROUNDS = 2
"""How often each of these points is moved towards its neighbours' mean."""


class _Apart(ValueError):
    """The graph does not connect two latents."""


Ends = tuple[Float[Array, "e d"], Float[Array, "e d"]]


class Graph(NamedTuple):
    """Data, each point joined to its neighbours; see `knn_graph`."""

    lengths: Callable[[Ends], Float[Array, "e"]]
    """The compiled lengths of straight lines between rows of two arrays."""
    data: Float[np.ndarray, "n d"]
    """The points."""
    neighbours: int
    """To how many others a point is joined, at least."""
    search: "NearestNeighbors"
    """Finds the nearest of the data, by Euclidean distance."""
    edges: "csr_array"
    """The lengths of the edges, `[n, n]`, symmetric."""


def knn_graph(metric: Metric, data: Float[ArrayLike, "n d"], *, neighbours: int = 8) -> Graph:
    """A graph that joins every point to its nearest ones, by edges as long as the metric says.

    Nearest are those of least Euclidean distance; the edge between two is as long as the straight
    line between them is in the metric.

    Args:
        metric: any metric.
        data: the points, such as codes of a training set; a thousand or a few serve well.
        neighbours: how many others each point is joined to.

    Returns:
        The graph, for `graph_path`.

    Raises:
        ValueError: data that are not a matrix of finite numbers; fewer neighbours than one, or
            fewer points than one more than that.

    References:
        Chen et al., *Fast Approximate Geodesics for Deep Generative Models*, 2019, section 3.

    >>> import numpy as np
    >>> line = np.array([[0.0], [1.0], [2.0], [4.0]])
    >>> graph = knn_graph(lambda z: jnp.eye(1), line, neighbours=1)
    >>> print(graph.edges.toarray().round(3)[1])
    [1. 0. 1. 0.]
    """
    points = np.asarray(data)
    if points.ndim != 2 or not np.issubdtype(points.dtype, np.number):
        raise ValueError(
            f"data must be numbers of shape [n, d], got shape {points.shape} and dtype "
            f"{points.dtype}"
        )
    if not np.isfinite(points).all():
        raise ValueError("data must be finite")
    if neighbours < 1:
        raise ValueError(f"neighbours must be at least 1, got {neighbours}")
    if len(points) <= neighbours:
        raise ValueError(
            f"data must have more points than neighbours = {neighbours}, got {len(points)}"
        )
    with extra("evaluation"):
        from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=neighbours).fit(points)
    near = search.kneighbors(return_distance=False)
    rows = np.repeat(np.arange(len(points)), neighbours)
    lengths = jax.jit(
        partial(jax.lax.map, partial(_line_length, metric), batch_size=_EDGES_AT_ONCE)
    )
    edges = _edges(lengths, points, points, rows, near.ravel(), len(points))
    # Lengths are never zero, so that the larger of two entries is the one that exists.
    return Graph(lengths, points, neighbours, search, edges.maximum(edges.T).tocsr())


def graph_path(
    graph: Graph,
    z0: Float[ArrayLike, "d"] | Sequence[float],
    z1: Float[ArrayLike, "d"] | Sequence[float],
    *,
    segments: int = 32,
) -> Float[Array, "{segments}+1 d"]:
    """A path between two latents over a graph, as `initial` of `geodesic`.

    The ends are joined to their nearest points as those are among each other. The shortest path
    over the graph is divided into parts that are equally long in the metric, and its corners are
    rounded off.

    Args:
        graph: from `knn_graph`.
        z0: where the path starts; any latent, of the data or not.
        z1: where it ends.
        segments: into how many parts it is divided.

    Returns:
        The points, `[segments + 1, d]`, ends included.

    Raises:
        ValueError: ends of the wrong shape, or that the graph does not connect; fewer segments
            than one.

    >>> import numpy as np
    >>> angles = np.linspace(0, np.pi, 20)
    >>> arc = np.stack([np.cos(angles), np.sin(angles)], 1)
    >>> graph = knn_graph(lambda z: jnp.eye(2), arc, neighbours=2)
    >>> print(graph_path(graph, arc[0], arc[-1], segments=2)[1, 1] > 0.5)
    True
    """

    from scipy.sparse import block_array
    from scipy.sparse.csgraph import dijkstra

    if segments < 1:
        raise ValueError(f"segments must be at least 1, got {segments}")
    ends = [np.asarray(z) for z in (z0, z1)]
    for name, z in zip(("z0", "z1"), ends, strict=True):
        if z.shape != graph.data.shape[1:]:
            raise ValueError(
                f"{name} must be a latent of shape {graph.data.shape[1:]}, as the data are, "
                f"got shape {z.shape}"
            )
    dtype = jnp.result_type(float)
    nodes = np.concatenate([graph.data, ends]).astype(dtype)
    count = len(graph.data)
    near = graph.search.kneighbors(np.stack(ends), graph.neighbours, return_distance=False)
    rows = np.repeat(np.arange(2), graph.neighbours)
    joins = _edges(graph.lengths, nodes[count:], nodes[:count], rows, near.ravel(), count)
    whole = block_array([[graph.edges, joins.T], [joins, None]], format="csr")
    _, previous = dijkstra(whole, directed=False, indices=count, return_predecessors=True)
    route = [count + 1]
    while (step := previous[route[-1]]) >= 0:
        route.append(step)
    if route[-1] != count:
        raise _Apart(
            f"the graph does not connect z0 = {ends[0]} and z1 = {ends[1]}; it may with more "
            f"neighbours than {graph.neighbours}, or with more data"
        )
    route = route[::-1]
    lengths = [whole[a, b] for a, b in pairwise(route)]
    return jnp.asarray(_even(nodes[route], np.array(lengths), segments))


def graph_paths(
    graph: Graph, pairs: Float[Array, "m 2 d"], *, segments: int = 32
) -> Float[Array, "m points d"]:
    """Paths between pairs of latents; a straight line where the graph does not connect a pair.

    Args:
        graph: from `knn_graph`.
        pairs: the ends of each path.
        segments: into how many parts each is divided.

    Returns:
        The points, `[m, segments + 1, d]`.

    Raises:
        ValueError: ends of the wrong shape; fewer segments than one.

    >>> import numpy as np
    >>> graph = knn_graph(lambda z: jnp.eye(1), np.array([[0.0], [1.0], [2.0]]), neighbours=1)
    >>> print(graph_paths(graph, jnp.array([[[0.0], [2.0]]]), segments=2).shape)
    (1, 3, 1)
    """

    def path(pair: Float[Array, "2 d"]) -> Array:
        try:
            return graph_path(graph, pair[0], pair[1], segments=segments)
        except _Apart:
            return straight(pair[0], pair[1], segments)

    return jnp.stack([path(pair) for pair in pairs]).astype(pairs.dtype)


def _edges(
    measure: Callable[[Ends], Float[Array, "e"]],
    starts: Float[np.ndarray, "m d"],
    stops: Float[np.ndarray, "n d"],
    rows: Int[np.ndarray, "e"],
    columns: Int[np.ndarray, "e"],
    width: int,
) -> "csr_array":
    """Lengths of the straight lines between rows of two arrays, as a sparse matrix."""
    from scipy.sparse import csr_array

    dtype = jnp.result_type(float)
    pairs = (jnp.asarray(starts[rows], dtype), jnp.asarray(stops[columns], dtype))
    found = np.asarray(measure(pairs), float)
    # A sparse matrix does not tell an edge without length from no edge.
    lengths = np.maximum(found, np.finfo(float).tiny)
    sound = np.isfinite(found)
    return csr_array((lengths[sound], (rows[sound], columns[sound])), (len(starts), width))


def _line_length(metric: Metric, ends: tuple[Latent, Latent]) -> Scalar:
    start, stop = ends
    return length(metric, lambda s: start + s * (stop - start), segments=4)


def _even(
    nodes: Float[np.ndarray, "k d"], lengths: Float[np.ndarray, "k-1"], segments: int
) -> Float[np.ndarray, "{segments}+1 d"]:
    """A polygon at equal distances along it, and without its corners."""
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    every = -(-_FINE // segments)
    places = np.linspace(0, along[-1], every * segments + 1)
    points = np.stack([np.interp(places, along, x) for x in nodes.T], 1)
    points[0], points[-1] = nodes[0], nodes[-1]
    for _ in range(_ROUNDS):
        points[1:-1] = (points[:-2] + 2 * points[1:-1] + points[2:]) / 4
    return points[::every]
