"""The Fréchet distance between two sets of features."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from jaxtyping import Array, Float, Int, Num

__all__ = ["Judge", "frechet_distance", "realism"]

Judge: TypeAlias = Callable[[Array], tuple[Float[Array, "n d"], Float[Array, "n classes"]]]
"""From images to features and to probabilities of the classes."""


def frechet_distance(one: Num[np.ndarray, "n d"], other: Num[np.ndarray, "m d"]) -> float:
    r"""The squared Wasserstein distance of the Gaussians that fit two sets of features.

    $$ |\mu_1 - \mu_2|^2 + \mathrm{tr}\big(C_1 + C_2 - 2 (C_1 C_2)^{1/2}\big) $$

    With features of a classifier of the data it is the "FID" of images, but for the classifier:
    values of different classifiers are not comparable, nor are those of different numbers of
    images, since few images make covariances that are too small.

    Args:
        one: features of some images, at least two.
        other: features of others.

    Returns:
        The distance, 0 for equal means and covariances.

    Raises:
        ValueError: features that are not finite matrices of one width, or fewer than two rows.

    References:
        Heusel et al., *GANs Trained by a Two Time-Scale Update Rule*, 2017.

    >>> points = np.random.RandomState(0).standard_normal((100, 3))
    >>> round(frechet_distance(points, points + [3.0, 4.0, 0.0]), 6)
    25.0
    """

    from scipy import linalg

    sets = [np.asarray(points, np.float64) for points in (one, other)]
    shapes = [list(points.shape) for points in sets]
    if (
        any(points.ndim != 2 or len(points) < 2 for points in sets)
        or shapes[0][1] != shapes[1][1]
        or not all(np.isfinite(points).all() for points in sets)
    ):
        raise ValueError(
            f"expected two finite sets of features, [n, d] and [m, d] of at least 2, got {shapes}"
        )
    (mean1, cov1), (mean2, cov2) = (
        (points.mean(0), np.atleast_2d(np.cov(points, rowvar=False))) for points in sets
    )
    # The eigenvalues of C1 C2 are those of R C2 R with R the root of C1, which is symmetric.
    values, vectors = linalg.eigh(cov1)
    root = vectors * np.sqrt(np.maximum(values, 0))
    cross = np.sqrt(np.maximum(linalg.eigvalsh(root.T @ cov2 @ root), 0)).sum()
    distance = np.sum((mean1 - mean2) ** 2) + np.trace(cov1) + np.trace(cov2) - 2 * cross
    return float(max(distance, 0.0))


def realism(
    judge: Judge,
    samples: Float[Array, "n h w c"],
    train: Float[Array, "m h w c"],
    test: Float[Array, "m h w c"],
    truth: Int[np.ndarray, "m"],
) -> dict[str, float]:
    """Distances from held-out images, and what a classifier of the data makes of samples.

    Args:
        judge: the classifier.
        samples: generated images.
        train: training images; their distance is that of a perfect generator.
        test: held-out images.
        truth: their labels.

    Returns:
        The distances of samples and of training images, the mean confidence on samples and on
        held-out images, the smallest share of a class among samples, and the accuracy.

    References:
        Heusel et al., *GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
        Equilibrium*, 2017, for the distance.
    """
    features, probabilities = map(np.asarray, judge(samples))
    known, _ = judge(train)
    held_out, guesses = map(np.asarray, judge(test))
    shares = np.bincount(probabilities.argmax(-1), minlength=probabilities.shape[-1])
    return {
        "frechet": frechet_distance(features, held_out),
        "frechet_of_training_images": frechet_distance(np.asarray(known), held_out),
        "confidence": float(probabilities.max(-1).mean()),
        "confidence_of_held_out_images": float(guesses.max(-1).mean()),
        "smallest_share_of_a_class": float(shares.min() / shares.sum()),
        "classifier_accuracy": float(np.mean(guesses.argmax(-1) == truth)),
    }
