"""Coloured scenes by casting rays: one image from six real-valued factors, and these back from it.

The factors, and the grid of 480,000 of their combinations, are those of 3D Shapes (Burgess and Kim,
2018): the hues of floor, wall and object, the object's scale and shape, and the orientation of the
room. Geometry, light and colours are this file's own, chosen so that factors can be read off an
image: a vivid object stands on a paler floor, and a camera looks past it into a corner of paler
walls. All edges are smoothed over a pixel, in closed form.

**Room.** Along a ray `o + t (u, v, 1)` a plane is seen at an inverse depth `1 / t` that is affine
in the pixel's `(u, v)`, and the nearest plane has the largest. So how many pixels lie between a
pixel and the line where two planes meet is known, and that is what this edge is smoothed by.

**Object.** One signed distance: a square with rounded corners, extruded with rounded edges. With
half width `a`, half height `b`, radii `c` of the corners and `e` of the edges,

    cube      c = e, small          cylinder  c = a, e small
    sphere    c = e = a = b         capsule   c = e = a < b

and a shape in between mixes these four numbers. The body is convex, so its distance along a ray is
a convex function of `t`: Newton's steps from before it never pass the first point that is hit, and
where none is, halving finds the nearest miss, which smooths the outline.

**Colour.** A surface is `shade (base + chroma cos 2 pi (hue - k / 3))` in the channels `k`. The
angle of the channels' first Fourier coefficient is the hue, whatever the shade; their mean is the
shade, whatever the hue; and the ratio of both tells object from room, whatever either.
"""

import math
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latent_flows._norms import safe_sqrt
from latent_flows.data.dataset import Dataset
from latent_flows.data.drawn import Drawn, Span, drawn_dataset
from latent_flows.data.image_factors import (
    Image,
    ImageFactor,
    Measures,
    doublings,
    hue,
    moments,
    raw_moments,
    spectrum,
)
from latent_flows.typing import Scalar

__all__ = [
    "COUNT",
    "DRAWN",
    "GRID",
    "MEASURES",
    "NAME",
    "SHAPES",
    "SMALLEST",
    "Factors",
    "dataset",
    "grid_factors",
    "is_valid",
    "random_factors",
    "render",
    "silhouette",
]

NAME = "scenes"
"""Of the data set."""

SHAPES = ("cube", "cylinder", "sphere", "capsule")

SMALLEST = 16
"""Pixels a side below which the corner of the room and the shapes are not told apart."""

GRID = (10, 10, 10, 8, 4, 15)
"""How many values each factor takes in 3D Shapes, in the order of `Factors`."""

COUNT = math.prod(GRID)

RANGES = MappingProxyType(
    {"scale": (0.75, 1.25), "shape": (0.0, len(SHAPES) - 1.0), "orientation": (-30.0, 30.0)}
)
"""The range of each factor that is no hue."""

# Lengths are in units of about the object's height. The four numbers of each shape at scale 1,
# chosen so that all four silhouettes have the same area.
_BODIES = np.array(
    [
        (0.5, 0.5, 0.1, 0.1),
        (0.543, 0.6, 0.543, 0.1),
        (0.683, 0.683, 0.683, 0.683),
        (0.51, 0.84, 0.51, 0.51),
    ]
)
_AWAY, _HIGH = 5.0, 2.1  # the camera, from the object's axis and above the floor
_WALL = 2.2  # from the axis to either wall
_SIDE, _MIDDLE = 0.31, -0.265  # of the image at unit depth; it is shifted, so uprights are upright
_NORMALS = ((-math.sqrt(0.5), math.sqrt(0.5)), (math.sqrt(0.5), math.sqrt(0.5)))  # out of the walls
_CLOSE = 1.4  # farther from the axis, to the camera's side or the other, no object is
_WINDOW = ((0.05, 0.95), (0.18, 0.82))  # rows and columns that one may be seen in, of the frame

_LIGHT = np.array([-0.33, 0.8, -0.5]) / np.linalg.norm([-0.33, 0.8, -0.5])  # in the room, to it
_GLEAM = _LIGHT + np.array([0.0, 0.35, -0.94])  # where it is mirrored to the camera
_GLEAM = _GLEAM / np.linalg.norm(_GLEAM)
_DARK, _BRIGHT, _GLOSS = 0.45, 1.08, 0.16
_ROOM, _OBJECT = (0.58, 0.3), (0.44, 0.39)  # base and chroma
_PROBES = ((0.15, 0.2), (0.4, 0.22), (0.8, 0.24), (1.3, 0.22))  # lengths and weights, of the shadow
_STEPS = 9  # of the search along a ray

