"""Measure what learnt flows do, beside directions that need no learning, at equal length."""

import itertools
import zlib
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from experiments.generators.bounds import measure as measure_generator
from experiments.generators.training_data import load_data
from experiments.potential_flows import families as flow_families
from experiments.potential_flows.config import FACTORS, Config
from experiments.potential_flows.subject import Subject, initial, vector_field
from experiments.runtime import tables
from experiments.runtime.announcements import announced
from experiments.runtime.progress import progress
from experiments.runtime.run_dir import Folder
from experiments.runtime.training import Params
from latent_flows import calculus, directions, pde
from latent_flows._transforms import in_chunks
from latent_flows.classifiers import shrink
from latent_flows.data import Dataset, sprites
from latent_flows.evaluation import traversals, vp_score
from latent_flows.generators import FrozenGenerator
from latent_flows.geometry.operators import Operator, laplace_beltrami
from latent_flows.traversals import constant
from latent_flows.typing import Field, Generator

SEGMENTS = 10
"""Steps in which the data-space length of a traversal is measured."""
PIECE = 64
"""Starting points that are followed at once."""
LARGE = 64
"""Pixels a side beyond which images are mean-pooled before they are compared."""
IWAE_SAMPLES = 64
"""Of the generator's importance-weighted bound."""
GANSPACE_AT = 1024
"""Latents whose images GANSpace looks at."""
ON_MANIFOLD = 8
"""Starting points from which paths are taken for equations on the generator's manifold."""
AXES = {"ica": "ICA axes", "visible": "most visible axes"}
CEILING = "re-encoded truth"


class Method(NamedTuple):
    """A family of traversals under one interface."""

    name: str
    generator: Generator
    field: Field
    params: PyTree
    """One entry a traversal, stacked."""
    starts: Float[Array, "k n m"]


def methods(
    config: Config, subject: Subject, params: Params, dataset: Dataset | None, key: Array
) -> list[Method]:
    """The learnt flows, and what they have to be compared with if that is asked for."""
    count, dim = config.flows.count, subject.starts.shape[1]
    start_key, random_key = jax.random.split(key)
    random = jax.random.normal(random_key, (count, dim))
    starts = starts_for(start_key, subject, count, max(config.scores.pairs, config.scores.starts))
    into_frame = jnp.linalg.pinv(subject.frame.basis).T
    # Only dimensions of the latent that the frame spans can be moved along.
    used = jnp.linalg.norm(into_frame, axis=1) > 1e-6
    axes = into_frame[used]
    # What is measured on a large image is as well seen on a small one, and many are kept.
    generator = subject.generator
    if max(subject.frozen.event_shape[:2]) > LARGE:
        generator = lambda z: shrink(subject.generator(z), LARGE)  # noqa: E731

    def straight(name: str, directions: Array) -> Method:
        return Method(name, generator, constant, directions, starts[: len(directions)])

    settings = config.flows
    members = flow_families.members(settings, params["potentials"])
    field = vector_field(config, subject)
    learnt = Method(flow_families.NAMES[settings.family], generator, field, members, starts)
    if not config.scores.others:
        return [learnt]
    found = [
        learnt,
        straight("random directions", random),
        straight("latent coordinates", axes[:count]),
    ]
    if config.scores.closed_form:
        found += [straight(name, rows) for name, rows in closed_form(subject, count).items()]
    if config.flows.frame != "identity":
        found.append(straight(AXES[config.flows.frame], jnp.eye(dim)[:count]))
    if dataset is not None and dataset.name == "sprites" and subject.frozen.encode is not None:
        found.append(reencoding(subject.frozen, config.scores.starts))
    return found


def closed_form(subject: Subject, count: int) -> dict[str, Float[Array, "k m"]]:
    """The directions of SeFa and GANSpace, in the frame's coordinates."""
    found = {}
    if (weight := subject.frozen.first_layer) is not None:
        stretched = directions.sefa(weight, min(count, *weight.shape))
        found["SeFa"] = stretched @ jnp.linalg.pinv(subject.frame.basis).T
    latents = subject.starts[:GANSPACE_AT]
    images = in_chunks(lambda z: shrink(subject.generator(z)))(latents)
    seen = images.reshape(len(images), -1)
    # No more components than samples or pixels have.
    most = min(count, len(latents) - 1, seen.shape[1])
    found["GANSpace"] = directions.ganspace(latents, seen, most)
    return found


def reencoding(frozen: FrozenGenerator, count: int) -> Method:
    """One true factor changed at a time, seen through the VAE: a ceiling for what flows can do.

    The "latent" is the vector of factors, the "generator" renders, encodes and decodes.
    """
    encode = frozen.encode
    assert encode is not None

    def seen(factors: Array) -> Array:
        image = sprites.render(sprites.Factors(*factors), size=frozen.event_shape[0])
        return frozen.decode(encode(image)[0])

    keys = jax.random.split(jax.random.key(0), count)
    drawn = jnp.stack(jax.vmap(sprites.random_factors)(keys), axis=1).astype(jnp.float32)
    order = sprites.Factors(*range(5))
    moved = jnp.array([order.x, order.y, order.scale])
    # Each starts near the low end of its range, so that the path stays inside.
    low, rate = jnp.array([0.0, 0.0, 0.5]), jnp.array([0.1, 0.1, 0.05])
    starts = jax.vmap(lambda i, low: drawn.at[:, i].set(low))(moved, low)
    return Method(CEILING, seen, constant, jnp.eye(5)[moved] * rate[:, None], starts)


