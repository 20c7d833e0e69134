"""How well directions control the factors of images, and trajectories reach their targets.

All measurements are on decoded images: none is an opinion of the model that is judged.
"""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import combinations
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from experiments.directions.config import Config, reach, visible
from experiments.directions.learn import LINEAR, NONLINEAR, ONE_SHOT, file_name, key_of
from experiments.directions.subject import Subject
from experiments.runtime import tables
from experiments.runtime.run_dir import Folder
from latent_flows import directions, evaluation
from latent_flows.data import ImageFactor
from latent_flows.data.image_factors import measure as measure_image
from latent_flows.data.image_factors import sharpness
from latent_flows.directions.losses import blurred_error, mse
from latent_flows.directions.model import DirectionModel, FittedDirection
from latent_flows.directions.trajectories import Trajectories
from latent_flows.evaluation.control import ControlScore, control_score
from latent_flows.typing import Generator, Scalar

METRICS = "metrics.json"
BATCH = 16
"""Latents that are moved by all amounts at once."""
SPAN = 1.5
"""How far baselines are followed to find out what they do, in units of a latent's deviation."""
PLACES = 7
"""Values that a factor is set to, to measure how exactly."""


class Measured(NamedTuple):
    """Factors of the images of some latents, and of the same latents moved by several amounts."""

    before: Float[np.ndarray, "n f"]
    after: Float[np.ndarray, "n a f"]
    shows: Bool[np.ndarray, "n a"]
    """Whether an image after is bright enough for its factors to mean something."""
    valid: Bool[np.ndarray, "n a"]
    """Whether it is also one of such data, as far as that can be seen."""


class Asked(NamedTuple):
    """What one direction did when it was asked for changes of its factor."""

    amounts: list[float]
    """The changes, in units of the transformation."""
    mean: list[float | None]
    """The change measured, on average over starts; None where no start can be changed so."""
    deviation: list[float | None]
    row: dict[str, Any]
    """Scores."""


def shift(models: tuple[FittedDirection, ...], z: Array, amounts: Float[Array, "k"]) -> Array:
    """Changes each factor by an amount."""
    if len(models) > 1:
        return directions.shift_many(models, z, amounts)
    return directions.shift(models[0], z, amounts[0], extrapolate=True)


def place(models: tuple[FittedDirection, ...], z: Array, amounts: Float[Array, "k"]) -> Array:
    """Sets each factor to a value."""
    if len(models) > 1:
        return directions.place_many(models, z, amounts)
    return directions.place(models[0], z, amounts[0], extrapolate=True)


@partial(jax.jit, static_argnames=("way", "factors", "is_valid"))
def _watch(
    way: Callable,
    factors: tuple[ImageFactor, ...],
    is_valid: Callable,
    generator: Generator,
    faintest: Scalar,
    models: tuple[FittedDirection, ...],
    zs: Float[Array, "n d"],
    amounts: Float[Array, "a k"],
) -> tuple[Array, ...]:
    look = partial(measure_image, factors)

    def one(z: Array) -> tuple[Array, ...]:
        images = jax.vmap(lambda a: generator(way(models, z, a)))(amounts)
        shows = images.mean((1, 2, 3)) >= faintest
        return look(generator(z)), jax.vmap(look)(images), shows, shows & jax.vmap(is_valid)(images)

    return jax.lax.map(one, zs, batch_size=BATCH)


def watch(
    subject: Subject,
    way: Callable[[tuple[FittedDirection, ...], Array, Array], Array],
    models: tuple[FittedDirection, ...],
    zs: Float[Array, "n d"],
    amounts: Float[np.ndarray, "a k"],
) -> Measured:
    """Measures the images of latents before and after they are moved."""
    found = _watch(
        way,
        subject.factors,
        subject.is_valid,
        subject.generator,
        jnp.asarray(subject.faintest),
        models,
        zs,
        jnp.asarray(amounts, zs.dtype),
    )
    return Measured(*map(np.asarray, found))


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


def control(config: Config, subject: Subject, name: str, model: FittedDirection) -> Asked:
    """Asks a direction for changes of its factor, from held-out codes, and measures."""
    own, largest = place_of(config, subject, name), reach(config)[name]
    side = config.control.amounts
    amounts = np.linspace(-1, 1, 2 * side + 1) * largest * config.control.stretch
    seen = watch(subject, shift, (model,), subject.held_out, amounts[:, None])
    change = seen.after[..., own] - seen.before[:, None, own]
    counts = seen.shows & possible(subject, own, seen.before, amounts)
    scale = ranges(config, subject)
    others = np.delete(np.arange(len(scale)), own)
    trained = np.abs(amounts) <= largest * (1 + 1e-6)
    score = score_of(
        amounts[trained],
        change[:, trained],
        seen.after[:, trained][..., others],
        scale[others],
        valid=counts[:, trained],
    )
    places = np.linspace(-1, 1, PLACES) * largest
    there = watch(subject, place, (model,), subject.held_out, places[:, None])
    placed = score_of(places, there.after[..., own], valid=there.shows, up_to_constant=True)
    masked = np.ma.masked_where(~counts, change)
    error = np.sqrt(np.ma.mean((masked - amounts) ** 2, 0)).filled(np.nan)
    row = {
        "r2": float(score.r2),
        "correlation": float(score.correlation),
        "spread": float(np.nanmean(score.spread)),
        "leakage": float(score.leakage.max()),
        **{
            f"leakage_{subject.factors[k].name}": float(value)
            for k, value in zip(others, score.leakage, strict=True)
        },
        "reach": evaluation.reach(amounts, error, config.control.bound * scale[own]),
        "error_far": _finite(np.ma.masked_invalid(error[[0, -1]]).mean()),
        "placed_r2": float(placed.r2),
        "placed_spread": float(np.nanmean(placed.spread)),
        "valid": float(seen.valid[:, trained].mean()),
    }
    mean, deviation = ([_finite(v) for v in part] for part in (masked.mean(0), masked.std(0)))
    return Asked(amounts.tolist(), mean, deviation, row)


