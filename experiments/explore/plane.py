"""The map: a plane of the latent space, spanned by two axes of a frame."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from latent_flows import coordinates
from latent_flows.coordinates import AffineCoordinates
from latent_flows.generators import FrozenGenerator

KINDS = {
    "coordinates": "latent coordinates",
    "principal": "principal axes",
    "independent": "independent components",
    "visible": "most visible axes",
    "pinned": "through three pins",
}
"""What axes there may be, and what they are called."""
MARGIN = 0.15
"""Of the width of the codes that the map shows beyond them."""


LOOKED = 32
"""Latents at which the axes along which samples change are looked for."""
MOST = 64
"""Axes of a frame that can be looked at; a frame of thousands takes minutes to invert."""


class Plane(NamedTuple):
    """A plane through a latent, in coordinates of a frame.

    Of the coordinates `s` of latents `z = origin + B s` two are seen; what else a latent is made of
    is that of the anchor.
    """

    anchor: Float[np.ndarray, "d"]
    """A latent in the plane."""
    frame: AffineCoordinates
    first: int
    second: int

    def seen(self, latents: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n 2"]:
        """Where latents lie, seen from the front."""
        inverse = np.linalg.pinv(np.asarray(self.frame.basis))[[self.first, self.second]]
        return (np.asarray(latents) - np.asarray(self.frame.origin)) @ inverse.T

    def latents(self, places: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n d"]:
        """The latents of the plane at some places."""
        axes = np.asarray(self.frame.basis)[:, [self.first, self.second]]
        moved = self.anchor + (np.asarray(places) - self.seen(self.anchor)) @ axes.T
        return moved.astype(np.float32)

    def distance(self, latent: Float[np.ndarray, "d"]) -> float:
        """How far a latent lies in front of the plane, or behind it."""
        return float(np.linalg.norm(latent - self.latents(self.seen(latent))))


def frame_of(
    kind: str,
    generator: FrozenGenerator,
    latents: Float[np.ndarray, "n d"],
    codes: Float[np.ndarray, "m d"] | None,
    pins: Float[np.ndarray, "p d"] | None = None,
) -> AffineCoordinates:
    """The frame whose axes are of a kind.

    Args:
        kind: one of `KINDS`.
        generator: the generator.
        latents: typical ones.
        codes: of data; None where there is no encoder.
        pins: three latents, for the plane through them.

    Raises:
        ValueError: an unknown kind, latents that span no plane, no codes to find components in.
    """
    if kind == "pinned":
        return through(pins)
    if kind == "coordinates" and generator.latent_dim == 1:
        # A line, as a plane that is flat across.
        return AffineCoordinates(jnp.zeros(1), jnp.eye(1, 2))
    if kind == "coordinates":
        dim = generator.latent_dim
        return AffineCoordinates(jnp.zeros(dim), jnp.eye(dim, min(dim, MOST)))
    if kind == "principal":
        return principal_axes(latents)
    if kind == "visible":
        return coordinates.visible_axes(generator.decode, jnp.asarray(latents[:LOOKED]))
    if kind == "independent":
        if codes is None:
            raise ValueError("there are no codes of data to find independent components in")
        varies = np.std(codes, axis=0) > 0.2 * np.std(codes, axis=0).max()
        return coordinates.independent_components(codes, varies)
    raise ValueError(f"there are no axes of the kind {kind!r}; expected one of {', '.join(KINDS)}")


def principal_axes(latents: Float[np.ndarray, "n d"]) -> AffineCoordinates:
    """The axes of most variance, of long latents in few of them.

    Raises:
        ValueError: all are the same.
    """
    some = latents if latents.shape[1] <= MOST else latents[: 4 * MOST]
    return coordinates.principal_axes(jnp.asarray(some), MOST)


def through(pins: Float[np.ndarray, "p d"] | None) -> AffineCoordinates:
    """The plane through three latents, with orthogonal unit axes and the first as its origin.

    Raises:
        ValueError: they are not three, or lie on a line.
    """
    if pins is None or len(pins) != 3:
        count = 0 if pins is None else len(pins)
        raise ValueError(f"a plane goes through three latents: {count} of 3 are pinned")
    across = np.stack([pins[1] - pins[0], pins[2] - pins[0]], axis=1)
    basis, triangle = np.linalg.qr(across)
    lengths = np.abs(np.diagonal(triangle))
    if not lengths.min() > 1e-4 * max(lengths.max(), 1e-12):
        raise ValueError("the three pins lie on one line; move one of them")
    signs = np.sign(np.diagonal(triangle))
    return AffineCoordinates(jnp.asarray(pins[0]), jnp.asarray(basis * signs))


def extent(places: Float[np.ndarray, "n 2"]) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of a square map that shows nearly all of some places."""
    low, high = np.quantile(places, [0.005, 0.995], axis=0)
    middle, half = (low + high) / 2, max(float((high - low).max()) / 2, 1e-6) * (1 + 2 * MARGIN)
    left, bottom = middle - half
    right, top = middle + half
    return float(left), float(right), float(bottom), float(top)
