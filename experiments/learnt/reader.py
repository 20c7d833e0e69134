"""Which experiments' runs have learnt something that moves latents, and how it is read."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from experiments.directions.config import Config as DirectionConfig
from experiments.flow_vae.config import Config as FlowVAEConfig
from experiments.learnt import factors, flows
from experiments.learnt.factors import Fitted, Steered
from experiments.learnt.flows import Followed
from experiments.potential_flows.config import Config as FlowConfig
from experiments.runtime.cli import module_name
from experiments.runtime.run_dir import made_by
from experiments.steer.config import Config as SteerConfig
from experiments.supervised_flows.config import Config as GuidedConfig
from latent_flows.generators import FrozenGenerator

Moving: TypeAlias = Followed | Fitted | Steered
Reader: TypeAlias = Callable[[str, FrozenGenerator], Moving | None]

READERS: Mapping[str, Reader] = {
    module_name(FlowConfig): flows.of_potentials,
    module_name(GuidedConfig): flows.guided,
    module_name(FlowVAEConfig): flows.of_flow_vae,
    module_name(DirectionConfig): factors.directions,
    module_name(SteerConfig): factors.steered,
}
"""By the experiment that made a run: `(run, generator)` to what it has learnt."""


def read(run: str, generator: FrozenGenerator) -> Moving | None:
    """What there is in a finished run, or None where nothing moves.

    Args:
        run: its folder.
        generator: that it is about.

    Raises:
        UsageError: it is not finished, or no run.
    """
    reader = READERS.get(made_by(run))
    return None if reader is None else reader(run, generator)
