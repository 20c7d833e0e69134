"""What fields and what follows them share: the equations at one latent, and checks of settings."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent_flows.directions.losses import blur
from latent_flows.directions.transformations import Mask
from latent_flows.steering._least_squares import Normal, mean_square, normal
from latent_flows.typing import Generator, Latent, Metric

Attributes = Callable[[Array], Float[Array, "k"]]
"""What is measured on a sample, differentiably: `x -> [k]`."""

HOLDING = 0.2
"""How much an attribute that is held counts: its slope in units of that of the image."""


def check_settings(blur: float, damping: float) -> None:
    """Rejects a blur or damping that makes no sense.

    Args:
        blur: in pixels, at least 0.
        damping: positive.

    Raises:
        ValueError: naming it.
    """
    if not blur >= 0:
        raise ValueError(f"blur must be at least 0 pixels, got {blur}")
    if not damping > 0:
        raise ValueError(f"damping must be positive, got {damping}: without any the latent drifts")


def features(image: Array, mask: Mask, sigma: float) -> Float[Array, "m"]:
    """What of an image the blur lets through, where it is known, as one vector.

    Args:
        image: `[h, w, c]`.
        mask: weights of its pixels.
        sigma: of the blur, in pixels.

    Returns:
        Numbers whose squares add up to those of the blurred image.
    """
    return blur(mask[..., None] * image, sigma).reshape(-1)


def at(
    generator: Generator,
    mask: Mask,
    z: Latent,
    sigma: float,
    damping: float,
    hold: Attributes | None = None,
) -> tuple[Normal, Float[Array, "k"]]:
    """The normal equations at a latent of the blurred image, and of attributes that are held.

    Args:
        generator: `z -> [h, w, c]`.
        mask: weights of the pixels.
        z: where.
        sigma: of the blur.
        damping: in units of the mean of the diagonal.
        hold: attributes `x -> [k]` that count beside the image.

    Returns:
        The equations, and by what each attribute is multiplied in them.
    """

    def seen(z: Latent) -> Float[Array, "m"]:
        return features(generator(z), mask, sigma)

    if hold is None:
        return normal(seen, z, damping), jnp.zeros(0, z.dtype)
    still = hold
    rows = jax.jacobian(lambda z: still(generator(z)))(z)
    image, own = mean_square(jax.linearize(seen, z)[1], z), jnp.mean(rows**2, -1)
    weights = HOLDING * jnp.sqrt(image / jnp.where(own > 0, own, 1))

    def both(z: Latent) -> Float[Array, "n"]:
        sample = generator(z)
        return jnp.concatenate([features(sample, mask, sigma), weights * still(sample)])

    return normal(both, z, damping), weights


def inverse(metric: Metric | None, z: Latent) -> Callable[[Latent], Latent]:
    """`b -> G^-1 b` at a latent.

    Args:
        metric: `z -> G(z)`, or None for the identity.
        z: where.

    Returns:
        The function.
    """
    if metric is None:
        return lambda b: b
    factor = jax.scipy.linalg.cho_factor(metric(z))
    return lambda b: jax.scipy.linalg.cho_solve(factor, b)


def choice(generator: Generator, attributes: Attributes, index: int, hold: Any, z: Latent) -> Array:
    """Which attributes matter: the one that grows, and those that are held.

    Args:
        generator: `z -> x`.
        attributes: `x -> [k]`.
        index: which grows.
        hold: which stand still, or None for all others.
        z: a latent, whose shape is looked at.

    Returns:
        Their numbers, the one that grows first.

    Raises:
        ValueError: attributes that are no vector, an index out of range, or held as well.
    """
    shape = jax.eval_shape(lambda z: attributes(generator(z)), z).shape
    if len(shape) != 1:
        raise ValueError(f"attributes must give one vector [k], got shape {shape}")
    count = shape[0]
    others = [i for i in range(count) if i != index] if hold is None else [*hold]
    for i in (index, *others):
        if not 0 <= i < count:
            raise ValueError(f"there are {count} attributes, from 0 on, and no number {i}")
    if index in others:
        raise ValueError(f"attribute {index} cannot grow and be held at the same time")
    return jnp.array([index, *others])
