"""Codes with the true factors of what they are codes of: checked, split, and in bins."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import ArrayLike, Float, Int

__all__ = ["Labelled", "Table", "check_pair", "discretise", "labelled", "split"]

Table: TypeAlias = ArrayLike | Sequence[Sequence[float]]
"""Numbers in rows and columns: an array, or lists."""


class Labelled(NamedTuple):
    """Codes, and the factors of the examples that they stand for."""

    codes: Float[np.ndarray, "n d"]
    """One row an example."""
    factors: Int[np.ndarray, "n f"]
    """The values of each factor by their ranks, 0 to the number of values - 1."""


def labelled(
    codes: Table, factors: Table, *, least_codes: int = 1, least_factors: int = 1
) -> Labelled:
    """Codes and factors in one form.

    Args:
        codes: `[n, d]`.
        factors: `[n, f]`, each column with few different values, whole numbers or not.
        least_codes: how many columns of codes it takes.
        least_factors: how many factors it takes.

    Returns:
        Both, with the factors as whole numbers from 0.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, a factor that never
            changes, or one with fewer than two samples a value on average (a continuous factor has
            to be put in bins first, see `discretise`).

    >>> labelled([[0.5], [1.5], [2.5], [0.0]], [[7.5], [0.1], [7.5], [0.1]]).factors.T
    array([[1, 0, 1, 0]])
    """
    codes, factors = check_pair(codes, factors)
    for name, values, least in (
        ("codes", codes, least_codes),
        ("factors", factors, least_factors),
    ):
        if values.shape[1] < least:
            raise ValueError(f"{name} must have at least {least} columns, got {values.shape[1]}")
    ranks = np.empty(factors.shape, np.int64)
    for j, column in enumerate(factors.T):
        values, ranks[:, j] = np.unique(column, return_inverse=True)
        if len(values) == 1:
            raise ValueError(
                f"factors[:, {j}] is constant, {values[0]:g}, in all {len(column)} samples: "
                "a score needs samples where it changes; take more of them, or leave the factor out"
            )
        if len(column) < 2 * len(values):
            raise ValueError(
                f"factors[:, {j}] has {len(values)} values in {len(column)} samples, a score needs "
                "at least two samples a value: take more samples, or `discretise` a continuous "
                "factor first"
            )
    return Labelled(codes, ranks)


def check_pair(
    codes: Table, factors: Table
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n f"]]:
    """Codes and factors as finite matrices of one length.

    Args:
        codes: one row an example.
        factors: one row an example.

    Returns:
        Both as matrices of floats.

    Raises:
        ValueError: they are not.
    """
    pair = np.asarray(codes, np.float64), np.asarray(factors, np.float64)
    if any(values.ndim != 2 for values in pair) or len(pair[0]) != len(pair[1]):
        raise ValueError(
            "codes must be [n, d] and factors [n, f], one row an example in both, got shapes "
            f"{pair[0].shape} and {pair[1].shape}"
        )
    if len(pair[0]) == 0:
        raise ValueError("codes and factors hold no samples")
    for name, values in zip(("codes", "factors"), pair, strict=True):
        if not np.isfinite(values).all():
            raise ValueError(
                f"{name} must be finite, got {np.sum(~np.isfinite(values))} that are not"
            )
    return pair


def split(both: Labelled, held_out: float, seed: int) -> tuple[Labelled, Labelled]:
    """A random part to learn from, and the rest to judge on.

    Args:
        both: everything.
        held_out: share of the rest, in (0, 1).
        seed: of the choice.

    Returns:
        The part to learn from, then the part to judge on.

    Raises:
        ValueError: the share is out of its range, or leaves nothing to judge on, or nothing to
            learn for some factor.

    >>> both = labelled(np.arange(8.0)[:, None], np.arange(8)[:, None] % 2)
    >>> [len(part.codes) for part in split(both, 0.25, seed=0)]
    [6, 2]
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out must lie between 0 and 1, got {held_out}")
    count = len(both.codes)
    kept = count - round(held_out * count)
    order = np.random.default_rng(seed).permutation(count)
    train, test = (
        Labelled(both.codes[rows], both.factors[rows]) for rows in (order[:kept], order[kept:])
    )
    if kept == count or any(len(np.unique(column)) < 2 for column in train.factors.T):
        raise ValueError(
            f"{count} samples, {held_out:g} of them held out, are too few: need one to judge on, "
            "and two values of every factor to learn from"
        )
    return train, test


def discretise(values: Table, bins: int = 20) -> Int[np.ndarray, "n d"]:
    """Each column in bins of equal width between its least and its greatest value.

    Args:
        values: `[n, d]`.
        bins: how many; 20 as in disentanglement_lib (Locatello et al., 2019).

    Returns:
        The number of the bin, 0 to `bins - 1`; a column that is constant is all in one.

    Raises:
        ValueError: no matrix, or fewer than two bins.

    >>> discretise([[0.0], [0.3], [1.0]], bins=4).T
    array([[0, 1, 3]])
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2:
        raise ValueError(f"values must have shape [n, d], got {values.shape}")
    if bins < 2:
        raise ValueError(f"bins must be at least 2, got {bins}")
    edges = (np.histogram_bin_edges(column, bins) for column in values.T)
    found = [np.digitize(x, edge[:-1]) - 1 for x, edge in zip(values.T, edges, strict=True)]
    return np.stack(found, axis=1)
