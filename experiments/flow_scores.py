"""Measure what learnt flows do, beside directions that need no learning, at equal length."""

import zlib
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from experiments import report, train_vae
from experiments.flow_config import (
    EQUATIONS,
    FACTORS,
    Config,
    Subject,
    coefficient,
    initial,
    network,
    vae_config,
    velocity,
)
from experiments.folder import Folder
from experiments.training import Params
from latent_flows import pde
from latent_flows.data import Dataset, sprites
from latent_flows.evaluation import traversals, vp_score
from latent_flows.evaluation.traversals import Field
from latent_flows.typing import Generator

SEGMENTS = 10
"""Pieces in which the data-space length of a traversal is measured."""


class Method(NamedTuple):
    """A family of traversals under one interface."""

    name: str
    generator: Generator
    field: Field
    params: PyTree
    """One entry a traversal, stacked."""
    starts: Float[Array, "k n m"]


def constant(direction: Array, t: Array, z: Array) -> Array:
    """A straight line."""
    del t, z
    return direction


def methods(
    config: Config, subject: Subject, params: Params, dataset: Dataset, key: Array
) -> list[Method]:
    """The learnt potentials, and what they have to be compared with."""
    count, dim = config.flows.count, subject.starts.shape[1]
    start_key, random_key = jax.random.split(key)
    random = jax.random.normal(random_key, (count, dim))
    starts = starts_for(start_key, subject, count, max(config.scores.pairs, config.scores.starts))
    into_frame = jnp.linalg.pinv(subject.frame.basis).T
    # Only dimensions of the latent that the frame spans can be moved along.
    used = jnp.linalg.norm(into_frame, axis=1) > 1e-6
    axes = into_frame[used]
    field = partial(velocity, network(config))

    def straight(name: str, directions: Array) -> Method:
        return Method(name, subject.generator, constant, directions, starts[: len(directions)])

    found = [
        Method("potentials", subject.generator, field, params["potentials"], starts),
        straight("random directions", random),
        straight("latent coordinates", axes[:count]),
    ]
    if config.flows.frame == "ica":
        found.append(straight("ICA axes", jnp.eye(dim)[:count]))
    if dataset.name == "sprites":
        found.append(reencoding(subject, config.scores.starts))
    return found


def reencoding(subject: Subject, count: int) -> Method:
    """One true factor changed at a time, seen through the VAE: a ceiling for what flows can do.

    The "latent" is the vector of factors, the "generator" renders, encodes and decodes.
    """
    vae, params = subject.vae, subject.params

    def seen(factors: Array) -> Array:
        image = sprites.render(sprites.Factors(*factors), size=vae.image_shape[0])
        mean, _ = vae.apply(params, image, method=vae.encode)
        return vae.apply(params, mean, method=vae.decode)

    keys = jax.random.split(jax.random.key(0), count)
    drawn = jnp.stack(jax.vmap(sprites.random_factors)(keys), axis=1).astype(jnp.float32)
    order = sprites.Factors(*range(5))
    moved = jnp.array([order.x, order.y, order.scale])
    # Each starts near the low end of its range, so that the path stays inside.
    low, rate = jnp.array([0.0, 0.0, 0.5]), jnp.array([0.1, 0.1, 0.05])
    starts = jax.vmap(lambda i, low: drawn.at[:, i].set(low))(moved, low)
    return Method("re-encoded truth", seen, constant, jnp.eye(5)[moved] * rate[:, None], starts)


def starts_for(key: Array, subject: Subject, count: int, number: int) -> Array:
    """`number` starting points for each of `count` traversals, drawn independently.

    Sharing them between traversals would let the VP classifier recognise the image.
    """
    chosen = jax.random.randint(key, (count, number), 0, len(subject.starts))
    return subject.starts[chosen]


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _traverse(
    generator: Generator,
    field: Field,
    horizon: float,
    segments: int,
    params: PyTree,
    starts: Float[Array, "k n m"],
    scale: Float[Array, "k"],
) -> traversals.Traversal:
    """Traversals `[K, n, ...]` of every member of a family from its starting points."""
    ts = jnp.linspace(0.0, horizon, segments + 1)

    def family(args: Any) -> traversals.Traversal:
        params, starts, scale = args

        def one(z0: Array) -> traversals.Traversal:
            return traversals.traverse(generator, partial(field, params), z0, ts, scale=scale)

        return jax.lax.map(one, starts, batch_size=64)

    return jax.lax.map(family, (params, starts, scale))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _equal_length(
    generator: Generator,
    field: Field,
    horizon: float,
    params: PyTree,
    starts: Float[Array, "k n m"],
    target: Array,
) -> Float[Array, "k"]:
    """For each member of a family, the factor that gives its paths the wanted mean length."""

    def mean_length(params: PyTree, starts: Array, scale: Array) -> Array:
        paths = _traverse(
            generator,
            field,
            horizon,
            SEGMENTS,
            jax.tree.map(lambda leaf: leaf[None], params),
            starts[None],
            scale[None],
        )
        return jnp.mean(paths.length)

    def one(args: Any) -> Array:
        params, starts = args
        return traversals.equal_length_scale(partial(mean_length, params, starts), target)

    return jax.lax.map(one, (params, starts))


