"""What changes a factor by an amount: directions that were fitted, and steering."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiments.directions.config import Config as DirectionConfig
from experiments.directions.config import reach
from experiments.directions.learn import learnt_directions
from experiments.runtime.run_dir import Folder, check_finished, read_config
from experiments.steer import config as steer_config
from experiments.steer.config import method_of
from experiments.steer.scores import METRICS
from latent_flows.export import Directions
from latent_flows.generators import FrozenGenerator


class Fitted(NamedTuple):
    """Directions, straight ones first, then curved ones."""

    config: DirectionConfig
    learnt: Directions
    limits: Mapping[str, float]
    """The largest |t| of each transformation."""


class Steered(NamedTuple):
    """Transformations that the generator's own Jacobian performs: nothing was learnt."""

    config: steer_config.Config
    limits: Mapping[str, float]
    """The largest |t| of each transformation."""
    metrics: Mapping[str, Any]
    """What was measured."""
    reached: Mapping[tuple[str, str], float]
    """The share of changes that was reached, by the transformation and what was held."""


def directions(run: str, _: FrozenGenerator) -> Fitted:
    """The directions of a run of directions.

    Raises:
        UsageError: it has not come so far.
    """
    config = read_config(run, DirectionConfig)
    return Fitted(config, learnt_directions(run), reach(config))


def steered(run: str, _: FrozenGenerator) -> Steered:
    """What a run of steer has steered by.

    Raises:
        UsageError: it is not finished.
    """
    config = read_config(run, steer_config.Config)
    folder = Folder(Path(run).expanduser().absolute())
    check_finished(folder.path, METRICS)
    metrics = folder.read_object(METRICS)
    with folder.understood(METRICS):
        rows = {(row["transformation"], row["method"]): row for row in metrics["methods"]}
        shares = {
            (kind, hold): rows.get((kind, method_of(hold)), {}).get("reached")
            for kind in config.transformations
            for hold in config.hold
        }
    known = {key: share for key, share in shares.items() if isinstance(share, int | float)}
    return Steered(config, reach(config.asked), metrics, known)
