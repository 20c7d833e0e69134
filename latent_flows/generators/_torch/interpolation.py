"""Images made larger or smaller as PyTorch does it: a matrix along each side.

A matrix product is as quick as looking pixels up, and its transpose, which a derivative needs, is
another one instead of a scatter.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array

__all__ = [
    "along",
    "antialiased",
    "bins",
    "cubic",
    "grid_sample",
    "linear",
    "nearest",
    "pixel_shuffle",
]

_SHARPNESS = -0.75
"""The parameter of the cubic kernel, PyTorch's."""


def along(x: Array, sizes: Sequence[int], matrix: Callable[..., np.ndarray], *each: Any) -> Array:
    """Applies `matrix(n, size, *settings)`, of `size` rows, along each of the last axes."""
    for i, size in enumerate(sizes):
        axis = x.ndim - len(sizes) + i
        made = matrix(x.shape[axis], size, *(setting[i] for setting in each))
        x = jnp.moveaxis(jnp.tensordot(x, made.astype(x.dtype), ([axis], [1])), -1, axis)
    return x


def _sizes(x: Array, output_size: Any, scale_factors: Any) -> tuple[list[int], list[Any]]:
    """The new sizes, and the scale that is said for each."""
    if output_size is not None:
        return list(output_size), [None] * len(output_size)
    old = x.shape[x.ndim - len(scale_factors) :]
    return [int(n * by) for n, by in zip(old, scale_factors, strict=True)], list(scale_factors)


def _step(n: int, size: int, by: float | None) -> np.float32:
    """Pixels of the old image that one of the new takes."""
    return np.float32(1 / by if by else n / size)


def _centres(n: int, size: int, by: float | None, align_corners: bool) -> np.ndarray:
    """Where the pixels of the new image lie in the old."""
    if align_corners:
        return np.arange(size) * ((n - 1) / (size - 1) if size > 1 else 0.0)
    return (np.arange(size) + 0.5) * _step(n, size, by) - 0.5


def _weighted(n: int, places: Any, weights: Any) -> np.ndarray:
    """Rows with these weights at these places, those beyond an end at the end."""
    made = np.zeros((len(places[0]), n))
    for place, weight in zip(places, weights, strict=True):
        np.add.at(made, (np.arange(len(place)), np.clip(place, 0, n - 1)), weight)
    return made


def _linear(n: int, size: int, by: float | None, align_corners: bool) -> np.ndarray:
    centres = np.maximum(_centres(n, size, by, align_corners), 0)
    low = np.minimum(np.floor(centres).astype(int), n - 1)
    part = centres - low
    return _weighted(n, [low, low + 1], [1 - part, part])


def _cubic(n: int, size: int, by: float | None, align_corners: bool) -> np.ndarray:
    centres = _centres(n, size, by, align_corners)
    low = np.floor(centres).astype(int)

    def bump(distance: np.ndarray) -> np.ndarray:
        a, d = _SHARPNESS, np.abs(distance)
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        far = a * (d**3 - 5 * d**2 + 8 * d - 4)
        return np.where(d <= 1, near, np.where(d < 2, far, 0))

    places = [low + i for i in range(-1, 3)]
    return _weighted(n, places, [bump(centres - place) for place in places])


def _antialiased(n: int, size: int, by: float | None, align_corners: bool) -> np.ndarray:
    centres = _centres(n, size, by, align_corners)
    if align_corners:
        raise ValueError("an antialiased image has aligned corners")
    reach = max(float(_step(n, size, by)), 1.0)
    made = np.maximum(1 - np.abs(np.arange(n) - centres[:, None]) / reach, 0)
    return made / made.sum(1, keepdims=True)


def bins(n: int, size: int) -> np.ndarray:
    """Means of parts of nearly equal length, as adaptive pools take them."""
    starts = np.arange(size) * n // size
    ends = -(-(np.arange(size) + 1) * n // size)
    inside = (np.arange(n) >= starts[:, None]) & (np.arange(n) < ends[:, None])
    return inside / inside.sum(1, keepdims=True)


def _by_matrix(matrix: Callable[..., np.ndarray]) -> Callable[..., Array]:
    def resize(
        input: Array, output_size: Any, align_corners: bool, scale_factors: Any = None
    ) -> Array:
        sizes, scales = _sizes(input, output_size, scale_factors)
        return along(input, sizes, matrix, scales, [align_corners] * len(sizes))

    return resize


linear = _by_matrix(_linear)
"""Between the nearest pixels."""
cubic = _by_matrix(_cubic)
"""Through four pixels along each side."""
antialiased = _by_matrix(_antialiased)
"""By triangles as wide as the step."""


def nearest(input: Array, output_size: Any, scale_factors: Any = None) -> Array:
    """The pixel at or before each place."""
    sizes, scales = _sizes(input, output_size, scale_factors)
    for i, (size, by) in enumerate(zip(sizes, scales, strict=True)):
        axis = input.ndim - len(sizes) + i
        n = input.shape[axis]
        if size % n == 0 and by in (None, size // n):
            input = jnp.repeat(input, size // n, axis=axis)
        else:
            places = np.floor(np.arange(size, dtype=np.float32) * _step(n, size, by))
            input = jnp.take(input, np.minimum(places.astype(int), n - 1), axis=axis)
    return input


def pixel_shuffle(self: Array, upscale_factor: int) -> Array:
    """Channels as the pixels of a larger image."""
    *lead, channels, height, width = self.shape
    r = upscale_factor
    apart = self.reshape(*lead, channels // r**2, r, r, height, width)
    apart = jnp.moveaxis(apart, (-4, -3), (-3, -1))
    return apart.reshape(*lead, channels // r**2, height * r, width * r)


def grid_sample(
    input: Array, grid: Array, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Array:
    """Pixels at places in [-1, 1], bilinear or nearest, with zeros or the border around."""
    if interpolation_mode > 1 or padding_mode > 1:
        raise ValueError("a grid is sampled neither bilinearly nor nearest, or by reflection")
    *_, height, width = input.shape

    def pixels(place: Array, n: int) -> Array:
        return (place + 1) * (n - 1) / 2 if align_corners else ((place + 1) * n - 1) / 2

    def one(image: Array, grid: Array) -> Array:
        at = [pixels(grid[..., 1], height), pixels(grid[..., 0], width)]
        mode = "constant" if padding_mode == 0 else "nearest"
        order = 1 - interpolation_mode
        return jax.vmap(lambda plane: map_coordinates(plane, at, order, mode=mode))(image)

    return jax.vmap(one)(input, grid)
