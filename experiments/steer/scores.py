"""Latents led to each amount of a transformation, by several ways, and what their samples do.

All measurements are on decoded samples: none is an opinion of what led them there.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from experiments.directions import scores as lines
from experiments.directions.config import reach, visible
from experiments.directions.learn import file_name, key_of
from experiments.directions.subject import Subject
from experiments.runtime import tables
from experiments.runtime.announcements import announced
from experiments.runtime.run_dir import Folder
from experiments.steer import distil
from experiments.steer.config import HOLDS, Config, exact_field, method_of
from latent_flows import directions, steering
from latent_flows._compiled import operations
from latent_flows._named_function import label
from latent_flows._transforms import vmap_chunked
from latent_flows.data.image_factors import measure as measure_image
from latent_flows.data.image_factors import shows_light, unwrapped
from latent_flows.directions.transformations import transformed
from latent_flows.evaluation.image_control import overlap
from latent_flows.steering import distilled
from latent_flows.steering.distilled import Fields
from latent_flows.typing import Generator

METRICS = "metrics.json"
BATCH = 8
"""Latents that are led at once."""
TURNED = 16
"""Latents at which a field is compared with a gradient."""
MEAN_FIELD = "line: mean of the field"
FITS = 0.1
"""By which share of the change the transformed image itself, as it is measured, may miss it: where
it misses more, it does not fit into the frame, and nothing can be asked there."""


Way: TypeAlias = Callable[[Generator, Array, Array], Array]
"""`(generator, t, z) -> dz/dt`."""


class Led(NamedTuple):
    """Latents led to several amounts of one transformation."""

    zs: Float[np.ndarray, "n a d"]
    missing: Float[np.ndarray, "n a"] | None
    """The residual of what led them, where it says one."""


def amounts_of(config: Config, kind: str) -> Float[np.ndarray, "a"]:
    """The amounts of a transformation, without 0."""
    side = np.arange(1, config.amounts + 1) / config.amounts
    return np.concatenate([-side[::-1], side]).astype(np.float32) * reach(config.asked)[kind]


def led(
    folder: Folder, config: Config, subject: Subject, learnt: Mapping[str, Fields]
) -> dict[str, dict[str, Led]]:
    """By transformation and method, where the held-out latents are led; kept in the run folder."""
    straight = folder.remember(
        "latents/lines",
        lambda: lines.baselines(config.asked, subject, key_of(config.asked, "baselines")),
    )
    found: dict[str, dict[str, Led]] = {}
    for kind in config.transformations:
        ts = amounts_of(config, kind)
        found[kind] = {}
        for hold in config.hold:
            kept = folder.remember(
                f"latents/steered_{hold}_{label(kind)}",
                partial(_steered, config, subject, kind, hold, ts),
            )
            found[kind][method_of(hold)] = Led(np.asarray(kept["zs"]), np.asarray(kept["missing"]))
        for name, fields in learnt.items():
            kept = folder.remember(
                f"latents/{file_name(name)}_{label(kind)}",
                partial(distil.follow, config, subject, fields, kind, ts),
            )
            found[kind][f"distilled: {name}"] = Led(np.asarray(kept, np.float32), None)
        mean = folder.remember(
            f"latents/mean_{label(kind)}", partial(_mean_field, config, subject, kind)
        )
        found[kind][MEAN_FIELD] = along(subject, np.asarray(mean), ts)
        for row in straight:
            if row["transformation"] == kind:
                step = np.asarray(row["direction"]) / row["slope"]
                found[kind][f"line: {row['method']}"] = along(subject, step, ts)
    return found


def along(subject: Subject, step: Float[np.ndarray, "d"], ts: Float[np.ndarray, "a"]) -> Led:
    """Where a straight line leads the held-out latents: so many steps."""
    return Led(np.asarray(subject.held_out)[:, None] + ts[:, None] * step, None)


def _steered(
    config: Config, subject: Subject, kind: str, hold: str, ts: np.ndarray
) -> dict[str, np.ndarray]:
    found = lead(
        kind,
        hold,
        (config.blur, config.damping, config.corrections, config.tolerance),
        tuple(map(float, ts)),
        subject.generator,
        subject.held_out,
    )
    return {"zs": np.asarray(found.zs), "missing": np.asarray(found.residual)}


@partial(jax.jit, static_argnames=("kind", "hold", "settings", "ts"))
def lead(
    kind: str,
    hold: str,
    settings: tuple[float, float, int, float],
    ts: tuple[float, ...],
    generator: Generator,
    starts: Float[Array, "n d"],
) -> steering.Steered:
    """Where latents are led at each amount of a transformation.

    Args:
        kind: the transformation.
        hold: what counts beside the image, by its name.
        settings: blur, damping, corrections and tolerance.
        ts: the amounts, without 0.
        generator: of the images.
        starts: the latents.
    """
    blur, damping, corrections, tolerance = settings

    def one(z: Array) -> steering.Steered:
        return steering.steer(
            generator,
            directions.transformation(kind),
            z,
            np.asarray(ts),
            **HOLDS[hold]._asdict(),
            blur=blur,
            damping=damping,
            corrections=corrections,
            tolerance=tolerance,
        )

    return jax.lax.map(one, starts, batch_size=BATCH)


def _mean_field(config: Config, subject: Subject, kind: str) -> np.ndarray:
    """The straight line that is nearest to the field: its mean over training latents."""

    @jax.jit
    def average(generator: Generator, starts: Float[Array, "n d"]) -> Array:
        field = exact_field(config, generator, kind)
        return jax.lax.map(lambda z: field(jnp.zeros(()), z), starts, batch_size=BATCH).mean(0)

    return np.asarray(average(subject.generator, subject.starts))


def measure(
    config: Config,
    subject: Subject,
    found: Mapping[str, Mapping[str, Led]],
    learnt: Mapping[str, Fields],
) -> dict[str, Any]:
    """What the images of led latents do, by transformation and method, and what fields are like."""
    rows = []
    for kind, methods in found.items():
        with announced(f"measuring the samples of {label(kind)}"):
            rows += [
                {"transformation": kind, "method": name, **_row(config, subject, kind, of)}
                for name, of in methods.items()
            ]
    return {"methods": rows, "fields": _fields(config, subject, learnt)}


def _fields(config: Config, subject: Subject, learnt: Mapping[str, Fields]) -> list[dict[str, Any]]:
    """How far each field is from a gradient, and what it costs, in passes of the generator."""
    starts = subject.held_out[:TURNED]
    t, z = jnp.zeros(()), starts[0]
    image = operations(_image, subject.generator, z)
    rows = []
    for index, kind in enumerate(config.transformations):

        def exact(generator: Generator, t: Array, z: Array, kind: str = kind) -> Array:
            return exact_field(config, generator, kind)(t, z)

        ways: dict[str, Way] = {"exact": exact}
        ways |= {name: partial(_member, fields, index) for name, fields in learnt.items()}
        with announced(f"measuring the fields of {label(kind)}"):
            for name, way in ways.items():
                turned = jax.jit(_asymmetries, static_argnums=0)(way, subject.generator, starts)
                rows.append(
                    {
                        "transformation": kind,
                        "field": name,
                        "asymmetry": float(np.mean(turned)),
                        "passes": operations(way, subject.generator, t, z) / image
                        if image > 0
                        else None,
                    }
                )
    return rows


def _image(generator: Generator, z: Array) -> Array:
    return generator(z)


def _member(fields: Fields, index: int, _: Generator, t: Array, z: Array) -> Array:
    return fields(t, z)[index]


def _asymmetries(way: Way, generator: Generator, zs: Float[Array, "n d"]) -> Float[Array, "n"]:
    return jax.lax.map(partial(distilled.asymmetry, partial(way, generator)), zs)


@partial(jax.jit, static_argnames=("kind", "factors", "is_valid"))
def _look(
    kind: str, factors: Any, is_valid: Any, generator: Generator, z0: Array, zs: Array, ts: Array
) -> tuple[Any, ...]:
    look, transform = partial(measure_image, factors), directions.transformation(kind)

    def one(start: Array, path: Array) -> tuple[Any, ...]:
        before = generator(start)

        def visit(z: Array, t: Array) -> tuple[Any, ...]:
            sample, (target, mask) = generator(z), transformed(transform, before, t)
            valid, shares = is_valid(sample), {}
            if shows_light(sample.shape):
                shares = {"valid": valid, "overlap": overlap(sample, target, mask)}
            return look(sample), look(target), sample.mean(), shares

        return look(before), is_valid(before), before.mean(), *jax.vmap(visit)(path, ts)

    return vmap_chunked(one, BATCH)(z0, zs)


def _row(config: Config, subject: Subject, kind: str, of: Led) -> dict[str, Any]:
    ts = amounts_of(config, kind)
    before, whole, bright, after, ideal, light, shares = jax.tree.map(
        np.asarray,
        _look(
            kind,
            subject.factors,
            subject.is_valid,
            subject.generator,
            subject.held_out,
            jnp.asarray(of.zs, jnp.float32),
            jnp.asarray(ts),
        ),
    )
    after, ideal = (
        np.asarray(unwrapped(subject.factors, jnp.asarray(before[:, None]), jnp.asarray(values)))
        for values in (after, ideal)
    )
    starts = whole & (bright >= subject.faintest)
    counts = starts[:, None] & (light >= subject.faintest)
    counts &= np.isfinite(before).all(-1)[:, None] & np.isfinite(after).all(-1)
    wanted = np.broadcast_to(starts[:, None], counts.shape)
    row: dict[str, Any] = {"r2": None, "leakage": None}
    if kind in visible(config.asked):
        own = lines.place_of(config.asked, subject, kind)
        possible = lines.possible(subject, own, before, ts)
        fits = np.abs(ideal[..., own] - before[:, None, own] - ts) <= FITS * np.abs(ts)
        fitting = _mean(fits[wanted & possible])
        counts, wanted = counts & possible & fits, wanted & possible & fits
        if counts.any():
            scale = lines.ranges(config.asked, subject)
            r2, drift = control(ts, own, before, after, scale, counts)
            # Where nothing else is measured, nothing is known of it.
            row = {"r2": r2, "leakage": float(drift.max()) if len(drift) > 1 else None}
        row["fits"] = fitting
    far = wanted & (np.abs(ts) >= np.abs(ts).max() * (1 - 1e-6))
    norms = np.linalg.norm(of.zs, axis=-1) / np.sqrt(of.zs.shape[-1])
    missing = of.missing
    for name in ("valid", "overlap"):
        if name in shares:
            row[name], row[f"{name}_far"] = (_mean(shares[name][which]) for which in (wanted, far))
    return row | {
        "missing": None if missing is None else _mean(missing[wanted]),
        "reached": None if missing is None else _mean(missing[wanted] <= config.tolerance),
        "norm": float(norms[wanted].max()) if wanted.any() else None,
        "count": int(wanted.sum()),
    }


def control(
    ts: Float[np.ndarray, "a"],
    own: int,
    before: Float[np.ndarray, "n f"],
    after: Float[np.ndarray, "n a f"],
    scale: Float[np.ndarray, "f"],
    counts: Bool[np.ndarray, "n a"],
) -> tuple[float, Float[np.ndarray, "f"]]:
    """How well one factor does what is asked of it, and how far each other drifts.

    Args:
        ts: the changes of the factor that are asked for.
        own: its place.
        before: factors of the start.
        after: factors of each led image.
        scale: ranges of the factors.
        counts: which images count, at least one.

    Returns:
        The R2, and the mean drift over its range of each factor; 0 of the own one.
    """
    others = np.delete(np.arange(len(scale)), own)
    change = after - before[:, None]
    score = lines.score_of(ts, change[..., own], after[..., others], scale[others], valid=counts)
    drift = np.abs(change)[counts].mean(0) / scale
    drift[own] = 0.0
    return float(score.r2), drift


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None


def tabulated(config: Config, metrics: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The numbers of a run as rows of tables, by their titles."""
    led = (
        f"{config.run}: asked against measured on held-out latents (leakage, valid, overlap with "
        "the transformed image: shares; far: at the largest |t|; norm in units of the prior's; of "
        "what lies in the data's range, fits: the share that stays in the frame, and so counts)"
    )
    methods, fields_of = (lines.told(metrics.get(part, [])) for part in ("methods", "fields"))
    fields = (
        f"{config.run}: fields (asymmetry: antisymmetric share of the Jacobian, 0 for a gradient, "
        "0.71 without any structure; passes: operations in units of one image's)"
    )
    changed = (
        f"{config.run}: attributes, asked against measured (leakage: of the others, in units of "
        "their ranges, and which most; reached: share within the tolerance)"
    )
    found = {led: methods, fields: fields_of}
    if "attributes" in metrics:
        found[changed] = metrics["attributes"]
    return found


def show(config: Config, metrics: Mapping[str, Any]) -> None:
    """Print the table of a run."""
    for title, rows in tabulated(config, metrics).items():
        tables.show(title, rows)
