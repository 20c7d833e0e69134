"""Learn K potentials whose gradient flows are distinct, smooth traversals of a generator.

Song, Keller, Sebe and Welling, "Latent Traversals in Generative Models as Potential Flows",
ICML 2023: each potential obeys a PDE, and a classifier must name it from the sample before and
after a step. --generator names the generator: a run folder of train_vae, train_gan,
train_flow or import_weights, or a function of your own.
"""

import shlex
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree

from experiments.generators import spec
from experiments.potential_flows import families as flow_families
from experiments.potential_flows import scores as flow_scores
from experiments.potential_flows import traverse, ways
from experiments.potential_flows.config import PHASE, PRESETS, Config
from experiments.potential_flows.flags import Flows
from experiments.potential_flows.flow_space import (
    FlowSpace,
    check,
    check_generator,
    classifier,
    initial,
    load_space,
    pace,
    seen,
    training_data,
    vector_field,
)
from experiments.runtime import tables
from experiments.runtime.announcements import announced
from experiments.runtime.run_dir import Folder
from experiments.runtime.training import Batch, Params, fit, shuffled
from latent_flows import data, directions, flows, objectives, steering
from latent_flows._transforms import closure_convert, in_chunks
from latent_flows.geometry.metrics import pullback_metrics
from latent_flows.geometry.operators import frame_and_bend
from latent_flows.typing import Generator, Latent, Scalar

__all__ = ["PRESETS", "latents", "loss", "run", "train"]


def loss(
    config: Config, space: FlowSpace, params: Params, key: Array, step: Array, batch: Batch
) -> tuple[Scalar, dict[str, Scalar]]:
    """The weighted sum of the terms of one step, all K potentials at once."""
    del step
    settings, count = config.flows, config.flows.count
    # [share, K]: the leading axis, split over devices, stays the leading one.
    points = {name: leaf.reshape(-1, count, *leaf.shape[1:]) for name, leaf in batch.items()}
    field = vector_field(settings, space)

    def sample(key: Array, member: PyTree, raw: Scalar, known: Batch) -> objectives.FlowSample:
        return objectives.sample_flow(
            key,
            partial(field, member),
            known["start"],
            space.low,
            space.high,
            horizon=settings.horizon,
            equation=flow_families.equation(settings, member, raw),
            manifold=space.manifold,
            metric=known.get("metric"),
            avoid=known.get("avoid"),
            axes=(known["root"], known["bend"]) if "root" in known else None,
            solver=flows.solver(settings.solver),
            reverse=settings.reverse,
            at_rest=settings.initial != "free" or settings.family != "potential",
        )

    def classify(before: Array, after: Array) -> Array:
        logits: Any = classifier(settings, space.frozen).apply(
            params["classifier"], seen(settings, before, after, space.spread)
        )
        return logits

    members = flow_families.members(settings, params["potentials"])
    samples = jax.vmap(sample, in_axes=(0, 0, 0, 1))(
        jax.random.split(key, count), members, params["coefficients"], points
    )
    terms = objectives.potential_flow_terms(
        samples,
        space.generator,
        classify,
        pace=pace(settings, space.spread),
        crossing=settings.reach / settings.horizon or None,
        at_once=settings.at_once,
    )
    known = {name: value for name, value in terms._asdict().items() if value is not None}
    return objectives.weighted_sum(config.weights, terms), known


def loss_of(config: Config, space: FlowSpace, generator: Generator, *step: Any) -> Any:
    """`loss` with a generator in place of the space's, to be bound as an argument."""
    return loss(config, space._replace(generator=generator), *step)


def train(folder: Folder, config: Config, space: FlowSpace) -> Params:
    """Train, or go on training, the potentials of a run folder."""
    what = f"metric{' and steered fields' if config.flows.avoid else ''}"
    with announced(f"computing the generator's {what} at the bank's {config.flows.bank} latents"):
        dataset = latents(config, space)
    generator = closure_convert(space.generator, space.starts.shape[1])
    return fit(
        folder,
        PHASE,
        init=partial(initial, config.flows, space),
        loss=Partial(partial(loss_of, config, space), generator),
        batches=shuffled(dataset, config.training, config.seed),
        config=config.training,
        seed=config.seed,
        describe=f"{config.flows.count} {flow_families.describe(config.flows)}",
    )


def latents(config: Config, space: FlowSpace) -> data.Dataset:
    """Starting points, with the generator's metric at each if a bank of them is asked for.

    And with an orthonormal basis and the Laplacian of the coordinates, if equations hold on the
    generator's manifold; and with the velocities of the fields that flows shall avoid.
    """
    if not config.flows.bank:
        return data.from_arrays("latents", start=np.asarray(space.starts))
    bank = space.starts[: config.flows.bank]
    known = {"start": bank, "metric": pullback_metrics(space.generator, bank)}
    if space.manifold is not None:
        frame = frame_and_bend(space.manifold)
        known["root"], known["bend"] = jax.jit(partial(jax.lax.map, frame, batch_size=64))(bank)
    if config.flows.avoid:
        known["avoid"] = avoided(config.flows, space.generator, bank)
    arrays: dict[str, Any] = {name: np.asarray(array) for name, array in known.items()}
    return data.from_arrays("latents", **arrays)


def avoided(
    settings: Flows, generator: Generator, points: Float[Array, "n m"]
) -> Float[Array, "n a m"]:
    """What performs each transformation that flows shall avoid, at some points."""
    fields = [
        steering.transformation_field(generator, directions.transformation(name))
        for name in settings.avoid
    ]

    def velocities(z: Latent) -> Float[Array, "a m"]:
        return jnp.stack([field(jnp.zeros(()), z) for field in fields])

    found: Array = in_chunks(velocities, 16)(points)
    return found


def run(config: Config) -> int | None:
    """Train the potentials of a generator; measure, draw."""
    check(config)
    frozen = spec.load(config)
    dataset = training_data(config.flows, frozen)
    check_generator(config, frozen, dataset)
    folder = spec.open_study(config)
    measured = (folder.path / traverse.METRICS).exists()
    if traverse.is_drawn(folder, config) and (measured or not config.measure):
        if measured:
            with folder.understood(traverse.METRICS):
                flow_scores.show(folder.read_object(traverse.METRICS))
        return ended(config, folder)
    space = load_space(config.flows, config.seed, frozen, dataset, folder=folder)
    params = train(folder, config, space)
    params = ways.settled(folder, config.flows, space, params)
    summary: dict[str, Any] = {}
    if config.measure:
        summary = flow_scores.measure(folder, config, space, params, dataset)
    failed = traverse.draw(folder, config, space, params)
    if summary:
        flow_scores.show(summary)
    return ended(config, folder, failed)


def ended(config: Config, folder: Folder, failed: Sequence[str] = ()) -> int | None:
    """Print the pictures of a run, and how to go on with it."""
    code = tables.where(folder, failed)
    run = shlex.quote(config.run)
    page = shlex.quote(f"{folder.path.name}.html")
    print(f"explore it in a browser: python -m experiments.explore {run}")
    print(f"send it to someone:      python -m experiments.export {run} --page {page}")
    return code
