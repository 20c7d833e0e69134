"""Every figure that the experiments save.

Functions take plain arrays and return a `matplotlib.figure.Figure` that no global state knows of,
so they can be called from any thread and without a display; `png_bytes` turns one into a file's
contents. Colours can be told apart by colour-blind readers.
"""

import importlib
from typing import TYPE_CHECKING, Any

from latent_flows._extras import extra

if TYPE_CHECKING:
    from latent_flows.plots.charts import (
        asked_against_measured,
        dots,
        factor_matrix,
        loss_curves,
        scatter,
        vector_reconstructions,
    )
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
    from latent_flows.plots.vectors import (
        are_pictures,
        how_drawn,
        sample_pictures,
        vector_traversals,
    )

__all__ = [
    "Images",
    "are_pictures",
    "asked_against_measured",
    "check_drawable",
    "dots",
    "factor_matrix",
    "how_drawn",
    "landscape",
    "latent_maps",
    "loss_curves",
    "png_bytes",
    "reconstructions",
    "sample_pictures",
    "samples_grid",
    "scatter",
    "space_curves",
    "strips",
    "traversal_gif",
    "traversal_grid",
    "vector_reconstructions",
    "vector_traversals",
]

# matplotlib takes a third of a second to import, and few of those who import us draw.
_MODULES = {
    "charts": (
        "asked_against_measured",
        "dots",
        "factor_matrix",
        "loss_curves",
        "scatter",
        "vector_reconstructions",
    ),
    "grids": (
        "check_drawable",
        "reconstructions",
        "samples_grid",
        "strips",
        "traversal_gif",
        "traversal_grid",
    ),
    "planes": ("landscape", "latent_maps"),
    "space": ("space_curves",),
    "style": ("Images", "png_bytes"),
    "vectors": ("are_pictures", "how_drawn", "sample_pictures", "vector_traversals"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        with extra("plots"):
            return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
