"""Measure what learnt flows do, beside directions that need no learning, at equal length."""

import itertools
import zlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.generators.bounds import measure as measure_generator
from experiments.generators.straightness import straightness, turning
from experiments.generators.training_data import load_data
from experiments.potential_flows import families as flow_families
from experiments.potential_flows import local_basis, steered, taught
from experiments.potential_flows.config import Config
from experiments.potential_flows.flow_space import (
    FlowSpace,
    initial,
    is_image,
    measured_factors,
    vector_field,
)
from experiments.runtime import tables
from experiments.runtime.announcements import announced
from experiments.runtime.progress import progress
from experiments.runtime.run_dir import Folder
from experiments.runtime.training import Params
from latent_flows import calculus, data, directions, pde
from latent_flows._transforms import in_chunks
from latent_flows.classifiers import shrink
from latent_flows.data import Dataset
from latent_flows.data.drawn import Drawn
from latent_flows.data.image_factors import Measures
from latent_flows.evaluation.comparison import (
    SEGMENTS,
    Family,
    compare_at_length,
    dominated_factors,
    factor_ranges,
    follow_family,
    mean_of_ended,
)
from latent_flows.generators import FrozenGenerator
from latent_flows.geometry.operators import Operator, laplace_beltrami
from latent_flows.traversals import constant
from latent_flows.typing import Generator

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
UNNAMED = {CEILING, steered.NAME, *taught.NAMES.values()}
"""Whose traversals are as many as there are factors: telling them apart is another task."""
SURVEYED = 2000
"""Images whose factors say what their ranges are."""


def methods(
    folder: Folder,
    config: Config,
    space: FlowSpace,
    params: Params,
    dataset: Dataset | None,
    key: Array,
    factors: Mapping[str, Any],
) -> list[Family]:
    """The learnt flows, and what they have to be compared with if that is asked for."""
    count, dim = config.flows.count, space.starts.shape[1]
    start_key, random_key = jax.random.split(key)
    random = jax.random.normal(random_key, (count, dim))
    starts = starts_for(start_key, space, count, max(config.scores.pairs, config.scores.starts))
    into_frame = jnp.linalg.pinv(space.frame.basis).T
    # Only dimensions of the latent that the frame spans can be moved along.
    used = jnp.linalg.norm(into_frame, axis=1) > 1e-6
    axes = into_frame[used]
    # What is measured on a large image is as well seen on a small one, and many are kept.
    generator = space.generator
    if is_image(space.frozen) and max(space.frozen.event_shape[:2]) > LARGE:
        generator = lambda z: shrink(space.generator(z), LARGE)  # noqa: E731

    def straight(name: str, directions: Array) -> Family:
        return Family(name, generator, constant, directions, starts[: len(directions)])

    settings = config.flows
    members = flow_families.members(settings, params["potentials"])
    field = vector_field(config.flows, space)
    learnt = Family(flow_families.NAMES[settings.family], generator, field, members, starts)
    exact: list[Family] = []
    if factors:
        bank = space.starts[: taught.BANK]
        exact = steered_and_taught(folder, config, generator, starts, bank, **factors)
    if not config.scores.others:
        return [learnt, *exact]
    found = [
        learnt,
        straight("random directions", random),
        straight("latent coordinates", axes[:count]),
    ]
    if config.scores.closed_form:
        found += [straight(name, rows) for name, rows in closed_form(space, count).items()]
    if config.flows.frame != "identity":
        found.append(straight(AXES[config.flows.frame], jnp.eye(dim)[:count]))
    if config.scores.local_basis:
        found.append(local_basis.family(generator, starts))
    drawn = None if dataset is None else data.DRAWN.get(dataset.name)
    found += exact
    if drawn is not None and space.frozen.encode is not None:
        found.append(reencoding(space.frozen, drawn, config.scores.starts))
    return found


def steered_and_taught(
    folder: Folder,
    config: Config,
    generator: Generator,
    starts: Float[Array, "k n m"],
    bank: Float[Array, "b m"],
    measures: Measures,
    ranges: Float[Array, "f"],
) -> list[Family]:
    """Steered fields and what was taught them, as far as these are asked for."""
    scores, horizon = config.scores, float(config.flows.horizon)
    if not (scores.steered or scores.taught):
        return []
    fields = steered.exact(generator, measures, ranges, horizon, len(starts))
    if not fields.factors:
        return []
    found = [steered.family(fields, generator, measures, starts)] if scores.steered else []
    if scores.taught:
        subject = taught.Subject(generator, fields, measures)
        found += taught.families(folder, scores.taught, subject, starts, bank, config.seed)
    return found


