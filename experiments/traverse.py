"""Draw what moves in a finished run: from another start, farther, or in some layers of a StyleGAN2.

Of potential_flows it draws a grid, an animation, landscapes with flow lines and losses, of guided,
flow_vae, directions and steer a grid and an animation: a row for each flow, direction or factor.
"""

from experiments.potential_flows import traverse
from experiments.potential_flows.config import Config
from experiments.potential_flows.traverse import Drawing
from experiments.runtime.cli import main, module_name
from experiments.runtime.run_dir import made_by


def run(drawing: Drawing) -> int | None:
    """Draw a run: of potential flows all its pictures, of any other what moves as one."""
    from experiments.learnt.reader import READERS

    kind = made_by(drawing.folder)
    if kind not in READERS or (kind == module_name(Config) and not drawing.layers):
        return traverse.run(drawing)
    from experiments.page import grid

    return grid.run(drawing)


if __name__ == "__main__":
    raise SystemExit(main(run, Drawing))
