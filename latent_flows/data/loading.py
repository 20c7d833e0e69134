"""A data set by its name."""

import difflib
import os
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from latent_flows._extras import MissingExtra
from latent_flows.data import digits, own_files, scenes, sprites, surface, tfds
from latent_flows.data.dataset import Dataset
from latent_flows.data.drawn import Drawn
from latent_flows.data.image_factors import ANY_IMAGE, Measures
from latent_flows.data.image_file import Crop
from latent_flows.data.image_folder import Colour, OnError, Size

__all__ = ["BUILT_IN", "DRAWN", "MEASURES", "is_own", "load", "locate", "measures"]

BUILT_IN = {
    "sprites": sprites.dataset,
    "scenes": scenes.dataset,
    "digits": digits.dataset,
    "surface": surface.dataset,
}
"""Sets that need no files."""

MEASURES: Mapping[str, Measures] = MappingProxyType(
    {sprites.NAME: sprites.MEASURES, scenes.NAME: scenes.MEASURES}
)
"""Sets whose images are measured in ways of their own."""

DRAWN: Mapping[str, Drawn] = MappingProxyType(
    {sprites.NAME: sprites.DRAWN, scenes.NAME: scenes.DRAWN}
)
"""Sets whose images are drawn from their factors, and can be drawn from any others."""


def load(
    name: str | os.PathLike[str],
    *,
    split: str = "train",
    size: Size = None,
    data_dir: str | os.PathLike[str] | None = None,
    crop: Crop = "centre",
    colour: Colour = "own",
    on_error: OnError = "refuse",
) -> Dataset:
    """A set that needs no files, an image set of TensorFlow Datasets, or data of your own.

    Data of your own are a folder of images of any size, with subfolders as labels, or a file `.npy`
    or `.npz` of images or vectors (`latent_flows.data.image_folder`, `latent_flows.data.array_file`
    say what they may hold). One in ten is held out as "test", by a hash of the file's path in the
    folder or of the number of the row: what is added moves nothing from one part to the other.
    Nothing is written into the folder.

    Args:
        name: `"sprites"`, `"scenes"`, `"digits"`, `"surface"`, a TFDS name such as `"mnist"`, or a
            path. A folder with the name of a set is written `./mnist`.
        split: "train", "test" or what else the set has; "all" of your own data.
        size: Pixels along each side, of your own data also height and width; the set's own size
            when left out, if all images have the same.
        data_dir: Folder of prepared TFDS sets; `TFDS_DATA_DIR` when left out.
        crop: Of your own data, how images of other proportions are brought to the size: the
            "centre" as large as it can be, "pad" all of it with black on two sides, "stretch" it.
        colour: Of your own data, whether images are "grey" or "rgb"; by default grey if all are.
        on_error: Of your own data, whether to "refuse" a folder with a broken image, or to "skip"
            the image and say so.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: No set has that name (the nearest names are given), or it is not prepared, or
            has no such split or size; a setting is only for your own data; or these are broken, or
            leave open what their numbers mean, and the message says what to do.

    >>> load("digits").image_shape
    (8, 8, 1)
    >>> load("sprits")
    Traceback (most recent call last):
    ...
    ValueError: no data set is called 'sprits'; did you mean sprites...
    """
    if not isinstance(name, str):
        name = os.fspath(os.path.abspath(name))
    if is_own(name, data_dir):
        return own_files.dataset(name, split, size, crop=crop, colour=colour, on_error=on_error)
    usual = {"crop": (crop, "centre"), "colour": (colour, "own"), "on_error": (on_error, "refuse")}
    if other := [setting for setting, (value, plain) in usual.items() if value != plain]:
        raise ValueError(
            f"{', '.join(other)} is for folders of images and files of your own; {name} is none"
        )
    if not (size is None or isinstance(size, int)):
        raise ValueError(f"size must be one number of pixels for {name}, got {size}")
    if name in BUILT_IN:
        return BUILT_IN[name](split, size)
    known = [*BUILT_IN, *tfds.names(data_dir)]
    if _root(name) not in known:
        near = difflib.get_close_matches(name, known, n=5) or list(BUILT_IN)
        raise ValueError(
            f"no data set is called {name!r}; did you mean {', '.join(near)}? There is no such "
            "folder or file either"
        )
    return tfds.dataset(name, split, size, data_dir)


def is_own(name: str, data_dir: str | os.PathLike[str] | None = None) -> bool:
    """Whether a name is the path of data of your own, and of no set that `load` knows.

    Args:
        name: as in `load`.
        data_dir: as in `load`.

    Returns:
        Whether it is a path.

    >>> is_own("sprites"), is_own("./sprites")
    (False, True)
    """
    return own_files.is_path(name, partial(_is_known, data_dir))


def locate(name: str, data_dir: str | os.PathLike[str] | None = None) -> str:
    """A path as it is found from any working folder; a name of a set as it is.

    Args:
        name: as in `load`.
        data_dir: as in `load`.

    Returns:
        The absolute path, or the name.

    >>> locate("sprites")
    'sprites'
    """
    return own_files.located(name, partial(_is_known, data_dir))


def _is_known(data_dir: str | os.PathLike[str] | None, name: str) -> bool:
    if name in BUILT_IN:
        return True
    try:
        return _root(name) in tfds.names(data_dir)
    except MissingExtra:
        return False


def _root(name: str) -> str:
    """The name of a TFDS set, without its configuration and its version."""
    return name.partition(":")[0].partition("/")[0]


def measures(name: str | None) -> Measures:
    """What can be measured on the images of a data set, or of a generator that learnt them.

    Args:
        name: of the set, as in `load`; None where it is not known.

    Returns:
        Its `Measures`, those of any image where it has none of its own.

    >>> measures("sprites").factor_names
    ('x', 'y', 'size', 'elongation')
    >>> measures("mnist").factor_names
    ('x', 'y', 'size', 'light', 'contrast')
    """
    return ANY_IMAGE if name is None else MEASURES.get(name, ANY_IMAGE)
