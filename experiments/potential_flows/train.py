"""Learn K potentials whose gradient flows are distinct, smooth traversals of a generator.

Song, Keller, Sebe and Welling, "Latent Traversals in Generative Models as Potential Flows",
ICML 2023: each potential obeys a PDE, and a classifier must name it from the image before and
after a step. Of a VAE, trained first unless --generator names a finished one, or of any other
generator: a GAN trained or imported here, or a function of your own (--generator.path).
"""

from dataclasses import replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, PyTree

from experiments.generators import train_vae, vae_runs
from experiments.generators.load import resolved
from experiments.generators.spec import Source, Usual
from experiments.generators.train_vae import with_vae
from experiments.potential_flows import families as flow_families
from experiments.potential_flows import scores as flow_scores
from experiments.potential_flows import traverse
from experiments.potential_flows.config import (
    PHASE,
    Config,
    Flows,
    Scores,
    Subject,
    Weights,
    check,
    check_data,
    check_images,
    check_memory,
    classifier,
    initial,
    load_subject,
    pullback_metrics,
    seen,
    supplied,
    supplied_subject,
    vector_field,
)
from experiments.runtime import tables
from experiments.runtime.announcements import announced
from experiments.runtime.run_dir import Folder, open_folder
from experiments.runtime.training import Batch, Params, Training, fit, shuffled
from latent_flows import calculus, data, flows, objectives, pde
from latent_flows._transforms import closure_convert, vmap_chunked
from latent_flows.geometry.operators import frame_and_bend, operator_in
from latent_flows.typing import Generator, Scalar

ALIGNED = Weights(
    residual=3.0,
    stillness=0.0,
    pace=1.0,
    outside=2.0,
    sparsity=1.0,
    overlap=8.0,
    inconsistency=1.0,
)
PUBLISHED = Weights()

LAPLACIANS = {"euclidean": calculus.laplacian, "row-sum": calculus.row_sums}

DEMO = with_vae(
    Config(
        run="runs/demo",
        flows=Flows(count=4, pace=0.9),
        weights=ALIGNED,
        training=Training(steps=1400, batch_size=60, learning_rate=3e-3, decay="cosine"),
        scores=Scores(starts=128, pairs=256, test_images=256, vp_steps=100),
    ),
    train_vae.SPRITES,
)
DIGITS = with_vae(
    replace(
        DEMO,
        run="runs/digits",
        flows=Flows(count=6, codes=1024, bank=512, pace=0.2),
        training=Training(steps=1500, batch_size=60, learning_rate=3e-3, decay="cosine"),
        scores=Scores(pairs=256),
    ),
    train_vae.DIGITS,
)
MNIST = with_vae(
    replace(
        DEMO,
        run="runs/mnist",
        flows=Flows(count=10, codes=8192, bank=2048, pace=0.6),
        training=Training(steps=6000, batch_size=100, learning_rate=2e-3, decay="cosine"),
    ),
    train_vae.MNIST,
)
MNIST_PAPER = with_vae(
    Config(
        run="runs/mnist-paper",
        flows=Flows(count=16, frame="identity", initial="free", starts="prior", bank=0, width=324),
        training=Training(steps=100_000, batch_size=128, learning_rate=1e-4),
    ),
    train_vae.MNIST_PAPER,
)

GAN = Config(
    run="runs/flows-gan",
    generator=Usual("runs/gan"),
    flows=Flows(count=8, pace=1.0, frame="visible", starts="prior", codes=4096, bank=1024),
    weights=replace(ALIGNED, overlap=4.0),
    training=Training(steps=1500, batch_size=64, learning_rate=3e-3, decay="cosine"),
    scores=Scores(starts=128, pairs=256, vp_steps=100, closed_form=True),
)


