"""The numbers of a run of directions, each kept in its folder as it is measured."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from experiments.directions.config import Config, reach, visible
from experiments.directions.learn import LINEAR, NONLINEAR, ONE_SHOT, file_name, key_of
from experiments.runtime import tables
from experiments.runtime.announcements import announced
from experiments.runtime.run_dir import Folder
from latent_flows._named_function import label
from latent_flows.data.image_factors import measure as measure_image
from latent_flows.directions.model import Direction, FittedDirection
from latent_flows.directions.trajectories import Trajectories
from latent_flows.evaluation.image_control import (
    Asked,
    Subject,
    even_direction,
    image_control,
    inversion_scores,
    joint_control,
    possible,
    score_of,
    untrained_directions,
)
from latent_flows.steering import steered_model

__all__ = ["METRICS", "baselines", "measure", "place_of", "possible", "ranges", "score_of", "show"]

METRICS = "metrics.json"
STEERED = "steered"
"""The method that needs no fit: `latent_flows.steering`."""


def ranges(config: Config, subject: Subject) -> Float[np.ndarray, "f"]:
    """The range of each factor: that of data, or all that is asked where this is more.

    Digits are centred, say, so that leakage into the position would be large in units of the data.
    """
    largest = reach(config)
    asked = {factor: 2 * largest[kind] for kind, factor in visible(config).items()}
    return np.maximum(
        subject.high - subject.low, [asked.get(factor.name, 0.0) for factor in subject.factors]
    )


def place_of(config: Config, subject: Subject, kind: str) -> int:
    """Which of the measured factors a transformation changes."""
    return [factor.name for factor in subject.factors].index(visible(config)[kind])


def steered(config: Config, subject: Subject) -> dict[str, Direction]:
    """By transformation, its factor as an attribute that is steered while the others are held."""
    look = partial(measure_image, subject.factors)
    with announced("measuring the factors of training latents"):
        return {
            kind: steered_model(
                subject.generator, look, place_of(config, subject, kind), subject.starts, steps=2
            )
            for kind in visible(config)
        }


def control(config: Config, subject: Subject, name: str, model: Direction) -> Asked:
    """What a direction does when it is asked for changes of its factor."""
    asked = config.control
    return image_control(
        subject,
        place_of(config, subject, name),
        model,
        reach(config)[name],
        ranges(config, subject),
        sides=asked.amounts,
        stretch=asked.stretch,
        bound=asked.bound,
    )


def baselines(config: Config, subject: Subject, key: Array) -> list[dict[str, Any]]:
    """The best of each baseline's directions for each transformation, told its true slope."""
    places = {name: place_of(config, subject, name) for name in visible(config)}
    candidates, knots = config.control.candidates, config.fit.knots
    return untrained_directions(subject, key, places, candidates=candidates, knots=knots)


def together(
    config: Config, subject: Subject, names: tuple[str, ...], models: tuple[FittedDirection, ...]
) -> dict[str, Any]:
    """What two directions do when they are asked at once."""
    own = [place_of(config, subject, name) for name in names]
    return joint_control(subject, own, models, [reach(config)[name] for name in names])


def judge(
    config: Config, subject: Subject, name: str, found: Trajectories
) -> dict[str, float | None]:
    """How near the trajectories of a transformation come to their targets, and how sharp."""
    scores = partial(inversion_scores, subject, name, found, sigma=config.inversion.sigma)
    if name not in visible(config):
        return scores()
    own = place_of(config, subject, name)
    return scores(own=own, near=config.control.bound * ranges(config, subject)[own])


