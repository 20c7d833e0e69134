"""Factors that can be measured on an image, in the units of the transformations that change them.

Barycentre and area on sprites, where these are the ground truth; moments of the light elsewhere, in
place of a saliency model.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from latent_flows.data import sprites
from latent_flows.directions.transformations import Image
from latent_flows.typing import Scalar

NAMES = {
    "translate_x": "x",
    "translate_y": "y",
    "zoom": "size",
    "brightness": "light",
    "contrast": "contrast",
    "saturation": "saturation",
}
"""What the transformations change that have a measure; of the others only images are shown."""
UNITS = {
    "x": "image widths",
    "y": "image heights",
    "size": "doublings",
    "light": "doublings",
    "contrast": "doublings",
    "saturation": "doublings",
}
ALWAYS = ("x", "y", "size")
"""Factors that are measured whatever is asked for: what else changes is leakage."""
_FAINT = 0.25  # share of the least mass of data below which an image shows nothing to be measured
_AT_ONCE = 50  # images that are measured together
_ITSELF = Partial(jnp.asarray)  # what an image is made of, if it is there already


def radius(image: Image) -> Scalar:
    """Root mean square distance of the light from its barycentre, in image widths.

    >>> round(float(radius(jnp.zeros((9, 10, 1)).at[4, jnp.array([2, 6])].set(1.0))), 3)
    0.2
    """
    plane = image.mean(-1)
    height, width = plane.shape
    found = sprites.moments(plane)
    across = (jnp.arange(width) + 0.5) / width - found.x
    down = ((jnp.arange(height) + 0.5) / height - found.y) * height / width
    squares = across**2 + down[:, None] ** 2
    return jnp.sqrt(jnp.sum(plane * squares) / jnp.maximum(found.mass, 1e-6))


def light(image: Image) -> Scalar:
    """Mean brightness of what is bright, whatever its size: each pixel weighted by its light.

    >>> round(float(light(jnp.zeros((8, 8, 1)).at[2:5].set(0.5))), 3)
    0.5
    """
    return jnp.sum(image**2) / jnp.maximum(jnp.sum(image), 1e-6)


def measurable(transformations: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the factors to measure: `ALWAYS`, and what else transformations change.

    >>> measurable(("translate_x", "brightness", "hue"))
    ('x', 'y', 'size', 'light')
    """
    wanted = {NAMES[name] for name in transformations if name in NAMES}
    return tuple(name for name in UNITS if name in ALWAYS or name in wanted)


def measure(data: str, names: tuple[str, ...], image: Image) -> Float[Array, "f"]:
    """Factors of one image, by their names, each raised by `t` where its transformation is by `t`.

    Args:
        data: name of the data set: on sprites the size is that of the area.
        names: of the factors.
        image: any image.
    """

    def doublings(value: Scalar) -> Scalar:
        return jnp.log2(jnp.maximum(value, 1e-6))

    found = sprites.moments(image.mean(-1))
    known = {
        "x": lambda: found.x,
        "y": lambda: found.y,
        "size": lambda: doublings(found.size if data == "sprites" else radius(image)),
        "light": lambda: doublings(light(image)),
        "contrast": lambda: doublings(jnp.std(image)),
        "saturation": lambda: doublings(jnp.abs(image - image.mean(-1, keepdims=True)).mean()),
    }
    return jnp.stack([known[name]() for name in names])


def survey(
    names: tuple[str, ...],
    data: str,
    points: Float[Array, "n ..."],
    image: Callable[[Array], Image] = _ITSELF,
) -> tuple[np.ndarray, np.ndarray, float]:
    """The central 98% of each factor over images, and how faint an image may be.

    Args:
        names: of the factors.
        data: name of the data set.
        points: the images, or what `image` makes one of.
        image: a pytree, such as a generator that was hoisted.
    """

    @jax.jit
    def look(image: Callable[[Array], Image], points: Array) -> tuple[Array, Array]:
        def one(point: Array) -> tuple[Array, Scalar]:
            made = image(point)
            return measure(data, names, made), made.mean()

        return jax.lax.map(one, points, batch_size=_AT_ONCE)

    values, means = look(image, points)
    low, high = np.quantile(np.asarray(values), [0.01, 0.99], axis=0)
    return low, high, _FAINT * float(jnp.quantile(means, 0.01))
