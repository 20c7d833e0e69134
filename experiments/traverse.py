"""Draw what learnt potentials do: traversal grid, animation, landscapes with flow lines, losses."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from experiments import flow_families, report
from experiments.command import main
from experiments.flow_config import (
    PHASE,
    Config,
    Subject,
    load_run,
    network,
    vector_field,
)
from experiments.folder import Folder, open_folder
from experiments.training import Params
from latent_flows import flows, plots, potentials
from latent_flows.evaluation import traversals

METRICS = "metrics.json"
LAST = "traversals.gif"
"""The file that is written last: where it is, the run is finished."""
FRAMES = 6
"""Images each way of a row, the start left out."""


@dataclass(frozen=True)
class Drawing:
    """Draw the traversals of a finished run again, from another start or over another time."""

    folder: Annotated[str, tyro.conf.Positional]
    """Run folder of experiments.potential_flows."""
    start: int = 0
    """Which starting point the grid shows, counted from 0."""
    stretch: float = 1.0
    """Time of the traversals, in units of the trained horizon."""


def bidirectional(
    config: Config, subject: Subject, params: Params, z0: Array, stretch: float
) -> tuple[Float[Array, "k t h w c"], Array, Array]:
    """Images, latents and times of each flow, reversed to the left of the start and forward to
    its right."""
    horizon = config.flows.horizon * stretch
    ts = jnp.linspace(0.0, horizon, FRAMES + 1)
    field = vector_field(config, subject)

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None))
    @partial(jax.vmap, in_axes=(None, 0))
    def follow(params: Params, sign: Array) -> traversals.Traversal:
        return traversals.traverse(subject.generator, partial(field, params), z0, ts, scale=sign)

    members = flow_families.members(config.flows, params["potentials"])
    both = follow(members, jnp.array([-1.0, 1.0]))
    join = lambda leaf: jnp.concatenate([leaf[:, 0, :0:-1], leaf[:, 1]], axis=1)  # noqa: E731
    return join(both.samples), join(both.zs), jnp.concatenate([-ts[:0:-1], ts])


def draw(
    folder: Folder,
    config: Config,
    subject: Subject,
    params: Params,
    *,
    start: int = 0,
    stretch: float = 1.0,
) -> None:
    """Save every picture of a run."""
    z0 = representative(subject, start)
    images, _, times = bidirectional(config, subject, params, z0, stretch)
    labels = row_labels(folder, config)
    what = (
        f"{subject.name}: each row follows one of the {flow_families.describe(config.flows)} from "
        "the marked image, forward to the right and reversed to the left."
    )
    figures = {
        "traversals": plots.traversal_grid(
            np.asarray(images), times=np.asarray(times), row_labels=labels, caption=what
        )
    }
    if config.flows.family == "potential":
        figures["landscapes"] = landscapes(config, subject, params, labels)
    for phase in ("vae", PHASE):
        if rows := folder.rows(phase):
            caption = f"Loss of the phase '{phase}' and its unweighted terms."
            figures[f"losses_{phase}"] = plots.loss_curves(rows, caption=caption)
    report.save_figures(folder, figures)
    folder.write_bytes(LAST, plots.traversal_gif(np.asarray(images), row_labels=labels, fps=8))


def representative(subject: Subject, start: int) -> Array:
    """The `start`-th code of data that is extreme on no axis, so that there is room both ways.

    Not the one nearest to the centre: the centre itself is a blurred average of the data.
    """
    for margin in (0.1, 0.05, 0.0):
        low, high = jnp.quantile(subject.starts, jnp.array([margin, 1 - margin]), axis=0)
        inside = jnp.all((subject.starts >= low) & (subject.starts <= high), axis=1)
        found = subject.starts[np.asarray(inside)]
        if 0 <= start < len(found):
            return found[start]
    raise ValueError(f"start must be in [0, {len(subject.starts)}), got {start}")


def row_labels(folder: Folder, config: Config) -> list[str]:
    """The potentials' numbers, with the factor that dominates each where that was measured."""
    numbers = [str(k) for k in range(config.flows.count)]
    if not (folder.path / METRICS).exists():
        return numbers
    with folder.understood(METRICS):
        rows = folder.read_object(METRICS)["comparison"]
        own = next(row for row in rows if row["method"] in flow_families.NAMES.values())
        winners = own.get("winners")
    return [f"{k}: {winner}" for k, winner in zip(numbers, winners or (), strict=False)] or numbers


def landscapes(config: Config, subject: Subject, params: Params, labels: list[str]) -> Figure:
    """Each potential over the plane of the two axes along which its flow goes farthest."""
    net, count = network(config), config.flows.count
    horizon = float(config.flows.horizon)
    starts = subject.starts[:24]
    ts = jnp.linspace(0.0, horizon, 21)

    def paths(params: Params) -> Array:
        field = partial(vector_field(config, subject), params)
        return jax.vmap(lambda z: flows.integrate(field, z, ts).zs)(starts)

    zs = jax.jit(jax.vmap(paths))(params["potentials"])
    # In units of half the range of the codes: axes with a few far codes would dwarf the others.
    centre, half = (subject.low + subject.high) / 2, (subject.high - subject.low) / 2
    planes, curves, axes = [], [], []
    for k in range(count):
        moved = jnp.mean(jnp.abs(zs[k, :, -1] - zs[k, :, 0]) / half, axis=0)
        first, second = np.argsort(-np.asarray(moved))[:2]
        basis = jnp.eye(len(centre))[jnp.array([first, second])]
        u = potentials.select(net, params["potentials"], k)
        planes.append(lambda t, ab, u=u, basis=basis: u(t, centre + ab @ (basis * half)))
        curves.append((zs[k] - centre) / half @ basis.T)
        axes.append(f"{labels[k]} (axes {first}, {second})")
    return plots.landscape(
        planes,
        origin=jnp.zeros(2),
        basis=jnp.eye(2),
        extent=1.5,
        times=[horizon],
        trajectories=curves,
        labels=axes,
        caption=(
            f"Each potential at time {horizon:g} on the plane, through the centre of the codes, of "
            "the two axes along which its flow goes farthest, in units of half their range; flow "
            "lines, and trajectories from codes of data, projected."
        ),
    )


def run(drawing: Drawing) -> None:
    """Draw into the run's own folder."""
    config, _, subject, params = load_run(drawing.folder)
    folder = open_folder(drawing.folder, config)
    draw(folder, config, subject, params, start=drawing.start, stretch=drawing.stretch)
    report.where(folder)


if __name__ == "__main__":
    raise SystemExit(main(run, Drawing))
