"""Shortest paths between held-out images, beside straight lines: do they stay where data is?

Arvanitidis, Hansen and Hauberg, "Latent Space Oddity", ICLR 2018, claims (i) and (iii): with a
deviation that grows away from data the volume measure is large off the data, and paths that are
shortest in that metric decode to images that a classifier is sure of, where straight lines cross
regions without data. Trains the generator first unless --generator names a finished one. Of a
generator without an encoder (a GAN's run, or --generator.path) pairs of draws from its prior are
joined instead, by its pull-back metric.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.generators import classifier, train_vae, vae_runs
from experiments.generators.load import resolved
from experiments.generators.noise_std import KINDS
from experiments.generators.spec import Usual
from experiments.latent_oddity import gan_geodesics, plausibility, setup
from experiments.latent_oddity.paths import (
    BATCH,
    STRAIGHT,
    Geodesics,
    Paths,
    evenly,
    joined,
    length_of,
    recalled,
    straight,
)
from experiments.latent_oddity.plausibility import Judges
from experiments.latent_oddity.setup import Subject, everywhere
from experiments.runtime import tables
from experiments.runtime.defaults import Quick, Settings
from experiments.runtime.run_dir import Folder, open_folder
from latent_flows import plots
from latent_flows.data import Dataset
from latent_flows.geometry.graph import knn_graph
from latent_flows.geometry.metrics import log_volume, pullback
from latent_flows.typing import Metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARGIN = 0.1
"""Of the range of the codes, added on each side of it where points off the data are drawn."""
BORDER = 0.5
"""In standard deviations of the codes: how far from the nearest code the border of data ends."""
UNSHOWN = ("length_network",)
"""Measures that the table leaves out."""
TITLES = {"rbf": "RBF deviation", "network": "ordinary deviation"}
NAMES = {"rbf": "RBF geodesic", "network": "ordinary geodesic", setup.EUCLIDEAN: STRAIGHT}


@dataclass(frozen=True)
class Config(setup.Config):
    """Compare geodesics with straight lines."""

    QUICK: ClassVar[Quick] = {
        **setup.Config.QUICK,
        "geodesics.pairs": 8,
        "geodesics.segments": 16,
        "geodesics.off": 200,
        "geodesics.shown": 4,
        "geodesics.strips": 2,
    }

    geodesics: Geodesics = field(default_factory=Geodesics)
    """Paths, measurements and pictures."""

    @staticmethod
    def follow(settings: Settings) -> None:
        """Fewer neighbours than codes."""
        setup.Config.follow(settings)
        settings.at_most("geodesics.neighbours", settings["codes"] - 1)


PRESETS = {
    **setup.presets(Config),
    "gan": (
        "the generator of a run of train_gan, or your own; minutes on a CPU",
        Config(
            run="runs/geodesics-gan",
            generator=Usual("runs/gan"),
            geodesics=Geodesics(pairs=10, segments=64),
        ),
    ),
}


def check(config: Config, train: Dataset) -> None:
    """Reject what the data cannot give, before anything is computed.

    Raises:
        ValueError: more neighbours than codes.
    """
    neighbours, codes = config.geodesics.neighbours, setup.count(config, train)
    if neighbours >= codes:
        raise ValueError(
            f"geodesics.neighbours ({neighbours}) must be less than the {codes} training codes, "
            "the least of codes and what the data hold"
        )


def ends(config: Config, subject: Subject) -> Float[Array, "m 2 d"]:
    """Random pairs of the held-out codes that the density has not seen."""
    _, codes = np.array_split(np.asarray(subject.test.codes), 2)
    random = np.random.default_rng(config.seed)
    rows = [random.choice(len(codes), 2, replace=False) for _ in range(config.geodesics.pairs)]
    return jnp.asarray(codes[np.array(rows)])


def find(folder: Folder, config: Config, subject: Subject) -> dict[str, Paths]:
    """The paths of every method, by its metric's name; straight lines are those of "euclidean"."""
    pairs, settings = ends(config, subject), config.geodesics
    found: dict[str, Paths] = {}
    for name in KINDS["both"]:
        metric = subject.metrics[name]

        def compute(name: str = name, metric: Metric = metric) -> Paths:
            # Only the RBF metric has holes, which a path can pass on either side.
            neighbours = settings.neighbours if name == "rbf" else 0
            graph = None
            if neighbours:
                graph = knn_graph(metric, subject.train.codes, neighbours=neighbours)
            return joined(metric, pairs, settings, graph)

        found[name] = recalled(folder, f"paths_{name}", compute)
    found[setup.EUCLIDEAN] = straight(pairs, settings.segments)
    return found


