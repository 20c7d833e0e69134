"""Correlation of what is measured along a traversal with how far it has gone."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Num

from latent_flows._norms import safe_sqrt
from latent_flows._validation import choose

__all__ = ["Correlation", "correlation"]


class Correlation(NamedTuple):
    """How `f` attributes go with the time of `k` traversals, averaged over their starts."""

    signed: Float[Array, "k f"]
    """Mean of the correlations, in [-1, 1]: +1 if the attribute rises from every start alike."""
    absolute: Float[Array, "k f"]
    """Mean of their absolute values, in [0, 1]: 1 even where it rises from some and falls from
    others."""
    counted: Float[Array, "k"]
    """Share of the paths that count: those with at least three times that could be measured."""


def correlation(
    ts: Num[ArrayLike, "t"],
    attributes: Num[ArrayLike, "k n t f"],
    *,
    method: Literal["pearson", "spearman"] = "pearson",
    valid: Bool[ArrayLike, "k n t"] | None = None,
) -> Correlation:
    r"""Correlation of attributes with time along `n` paths of each of `k` traversals.

    Of each path and attribute `a` it is $\operatorname{cov}(t, a_t) / (\sigma_t \sigma_{a})$, with
    `spearman` that of the ranks (ties share the mean rank). It says how steadily an attribute
    changes and not how much: the faintest steady change has correlation 1, so read it next to
    `dominance`. An attribute that does not change has none, 0.

    Args:
        ts: times.
        attributes: measured on what is generated, `[k, n, t, f]`.
        method: `"pearson"` for linear, `"spearman"` for monotone dependence.
        valid: which could be measured; all by default. Numbers that are not finite never count.

    Returns:
        A `Correlation`; zeros for a traversal with no path that counts.

    Raises:
        ValueError: shapes that do not fit, fewer than three times, or an unknown method.

    References:
        Tzelepis, Tzimiropoulos and Patras, *WarpedGANSpace*, 2021, section 4.2, and Song et al.,
        *Latent Traversals in Generative Models as Potential Flows*, 2023, who correlate the step
        with attributes that networks predict.

    >>> import jax.numpy as jnp
    >>> ts = jnp.arange(4.0)
    >>> rises, falls = jnp.stack([ts, ts**3], -1), jnp.stack([-ts, ts], -1)
    >>> found = correlation(ts, jnp.stack([rises, falls])[None], method="spearman")
    >>> found.signed.round(3).tolist(), found.absolute.round(3).tolist()
    ([[0.0, 1.0]], [[1.0, 1.0]])
    """
    ranked = choose("method", method, {"pearson": False, "spearman": True})
    # Whole numbers are attributes too, of which differences must not wrap.
    ts, attributes = 1.0 * jnp.asarray(ts), 1.0 * jnp.asarray(attributes)
    shape = jnp.shape(attributes)
    if len(shape) != 4 or jnp.shape(ts) != shape[2:3] or shape[2] < 3:
        raise ValueError(
            "expected times [t], at least three, and attributes [k, n, t, f], got shapes "
            f"{jnp.shape(ts)} and {shape}"
        )
    counts = jnp.isfinite(attributes).all(-1)
    if valid is not None:
        if jnp.shape(valid) != shape[:3]:
            raise ValueError(f"valid must have shape {shape[:3]}, got {jnp.shape(valid)}")
        counts &= valid

    def of_path(values: Float[Array, "t f"], counts: Bool[Array, "t"]) -> Float[Array, "f"]:
        one = lambda column: _correlation(ts, column, counts, ranked)  # noqa: E731
        return jax.vmap(one, 1)(jnp.where(counts[:, None], values, 0))

    found = jax.vmap(jax.vmap(of_path))(attributes, counts)
    kept = counts.sum(-1) >= 3
    share = kept / jnp.maximum(kept.sum(-1, keepdims=True), 1)
    mean = lambda values: jnp.einsum("knf,kn->kf", values, share)  # noqa: E731
    return Correlation(mean(found), mean(jnp.abs(found)), kept.mean(-1))


def _correlation(
    a: Float[Array, "t"], b: Float[Array, "t"], counts: Bool[Array, "t"], ranked: bool
) -> Array:
    """Of the entries that count; 0 where one of the two changes by no more than rounding does."""
    moves = jnp.asarray(True)
    pair = []
    for values in (a, b):
        low = jnp.min(jnp.where(counts, values, jnp.inf))
        high = jnp.max(jnp.where(counts, values, -jnp.inf))
        size = jnp.maximum(jnp.abs(low), jnp.abs(high))
        moves &= high - low > 16 * jnp.finfo(values.dtype).eps * size
        pair.append(_ranks(values, counts) if ranked else values)
    count = jnp.maximum(counts.sum(), 1)
    centred = [jnp.where(counts, v - jnp.sum(jnp.where(counts, v, 0)) / count, 0) for v in pair]
    # Scaled first, so that squares of small numbers are no zeros.
    largest = (jnp.max(jnp.abs(v)) for v in centred)
    x, y = (v / jnp.where(top > 0, top, 1) for v, top in zip(centred, largest, strict=True))
    norm = safe_sqrt(jnp.sum(x**2) * jnp.sum(y**2))
    return jnp.where(moves & (norm > 0), jnp.sum(x * y) / jnp.where(norm > 0, norm, 1), 0)


def _ranks(values: Float[Array, "t"], counts: Bool[Array, "t"]) -> Float[Array, "t"]:
    """The rank of each entry among those that count, ties sharing their mean."""
    below = (values[None] < values[:, None]) & counts
    equal = (values[None] == values[:, None]) & counts
    return (below.sum(1) + equal.sum(1) / 2).astype(values.dtype)