def measure(
    folder: Folder,
    config: Config,
    subject: Subject,
    found: Mapping[str, Mapping[str, Trajectories]],
    models: Mapping[str, Mapping[str, FittedDirection]],
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """All numbers, and what each direction did by transformation and method.

    Each part is remembered in the run folder as it is done.
    """
    kinds = config.transformations
    seen = list(visible(config))
    inversion = [
        {
            "transformation": kind,
            "inversion": name,
            **folder.remember(
                f"scores/inversion_{file_name(name)}_{label(kind)}",
                partial(judge, config, subject, kind, trajectories[kind]),
            ),
        }
        for kind in kinds
        for name, trajectories in found.items()
    ]
    fitted = [
        {
            "transformation": kind,
            "method": method,
            "held_out_r2": float(of[kind].r2),
            "train_r2": float(of[kind].train_r2),
        }
        for kind in kinds
        for method, of in models.items()
    ]
    everything: dict[str, dict[str, Direction]] = {
        kind: {method: of[kind] for method, of in models.items()} | {STEERED: model}
        for kind, model in steered(config, subject).items()
    }
    key = key_of(config, "baselines")
    for row in folder.remember("models/baselines", partial(baselines, config, subject, key)):
        model = even_direction(row["direction"], row["slope"], knots=config.fit.knots)
        everything[row["transformation"]][row["method"]] = model
    asked = {
        kind: {
            method: folder.remember(
                f"scores/control_{file_name(method)}_{label(kind)}",
                partial(control, config, subject, kind, model),
            )
            for method, model in of.items()
        }
        for kind, of in everything.items()
    }
    controlled = [
        {"transformation": kind, "method": method, **curve["row"]}
        for kind, curves in asked.items()
        for method, curve in curves.items()
    ]
    pairs = [
        {
            "first": pair[0],
            "second": pair[1],
            "method": method,
            **folder.remember(
                f"scores/together_{method}_{label(pair[0])}_{label(pair[1])}",
                partial(
                    together,
                    config,
                    subject,
                    pair,
                    tuple(models[method][kind] for kind in pair),
                ),
            ),
        }
        for pair in combinations(seen, 2)
        for method in (LINEAR, NONLINEAR)
    ]
    metrics = {
        "fitted": fitted,
        "control": controlled,
        "together": pairs,
        "inversion": inversion,
    }
    folder.write_json(METRICS, metrics)
    return metrics, asked


def tabulated(config: Config, metrics: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The numbers of a run as rows of tables, by their titles."""
    held_out = {
        (row["transformation"], row["method"]): row["held_out_r2"] for row in metrics["fitted"]
    }
    names = {"error_far": "far error", "placed_spread": "spread set", "valid": "valid"}
    parts = {name: told(rows) for name, rows in metrics.items()}
    rows = [
        {
            "transformation": row["transformation"],
            "method": row["method"],
            "fit R2": held_out.get((row["transformation"], row["method"])),
            "R2": row["r2"],
            "leakage": row["leakage"],
            "reach": row["reach"],
            **{title: row[name] for name, title in names.items() if name in row},
        }
        for row in metrics["control"]
    ]
    control = (
        "Control of held-out latents: changes asked for and measured on the samples "
        "(fit R2: on held-out trajectories)"
    )
    found = (
        {control: told(rows)} if rows else {"Directions, on held-out trajectories": parts["fitted"]}
    )
    if parts["together"]:
        found["Two factors at once"] = parts["together"]
    first = label(config.losses[0])
    title = f"Trajectories at the largest |t|; R2 at all t ({ONE_SHOT}: {first} loss)"
    return {**found, title: parts["inversion"]}


def told(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows with transformations by what they are called, without measures that no row has.

    >>> told([{"transformation": "mine.py:louder", "mse": 0.1, "r2": None}])
    [{'transformation': 'louder', 'mse': 0.1}]
    """
    named = ("transformation", "first", "second")
    known = {key for row in rows for key, value in row.items() if value is not None}
    return [
        {key: label(row[key]) if key in named else row[key] for key in row if key in known}
        for row in rows
    ]


def show(config: Config, metrics: Mapping[str, Any]) -> None:
    """Print the numbers of a run."""
    for title, rows in tabulated(config, metrics).items():
        tables.show(title, rows)