def measure_paths(
    subject: Subject, judge: Judges, paths: Mapping[str, Paths]
) -> list[dict[str, Any]]:
    """What the paths of each method are like on average.

    `gap` is the distance in data space from the point of a path that is farthest from all training
    images to the nearest of them.
    """

    from sklearn.neighbors import NearestNeighbors

    # Those of all methods at once, so that each measure is compiled once.
    points = np.stack([found.points for found in paths.values()])
    methods, count, steps, dim = points.shape
    latents = points.reshape(-1, dim)
    images = everywhere(subject.mean, latents)
    train_images = np.asarray(subject.train.images).reshape(len(subject.train.images), -1)
    nearest = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(train_images)
    gaps, _ = nearest.kneighbors(images.reshape(len(images), -1))
    along = {"log_density": judge.log_density(latents), "gap": gaps}
    if judge.confidence is not None:
        along["confidence"] = judge.confidence(images)
    along = {name: values.reshape(methods, count, steps) for name, values in along.items()}
    metrics: dict[str, Metric] = {
        "length": pullback(subject.mean),
        **{f"length_{kind}": subject.metrics[kind] for kind in KINDS["both"]},
    }
    lengths = {
        name: everywhere(length_of(metric), points.reshape(-1, steps, dim), BATCH)
        for name, metric in metrics.items()
    }
    rows = []
    for i, (name, found) in enumerate(paths.items()):
        row: dict[str, Any] = {"path": NAMES[name]}
        row |= {key: float(v.reshape(methods, count)[i].mean()) for key, v in lengths.items()}
        for key in ("confidence", "log_density"):
            if key in along:
                row[key] = float(along[key][i].mean())
                row[f"lowest_{key}"] = float(along[key][i].min(1).mean())
        row["gap"] = float(along["gap"][i].max(1).mean())
        row["converged"] = float(found.converged.mean())
        rows.append(row)
    return rows


def measure_volume(config: Config, subject: Subject, judge: Judges) -> list[dict[str, Any]]:
    """The log volume on held-out codes, in holes and at the border of the data, and far from it.

    `border_above` and `far_above` are the probabilities that the volume there is larger than on a
    code: 1/2 where the two cannot be told apart.
    """

    from sklearn.metrics import roc_auc_score

    _, codes = np.array_split(np.asarray(subject.test.codes), 2)
    places = {"data": codes, **off_data(config, codes, judge)}
    rows = []
    for kind in KINDS["both"]:
        volume = log_volume(subject.metrics[kind])
        # A point where the metric is not regular counts as the smallest volume of all.
        values = {
            name: np.nan_to_num(everywhere(volume, points, 64), nan=-np.inf)
            for name, points in places.items()
            if len(points)
        }
        on = values.pop("data")
        row: dict[str, Any] = {"deviation": TITLES[kind], "on_data": float(np.median(on))}
        for name, off in values.items():
            truth = np.repeat([0, 1], [len(on), len(off)])
            scores = np.maximum(np.concatenate([on, off]), np.finfo(np.float32).min)
            row[name] = float(np.median(off))
            row[f"{name}_above"] = float(roc_auc_score(truth, scores))
        rows.append(row)
    return rows


def off_data(
    config: Config, codes: Float[np.ndarray, "n d"], judge: Judges
) -> dict[str, Float[np.ndarray, "m d"]]:
    """Points of the box of the codes where hardly any data is: in holes and near the border, and
    farther from all codes than `BORDER`."""

    from sklearn.neighbors import NearestNeighbors

    low, high = box(codes)
    limit = np.quantile(judge.log_density(codes), 0.01)
    random = np.random.default_rng(config.seed)
    points = random.uniform(low, high, (20 * config.geodesics.off, codes.shape[1]))
    outside = points[judge.log_density(points) < limit].astype(np.float32)
    gaps, _ = NearestNeighbors(n_neighbors=1).fit(codes).kneighbors(outside)
    near = gaps[:, 0] < BORDER * codes.std()
    return {
        "border": outside[near][: config.geodesics.off],
        "far": outside[~near][: config.geodesics.off],
    }


def box(codes: Float[np.ndarray, "n d"]) -> tuple[np.ndarray, np.ndarray]:
    """Corners of a box that holds the codes and a margin."""
    low, high = codes.min(0), codes.max(0)
    return low - MARGIN * (high - low), high + MARGIN * (high - low)


def measure(config: Config, subject: Subject, judge: Judges, paths: Mapping[str, Paths]) -> Any:
    """All numbers of a run."""
    return {
        "pairs": config.geodesics.pairs,
        "classifier_accuracy": judge.accuracy,
        "paths": measure_paths(subject, judge, paths),
        "volume": measure_volume(config, subject, judge),
    }


def show(metrics: Mapping[str, Any], paths: Mapping[str, Paths]) -> None:
    """Print the numbers of a run."""
    shown = [{k: v for k, v in row.items() if k not in UNSHOWN} for row in metrics["paths"]]
    rows = tables.with_times(shown, [found.times for found in paths.values()])
    tables.show("Paths between held-out codes, means over pairs", rows)
    tables.show("Log volume of the metric, medians", metrics["volume"])


