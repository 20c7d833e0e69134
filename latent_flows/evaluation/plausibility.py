"""How plausible latents are, and what they decode to: on paths, on walks, and off the data.

A density of the codes of data, and if there is one a classifier of images, say what could be data.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from latent_flows._extras import extra
from latent_flows._transforms import in_chunks
from latent_flows.geometry.metrics import log_volume
from latent_flows.typing import Generator, Metric, Scalar

__all__ = [
    "Judge",
    "code_box",
    "code_density",
    "off_data",
    "path_plausibility",
    "volume_contrast",
    "walk_plausibility",
]

BANDWIDTHS = (0.05, 0.1, 0.2, 0.4)
"""Of the density, in standard deviations of the codes: the best on other codes is taken."""
BORDER = 0.5
"""In standard deviations of the codes: how far from the nearest code the border of data ends."""
MARGIN = 0.1
"""Of the range of the codes, added on each side of it where points off the data are drawn."""
DECODED = 20
"""Steps of a walk, at most, that are decoded."""
BATCH = 20
"""Paths that are measured at once."""

Judge: TypeAlias = Callable[[Any], Float[np.ndarray, "n"]]
"""From latents, or from samples, to a number for each."""


def code_box(codes: Float[np.ndarray, "n d"]) -> tuple[np.ndarray, np.ndarray]:
    """Corners of a box that holds the codes and a margin.

    Args:
        codes: any latents.

    Returns:
        The lowest and the highest corner.

    >>> print(*code_box(np.array([[0.0, 1.0], [10.0, 1.0]])))
    [-1.  1.] [11.  1.]
    """
    low, high = codes.min(0), codes.max(0)
    return low - MARGIN * (high - low), high + MARGIN * (high - low)


def code_density(codes: Float[np.ndarray, "n d"], others: Float[np.ndarray, "m d"]) -> Judge:
    """The logarithm of a kernel density estimate from codes, as smooth as suits other codes best.

    Args:
        codes: where the kernels are.
        others: codes that choose the bandwidth.

    Returns:
        The log-density, of latents `[k, d]`.
    """
    with extra("evaluation"):
        from sklearn.neighbors import KernelDensity

    spread = codes.std()
    estimates = [KernelDensity(bandwidth=width * spread).fit(codes) for width in BANDWIDTHS]
    best = max(estimates, key=lambda estimate: estimate.score(others))
    return lambda points: best.score_samples(np.asarray(points))


def off_data(
    codes: Float[np.ndarray, "n d"], log_density: Judge, *, count: int = 1000, seed: int = 0
) -> dict[str, Float[np.ndarray, "m d"]]:
    """Points of the box of the codes where hardly any data is.

    Args:
        codes: held-out ones.
        log_density: says where data is.
        count: how many points of each kind, at most.
        seed: source of all randomness.

    Returns:
        Those in holes and near the "border", and those "far": farther from all codes than half a
        standard deviation of the codes.
    """
    with extra("evaluation"):
        from sklearn.neighbors import NearestNeighbors

    low, high = code_box(codes)
    limit = np.quantile(log_density(codes), 0.01)
    points = np.random.default_rng(seed).uniform(low, high, (20 * count, codes.shape[1]))
    outside = points[log_density(points) < limit].astype(np.float32)
    gaps, _ = NearestNeighbors(n_neighbors=1).fit(codes).kneighbors(outside)
    near = gaps[:, 0] < BORDER * codes.std()
    return {"border": outside[near][:count], "far": outside[~near][:count]}


def volume_contrast(
    metrics: Mapping[str, Metric],
    codes: Float[np.ndarray, "n d"],
    off: Mapping[str, Float[np.ndarray, "m d"]],
) -> list[dict[str, Any]]:
    """The log volume of metrics on codes, and at places off the data.

    `PLACE_above` is the probability that the volume there is larger than on a code: 1/2 where the
    two cannot be told apart.

    Args:
        metrics: by the name that their row has.
        codes: held-out ones.
        off: other places, by name.

    Returns:
        A row for each metric, the volumes being medians.

    References:
        Arvanitidis, Hansen and Hauberg, *Latent Space Oddity*, 2018, section 4.
    """
    with extra("evaluation"):
        from sklearn.metrics import roc_auc_score

    rows = []
    for name, metric in metrics.items():
        volume = log_volume(metric)
        # A point where the metric is not regular counts as the smallest volume of all.
        values = {
            place: np.nan_to_num(_everywhere(volume, points, 64), nan=-np.inf)
            for place, points in {"data": codes, **off}.items()
            if len(points)
        }
        on = values.pop("data")
        row: dict[str, Any] = {"deviation": name, "on_data": float(np.median(on))}
        for place, found in values.items():
            truth = np.repeat([0, 1], [len(on), len(found)])
            scores = np.maximum(np.concatenate([on, found]), np.finfo(np.float32).min)
            row[place] = float(np.median(found))
            row[f"{place}_above"] = float(roc_auc_score(truth, scores))
        rows.append(row)
    return rows


def path_plausibility(
    decode: Generator,
    points: Mapping[str, Float[np.ndarray, "m n d"]],
    lengths: Mapping[str, Callable[[Array], Scalar]],
    data: Float[Array, "k ..."],
    log_density: Judge,
    confidence: Judge | None = None,
) -> list[dict[str, Any]]:
    """What the paths of each method are like on average.

    `gap` is the distance in data space from the point of a path that is farthest from all training
    samples to the nearest of them.

    Args:
        decode: the generator.
        points: of as many paths by each method, by its name.
        lengths: from the points of a path to its length in several metrics, by name.
        data: training samples.
        log_density: of latents.
        confidence: of a classifier on samples, if there is one.

    Returns:
        A row for each method.

    References:
        Arvanitidis, Hansen and Hauberg, *Latent Space Oddity*, 2018, section 4.
    """
    with extra("evaluation"):
        from sklearn.neighbors import NearestNeighbors

    # Those of all methods at once, so that each measure is compiled once.
    every = np.stack([*points.values()])
    methods, count, steps, dim = every.shape
    latents = every.reshape(-1, dim)
    images = _everywhere(decode, latents)
    known = np.asarray(data).reshape(len(data), -1)
    nearest = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(known)
    gaps, _ = nearest.kneighbors(images.reshape(len(images), -1))
    along = {"log_density": log_density(latents), "gap": gaps}
    if confidence is not None:
        along["confidence"] = confidence(images)
    along = {name: values.reshape(methods, count, steps) for name, values in along.items()}
    found = {
        name: _everywhere(length, every.reshape(-1, steps, dim), BATCH)
        for name, length in lengths.items()
    }
    rows = []
    for i, name in enumerate(points):
        row: dict[str, Any] = {"path": name}
        row |= {key: float(v.reshape(methods, count)[i].mean()) for key, v in found.items()}
        for key in ("confidence", "log_density"):
            if key in along:
                row[key] = float(along[key][i].mean())
                row[f"lowest_{key}"] = float(along[key][i].min(1).mean())
        row["gap"] = float(along["gap"][i].max(1).mean())
        rows.append(row)
    return rows


def walk_plausibility(
    decode: Generator,
    walks: Float[Array, "n t d"],
    log_density: Judge,
    lowest: float,
    confidence: Judge | None = None,
    surest: float = 0.9,
) -> dict[str, float | None]:
    """How plausible what random walks come to is, all steps after the start together.

    Args:
        decode: the generator.
        walks: the latents, from the start on.
        log_density: of latents.
        lowest: the log-density from which a latent is plausible.
        confidence: of a classifier on samples, if there is one.
        surest: the confidence from which a sample is plausible.

    Returns:
        Shares of plausible latents and samples, of all steps and at the end, and medians of the
        log-density, of the length of a step and of the distance walked.
    """
    zs = walks[:, 1:]
    count, steps, dim = zs.shape
    flat = zs.reshape(-1, dim)
    densities = log_density(flat).reshape(count, steps)
    dense = densities >= lowest
    # Of every walk a few steps are decoded, the last among them.
    shown = np.linspace(steps - 1, 0, min(steps, DECODED)).astype(int)
    images = _everywhere(decode, zs[:, shown].reshape(-1, dim))
    sure: np.ndarray | None = None
    if confidence is not None:
        sure = confidence(jnp.asarray(images)).reshape(count, -1) >= surest
    lengths = np.linalg.norm(np.diff(np.asarray(walks), axis=1), axis=-1)
    return {
        "dense": float(dense.mean()),
        "dense_at_end": float(dense[:, -1].mean()),
        "confident": None if sure is None else float(sure.mean()),
        "confident_at_end": None if sure is None else float(sure[:, 0].mean()),
        "log_density": float(np.median(densities)),
        "latent_step": float(np.median(lengths)),
        "reach": float(np.median(np.linalg.norm(zs[:, -1] - walks[:, 0], axis=-1))),
    }


def _everywhere(
    function: Callable[[Array], Any], points: Array | np.ndarray, batch_size: int = 256
) -> np.ndarray:
    return np.asarray(in_chunks(function, batch_size)(jnp.asarray(points)))
