"""Control of a factor, judged by measurements on the images."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Num

from latent_flows._extras import extra
from latent_flows._norms import safe_sqrt
from latent_flows.typing import Scalar

__all__ = ["ControlScore", "control_score", "reach", "sequence_control"]


class ControlScore(NamedTuple):
    """How well a factor does what it is asked, and how little the others do."""

    asked: Float[Array, "a"]
    """The values asked for."""
    mean: Float[Array, "a"]
    """The factor measured at each, averaged over samples; NaN where no sample is valid."""
    bias: Float[Array, "a"]
    """`mean - asked`, less its average over all measurements where the constant is free."""
    spread: Float[Array, "a"]
    """Standard deviation of the measured factor over samples, at each value."""
    range: Float[Array, "2"]
    """The least and the greatest `mean`."""
    r2: Scalar
    """Of measured by asked, with a slope of one: 1 at perfect control, and negative where the
    asked value is a worse guess than a constant."""
    correlation: Scalar
    """Between asked and measured values; its square is the `r2` with any slope."""
    leakage: Float[Array, "k"]
    """Root mean square of each other factor about its sample's mean, as a share of its range."""
    leakage_span: Float[Array, "k"]
    """The largest less the least of each other factor, averaged over samples, in the same unit."""
    valid: Scalar
    """Share of the measurements that count."""


def control_score(
    asked: Num[ArrayLike, "a"],
    measured: Num[ArrayLike, "n a"],
    others: Num[ArrayLike, "n a k"] | None = None,
    ranges: Num[ArrayLike, "k"] | None = None,
    *,
    valid: Bool[ArrayLike, "n a"] | None = None,
    up_to_constant: bool = True,
) -> ControlScore:
    r"""What became of each of `n` samples when a factor was set to each of `a` values.

    $$R^2 = 1 - \frac{\sum_{ij} (m_{ij} - a_j - c)^2}{\sum_{ij} (m_{ij} - \bar m)^2}, \qquad
      \text{spread}_j = \operatorname{std}_i m_{ij}, \qquad
      \text{leakage}_k = \frac{1}{r_k} \sqrt{\mathbb{E}_{ij} (o_{ijk} - \bar o_{ik})^2}$$

    Args:
        asked: the values, in the units of the measurement.
        measured: the factor measured on each image, `[n, a]`.
        others: other factors of the same images, `[n, a, k]`.
        ranges: the whole range of each of these, positive; by default what `others` cover.
        valid: which images could be measured, such as those on which anything is to be seen.
            Numbers that are not finite never count.
        up_to_constant: whether the best constant `c` is allowed for, since a direction that was
            not calibrated knows its factor only up to one.

    Returns:
        A `ControlScore`; `leakage` is empty without `others`.

    Raises:
        ValueError: for shapes that do not fit.

    References:
        Plumerault, Le Borgne and Hudelot, *Controlling generative models with continuous factors
        of variations*, 2020, section 3.2, for the spread.

    >>> import jax.numpy as jnp
    >>> asked = jnp.array([0.0, 1.0, 2.0])
    >>> score = control_score(asked, asked + jnp.array([[0.1], [-0.1]]))
    >>> [round(float(part), 3) for part in (*score.spread, score.r2)]
    [0.1, 0.1, 0.1, 0.985]
    """
    # Whole numbers are measurements too, of which differences must not wrap.
    asked, measured = 1.0 * jnp.asarray(asked), 1.0 * jnp.asarray(measured)
    if asked.ndim != 1 or measured.ndim != 2 or measured.shape[1:] != asked.shape:
        raise ValueError(
            f"expected values asked for [a] and measurements [n, a], got shapes {asked.shape} and "
            f"{measured.shape}"
        )
    if others is None:
        others = jnp.zeros((*measured.shape, 0), measured.dtype)
    others = 1.0 * jnp.asarray(others)
    if others.ndim != 3 or others.shape[:2] != measured.shape:
        raise ValueError(
            f"others must have shape [{measured.shape[0]}, {measured.shape[1]}, k], "
            f"got {others.shape}"
        )
    if ranges is not None and jnp.shape(ranges) != others.shape[2:]:
        raise ValueError(
            f"ranges must have shape {others.shape[2:]}, one for each other factor, "
            f"got {jnp.shape(ranges)}"
        )
    counts = jnp.isfinite(measured) & jnp.isfinite(others).all(-1)
    if valid is not None:
        if jnp.shape(valid) != measured.shape:
            raise ValueError(f"valid must have shape {measured.shape}, got {jnp.shape(valid)}")
        counts &= jnp.asarray(valid, bool)

    def average(a: Array, axis: int | None = None, where: Array = counts) -> Array:
        return jnp.mean(jnp.where(where, a, 0), axis, where=where)

    mean = average(measured, 0)
    spread = safe_sqrt(average((measured - mean) ** 2, 0))
    error = measured - asked
    constant = average(error) if up_to_constant else jnp.zeros((), error.dtype)
    deviation, wanted = measured - average(measured), asked - average(asked + 0 * measured)
    variance = average(deviation**2)
    tiny = jnp.sqrt(jnp.finfo(measured.dtype).tiny)  # derivatives divide by its square

    def at_least_tiny(divisor: Array) -> Array:
        # Not `maximum`, which lets the slopes of a tiny divisor through, and those overflow.
        return jnp.where(divisor > tiny, divisor, tiny)

    scales = safe_sqrt(variance * average(wanted**2 + 0 * measured))
    correlation = average(deviation * wanted) / jnp.where(scales > 0, scales, 1)

    per_factor = counts[..., None]
    if ranges is None:
        ranges = _span(others, per_factor, (0, 1))
    scale = at_least_tiny(jnp.asarray(ranges, others.dtype))
    # Samples that cannot be measured anywhere have no mean, and nothing to say about leakage.
    own = jnp.sum(jnp.where(per_factor, others, 0), 1, keepdims=True) / jnp.maximum(
        per_factor.sum(1, keepdims=True), 1
    )
    squares = jnp.mean(
        jnp.where(per_factor, (others - own) ** 2, 0),
        (0, 1),
        where=jnp.broadcast_to(per_factor, others.shape),
    )
    spans = _span(others, per_factor, (1,))
    span = jnp.mean(spans, 0, where=jnp.broadcast_to(counts.any(1)[:, None], spans.shape))
    return ControlScore(
        asked,
        mean,
        mean - asked - constant,
        spread,
        jnp.stack([jnp.nanmin(mean), jnp.nanmax(mean)]),
        1 - average((error - constant) ** 2) / at_least_tiny(variance),
        correlation,
        safe_sqrt(squares) / scale,
        span / scale,
        counts.mean(),
    )