def published(
    name: str,
    latent_dim: int,
    classifier: Literal["lenet", "resnet18"],
    batch_size: int,
    **flags: Any,
) -> tuple[str, Config]:
    """The published setting for a GAN, as a preset: 32 potentials, 20 steps, truncated latents."""
    config = Config(
        run=f"runs/flows-{name}",
        generator=Usual(f"runs/{name}"),
        source=Source(**flags),
        flows=Flows(
            count=32,
            horizon=20,
            initial="free",
            width=latent_dim,
            frame="identity",
            starts="prior",
            bank=0,
            classifier=classifier,
        ),
        weights=PUBLISHED,
        training=Training(steps=120_000, batch_size=batch_size, learning_rate=1e-4),
        scores=Scores(pairs=256, closed_form=True),
    )
    return f"the published size on imported weights of {name}; for a GPU", config


PRESETS = {
    "demo": ("sprites: aligned flows of a beta-TC-VAE, in minutes on a CPU", DEMO),
    "published": (
        "sprites: the demo's generator with the published loss only",
        replace(
            DEMO,
            run="runs/published",
            flows=Flows(count=4, pace=0.9, frame="identity", initial="free"),
            weights=PUBLISHED,
        ),
    ),
    "digits": ("scikit-learn's digits, in minutes on a CPU", DIGITS),
    "mnist": ("MNIST through TFDS, within an hour on 2 CPU cores", MNIST),
    "mnist-paper": (
        "the published size, latent 324 and K = 16; for a GPU",
        MNIST_PAPER,
    ),
    "gan": ("the generator of a run of train_gan, in minutes on a CPU", GAN),
    "sngan-mnist": published("sngan-mnist", 128, "lenet", 128),
    "sngan-animefaces": published("sngan-animefaces", 128, "lenet", 128),
    "biggan-128": published("biggan-128", 120, "resnet18", 32),
    "biggan-256": published("biggan-256", 140, "resnet18", 32),
    "proggan-1024": published("proggan-1024", 512, "resnet18", 32),
    "stylegan2-256": published("stylegan2-256", 512, "resnet18", 32, space="w"),
    "stylegan2-1024": published("stylegan2-1024", 512, "resnet18", 32, space="w"),
}


def loss(
    config: Config, subject: Subject, params: Params, key: Array, step: Array, batch: Batch
) -> tuple[Scalar, dict[str, Scalar]]:
    """The weighted sum of the terms of one step, all K potentials at once."""
    del step
    count, weights = config.flows.count, config.weights
    # [share, K]: the leading axis, split over devices, stays the leading one.
    points = {name: leaf.reshape(-1, count, *leaf.shape[1:]) for name, leaf in batch.items()}
    keys = jax.random.split(key, count)
    members = flow_families.members(config.flows, params["potentials"])
    found = jax.vmap(partial(along, config, subject), in_axes=(0, 0, 0, 1))(
        members, params["coefficients"], keys, points
    )
    banked = "metric" in batch
    before, after, squared_speed = image_pairs(
        subject.generator, found, config.flows.at_once, push=not banked
    )
    if not banked:
        found["squared_speed"] = squared_speed
    features = seen(config, before, after)
    logits: Any = classifier(config).apply(params["classifier"], features)
    labels = jnp.broadcast_to(jnp.arange(count)[:, None], logits.shape[:2])
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    terms = {
        "classification": jnp.mean(entropy) / jnp.log(count),
        "residual": jnp.mean(found["residual"]),
        "initial": jnp.mean(found["initial"]),
        "stillness": objectives.variation_loss(found["squared_speed"], config.flows.pace),
        "pace": objectives.speed_loss(found["squared_speed"], config.flows.pace),
        "outside": jnp.mean(found["outside"]),
    }
    if banked:
        terms |= {
            "sparsity": objectives.sparsity(found["contributions"]),
            "overlap": objectives.overlap(found["contributions"]),
            "inconsistency": objectives.direction_consistency(found["contributions"]),
        }
    total = sum(getattr(weights, name) * value for name, value in terms.items())
    accuracy = jnp.mean(jnp.argmax(logits, -1) == labels)
    return total, {**terms, "accuracy": accuracy}


