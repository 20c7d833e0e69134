"""K-means under the distances of a generator's metric, beside straight distances in latent space.

Arvanitidis, Hansen and Hauberg, "Latent Space Oddity", ICLR 2018, claim (ii): clusters of latent
codes agree better with the labels when distances are measured along geodesics of a generator whose
deviation grows away from data.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from experiments.generators.spec import open_study
from experiments.latent_oddity import figures, setup
from experiments.latent_oddity.setup import Subject
from experiments.runtime import tables
from experiments.runtime.defaults import Quick
from experiments.runtime.run_dir import Folder, Timed
from latent_flows._validation import at_least
from latent_flows.evaluation import pairwise_f_measure
from latent_flows.evaluation.pairwise_f_measure import named_after
from latent_flows.geometry import kmeans
from latent_flows.typing import Metric

TITLES = {
    "rbf": "geodesic, RBF deviation",
    "network": "geodesic, ordinary deviation",
    setup.EUCLIDEAN: "Euclidean",
}


@dataclass(frozen=True)
class Clustering:
    """The clusters."""

    points: int = 300
    """Held-out codes that are put into clusters."""
    clusters: int = 0
    """How many; 0: as many as there are labels."""
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


PRESETS = setup.presets(Config)


def check(config: Config, subject: Subject) -> None:
    """Reject what the data cannot give, before anything is written.

    Raises:
        ValueError: data without labels, or more clusters than points.
    """
    if subject.test.labels is None:
        raise ValueError(f"clusters are compared with labels, and {subject.data.name} has none")
    _, labels = points(config, subject)
    if (clusters := count(config, labels)) > len(labels):
        raise ValueError(
            f"clustering.clusters ({clusters}) is more than the {len(labels)} points that are put "
            "into them, the least of clustering.points, codes and what the data hold"
        )


def points(config: Config, subject: Subject) -> tuple[Float[Array, "n d"], Int[np.ndarray, "n"]]:
    """The codes that are put into clusters, and their labels."""
    assert subject.test.labels is not None
    chosen = slice(config.clustering.points)
    return subject.test.codes[chosen], subject.test.labels[chosen]


def count(config: Config, labels: Int[np.ndarray, "n"]) -> int:
    """The number of clusters."""
    return config.clustering.clusters or len(np.unique(labels))


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
    solve = partial(kmeans, segments=settings.segments, max_iterations=settings.iterations)
    search = jax.jit(lambda key, codes, at: solve(key, metric, codes, k, initial=at))
    restart = jax.jit(lambda key, codes: solve(key, metric, codes, k))
    first, *keys = jax.random.split(jax.random.key(config.seed), 1 + settings.restarts)
    begun = time.monotonic()
    from_start = search.lower(first, codes, start).compile()
    from_random = restart.lower(first, codes).compile() if keys else None
    compiled = time.monotonic()
    runs = [from_start(first, codes, start)]
    runs += [from_random(key, codes) for key in keys if from_random is not None]
    best = min(runs, key=lambda found: float(found.inertia))
    times = {"seconds": time.monotonic() - compiled, "compiling": compiled - begun}
    return best._asdict(), times


def find(
    folder: Folder, config: Config, subject: Subject, codes: Float[Array, "n d"], k: int
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
    for name, metric in setup.tabulated(subject, config.clustering.table).items():
        recall(name, partial(geodesic, config, metric, codes, start))
    return {name: found[name] for name in setup.METHODS}


def measure(found: Mapping[str, Any], labels: Int[np.ndarray, "n"], k: int) -> dict[str, Any]:
    """How well the clusters of each method agree with the labels."""

    from sklearn.metrics import adjusted_rand_score

    rows = [
        {
            "method": TITLES[name],
            "f_measure": pairwise_f_measure(labels, clusters["labels"]),
            "adjusted_rand": float(adjusted_rand_score(labels, clusters["labels"])),
            "converged": float(clusters["converged"]),
            "solved": clusters["solved"],
        }
        for name, clusters in found.items()
    ]
    return {"points": len(labels), "clusters": k, "methods": rows}


def show(metrics: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Print the numbers of a run."""
    rows = tables.with_times(metrics["methods"], [of["times"] for of in found.values()])
    title = f"{metrics['clusters']} clusters of {metrics['points']} held-out codes"
    tables.show(f"{title}: agreement with labels (F-measure over pairs)", rows)


def draw(
    subject: Subject,
    codes: Float[Array, "n d"],
    labels: Int[np.ndarray, "n"],
    found: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> figures.Drawn:
    """The labels, and the clusters of each method."""
    picture = partial(figures.clusters, subject, codes)
    drawn = {"labels": partial(picture, labels, "labels", "Held-out codes and their labels")}
    for (name, clusters), row in zip(found.items(), metrics["methods"], strict=True):
        groups = named_after(labels, np.asarray(clusters["labels"]))
        title = f"{TITLES[name]}: F = {row['f_measure']:.2f}"
        drawn[f"clusters_{name}"] = partial(
            picture, groups, title, "Held-out codes, coloured by cluster"
        )
    return {**drawn}


def run(config: Config) -> int | None:
    """Find clusters, measure, draw."""
    subject = setup.load_subject(config)
    check(config, subject)
    codes, labels = points(config, subject)
    k = count(config, labels)
    folder = open_study(config)
    found = find(folder, config, subject, codes, k)
    metrics = folder.remember("metrics", lambda: measure(found, labels, k))
    failed = []
    with folder.understood("metrics"):
        if codes.shape[1] > 2:
            print(f"no pictures: codes of {codes.shape[1]} numbers lie in no plane")
        else:
            failed = tables.save_figures(folder, draw(subject, codes, labels, found, metrics))
        show(metrics, found)
    return tables.where(folder, failed)