def score_of(*arrays: np.ndarray, valid: np.ndarray, up_to_constant: bool = False) -> ControlScore:
    """`control_score` of arrays of NumPy, without a free constant."""
    given = map(jnp.asarray, arrays)
    return control_score(*given, valid=jnp.asarray(valid), up_to_constant=up_to_constant)


def _finite(value: Any) -> float | None:
    """A number, or None where it is masked or not finite."""
    return float(value) if value is not np.ma.masked and np.isfinite(value) else None


def possible(
    subject: Subject, own: int, before: Float[np.ndarray, "n f"], amounts: Float[np.ndarray, "a"]
) -> Bool[np.ndarray, "n a"]:
    """Which changes lead to a value that the data have, where these have sharp limits: sprites are
    drawn inside a certain square only. Of other data everything may be asked.
    """
    if not subject.bounded:
        return np.ones((len(before), len(amounts)), bool)
    target = before[:, own, None] + amounts
    return (target >= subject.low[own]) & (target <= subject.high[own])


# --- directions that nobody trained ---


@jax.jit
def decode(generator: Generator, zs: Float[Array, "n d"]) -> Float[Array, "n h w c"]:
    """The images of latents, a few at a time."""
    return jax.lax.map(generator, zs, batch_size=BATCH)


def proposals(config: Config, subject: Subject, key: Array) -> dict[str, Float[Array, "m d"]]:
    """The directions that each baseline proposes."""
    dim = subject.held_out.shape[1]
    count = min(config.control.candidates, dim)
    images = decode(subject.generator, subject.starts)
    # No more components than samples, and no more than latents.
    components = min(count, len(subject.starts) - 1)
    weight = subject.first_layer
    closed = {} if weight is None else {"SeFa": directions.sefa(weight, min(count, *weight.shape))}
    return closed | {
        "GANSpace": directions.ganspace(
            subject.starts, images.reshape(len(images), -1), components
        ),
        "random direction": directions.random_directions(key, count, dim),
        "latent coordinate": jnp.eye(dim)[jnp.argsort(-subject.starts.std(0))[:count]],
    }


def line(config: Config, direction: Any, slope: float) -> DirectionModel:
    """A direction along which a factor changes evenly, anywhere."""
    direction = jnp.asarray(direction)
    knots = jnp.linspace(-4.0, 4.0, config.fit.knots, dtype=direction.dtype)
    nothing = jnp.zeros((), direction.dtype)
    return DirectionModel(
        direction, knots, slope * knots, slope * knots[jnp.array([0, -1])], nothing, nothing
    )


def baselines(config: Config, subject: Subject, key: Array) -> list[dict[str, Any]]:
    """The best of each baseline's directions for each transformation, told its true slope.

    All of them are followed from the training codes. The direction whose straight line explains the
    measured change of the factor best is taken, with the slope of this line: more than our own
    directions are told, which see no measurement.
    """
    steps = np.linspace(-SPAN, SPAN, 7)
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for family, found in proposals(config, subject, key).items():
        for direction in found:
            model = line(config, direction, 1.0)
            seen = watch(subject, shift, (model,), subject.starts, steps[:, None])
            change = np.where(seen.shows[..., None], seen.after - seen.before[:, None], 0.0)
            asked = np.where(seen.shows, steps, 0.0)[..., None]
            slopes = (change * asked).sum((0, 1)) / np.maximum((asked**2).sum((0, 1)), 1e-12)
            explained = 1 - ((change - slopes * asked) ** 2).sum((0, 1)) / np.maximum(
                (change**2).sum((0, 1)), 1e-12
            )
            for name in visible(config):
                own = place_of(config, subject, name)
                row = {
                    "transformation": name,
                    "method": family,
                    "direction": (direction if slopes[own] >= 0 else -direction).tolist(),
                    "slope": max(abs(float(slopes[own])), 1e-4),
                    "explained": float(explained[own]),
                }
                if row["explained"] > best.get((name, family), {"explained": -1.0})["explained"]:
                    best[name, family] = row
    return [*best.values()]


# --- two at once ---


