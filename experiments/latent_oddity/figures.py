"""The pictures of the geometry of a generator."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from experiments.generators import classifier
from experiments.latent_oddity import setup
from experiments.latent_oddity.paths import BATCH, STRAIGHT, Paths, length_of
from experiments.latent_oddity.setup import Manifold, Sample, everywhere
from experiments.runtime.run_dir import Folder
from latent_flows import plots
from latent_flows._transforms import in_chunks
from latent_flows.evaluation.plausibility import code_box
from latent_flows.generators import FrozenGenerator
from latent_flows.geometry import resample_by_length
from latent_flows.geometry.metrics import log_volume
from latent_flows.typing import Latent, Metric, Scalar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Drawn = dict[str, Callable[[], "Figure"]]
"""What draws each picture, by its name."""
REACH = 3.0
"""Deviations of the draws within which the volume of two latents is drawn."""
POINTS = 1000
"""Codes, at most, behind paths."""


def losses(folder: Folder) -> Drawn:
    """How the training of the classifier went, where there was one."""
    rows = folder.rows(classifier.PHASE)
    caption = f"Loss of the phase '{classifier.PHASE}' and its terms."
    draw = partial(plots.loss_curves, rows, caption=caption)
    return {f"losses_{classifier.PHASE}": draw} if rows else {}


def rows_of_samples(
    samples: Float[np.ndarray, "k t ..."],
    event_shape: tuple[int, ...],
    *,
    row_labels: Sequence[str],
    axis: str,
    caption: str,
    names: Sequence[str] = (),
) -> "Figure":
    """Samples along paths, one a row: images side by side, or lines and bars in one another."""
    caption = f"{caption} {plots.how_drawn(event_shape)}".strip()
    if plots.are_pictures(event_shape):
        pictures = plots.sample_pictures(samples, event_shape)
        return plots.strips(pictures, row_labels=row_labels, axis=axis, caption=caption)
    places = np.linspace(0, 1, samples.shape[1])
    return plots.vector_traversals(
        samples,
        places=places,
        row_labels=row_labels,
        axis=axis,
        caption=f"{caption} The start of each is in black.",
        names=names,
    )


def spread(count: int, most: int) -> Int[np.ndarray, "m"]:
    """Places of at most so many, from the first to the last.

    >>> print(spread(9, 3), spread(2, 8))
    [0 4 8] [0 1]
    """
    return np.linspace(0, count - 1, min(most, count)).round().astype(int)


def hardest(manifold: Manifold, lines: Paths) -> Int[np.ndarray, "m"]:
    """The pairs in the order in which straight lines between them leave the data, worst first."""
    metric = manifold.metrics[manifold.kinds[0]]
    return np.argsort(-everywhere(length_of(metric), lines.points, BATCH))


def geodesics(
    manifold: Manifold,
    paths: Mapping[str, Paths],
    shown: Int[np.ndarray, "k"],
    titles: Mapping[str, str],
    between: str = "them",
) -> "Figure":
    """The volume measure of both metrics with data and the paths between some pairs."""
    codes = np.asarray(manifold.test.codes)
    low, high = code_box(codes)
    lines = paths[setup.EUCLIDEAN].points[shown]
    return plots.latent_maps(
        [log_volume(manifold.metrics[kind]) for kind in titles],
        low=low,
        high=high,
        titles=[*titles.values()],
        value="log volume",
        data=codes[:POINTS],
        labels=_labels(manifold.test),
        curves=[{"geodesic": paths[kind].points[shown], STRAIGHT: lines} for kind in titles],
        caption=(
            "The log volume of the expected metric over the latent space, with held-out codes "
            f"(one colour a label): geodesics and straight lines between pairs of {between}, from "
            "the one whose straight line is longest in the RBF metric to the one whose is shortest."
        ),
    )


def of_draws(
    generator: FrozenGenerator,
    metric: Metric,
    paths: Mapping[str, Paths],
    shown: Int[np.ndarray, "k"],
    between: str,
) -> "Figure":
    """The volume measure with the ends of the paths and the paths between some pairs of them."""
    points = paths[STRAIGHT].points
    flat = points.reshape(-1, generator.latent_dim)
    reach = REACH * flat.std(0)
    return plots.latent_maps(
        [log_volume(metric)],
        low=flat.mean(0) - reach,
        high=flat.mean(0) + reach,
        titles=[generator.name],
        value="log volume",
        data=points[:, [0, -1]].reshape(-1, generator.latent_dim),
        curves=[{name: found.points[shown] for name, found in paths.items()}],
        caption=(
            f"The log volume of the pull-back metric over the latent space, with {between}: "
            "geodesics, straight lines and great circles between some pairs of them."
        ),
    )


def strips(
    generator: FrozenGenerator,
    paths: Mapping[str, Paths],
    shown: Int[np.ndarray, "k"],
    caption: str,
) -> "Figure":
    """Samples along the paths between some pairs."""
    # At equal lengths in latent space, so that no method dwells where it likes to be.
    even = partial(resample_by_length, shares=np.linspace(0, 1, 11))
    decode = in_chunks(generator.decode, 1)
    return rows_of_samples(
        np.stack(
            [
                np.asarray(decode(even(jnp.asarray(found.points[i]))))
                for i in shown
                for found in paths.values()
            ]
        ),
        generator.event_shape,
        row_labels=[name for _ in shown for name in paths],
        axis="along the path, at equal steps of its length in latent space",
        names=generator.output_names,
        caption=caption,
    )


def space(
    manifold: Manifold, paths: Mapping[str, Paths], shown: Int[np.ndarray, "k"], between: str
) -> "Figure":
    """Decoded paths between some pairs, among data in space."""
    decode = jax.vmap(jax.vmap(lambda z: manifold.generator.decode(z).ravel()))
    return plots.space_curves(
        np.asarray(manifold.train.images).reshape(-1, 3),
        {name: np.asarray(decode(jnp.asarray(p.points[shown]))) for name, p in paths.items()},
        caption=(
            f"Training data in space, and decoded paths between those pairs of {between} whose "
            "straight line is longest in the RBF metric."
        ),
    )


def clusters(
    manifold: Manifold,
    codes: Float[Array, "n d"],
    groups: Int[np.ndarray, "n"],
    title: str,
    caption: str,
) -> "Figure":
    """Codes in groups, over the log volume that is trusted."""
    low, high = code_box(np.asarray(codes))
    return plots.latent_maps(
        [log_volume(manifold.metrics[manifold.kinds[0]])],
        low=low,
        high=high,
        titles=[title],
        value="log volume",
        data=np.asarray(codes),
        labels=groups,
        resolution=61,
        caption=f"{caption}, over the log volume of {trusted(manifold)}.",
    )


def densities(
    log_densities: Mapping[str, Callable[[Latent], Scalar]],
    codes: Float[Array, "n d"],
    *,
    floor: float,
    resolution: int,
    caption: str,
) -> "Figure":
    """Log-densities side by side, none below a floor, with codes."""
    low, high = code_box(np.asarray(codes))

    def above(log_density: Callable[[Latent], Scalar], z: Latent) -> Scalar:
        return jnp.maximum(log_density(z), floor)

    return plots.latent_maps(
        [partial(above, log_density) for log_density in log_densities.values()],
        low=low,
        high=high,
        titles=[*log_densities],
        value="log density",
        data=np.asarray(codes),
        resolution=resolution,
        caption=caption,
    )


def walks(
    manifold: Manifold, zs: Mapping[str, Float[np.ndarray, "n t d"]], titles: Mapping[str, str]
) -> "Figure":
    """Random walks over the log volume, by the name of their metric."""
    codes = np.asarray(manifold.train.codes[:POINTS])
    among = manifold.named("training")
    low, high = code_box(codes)
    # A walk that runs away leaves the picture, which it would else make too coarse to see.
    far = (high - low) / 2
    seen = np.concatenate([walk.reshape(-1, codes.shape[1]) for walk in zs.values()])
    low, high = code_box(np.concatenate([codes, np.clip(seen, low - far, high + far)]))
    behind = [manifold.kinds[0] if name == setup.EUCLIDEAN else name for name in zs]
    return plots.latent_maps(
        [log_volume(manifold.metrics[name]) for name in behind],
        low=low,
        high=high,
        titles=[titles[name] for name in zs],
        value="log volume",
        data=codes,
        labels=_labels(manifold.train),
        curves=[{"walk": walk} for walk in zs.values()],
        resolution=61,
        caption=(
            f"Random walks from {among} over the log volume of the walk's own metric (for "
            f"Euclidean walks {trusted(manifold)}), with {among}."
        ),
    )


def along_walks(
    manifold: Manifold, zs: Mapping[str, Float[np.ndarray, "n t d"]], titles: Mapping[str, str]
) -> "Figure":
    """What random walks decode to, a few steps of each."""
    decode = jax.vmap(jax.vmap(manifold.generator.decode))
    samples = {name: np.asarray(decode(jnp.asarray(walk))) for name, walk in zs.items()}
    return rows_of_samples(
        np.concatenate([*samples.values()]),
        manifold.generator.event_shape,
        row_labels=[titles[name] for name, rows in samples.items() for _ in rows],
        axis="along the walk",
        names=manifold.generator.output_names,
        caption=(
            f"Decoded points of random walks that start from the same {manifold.named('training')}."
        ),
    )


def trusted(manifold: Manifold) -> str:
    """The metric that pictures show, in words."""
    kind = manifold.kinds[0]
    title = setup.OTHERS.get(kind)
    return "the metric with RBF deviation" if title is None else f"the {title} metric"


def samples_of_groups(
    manifold: Manifold, rows: Mapping[str, Float[np.ndarray, "t d"]], axis: str, caption: str
) -> "Figure":
    """Decoded latents in rows of as many, by their name."""
    samples = everywhere(manifold.generator.decode, np.concatenate([*rows.values()]))
    count = len(next(iter(rows.values())))
    return rows_of_samples(
        samples.reshape(len(rows), count, *samples.shape[1:]),
        manifold.generator.event_shape,
        row_labels=[*rows],
        axis=axis,
        names=manifold.generator.output_names,
        caption=caption,
    )


def _labels(sample: Sample) -> Any:
    return None if sample.labels is None else sample.labels[:POINTS]