def starts_for(key: Array, subject: Subject, count: int, number: int) -> Array:
    """`number` starting points for each of `count` traversals, drawn independently.

    Sharing them between traversals would let the VP classifier recognise the image.
    """
    chosen = jax.random.randint(key, (count, number), 0, len(subject.starts))
    return subject.starts[chosen]


@partial(jax.jit, static_argnums=(0, 1, 2))
def _traverse(
    generator: Generator,
    field: Field,
    horizon: float,
    params: PyTree,
    starts: Float[Array, "k n m"],
    scale: Float[Array, "k"],
) -> traversals.Traversal:
    """Traversals `[K, n, ...]` of every member of a family from its starting points."""
    ts = jnp.linspace(0.0, horizon, SEGMENTS + 1)

    def one(params: PyTree, scale: Array, z0: Array) -> traversals.Traversal:
        return traversals.traverse(generator, partial(field, params), z0, ts, scale=scale)

    def family(args: Any) -> traversals.Traversal:
        params, starts, scale = args
        return jax.vmap(partial(one, params, scale))(starts)

    return jax.lax.map(family, (params, starts, scale))


def follow(
    method: Method, horizon: float, scale: Float[Array, "k"], count: int
) -> traversals.Traversal:
    """The traversals of a family from its first `count` starting points.

    In pieces of one size, so that every measurement of a method is one compiled program; compiling
    an adaptive solver takes longer than running it.
    """
    starts = method.starts[:, :count]
    padded = jnp.pad(starts, ((0, 0), (0, -count % PIECE), (0, 0)), mode="wrap")
    pieces = [
        _traverse(method.generator, method.field, horizon, method.params, piece, scale)
        for piece in jnp.split(padded, padded.shape[1] // PIECE, axis=1)
    ]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1)[:, :count], *pieces)


def measure_method(
    config: Config, method: Method, target: float, ranges: Array | None, key: Array
) -> dict[str, Any]:
    """One row of the comparison at a given data-space length."""
    horizon, scores = float(config.flows.horizon), config.scores
    count = len(jax.tree.leaves(method.params)[0])
    few = min(PIECE, scores.starts)
    scale = traversals.equal_length_scale(
        lambda scale: follow(method, horizon, scale, few).length.mean(1), jnp.full(count, target)
    )
    judged = method.name != CEILING
    paths = follow(method, horizon, scale, max(scores.starts, scores.pairs * judged))
    measured = jax.tree.map(lambda leaf: leaf[:, : scores.starts], paths)
    row: dict[str, Any] = {
        "method": method.name,
        "traversals": count,
        "length": float(measured.length.mean()),
        "shortest": float(measured.length.mean(1).min()),
    }
    if ranges is not None:
        row |= dominated(measured, ranges)
    return row | (predictability(config, paths, key) if judged else {})


def predictability(config: Config, paths: traversals.Traversal, key: Array) -> dict[str, float]:
    """VP scores of the pairs of first and last images."""
    scores = config.scores
    count, pairs = len(paths.samples), scores.pairs
    ends = paths.samples[:, :pairs, jnp.array([0, -1])]
    before, after = jnp.moveaxis(ends.reshape(-1, *ends.shape[2:]), 1, 0)
    labels = jnp.repeat(jnp.arange(count), pairs)
    row = {}
    for fraction in scores.fractions:
        if round(fraction * len(labels)) < count:
            continue

        def score(key: Array, fraction: float = fraction) -> Any:
            return vp_score(
                key,
                before,
                after,
                labels,
                train_fraction=fraction,
                steps=scores.vp_steps,
                learning_rate=2e-3,
            )

        accuracy = jax.vmap(score)(jax.random.split(key, scores.seeds)).accuracy
        row[f"vp@{fraction:.0%}"] = float(accuracy.mean())
        row[f"vp@{fraction:.0%} sd"] = float(accuracy.std())
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
        "factors": len(set(result.winner.tolist())),
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
    config: Config, subject: Subject, params: Params, method: Method, key: Array
) -> dict[str, Any]:
    """What each potential does on its own terms: length, residual, steps of an adaptive solver."""
    horizon = float(config.flows.horizon)
    paths = follow(method, horizon, jnp.ones(config.flows.count), config.scores.starts)
    moved = jnp.linalg.norm(paths.zs[:, :, -1] - paths.zs[:, :, 0], axis=-1)
    rows: dict[str, Any] = {
        "length": paths.length.mean(1).tolist(),
        "displacement": moved.mean(1).tolist(),
        "solver steps": paths.num_steps.mean(1).tolist(),
        "most steps": paths.num_steps.max(1).tolist(),
        "solved": float(paths.ok.mean()),
    }
    if pde.EQUATIONS[config.flows.pde] and config.flows.family == "potential":
        residuals = jax.jit(partial(relative_residuals, config, subject))
        fresh = initial(config, subject, key)
        ts = jnp.linspace(0.0, horizon, SEGMENTS + 1)
        for name, learnt in {"residual before": fresh, "residual": params}.items():
            rows[name] = residuals(learnt, ts, paths.zs).tolist()
        rows["coefficient"] = jax.vmap(pde.coefficient)(params["coefficients"]).tolist()
    return rows


