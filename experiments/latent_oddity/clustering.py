"""K-means under the distances of a generator's metric, beside straight distances in latent space.

Arvanitidis, Hansen and Hauberg, "Latent Space Oddity", ICLR 2018, claim (ii): clusters of latent
codes agree better with the labels when distances are measured along geodesics of a generator whose
deviation grows away from data.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from experiments.latent_oddity import figures, setup
from experiments.latent_oddity.setup import Manifold
from experiments.runtime import tables
from experiments.runtime.defaults import Quick
from experiments.runtime.progress import progress
from experiments.runtime.run_dir import Folder, Timed
from latent_flows._validation import at_least
from latent_flows.evaluation import pairwise_f_measure
from latent_flows.evaluation.pairwise_f_measure import named_after
from latent_flows.geometry.kmeans import KMeans, kmeans
from latent_flows.typing import Metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 9
"""Samples of each cluster that are drawn, its centre included."""
TITLES = {
    "rbf": "geodesic, RBF deviation",
    "network": "geodesic, ordinary deviation",
    setup.EUCLIDEAN: "Euclidean",
    **{name: f"geodesic, {title}" for name, title in setup.OTHERS.items()},
}


@dataclass(frozen=True)
class Clustering:
    """The clusters."""

    points: int = 300
    """Held-out codes, or draws, that are put into clusters."""
    clusters: int = 0
    """How many; 0: as many as there are labels, or 3 without labels."""
    restarts: int = 2
    """Random starts (k-means++ under the metric), next to that from the Euclidean centres; the
    clusters of least inertia are taken. Labels play no part in the choice."""
    segments: int = 16
    """Parts that a geodesic is discretised in."""
    table: int = 192
    """Points on each side of the table that a metric of two latents is kept in, which makes
    geodesics many times cheaper; 0: no table."""
    iterations: int = 25
    """The most iterations of each start."""

    def __post_init__(self) -> None:
        least = {"points": 2, "clusters": 0, "restarts": 0, "segments": 2, "table": 0}
        at_least(self, "clustering.", **least, iterations=1)


@dataclass(frozen=True)
class Config(setup.Config):
    """Compare geodesic with Euclidean k-means."""

    QUICK: ClassVar[Quick] = {
        **setup.Config.QUICK,
        "clustering.points": 60,
        "clustering.restarts": 0,
        "clustering.segments": 8,
        "clustering.table": 48,
        "clustering.iterations": 5,
    }

    clustering: Clustering = field(default_factory=Clustering)
    """Clusters."""


FEW = Clustering(points=24, clusters=3, restarts=0, segments=4, iterations=4)
"""For long latents, whose geodesics take hundreds of passes through the generator each."""

PRESETS = {**setup.presets(Config), **setup.gan_preset(Config, clustering=FEW, codes=200)}


def check(config: Config, manifold: Manifold) -> None:
    """Reject what the data cannot give, before anything is written.

    Raises:
        ValueError: more clusters than points.
    """
    codes, labels = points(config, manifold)
    if (clusters := count(config, labels)) > len(codes):
        raise ValueError(
            f"clustering.clusters ({clusters}) is more than the {len(codes)} points that are put "
            "into them, the least of clustering.points, codes and what the data hold"
        )


def points(
    config: Config, manifold: Manifold
) -> tuple[Float[Array, "n d"], Int[np.ndarray, "n"] | None]:
    """The codes that are put into clusters, and their labels."""
    chosen, labels = slice(config.clustering.points), manifold.test.labels
    return manifold.test.codes[chosen], None if labels is None else labels[chosen]


def count(config: Config, labels: Int[np.ndarray, "n"] | None) -> int:
    """The number of clusters."""
    return config.clustering.clusters or (3 if labels is None else len(np.unique(labels)))


def euclidean(config: Config, codes: Float[Array, "n d"], k: int) -> Timed:
    """Clusters by straight distances."""

    from sklearn import cluster

    begun = time.monotonic()
    found = cluster.KMeans(k, n_init=10, random_state=config.seed).fit(np.asarray(codes))
    clusters = {
        "labels": found.labels_,
        "centres": found.cluster_centers_,
        "inertia": float(found.inertia_),
        "converged": True,
        "solved": 1.0,
    }
    return clusters, {"seconds": time.monotonic() - begun, "compiling": 0.0}


def geodesic(
    config: Config, metric: Metric, codes: Float[Array, "n d"], start: Float[Array, "k d"]
) -> Timed:
    """Clusters by the distances of a metric, of least inertia over all starts."""
    settings, k = config.clustering, len(start)
    solve = partial(
        kmeans,
        segments=settings.segments,
        max_iterations=settings.iterations,
        batch_size=setup.at_once(codes),
    )
    search = jax.jit(lambda key, codes, at: solve(key, metric, codes, k, initial=at))
    restart = jax.jit(lambda key, codes: solve(key, metric, codes, k))
    first, *keys = jax.random.split(jax.random.key(config.seed), 1 + settings.restarts)
    begun = time.monotonic()
    from_start = search.lower(first, codes, start).compile()
    from_random = restart.lower(first, codes).compile() if keys else None
    compiled = time.monotonic()
    solvers: list[Callable[[], KMeans]] = [partial(from_start, first, codes, start)]
    solvers += [partial(from_random, key, codes) for key in keys if from_random is not None]
    runs: list[KMeans] = []
    with progress("clusters", 0, len(solvers)) as report:
        report(0, "begins")
        for solve_one in solvers:
            runs.append(jax.block_until_ready(solve_one()))
            report(len(runs), f"inertia {runs[-1].inertia:.4g}")
    best = min(runs, key=lambda found: float(found.inertia))
    times = {"seconds": time.monotonic() - compiled, "compiling": compiled - begun}
    return best._asdict(), times


def find(
    folder: Folder, config: Config, manifold: Manifold, codes: Float[Array, "n d"], k: int
) -> dict[str, Any]:
    """The clusters of every method, by its metric's name, and the seconds that they took."""
    found: dict[str, Any] = {}

    def recall(name: str, compute: Callable[[], Timed]) -> None:
        kept, times = folder.remember_timed(f"clusters_{name}", compute)
        with folder.understood(f"clusters_{name}"):
            found[name] = {**kept, "times": times}
            if np.shape(kept["labels"]) != (len(codes),):
                raise ValueError(f"labels are not one for each of the {len(codes)} codes")

    recall(setup.EUCLIDEAN, partial(euclidean, config, codes, k))
    with folder.understood(f"clusters_{setup.EUCLIDEAN}"):
        start = jnp.asarray(found[setup.EUCLIDEAN]["centres"], codes.dtype)
    for name, metric in setup.tabulated(manifold, config.clustering.table).items():
        recall(name, partial(geodesic, config, metric, codes, start))
    return {name: found[name] for name in manifold.metrics}


