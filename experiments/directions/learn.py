"""The trajectories and the directions of a run, each found once and kept in its folder."""

import re
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from experiments.directions.config import Config, loss, reach
from experiments.directions.subject import Subject
from experiments.runtime.progress import in_parts
from experiments.runtime.run_dir import Folder, check_finished, read_config
from latent_flows import directions
from latent_flows._named_function import label
from latent_flows.directions.model import FittedDirection
from latent_flows.directions.trajectories import Trajectories
from latent_flows.export import Directions
from latent_flows.typing import Generator

LINEAR, NONLINEAR, ONE_SHOT = "linear", "nonlinear", "one shot"
"""Straight directions, curved ones, and trajectories of which each latent is found at once."""

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
    called = label(name)
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
            f"trajectories, {called if sequential else ONE_SHOT}",
            parts,
            (subject.starts,),
            max(1, config.inversion.batch // len(rows)),
            lambda found: f"error {found[2].mean():.3g}",
        )
        z0, zs, errors = (leaf.swapaxes(0, 1) for leaf in by_start)
        return Trajectories(z0, zs, jnp.asarray(rows, zs.dtype), errors)

    kept = arrays(folder, f"trajectories/{called}{'' if sequential else '_one_shot'}", compute)
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
) -> dict[str, FittedDirection]:
    """A direction for each transformation, fitted to its trajectories."""

    def one(kind: str) -> FittedDirection:
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

    return {
        kind: remembered(folder, f"models/{name}_{label(kind)}", partial(one, kind))
        for kind in found
    }


def key_of(config: Config, *words: str) -> PRNGKeyArray:
    """A random key for a purpose."""
    return jax.random.fold_in(jax.random.key(config.seed), zlib.crc32(" ".join(words).encode()))


def file_name(words: str) -> str:
    """Words as part of a file's name, which is no path.

    >>> file_name("linear, one shot"), file_name("linear, mine/a.py:far")
    ('linear_one_shot', 'linear_mine_a.py_far')
    """
    return re.sub(r"[/\\: ]", "_", words.replace(",", ""))


def learnt_directions(run: str | Path) -> Directions:
    """All directions of the first loss of a run: straight ones first, then curved ones.

    Raises:
        UsageError: there is no such run, or it has not come so far.
    """
    config = read_config(run, Config)
    folder = Folder(Path(run).expanduser().absolute())
    kinds = config.transformations
    kept = f"trajectories/{label(config.losses[0])}.json"
    files = [
        f"models/{method}_{label(kind)}.json" for method in (LINEAR, NONLINEAR) for kind in kinds
    ]
    check_finished(folder.path, *files, kept)
    with folder.understood(kept):
        arrays = [np.asarray(value, float) for value in folder.read_json(kept)]
        found = {
            kind: Trajectories(*(jnp.asarray(value[k], float) for value in arrays))
            for k, kind in enumerate(kinds)
        }
    straight = fit(folder, config, LINEAR, found)
    curved = fit(folder, config, NONLINEAR, found, curved=True)
    models = tuple(of[kind] for of in (straight, curved) for kind in kinds)
    return Directions((*kinds, *kinds), models)
