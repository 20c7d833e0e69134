"""Find latent directions that perform image transformations, and measure the control they give.

Plumerault, Le Borgne and Hudelot, "Controlling generative models with continuous factors of
variations", ICLR 2020: images of random latents are transformed, the latents of the results found
by descent in small steps, and a direction fitted to these, without labels. Beside the paper's
straight direction a curved one, other losses, one-shot inversion and directions that nobody
trained. Of a VAE, trained first unless --generator names a finished run that holds one, or of any
other generator: a GAN trained or imported here, or a function of your own (--generator.path).
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from experiments.directions import factors
from experiments.directions import figures as direction_pictures
from experiments.directions import scores as direction_scores
from experiments.directions.config import (
    Config,
    Inversion,
    Subject,
    check,
    check_data,
    load_subject,
    loss,
    reach,
    supplied,
    supplied_subject,
)
from experiments.directions.figures import LINEAR, NONLINEAR, ONE_SHOT
from experiments.generators import train_vae, vae_runs
from experiments.generators.load import resolved
from experiments.generators.spec import Usual
from experiments.generators.train_vae import Objective, with_vae
from experiments.runtime import tables
from experiments.runtime.announcements import announced
from experiments.runtime.progress import in_parts
from experiments.runtime.run_dir import Folder, open_folder
from experiments.runtime.training import Training
from latent_flows import directions
from latent_flows.directions.model import Direction
from latent_flows.directions.trajectories import Trajectories
from latent_flows.generators.vae import VAEConfig
from latent_flows.typing import Generator

METRICS = "metrics.json"
SPRITES = with_vae(Config(), train_vae.SPRITES)
DIGITS = with_vae(
    Config(
        run="runs/directions-digits",
        ts=(0.1, 0.1, 0.25),
        inversion=Inversion(sigma=1.0),
    ),
    # Digits are centred and of one size: a generator of theirs can move none.
    replace(
        train_vae.DIGITS,
        objective=replace(
            train_vae.DIGITS.objective,
            augment=("translate_x", "translate_y", "zoom"),
            augment_ts=(0.15, 0.15, 0.4),
        ),
    ),
)
MNIST = with_vae(
    Config(
        run="runs/directions-mnist",
        transformations=("translate_x", "zoom", "brightness"),
        ts=(0.1, 0.3, 0.5),
        inversion=Inversion(count=96, sigma=1.5),
    ),
    # The same holds for MNIST.
    train_vae.Config(
        data="mnist",
        vae=VAEConfig(latent_dim=12, decoder="broadcast", depth=2, width=64),
        objective=Objective(
            total_correlation=1.0,
            augment=("translate_x", "translate_y", "zoom", "brightness"),
            augment_ts=(0.2, 0.2, 0.5, 0.7),
        ),
        training=Training(steps=3000, batch_size=64, learning_rate=3e-3, warmup=50, decay="cosine"),
    ),
)
BETA = with_vae(
    Config(run="runs/directions-beta", losses=("blurred",), inversion=Inversion(sigma=1.5)),
    train_vae.Config(
        data="sprites",
        image_size=32,
        vae=VAEConfig(latent_dim=6, decoder="broadcast", depth=2, width=48),
        objective=Objective(),
        training=Training(steps=2400, batch_size=64, learning_rate=4e-3, warmup=50, decay="cosine"),
    ),
)
GAN = Config(
    run="runs/directions-gan",
    generator=Usual("runs/gan"),
    ts=(0.1, 0.1, 0.25),
    inversion=Inversion(sigma=1.5),
)
PRESETS = {
    "sprites": ("position and size of rendered sprites, in minutes on a CPU", SPRITES),
    "digits": ("scikit-learn's digits, in minutes on a CPU", DIGITS),
    "mnist": ("position, size and brightness on MNIST, through TFDS", MNIST),
    "beta": ("a small plain VAE on sprites, to vary --vae-objective.beta and --seed", BETA),
    "gan": ("position and size by the generator of a run of train_gan, or by your own", GAN),
}

Tree = TypeVar("Tree")


def remembered(folder: Folder, name: str, compute: Callable[[], Tree]) -> Tree:
    """The arrays that a traceable function makes, computed once and kept in the run's folder."""
    leaves, structure = jax.tree.flatten(jax.eval_shape(compute))
    kept = arrays(folder, name, compute)
    with folder.understood(name):
        if any(value.shape != leaf.shape for value, leaf in zip(kept, leaves, strict=True)):
            raise ValueError(f"its arrays are not of shapes {[leaf.shape for leaf in leaves]}")
        return jax.tree.unflatten(
            structure,
            [jnp.asarray(value, leaf.dtype) for value, leaf in zip(kept, leaves, strict=True)],
        )