def measure(
    found: Mapping[str, Any], labels: Int[np.ndarray, "n"] | None, k: int
) -> dict[str, Any]:
    """How well the clusters of each method agree with the labels; without, with the Euclidean."""

    from sklearn.metrics import adjusted_rand_score

    def agreement(groups: Any) -> dict[str, float]:
        if labels is None:
            like = adjusted_rand_score(found[setup.EUCLIDEAN]["labels"], groups)
            return {"like_euclidean": float(like), "smallest": smallest_share(groups, k)}
        return {
            "f_measure": pairwise_f_measure(labels, groups),
            "adjusted_rand": float(adjusted_rand_score(labels, groups)),
        }

    rows = [
        {
            "method": TITLES[name],
            **agreement(clusters["labels"]),
            "converged": float(clusters["converged"]),
            "solved": clusters["solved"],
        }
        for name, clusters in found.items()
    ]
    points = len(found[setup.EUCLIDEAN]["labels"])
    return {"points": points, "clusters": k, "methods": rows}


def smallest_share(groups: Any, k: int) -> float:
    """The share of points in the smallest of `k` clusters.

    >>> smallest_share([0, 0, 1, 0], 2)
    0.25
    """
    return float(np.bincount(np.asarray(groups), minlength=k).min() / len(groups))


def show(
    metrics: Mapping[str, Any], found: Mapping[str, Any], what: str = "held-out codes"
) -> None:
    """Print the numbers of a run."""
    rows = tables.with_times(metrics["methods"], [of["times"] for of in found.values()])
    compared = "labels (F-measure over pairs)"
    if "like_euclidean" in metrics["methods"][0]:
        compared = "Euclidean clusters (adjusted Rand index), there being no labels"
    title = f"{metrics['clusters']} clusters of {metrics['points']} {what}"
    tables.show(f"{title}: agreement with {compared}", rows)


def draw(
    manifold: Manifold,
    codes: Float[Array, "n d"],
    labels: Int[np.ndarray, "n"] | None,
    found: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> figures.Drawn:
    """The labels, and the clusters of each method; of long codes, what clusters decode to."""
    what = manifold.named("held-out").capitalize()
    if codes.shape[1] > 2:
        return {"samples": partial(draw_samples, manifold, codes, found)}
    picture = partial(figures.clusters, manifold, codes)
    drawn = {}
    if labels is not None:
        drawn["labels"] = partial(picture, labels, "labels", f"{what} and their labels")
    for (name, clusters), row in zip(found.items(), metrics["methods"], strict=True):
        groups, title = np.asarray(clusters["labels"]), TITLES[name]
        if labels is not None:
            groups, title = named_after(labels, groups), f"{title}: F = {row['f_measure']:.2f}"
        drawn[f"clusters_{name}"] = partial(picture, groups, title, f"{what}, coloured by cluster")
    return {**drawn}


def draw_samples(
    manifold: Manifold, codes: Float[Array, "n d"], found: Mapping[str, Any]
) -> "Figure":
    """What the centre of each cluster decodes to, and some of its points, the nearest first."""
    rows = {}
    for name, clusters in found.items():
        for place, centre in enumerate(np.asarray(clusters["centres"], np.float32)):
            own = np.asarray(codes)[np.asarray(clusters["labels"]) == place]
            near = own[np.argsort(np.linalg.norm(own - centre, axis=1))][: SHOWN - 1]
            filled = np.concatenate([centre[None], near])
            filled = np.pad(filled, ((0, SHOWN - len(filled)), (0, 0)), mode="edge")
            rows[f"{TITLES[name]}, {place + 1}"] = filled
    axis = "the centre, then points of the cluster by their distance in latent space"
    caption = "Clusters of each method, decoded; where points are few the last is repeated."
    return figures.samples_of_groups(manifold, rows, axis, caption)


def run(config: Config) -> int | None:
    """Find clusters, measure, draw."""
    manifold = setup.load_manifold(config)
    check(config, manifold)
    codes, labels = points(config, manifold)
    k = count(config, labels)
    folder = setup.open_folder(config, manifold)
    found = find(folder, config, manifold, codes, k)
    metrics = folder.remember("metrics", lambda: measure(found, labels, k))
    with folder.understood("metrics"):
        failed = tables.save_figures(folder, draw(manifold, codes, labels, found, metrics))
        show(metrics, found, manifold.named("held-out"))
    return tables.where(folder, failed)
