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
from jaxtyping import Array, PyTree

from experiments import flow_scores, report, train_vae, traverse
from experiments.command import main
from experiments.flow_config import (
    EQUATIONS,
    PHASE,
    Config,
    Flows,
    Scores,
    Subject,
    Weights,
    check,
    classifier,
    coefficient,
    initial,
    load_subject,
    load_vae,
    network,
    pullback_metrics,
    seen,
    supplied,
    supplied_subject,
    vae_config,
    velocity,
)
from experiments.folder import Folder, open_folder
from experiments.source import Source
from experiments.train_vae import with_vae
from experiments.training import Batch, Params, Training, fit
from latent_flows import data, flows, objectives, pde
from latent_flows.batches import in_batches
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
    generator="runs/gan",
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
        generator=f"runs/{name}",
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
    starts, *metrics = (
        leaf.reshape(-1, count, *leaf.shape[1:])
        for leaf in (batch["start"], *([batch["metric"]] if "metric" in batch else []))
    )
    keys = jax.random.split(key, count)
    follow = partial(along, config, subject)
    found = jax.vmap(follow, in_axes=(0, 0, 0, 1, *[1 for _ in metrics]))(
        params["potentials"], params["coefficients"], keys, starts, *metrics
    )
    before, after, squared_speed = image_pairs(
        subject.generator, found, config.flows.at_once, push=not metrics
    )
    if not metrics:
        found["squared_speed"] = squared_speed
    features = seen(config, before, after)
    logits: Any = classifier(config).apply(params["classifier"], features)
    labels = jnp.broadcast_to(jnp.arange(count)[:, None], logits.shape[:2])
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    terms = {
        "classification": jnp.mean(entropy) / jnp.log(count),
        "residual": jnp.mean(found["residual"]),
        "initial": jnp.mean(found["initial"]),
        "stillness": objectives.stillness(found["squared_speed"], config.flows.pace),
        "pace": objectives.off_pace(found["squared_speed"], config.flows.pace),
        "outside": jnp.mean(found["outside"]),
    }
    if metrics:
        terms |= {
            "sparsity": objectives.sparsity(found["contributions"]),
            "overlap": objectives.overlap(found["contributions"]),
            "inconsistency": objectives.inconsistency(found["contributions"]),
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
    batched = in_batches(jax.checkpoint(pair), at_once) if at_once else jax.vmap(pair)
    return jax.tree.map(lambda leaf: leaf.reshape(count, share, *leaf.shape[1:]), batched(*flat))


def along(
    config: Config,
    subject: Subject,
    params: PyTree,
    raw: Scalar,
    key: Array,
    starts: Array,
    metric: Array | None = None,
) -> dict[str, Array]:
    """What one potential does from each of its starting points."""
    net, horizon = network(config), config.flows.horizon
    apply: Any = net.apply  # flax types its result as a pair as well
    u = partial(apply, params)
    field = partial(velocity, net, params)
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
    if config.flows.initial == "free":
        result["initial"] = objectives.relative_start(
            jax.vmap(partial(field, jnp.zeros(())))(starts), moving
        )
    if (equation := EQUATIONS[config.flows.pde]) is not None:
        residual = equation(u, coefficient(raw))
        result["residual"] = pde.relative_residual(
            residual, jnp.tile(ts[1:], count), paths[:, 1:].reshape(-1, starts.shape[-1])
        )
    return result


def train(folder: Folder, config: Config, subject: Subject) -> Params:
    """Train, or go on training, the potentials of a run folder."""
    dataset = latents(config, subject)
    return fit(
        folder,
        PHASE,
        init=partial(initial, config, subject),
        loss=partial(loss, config, subject),
        batches=lambda start, sharding: data.batches(
            dataset,
            batch_size=config.training.batch_size,
            seed=config.seed,
            start=start,
            sharding=sharding,
        ),
        config=config.training,
        seed=config.seed,
        describe=f"{config.flows.count} {config.flows.pde} potentials",
    )


def latents(config: Config, subject: Subject) -> data.Dataset:
    """Starting points, with the generator's metric at each if a bank of them is asked for."""
    if not config.flows.bank:
        return data.from_arrays("latents", start=np.asarray(subject.starts))
    bank = subject.starts[: config.flows.bank]
    return data.from_arrays(
        "latents",
        start=np.asarray(bank),
        metric=np.asarray(pullback_metrics(subject.generator, bank)),
    )


def run(config: Config) -> None:
    """Train the generator, unless there is one, and the potentials; measure, draw."""
    check(config)
    found = supplied(config)
    dataset: data.Dataset | None = None
    if found is None:
        dataset = train_vae.load(vae_config(config), "train")
        train_vae.check(vae_config(config), dataset)
    folder = open_folder(config.run, config)
    if (folder.path / traverse.LAST).exists():
        # Nothing is left to do: the last picture is drawn after everything else.
        flow_scores.show(folder.read_json(traverse.METRICS))
        report.where(folder)
        return
    if found is None:
        assert dataset is not None
        subject = load_subject(config, dataset, load_vae(folder, config, dataset))
    else:
        subject = supplied_subject(config, found)
        dataset = found.data
    params = train(folder, config, subject)
    summary: dict[str, Any] = flow_scores.measure(folder, config, subject, params, dataset)
    traverse.draw(folder, config, subject, params)
    flow_scores.show(summary)
    report.where(folder)


if __name__ == "__main__":
    raise SystemExit(main(run, PRESETS))