def together(
    config: Config, subject: Subject, names: tuple[str, ...], models: tuple[FittedDirection, ...]
) -> dict[str, Any]:
    """Asks for changes of two factors at once, all combinations of a few."""
    own = [place_of(config, subject, name) for name in names]
    sides = [np.linspace(-1, 1, 5) * reach(config)[name] for name in names]
    amounts = np.stack(np.meshgrid(*sides, indexing="ij"), -1).reshape(-1, 2)
    seen = watch(subject, shift, models, subject.held_out, amounts)
    counts = seen.shows
    for k, index in enumerate(own):
        counts = counts & possible(subject, index, seen.before, amounts[:, k])
    row: dict[str, Any] = {}
    for k, index in enumerate(own):
        change = seen.after[..., index] - seen.before[:, None, index]
        score = score_of(amounts[:, k], change, valid=counts)
        row[("first_r2", "second_r2")[k]] = float(score.r2)
    return row


# --- trajectories ---


@partial(jax.jit, static_argnames=("factors", "kind", "sigma"))
def _judge(
    factors: tuple[ImageFactor, ...],
    kind: str,
    sigma: float,
    generator: Generator,
    found: Trajectories,
) -> tuple[Array, ...]:
    transform = directions.transformation(kind)
    look = partial(measure_image, factors)

    def one(item: tuple[Array, Array]) -> tuple[Array, ...]:
        z0, zs = item
        before = generator(z0)

        def visit(z: Array, t: Array) -> tuple[Array, ...]:
            image = generator(z)
            target, mask = transform(before, t)
            return (
                mse(image, target, mask),
                blurred_error(image, target, mask, sigma=sigma),
                sharpness(image) / jnp.maximum(sharpness(before), 1e-6),
                look(image),
                image.mean(),
            )

        return look(before), *jax.vmap(visit)(zs, found.ts)

    return jax.lax.map(one, (found.z0, found.zs), batch_size=BATCH)


def judge(
    config: Config, subject: Subject, name: str, found: Trajectories
) -> dict[str, float | None]:
    """How near the trajectories of a transformation come to their targets, and how sharp.

    Errors, sharpness and the share of images that miss the factor asked for, or show nothing, are
    those at the largest |t|. R2 counts all that show something.
    """
    before, error, blurred, sharp, after, mean = map(
        np.asarray,
        _judge(
            subject.factors,
            name,
            config.inversion.sigma,
            subject.generator,
            found,
        ),
    )
    ends = [0, -1]
    row: dict[str, float | None] = {
        "mse": float(error[:, ends].mean()),
        "blurred": float(blurred[:, ends].mean()),
        "sharpness": float(sharp[:, ends].mean()),
        "r2": None,
        "missed": None,
    }
    if name in visible(config):
        own = place_of(config, subject, name)
        ts = np.asarray(found.ts)
        change = after[..., own] - before[:, None, own]
        shows, asked = mean >= subject.faintest, possible(subject, own, before, ts)
        row["r2"] = float(score_of(ts, change, valid=shows & asked).r2)
        near = np.abs(change - ts) <= config.control.bound * ranges(config, subject)[own]
        if asked[:, ends].any():
            row["missed"] = 1 - float((shows & near)[:, ends][asked[:, ends]].mean())
    return row


# --- all of it ---


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
                f"scores/inversion_{file_name(name)}_{kind}",
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
    everything: dict[str, dict[str, FittedDirection]] = {kind: {} for kind in seen}
    for kind in seen:
        everything[kind] |= {method: of[kind] for method, of in models.items()}
    key = key_of(config, "baselines")
    for row in folder.remember("models/baselines", partial(baselines, config, subject, key)):
        model = line(config, row["direction"], row["slope"])
        everything[row["transformation"]][row["method"]] = model
    asked = {
        kind: {
            method: folder.remember(
                f"scores/control_{file_name(method)}_{kind}",
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
                f"scores/together_{method}_{pair[0]}_{pair[1]}",
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


def show(config: Config, metrics: Mapping[str, Any]) -> None:
    """Print the numbers of a run."""
    held_out = {
        (row["transformation"], row["method"]): row["held_out_r2"] for row in metrics["fitted"]
    }
    names = {"error_far": "far error", "placed_spread": "spread set", "valid": "valid"}
    rows = [
        {
            "transformation": row["transformation"],
            "method": row["method"],
            "fit R2": held_out.get((row["transformation"], row["method"])),
            "R2": row["r2"],
            "leakage": row["leakage"],
            "reach": row["reach"],
            **{title: row[name] for name, title in names.items()},
        }
        for row in metrics["control"]
    ]
    if rows:
        tables.show(
            "Control of held-out latents: changes asked for and measured on the images "
            "(fit R2: on held-out trajectories)",
            rows,
        )
    else:
        tables.show("Directions, on held-out trajectories", metrics["fitted"])
    if metrics["together"]:
        tables.show("Two factors at once", metrics["together"])
    tables.show(
        f"Trajectories at the largest |t|; R2 at all t ({ONE_SHOT}: {config.losses[0]} loss)",
        metrics["inversion"],
    )