def draw(folder: Folder, config: Config, subject: Subject, paths: Mapping[str, Paths]) -> list[str]:
    """Save the pictures of a run; gives the files of those that could not be drawn."""
    figures: dict[str, Callable[[], Figure]] = {
        f"losses_{phase}": partial(
            plots.loss_curves, rows, caption=f"Loss of the phase '{phase}' and its terms."
        )
        for phase in (train_vae.PHASE, *KINDS["both"], classifier.PHASE)
        if (rows := folder.rows(phase))
    }
    if subject.vae.config.latent_dim <= 2:
        figures["latent"] = partial(draw_latent, config, subject, paths)
    if subject.vae.image_shape == (1, 1, 3):
        figures["space"] = partial(draw_space, config, subject, paths)
    else:
        figures["strips"] = partial(draw_strips, config, subject, paths)
    return tables.save_figures(folder, figures)


def draw_latent(config: Config, subject: Subject, paths: Mapping[str, Paths]) -> "Figure":
    """The volume measure of both metrics with data and paths."""
    order = hardest(subject, paths)
    ranks = np.linspace(0, len(order) - 1, min(config.geodesics.shown, len(order)))
    shown = order[ranks.round().astype(int)]
    codes = np.asarray(subject.test.codes)
    low, high = box(codes)
    lines = paths[setup.EUCLIDEAN].points[shown]
    return plots.latent_maps(
        [log_volume(subject.metrics[kind]) for kind in KINDS["both"]],
        low=low,
        high=high,
        titles=[TITLES[kind] for kind in KINDS["both"]],
        value="log volume",
        data=codes[:1000],
        labels=None if subject.test.labels is None else subject.test.labels[:1000],
        curves=[
            {"geodesic": np.asarray(paths[kind].points[shown]), STRAIGHT: np.asarray(lines)}
            for kind in KINDS["both"]
        ],
        caption=(
            "The log volume of the expected metric over the latent space, with held-out codes "
            "(one colour a label): geodesics and straight lines between pairs of them, from "
            "the one whose straight line is longest in the RBF metric to the one whose is shortest."
        ),
    )


def hardest(subject: Subject, paths: Mapping[str, Paths]) -> np.ndarray:
    """The pairs in the order in which straight lines between them leave the data, worst first."""
    length = length_of(subject.metrics["rbf"])
    return np.argsort(-everywhere(length, paths[setup.EUCLIDEAN].points, BATCH))


def draw_strips(config: Config, subject: Subject, paths: Mapping[str, Paths]) -> "Figure":
    """Images along the paths of a few pairs."""
    places = np.linspace(0, 1, 11)
    rows, labels = [], []
    for i in hardest(subject, paths)[: config.geodesics.strips]:
        for name, found in paths.items():
            # At equal lengths in latent space, so that no method dwells where it likes to be.
            rows.append(jax.vmap(subject.mean)(evenly(jnp.asarray(found.points[i]), places)))
            labels.append(NAMES[name])
    return plots.strips(
        np.asarray(rows),
        row_labels=labels,
        axis="along the path, at equal steps of its length in latent space",
        caption=(
            "Decoded paths, three a pair, between those pairs of held-out codes whose straight "
            "line is longest in the RBF metric."
        ),
    )


def draw_space(config: Config, subject: Subject, paths: Mapping[str, Paths]) -> "Figure":
    """Decoded paths among data in space."""
    shown = hardest(subject, paths)[: config.geodesics.strips]
    decode = jax.vmap(jax.vmap(lambda z: subject.mean(z).ravel()))
    return plots.space_curves(
        np.asarray(subject.train.images).reshape(-1, 3),
        {
            NAMES[name]: np.asarray(decode(paths[name].points[shown]))
            for name in ("rbf", setup.EUCLIDEAN, "network")
        },
        caption=(
            "Training data in space, and decoded paths between those pairs of held-out codes whose "
            "straight line is longest in the RBF metric."
        ),
    )


def run(config: Config) -> int | None:
    """Train the generator, unless there is one, join pairs, measure, draw."""
    config = resolved(config)
    given = setup.supplied(config)
    if given is not None:
        config.geodesics.check_memory(given.latent_dim)
        folder = open_folder(config.run, config)
        return gan_geodesics.run(folder, given, config.geodesics, config.seed)
    config.geodesics.check_memory(vae_runs.source(config)[1].vae.latent_dim)
    train_set, test_set = setup.datasets(config)
    check(config, train_set)
    folder = open_folder(config.run, config)
    subject = setup.load_subject(folder, config, train_set, test_set)
    judge = plausibility.appoint(folder, config, subject, train_set)
    paths = find(folder, config, subject)
    metrics = folder.remember("metrics", lambda: measure(config, subject, judge, paths))
    failed = draw(folder, config, subject, paths)
    with folder.understood("metrics"):
        show(metrics, paths)
    return tables.where(folder, failed)