_SIZE = math.exp(-0.936)  # square root of the silhouette's share of the frame, at scale 1

Plane: TypeAlias = Float[Array, "rows columns"]
Point: TypeAlias = tuple[Array, Array, Array]
Body: TypeAlias = tuple[Array, ...]


class Factors(NamedTuple):
    """What a scene is made from."""

    floor_hue: Float[Array, ""] | float
    """In turns of the colour circle, 0 red, 1/3 green, 2/3 blue; 1 is 0 again."""
    wall_hue: Float[Array, ""] | float
    """The same of both walls."""
    object_hue: Float[Array, ""] | float
    """The same of the object."""
    scale: Float[Array, ""] | float
    """Size of the object, 0.75 to 1.25."""
    shape: Float[Array, ""] | float
    """0 a cube, 1 a cylinder, 2 a sphere, 3 a capsule; values between morph one into the next."""
    orientation: Float[Array, ""] | float
    """Angle of room and object in degrees, -30 to 30; at 0 the corner is opposite the camera, and
    it moves to the right as the angle grows."""


def grid_factors(index: Int[Array, ""] | int) -> Factors:
    """The factors of one of the 480,000 images of 3D Shapes, in its order.

    Args:
        index: From 0 to `COUNT - 1`; orientation varies fastest.

    Returns:
        The `Factors`.

    Raises:
        ValueError: `index` is a Python integer outside that range.

    >>> scene = grid_factors(COUNT - 1)
    >>> [round(float(value), 3) for value in scene]
    [0.9, 0.9, 0.9, 1.25, 3.0, 30.0]
    """
    if isinstance(index, int) and not 0 <= index < COUNT:
        raise ValueError(f"index must lie in [0, {COUNT}), got {index}")
    places = jnp.unravel_index(jnp.asarray(index), GRID)
    values = []
    for name, place, count in zip(Factors._fields, places, GRID, strict=True):
        low, high = RANGES.get(name, (0, 1))
        # A hue of 1 is that of 0, and not there twice.
        values.append(low + place * ((high - low) / (count - (name in RANGES))))
    return Factors(*values)


def random_factors(key: PRNGKeyArray) -> Factors:
    """Factors drawn uniformly from the ranges of 3D Shapes; the shape is one of four.

    Args:
        key: From `jax.random.key`.

    Returns:
        The `Factors`.

    >>> import jax
    >>> bool(0.75 <= random_factors(jax.random.key(0)).scale <= 1.25)
    True
    """
    hues, scale, shape, orientation = jax.random.split(key, 4)
    floor_hue, wall_hue, object_hue = jax.random.uniform(hues, (3,))
    return Factors(
        floor_hue,
        wall_hue,
        object_hue,
        _uniform(scale, "scale"),
        jax.random.randint(shape, (), 0, len(SHAPES)) * 1.0,
        _uniform(orientation, "orientation"),
    )


def _uniform(key: PRNGKeyArray, name: str) -> Scalar:
    low, high = RANGES[name]
    return jax.random.uniform(key, minval=low, maxval=high)


