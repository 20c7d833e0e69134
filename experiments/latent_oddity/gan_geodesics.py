"""Shortest paths of a generator without an encoder, between draws from its prior.

There are no codes of data and no deviation that grows away from them: the metric is the generator's
own, pulled back from its images, and paths are compared with straight lines.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.generators.spec import Supply, draws
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
from experiments.latent_oddity.setup import everywhere
from experiments.runtime import tables
from experiments.runtime.run_dir import Folder
from latent_flows import plots
from latent_flows.geometry.metrics import log_volume, pullback

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GEODESIC = "geodesic"
BUDGET = 2**28
"""Numbers, about, that the Jacobians, or features, along all paths of a batch may have."""
FEATURES = 1000
"""Numbers of a generator's features a pixel, about, that are kept for a gradient."""
REACH = 3.0
"""Deviations of the draws within which the volume of two latents is drawn."""


def ends(supply: Supply, settings: Geodesics, seed: int) -> Float[Array, "m 2 d"]:
    """Random pairs of draws."""
    found = draws(supply.prior, jax.random.key(seed), 2 * settings.pairs)
    return found.reshape(settings.pairs, 2, -1)


def at_once(supply: Supply, settings: Geodesics) -> int:
    """Pairs that are joined at once: fewer where the images or the latents are large."""
    splines = settings.by_splines(supply.latent_dim)
    if splines and jax.default_backend() == "cpu":
        return 1  # which one pair keeps busy, and then easy ones do not wait for hard ones
    kept = FEATURES if splines else 3 * (supply.latent_dim + 2)
    each = kept * settings.segments * math.prod(supply.image_shape)
    return max(1, min(BATCH, BUDGET // each))


def find(folder: Folder, supply: Supply, settings: Geodesics, seed: int) -> dict[str, Paths]:
    """Geodesics and straight lines between the same pairs."""
    pairs, batch_size = ends(supply, settings, seed), at_once(supply, settings)
    solve = partial(joined, pullback(supply.generator), pairs, settings, batch_size=batch_size)
    return {
        GEODESIC: recalled(folder, "paths", solve),
        STRAIGHT: straight(pairs, settings.segments),
    }


def measure(supply: Supply, settings: Geodesics, paths: Mapping[str, Paths]) -> dict[str, Any]:
    """How long the paths are in image space, beside straight lines, and how near to the origin.

    The lengths are root sums of squares over pixels, as of the metric.
    """
    metric, batch_size = pullback(supply.generator), at_once(supply, settings)
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


def show(metrics: Mapping[str, Any], paths: Mapping[str, Paths]) -> None:
    """Print the numbers of a run."""
    rows = tables.with_times(metrics["paths"], [found.times for found in paths.values()])
    tables.show("Paths between draws from the prior, means over pairs", rows)


def draw(
    folder: Folder, supply: Supply, settings: Geodesics, paths: Mapping[str, Paths]
) -> list[str]:
    """Save the pictures of a run; gives the files of those that could not be drawn."""
    metric = pullback(supply.generator)
    lines = everywhere(length_of(metric), paths[STRAIGHT].points, at_once(supply, settings))
    longest = np.argsort(-lines)
    figures: dict[str, Callable[[], Figure]] = {
        "strips": partial(draw_strips, supply, paths, longest[: settings.strips])
    }
    if supply.latent_dim <= 2:
        places = np.linspace(0, len(longest) - 1, settings.shown).round().astype(int)
        figures["latent"] = partial(draw_latent, supply, paths, longest[places])
    return tables.save_figures(folder, figures)


def draw_latent(supply: Supply, paths: Mapping[str, Paths], shown: np.ndarray) -> "Figure":
    """The volume measure with draws and the paths between some pairs of them."""
    dim = supply.latent_dim
    points = paths[STRAIGHT].points.reshape(-1, dim)
    spread = REACH * points.std(0)
    return plots.latent_maps(
        [log_volume(pullback(supply.generator))],
        low=points.mean(0) - spread,
        high=points.mean(0) + spread,
        titles=[supply.name],
        value="log volume",
        data=paths[STRAIGHT].points[:, [0, -1]].reshape(-1, dim),
        curves=[{name: np.asarray(found.points[shown]) for name, found in paths.items()}],
        caption=(
            "The log volume of the pull-back metric over the latent space, with draws from the "
            "prior: geodesics and straight lines between some pairs of them."
        ),
    )


def draw_strips(supply: Supply, paths: Mapping[str, Paths], shown: np.ndarray) -> "Figure":
    """Images along the paths of a few pairs."""
    places = np.linspace(0, 1, 11)
    decode = jax.jit(jax.lax.map)
    rows, labels = [], []
    for i in shown:
        for name, found in paths.items():
            # At equal lengths in latent space, so that no method dwells where it likes to be.
            even = evenly(jnp.asarray(found.points[i]), places)
            rows.append(np.asarray(decode(supply.generator, even)))
            labels.append(name)
    return plots.strips(
        np.asarray(rows),
        row_labels=labels,
        axis="along the path, at equal steps of its length in latent space",
        caption=(
            f"{supply.name}: images along paths, two a pair, between those pairs of draws whose "
            "straight line is longest in image space."
        ),
    )


def run(folder: Folder, supply: Supply, settings: Geodesics, seed: int) -> int | None:
    """Join pairs, measure, draw."""
    paths = find(folder, supply, settings, seed)
    metrics = folder.remember("metrics", partial(measure, supply, settings, paths))
    failed = draw(folder, supply, settings, paths)
    with folder.understood("metrics"):
        show(metrics, paths)
    return tables.where(folder, failed)