def image_pairs(
    generator: Generator, found: dict[str, Array], at_once: int, *, push: bool
) -> tuple[Array, Array, Array]:
    """Images before and after, and with `push` the squared speeds of those after.

    With `at_once` the generator makes no more pairs than that at a time, and keeps nothing of them
    for the way back but the images.
    """

    def pair(before: Array, after: Array, moving: Array) -> tuple[Array, Array, Array]:
        if not push:
            return generator(before), generator(after), jnp.zeros(())
        image, change = jax.jvp(generator, (after,), (moving,))
        return generator(before), image, jnp.sum(change**2)

    points = [found[name] for name in ("before", "after", "moving")]
    count, share, dim = points[0].shape
    flat = [leaf.reshape(-1, dim) for leaf in points]
    batched = vmap_chunked(jax.checkpoint(pair), at_once) if at_once else jax.vmap(pair)
    return jax.tree.map(lambda leaf: leaf.reshape(count, share, *leaf.shape[1:]), batched(*flat))


def along(
    config: Config,
    subject: Subject,
    params: PyTree,
    raw: Scalar,
    key: Array,
    known: Batch,
) -> dict[str, Array]:
    """What one member of the family does from each of its starting points.

    Args:
        config: the run's.
        subject: what moves.
        params: of the member.
        raw: what the coefficient of its equation is made of.
        key: a random key.
        known: the starting points and what is known there, see `latents`.
    """
    starts, metric = known["start"], known.get("metric")
    horizon = config.flows.horizon
    field = partial(vector_field(config, subject), params)
    sign_key, step_key, time_key = jax.random.split(key, 3)
    count = len(starts)
    signs = jax.random.rademacher(sign_key, (count,), starts.dtype)
    if not config.flows.reverse:
        signs = jnp.ones_like(signs)
    ts = jnp.arange(horizon + 1.0)

    def path(z: Array, sign: Array) -> Array:
        signed = flows.combine([field], sign[None])
        return flows.integrate(signed, z, ts, solver=flows.solver(config.flows.solver)).zs

    paths = jax.vmap(path)(starts, signs)
    outside = partial(objectives.outside, low=subject.low, high=subject.high)
    rows, chosen = jnp.arange(count), jax.random.randint(step_key, (count,), 0, horizon)
    before, after = paths[rows, chosen], paths[rows, chosen + 1]
    result = {
        "before": before,
        "after": after,
        "outside": jax.vmap(jax.vmap(outside))(paths),
        "initial": jnp.zeros(()),
        "residual": jnp.zeros(()),
    }
    if metric is None:
        times, points = ts[chosen + 1], after
        moving = jax.vmap(field)(times, points)
    else:
        # Where the metric is known, at any time: paths stay among these points.
        times, points = jax.random.uniform(time_key, (count,), maxval=horizon), starts
        moving = jax.vmap(field)(times, points)
        result["squared_speed"] = jnp.einsum("ni,nij,nj->n", moving, metric, moving)
        result["contributions"] = jax.vmap(objectives.unit_contributions)(moving, metric)
    result["moving"] = moving
    if config.flows.initial == "free" and config.flows.family == "potential":
        result["initial"] = objectives.relative_start(
            jax.vmap(partial(field, jnp.zeros(())))(starts), moving
        )
    if subject.manifold is None:
        at = jnp.tile(ts[1:], count), paths[:, 1:].reshape(-1, starts.shape[-1])
        residual = flow_families.residual(
            config.flows, params, raw, LAPLACIANS[config.flows.laplacian]
        )
        if residual is not None:
            result["residual"] = pde.relative_residual(residual, *at)
    else:
        result["residual"] = on_manifold(config, subject, params, raw, times, points, known)
    return result


