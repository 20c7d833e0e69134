"""A curved surface with a hole in it, as points in space: data whose geometry is known.

The points are those of the graph of a smooth function over a ring, `[u, v, height(u, v)]`, brought
into [0, 1] by one affine map a coordinate, with a little Gaussian noise. A point is kept as an
"image" of one pixel with three channels, so that whatever learns images learns this.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from latent_flows.data.dataset import Dataset, from_arrays
from latent_flows.typing import Scalar

__all__ = ["MARGIN", "NOISE", "SECTORS", "SIZES", "dataset", "height", "immersion"]

SIZES = {"train": 4000, "test": 1000}
"""Points of each split."""
INNER, OUTER = 0.4, 1.0
"""Radii of the ring."""
SECTORS = 3
"""The label of a point is the third of the ring that it lies in, counted from the u axis."""
NOISE = 0.005
"""Deviation of the noise, in units of the range of the data."""
MARGIN = 0.1
"""Of the range, left free on either side for the noise."""


def height(uv: Float[Array, "2"]) -> Scalar:
    r"""The surface over the plane, with values in [-1, 1].

    $$h(u, v) = \sin(\tfrac{\pi}{2} u)\, \cos(\pi v)$$

    Args:
        uv: a place on the plane, `(u, v)`.

    Returns:
        The height there.
    """
    return jnp.sin(jnp.pi / 2 * uv[0]) * jnp.cos(jnp.pi * uv[1])


def immersion(uv: Float[Array, "2"]) -> Float[Array, "1 1 3"]:
    """The noiseless point over a place of the plane, in [0, 1], shaped as an image of one pixel.

    Args:
        uv: coordinates with a radius between `INNER` and `OUTER`.

    Returns:
        The point; a smooth map without folds, so it can be pulled back.

    Raises:
        ValueError: the coordinates are not two numbers.

    >>> import jax.numpy as jnp
    >>> immersion(jnp.array([1.0, 0.0])).round(3).tolist()
    [[[0.9..., 0.5, 0.9...]]]
    """
    if jnp.shape(uv) != (2,):
        raise ValueError(f"expected two coordinates, got shape {jnp.shape(uv)}")
    point = jnp.stack([uv[0], uv[1], height(uv)])
    return (0.5 + (0.5 - MARGIN) * point)[None, None]


def dataset(split: str = "train", size: int | None = None) -> Dataset:
    """Noisy points spread evenly over the ring's area, the same every time.

    Args:
        split: "train" (4,000 points) or "test" (1,000).
        size: must be left out: there are no pixels to resize.

    Returns:
        A `Dataset` with "image" of shape (1, 1, 3), "label" (the sector) and "factors" (`[u, v]`).

    Raises:
        ValueError: there is no such split, or a size was given.

    >>> found = dataset("test").examples(np.arange(4))
    >>> found["image"].shape, found["factors"].shape
    ((4, 1, 1, 3), (4, 2))
    """
    if split not in SIZES:
        raise ValueError(f"surface has the splits {', '.join(SIZES)}, got {split!r}")
    if size is not None:
        raise ValueError(f"size must be left out for surface, which has no pixels, got {size}")
    # numpy promises that `RandomState` never changes its stream.
    random = np.random.RandomState(list(SIZES).index(split))
    radius = np.sqrt(random.uniform(INNER**2, OUTER**2, SIZES[split]))
    angle = random.uniform(0, 2 * np.pi, SIZES[split])
    uv = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    noiseless = np.asarray(jax.vmap(immersion)(jnp.asarray(uv, jnp.float32)))
    points = noiseless + NOISE * random.standard_normal(noiseless.shape)
    return from_arrays(
        "surface",
        split=split,
        image=points.astype(np.float32),
        label=(angle * SECTORS / (2 * np.pi)).astype(np.int64) % SECTORS,
        factors=uv.astype(np.float32),
    )
