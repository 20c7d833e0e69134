"""Every figure that the experiments save.

Functions take plain arrays and return a `matplotlib.figure.Figure` that no global state knows of,
so they can be called from any thread and without a display; `png_bytes` turns one into a file's
contents. Colours can be told apart by colour-blind readers.
"""

from latent_flows.plots.charts import asked_against_measured, dots, factor_matrix, loss_curves
from latent_flows.plots.grids import (
    check_drawable,
    reconstructions,
    samples_grid,
    strips,
    traversal_gif,
    traversal_grid,
)
from latent_flows.plots.planes import landscape, latent_maps
from latent_flows.plots.space import space_curves
from latent_flows.plots.style import Images, png_bytes

__all__ = [
    "Images",
    "asked_against_measured",
    "check_drawable",
    "dots",
    "factor_matrix",
    "landscape",
    "latent_maps",
    "loss_curves",
    "png_bytes",
    "reconstructions",
    "samples_grid",
    "space_curves",
    "strips",
    "traversal_gif",
    "traversal_grid",
]