def render(factors: Factors, *, size: int = 64) -> Float[Array, "size size 3"]:
    r"""One scene as an antialiased RGB image with values in [0, 1].

    Differentiable in every factor: what a search along a ray has found moves as one more Newton
    step does, $t - d(t) / d'(t)$, and the nearest miss of an outline as its distance does.

    Args:
        factors: Scalars. Hues may be any real values.
        size: Pixels along each side.

    Returns:
        The image.

    Raises:
        ValueError: A factor is not a scalar, or is known and outside its range (a traced one is
            not looked at; its shape is clipped), or `size` is less than `SMALLEST`.

    References:
        Burgess and Kim, *3D Shapes Dataset* (2018), for the factors; Hart, *Sphere Tracing* (1996),
        for rendering signed distances.

    >>> image = render(Factors(0.0, 0.6, 0.1, scale=1.0, shape=2, orientation=0.0))
    >>> image.shape, bool((image >= 0).all() & (image <= 1).all())
    ((64, 64, 3), True)
    """
    if size < SMALLEST:
        raise ValueError(
            f"size must be at least {SMALLEST} pixels, to show every factor of a scene, got {size}"
        )
    _check(factors)
    dtype = jnp.result_type(float, *(jnp.asarray(value).dtype for value in factors))
    floor_hue, wall_hue, object_hue, scale, shape, orientation = (
        jnp.asarray(value, dtype) for value in factors
    )
    rays = _rays(orientation, size)
    knots = np.arange(len(SHAPES))
    body = tuple(scale * jnp.interp(shape, knots, column.astype(dtype)) for column in _BODIES.T)
    background = _room(rays, body, floor_hue, wall_hue)
    window = tuple(slice(math.floor(low * size), math.ceil(high * size)) for low, high in _WINDOW)
    covered, foreground = _object(rays.through(window), body, object_hue)
    return background.at[window].add(covered[..., None] * (foreground - background[window]))


def _check(factors: Factors) -> None:
    for name, value in zip(Factors._fields, factors, strict=True):
        if jnp.shape(value) != ():
            raise ValueError(
                f"{name} must be a scalar, got shape {jnp.shape(value)}; use jax.vmap for a batch"
            )
        if isinstance(value, jax.core.Tracer):
            continue
        low, high = RANGES.get(name, (-math.inf, math.inf))
        slack = 1e-5 * (high - low) if name in RANGES else 0
        if not (low - slack <= float(value) <= high + slack and math.isfinite(float(value))):
            where = f"lie in [{low:g}, {high:g}]" if name in RANGES else "be a finite number"
            raise ValueError(f"{name} must {where}, got {float(value):g}")


class _Rays(NamedTuple):
    """One ray a pixel, in the room's coordinates: x to the right, y up, z into the corner."""

    origin: Point
    direction: tuple[Plane, Plane, Plane]
    right: tuple[Array, Array]
    """By how much x and z of a direction change with u."""
    pixel: float
    """Side of a pixel at unit depth."""

    def at(self, t: Plane) -> Point:
        x, y, z = (
            start + t * step for start, step in zip(self.origin, self.direction, strict=True)
        )
        return x, y, z

    def through(self, window: tuple[slice, ...]) -> "_Rays":
        """Those of some pixels."""
        x, y, z = (step[window] for step in self.direction)
        return self._replace(direction=(x, y, z))


def _rays(orientation: Scalar, size: int) -> _Rays:
    turn = jnp.deg2rad(orientation)
    cos, sin = jnp.cos(turn), jnp.sin(turn)
    pixel = 2 * _SIDE / size
    steps = (jnp.arange(size, dtype=turn.dtype) + 0.5) * pixel - _SIDE
    u, v = jnp.broadcast_arrays(steps[None, :], _MIDDLE - steps[:, None])
    return _Rays(
        (_AWAY * sin, jnp.asarray(_HIGH, turn.dtype), -_AWAY * cos),
        (u * cos - sin, v, u * sin + cos),
        (cos, sin),
        pixel,
    )


def _distance(body: Body, point: Point) -> Array:
    """Signed distance to the object, which stands on the floor with its sides along the walls."""
    width, height, corner, edge = body
    x, y, z = point
    along, across = (x + z) * math.sqrt(0.5), (z - x) * math.sqrt(0.5)
    flat = width - corner
    outline = _quadrant(jnp.abs(along) - flat, jnp.abs(across) - flat) - corner
    return _quadrant(outline + edge, jnp.abs(y - height) - (height - edge)) - edge


def _quadrant(x: Array, y: Array) -> Array:
    """Signed distance to the quadrant of negative x and y."""
    outside = safe_sqrt(jnp.square(jnp.maximum(x, 0)) + jnp.square(jnp.maximum(y, 0)))
    return outside + jnp.minimum(jnp.maximum(x, y), 0)


