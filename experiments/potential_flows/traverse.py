"""Draw what learnt potentials do: traversal grid, animation, landscapes with flow lines, losses."""

import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array

from experiments.generators.style_mixing import check_moved_layers
from experiments.inversion.latent_file import one_latent
from experiments.potential_flows import families as flow_families
from experiments.potential_flows.config import PHASE, Config
from experiments.potential_flows.flow_space import (
    FlowSpace,
    load_run,
    starts_from_codes,
    vector_field,
)
from experiments.runtime import tables
from experiments.runtime.announcements import announced
from experiments.runtime.cli import UsageError
from experiments.runtime.run_dir import CONFIG, Folder, open_folder, run_around
from experiments.runtime.training import Params
from latent_flows import coordinates, flows, plots, potentials
from latent_flows.evaluation.traversals import both_ways

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS = "metrics.json"
GRID, LANDSCAPES = "traversals", "landscapes"
LAST = "traversals.gif"
"""The file that is written last."""
LOST = 0.01
"""Of a sample's variance: what may be lost where flows live in some of the coordinates alone."""
FRAMES = 6
"""Images each way of a row, the start left out."""


@dataclass(frozen=True)
class Drawing:
    """Draw the traversals of a finished run: from another start, farther, or in some layers."""

    folder: Annotated[str, tyro.conf.Positional]
    """Run folder of experiments.potential_flows; or of guided, flow_vae, directions or steer."""
    start: int = 0
    """Which starting point the grid shows, counted from 0; of --latent, which of its latents."""
    latent: str = ""
    """Start from this latent instead: an .npy file, such as experiments.invert writes. Its pictures
    are called after the file, beside those of the run."""
    stretch: float = 1.0
    """How far they go, in units of the trained horizon, or of the largest amount."""
    layers: str = ""
    """Of a StyleGAN2: layers that are moved, from 0, such as 2-4 or 0,5-6; the others stay as they
    are in the start. The picture is called after them, beside those of the run. Empty: all."""
    to: str = ""
    """Folder to draw into; empty: the run folder."""

    def __post_init__(self) -> None:
        if self.start < 0:
            raise ValueError(f"--start must be at least 0, got {self.start}")
        if not (self.stretch > 0 and math.isfinite(self.stretch)):
            raise ValueError(f"--stretch must be positive and finite, got {self.stretch}")
        check_moved_layers(self.layers)


def draw(
    folder: Folder,
    config: Config,
    space: FlowSpace,
    params: Params,
    *,
    start: int = 0,
    stretch: float = 1.0,
    source: Folder | None = None,
    latent: tuple[str, Array] | None = None,
) -> list[str]:
    """Save every picture of a run; gives the files of those that could not be drawn.

    From a latent of one's own, with its name, those that begin there, under names of their own.
    """
    if latent is None:
        with announced("choosing where traversals start"):
            z0 = representative(space, start)
    else:
        z0 = coordinates.from_latent(space.frame, latent[1])
    labels = row_labels(source or folder, config)

    @cache
    def followed() -> tuple[np.ndarray, np.ndarray]:
        ts = jnp.linspace(0.0, config.flows.horizon * stretch, FRAMES + 1)
        members = flow_families.members(config.flows, params["potentials"])
        both = both_ways(space.generator, vector_field(config.flows, space), members, z0, ts)
        return np.asarray(both.samples), np.asarray(both.ts)

    shape = space.frozen.event_shape
    what = (
        f"{space.frozen.name}: each row follows one of the "
        f"{flow_families.describe(config.flows)} from the "
    )

    def grid() -> "Figure":
        samples, times = followed()
        if not plots.are_pictures(shape):
            caption = f"{what}sample in black, forward and reversed. {plots.how_drawn(shape)}"
            return plots.vector_traversals(
                samples,
                places=times,
                row_labels=labels,
                caption=caption,
                names=space.frozen.output_names,
            )
        ways = "marked image, forward to the right and reversed to the left."
        return plots.traversal_grid(
            plots.sample_pictures(samples, shape),
            times=times,
            row_labels=labels,
            caption=f"{what}{ways} {plots.how_drawn(shape)}",
        )

    def animation() -> bytes:
        pictures = plots.sample_pictures(followed()[0], shape)
        return plots.traversal_gif(pictures, row_labels=labels, fps=8)

    figures: dict[str, Callable[[], Figure]] = {GRID: grid}
    if latent is not None:
        own = f"{GRID}_{latent[0]}"
        failed = tables.save_figures(folder, {own: grid})
        return failed + tables.save_pictures(folder, {f"{own}.gif": animation})
    if config.flows.family == "potential":
        figures[LANDSCAPES] = partial(landscapes, config, space, params, labels)
    if rows := (source or folder).rows(PHASE):
        caption = f"Loss of the phase '{PHASE}' and its unweighted terms."
        figures[f"losses_{PHASE}"] = partial(plots.loss_curves, rows, caption=caption)
    return tables.save_figures(folder, figures) + tables.save_pictures(folder, {LAST: animation})


def is_drawn(folder: Folder, config: Config) -> bool:
    """Whether nothing is left to do in a run: the last picture is drawn after everything else."""
    kinds = (GRID, LANDSCAPES) if config.flows.family == "potential" else (GRID,)
    names = (LAST, *(f"{kind}.png" for kind in kinds))
    return all((folder.path / name).exists() for name in names)


