"""Likelihoods of an image: log-densities for `evaluation.elbo`, `evaluation.iwae_bound`, and VAEs.

Each is a sum over pixels and channels, in nats.
"""

from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from latent_flows._validation import floats
from latent_flows.typing import Scalar

__all__ = ["bernoulli", "discretised_logistic", "gaussian"]

Pixels: TypeAlias = Float[Array | np.ndarray, "..."]
"""Of an image, or parameters of their distributions."""


def bernoulli(x: Pixels, logits: Pixels) -> Scalar:
    r"""Each pixel is white with a probability $p = \sigma(\text{logit})$.

    $$ \sum x \log p + (1 - x) \log(1 - p) $$

    Of grey values it is no probability: compare only with other models that are trained so.

    Args:
        x: an image in [0, 1].
        logits: of its shape.

    Returns:
        The log-likelihood of the sample, in nats.

    Raises:
        ValueError: an image that is not of floats, two shapes.

    >>> import jax.numpy as jnp
    >>> round(float(bernoulli(jnp.ones((2, 2, 1)), jnp.zeros((2, 2, 1)))), 3)
    -2.773
    """
    _check(x, logits)
    # The same with one logarithm, which takes longer than all else in the last layer of a decoder.
    return jnp.sum(x * logits - jax.nn.softplus(logits))


def gaussian(x: Pixels, mean: Pixels, std: ArrayLike) -> Scalar:
    r"""Each pixel is normal, $\sum \log N(x; \mu, \sigma^2)$.

    A density: where images have few values it grows without bound as the deviation shrinks.

    Args:
        x: an image.
        mean: of its shape.
        std: positive; one number, or one a pixel.

    Returns:
        The log-likelihood of the sample, in nats.

    Raises:
        ValueError: an image that is not of floats, two shapes.

    >>> import jax.numpy as jnp
    >>> round(float(gaussian(jnp.zeros(2), jnp.zeros(2), 1.0)), 3)
    -1.838
    """
    _check(x, mean)
    return jnp.sum(jax.scipy.stats.norm.logpdf(x, mean, std))


def discretised_logistic(
    x: Pixels,
    mean: Pixels,
    scale: ArrayLike,
    *,
    levels: int = 256,
) -> Scalar:
    r"""Each pixel is a logistic variable, rounded to one of a few grey values.

    With $\sigma$ the logistic function, and $h = 1 / (2 (\text{levels} - 1))$ half a grey value,

    $$ P(x) = \sigma\Big(\frac{x + h - \mu}{s}\Big) - \sigma\Big(\frac{x - h - \mu}{s}\Big), $$

    where all below belongs to black and all above to white. A probability, so bounds in it are of
    images as they are stored; divided by `log 2` and the number of pixels they are bits a pixel.

    Args:
        x: an image in [0, 1], which is rounded to the nearest grey value.
        mean: of its shape.
        scale: `s`, positive; one number, or one a pixel. The deviation is `1.81 s`.
        levels: grey values, at least 2; 256 for images of 8 bits.

    Returns:
        The log-likelihood of the sample, in nats.

    Raises:
        ValueError: an image that is not of floats, two shapes, or fewer levels.

    References:
        Kingma et al., *Improving Variational Inference with Inverse Autoregressive Flow*, 2016,
        section 6; the ends as in Salimans et al., *PixelCNN++*, 2017, eq. 2.

    >>> import jax, jax.numpy as jnp
    >>> grey = jnp.arange(4) / 3
    >>> chance = jax.vmap(lambda x: discretised_logistic(x, jnp.array(0.4), 0.3, levels=4))
    >>> round(float(jnp.exp(chance(grey)).sum()), 4)
    1.0
    """
    _check(x, mean)
    if levels < 2:
        raise ValueError(f"levels must be at least 2, got {levels}")
    level = jnp.round(x * (levels - 1))
    centre, half = level / (levels - 1), 0.5 / (levels - 1)
    above, below = (centre + half - mean) / scale, (centre - half - mean) / scale
    # sigma(a) - sigma(b) = sigma(a) sigma(-b) (1 - exp(b - a)): no difference of equal numbers.
    inside = jnp.log(-jnp.expm1(-2 * half / jnp.asarray(scale, mean.dtype)))
    to_top, to_bottom = jax.nn.log_sigmoid(-below), jax.nn.log_sigmoid(above)
    between = to_top + to_bottom + inside
    return jnp.sum(
        jnp.where(level <= 0, to_bottom, jnp.where(level >= levels - 1, to_top, between))
    )


def _check(x: Pixels, parameters: Pixels) -> None:
    floats("a likelihood", x=x)
    if jnp.shape(x) != jnp.shape(parameters):
        raise ValueError(
            f"expected parameters of the image's shape {jnp.shape(x)}, got {jnp.shape(parameters)}"
        )
