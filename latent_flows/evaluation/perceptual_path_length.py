"""How evenly a generator spreads what is seen over its latents: the perceptual path length."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from latent_flows._transforms import in_chunks
from latent_flows._validation import choose
from latent_flows.geometry.curves import on_great_circle
from latent_flows.typing import Generator, Scalar

__all__ = ["PerceptualPathLength", "perceptual_path_length"]

WAYS = dict.fromkeys(("great circle", "line"))
AT_ONCE = 50
"""Samples that are made at once."""
TRIMMED = 0.01
"""Share of the values at each end that the trimmed mean leaves out, as published."""


class PerceptualPathLength(NamedTuple):
    """Squared speed of features along paths between draws."""

    mean: Scalar
    """Over draws; the path as a whole takes unit time."""
    trimmed: Scalar
    """The same without the lowest and the highest hundredth, as published."""
    standard_error: Scalar
    """Of the mean."""
    spread: Scalar
    """Deviation of the speed over its mean: 0 where every step is seen alike."""


def perceptual_path_length(
    key: PRNGKeyArray,
    generator: Generator,
    prior: Callable[[PRNGKeyArray], Array],
    *,
    features: Callable[[Array], Array] | None = None,
    count: int = 1000,
    along: Literal["great circle", "line"] = "great circle",
) -> PerceptualPathLength:
    r"""The squared speed of what is seen, at a random place between two random latents.

    $$ \mathbb E_{z_0, z_1, s} \Big| \frac{d}{ds} \phi\big(g(\gamma_{z_0, z_1}(s))\big) \Big|^2 $$

    The published score is its finite difference with a step of 1e-4, in the features of a network
    trained on photographs; here the derivative is exact, and the features are yours. Values of
    different features, or data, are not comparable. Lower is smoother, and a generator that makes
    one image has 0: read it beside a distance of samples from data.

    Args:
        key: a random key.
        generator: `z -> x`.
        prior: from a key to a latent.
        features: what is seen of a sample, of any shape; None: the sample itself.
        count: number of draws, at least 2.
        along: the paths; great circles about the origin suit a normal prior, lines others, such as
            StyleGAN's W.

    Returns:
        The score, with its error.

    Raises:
        ValueError: fewer than two draws, or another way.

    References:
        Karras, Laine and Aila, *A Style-Based Generator Architecture for Generative Adversarial
        Networks*, 2019, section 4.1.

    >>> double = lambda z: 2 * z
    >>> unit = lambda key: jax.random.normal(key, (50,)) / 50**0.5
    >>> found = perceptual_path_length(jax.random.key(0), double, unit, along="line")
    >>> print(jnp.round(found.mean))  # 4 |z1 - z0|^2
    8.0
    """
    choose("along", along, WAYS)
    turning = along == "great circle"
    if count < 2:
        raise ValueError(f"count must be at least 2, got {count}")

    def squared_speed(key: PRNGKeyArray) -> Scalar:
        first, second, place = jax.random.split(key, 3)
        z0, z1 = prior(first), prior(second)
        s = jax.random.uniform(place, dtype=z0.dtype)

        def seen(s: Scalar) -> Array:
            z = on_great_circle(z0, z1, s[None])[0] if turning else z0 + s * (z1 - z0)
            return generator(z) if features is None else features(generator(z))

        change = jax.jvp(seen, (s,), (jnp.ones_like(s),))[1]
        return jnp.sum(change**2)

    values = in_chunks(squared_speed, AT_ONCE)(jax.random.split(key, count))
    return _summary(values)


@jax.jit
def _summary(values: Float[Array, "n"]) -> PerceptualPathLength:
    low, high = jnp.quantile(values, jnp.array([TRIMMED, 1 - TRIMMED]))
    inner = (values >= low) & (values <= high)
    speed = jnp.sqrt(values)
    return PerceptualPathLength(
        mean=jnp.mean(values),
        trimmed=jnp.mean(values, where=inner),
        standard_error=jnp.std(values, ddof=1) / jnp.sqrt(len(values)),
        spread=jnp.std(speed) / jnp.maximum(jnp.mean(speed), jnp.finfo(speed.dtype).tiny),
    )
