"""The Fréchet distance between two sets of features."""

import numpy as np
from jaxtyping import Float

__all__ = ["frechet_distance"]


def frechet_distance(one: Float[np.ndarray, "n d"], other: Float[np.ndarray, "m d"]) -> float:
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
