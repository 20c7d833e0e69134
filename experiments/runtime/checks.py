"""Batches that cannot be shared out evenly are refused before anything is computed."""

from typing import TYPE_CHECKING

import jax

from experiments.runtime.errors import UsageError

if TYPE_CHECKING:
    from experiments.runtime.training import Training


def check_devices(**stages: "Training") -> None:
    """Rejects batches that cannot be shared out evenly over the devices.

    Args:
        **stages: how each phase is optimised, by the name of its flags.

    Raises:
        UsageError: naming the flag.
    """
    for name, stage in stages.items():
        check_shares(stage.batch_size, len(jax.devices()), f"--{name.replace('_', '-')}.batch-size")


def check_shares(size: int, devices: int, flag: str) -> None:
    """Rejects a batch that cannot be shared out evenly.

    Raises:
        UsageError: naming the flag.
    """
    if size % devices:
        raise UsageError(
            f"a batch of {size} cannot be split evenly over {devices} devices; "
            f"choose a multiple of {devices} as {flag}"
        )
