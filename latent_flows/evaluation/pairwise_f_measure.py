"""The F-measure over pairs: how well clusters agree with labels, whatever either are called."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import ArrayLike, Int, Shaped

from latent_flows._extras import extra

__all__ = ["named_after", "pairwise_f_measure"]


def pairwise_f_measure(
    labels: Shaped[ArrayLike, "n"] | Sequence[int | str],
    clusters: Shaped[ArrayLike, "n"] | Sequence[int | str],
) -> float:
    r"""The harmonic mean of precision and recall over pairs of points.

    $$F = \frac{2 P R}{P + R} = \frac{2 |S \cap T|}{|S| + |T|}$$

    where $T$ are the pairs of points of one label and $S$ those of one cluster.

    Args:
        labels: `[n]`, the true groups, of numbers or names.
        clusters: `[n]`, the groups that were found.

    Returns:
        The measure, in [0, 1]; 0 where no pair of points has a label or a cluster in common.

    Raises:
        ValueError: no two vectors of one length.

    References:
        Manning, Raghavan and Schütze, *Introduction to Information Retrieval*, 2008, section 16.3.

    >>> pairwise_f_measure([0, 0, 1, 1], [1, 1, 0, 0])
    1.0
    >>> pairwise_f_measure([0, 0, 1, 1], [0, 0, 0, 0])
    0.5
    """
    truth, found = np.asarray(labels), np.asarray(clusters)
    if truth.ndim != 1 or truth.shape != found.shape:
        raise ValueError(
            "labels and clusters must be vectors with one entry for each point, got shapes "
            f"{truth.shape} and {found.shape}"
        )
    both = np.stack([np.unique(groups, return_inverse=True)[1] for groups in (truth, found)], 1)
    table = np.unique(both, axis=0, return_counts=True)[1]
    right, of_labels, of_clusters = (
        _pairs(counts) for counts in (table, np.bincount(both[:, 0]), np.bincount(both[:, 1]))
    )
    return 2 * right / max(of_labels + of_clusters, 1)


def named_after(labels: Int[np.ndarray, "n"], found: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """The clusters, named after the labels so that most points have their own.

    Args:
        labels: the true groups.
        found: the clusters, by number.

    Returns:
        For each point the label of its cluster; clusters that no label is left for have new ones.

    >>> named_after(np.array([7, 7, 9, 9]), np.array([1, 1, 0, 1]))
    array([7, 7, 9, 7])
    """
    with extra("evaluation"):
        from scipy.optimize import linear_sum_assignment
        from sklearn.metrics.cluster import contingency_matrix

    table = contingency_matrix(labels, found)
    names, clusters = np.unique(labels), np.unique(found)
    fresh = labels.max() + 1 + np.arange(len(clusters))  # for clusters that no label is left for
    rows, columns = linear_sum_assignment(table, maximize=True)
    fresh[columns] = names[rows]
    return fresh[np.searchsorted(clusters, found)]


def _pairs(counts: Int[np.ndarray, "g"]) -> int:
    """Pairs of points within groups of these sizes."""
    return int((counts.astype(np.int64) * (counts - 1)).sum()) // 2