def relative_residuals(
    config: Config,
    subject: Subject,
    params: Params,
    ts: Float[Array, "t"],
    paths: Float[Array, "k n t m"],
) -> Float[Array, "k"]:
    """Relative PDE residual of each potential at the points of its paths, time 0 left out.

    With a Laplacian, also of potentials that were trained on the row sums in its place.
    """
    laplacian: Operator = calculus.laplacian
    if subject.manifold is not None:
        laplacian, paths = laplace_beltrami(subject.manifold), paths[:, :ON_MANIFOLD]

    def one(args: Any) -> Array:
        params, raw, zs = args
        equation = flow_families.equation(config.flows, params, raw)
        assert equation is not None
        times, points = jnp.tile(ts[1:], len(zs)), zs[:, 1:].reshape(-1, zs.shape[-1])
        return pde.relative_residual(equation(laplacian=laplacian), times, points)

    # One after the other: the metric of a generator takes much memory.
    return jax.lax.map(one, (params["potentials"], params["coefficients"], paths))


def measure(
    folder: Folder, config: Config, subject: Subject, params: Params, dataset: Dataset | None
) -> dict[str, Any]:
    """Everything that is measured, each part remembered in the run folder as it is done.

    Factors are measured where the generator draws sprites, and bounds where it has an encoder.
    """
    ranges = None
    if dataset is not None and dataset.name == "sprites":
        with announced("measuring the factors of images"):
            ranges = attribute_ranges(dataset, config.seed)
    key = jax.random.fold_in(jax.random.key(config.seed), zlib.crc32(b"scores"))
    with announced("preparing the directions to compare with"):
        families = methods(config, subject, params, dataset, key)
    alone = folder.remember(
        "scores/potentials", lambda: potentials_alone(config, subject, params, families[0], key)
    )
    with folder.understood("scores/potentials"):
        target = config.scores.length or float(np.median(alone["length"]))
    lengths = {"long": target, "short": target * config.scores.short}
    rows: list[dict[str, Any]] = []
    with progress("scores", 0, len(families) * len(lengths)) as told:
        for method, (name, length) in itertools.product(families, lengths.items()):
            told(len(rows), f"{method.name}, {name}")
            part = f"scores/{method.name.replace(' ', '_')}_{name}"
            row = folder.remember(
                part, partial(measure_method, config, method, length, ranges, key)
            )
            with folder.understood(part):
                rows.append({"displacement": name, **row})
        told(len(rows), "done")
    summary = {"potentials": alone, "comparison": rows}
    if subject.frozen.log_likelihood is not None and config.scores.others:
        generator = folder.remember("scores/generator", partial(bounds, config, subject.frozen))
        summary = {"generator": generator, **summary}
    folder.write_json("metrics.json", summary)
    return summary


def bounds(config: Config, frozen: FrozenGenerator) -> dict[str, float]:
    """Likelihood bounds of the generator on held-out images; its noise is not looked at here."""
    return measure_generator(
        replace(frozen, noise_std={}),
        load_data(frozen, "test"),
        count=config.scores.test_images,
        samples=IWAE_SAMPLES,
        noise=0.0,
        seed=config.seed,
    )


def show(summary: dict[str, Any]) -> None:
    """Print the summary as tables."""
    if "generator" in summary:
        tables.show("Generator, held out", [summary["generator"]])
    alone = summary["potentials"]
    lists = {name: values for name, values in alone.items() if isinstance(values, list)}
    count = len(alone["length"])
    own = next(
        row
        for row in summary["comparison"]
        if row["method"] in flow_families.NAMES.values() and row["displacement"] == "long"
    )
    table = []
    for k in range(count):
        row: dict[str, Any] = {"k": str(k)}
        if "winners" in own:
            row |= {"changes": own["winners"][k], "share": own["shares"][k]}
            row |= {"sign": own["signs"][k], "valid": own["valid_each"][k]}
        table.append({**row, **{name: values[k] for name, values in lists.items()}})
    tables.show(own["method"].capitalize() if own["method"].islower() else own["method"], table)
    hidden = ("shares", "signs", "changes", "valid_each")
    for displacement in ("long", "short"):
        rows = [
            {name: value for name, value in row.items() if name not in (*hidden, "displacement")}
            for row in summary["comparison"]
            if row["displacement"] == displacement
        ]
        tables.show(f"At equal data-space length, {displacement} displacement", rows)