def _span(values: Array, counts: Array, axis: tuple[int, ...]) -> Array:
    """The largest less the least value that counts, 0 where none does."""
    low = jnp.min(jnp.where(counts, values, jnp.inf), axis)
    high = jnp.max(jnp.where(counts, values, -jnp.inf), axis)
    return jnp.where(high >= low, high - low, 0)


def reach(amounts: Float[np.ndarray, "a"], error: Float[np.ndarray, "a"], bound: float) -> float:
    """The largest change up to which the error stays within a bound, on both sides of 0.

    Between two amounts the error is taken to grow linearly. Once it was too large it counts as too
    large for every change beyond.

    Args:
        amounts: the changes asked for; of two that differ in sign alone the worse counts.
        error: of each; one that is not finite is not known.
        bound: the largest error that is allowed.

    Returns:
        The change: 0 at least, and the largest of the amounts where none has too large an error.

    Raises:
        ValueError: for arrays that do not fit.

    >>> import numpy as np
    >>> reach(np.array([-2.0, -1, 0, 1, 2]), np.array([0.4, 0.1, 0, 0, 0.3]), 0.25)
    1.5
    """
    amounts, error = np.asarray(amounts, float), np.asarray(error, float)
    if amounts.ndim != 1 or amounts.shape != error.shape or not len(amounts):
        raise ValueError(
            f"expected amounts [a] with an error each, got shapes {amounts.shape} and {error.shape}"
        )
    size = np.abs(amounts)
    steps = np.unique(np.round(size, 9))
    worst = np.array([_largest(error[np.isclose(size, step)]) for step in steps])
    worst = np.maximum.accumulate(np.where(np.isfinite(worst), worst, np.inf))
    beyond = np.flatnonzero(worst > bound)
    if not len(beyond):
        return float(steps[-1])
    first = int(beyond[0])
    if first == 0 or not np.isfinite(worst[first]):
        return float(steps[max(first - 1, 0)])
    return float(np.interp(bound, worst[first - 1 : first + 1], steps[first - 1 : first + 1]))


def sequence_control(
    asked: Float[np.ndarray, "n t"],
    changes: Float[np.ndarray, "n t f"],
    valid: Bool[np.ndarray, "n t"],
    own: int,
    horizon: int,
) -> dict[str, float]:
    """How one factor was controlled along sequences, in units of the ranges of the factors.

    Args:
        asked: change asked for, at times from 0 on.
        changes: change of every factor.
        valid: which of the images are of such data.
        own: which of them was to change.
        horizon: the last time that was trained on; twice that is the last here.

    Returns:
        `r2` of the achieved against the asked change up to the horizon; `leakage`, the mean
        absolute change of the factor that changes most of those that should not, over that of
        the asked change, at the horizon, left out where there is but one factor; mean absolute
        `error` there and `far_error` at the end; shares of valid images.

    >>> import numpy as np
    >>> asked = np.arange(5.0)[None] / 10
    >>> changes = np.stack([asked, 0.1 * asked], axis=-1)
    >>> found = sequence_control(asked, changes, asked >= 0, 0, 2)
    >>> [round(found[name], 3) for name in ("r2", "leakage", "error", "far_error")]
    [1.0, 0.1, 0.0, 0.0]
    """
    with extra("evaluation"):
        from sklearn.metrics import r2_score

    achieved = changes[..., own]
    trained = slice(0, horizon + 1)
    at = np.abs(changes[:, horizon]).mean(0)
    error = np.abs(achieved - asked).mean(0)
    rest = np.delete(at, own)
    leakage = {"leakage": float(rest.max() / np.abs(asked[:, horizon]).mean())} if len(rest) else {}
    return {
        "r2": float(r2_score(asked[:, trained].ravel(), achieved[:, trained].ravel())),
        **leakage,
        "error": float(error[horizon]),
        "far_error": float(error[-1]),
        "far_deviation": float(achieved[:, -1].std() - asked[:, -1].std()),
        "valid": float(valid[:, horizon].mean()),
        "far_valid": float(valid[:, -1].mean()),
    }


def _largest(values: Float[np.ndarray, "m"]) -> float:
    known = values[np.isfinite(values)]
    return float(known.max()) if len(known) else np.nan
