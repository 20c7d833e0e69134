"""Resampling of images by finite impulse responses: insert zeros, filter, keep every nth pixel."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

__all__ = ["Image", "fir_kernel", "upfirdn"]

Image = Float[Array, "height width channels"]


def fir_kernel(taps: Sequence[float], gain: float = 1.0) -> np.ndarray:
    """The separable filter with these taps along both axes, its sum `gain`.

    Args:
        taps: of the filter along one axis.
        gain: the sum of all.

    Returns:
        The kernel, two-dimensional, float32.

    >>> from latent_flows.generators.resampling import fir_kernel
    >>> fir_kernel([1, 1]).tolist()
    [[0.25, 0.25], [0.25, 0.25]]
    """
    kernel = np.outer(taps, taps)
    return (gain * kernel / kernel.sum()).astype(np.float32)


def upfirdn(
    x: Image,
    kernel: Float[Array, "a b"] | Float[np.ndarray, "a b"],
    *,
    up: int = 1,
    down: int = 1,
    pad: tuple[int, int] = (0, 0),
) -> Float[Array, "rows columns channels"]:
    r"""Upsamples by zeros, pads, filters and downsamples, all along both axes.

    With $u$ the image in which every pixel is followed by `up - 1` zeros, padded by `pad`,

    $$ y_{ij} = \sum_{ab} k_{ab}\, u_{i d + A - 1 - a,\; j d + B - 1 - b}, \quad d = \text{down} $$

    which is a convolution, so the kernel is mirrored against what neural networks call one.

    Args:
        x: the image.
        kernel: the filter, the same for every channel.
        up: pixels along each axis that one becomes.
        down: pixels along each axis of which one is kept.
        pad: zeros before and after each axis; negative numbers crop.

    Returns:
        An image of `(height * up + sum(pad) - a) // down + 1` by the like number of pixels.

    Raises:
        ValueError: wrong ranks, factors below one, or a filter larger than the padded image.

    References:
        Karras et al., Analyzing and Improving the Image Quality of StyleGAN (CVPR 2020).

    >>> import jax.numpy as jnp
    >>> from latent_flows.generators.resampling import fir_kernel, upfirdn
    >>> x = jnp.arange(4.0).reshape(2, 2, 1)
    >>> upfirdn(x, jnp.ones((2, 2)), up=2, pad=(1, 0))[..., 0].astype(int).tolist()
    [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    """
    if x.ndim != 3 or jnp.ndim(kernel) != 2:
        raise ValueError(
            "upfirdn takes an image [height, width, channels] and a kernel [a, b], "
            f"got shapes {x.shape} and {jnp.shape(kernel)}"
        )
    if up < 1 or down < 1:
        raise ValueError(f"up and down must be at least 1, got {up} and {down}")
    padded = [size * up + sum(pad) for size in x.shape[:2]]
    if any(size < taps for size, taps in zip(padded, jnp.shape(kernel), strict=True)):
        raise ValueError(f"a filter {jnp.shape(kernel)} does not fit into {padded} padded pixels")
    # `lax.pad` puts no zeros behind the last pixel.
    edges = (pad[0], pad[1] + up - 1, up - 1)
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), (edges, edges, (0, 0, 0)))
    weights = jnp.asarray(kernel, x.dtype)[::-1, ::-1]
    rows, columns = (
        (size - taps) // down + 1 for size, taps in zip(padded, weights.shape, strict=True)
    )
    # Shifted images, added up: XLA makes one pass of it. A convolution with one feature in and
    # one out takes ten times as long on CPU.
    shifted = (
        weights[a, b] * x[a : a + down * rows : down, b : b + down * columns : down]
        for a in range(weights.shape[0])
        for b in range(weights.shape[1])
    )
    return functools.reduce(jnp.add, shifted)
