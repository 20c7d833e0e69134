"""The pictures of steering: the transformed sample, and what each way makes of its latent."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from experiments.directions.figures import central, paths, transformed
from experiments.directions.subject import Subject
from experiments.runtime import tables
from experiments.runtime.run_dir import Folder
from experiments.steer.config import Config
from experiments.steer.scores import MEAN_FIELD, Led, amounts_of
from latent_flows._named_function import label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLES = 2
"""Starts that are shown."""


def draw(
    folder: Folder, config: Config, subject: Subject, found: Mapping[str, Mapping[str, Led]]
) -> list[str]:
    """Save a picture for each transformation; gives the files of those that failed."""
    return tables.save_figures(
        folder,
        {
            f"steered_{label(kind)}": partial(strips, config, subject, kind, methods)
            for kind, methods in found.items()
        },
    )


def strips(config: Config, subject: Subject, kind: str, methods: Mapping[str, Led]) -> "Figure":
    """The ideal, steered and straight, for a few held-out latents."""
    amounts = amounts_of(config, kind)
    middle = len(amounts) // 2
    ts = np.insert(amounts, middle, 0.0)
    decode = jax.jit(jax.vmap(subject.generator))
    shown = [name for name in methods if "line: " not in name or name == MEAN_FIELD]
    rows, labels = [], []
    for index in central(subject)[:EXAMPLES]:
        z = subject.held_out[index]
        rows.append(transformed(kind, subject.generator(z), jnp.asarray(ts)))
        labels.append("transformed")
        for name in shown:
            path = np.insert(methods[name].zs[index], middle, z, axis=0)
            rows.append(decode(jnp.asarray(path, jnp.float32)))
            labels.append(name)
    name = label(kind)
    return paths(
        np.asarray(jnp.stack(rows)),
        amounts=ts,
        row_labels=labels,
        axis=f"t ({name})",
        caption=(
            f"{subject.name}, {name}: samples of held-out latents, transformed (what is unknown is "
            "grey, or left out), steered to each amount, led by what networks learnt of the field, "
            "if any, moved along the straight line that is nearest to it, and along what other "
            "runs learnt, if any are compared. The start is marked."
        ),
        names=subject.names,
    )
