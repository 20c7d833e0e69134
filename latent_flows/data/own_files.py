"""Data of your own by their path: a folder of images, or a file of arrays."""

import os
from collections.abc import Callable
from pathlib import Path

from latent_flows._validation import choose
from latent_flows.data import array_file, image_folder
from latent_flows.data.dataset import Dataset
from latent_flows.data.image_file import SUFFIXES, Crop
from latent_flows.data.image_folder import Colour, OnError, Size

__all__ = ["CROPS", "SPLITS", "dataset", "is_path", "located"]

SPLITS = ("train", "test", "all")
CROPS = ("centre", "pad", "stretch")


def is_path(name: str, known: Callable[[str], bool] = lambda _: False) -> bool:
    """Whether a name of a data set is the path of a folder or a file.

    It is one where it is written like one, `./photos`, `~/photos`, `/data/photos`, `cells.npz`, or
    where there is such a file or folder and no set of that name.

    Args:
        name: of a data set.
        known: whether there is a set of that name.

    Returns:
        Whether it is a path.

    >>> is_path("./photos"), is_path("cells.npz"), is_path("mnist", lambda name: True)
    (True, True, False)
    """
    place = Path(name)
    if name[:1] in (".", "~", os.sep) or name[-1:] == "/" or "\\" in name or place.is_absolute():
        return True
    if place.suffix.lower() in array_file.SUFFIXES:
        return True
    try:
        return bool(name) and place.exists() and not known(name)
    except (OSError, ValueError):
        return False  # such as a name that is too long


def located(name: str, known: Callable[[str], bool] = lambda _: False) -> str:
    """A path as it is found from anywhere; a name of a set as it is.

    Args:
        name: of a data set, or a path.
        known: as in `is_path`.

    Returns:
        The absolute path, or the name.

    >>> located("mnist")
    'mnist'
    """
    return os.path.abspath(Path(name).expanduser()) if is_path(name, known) else name


def dataset(
    path: str | os.PathLike[str],
    split: str = "train",
    size: Size = None,
    *,
    crop: Crop = "centre",
    colour: Colour = "own",
    on_error: OnError = "refuse",
) -> Dataset:
    """A folder of images, or a file `.npy` or `.npz` of arrays.

    Args:
        path: of the folder or file.
        split: "train", "test", or "all".
        size: as in `image_folder.dataset`.
        crop: as in `image_folder.dataset`.
        colour: as in `image_folder.dataset`.
        on_error: as in `image_folder.dataset`; of no account for arrays.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: there is no such folder or file, or it is of another kind, or as
            `image_folder.dataset` and `array_file.dataset`.
    """
    place = Path(path).expanduser()
    choose("split", split, dict.fromkeys(SPLITS))
    choose("crop", crop, dict.fromkeys(CROPS))
    choose("colour", colour, dict.fromkeys(("own", "grey", "rgb")))
    choose("on_error", on_error, dict.fromkeys(("refuse", "skip")))
    sides = (size,) if isinstance(size, int) else size or ()
    if not all(side >= 1 for side in sides):
        raise ValueError(f"size must be a positive number of pixels, got {size}")
    if place.is_dir():
        return image_folder.dataset(
            place.absolute(), split, size, crop=crop, colour=colour, on_error=on_error
        )
    if not place.exists():
        raise ValueError(f"there is no folder of images, and no file, at {place.absolute()}")
    suffix = place.suffix.lower()
    if suffix in SUFFIXES:
        raise ValueError(f"{place} is one image: name the folder that holds it and others")
    if suffix not in array_file.SUFFIXES or not place.is_file():
        raise ValueError(
            f"{place} is no data set: name a folder of images, or a file .npy or .npz of arrays"
        )
    return array_file.dataset(place, split, size, crop=crop, colour=colour)
