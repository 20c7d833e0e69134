"""A data set by its name."""

import difflib
import os
from collections.abc import Mapping
from types import MappingProxyType

from latent_flows.data import digits, sprites, surface, tfds
from latent_flows.data.dataset import Dataset
from latent_flows.data.image_factors import ANY_IMAGE, Measures

__all__ = ["BUILT_IN", "MEASURES", "load", "measures"]

BUILT_IN = {
    "sprites": sprites.dataset,
    "digits": digits.dataset,
    "surface": surface.dataset,
}
"""Sets that need no files."""

MEASURES: Mapping[str, Measures] = MappingProxyType({sprites.NAME: sprites.MEASURES})
"""Sets whose images are measured in ways of their own."""


def load(
    name: str,
    *,
    split: str = "train",
    size: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """A set that needs no files, or any image data set of TensorFlow Datasets prepared on disk.

    Args:
        name: `"sprites"`, `"digits"`, `"surface"` or a TFDS name such as `"mnist"`.
        split: "train", "test" or what else the set has.
        size: Pixels along each side; the set's own size when left out.
        data_dir: Folder of prepared TFDS sets; `TFDS_DATA_DIR` when left out.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: No set has that name (the nearest names are given), or it is not prepared, or
            has no such split or size.

    >>> load("digits").image_shape
    (8, 8, 1)
    >>> load("sprits")
    Traceback (most recent call last):
    ...
    ValueError: no data set is called 'sprits'; did you mean sprites...
    """
    if name in BUILT_IN:
        return BUILT_IN[name](split, size)
    known = [*BUILT_IN, *tfds.names(data_dir)]
    if name.partition(":")[0].partition("/")[0] not in known:
        near = difflib.get_close_matches(name, known, n=5) or list(BUILT_IN)
        raise ValueError(f"no data set is called {name!r}; did you mean {', '.join(near)}?")
    return tfds.dataset(name, split, size, data_dir)


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
