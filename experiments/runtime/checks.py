"""Checks that need no computing, which experiments make before anything else."""

from typing import TYPE_CHECKING

import jax

from experiments.runtime.errors import UsageError

if TYPE_CHECKING:
    from experiments.runtime.training import Training

SMALLEST = 4
"""Pixels a side below which images are not told apart."""


def check_image_size(size: int | None) -> None:
    """Rejects images of which nothing can be learnt.

    Raises:
        ValueError: `size` is too small; one that is not positive is left to the data set.

    >>> check_image_size(1)
    Traceback (most recent call last):
    ...
    ValueError: image_size must be at least 4 pixels, to see anything, got 1
    """
    if size is not None and 0 < size < SMALLEST:
        raise ValueError(
            f"image_size must be at least {SMALLEST} pixels, to see anything, got {size}"
        )


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
