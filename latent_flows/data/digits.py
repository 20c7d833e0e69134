"""The 1,797 handwritten digits that scikit-learn carries: real data without a download."""

import jax
import numpy as np

from latent_flows import _memory
from latent_flows._extras import extra
from latent_flows.data.dataset import Dataset, from_arrays

__all__ = ["SPLITS", "dataset"]

SPLITS = ("train", "test")


def dataset(split: str = "train", size: int | None = None) -> Dataset:
    """Digits of 8 by 8 pixels with their labels; one fifth, evenly over the labels, is for testing.

    Args:
        split: "train" (1,437 images) or "test" (360).
        size: Pixels along each side after a linear resize; 8 when left out.

    Returns:
        A `Dataset` with "image" in [0, 1], float32, and "label".

    Raises:
        ValueError: There is no such split, or the size is not positive or beyond the memory.

    References:
        Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI (1998), test part.

    >>> dataset("test").length, dataset("test", size=16).image_shape
    (360, (16, 16, 1))
    """
    with extra("evaluation"):
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

    if split not in SPLITS:
        raise ValueError(f"digits has the splits {', '.join(SPLITS)}, got {split!r}")
    if size is not None and size < 1:
        raise ValueError(f"size must be a positive number of pixels, got {size}")
    bunch = load_digits()
    rows = train_test_split(
        np.arange(len(bunch.target)), test_size=0.2, random_state=0, stratify=bunch.target
    )[SPLITS.index(split)]
    if size is not None:
        _memory.require(4 * len(rows) * size**2, f"digits of {size} pixels", "lower the image size")
    images = (bunch.images[rows, :, :, None] / 16).astype(np.float32)
    if size is not None:
        images = np.asarray(jax.image.resize(images, (len(images), size, size, 1), "linear"))
    return from_arrays("digits", split=split, image=images, label=bunch.target[rows])
