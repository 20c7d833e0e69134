"""The pictures of guided flows: asked against achieved change, and samples along the way."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments.runtime import tables
from experiments.runtime.run_dir import Folder
from experiments.supervised_flows.config import PHASE, Config
from experiments.supervised_flows.framed_vae import FramedVAE
from experiments.supervised_flows.known import Known
from experiments.supervised_flows.scores import DIRECTION, FLOW, METRICS, Followed, Outcome
from experiments.supervised_flows.sequences import Taught
from latent_flows import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONTROL, STRIPS = "control", "strips"


def draw(
    folder: Folder,
    config: Config,
    framed: FramedVAE,
    followed: Followed,
    outcomes: Mapping[str, Outcome],
) -> list[str]:
    """Save every picture of a run; gives the files of those that could not be drawn."""
    figures: dict[str, Callable[[], Figure]] = {}
    if outcomes:
        figures[CONTROL] = partial(control_plot, config, framed.known, outcomes)
    figures[f"losses_{PHASE}"] = lambda: plots.loss_curves(
        folder.rows(PHASE), caption="Loss of the potentials, and its terms."
    )
    figures[STRIPS] = partial(strips, config, framed, followed.asked, followed.paths)
    return tables.save_figures(folder, figures)


def is_drawn(folder: Folder, config: Config) -> bool:
    """Whether nothing is left to do in a run: pictures are drawn after everything else."""
    names = [f"{STRIPS}.png"] + ([f"{CONTROL}.png", METRICS] if config.measure else [])
    return all((folder.path / name).exists() for name in names)


def control_plot(config: Config, known: Known, found: Mapping[str, Outcome]) -> "Figure":
    """Asked against achieved change of each factor."""
    horizon = config.sequences.horizon
    panels, trained = [], []
    for k, own in enumerate(known.own(config.sequences.factors)):
        panel = {}
        for method, result in found.items():
            asked, got = np.asarray(result.asked[:, k]), np.asarray(result.changes[:, k, :, own])
            curve = [(0.0, 0.0, 0.0)]
            for rows in (asked[:, -1] > 0, asked[:, -1] <= 0):
                if rows.any():
                    of = asked[rows].mean(0), got[rows].mean(0), got[rows].std(0)
                    curve += [*zip(*(part.tolist() for part in of), strict=True)][1:]
            parts = zip(*sorted(curve), strict=True)
            panel[method] = dict(zip(("amounts", "mean", "deviation"), parts, strict=True))
        panels.append(panel)
        trained.append(float(np.abs(result.asked[:, k, horizon]).mean()))
    return plots.asked_against_measured(
        panels,
        titles=known.labels(config.sequences.factors),
        units=["share of the range"] * len(panels),
        trained=trained,
        caption="Asked and achieved change from held-out starts, mean and deviation; dotted: the "
        "trained time, and the ends are at twice that.",
    )


def strips(
    config: Config, framed: FramedVAE, asked: Taught, paths: Mapping[str, Array]
) -> "Figure":
    """The samples of one sequence of each factor: true, by the flow, by the constant direction."""
    last = asked.codes.shape[2] - 1
    frames = jnp.arange(0, last + 1, max(last // 8, 1))
    samples, labels = [], []
    for k, name in enumerate(framed.known.labels(config.sequences.factors)):
        row = int(jnp.argmax(asked.sign[:, k]))
        factors = jax.tree.map(lambda leaf, row=row, k=k: leaf[row, k, frames], asked.factors)
        samples.append(jax.vmap(framed.render)(factors))
        labels.append(f"{name}: truth")
        for method in (FLOW, DIRECTION):
            samples.append(jax.vmap(framed.decode)(paths[method][row, k, frames]))
            labels.append(f"{name}: {method}")
    rows = np.stack([np.asarray(row) for row in samples])
    shape, axis = framed.generator.event_shape, "time, to twice the trained one"
    caption = "Held-out starts; in the first row of each factor the sequence asked for."
    if plots.are_pictures(shape):
        return plots.strips(
            plots.sample_pictures(rows, shape),
            row_labels=labels,
            axis=axis,
            caption=f"{caption} {plots.how_drawn(shape)}".strip(),
        )
    return plots.vector_traversals(
        rows,
        places=np.asarray(frames, float),
        row_labels=labels,
        axis=axis,
        caption=f"{caption} The start is in black. {plots.how_drawn(shape)}".strip(),
        names=framed.generator.output_names,
    )
