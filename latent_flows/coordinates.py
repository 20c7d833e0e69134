"""Frames: affine coordinates of a latent space in which its codes are simple.

A flow learnt in a frame is a flow of the composed generator `s -> g(origin + basis @ s)`.
"""

import warnings
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from latent_flows._extras import extra
from latent_flows.geometry.metrics import pullback_metrics
from latent_flows.typing import Generator, Latent

__all__ = [
    "AffineCoordinates",
    "active",
    "compose",
    "from_latent",
    "identity",
    "independent_components",
    "principal_axes",
    "to_latent",
    "visible_axes",
]


class AffineCoordinates(NamedTuple):
    """Coordinates `s` of the latents `z = origin + basis @ s`."""

    origin: Float[Array, "d"]
    """The latent at `s = 0`."""
    basis: Float[Array, "d m"]
    """One column an axis; `m <= d`, and directions outside their span stay at the origin."""


def to_latent(frame: AffineCoordinates, s: Float[Array, "m"]) -> Latent:
    """The latent with the coordinates `s`.

    Args:
        frame: the coordinates' frame.
        s: coordinates.

    Returns:
        `origin + basis s`.
    """
    return frame.origin + frame.basis @ s


def from_latent(frame: AffineCoordinates, z: Latent) -> Float[Array, "m"]:
    """The coordinates of a latent, by least squares where it lies outside the frame's span.

    Args:
        frame: the coordinates' frame.
        z: a latent.

    Returns:
        The coordinates `s`.

    >>> import jax.numpy as jnp
    >>> frame = AffineCoordinates(jnp.array([1.0, 0.0]), jnp.array([[2.0], [0.0]]))
    >>> from_latent(frame, to_latent(frame, jnp.array([3.0]))).tolist()
    [3.0...]
    """
    return jnp.linalg.pinv(frame.basis) @ (z - frame.origin)


def compose(generator: Generator, frame: AffineCoordinates) -> Generator:
    """The generator as a function of a frame's coordinates.

    Args:
        generator: `z -> x`.
        frame: the coordinates' frame.

    Returns:
        `s -> x`.
    """
    return lambda s: generator(to_latent(frame, s))


def identity(dim: int) -> AffineCoordinates:
    """The latent space's own coordinates.

    Args:
        dim: the length of a latent.

    Returns:
        The frame.
    """
    return AffineCoordinates(jnp.zeros(dim), jnp.eye(dim))


def principal_axes(latents: Float[Array, "n d"], count: int | None = None) -> AffineCoordinates:
    """Coordinates in which latents have mean 0 and covariance 1, by decreasing variance.

    Directions in which nothing varies are left out. Of latents that are longer than there are of
    them no covariance is formed.

    Args:
        latents: at least two.
        count: of the axes, the leading ones; by default all.

    Returns:
        The frame, with their mean as its origin.

    Raises:
        ValueError: fewer than two latents, or all the same.

    >>> frame = principal_axes(jnp.array([[0.0, 1.0], [4.0, 1.0]]))
    >>> jnp.abs(frame.basis).round(3).tolist()
    [[2.828...], [0.0]]
    """
    if len(latents) < 2:
        raise ValueError(f"principal axes need at least 2 latents, got {len(latents)}")
    mean = latents.mean(0)
    if len(latents) < latents.shape[1]:
        _, scales, axes = jnp.linalg.svd(latents - mean, full_matrices=False)
        variances, axes = scales**2 / (len(latents) - 1), axes.T
    else:
        variances, axes = jnp.linalg.eigh(jnp.atleast_2d(jnp.cov(latents.T)))
        variances, axes = variances[::-1], axes[:, ::-1]
    if not variances[0] > 0:
        raise ValueError("the latents are all the same, so they have no axes")
    kept = np.asarray(variances > 1e-6 * variances[0])
    basis = (axes * jnp.sqrt(jnp.maximum(variances, 0)))[:, kept]
    return AffineCoordinates(mean, basis[:, :count])


def visible_axes(generator: Generator, points: Float[Array, "n d"]) -> AffineCoordinates:
    r"""Orthogonal unit axes by how much a sample changes along them.

    They are the eigenvectors of the mean metric $\mathbb E[J^\top J]$, the largest first.

    Args:
        generator: `z -> x`.
        points: latents at which its metric is computed; a hundred will do.

    Returns:
        The frame, with the latent space's own origin.

    >>> frame = visible_axes(lambda z: z * jnp.array([1.0, 3.0]), jnp.zeros((1, 2)))
    >>> jnp.abs(frame.basis[:, 0]).tolist()
    [0.0, 1.0]
    """
    _, axes = jnp.linalg.eigh(pullback_metrics(generator, points).mean(0))
    return AffineCoordinates(jnp.zeros(points.shape[1]), axes[:, ::-1])


def active(std: Float[Array, "n d"], threshold: float = 0.8) -> Bool[np.ndarray, "d"]:
    """Which latent dimensions carry information: those whose posterior is narrower than the prior.

    Args:
        std: posterior standard deviations of `n` images; the prior's is 1.
        threshold: largest mean deviation of a dimension in use.

    Returns:
        True for each dimension that does.
    """
    return np.asarray(jnp.mean(std, 0)) < threshold


def independent_components(
    codes: Float[ArrayLike, "n d"],
    keep: Bool[np.ndarray, "d"] | None = None,
    *,
    restarts: int = 4,
    seed: int = 0,
) -> AffineCoordinates:
    """The frame of the codes' independent components, each of unit variance (FastICA).

    Dimensions that are not kept stay at their mean. Of several restarts the one is taken whose
    components are farthest from Gaussian, by the sum of their squared excess kurtosis; FastICA
    alone often ends in a poorer local optimum. The order is that of decreasing non-Gaussianity.

    Args:
        codes: posterior means of `n` images.
        keep: the dimensions to use; all by default. See `active`.
        restarts: random starts.
        seed: source of their randomness.

    Returns:
        The frame, with the mean of the codes as its origin.

    Raises:
        ValueError: fewer than two codes a dimension, or no dimension to keep.

    References:
        Hyvarinen and Oja, *Independent component analysis: algorithms and applications*, 2000.
    """

    with extra("evaluation"):
        from sklearn.decomposition import FastICA
        from sklearn.exceptions import ConvergenceWarning

    points = np.asarray(codes, np.float64)
    keep = np.ones(points.shape[1], bool) if keep is None else np.asarray(keep)
    count = int(keep.sum())
    if count == 0:
        raise ValueError("no latent dimension is active, so there are no components to find")
    if len(points) < 2 * count:
        raise ValueError(f"{len(points)} codes are too few to find {count} components")

    def attempt(restart: int) -> tuple[np.ndarray, np.ndarray]:
        ica = FastICA(count, whiten="unit-variance", max_iter=500, random_state=seed + restart)
        with warnings.catch_warnings():
            # A restart that has not settled competes by its score like any other.
            warnings.simplefilter("ignore", ConvergenceWarning)
            sources = ica.fit_transform(points[:, keep])
        kurtosis = np.mean(sources**4, 0) / np.mean(sources**2, 0) ** 2 - 3
        return kurtosis**2, ica.mixing_

    scores, mixing = max(map(attempt, range(restarts)), key=lambda found: found[0].sum())
    basis = np.zeros((points.shape[1], count))
    basis[keep] = mixing[:, np.argsort(-scores)]
    return AffineCoordinates(
        jnp.asarray(points.mean(0), jnp.float32), jnp.asarray(basis, jnp.float32)
    )
