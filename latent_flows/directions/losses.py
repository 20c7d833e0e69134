"""How different two samples are, where a mask says that both are known.

Each is `(x, y, mask) -> scalar`, for images `[h, w, c]` and a mask `[h, w]` of weights in [0, 1];
`mse` also for samples of any other shape, and a mask as `transformations.Weights` has it. A pixel
with weight 0 has no influence at all, also not through a blur, and its value may be anything.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from latent_flows._named_function import import_function, is_named
from latent_flows._validation import choose, floats
from latent_flows.directions.transformations import Sample, Weights, spread
from latent_flows.typing import Scalar

__all__ = ["LOSSES", "Loss", "blur", "blurred_error", "dssim", "loss", "mse"]

Loss: TypeAlias = Callable[[Sample, Sample, Weights], Scalar]
"""`(x, y, mask) -> scalar`, 0 where the samples agree."""

_NEGLIGIBLE = 1e-7  # share of the largest eigenvalue below which a blur keeps nothing


def mse(x: Sample, y: Sample, mask: Weights) -> Scalar:
    r"""Mean squared error over the known pixels, or numbers of samples that are no images.

    $$\frac{\sum_p m_p^2\, |x_p - y_p|^2}{c \sum_p m_p}$$

    Args:
        x: a sample.
        y: another.
        mask: weights of the pixels, or numbers.

    Returns:
        The error; 0 where nothing is known.

    Raises:
        ValueError: for samples that are not of floats, shapes that do not fit.

    >>> import jax.numpy as jnp
    >>> print(mse(jnp.ones((2, 2, 1)), jnp.zeros((2, 2, 1)), jnp.eye(2)))
    1.0
    """
    difference = _difference(x, y, mask)
    return jnp.sum(difference**2) / _weight(mask, x)


def blurred_error(x: Sample, y: Sample, mask: Weights, *, sigma: float = 3.0) -> Scalar:
    r"""Squared error of two images after a Gaussian blur: textures may differ, shapes may not.

    $$\frac{1}{c \sum_p m_p} \sum_{p \in \mathbb{Z}^2} \bigl| G_\sigma * (m\,(x - y)) \bigr|_p^2
      \;\propto\; \int \bigl|\mathcal{F}\{m\,(x - y)\}\, \mathcal{F}\{G_\sigma\}\bigr|^2$$

    The difference is masked before the blur, and the sum runs over the whole plane, so that neither
    undefined pixels nor the border of the frame matter. The blur is separable, and as a quadratic
    form of low rank it takes one product with a small matrix along each axis.

    Args:
        x: an image.
        y: another.
        mask: weights of the pixels.
        sigma: standard deviation of the blur in pixels; at 0 this is `mse`.

    Returns:
        The error; 0 where no pixel is known.

    Raises:
        ValueError: for images that are not of floats, shapes that do not fit, a negative `sigma`,
            or a positive one for samples that are no images.

    References:
        Plumerault, Le Borgne and Hudelot, *Controlling generative models with continuous factors
        of variations*, 2020, section 2.1 (there the mask comes after the blur).

    >>> import jax.numpy as jnp
    >>> stripes = jnp.tile(jnp.array([0.0, 1.0]), (8, 4))[..., None]
    >>> error = blurred_error(stripes, 1 - stripes, jnp.ones((8, 8)), sigma=2.0)
    >>> print(mse(stripes, 1 - stripes, jnp.ones((8, 8))), error < 0.01)
    1.0 True
    """
    if not sigma >= 0:
        raise ValueError(f"sigma must be at least 0 pixels, got {sigma}")
    return jnp.sum(blur(_difference(x, y, mask), sigma) ** 2) / _weight(mask, x)


def blur(image: Sample, sigma: float) -> Float[Array, "..."]:
    r"""What a Gaussian blur lets through of an image, in as few numbers as that takes.

    $$|b|^2 = \sum_{p \in \mathbb{Z}^2} | G_\sigma * x |_p^2$$

    Args:
        image: one image, black beyond its frame.
        sigma: standard deviation of the blur in pixels; at 0 all is let through, also of what is no
            image.

    Returns:
        Numbers that are linear in the image; the wider the blur the fewer.

    Raises:
        ValueError: for a sample that is no image, and a blur.

    >>> import jax.numpy as jnp
    >>> blur(jnp.ones((32, 32, 1)), 0.0).shape, blur(jnp.ones((32, 32, 1)), 8.0).size < 100
    ((32, 32, 1), True)
    """
    if sigma == 0:
        return image
    _check_image(image, f"a blur by {sigma:g} pixels")
    down, across = (
        jnp.asarray(_blur_root(side, float(sigma)), image.dtype) for side in image.shape[:2]
    )
    return jnp.einsum("ih,hwc,jw->ijc", down, image, across, precision="highest")


def dssim(x: Sample, y: Sample, mask: Weights, *, sigma: float = 1.5) -> Scalar:
    r"""Structural dissimilarity, from local means and covariances under a Gaussian window.

    $$\frac{1 - \mathrm{SSIM}}{2}, \qquad \mathrm{SSIM} =
      \frac{(2 \mu_x \mu_y + c_1)(2 \sigma_{xy} + c_2)}
           {(\mu_x^2 + \mu_y^2 + c_1)(\sigma_x^2 + \sigma_y^2 + c_2)},
      \quad c_1 = 0.01^2,\; c_2 = 0.03^2$$

    averaged over channels and known pixels. The window counts known pixels only: the moments are
    divided by its weight on the mask, at the border of the frame too.

    Args:
        x: an image with values in [0, 1].
        y: another.
        mask: weights of the pixels.
        sigma: standard deviation of the window in pixels.

    Returns:
        The dissimilarity, from 0 to 1; 0 where no pixel is known.

    Raises:
        ValueError: for images that are not of floats, shapes that do not fit, or a `sigma` that is
            not positive.

    References:
        Wang, Bovik, Sheikh and Simoncelli, *Image Quality Assessment: From Error Visibility to
        Structural Similarity*, 2004, eq. (13).

    >>> import jax.numpy as jnp
    >>> x = jnp.linspace(0, 1, 64).reshape(8, 8, 1)
    >>> print(dssim(x, x, jnp.ones((8, 8))) < 1e-6, dssim(x, 1 - x, jnp.ones((8, 8))) > 0.5)
    True True
    """

    import scipy.linalg

    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma} pixels")
    weights = _check(x, y, mask)
    _check_image(x, "dssim")
    known = weights > 0
    x, y = jnp.where(known, x, 0), jnp.where(known, y, 0)
    down, across = (
        jnp.asarray(scipy.linalg.toeplitz(_kernel(side, float(sigma))), x.dtype)
        for side in x.shape[:2]
    )

    def window(a: Array) -> Array:
        return jnp.einsum("ih,hwc,jw->ijc", down, a, across, precision="highest")

    total = jnp.maximum(window(weights), 1e-6)

    def mean(a: Array) -> Array:
        return window(weights * a) / total

    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    similarity = (
        (2 * mean_x * mean_y + c1)
        * (2 * covariance + c2)
        / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    )
    return jnp.sum(weights * (1 - similarity)) / (2 * _weight(weights, x))


LOSSES: Mapping[str, Loss] = MappingProxyType(
    {"blurred": blurred_error, "mse": mse, "dssim": dssim}
)
"""Every loss of this module by its name, each with its default `sigma`."""


def loss(name: str) -> Loss:
    """A loss by its name, for flags and configurations.

    Args:
        name: `"blurred"`, `"mse"` or `"dssim"`; or `package.module:function` or `file.py:function`
            for `(x, y, mask) -> scalar` of your own.

    Returns:
        The loss; for another width of its blur use `functools.partial(blurred_error, sigma=...)`.

    Raises:
        ValueError: for an unknown name, with the nearest valid one, or a file or module without
            such a function.

    >>> loss("mse").__name__
    'mse'
    """
    if is_named(name):
        return import_function(name, "loss")
    return choose("loss", name, LOSSES)


def _check(x: Sample, y: Sample, mask: Weights) -> Float[Array, "..."]:
    """The mask as floats with the axes of a sample, once dtypes and shapes are known to fit."""
    floats("a loss", x=x, y=y)
    if jnp.shape(x) != jnp.shape(y):
        raise ValueError(
            "x and y must be images of one shape, or other samples of one, got "
            f"{jnp.shape(x)} and {jnp.shape(y)}"
        )
    return spread(jnp.asarray(mask).astype(jnp.result_type(x)), x)


def _check_image(sample: Sample, who: str) -> None:
    if jnp.ndim(sample) != 3:
        raise ValueError(
            f"{who} is of images [h, w, c], and a sample of shape {jnp.shape(sample)} is none: "
            "take no blur (0), or the loss mse"
        )


def _difference(x: Sample, y: Sample, mask: Weights) -> Sample:
    """The masked difference, whatever the values of pixels that are not known."""
    mask = _check(x, y, mask)
    return mask * (jnp.where(mask > 0, x, 0) - jnp.where(mask > 0, y, 0))


def _weight(mask: Weights, x: Sample) -> Scalar:
    """How many numbers of a sample are known; at least one, so that nothing known costs nothing."""
    number = jnp.maximum(jnp.sum(mask), 1) * (jnp.size(x) // jnp.size(mask))
    return number.astype(x.dtype)


@lru_cache(maxsize=64)
def _kernel(side: int, sigma: float) -> Float[np.ndarray, "side"]:
    """A Gaussian at the distances 0 to `side - 1`, that adds up to one over all whole numbers."""
    if sigma == 0:
        return np.eye(1, side)[0]
    reach = np.arange(max(side, int(np.ceil(8 * sigma)) + 1))
    values = np.exp(-(reach**2) / (2 * sigma**2))
    return values[:side] / (2 * values.sum() - values[0])


@lru_cache(maxsize=64)
def _blur_root(side: int, sigma: float) -> Float[np.ndarray, "rank side"]:
    """A matrix `R` with `|R d|^2 = |G * d|^2`, summed over the whole line, beyond the ends too.

    The autocorrelation of the kernel is that quadratic form; the wider the blur the lower its rank.
    """

    import scipy.linalg

    half = _kernel(max(side, int(np.ceil(8 * sigma)) + 1), sigma)
    kernel = np.concatenate([half[:0:-1], half])
    autocorrelation = np.convolve(kernel, kernel)[len(kernel) - 1 :][:side]
    values, vectors = np.linalg.eigh(scipy.linalg.toeplitz(autocorrelation))
    kept = values > _NEGLIGIBLE * values[-1]
    return (vectors[:, kept] * np.sqrt(values[kept])).T