def closed_form(space: FlowSpace, count: int) -> dict[str, Float[Array, "k m"]]:
    """The directions of SeFa and GANSpace, in the frame's coordinates."""
    found = {}
    if (weight := space.frozen.first_layer) is not None:
        stretched = directions.sefa(weight, min(count, *weight.shape))
        found["SeFa"] = stretched @ jnp.linalg.pinv(space.frame.basis).T
    latents = space.starts[:GANSPACE_AT]
    small = shrink if is_image(space.frozen) else jnp.ravel
    samples = in_chunks(lambda z: small(space.generator(z)))(latents)
    seen = samples.reshape(len(samples), -1)
    # No more components than samples or pixels have.
    most = min(count, len(latents) - 1, seen.shape[1])
    found["GANSpace"] = directions.ganspace(latents, seen, most)
    return found


def reencoding(frozen: FrozenGenerator, drawn: Drawn, count: int) -> Family:
    """One true factor changed at a time, seen through the VAE: a ceiling for what flows can do.

    The "latent" is the vector of factors, the "generator" renders, encodes and decodes.
    """
    encode = frozen.encode
    assert encode is not None

    def seen(factors: Array) -> Array:
        image = drawn.render(drawn.factors(*factors), size=frozen.event_shape[0])
        return frozen.decode(encode(image)[0])

    keys = jax.random.split(jax.random.key(0), count)
    found = jnp.stack(jax.vmap(drawn.random_factors)(keys), axis=1).astype(jnp.float32)
    moved = jnp.array([drawn.names.index(name) for name in drawn.shown])
    spans = [drawn.spans[index] for index in moved]
    # Each starts at the low end of its range, so that the path stays inside.
    low = jnp.array([span.low for span in spans])
    rate = jnp.array([(span.high - span.low) / 10 for span in spans])
    starts = jax.vmap(lambda i, low: found.at[:, i].set(low))(moved, low)
    steps = jnp.eye(len(drawn.names))[moved] * rate[:, None]
    return Family(CEILING, seen, constant, steps, starts)


def starts_for(key: Array, space: FlowSpace, count: int, number: int) -> Array:
    """`number` starting points for each of `count` traversals, drawn independently.

    Sharing them between traversals would let the VP classifier recognise the image.
    """
    chosen = jax.random.randint(key, (count, number), 0, len(space.starts))
    return space.starts[chosen]


def measure_method(
    config: Config, method: Family, target: float, factors: Mapping[str, Any], key: Array
) -> dict[str, Any]:
    """One row of the comparison at a given data-space length."""
    scores = config.scores
    return compare_at_length(
        key,
        method,
        target,
        float(config.flows.horizon),
        starts=scores.starts,
        pairs=0 if method.name in UNNAMED else scores.pairs,
        fractions=scores.fractions,
        steps=scores.vp_steps,
        seeds=scores.seeds,
        **factors,
    )


def potentials_alone(
    config: Config,
    space: FlowSpace,
    params: Params,
    method: Family,
    factors: Mapping[str, Any],
    key: Array,
) -> dict[str, Any]:
    """What each potential does on its own terms: over its own length, as it is drawn.

    Which factor it changes where factors are measured, residual, steps of an adaptive solver.
    """
    horizon = float(config.flows.horizon)
    paths = follow_family(method, horizon, jnp.ones(config.flows.count), config.scores.starts)
    moved = jnp.linalg.norm(paths.zs[:, :, -1] - paths.zs[:, :, 0], axis=-1)
    rows: dict[str, Any] = {}
    if factors:
        whole = dominated_factors(paths, **factors)
        rows = {"changes": whole["winners"], "share": whole["shares"], "sign": whole["signs"]}
        rows["valid"] = whole["valid_each"]
    rows |= {
        "length": mean_of_ended(paths.length, paths.ok).tolist(),
        "displacement": mean_of_ended(moved, paths.ok).tolist(),
        "solver steps": paths.num_steps.mean(1).tolist(),
        "most steps": paths.num_steps.max(1).tolist(),
        "solved": float(paths.ok.mean()),
    }
    if pde.EQUATIONS[config.flows.pde] and config.flows.family == "potential":
        residuals = jax.jit(partial(relative_residuals, config, space))
        # In one program, which leaves the classifier out: nothing here depends on it.
        fresh = jax.jit(lambda key: _equations(initial(config.flows, space, key)))(key)
        ts = jnp.linspace(0.0, horizon, SEGMENTS + 1)
        for name, learnt in {"residual before": fresh, "residual": _equations(params)}.items():
            rows[name] = residuals(learnt, ts, paths.zs).tolist()
        rows["coefficient"] = jax.vmap(pde.coefficient)(params["coefficients"]).tolist()
    return rows


def _equations(params: Params) -> Params:
    """What equations are made of."""
    return {name: params[name] for name in ("potentials", "coefficients")}


