"""What fields and what follows them share: the equations at one latent, and checks of settings."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from latent_flows._factors import inverse_of
from latent_flows.directions.losses import blur
from latent_flows.directions.transformations import Sample, Weights, spread
from latent_flows.steering._least_squares import Normal, dual, mean_square, normal
from latent_flows.typing import Generator, Latent, Metric

Attributes = Callable[[Array], Float[Array, "k"]]
"""What is measured on a sample, differentiably: `x -> [k]`."""

HOLDING = 0.2
"""How much an attribute counts beside the image: its slope in units of that of the image."""
INVISIBLE = 1e-5
"""Slope below which an attribute does not count, in units of its value or of the steepest's slope:
what is rounded shall not be amplified."""


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
    check_damping(damping)


def check_damping(damping: float) -> None:
    """Rejects a damping that is not positive.

    Args:
        damping: of least squares.

    Raises:
        ValueError: saying so.
    """
    if not damping > 0:
        raise ValueError(f"damping must be positive, got {damping}: without any the latent drifts")


def check_rates(
    index: int | Sequence[int], rates: ArrayLike | Sequence[float] | None
) -> Float[Array, "m"]:
    """The rate of each attribute that moves.

    Args:
        index: which move.
        rates: of each, or None for 1.

    Returns:
        The rates.

    Raises:
        ValueError: not one for each.
    """
    count = 1 if isinstance(index, int) else len(index)
    found = jnp.ones(count) if rates is None else jnp.asarray(rates, float)
    if found.shape != (count,):
        raise ValueError(
            f"expected one rate for each of {count} attributes, got shape {found.shape}"
        )
    return found


def features(sample: Sample, mask: Weights, sigma: float) -> Float[Array, "m"]:
    """What of a sample the blur lets through, where it is known, as one vector.

    Args:
        sample: an image `[h, w, c]`, or anything without a blur.
        mask: weights of its pixels, or numbers.
        sigma: of the blur, in pixels.

    Returns:
        Numbers whose squares add up to those of the blurred sample.
    """
    return blur(spread(mask, sample) * sample, sigma).reshape(-1)


def at(
    generator: Generator,
    mask: Weights,
    z: Latent,
    sigma: float,
    damping: float,
    hold: Attributes | None = None,
) -> tuple[Normal, Float[Array, "k"]]:
    """The normal equations at a latent of the blurred sample, and of attributes that are held.

    Args:
        generator: `z -> x`.
        mask: weights of the pixels, or numbers.
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
    values, rows = value_and_slopes(lambda z: still(generator(z)), z)
    image, own = mean_square(jax.linearize(seen, z)[1], z), jnp.mean(rows**2, -1)
    own += INVISIBLE**2 * (values**2 + own.max())
    weights = HOLDING * jnp.sqrt(image / jnp.where(own > 0, own, 1))

    def both(z: Latent) -> Float[Array, "n"]:
        sample = generator(z)
        return jnp.concatenate([features(sample, mask, sigma), weights * still(sample)])

    return normal(both, z, damping), weights


def joined(*attributes: Attributes | None) -> Attributes | None:
    """Several attributes as one; None where there are none.

    Args:
        *attributes: each `x -> [k]`, or None.

    Returns:
        `x -> [sum of k]`.
    """
    known = [each for each in attributes if each is not None]
    if not known:
        return None
    return lambda x: jnp.concatenate([each(x) for each in known])


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
    return inverse_of(metric(z))


class Choice(NamedTuple):
    """Which attributes matter, by their numbers."""

    moved: tuple[int, ...]
    held: tuple[int, ...]
    limited: tuple[int, ...]
    low: Float[np.ndarray, "l"]
    """The least value of each that has limits."""
    high: Float[np.ndarray, "l"]

    @property
    def numbers(self) -> tuple[int, ...]:
        """All of them: those that move, are held, have limits."""
        return self.moved + self.held + self.limited


