"""What every data set is: a name, a shape, a length, and a way to fetch a batch by index."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Int

__all__ = ["Dataset", "Examples", "from_arrays", "to_unit"]

Examples = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A finite set of examples that can be fetched in any order."""

    name: str
    """What it is called, for messages and folders."""
    split: str
    """"train", "test" or what else the set offers."""
    image_shape: tuple[int, ...]
    """(height, width, channels) of "image", or `(d,)` of a vector; the shape of one row of
    the first array where there is no image, as in a set of latents."""
    length: int
    """Number of examples."""
    examples: Callable[[Int[np.ndarray, "B"]], Examples]
    """From an integer array of B indices in [0, length) to a dict of arrays with leading
    axis B: "image" in [0, 1] as float32, "label" if there is one, "factors" for sprites. Where
    examples are vectors, "image" is a vector of any finite numbers."""
    label_names: tuple[str, ...] = ()
    """What the labels 0, 1, ... are called, if they have names."""
    labels: Int[np.ndarray, "n"] | None = None
    """The label of each example, where it is known without a look at the example."""
    factor_names: tuple[str, ...] = ()
    """What the columns of "factors" are called, where that is an array `[B, f]`."""


def from_arrays(name: str, *, split: str = "train", **arrays: ArrayLike) -> Dataset:
    """A data set from arrays that share their first axis: images, labels, latents.

    An array called `image` of dtype uint8 comes out as float32 in [0, 1], converted a batch at a
    time so that it stays small in memory; one of booleans as zeros and ones. Every other array
    comes out as it is.

    Args:
        name: What to call it.
        split: Which part it is.
        **arrays: At least one array of shape (N, ...).

    Returns:
        A `Dataset` of length N.

    Raises:
        ValueError: There is no array, or their first axes differ, or are empty, or the images are
            whole numbers of more than 8 bits, whose white nobody knows.

    >>> import numpy as np
    >>> codes = from_arrays("codes", latent=np.arange(6.0).reshape(3, 2))
    >>> codes.length, codes.image_shape, codes.examples(np.array([2]))["latent"]
    (3, (2,), array([[4., 5.]]))
    """
    held = {key: np.asarray(value) for key, value in arrays.items()}
    lengths = {key: value.shape[0] if value.ndim else None for key, value in held.items()}
    if len(set(lengths.values())) != 1 or None in lengths.values() or 0 in lengths.values():
        raise ValueError(f"{name}: expected arrays of one length, at least 1, got {lengths}")
    if "image" in held:
        to_unit(held["image"][:0])  # so that a wrong dtype is known now

    def examples(indices: Int[Array | np.ndarray, "B"]) -> Examples:
        rows = {key: value[indices] for key, value in held.items()}
        if "image" in rows:
            rows["image"] = to_unit(rows["image"])
        return rows

    first = held.get("image", next(iter(held.values())))
    return Dataset(name, split, first.shape[1:], first.shape[0], examples)


def to_unit(image: np.ndarray) -> np.ndarray:
    """Images of dtype uint8 as float32 in [0, 1], black and white ones too; of floats as they are.

    Args:
        image: of any shape.

    Returns:
        The image, black at 0 and white at 1.

    Raises:
        ValueError: Images of other whole numbers.

    >>> import numpy as np
    >>> to_unit(np.array([0, 255], np.uint8))
    array([0., 1.], dtype=float32)
    """
    if image.dtype == np.uint8:
        return image * np.float32(1 / 255)
    if image.dtype == bool:
        return image.astype(np.float32)
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise ValueError(
            f"images must be of dtype uint8, or floats in [0, 1], got {image.dtype}: convert them "
            "to one of these first"
        )
    return image
