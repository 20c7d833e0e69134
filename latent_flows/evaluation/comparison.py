"""Families of traversals compared at equal length in data space.

At equal length what is compared is where traversals go, not how far. Each is scaled to the same
mean length; then a classifier has to tell them apart (variation predictability), and where factors
can be measured on the samples it is said which of them each traversal changes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from latent_flows import flows
from latent_flows.data.image_factors import ImageFactor, Measures, measure, unwrapped
from latent_flows.evaluation import traversals
from latent_flows.evaluation.vp import vp_score
from latent_flows.typing import Field, Generator

__all__ = [
    "Family",
    "compare_at_length",
    "dominated_factors",
    "factor_ranges",
    "follow_family",
    "mean_of_ended",
    "predictability",
]

SEGMENTS = 10
"""Steps in which the data-space length of a traversal is measured."""
PIECE = 64
"""Starting points that are followed at once."""
MOST_STEPS = 256
"""Of the solver along a traversal, which takes some ten, and of warps a hundred. Where a field is
so stiff that it takes more, it leads no farther: all that are followed at once would wait for it.
"""


class Family(NamedTuple):
    """A family of traversals under one interface."""

    name: str
    """For tables."""
    generator: Generator
    """From a latent to a sample."""
    field: Field
    """`(parameters, t, z) -> dz/dt`."""
    params: PyTree
    """One entry a traversal, stacked."""
    starts: Float[Array, "k n m"]
    """Where the traversals of each member start."""
    solver: str = ""
    """Of those of `flows.solver`, a low-order one that takes a step a segment, where the field is
    dear; by default one that chooses its steps."""


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _traverse(
    generator: Generator,
    field: Field,
    solver: str,
    horizon: float,
    params: PyTree,
    starts: Float[Array, "k n m"],
    scale: Float[Array, "k"],
) -> traversals.Traversal:
    """Traversals `[K, n, ...]` of every member of a family from its starting points."""
    ts = jnp.linspace(0.0, horizon, SEGMENTS + 1)
    options = {"solver": flows.solver(solver)} if solver else {"max_steps": MOST_STEPS}

    def one(params: PyTree, scale: Array, z0: Array) -> traversals.Traversal:
        return traversals.traverse(
            generator, partial(field, params), z0, ts, scale=scale, **options
        )

    def family(args: Any) -> traversals.Traversal:
        params, starts, scale = args
        return jax.vmap(partial(one, params, scale))(starts)

    return jax.lax.map(family, (params, starts, scale))


def follow_family(
    family: Family, horizon: float, scale: Float[Array, "k"], count: int
) -> traversals.Traversal:
    """The traversals of a family from its first `count` starting points.

    In pieces of one size, so that every measurement of a method is one compiled program; compiling
    an adaptive solver takes longer than running it.

    Args:
        family: the traversals.
        horizon: time of each.
        scale: factor on the velocity of each member.
        count: how many starting points.

    Returns:
        Paths `[K, count, ...]`.
    """
    starts = family.starts[:, :count]
    padded = jnp.pad(starts, ((0, 0), (0, -count % PIECE), (0, 0)), mode="wrap")
    pieces = [
        _traverse(
            family.generator, family.field, family.solver, horizon, family.params, piece, scale
        )
        for piece in jnp.split(padded, padded.shape[1] // PIECE, axis=1)
    ]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1)[:, :count], *pieces)


def compare_at_length(
    key: PRNGKeyArray,
    family: Family,
    length: float,
    horizon: float,
    *,
    starts: int = 128,
    pairs: int = 1024,
    measures: Measures | None = None,
    ranges: Float[Array, "f"] | None = None,
    **vp: Any,
) -> dict[str, Any]:
    """One row of a comparison at a given data-space length.

    Args:
        key: a random key.
        family: the traversals.
        length: that their mean lengths shall have.
        horizon: time of a traversal.
        starts: starting points from which it is measured what changes.
        pairs: pairs of samples of each traversal for variation predictability; 0 leaves it out.
        measures: what can be measured on the samples, if that shall be.
        ranges: of these factors in the data, see `factor_ranges`.
        **vp: more of `predictability`.

    Returns:
        What was reached and measured, by name.
    """
    count = len(jax.tree.leaves(family.params)[0])
    few = min(PIECE, starts)
    scale = traversals.equal_length_scale(
        lambda scale: _mean_lengths(follow_family(family, horizon, scale, few)),
        jnp.full(count, length),
    )
    paths = follow_family(family, horizon, scale, max(starts, pairs))
    measured = jax.tree.map(lambda leaf: leaf[:, :starts], paths)
    lengths = _mean_lengths(measured)
    row: dict[str, Any] = {
        "method": family.name,
        "traversals": count,
        "length": float(lengths.mean()),
        "shortest": float(lengths.min()),
    }
    if measures is not None and ranges is not None:
        row |= dominated_factors(measured, measures, ranges)
    return row | (predictability(key, paths, pairs, **vp) if pairs else {})


def mean_of_ended(values: Float[Array, "k n"], ended: Bool[Array, "k n"]) -> Float[Array, "k"]:
    """The mean of each member's traversals over those that came to their ends.

    Args:
        values: one of each traversal.
        ended: whether it came to its end, `Traversal.ok`.

    Returns:
        The means; not a number where less than half of them did.

    >>> values, ended = jnp.array([[1.0, jnp.inf]]), jnp.array([[True, False]])
    >>> print(mean_of_ended(values, ended), mean_of_ended(values, jnp.zeros((1, 2), bool)))
    [1.] [nan]
    """
    return jnp.where(ended.mean(1) < 0.5, jnp.nan, jnp.mean(values, 1, where=ended))


def _mean_lengths(paths: traversals.Traversal) -> Float[Array, "k"]:
    return mean_of_ended(paths.length, paths.ok)


def predictability(
    key: PRNGKeyArray,
    paths: traversals.Traversal,
    pairs: int,
    *,
    fractions: Sequence[float] = (0.01, 0.1),
    steps: int = 150,
    seeds: int = 3,
) -> dict[str, float]:
    """Variation predictability of the pairs of first and last samples, by shares that are learnt.

    Args:
        key: a random key.
        paths: traversals `[K, n, ...]`; those that came to no end have no pair.
        pairs: of each traversal.
        fractions: shares of the pairs that a classifier learns from.
        steps: of its training.
        seeds: classifiers of each share.

    Returns:
        Mean and deviation of the accuracy, by name; those alone of which each class has a pair.

    References:
        Zhu, Xu and Tao, *Learning Disentangled Representations with Latent Variation
        Predictability*, 2020.
    """
    count = len(paths.samples)
    ends = paths.samples[:, :pairs, jnp.array([0, -1])]
    ended = np.flatnonzero(paths.ok[:, :pairs])
    before, after = jnp.moveaxis(ends.reshape(-1, *ends.shape[2:])[ended], 1, 0)
    labels = jnp.repeat(jnp.arange(count), pairs)[ended]
    row = {}
    for fraction in fractions:
        if round(fraction * len(labels)) < count:
            continue

        def score(key: Array, fraction: float = fraction) -> Any:
            return vp_score(
                key,
                before,
                after,
                labels,
                train_fraction=fraction,
                steps=steps,
                learning_rate=2e-3,
            )

        accuracy = jax.vmap(score)(jax.random.split(key, seeds)).accuracy
        row[f"vp@{fraction:.0%}"] = float(accuracy.mean())
        row[f"vp@{fraction:.0%} sd"] = float(accuracy.std())
    return row


def dominated_factors(
    paths: traversals.Traversal, measures: Measures, ranges: Float[Array, "f"]
) -> dict[str, Any]:
    """Which factor each traversal changes, from its first and last sample.

    Args:
        paths: traversals `[K, n, ...]`.
        measures: the factors, and which samples are valid.
        ranges: of the factors.

    Returns:
        What `dominance` says, on average and of the worst traversal, with the shares of valid
        samples at the end.
    """
    ends = jnp.stack([paths.samples[:, :, 0], paths.samples[:, :, -1]])
    (before, after), (valid_first, valid_last) = _seen(measures, ends)
    after = unwrapped(measures.factors, before, after)
    valid_last &= paths.ok
    result = traversals.dominance(before, after, valid_first & valid_last, ranges)
    return {
        "share": float(result.share.mean()),
        "worst share": float(result.share.min()),
        "sign": float(result.sign_consistency.mean()),
        "valid": float(valid_last.mean()),
        "worst valid": float(valid_last.mean(1).min()),
        "winners": [measures.factor_names[i] for i in result.winner.tolist()],
        "factors": len(set(result.winner.tolist())),
        "shares": result.share.tolist(),
        "signs": result.sign_consistency.tolist(),
        "changes": result.change.tolist(),
        "valid_each": valid_last.mean(1).tolist(),
    }


def factor_ranges(measures: Measures, images: Float[Array, "n h w c"]) -> Float[Array, "f"]:
    """Width of the central 98% of each factor over images of data.

    Args:
        measures: what is measured.
        images: of data.

    Returns:
        The widths.

    >>> from latent_flows.data.image_factors import X
    >>> images = jnp.zeros((2, 4, 4, 1)).at[jnp.arange(2), 1, jnp.array([0, 3])].set(1.0)
    >>> print(f"{factor_ranges(Measures((X,)), images)[0]:.3f}")
    0.735
    """
    values, _ = _seen(measures, images)
    low, high = jnp.quantile(values, jnp.array([0.01, 0.99]), axis=0)
    return high - low


def _seen(
    measures: Measures, images: Float[Array, "*n h w c"]
) -> tuple[Float[Array, "*n f"], Bool[Array, "*n"]]:
    """What is measured on images, and whether they are valid."""
    flat = images.reshape(-1, *images.shape[-3:])
    values, valid = _seen_at_once(measures.factors, measures.is_valid, flat)
    lead = images.shape[:-3]
    return values.reshape(*lead, -1), valid.reshape(lead)


@partial(jax.jit, static_argnums=(0, 1))
def _seen_at_once(
    factors: tuple[ImageFactor, ...],
    is_valid: Callable[[Float[Array, "h w c"]], Bool[Array, ""]],
    images: Float[Array, "n h w c"],
) -> tuple[Float[Array, "n f"], Bool[Array, "n"]]:
    # One program: taken one by one, its hundred operations are compiled one by one too.
    return jax.vmap(partial(measure, factors))(images), jax.vmap(is_valid)(images)
