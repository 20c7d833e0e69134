"""Shortest paths of an ensemble of decoders, between held-out images, beside straight lines.

No deviation of noise is needed: where there are no data the decoders disagree, and the expected
metric is the larger for it.
"""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from experiments.latent_oddity import figures
from experiments.latent_oddity.gan_geodesics import at_once
from experiments.latent_oddity.paths import (
    Geodesics,
    Paths,
    joined,
    length_of,
    recalled,
    straight,
)
from experiments.latent_oddity.setup import EUCLIDEAN, Sample, everywhere
from experiments.runtime.cli import UsageError
from experiments.runtime.run_dir import Folder
from latent_flows import plots
from latent_flows.evaluation.plausibility import code_box
from latent_flows.generators import FrozenGenerator
from latent_flows.geometry import (
    ensemble_pullback,
    ensemble_variance,
    resample_by_length,
)
from latent_flows.geometry.ensembles import Decoders, Draws
from latent_flows.typing import Scalar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "ensemble"
"""Of the metric."""


def check(generator: FrozenGenerator) -> None:
    """Reject a generator of one decoder.

    Raises:
        UsageError: it is one.
    """
    if generator.members is None:
        raise UsageError(
            f"{generator.name} has one decoder, and --decoders one and independent are of "
            "several: train them by `python -m experiments.train_vae` with --vae.decoders 8, or "
            "leave --decoders out"
        )


def find(
    folder: Folder,
    generator: FrozenGenerator,
    pairs: Float[Array, "m 2 d"],
    settings: Geodesics,
    draws: Draws,
) -> dict[str, Paths]:
    """Geodesics and straight lines between pairs, by the name of their metric."""
    metric = ensemble_pullback(generator, draws=draws)
    solve = partial(joined, metric, pairs, settings, batch_size=at_once(generator, settings))
    return {
        NAME: recalled(folder, "paths_ensemble", solve),
        EUCLIDEAN: straight(pairs, settings.segments),
    }


def along(generator: FrozenGenerator, points: Float[Array, "k d"]) -> Scalar:
    """How much the decoders disagree along a path, at equal steps of its length in latent space."""
    even = resample_by_length(points, np.linspace(0, 1, 33))
    return jnp.sqrt(jax.vmap(ensemble_variance(generator))(even)).mean()


def measure(generator: FrozenGenerator, paths: Mapping[str, Paths]) -> list[dict[str, float]]:
    """Of each kind of path, its length in the expected metric over that of the straight line, and
    how much decoders disagree on the way."""
    length = length_of(ensemble_pullback(generator))
    lengths = {name: everywhere(length, found.points, 20) for name, found in paths.items()}
    return [
        {
            "of_straight": float((lengths[name] / lengths[EUCLIDEAN]).mean()),
            "disagreement": float(everywhere(partial(along, generator), found.points, 20).mean()),
        }
        for name, found in paths.items()
    ]


def draw_map(
    generator: FrozenGenerator,
    paths: Mapping[str, Paths],
    shown: Int[np.ndarray, "k"],
    sample: Sample,
) -> "Figure":
    """Paths between some pairs over how much the decoders disagree."""
    return disagreement_map(
        generator,
        np.asarray(sample.codes),
        sample.labels,
        {generator.name: {name: found.points[shown] for name, found in paths.items()}},
        "How much the decoders disagree over the latent space, with held-out codes (one "
        "colour a label), geodesics and straight lines between pairs.",
    )


def disagreement_map(
    decoders: Decoders,
    codes: Float[np.ndarray, "n 2"],
    labels: Any,
    curves: Mapping[str, Mapping[str, Float[np.ndarray, "m k 2"]]],
    caption: str,
) -> "Figure":
    """How much decoders disagree, once for each title of curves, with these and some codes."""
    low, high = code_box(codes)
    variance = ensemble_variance(decoders)
    return plots.latent_maps(
        [lambda z: jnp.log(variance(z)) / 2] * len(curves),
        low=low,
        high=high,
        titles=[*curves],
        value="log deviation over decoders",
        data=codes[: figures.POINTS],
        labels=None if labels is None else labels[: figures.POINTS],
        curves=[*curves.values()],
        caption=caption,
    )


def pictures(
    generator: FrozenGenerator,
    paths: Mapping[str, Paths],
    longest: Int[np.ndarray, "m"],
    sample: Sample,
    settings: Geodesics,
) -> figures.Drawn:
    """What is drawn: decoded paths, and where they lie.

    Args:
        generator: the ensemble.
        paths: by what they are called.
        longest: the pairs, in the order of how long straight lines are in the expected metric.
        sample: held-out codes.
        settings: how many are shown.
    """
    caption = (
        "Decoded paths, two a pair, between those pairs whose straight line is longest in the "
        "expected metric of the decoders."
    )
    drawn: figures.Drawn = {
        "strips": partial(figures.strips, generator, paths, longest[: settings.strips], caption)
    }
    if generator.latent_dim <= 2:
        some = longest[figures.spread(len(longest), settings.shown)]
        drawn["latent"] = partial(draw_map, generator, paths, some, sample)
    return drawn