def relative_residuals(
    config: Config,
    space: FlowSpace,
    params: Params,
    ts: Float[Array, "t"],
    paths: Float[Array, "k n t m"],
) -> Float[Array, "k"]:
    """Relative PDE residual of each potential at the points of its paths, time 0 left out.

    With a Laplacian, also of potentials that were trained on the row sums in its place.
    """
    laplacian: Operator = calculus.laplacian
    if space.manifold is not None:
        laplacian, paths = laplace_beltrami(space.manifold), paths[:, :ON_MANIFOLD]

    def one(args: Any) -> Array:
        params, raw, zs = args
        equation = flow_families.equation(config.flows, params, raw)
        assert equation is not None
        times, points = jnp.tile(ts[1:], len(zs)), zs[:, 1:].reshape(-1, zs.shape[-1])
        return pde.relative_residual(equation(laplacian=laplacian), times, points)

    # One after the other: the metric of a generator takes much memory.
    return jax.lax.map(one, (params["potentials"], params["coefficients"], paths))


def measure(
    folder: Folder, config: Config, space: FlowSpace, params: Params, dataset: Dataset | None
) -> dict[str, Any]:
    """Everything that is measured, each part remembered in the run folder as it is done.

    Factors are measured where those of the data are known or some are asked for, and bounds where
    it has an encoder.
    """
    factors: dict[str, Any] = {}
    if (known := measured_factors(config.scores.factors, space.frozen)) is not None:
        with announced("measuring the factors of images"):
            images = surveyed(config, space, dataset)
            factors = {"measures": known, "ranges": factor_ranges(known, images)}
    key = jax.random.fold_in(jax.random.key(config.seed), zlib.crc32(b"scores"))
    with announced("preparing the directions to compare with"):
        families = methods(folder, config, space, params, dataset, key, factors)
    alone = folder.remember(
        "scores/potentials",
        lambda: potentials_alone(config, space, params, families[0], factors, key),
    )
    with folder.understood("scores/potentials"):
        usual = np.min if config.flows.reach else np.median
        target = config.scores.length or float(usual(alone["length"]))
    lengths = {"long": target}
    if config.scores.short:
        lengths["short"] = target * config.scores.short
    rows: list[dict[str, Any]] = []
    with progress("scores", 0, len(families) * len(lengths)) as told:
        for method, (name, length) in itertools.product(families, lengths.items()):
            told(len(rows), f"{method.name}, {name}")
            part = f"scores/{method.name.replace(' ', '_')}_{name}"
            row = folder.remember(
                part, partial(measure_method, config, method, length, factors, key)
            )
            with folder.understood(part):
                rows.append({"displacement": name, **row})
        told(len(rows), "done")
    summary: dict[str, Any] = {"potentials": alone, "comparison": rows}
    if factors and config.scores.others:
        straight = partial(
            straightness, space.generator, space.starts[:SURVEYED], factors["measures"]
        )
        summary["straightness"] = folder.remember("scores/straightness", straight)
        turns = partial(turning, space.generator, space.starts[: config.scores.starts], key)
        summary["turning"] = folder.remember("scores/turning", turns)
    has_bounds = space.frozen.log_likelihood is not None
    if has_bounds and config.scores.others and config.scores.test_images:
        generator = folder.remember("scores/generator", partial(bounds, config, space.frozen))
        summary = {"generator": generator, **summary}
    folder.write_json("metrics.json", summary)
    return summary


def surveyed(config: Config, space: FlowSpace, dataset: Dataset | None) -> Array:
    """Images whose factors say what their ranges are.

    Of data that come with factors, which may go farther than the generator; else what it makes.
    """
    if dataset is not None and data.measures(dataset.name).true_factors:
        chosen = np.random.default_rng(config.seed).permutation(dataset.length)[:SURVEYED]
        return jnp.asarray(dataset.examples(chosen)["image"])
    return in_chunks(space.generator)(space.starts[:SURVEYED])


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


def tabulated(summary: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The summary as rows of tables, by their titles."""
    found: dict[str, list[dict[str, Any]]] = {}
    if "generator" in summary:
        found["Generator, held out"] = [summary["generator"]]
    if summary.get("straightness"):
        found["Linear R2 of the factors in the latent (1: straight)"] = [summary["straightness"]]
    if "turning" in summary:
        found["Radians that straight lines turn from geodesics in a unit step"] = [
            summary["turning"]
        ]
    alone = summary["potentials"]
    lists = {name: values for name, values in alone.items() if isinstance(values, list)}
    count = len(alone["length"])
    own = next(
        row
        for row in summary["comparison"]
        if row["method"] in flow_families.NAMES.values() and row["displacement"] == "long"
    )
    name = own["method"].capitalize() if own["method"].islower() else own["method"]
    found[f"{name}, each over its own length"] = [
        {"k": str(k), **{name: values[k] for name, values in lists.items()}} for k in range(count)
    ]
    hidden = ("shares", "signs", "changes", "valid_each")
    for displacement in dict.fromkeys(row["displacement"] for row in summary["comparison"]):
        found[f"At equal data-space length, {displacement} displacement"] = [
            {name: value for name, value in row.items() if name not in (*hidden, "displacement")}
            for row in summary["comparison"]
            if row["displacement"] == displacement
        ]
    return found


def show(summary: dict[str, Any]) -> None:
    """Print the summary as tables."""
    for title, rows in tabulated(summary).items():
        tables.show(title, rows)
