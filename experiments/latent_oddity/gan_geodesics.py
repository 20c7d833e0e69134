"""Shortest paths of a generator without an encoder, between draws from its prior.

There are no codes of data and no deviation that grows away from them: the metric is the generator's
own, pulled back from its samples, and paths are compared with straight lines and with arcs about
the origin, along which the norm stays that of draws.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from experiments.generators.features import read_features
from experiments.latent_oddity import figures
from experiments.latent_oddity.paths import (
    BATCH,
    GREAT_CIRCLE,
    STRAIGHT,
    Geodesics,
    Paths,
    great_circles,
    joined,
    length_of,
    recalled,
    straight,
)
from experiments.latent_oddity.setup import everywhere
from experiments.runtime import tables
from experiments.runtime.run_dir import Folder
from latent_flows.generators import FrozenGenerator, draw_latents
from latent_flows.geometry.metrics import pullback
from latent_flows.typing import Metric

GEODESIC = "geodesic"
BUDGET = 2**28
"""Numbers, about, that the Jacobians, or features, along all paths of a batch may have."""
WHOLE = 2**31
"""Numbers, about, of features up to which all images of a path are made at once."""
FEATURES = 1000
"""Numbers of a generator's features a pixel, about, that are kept for a gradient."""


def ends(generator: FrozenGenerator, settings: Geodesics, seed: int) -> Float[Array, "m 2 d"]:
    """Random pairs of draws."""
    found = draw_latents(generator.prior, jax.random.key(seed), 2 * settings.pairs)
    return found.reshape(settings.pairs, 2, -1)


def at_once(generator: FrozenGenerator, settings: Geodesics) -> int:
    """Pairs that are joined at once: fewer where the samples or the latents are large."""
    splines = settings.by_splines(generator.latent_dim)
    if splines and jax.default_backend() == "cpu":
        return 1  # which one pair keeps busy, and then easy ones do not wait for hard ones
    kept = FEATURES if splines else 3 * (generator.latent_dim + 2)
    each = kept * settings.segments * math.prod(generator.event_shape)
    return max(1, min(BATCH, BUDGET // each))


def images_at_once(generator: FrozenGenerator, settings: Geodesics) -> int | None:
    """Images of one path that are made at once, where all of them are too many; else None.

    >>> small, large = (FrozenGenerator("", None, 512, (n, n, 3), prior=None) for n in (64, 256))
    >>> images_at_once(small, Geodesics()), images_at_once(large, Geodesics(segments=64))
    (None, 10)
    """
    most = max(1, WHOLE // (FEATURES * math.prod(generator.event_shape)))
    return None if most > settings.segments else most


def seen_through(generator: FrozenGenerator, settings: Geodesics) -> Metric:
    """The metric that is pulled back from samples, or from what the user's network makes of them.

    Raises:
        UsageError: it does not take them.
        ValueError: there is no such network.
    """
    if not settings.features:
        return pullback(generator.decode)
    sample = np.zeros(generator.event_shape, np.float32)
    features = read_features(settings.features, "--geodesics.features", sample)
    return pullback(lambda z: features(generator.decode(z)))


def find(
    folder: Folder,
    generator: FrozenGenerator,
    metric: Metric,
    settings: Geodesics,
    seed: int,
    given: Float[Array, "m 2 d"] | None = None,
) -> dict[str, Paths]:
    """Geodesics, straight lines and great circles between pairs: those given, or of draws."""
    pairs = ends(generator, settings, seed) if given is None else given
    batch_size = at_once(generator, settings)
    images = images_at_once(generator, settings)
    solve = partial(joined, metric, pairs, settings, batch_size=batch_size, images=images)
    return {
        GEODESIC: recalled(folder, "paths", solve),
        STRAIGHT: straight(pairs, settings.segments),
        GREAT_CIRCLE: great_circles(pairs, settings.segments),
    }


def measure(
    generator: FrozenGenerator, metric: Metric, settings: Geodesics, paths: Mapping[str, Paths]
) -> dict[str, Any]:
    """How long the paths are in the space of samples, or of their features, beside straight lines,
    and how near to the origin.

    The lengths are root sums of squares over the numbers of a sample, as of the metric.
    """
    batch_size = at_once(generator, settings)
    lengths = {
        name: everywhere(length_of(metric), found.points, batch_size)
        for name, found in paths.items()
    }
    rows = []
    for name, found in paths.items():
        norms = np.linalg.norm(found.points, axis=-1)
        rows.append(
            {
                "path": name,
                "length": float(lengths[name].mean()),
                "of_straight": float((lengths[name] / lengths[STRAIGHT]).mean()),
                "norm_of_ends": float(norms[:, [0, -1]].mean()),
                "smallest_norm": float(norms.min(1).mean()),
                "converged": float(found.converged.mean()),
            }
        )
    return {"pairs": settings.pairs, "paths": rows}


def show(metrics: Mapping[str, Any], paths: Mapping[str, Paths], between: str) -> None:
    """Print the numbers of a run."""
    rows = tables.with_times(metrics["paths"], [found.times for found in paths.values()])
    tables.show(f"Paths between {between}, means over pairs", rows)


def draw(
    folder: Folder,
    generator: FrozenGenerator,
    metric: Metric,
    settings: Geodesics,
    paths: Mapping[str, Paths],
    between: str,
) -> list[str]:
    """Save the pictures of a run; gives the files of those that could not be drawn."""
    length = length_of(metric)
    lines = everywhere(length, paths[STRAIGHT].points, at_once(generator, settings))
    longest = np.argsort(-lines)
    caption = (
        f"{generator.name}: samples along paths, three a pair, between those pairs of {between} "
        f"whose straight line is longest in {space(settings)}."
    )
    shown = longest[: settings.strips]
    drawn: figures.Drawn = {
        "strips": partial(figures.strips, generator, paths, shown, caption),
    }
    if generator.latent_dim <= 2:
        some = longest[figures.spread(len(longest), settings.shown)]
        drawn["latent"] = partial(figures.of_draws, generator, metric, paths, some, between)
    return tables.save_figures(folder, drawn)


def space(settings: Geodesics) -> str:
    """Where lengths are measured, in words."""
    return "the space of features" if settings.features else "the space of samples"


def run(
    folder: Folder,
    generator: FrozenGenerator,
    metric: Metric,
    settings: Geodesics,
    seed: int,
    given: Float[Array, "m 2 d"] | None = None,
) -> int | None:
    """Join pairs, measure, draw."""
    between = "draws from the prior" if given is None else "the latents that were given"
    paths = find(folder, generator, metric, settings, seed, given)
    metrics = folder.remember("metrics", partial(measure, generator, metric, settings, paths))
    failed = draw(folder, generator, metric, settings, paths, between)
    with folder.understood("metrics"):
        show(metrics, paths, between)
    return tables.where(folder, failed)