def representative(space: FlowSpace, start: int) -> Array:
    """The `start`-th code of data that is extreme on no axis, so that there is room both ways.

    Not the one nearest to the centre: the centre itself is a blurred average of the data.
    """
    for margin in (0.1, 0.05, 0.0):
        low, high = jnp.quantile(space.starts, jnp.array([margin, 1 - margin]), axis=0)
        inside = jnp.all((space.starts >= low) & (space.starts <= high), axis=1)
        found = space.starts[np.asarray(inside)]
        if 0 <= start < len(found):
            return found[start]
    raise ValueError(f"start must be in [0, {len(space.starts)}), got {start}")


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


def landscapes(config: Config, space: FlowSpace, params: Params, labels: list[str]) -> "Figure":
    """Each potential over the plane of the two axes along which its flow goes farthest.

    Where there is one axis only, over that.
    """
    net, count = flow_families.potential_network(config.flows), config.flows.count
    horizon = float(config.flows.horizon)
    starts = space.starts[:24]
    ts = jnp.linspace(0.0, horizon, 21)

    def paths(params: Params) -> Array:
        field = partial(vector_field(config.flows, space), params)
        return jax.vmap(lambda z: flows.integrate(field, z, ts).zs)(starts)

    zs = jax.jit(jax.vmap(paths))(params["potentials"])
    # In units of half the range of the codes: axes with a few far codes would dwarf the others.
    centre, half = (space.low + space.high) / 2, (space.high - space.low) / 2
    planes, curves, axes = [], [], []
    for k in range(count):
        moved = jnp.mean(jnp.abs(zs[k, :, -1] - zs[k, :, 0]) / half, axis=0)
        farthest = np.argsort(-np.asarray(moved))[:2]
        basis = jnp.eye(len(centre))[farthest]
        u = potentials.select(net, params["potentials"], k)
        planes.append(lambda t, ab, u=u, basis=basis: u(t, centre + ab @ (basis * half)))
        curves.append((zs[k] - centre) / half @ basis.T)
        named = "axis" if len(farthest) == 1 else "axes"
        axes.append(f"{labels[k]} ({named} {', '.join(map(str, farthest))})")
    dim = len(farthest)
    where = "axis" if dim == 1 else "plane, through their centre, of the two axes"
    codes = starts_from_codes(config.flows, space.frozen)
    points = "codes" if codes else "draws from the prior"
    return plots.landscape(
        planes,
        origin=jnp.zeros(dim),
        basis=jnp.eye(dim),
        extent=1.5,
        times=[horizon],
        trajectories=curves,
        labels=axes,
        caption=(
            f"Each potential at time {horizon:g} on the {where} along which its flow goes "
            f"farthest, in units of half the range of the {points}; flow lines, and trajectories "
            f"from {'codes of data' if codes else points}, projected."
        ),
    )


def target(drawing: Drawing) -> Path | None:
    """The folder to draw into, where it is not the run's, before anything is computed.

    Raises:
        UsageError: nothing can be written there, or it holds something else than pictures.
    """
    if not drawing.to:
        path = Path(drawing.folder).expanduser().absolute()
        if path.is_dir() and not os.access(path, os.W_OK | os.X_OK):
            raise UsageError(f"{path} cannot be written to; draw elsewhere: --to FOLDER")
        return None
    path = Path(drawing.to).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise UsageError(f"--to {path} is a file, not a folder")
    if (path / CONFIG).exists():
        raise UsageError(f"--to {path} is a run folder; choose another")
    if (outer := run_around(path)) is not None:
        raise UsageError(f"--to {path} lies in the run folder {outer}; choose another")
    place = next(folder for folder in (path, *path.parents) if folder.exists())
    if not os.access(place, os.W_OK | os.X_OK):
        raise UsageError(f"--to {path}: no permission to write in {place}")
    return path


def given(drawing: Drawing, space: FlowSpace) -> tuple[str, Array] | None:
    """The latent of one's own that is named, with the name of its file.

    Raises:
        UsageError: there is none, or it is of another generator.
    """
    if not drawing.latent:
        return None
    dim, name = space.frozen.latent_dim, Path(drawing.latent).stem
    z = one_latent(drawing.latent, dim, "--latent", drawing.start, "--start")
    within = space.generator(coordinates.from_latent(space.frame, z))
    image = space.frozen.decode(z)
    if float(jnp.mean((within - image) ** 2)) > LOST * float(jnp.var(image)):
        print(
            f"warning: the flows of {drawing.folder} live in {space.frame.basis.shape[1]} of "
            f"{dim} coordinates, in which the sample of {drawing.latent} is another one",
            file=sys.stderr,
            flush=True,
        )
    return (f"{name}_{drawing.start}" if drawing.start else name), z


def run(drawing: Drawing) -> int | None:
    """Draw into the run's own folder, or elsewhere."""
    place = target(drawing)
    with announced(f"loading the run {drawing.folder}"):
        config, _, space, params = load_run(drawing.folder)
    if place is None:
        folder, source = open_folder(drawing.folder, config), None
    else:
        folder, source = Folder(place), Folder(Path(drawing.folder).expanduser().absolute())
    failed = draw(
        folder,
        config,
        space,
        params,
        start=drawing.start,
        stretch=drawing.stretch,
        source=source,
        latent=given(drawing, space),
    )
    return tables.where(folder, failed)