def measure_method(
    config: Config, method: Method, target: float, ranges: Array | None, key: Array
) -> dict[str, Any]:
    """One row of the comparison at a given data-space length."""
    horizon, scores = float(config.flows.horizon), config.scores
    count = len(jax.tree.leaves(method.params)[0])
    few = method.starts[:, : min(32, scores.starts)]
    scale = _equal_length(
        method.generator, method.field, horizon, method.params, few, jnp.asarray(target)
    )
    paths = _traverse(
        method.generator,
        method.field,
        horizon,
        SEGMENTS,
        method.params,
        method.starts[:, : scores.starts],
        scale,
    )
    row: dict[str, Any] = {
        "method": method.name,
        "traversals": count,
        "length": float(paths.length.mean()),
        "shortest": float(paths.length.mean(1).min()),
    }
    if ranges is not None:
        row |= dominated(paths, ranges)
    if method.name == "re-encoded truth":
        return row
    pairs = _traverse(
        method.generator, method.field, horizon, 1, method.params, method.starts, scale
    ).samples
    images = pairs.reshape(-1, *pairs.shape[2:])
    labels = jnp.repeat(jnp.arange(count), pairs.shape[1])
    for fraction in scores.fractions:
        if not count <= round(fraction * len(labels)):
            continue
        score = jax.vmap(
            lambda key, fraction=fraction: vp_score(
                key, images[:, 0], images[:, 1], labels, train_fraction=fraction, classes=count
            )
        )(jax.random.split(key, scores.seeds))
        row[f"vp@{fraction:.0%}"] = float(score.accuracy.mean())
        row[f"vp@{fraction:.0%} sd"] = float(score.accuracy.std())
    return row


def dominated(paths: traversals.Traversal, ranges: Array) -> dict[str, Any]:
    """Which factor of sprites each traversal changes, from its first and last image."""
    first, last = paths.samples[:, :, 0], paths.samples[:, :, -1]
    over = lambda function: jax.vmap(jax.vmap(function))  # noqa: E731
    valid_first, valid_last = over(sprites.is_valid)(first), over(sprites.is_valid)(last)
    result = traversals.dominance(
        attributes(first), attributes(last), valid_first & valid_last, ranges
    )
    return {
        "share": float(result.share.mean()),
        "sign": float(result.sign_consistency.mean()),
        "valid": float(valid_last.mean()),
        "winners": [FACTORS[i] for i in result.winner.tolist()],
        "shares": result.share.tolist(),
        "signs": result.sign_consistency.tolist(),
        "changes": result.change.tolist(),
        "valid_each": valid_last.mean(1).tolist(),
    }


def attributes(images: Float[Array, "*n h w c"]) -> Float[Array, "*n f"]:
    """The measured attributes of sprites, in the order of `FACTORS`."""
    flat = images.reshape(-1, *images.shape[-3:])
    found = jax.vmap(sprites.moments)(flat)
    values = jnp.stack([getattr(found, name) for name in FACTORS], axis=-1)
    return values.reshape(*images.shape[:-3], len(FACTORS))


def attribute_ranges(dataset: Dataset, seed: int) -> Array:
    """Width of the central 98% of each attribute over the data."""
    chosen = np.random.default_rng(seed).permutation(dataset.length)[:2000]
    values = attributes(jnp.asarray(dataset.examples(chosen)["image"]))
    low, high = jnp.quantile(values, jnp.array([0.01, 0.99]), axis=0)
    return high - low