def _room(rays: _Rays, body: Body, floor_hue: Scalar, wall_hue: Scalar) -> Image:
    x, _, z = rays.origin
    dx, dy, dz = rays.direction
    light = _LIGHT.astype(dx.dtype)
    # Inverse depths of the planes, and how those of the walls change across the image.
    floor = -dy / _HIGH
    gaps = [_WALL - (nx * x + nz * z) for nx, nz in _NORMALS]
    left, right = ((nx * dx + nz * dz) / gap for (nx, nz), gap in zip(_NORMALS, gaps, strict=True))
    slope_left, slope_right = (
        (nx * rays.right[0] + nz * rays.right[1]) / gap
        for (nx, nz), gap in zip(_NORMALS, gaps, strict=True)
    )
    wall = jnp.maximum(left, right)
    slope = jnp.where(right > left, slope_right, slope_left)
    on_right = _ramp((right - left) / ((slope_right - slope_left) * rays.pixel))
    on_floor = _ramp((floor - wall) / (jnp.sqrt(slope**2 + _HIGH**-2) * rays.pixel))

    x, _, z = rays.at(1 / jnp.maximum(floor, 0.05))
    # The shadow: how much of some balls on the way to the light the object fills.
    filled = sum(
        weight * jnp.maximum(1 - _distance(body, _moved((x, 0, z), light, length)) / length, 0)
        for length, weight in _PROBES
    )
    crease = math.prod(
        1 - 0.25 * jnp.exp(-2 * jnp.maximum(_WALL - (nx * x + nz * z), 0)) for nx, nz in _NORMALS
    )
    lit_floor = on_floor * _shade(light[1]) * crease * jnp.exp(-filled)

    foot = 1 - 0.2 * jnp.exp(-jnp.square((_HIGH + dy / wall) / 0.6))
    dark, bright = _WALL_SHADES
    lit_wall = (1 - on_floor) * (dark + (bright - dark) * on_right) * foot
    return _coloured(lit_floor, _ROOM, floor_hue) + _coloured(lit_wall, _ROOM, wall_hue)


def _object(rays: _Rays, body: Body, hue: Scalar) -> tuple[Plane, Image]:
    """How much of each pixel is covered by the object, and its colour there."""
    # Half a pixel: by so much the outline is smoothed to either side.
    half = rays.pixel * _AWAY / 2
    t, hit = _search(*jax.lax.stop_gradient((rays, body)), half)
    # One more step of Newton's, to the root or to the minimum, is what is differentiated.
    value, slope = _along(rays, body, half, t)
    bend = jax.jvp(lambda t: _along(rays, body, half, t)[1], (t,), (jnp.ones_like(t),))[1]
    still = jax.lax.stop_gradient
    t = t - jnp.where(hit, value / still(jnp.minimum(slope, -0.1)), slope / still(bend + 0.01))
    miss = _along(rays, body, half, t)[0]
    covered = jnp.where(hit, 1, jnp.clip(1 - miss / (2 * half), 0, 1))
    point = rays.at(t)
    normal = jax.grad(lambda point: _distance(body, point).sum())(point)
    foot = 1 - 0.3 * jnp.exp(-4 * jnp.maximum(point[1], 0))
    shade = _shade(_dot(normal, _LIGHT)) * foot
    return covered, _coloured(
        shade + _GLOSS * jnp.maximum(_dot(normal, _GLEAM), 0) ** 24, _OBJECT, hue
    )


def _along(rays: _Rays, body: Body, half: float, t: Plane) -> tuple[Plane, Plane]:
    """How far the points of rays are from the object that is smaller by `half`, and the slope."""
    return jax.jvp(lambda t: _distance(body, rays.at(t)) + half, (t,), (jnp.ones_like(t),))


def _search(rays: _Rays, body: Body, half: float) -> tuple[Plane, Bool[Array, "rows columns"]]:
    """Where rays first hit the object, smaller by `half`, or are nearest to it, and which do."""

    def step(_: Array, found: tuple[Plane, ...]) -> tuple[Plane, ...]:
        near, far, value, slope = found
        newton = near - value / slope
        t = jnp.where(newton < far, newton, (near + far) / 2)
        there, rise = _along(rays, body, half, t)
        falls = rise < 0
        return (
            jnp.where(falls, t, near),
            jnp.where(falls, far, t),
            jnp.where(falls, there, value),
            jnp.where(falls, rise, slope),
        )

    start = jnp.full_like(rays.direction[0], _AWAY - _CLOSE)
    first = (start, start + 2 * _CLOSE, *_along(rays, body, half, start))
    near, far, value, slope = jax.lax.fori_loop(0, _STEPS, step, first)
    return near, near - value / slope < far