def choice(
    generator: Generator,
    attributes: Attributes,
    index: int | Sequence[int],
    hold: Sequence[int] | None,
    limits: Mapping[int, tuple[float, float]] | None,
    z: Latent,
) -> Choice:
    """Which attributes matter: those that move, that are held, and that have limits.

    Args:
        generator: `z -> x`.
        attributes: `x -> [k]`.
        index: which move.
        hold: which stand still, or None for all others that have no limits.
        limits: the least and the greatest value of some others.
        z: a latent, whose shape is looked at.

    Returns:
        Their numbers and limits.

    Raises:
        ValueError: attributes that are no vector, a number out of range or named twice, or limits
            that are none.
    """
    shape = jax.eval_shape(lambda z: attributes(generator(z)), z).shape
    if len(shape) != 1:
        raise ValueError(f"attributes must give one vector [k], got shape {shape}")
    count = shape[0]
    moved = (index,) if isinstance(index, int) else tuple(index)
    if not moved:
        raise ValueError("index must name at least one attribute")
    limits = dict(limits or {})
    taken = (*moved, *limits)
    held = tuple(i for i in range(count) if i not in taken) if hold is None else tuple(hold)
    numbers = (*moved, *held, *limits)
    for i in numbers:
        if not 0 <= i < count:
            raise ValueError(f"there are {count} attributes, from 0 on, and no number {i}")
        if numbers.count(i) > 1:
            raise ValueError(f"attribute {i} can only grow, or be held, or have limits")
    for i, (low, high) in limits.items():
        if not low < high:
            raise ValueError(
                f"limits of attribute {i} must be increasing, got {low:g} and {high:g}"
            )
    ends = np.array([*limits.values()], float).reshape(-1, 2)
    return Choice(moved, held, tuple(limits), ends[:, 0], ends[:, 1])


def measured_rows(
    generator: Generator, attributes: Attributes, chosen: Choice, z: Latent
) -> tuple[Float[Array, "k"], Float[Array, "k d"]]:
    """The chosen attributes of a latent's sample, and their gradients by the latent.

    Args:
        generator: `z -> x`.
        attributes: `x -> [k]`.
        chosen: which of them.
        z: the latent.

    Returns:
        Values and gradients, in the order of the choice.
    """

    def measured(z: Latent) -> Float[Array, "k"]:
        return attributes(generator(z))[jnp.array(chosen.numbers)]

    return value_and_slopes(measured, z)


def value_and_slopes(
    function: Callable[[Latent], Float[Array, "k"]], z: Latent
) -> tuple[Float[Array, "k"], Float[Array, "k d"]]:
    """A function's value and its gradients, from one pass forward.

    Args:
        function: `z -> [k]`.
        z: where.

    Returns:
        The value, and the gradient of each of its numbers.
    """

    def both(z: Latent) -> tuple[Array, Array]:
        value = function(z)
        return value, value

    slopes, value = jax.jacrev(both, has_aux=True)(z)
    return value, slopes


def least_change(
    chosen: Choice,
    values: Float[Array, "k"],
    rows: Float[Array, "k d"],
    asked: Float[Array, "k"],
    inverse: Callable[[Latent], Latent],
    damping: float,
) -> Latent:
    """The least change of a latent that changes attributes as asked, and oversteps no limits.

    An attribute with limits counts only where the change that ignores it would lead it out of
    them, or further out.

    Args:
        chosen: which attributes.
        values: of them.
        rows: their gradients.
        asked: by how much each shall change.
        inverse: `b -> G^-1 b`.
        damping: see `dual`.

    Returns:
        The change.
    """
    free = len(rows) - len(chosen.limited)
    change = dual(rows[:free], inverse, damping)(asked[:free])
    if not chosen.limited:
        return change
    drift, value = rows[free:] @ change, values[free:]
    above, below = value >= chosen.high, value <= chosen.low
    active = (above & (drift > asked[free:])) | (below & (drift < asked[free:]))
    rows = rows.at[free:].multiply(active[:, None])
    return dual(rows, inverse, damping)(asked.at[free:].multiply(active))