def potentials_alone(
    config: Config, subject: Subject, params: Params, key: Array
) -> dict[str, Any]:
    """What each potential does on its own terms: length, residual, steps of an adaptive solver."""
    net, horizon = network(config), float(config.flows.horizon)
    count = config.flows.count
    starts = starts_for(key, subject, count, config.scores.starts)
    paths = _traverse(
        subject.generator,
        partial(velocity, net),
        horizon,
        SEGMENTS,
        params["potentials"],
        starts,
        jnp.ones(count),
    )
    moved = jnp.linalg.norm(paths.zs[:, :, -1] - paths.zs[:, :, 0], axis=-1)
    rows: dict[str, Any] = {
        "length": paths.length.mean(1).tolist(),
        "displacement": moved.mean(1).tolist(),
        "solver steps": paths.num_steps.max(1).tolist(),
        "solved": float(paths.ok.mean()),
    }
    if EQUATIONS[config.flows.pde] is not None:
        fresh = initial(config, subject, key)
        ts = jnp.linspace(0.0, horizon, SEGMENTS + 1)
        for name, learnt in {"residual before": fresh, "residual": params}.items():
            rows[name] = relative_residuals(config, learnt, ts, paths.zs).tolist()
        rows["coefficient"] = jax.vmap(coefficient)(params["coefficients"]).tolist()
    return rows


@partial(jax.jit, static_argnums=0)
def relative_residuals(
    config: Config, params: Params, ts: Float[Array, "t"], paths: Float[Array, "k n t m"]
) -> Float[Array, "k"]:
    """Relative PDE residual of each potential at the points of its paths, time 0 left out."""
    net, equation = network(config), EQUATIONS[config.flows.pde]
    assert equation is not None

    def one(params: PyTree, raw: Array, zs: Array) -> Array:
        residual = equation(partial(net.apply, params), coefficient(raw))
        times = jnp.tile(ts[1:], len(zs))
        return pde.relative_residual(residual, times, zs[:, 1:].reshape(-1, zs.shape[-1]))

    return jax.vmap(one)(params["potentials"], params["coefficients"], paths)


def measure(
    folder: Folder, config: Config, subject: Subject, params: Params, dataset: Dataset
) -> dict[str, Any]:
    """Everything that is measured, each part remembered in the run folder as it is done."""
    settings = vae_config(config)
    ranges = attribute_ranges(dataset, config.seed) if dataset.name == "sprites" else None
    key = jax.random.fold_in(jax.random.key(config.seed), zlib.crc32(b"scores"))
    alone = folder.remember(
        "scores/potentials", lambda: potentials_alone(config, subject, params, key)
    )
    target = float(np.median(alone["length"]))
    rows = []
    for method in methods(config, subject, params, dataset, key):
        for name, length in {"long": target, "short": target * config.scores.short}.items():
            part = f"scores/{method.name.replace(' ', '_')}_{name}"
            row = folder.remember(
                part, partial(measure_method, config, method, length, ranges, key)
            )
            rows.append({"displacement": name, **row})
    test = train_vae.load(settings, "test")
    generator = folder.remember(
        "scores/generator",
        lambda: train_vae.measure(subject.vae, subject.params, test, settings),
    )
    summary = {"generator": generator, "potentials": alone, "comparison": rows}
    folder.write_json("metrics.json", summary)
    return summary


def show(summary: dict[str, Any]) -> None:
    """Print the summary as tables."""
    report.show("Generator, held out", [summary["generator"]])
    alone = summary["potentials"]
    lists = {name: values for name, values in alone.items() if isinstance(values, list)}
    count = len(alone["length"])
    own = next(
        row
        for row in summary["comparison"]
        if row["method"] == "potentials" and row["displacement"] == "long"
    )
    table = []
    for k in range(count):
        row: dict[str, Any] = {"potential": str(k)}
        if "winners" in own:
            row |= {"changes": own["winners"][k], "share": own["shares"][k]}
            row |= {"sign": own["signs"][k], "valid": own["valid_each"][k]}
        table.append({**row, **{name: values[k] for name, values in lists.items()}})
    report.show("Potentials", table)
    hidden = ("shares", "signs", "changes", "valid_each")
    for displacement in ("long", "short"):
        rows = [
            {name: value for name, value in row.items() if name not in (*hidden, "displacement")}
            for row in summary["comparison"]
            if row["displacement"] == displacement
        ]
        report.show(f"At equal data-space length, {displacement} displacement", rows)