def arrays(folder: Folder, name: str, compute: Callable[[], Any]) -> list[np.ndarray]:
    """The leaves of what a function makes, computed once and kept in the run's folder."""
    kept = folder.remember(name, lambda: [np.asarray(leaf) for leaf in jax.tree.leaves(compute())])
    # A number that was not finite is null in the file.
    with folder.understood(name):
        return [np.array(value, float) for value in kept]


def follow(
    folder: Folder, config: Config, subject: Subject, name: str, sequential: bool
) -> dict[str, Trajectories]:
    """The trajectories of all transformations with one loss, by transformation."""
    sides = np.linspace(0, 1, config.inversion.amounts + 1)[1:]
    unit = np.concatenate([-sides[::-1], sides])
    rows = np.stack([unit * largest for largest in reach(config).values()])

    @jax.jit
    def find(generator: Generator, starts: Array) -> Trajectories:
        return directions.trajectories(
            jax.random.key(config.seed),
            generator,
            config.transformations,
            rows,
            starts=starts,
            sequential=sequential,
            loss=loss(config, name),
            steps=config.inversion.steps,
            project=subject.radius,
            batch_size=config.inversion.batch,
        )

    def parts(starts: Array) -> tuple[Array, ...]:
        found = find(subject.generator, starts)
        return tuple(leaf.swapaxes(0, 1) for leaf in (found.z0, found.zs, found.errors))

    def compute() -> Trajectories:
        by_start = in_parts(
            f"trajectories, {name if sequential else ONE_SHOT}",
            parts,
            (subject.starts,),
            max(1, config.inversion.batch // len(rows)),
            lambda found: f"error {found[2].mean():.3g}",
        )
        z0, zs, errors = (leaf.swapaxes(0, 1) for leaf in by_start)
        return Trajectories(z0, zs, jnp.asarray(rows, zs.dtype), errors)

    kept = arrays(folder, f"trajectories/{name}{'' if sequential else '_one_shot'}", compute)
    found = Trajectories(*(jnp.asarray(leaf, subject.starts.dtype) for leaf in kept))
    return {
        kind: jax.tree.map(lambda leaf, k=k: leaf[k], found)
        for k, kind in enumerate(config.transformations)
    }


def fit(
    folder: Folder,
    config: Config,
    name: str,
    found: Mapping[str, Trajectories],
    curved: bool = False,
) -> dict[str, Direction]:
    """A direction for each transformation, fitted to its trajectories."""

    def one(kind: str) -> Direction:
        key = key_of(config, kind)
        if curved:
            return directions.fit_potential(
                key,
                found[kind],
                drop=config.fit.drop,
                width=config.fit.width,
                flow_weight=config.fit.flow_weight,
                ridge=config.fit.ridge,
                steps=config.fit.steps,
            )
        return directions.fit_direction(
            key,
            found[kind],
            drop=config.fit.drop,
            knots=config.fit.knots,
            steps=config.fit.steps,
        )

    return {kind: remembered(folder, f"models/{name}_{kind}", partial(one, kind)) for kind in found}


def key_of(config: Config, *words: str) -> PRNGKeyArray:
    """A random key for a purpose."""
    return jax.random.fold_in(jax.random.key(config.seed), zlib.crc32(" ".join(words).encode()))


def learn(
    folder: Folder, config: Config, subject: Subject
) -> tuple[dict[str, dict[str, Trajectories]], dict[str, dict[str, Direction]]]:
    """All trajectories, by how they were found, and all directions fitted to them, by method."""
    first = config.losses[0]
    found: dict[str, dict[str, Trajectories]] = {}
    models: dict[str, dict[str, Direction]] = {LINEAR: {}, NONLINEAR: {}}
    for name in (*config.losses, ONE_SHOT):
        sequential = name != ONE_SHOT
        found[name] = follow(folder, config, subject, name if sequential else first, sequential)
        if name == first:
            models[LINEAR] = fit(folder, config, LINEAR, found[name])
            models[NONLINEAR] = fit(folder, config, NONLINEAR, found[name], curved=True)
        else:
            method = f"{LINEAR}, {name}"
            models[method] = fit(folder, config, file_name(method), found[name])
    return found, models


def measure(
    folder: Folder,
    config: Config,
    subject: Subject,
    found: Mapping[str, Mapping[str, Trajectories]],
    models: Mapping[str, Mapping[str, Direction]],
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """All numbers, and what each direction did by transformation and method.

    Each part is remembered in the run folder as it is done.
    """
    kinds = config.transformations
    visible = [kind for kind in kinds if kind in factors.NAMES]
    inversion = [
        {
            "transformation": kind,
            "inversion": name,
            **folder.remember(
                f"scores/inversion_{file_name(name)}_{kind}",
                partial(direction_scores.judge, config, subject, kind, trajectories[kind]),
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
    everything: dict[str, dict[str, Direction]] = {kind: {} for kind in visible}
    for kind in visible:
        everything[kind] |= {method: of[kind] for method, of in models.items()}
    key = key_of(config, "baselines")
    for row in folder.remember(
        "models/baselines", partial(direction_scores.baselines, config, subject, key)
    ):
        model = direction_scores.line(config, row["direction"], row["slope"])
        everything[row["transformation"]][row["method"]] = model
    asked = {
        kind: {
            method: folder.remember(
                f"scores/control_{file_name(method)}_{kind}",
                partial(direction_scores.control, config, subject, kind, model),
            )
            for method, model in of.items()
        }
        for kind, of in everything.items()
    }
    control = [
        {"transformation": kind, "method": method, **curve["row"]}
        for kind, curves in asked.items()
        for method, curve in curves.items()
    ]
    together = [
        {
            "first": pair[0],
            "second": pair[1],
            "method": method,
            **folder.remember(
                f"scores/together_{method}_{pair[0]}_{pair[1]}",
                partial(
                    direction_scores.together,
                    config,
                    subject,
                    pair,
                    tuple(models[method][kind] for kind in pair),
                ),
            ),
        }
        for pair in combinations(visible, 2)
        for method in (LINEAR, NONLINEAR)
    ]
    metrics = {
        "fitted": fitted,
        "control": control,
        "together": together,
        "inversion": inversion,
    }
    folder.write_json(METRICS, metrics)
    return metrics, asked


def file_name(words: str) -> str:
    """Words as part of a file's name.

    >>> file_name("linear, one shot")
    'linear_one_shot'
    """
    return words.replace(",", "").replace(" ", "_")


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


def run(config: Config) -> int | None:
    """Train the generator, unless there is one, find the directions, measure, draw."""
    config = resolved(config)
    given = supplied(config)
    if given is None:
        _, settings = vae_runs.source(config)
        train_set, test_set = train_vae.load(settings, "train"), train_vae.load(settings, "test")
        check(config, train_set.image_shape)
        check_data(config, train_set)
    else:
        check(config, given.image_shape)
    folder = open_folder(config.run, config)
    measured = (folder.path / METRICS).exists()
    if direction_pictures.is_drawn(folder, config) and (measured or not config.measure):
        if measured:
            with folder.understood(METRICS):
                show(config, folder.read_object(METRICS))
        return tables.where(folder)
    if given is None:
        subject = load_subject(folder, config, train_set, test_set)
    else:
        with announced("drawing latents, and measuring the factors of images"):
            subject = supplied_subject(config, given)
    found, models = learn(folder, config, subject)
    metrics: dict[str, Any] = {}
    asked: dict[str, dict[str, Any]] = {}
    if config.measure:
        metrics, asked = measure(folder, config, subject, found, models)
    failed = direction_pictures.draw(folder, config, subject, found, models, asked)
    if metrics:
        show(config, metrics)
    return tables.where(folder, failed)
