"""Shortest paths of a generator without an encoder, between draws from its prior.

There are no codes of data and no deviation that grows away from them: the metric is the generator's
own, pulled back from its samples, and paths are compared with straight lines.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from experiments.latent_oddity import figures
from experiments.latent_oddity.paths import (
    BATCH,
    STRAIGHT,
    Geodesics,
    Paths,
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

GEODESIC = "geodesic"
BUDGET = 2**28
"""Numbers, about, that the Jacobians, or features, along all paths of a batch may have."""
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


def find(
    folder: Folder,
    generator: FrozenGenerator,
    settings: Geodesics,
    seed: int,
    given: Float[Array, "m 2 d"] | None = None,
) -> dict[str, Paths]:
    """Geodesics and straight lines between the same pairs: those given, or of draws."""
    pairs = ends(generator, settings, seed) if given is None else given
    batch_size = at_once(generator, settings)
    solve = partial(joined, pullback(generator.decode), pairs, settings, batch_size=batch_size)
    return {
        GEODESIC: recalled(folder, "paths", solve),
        STRAIGHT: straight(pairs, settings.segments),
    }


def measure(
    generator: FrozenGenerator, settings: Geodesics, paths: Mapping[str, Paths]
) -> dict[str, Any]:
    """How long the paths are in the space of samples, beside straight lines, and how near to the
    origin.

    The lengths are root sums of squares over the numbers of a sample, as of the metric.
    """
    metric, batch_size = pullback(generator.decode), at_once(generator, settings)
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
    settings: Geodesics,
    paths: Mapping[str, Paths],
    between: str,
) -> list[str]:
    """Save the pictures of a run; gives the files of those that could not be drawn."""
    length = length_of(pullback(generator.decode))
    lines = everywhere(length, paths[STRAIGHT].points, at_once(generator, settings))
    longest = np.argsort(-lines)
    caption = (
        f"{generator.name}: samples along paths, two a pair, between those pairs of {between} "
        "whose straight line is longest in the space of samples."
    )
    shown = longest[: settings.strips]
    drawn: figures.Drawn = {
        "strips": partial(figures.strips, generator, paths, shown, caption),
    }
    if generator.latent_dim <= 2:
        some = longest[figures.spread(len(longest), settings.shown)]
        drawn["latent"] = partial(figures.of_draws, generator, paths, some, between)
    return tables.save_figures(folder, drawn)


def run(
    folder: Folder,
    generator: FrozenGenerator,
    settings: Geodesics,
    seed: int,
    given: Float[Array, "m 2 d"] | None = None,
) -> int | None:
    """Join pairs, measure, draw."""
    between = "draws from the prior" if given is None else "the latents that were given"
    paths = find(folder, generator, settings, seed, given)
    metrics = folder.remember("metrics", partial(measure, generator, settings, paths))
    failed = draw(folder, generator, settings, paths, between)
    with folder.understood("metrics"):
        show(metrics, paths, between)
    return tables.where(folder, failed)
