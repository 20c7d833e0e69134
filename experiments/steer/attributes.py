"""Latents led so that one thing that is measured on images changes, and all others stay."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.directions import scores as lines
from experiments.directions.figures import central, paths
from experiments.directions.learn import key_of
from experiments.directions.subject import Subject
from experiments.runtime import tables
from experiments.runtime.announcements import announced
from experiments.runtime.cli import UsageError
from experiments.runtime.run_dir import Folder
from experiments.steer import compared
from experiments.steer.compared import Candidates
from experiments.steer.config import Config
from experiments.steer.scores import Led, along, control
from latent_flows import data, steering
from latent_flows._validation import choose
from latent_flows.data.image_factors import ImageFactor, unwrapped
from latent_flows.data.image_factors import measure as measure_image
from latent_flows.evaluation.image_control import survey, untrained_directions
from latent_flows.generators import FrozenGenerator
from latent_flows.steering import Steered
from latent_flows.typing import Generator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEERED = "steered, others held"
BATCH = 8
"""Latents that are led at once."""
EXAMPLES = 2
"""Starts that are shown."""


def check(config: Config, generator: FrozenGenerator) -> None:
    """Rejects attributes that are not measured on images of such data.

    Raises:
        UsageError: naming those that are.
    """
    known = data.measures(generator.dataset).factor_names
    for name in config.attributes:
        try:
            choose(f"attribute of {generator.name}", name, dict.fromkeys(known))
        except ValueError as error:
            raise UsageError(str(error)) from None


def subject_of(subject: Subject, generator: FrozenGenerator) -> Subject:
    """The same generator and latents, with all that is measured on its data."""
    measures = data.measures(generator.dataset)
    with announced("measuring the attributes of images"):
        low, high, faintest = survey(measures.factors, subject.starts, generator.decode)
    return subject._replace(factors=measures.factors, low=low, high=high, faintest=faintest)


def ranges(subject: Subject) -> Float[np.ndarray, "f"]:
    """Of each attribute: all of a turn where it goes round, else what is usual."""
    periods = np.array([factor.period for factor in subject.factors])
    return np.where(np.isfinite(periods), periods, subject.high - subject.low)


def shares_of(config: Config) -> Float[np.ndarray, "a"]:
    """The changes of an attribute that are asked for, in units of its range, without 0."""
    side = np.arange(1, config.amounts + 1) / config.amounts * config.attribute_share
    return np.concatenate([-side[::-1], side]).astype(np.float32)


def amounts_of(config: Config, subject: Subject, own: int) -> Float[np.ndarray, "a"]:
    """The changes of an attribute that are asked for, without 0."""
    return shares_of(config) * float(ranges(subject)[own])


def led(
    folder: Folder, config: Config, subject: Subject, others: Sequence[Candidates] = ()
) -> dict[str, dict[str, Led]]:
    """By attribute and method, where the held-out latents are led; kept in the run folder."""
    if not config.attributes:
        return {}
    names = [factor.name for factor in subject.factors]
    places = {name: names.index(name) for name in config.attributes}
    straight = folder.remember(
        "latents/attribute_lines",
        lambda: untrained_directions(
            subject, key_of(config.asked, "attributes"), places, candidates=config.candidates
        ),
    )
    found: dict[str, dict[str, Led]] = {}
    for name, own in places.items():
        ts = amounts_of(config, subject, own)
        kept = folder.remember(
            f"latents/attribute_{name}", partial(_steered, config, subject, own, ts)
        )
        steered = Led(np.asarray(kept["zs"]), np.asarray(kept["missing"]))
        found[name] = {STEERED: steered}
        for row in straight:
            if row["transformation"] == name:
                step = np.asarray(row["direction"]) / row["slope"]
                found[name][f"line: {row['method']}"] = along(subject, step, ts)
    amounts = {name: amounts_of(config, subject, own) for name, own in places.items()}
    learnt = compared.led(folder, subject, others, places, amounts, "attributes")
    return {name: methods | learnt[name] for name, methods in found.items()}


def _steered(config: Config, subject: Subject, own: int, ts: np.ndarray) -> dict[str, Any]:
    with announced(f"leading latents so that {subject.factors[own].name} changes"):
        found = _lead(
            subject.factors,
            own,
            (config.damping, config.corrections, config.tolerance),
            tuple(map(float, ts)),
            subject.generator,
            subject.held_out,
        )
        return {"zs": np.asarray(found.zs), "missing": np.asarray(found.residual)}


@partial(jax.jit, static_argnames=("factors", "own", "settings", "ts"))
def _lead(
    factors: tuple[ImageFactor, ...],
    own: int,
    settings: tuple[float, int, float],
    ts: tuple[float, ...],
    generator: Generator,
    starts: Float[Array, "n d"],
) -> Steered:
    damping, corrections, tolerance = settings

    def one(z: Array) -> Steered:
        before = measure_image(factors, generator(z))
        return steering.steer_attribute(
            generator,
            lambda image: unwrapped(factors, before, measure_image(factors, image)),
            own,
            z,
            np.asarray(ts),
            damping=damping,
            corrections=corrections,
            tolerance=tolerance,
        )

    return jax.lax.map(one, starts, batch_size=BATCH)


@partial(jax.jit, static_argnames=("factors", "is_valid"))
def _look(
    factors: Any, is_valid: Any, generator: Generator, z0: Array, zs: Array
) -> tuple[Array, ...]:
    def one(item: tuple[Array, Array]) -> tuple[Array, ...]:
        images = jax.vmap(generator)(item[1])
        start = generator(item[0])
        before = measure_image(factors, start)
        after = jax.vmap(partial(measure_image, factors))(images)
        after = unwrapped(factors, before, after)
        return before, is_valid(start), after, jax.vmap(is_valid)(images)

    return jax.lax.map(one, (z0, zs), batch_size=BATCH)


def measure(
    config: Config, subject: Subject, found: Mapping[str, Mapping[str, Led]]
) -> list[dict[str, Any]]:
    """What the images of led latents do, by attribute and method."""
    rows = []
    for name, methods in found.items():
        with announced(f"measuring the images of {name}"):
            rows += [
                {"attribute": name, "method": method, **_row(config, subject, name, of)}
                for method, of in methods.items()
            ]
    return rows


def _row(config: Config, subject: Subject, name: str, of: Led) -> dict[str, Any]:
    own = [factor.name for factor in subject.factors].index(name)
    ts = amounts_of(config, subject, own)
    before, whole, after, valid = map(
        np.asarray,
        _look(
            subject.factors,
            subject.is_valid,
            subject.generator,
            subject.held_out,
            jnp.asarray(of.zs, jnp.float32),
        ),
    )
    counts = whole[:, None] & lines.possible(subject, own, before, ts)
    norms = np.linalg.norm(of.zs, axis=-1) / np.sqrt(of.zs.shape[-1])
    if not counts.any():
        return {"r2": None, "leakage": None, "valid": None, "reached": None, "count": 0}
    r2, drift = control(ts, own, before, after, ranges(subject), counts)
    return {
        "r2": r2,
        "leakage": float(drift.max()),
        "leaks_into": subject.factors[int(drift.argmax())].name,
        "valid": float(valid[counts].mean()),
        "reached": None
        if of.missing is None
        else float((of.missing[counts] <= config.tolerance).mean()),
        "norm": float(norms[counts].max()),
        "count": int(counts.sum()),
    }


def draw(
    folder: Folder, config: Config, subject: Subject, found: Mapping[str, Mapping[str, Led]]
) -> list[str]:
    """Save a picture for each attribute, and one of all; gives the files of those that failed."""
    each = {
        f"attribute_{name}": partial(strips, config, subject, name, methods)
        for name, methods in found.items()
    }
    all_of_them = {"attributes": partial(together, config, subject, found)}
    return tables.save_figures(folder, each | (all_of_them if len(found) > 1 else {}))


def together(config: Config, subject: Subject, found: Mapping[str, Mapping[str, Led]]) -> "Figure":
    """Each attribute steered by itself from one held-out latent."""
    index = central(subject)[0]
    decode = jax.jit(jax.vmap(subject.generator))
    rows = [decode(_with_start(subject, methods[STEERED], index)) for methods in found.values()]
    return paths(
        np.asarray(jnp.stack(rows)),
        amounts=np.insert(shares_of(config), config.amounts, 0.0),
        row_labels=[*found],
        axis="change of the attribute, in units of its range",
        caption=(
            f"{subject.name}: images of one held-out latent, led in each row so that one attribute "
            "changes and the others stay. The start is marked."
        ),
    )


def _with_start(subject: Subject, of: Led, index: int) -> Float[Array, "t d"]:
    """Where a held-out latent is led, with itself in the middle."""
    middle = of.zs.shape[1] // 2
    path = np.insert(of.zs[index], middle, subject.held_out[index], axis=0)
    return jnp.asarray(path, jnp.float32)


def strips(config: Config, subject: Subject, name: str, methods: Mapping[str, Led]) -> "Figure":
    """Steered and straight, for a few held-out latents."""
    own = [factor.name for factor in subject.factors].index(name)
    amounts = amounts_of(config, subject, own)
    decode = jax.jit(jax.vmap(subject.generator))
    rows, labels = [], []
    for index in central(subject)[:EXAMPLES]:
        for method, of in methods.items():
            rows.append(decode(_with_start(subject, of, index)))
            labels.append(method)
    return paths(
        np.asarray(jnp.stack(rows)),
        amounts=np.insert(amounts, config.amounts, 0.0),
        row_labels=labels,
        axis=f"{name} ({subject.factors[own].unit})",
        caption=(
            f"{subject.name}: images of held-out latents led so that {name} changes by each "
            "amount, and moved along the best straight lines. The start is marked."
        ),
    )