def _moved(point: tuple[Array, Array | float, Array], way: np.ndarray, length: float) -> Point:
    x, y, z = (start + length * step for start, step in zip(point, way, strict=True))
    return x, jnp.asarray(y), z


def _dot(normal: Point, way: np.ndarray) -> Array:
    return normal[0] * way[0].item() + normal[1] * way[1].item() + normal[2] * way[2].item()


def _ramp(x: Array) -> Array:
    return jnp.clip(0.5 + x, 0, 1)


def _shade(cos: Array) -> Array:
    """Light wraps around, so that nothing is black and nothing has a kink."""
    return _DARK + (_BRIGHT - _DARK) * ((1 + cos) / 2) ** 2


_WALL_SHADES = tuple(
    float(_shade(-nx * _LIGHT[0] - nz * _LIGHT[2])) for nx, nz in _NORMALS
)  # left, right


def _coloured(shade: Plane, palette: tuple[float, float], hue: Scalar) -> Image:
    base, chroma = palette
    phase = 2 * math.pi * (hue - jnp.arange(3, dtype=hue.dtype) / 3)
    return shade[..., None] * (base + chroma * jnp.cos(phase))


# --- what is measured ---


def _top(image: Image) -> Float[Array, "rows columns c"]:
    return image[: max(image.shape[0] // 16, 1)]


def _bottom(image: Image) -> Float[Array, "rows columns c"]:
    return image[-max(image.shape[0] // 16, 1) :]


def _centre(image: Image) -> Float[Array, "rows columns c"]:
    height, width = image.shape[:2]
    rows, columns = max(height // 10, 1), max(width // 20, 1)
    return image[height // 2 : height // 2 + rows, width // 2 - columns : width // 2 + columns]


def _floor_hue(image: Image) -> Scalar:
    return hue(_bottom(image))


def _wall_hue(image: Image) -> Scalar:
    return hue(_top(image))


def _object_hue(image: Image) -> Scalar:
    return hue(_centre(image))


def silhouette(image: Image) -> Float[Array, "h w"]:
    """Where the object is: 1 where a pixel is as vivid as it, 0 where it is as pale as the room.

    Args:
        image: of a scene.

    Returns:
        Values in [0, 1], whatever the hues.

    Raises:
        ValueError: no image with three channels, or not of floats.

    >>> image = render(Factors(0.0, 0.3, 0.6, scale=1.0, shape=2, orientation=0.0))
    >>> print(silhouette(image)[::20, 20].round(1))
    [0. 0. 1. 0.]
    """
    mean, real, imaginary = spectrum(image)
    vivid = safe_sqrt(real**2 + imaginary**2) / jnp.maximum(mean, 1e-3)
    pale = _ROOM[1] / _ROOM[0]
    return jnp.clip((vivid - pale) / (_OBJECT[1] / _OBJECT[0] - pale), 0, 1)


def _outlined(image: Image) -> Float[Array, "h w"]:
    """The silhouette for moments in which distance counts.

    A room that a generator makes a trace too vivid would count for more there than the object. A
    smooth step, twice, leaves 0.3% of a twentieth, and all of a half.
    """
    seen = silhouette(image)
    for _ in range(2):
        seen = seen**2 * (3 - 2 * seen)
    return seen


def _size(image: Image) -> Scalar:
    return moments(silhouette(image)).size


def _scale(image: Image) -> Scalar:
    return _size(image) / _SIZE


def _upright(image: Image) -> Scalar:
    """Unlike `elongation` it has a sign, and no kink where the object is as wide as high."""
    _, _, _, var_x, var_y, _ = raw_moments(_outlined(image))
    return jnp.log(var_y / var_x)


def _orientation(image: Image) -> Scalar:
    r"""From where the corner divides the top of the walls, which are of two shades.

    With the corner at `u`, `phi = atan u`, and its distance `C` from the axis, the sine rule says
    `C sin(theta - phi) = A sin phi` for a camera at the distance `A`.
    """
    left, right = _WALL_SHADES
    share = (_top(image).mean() / _ROOM[0] - right) / (left - right)
    phi = jnp.arctan(_SIDE * (2 * jnp.clip(share, 0, 1) - 1))
    return jnp.rad2deg(phi + jnp.arcsin(_AWAY * jnp.sin(phi) / (_WALL * math.sqrt(2))))


def is_valid(image: Image) -> Bool[Array, ""]:
    """Whether an image looks like a scene: one compact vivid object in a room of two hues.

    The share of the frame that the silhouette takes lies between those of the smallest and the
    largest object, up to a quarter; the pixels where it is above 1/2 lie together, the trace of
    their covariance being at most 0.25 of their area; and floor, wall and object are each of one
    hue, the length of the mean of the Fourier coefficients being at least 0.9 of their mean length.

    Args:
        image: Values in [0, 1].

    Returns:
        A boolean.

    Raises:
        ValueError: no image with three channels, or not of floats.

    >>> image = render(Factors(0.0, 0.3, 0.6, scale=1.0, shape=0, orientation=9.0))
    >>> bool(is_valid(image)), bool(is_valid(0 * image))
    (True, False)
    """
    seen = silhouette(image)
    low, high = ((_SIZE * scale) ** 2 for scale in RANGES["scale"])
    share = seen.mean()
    sized = (share >= 0.75 * low) & (share <= 1.25 * high)
    # Far away, a room that is a trace too vivid would count for more than a small object.
    area, _, _, var_x, var_y, _ = raw_moments((seen > 0.5).astype(seen.dtype))
    compact = var_x + var_y <= 0.25 * area
    plain = [_purity(part(image)) >= 0.9 for part in (_top, _bottom, _centre)]
    return sized & compact & plain[0] & plain[1] & plain[2]


def _purity(image: Image) -> Scalar:
    _, real, imaginary = spectrum(image)
    lengths = safe_sqrt(real**2 + imaginary**2).sum()
    return safe_sqrt(real.sum() ** 2 + imaginary.sum() ** 2) / jnp.maximum(lengths, 1e-6)


def _object_x(image: Image) -> Scalar:
    return moments(_outlined(image)).x


def _object_y(image: Image) -> Scalar:
    return moments(_outlined(image)).y


def _doublings_of_size(image: Image) -> Scalar:
    return doublings(_size(image))


MEASURES = Measures(
    factors=(
        ImageFactor("floor_hue", "turns", _floor_hue, period=1.0),
        ImageFactor("wall_hue", "turns", _wall_hue, period=1.0),
        ImageFactor("object_hue", "turns", _object_hue, period=1.0),
        ImageFactor("scale", "of the middle size", _scale),
        ImageFactor("elongation", "logarithm", _upright),
        ImageFactor("orientation", "degrees", _orientation),
    ),
    is_valid=is_valid,
    # Of the object alone, not of the light of the whole image.
    instead=MappingProxyType(
        {
            "x": ImageFactor("x", "image widths", _object_x),
            "y": ImageFactor("y", "image heights", _object_y),
            "size": ImageFactor("size", "doublings", _doublings_of_size),
        }
    ),
    true_factors=Factors._fields,
    bounded=True,
)
"""What can be measured on scenes: five of the six factors, and the object's height for its width,
which says something of its shape."""


def dataset(split: str = "train", size: int | None = None) -> Dataset:
    """The grid of 480,000 scenes, rendered batch by batch on the default device.

    Args:
        split: "train" or "test", one in ten.
        size: Pixels along each side; 64 when left out.

    Returns:
        A `Dataset` with "image", "label" (the shape) and "factors" (a `Factors` of arrays).

    Raises:
        ValueError: There is no such split, or the size is less than `SMALLEST`.

    >>> import numpy as np
    >>> batch = dataset("test", size=32).examples(np.arange(5))
    >>> batch["image"].shape, batch["factors"].scale.shape
    ((5, 32, 32, 3), (5,))
    """
    return drawn_dataset(DRAWN, NAME, split, size)


DRAWN = Drawn(
    factors=Factors,
    render=render,
    grid=GRID,
    grid_factors=grid_factors,
    random_factors=random_factors,
    # Two thirds of the colour circle: half of it has two ways back.
    spans=tuple(
        Span(*RANGES[name]) if name in RANGES else Span(0.0, 4 / 3, anywhere=True)
        for name in Factors._fields
    ),
    shown=("floor_hue", "wall_hue", "object_hue", "scale", "orientation"),
    label="shape",
    channels=3,
    smallest=SMALLEST,
)
"""How a scene is made from its factors."""
