"""Learn flows that change known factors: one potential for each, taught by sequences of images.

Sprites are rendered with one factor changing by known amounts and encoded by a frozen VAE; the flow
of the factor's potential has to take the code of the first image to those of the others. It is
compared with the best constant direction for the same sequences. Guidance as in Song et al.,
"Flow Factorized Representation Learning", NeurIPS 2023, but for a generator that stays as it is.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from experiments.generators import train_vae, vae_runs
from experiments.generators.load import resolved
from experiments.generators.train_vae import with_vae
from experiments.potential_flows.config import FACTORS as ATTRIBUTES
from experiments.potential_flows.families import EQUATIONS, coefficient
from experiments.potential_flows.scores import attribute_ranges
from experiments.runtime import tables
from experiments.runtime.announcements import announced
from experiments.runtime.run_dir import Folder, open_folder
from experiments.runtime.training import Batch, Params, Training, fit, shuffled
from experiments.supervised_flows import scores as guided_scores
from experiments.supervised_flows.config import (
    FACTORS,
    PHASE,
    Config,
    Flows,
    Sequences,
    Subject,
    Weights,
    check,
    initial,
    load_subject,
    network,
    progress,
    residual_is_on,
    vae_config,
)
from experiments.supervised_flows.sequences import Seen, Taught, see, teach
from latent_flows import data, flows, pde
from latent_flows.data import Dataset
from latent_flows.traversals import climbing
from latent_flows.typing import Scalar

SPRITES = with_vae(
    Config(
        run="runs/guided",
        # Without time the wave equation has but one term, and no small relative residual.
        weights=Weights(residual=0.0, leakage=3.0),
        training=Training(steps=1500, batch_size=16, learning_rate=1e-2, decay="cosine"),
    ),
    train_vae.SPRITES,
)
PRESETS = {
    "sprites": ("x, y and scale of sprites, by potentials without time", SPRITES),
    "swing": (
        "the same by standing waves, from rest to rest as a pendulum swings",
        replace(
            SPRITES,
            run="runs/guided-swing",
            sequences=Sequences(schedule="swing"),
            flows=Flows(initial="standing"),
        ),
    ),
    "segments": (
        "the same by networks of time, taught by sequences that start at any time",
        replace(
            SPRITES,
            run="runs/guided-segments",
            sequences=Sequences(offset=1.0),
            flows=Flows(initial="free"),
            weights=Weights(residual=0.0),
        ),
    ),
    "published": (
        "networks of time at rest at time 0, from the encoder's own codes",
        replace(
            SPRITES,
            run="runs/guided-published",
            sequences=Sequences(refine=0),
            flows=Flows(initial="exact"),
            weights=Weights(leakage=0.0),
        ),
    ),
}


def lessons(config: Config, taught: Taught, seen: Seen) -> data.Dataset:
    """The sequences as a data set, one row a sequence of every factor."""
    # Where there are fewer than a batch has, they are shown more than once.
    times = -(-config.training.batch_size // len(taught.start))
    arrays = {
        "start": taught.start,
        "sign": taught.sign,
        "codes": taught.codes,
        # In units of the distance that a flow that stands still misses by.
        "metric": seen.metric / stillness(taught, seen)[:, None, None],
        "slopes": seen.slopes,
    }
    repeated: dict[str, Any] = {
        name: np.concatenate([np.asarray(rows)] * times) for name, rows in arrays.items()
    }
    return data.from_arrays("sequences", **repeated)


def others(config: Config) -> Float[np.ndarray, "k f"]:
    """For each factor, 1 for every attribute that it should not change."""
    names = [FACTORS[name].seen for name in config.sequences.factors]
    return np.array([[float(name != other) for other in ATTRIBUTES] for name in names])


def loss(
    config: Config, params: Params, key: Array, step: Array, batch: Batch
) -> tuple[Scalar, dict[str, Scalar]]:
    """The weighted sum of the terms of one step, all potentials at once."""
    del step
    keys = jax.random.split(key, len(config.sequences.factors))
    kept = jnp.asarray(others(config), batch["codes"].dtype)
    found = jax.vmap(partial(taught_by, config), in_axes=(0, 0, 0, 0, 1))(
        params["potentials"], params["coefficients"], keys, kept, dict(batch)
    )
    terms = {name: jnp.mean(value) for name, value in found.items()}
    total = sum(getattr(config.weights, name) * value for name, value in terms.items())
    return jnp.asarray(total), terms


def taught_by(
    config: Config,
    params: PyTree,
    raw: Scalar,
    key: Array,
    kept: Float[Array, "f"],
    batch: Batch,
) -> dict[str, Scalar]:
    """The terms of one potential on sequences of its factor."""
    net, horizon = network(config), config.sequences.horizon
    field = climbing(net)
    codes = batch["codes"]
    ts = jnp.arange(horizon + 1.0)

    def path(z: Array, sign: Array, start: Array) -> Array:
        moving = lambda t, z: sign * field(params, start + t, z)  # noqa: E731
        return flows.integrate(moving, z, ts, solver=flows.solver(config.flows.solver)).zs

    paths = jax.vmap(path)(codes[:, 0], batch["sign"], batch["start"])
    missed = paths - codes
    squares = jnp.einsum("nti,nij,ntj->nt", missed, batch["metric"], missed)
    # At any time: a potential would learn to hold still at those of the frames.
    times = batch["start"][:, None] + horizon * jax.random.uniform(key, (len(codes), 3))
    probes = codes[:, jnp.array([0, horizon // 2, horizon])]
    moving = jax.vmap(jax.vmap(partial(field, params)))(times, probes)
    changes = jnp.einsum("npfi,npi->npf", batch["slopes"], moving) ** 2
    terms = {
        "landing": jnp.mean(squares[:, 1:]),
        "leakage": jnp.sum(kept * changes) / (jnp.sum((1 - kept) * changes) + 1e-12),
        "residual": jnp.zeros(()),
    }
    equation = EQUATIONS[config.flows.pde]
    if residual_is_on(config) and equation is not None:
        apply: Any = net.apply  # flax types its result as a pair as well
        residual = equation(partial(apply, params), coefficient(raw))
        when = (batch["start"][:, None] + ts[1:]).reshape(-1)
        where = paths[:, 1:].reshape(-1, paths.shape[-1])
        terms["residual"] = pde.relative_residual(residual, when, where)
    return terms


def stillness(taught: Taught, seen: Seen) -> Float[Array, "k"]:
    """Mean squared distance from the sequences of a flow that stands still, for each factor."""
    away = (taught.codes - taught.codes[:, :, :1])[:, :, 1:]
    return jnp.einsum("nkti,nkij,nktj->k", away, seen.metric, away) / (
        away.shape[0] * away.shape[2]
    )


def constant_directions(config: Config, taught: Taught, seen: Seen) -> Float[Array, "k m"]:
    r"""The best constant direction of each factor for the same sequences and the same loss.

    With `z_0 + s a(t) v` for the code at time `t`, distance and leakage are quadratic in `v`.
    """
    horizon, weights = config.sequences.horizon, config.weights
    ends = taught.start[..., None] + jnp.arange(1.0, horizon + 1)
    passed = progress(config, ends) - progress(config, taught.start)[..., None]
    signed = passed * taught.sign[..., None]
    away = (taught.codes - taught.codes[:, :, :1])[:, :, 1:]
    count = signed.shape[0] * signed.shape[2]
    scale = stillness(taught, seen)[:, None, None]
    matrix = jnp.einsum("nkt,nkij->kij", signed**2, seen.metric) / count / scale
    vector = jnp.einsum("nkt,nkij,nktj->ki", signed, seen.metric, away) / count / scale[..., 0]
    slopes = seen.slopes * others(config)[None, :, None, :, None]
    leaks = jnp.einsum("nkpfi,nkpfj->kij", slopes, slopes) / np.prod(slopes.shape[0:3:2])
    both = weights.landing * matrix + weights.leakage * leaks / config.sequences.reach**2
    found = jnp.linalg.solve(both, weights.landing * vector[..., None])[..., 0]
    # Leakage is about directions: how far to go along them is for the landing to say.
    step = jnp.sum(found * vector, -1) / jnp.einsum("ki,kij,kj->k", found, matrix, found)
    return step[:, None] * found


def train(folder: Folder, config: Config, subject: Subject, taught: Taught, seen: Seen) -> Params:
    """Train, or go on training, the potentials of a run folder."""
    dataset = lessons(config, taught, seen)
    names = ", ".join(config.sequences.factors)
    return fit(
        folder,
        PHASE,
        init=partial(initial, config, subject.dim),
        loss=partial(loss, config),
        batches=shuffled(dataset, config.training, config.seed),
        config=config.training,
        seed=config.seed,
        describe=f"{config.flows.initial} potentials of {names}",
    )


def load(config: Config) -> Dataset:
    """The images that the VAE was, or is to be, trained on."""
    settings = vae_config(config)
    dataset = train_vae.load(settings, "train")
    train_vae.check(settings, dataset)
    vae_runs.check(config, dataset)
    return dataset


def run(config: Config) -> int | None:
    """Train the generator, unless there is one, and the potentials; measure, draw."""
    check(config)
    config = resolved(config)
    dataset = load(config)
    folder = open_folder(config.run, config)
    failed: list[str] = []
    if not guided_scores.is_drawn(folder, config):
        subject = load_subject(folder, config, dataset)
        with announced("measuring the attributes of images"):
            ranges = attribute_ranges(dataset, config.seed)
        with announced(f"rendering and encoding {config.sequences.count} sequences"):
            taught = teach(config, subject)
        with announced("differentiating the generator along the sequences"):
            seen = see(config, subject, taught, ranges)
        params = train(folder, config, subject, taught, seen)
        with announced("solving for constant directions"):
            directions = constant_directions(config, taught, seen)
        failed = guided_scores.measure(folder, config, subject, params, directions, ranges)
    if (folder.path / guided_scores.METRICS).exists():
        with folder.understood(guided_scores.METRICS):
            guided_scores.show(folder.read_object(guided_scores.METRICS))
    return tables.where(folder, failed)
