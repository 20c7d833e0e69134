"""What is to be inverted: pictures in the generator's size, or samples as arrays."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from experiments.inversion.config import Config
from experiments.runtime.errors import UsageError
from latent_flows._validation import what
from latent_flows.data.picture import read_picture
from latent_flows.generators import FrozenGenerator

ARRAY = ".npy"


class Target(NamedTuple):
    """A sample whose latent is wanted."""

    name: str
    """Of its file."""
    sample: Float[np.ndarray, "*event"]
    """As the generator makes them."""
    notes: tuple[str, ...]
    """What was done to it."""
    digest: str
    """Of its numbers."""


def read_targets(config: Config, generator: FrozenGenerator) -> list[Target]:
    """Every file that is named.

    Raises:
        UsageError: the first that is not there, is no picture, or does not fit the generator.
    """
    found = [_read(config, generator, name) for name in config.pictures]
    for target in found:
        for note in target.notes:
            print(f"{target.name}: {note}", flush=True)
    return found


def check_files(config: Config) -> None:
    """Whether every file that is named is there.

    Raises:
        UsageError: the first that is not.
    """
    for name in config.pictures:
        path = Path(os.path.expanduser(name))
        if path.is_dir():
            raise UsageError(f"{name} is a folder; name the pictures in it")
        if not path.is_file():
            raise UsageError(f"{name}: there is no such file")


def _read(config: Config, generator: FrozenGenerator, name: str) -> Target:
    path = Path(os.path.expanduser(name))
    if path.suffix.lower() == ARRAY:
        sample, notes = _array(path, name, generator), tuple[str, ...]()
    else:
        try:
            sample, notes = read_picture(path, generator.event_shape, crop=config.crop)
        except ValueError as error:
            raise UsageError(f"{name} cannot be read as a picture: {error}") from None
    return Target(path.name, sample, notes, hashlib.sha256(sample.tobytes()).hexdigest())


def _array(path: Path, name: str, generator: FrozenGenerator) -> Float[np.ndarray, "*event"]:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{name} is no .npy file of a sample ({what(error)})") from None
    shape = getattr(found, "shape", None)
    if shape != generator.event_shape:
        raise UsageError(
            f"{name} holds an array of shape {shape}, and {generator.name} makes samples of shape "
            f"{generator.event_shape}"
        )
    if found.dtype.kind != "f":
        raise UsageError(
            f"{name} holds {found.dtype}; expected floats, of images in [0, 1]: divide 8-bit ones "
            "by 255 first"
        )
    if not np.isfinite(found).all():
        raise UsageError(f"{name} holds numbers that are not finite")
    return np.asarray(found, np.float32)