def on_manifold(
    config: Config,
    subject: Subject,
    params: PyTree,
    raw: Scalar,
    times: Array,
    points: Array,
    known: Batch,
) -> Scalar:
    """The relative residual of the equation on the generator's manifold.

    Its Laplacian needs the metric's derivatives, so it is taken at one point of each path: a
    starting point at a random time, where a bank knows them, or else the point that is seen.
    """
    assert subject.manifold is not None
    if "root" in known:
        frames = known["root"], known["bend"]
    else:
        frames = jax.vmap(frame_and_bend(subject.manifold))(points)

    def terms(t: Scalar, place: tuple[Array, Array, Array]) -> tuple[Scalar, ...]:
        z, root, bend = place
        laplacian = operator_in(lambda _: (root, bend))
        residual = flow_families.residual(config.flows, params, raw, laplacian)
        assert residual is not None
        return residual.terms(t, z)

    return pde.relative_size(jax.vmap(terms)(times, (points, *frames)))


def loss_of(config: Config, subject: Subject, generator: Generator, *step: Any) -> Any:
    """`loss` with a generator in place of the subject's, to be bound as an argument."""
    return loss(config, subject._replace(generator=generator), *step)


def train(folder: Folder, config: Config, subject: Subject) -> Params:
    """Train, or go on training, the potentials of a run folder."""
    with announced(f"computing the generator's metric at the bank's {config.flows.bank} latents"):
        dataset = latents(config, subject)
    generator = closure_convert(subject.generator, subject.starts.shape[1])
    return fit(
        folder,
        PHASE,
        init=partial(initial, config, subject),
        loss=Partial(partial(loss_of, config, subject), generator),
        batches=shuffled(dataset, config.training, config.seed),
        config=config.training,
        seed=config.seed,
        describe=f"{config.flows.count} {flow_families.describe(config.flows)}",
    )


def latents(config: Config, subject: Subject) -> data.Dataset:
    """Starting points, with the generator's metric at each if a bank of them is asked for.

    And with an orthonormal basis and the Laplacian of the coordinates, if equations hold on the
    generator's manifold.
    """
    if not config.flows.bank:
        return data.from_arrays("latents", start=np.asarray(subject.starts))
    bank = subject.starts[: config.flows.bank]
    known = {"start": bank, "metric": pullback_metrics(subject.generator, bank)}
    if subject.manifold is not None:
        frame = frame_and_bend(subject.manifold)
        known["root"], known["bend"] = jax.jit(partial(jax.lax.map, frame, batch_size=64))(bank)
    arrays: dict[str, Any] = {name: np.asarray(array) for name, array in known.items()}
    return data.from_arrays("latents", **arrays)


def run(config: Config) -> int | None:
    """Train the generator, unless there is one, and the potentials; measure, draw."""
    check(config)
    config = resolved(config)
    found = supplied(config)
    dataset: data.Dataset | None = None
    if found is None:
        _, settings = vae_runs.source(config)
        dataset = train_vae.load(settings, "train")
        train_vae.check(settings, dataset)
        check_images(config, dataset.image_shape)
        check_data(config, dataset, settings.vae.latent_dim)
        vae_runs.check(config, dataset)
    else:
        check_images(config, found.image_shape)
    check_memory(config, settings.vae.latent_dim if found is None else found.latent_dim)
    folder = open_folder(config.run, config)
    measured = (folder.path / traverse.METRICS).exists()
    if traverse.is_drawn(folder, config) and (measured or not config.measure):
        if measured:
            with folder.understood(traverse.METRICS):
                flow_scores.show(folder.read_object(traverse.METRICS))
        return tables.where(folder)
    if found is None:
        assert dataset is not None
        subject = load_subject(config, dataset, *vae_runs.load_vae(folder, config, dataset))
    else:
        subject = supplied_subject(config, found)
        dataset = found.data
    params = train(folder, config, subject)
    summary: dict[str, Any] = {}
    if config.measure:
        summary = flow_scores.measure(folder, config, subject, params, dataset)
    failed = traverse.draw(folder, config, subject, params)
    if summary:
        flow_scores.show(summary)
    return tables.where(folder, failed)
