"""A run of any kind that moves latents as one picture: a row for each way to move."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.page.contents import Contents, Wish, contents
from experiments.potential_flows.traverse import FRAMES, GRID, Drawing, target
from experiments.runtime import tables
from experiments.runtime.run_dir import Folder
from latent_flows import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def run(drawing: Drawing) -> int | None:
    """Draw what moves in a run, into its folder or elsewhere.

    Raises:
        UsageError: nothing moves in it, or there is no such start, latent or layer.
    """
    place = target(drawing)
    wish = Wish(1, FRAMES, drawing.latent, drawing.start, drawing.stretch, drawing.layers)
    found = contents(drawing.folder, wish)
    folder = Folder(place or Path(drawing.folder).expanduser().absolute())
    name = picture_name(drawing)
    failed = tables.save_figures(folder, {name: partial(grid, found)})
    if plots.are_pictures(found.frozen.event_shape):
        moving: dict[str, Callable[[], bytes]] = {f"{name}.gif": partial(animation, found)}
        failed += tables.save_pictures(folder, moving)
    return tables.where(folder, failed)


def picture_name(drawing: Drawing) -> str:
    """A name of its own for each start of one's own, and for each choice of layers.

    >>> picture_name(Drawing("runs/demo", latent="cat.npy", layers="0, 2-4"))
    'traversals_cat_layers_0_2-4'
    """
    own = []
    if drawing.latent:
        own.append(Path(drawing.latent).stem + (f"_{drawing.start}" if drawing.start else ""))
    if drawing.layers:
        own += ["layers", *("".join(part.split()) for part in drawing.layers.split(","))]
    return "_".join([GRID, *own])


def grid(found: Contents) -> "Figure":
    """Each way to move as a row, the start in the middle."""
    names = [move.name for move in found.moves]
    places = np.stack([move.places for move in found.moves])
    axis = "time along the flow" if found.moves[0].unit == "time" else "amount"
    if not np.allclose(places, places[0]):
        # Each row has a largest amount of its own.
        names = [f"{move.name} (±{move.places[-1]:.3g})" for move in found.moves]
        places, axis = places / places[:, -1:], "share of the largest amount"
    shape = found.frozen.event_shape
    about = found.about.replace("slider", "row")
    caption = f"{found.frozen.name}. {about} {plots.how_drawn(shape)}"
    known: dict[str, Any] = {"row_labels": names, "axis": axis, "caption": caption.strip()}
    samples = found.samples[0]
    if not plots.are_pictures(shape):
        outputs = found.frozen.output_names
        return plots.vector_traversals(samples, places=places[0], names=outputs, **known)
    return plots.traversal_grid(plots.sample_pictures(samples, shape), times=places[0], **known)


def animation(found: Contents) -> bytes:
    """The same, moving."""
    pictures = plots.sample_pictures(found.samples[0], found.frozen.event_shape)
    return plots.traversal_gif(pictures, row_labels=[move.name for move in found.moves], fps=8)
