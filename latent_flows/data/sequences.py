"""Sequences of images in which one known factor changes, made on the fly from any data set.

A sequence starts at `x_0`, made from one example of a data set, and ends at `x_T`; only the factor
`k` changes, by equal steps. For transformed images and for rendered data a frame is a
differentiable function of the example and of time, for use inside `jit`. For sets that hold an
image for every combination of factors (dSprites, Shapes3D) the frames are looked up by index when
a batch is fetched, and the same function picks one of them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from latent_flows._validation import choose
from latent_flows.data.dataset import Dataset
from latent_flows.data.drawn import Drawn, split_rows
from latent_flows.data.grids import GRIDS, Grid, rows_by_factors
from latent_flows.data.image_file import Crop
from latent_flows.data.image_folder import Colour, OnError
from latent_flows.data.loading import DRAWN, load
from latent_flows.data.parts import load_part
from latent_flows.data.subset import take
from latent_flows.directions.transformations import ENTRIES
from latent_flows.typing import Scalar

__all__ = [
    "FRAMES",
    "Change",
    "Image",
    "Sequences",
    "grid_of",
    "known_factors",
    "load_sequences",
    "sequences",
]

FRAMES = 9
"""Images of a sequence, `T + 1`, as published."""

Image: TypeAlias = Float[Array, "h w c"]
Change: TypeAlias = Callable[[Array, Scalar], Image]
"""`(example, s) -> image`, for the share `s` in [0, 1] of a factor's whole change."""


@dataclass(frozen=True)
class Sequences:
    """A data set of starting points, and what each known factor makes of one of them."""

    dataset: Dataset
    """Its examples have one entry, "example": an image, the factors it is rendered from, or all
    frames of all factors."""
    factors: tuple[str, ...]
    """The K names of what may change."""
    frames: int
    """Images of a sequence, `T + 1`."""
    image_shape: tuple[int, int, int]
    """(height, width, channels) of a frame."""
    changes: tuple[Change, ...]
    """For each factor, `(example, s) -> image`, `s` from 0 (the start) to 1 (the end)."""

    def frame(self, example: Array, k: int | Int[Array, ""], t: ArrayLike) -> Image:
        """The image `x_t` of the sequence in which the factor `k` changes.

        Args:
            example: One "example" of the data set.
            k: Which factor, from 0. If it is traced, every factor's image may be computed.
            t: Time from 0 to `frames - 1`; frames that are looked up have whole times only, and the
                nearest is taken.

        Returns:
            The image, in [0, 1].

        Raises:
            ValueError: `k` is a Python integer outside [0, K).

        >>> moved = sequences(load("digits"), ("rotation",))
        >>> moved.frame(jnp.ones((8, 8, 1)), 0, 4.0).shape
        (8, 8, 1)
        """
        share = jnp.asarray(t, jnp.result_type(float)) / (self.frames - 1)
        if isinstance(k, int):
            if not 0 <= k < len(self.factors):
                raise ValueError(f"k must lie in [0, {len(self.factors)}), got {k}")
            return self.changes[k](example, share)
        return jax.lax.switch(k, self.changes, example, share)

    def sequence(self, example: Array, k: int | Int[Array, ""]) -> Float[Array, "T1 h w c"]:
        """All frames `x_0, ..., x_T` of the sequence in which the factor `k` changes.

        >>> moved = sequences(load("digits"), ("rotation",))
        >>> moved.sequence(jnp.ones((8, 8, 1)), 0).shape
        (9, 8, 8, 1)
        """
        return jax.vmap(partial(self.frame, example, k))(jnp.arange(self.frames, dtype=float))


def sequences(dataset: Dataset, factors: Sequence[str], *, frames: int = FRAMES) -> Sequences:
    """Sequences from the images of a data set, or from the factors of rendered ones.

    The factors of images are `"scale"` (1 to 1.8 in equal steps), `"rotation"` (0 to 80 degrees)
    and every transformation of `latent_flows.directions` by its name, over a fixed range. With
    `"hue"` (two thirds of a turn) or `"saturation"` among them, grey images are put into the red
    channel of a colour image first.

    The factors of sprites are `"x"`, `"y"`, `"orientation"` (80 degrees), `"scale"` and `"shape"`.
    So that a sequence can go up by half of a factor's range, every `x_0` lies in the lower half of
    all of them. A shape is discrete: it morphs through the mean outlines, so that `x_0` is a
    square, an ellipse or what lies midway, and the way from a square ends as an ellipse.

    The factors of scenes are `"floor_hue"`, `"wall_hue"`, `"object_hue"` (two thirds of a turn,
    from any hue), `"scale"`, `"shape"` and `"orientation"`, which start in their lower half too.

    The factors of a set in `latent_flows.data.grids.GRIDS` are its own, by index lookup.

    Args:
        dataset: Any image data set.
        factors: At least one name; no name twice.
        frames: Images of a sequence, at least 2.

    Returns:
        The `Sequences`.

    Raises:
        ValueError: An unknown factor (the nearest is named), none, one twice, too few frames.

    References:
        The sequences of Song et al. (ICML 2023, section 4.3).

    >>> found = sequences(load("digits"), ("scale", "hue"))
    >>> found.image_shape, found.dataset.examples(np.arange(2))["example"].shape
    ((8, 8, 3), (2, 8, 8, 1))
    """
    if frames < 2:
        raise ValueError(f"a sequence has at least 2 frames, got {frames}")
    if not factors or len(set(factors)) != len(factors):
        raise ValueError(f"factors must be at least one name, and none twice, got {factors}")
    known = known_factors(dataset)
    for name in factors:
        choose(f"factor of {dataset.name}", name, known)
    names = tuple(factors)
    if (drawn := DRAWN.get(dataset.name)) is not None:
        return _of_drawn(dataset, drawn, names, frames)
    if (grid := grid_of(dataset)) is not None and set(names) <= set(grid.factors):
        return _of_grid(dataset, grid, names, frames)
    return _of_images(dataset, names, frames)


def load_sequences(
    name: str,
    factors: Sequence[str],
    *,
    split: str = "train",
    size: int | None = None,
    frames: int = FRAMES,
    crop: Crop = "centre",
    colour: Colour = "own",
    on_error: OnError = "refuse",
) -> Sequences:
    """Sequences from a data set by its name.

    A set that has an image for every combination of its factors has one split only. Looking up a
    frame needs all of it, so one in ten of the starting points is held out as "test".

    Args:
        name: As in `latent_flows.data.load`.
        factors: As in `sequences`.
        split: "train" or "test".
        size: Pixels along each side; the set's own when left out.
        frames: Images of a sequence.
        crop: As in `latent_flows.data.load`.
        colour: As in `latent_flows.data.load`.
        on_error: As in `latent_flows.data.load`.

    Returns:
        The `Sequences`.

    Raises:
        ValueError: As `load` and `sequences` do.

    >>> load_sequences("sprites", ("x", "y"), size=16).image_shape
    (16, 16, 1)
    """
    how: Any = {"size": size, "crop": crop, "colour": colour, "on_error": on_error}
    if name.partition(":")[0] not in GRIDS:
        if split in ("train", "test"):
            return sequences(load_part(name, split, **how), factors, frames=frames)
        return sequences(load(name, split=split, **how), factors, frames=frames)
    whole = sequences(load(name, split="train", **how), factors, frames=frames)
    chosen = split_rows(name, split, whole.dataset.length)
    return replace(whole, dataset=take(whole.dataset, chosen, split))


def known_factors(dataset: Dataset) -> Mapping[str, str]:
    """The factors that sequences of a data set may change, each with what happens.

    Args:
        dataset: the set.

    Returns:
        What happens, in a few words, by the name of the factor.

    >>> sorted(known_factors(load("sprites")))
    ['orientation', 'scale', 'shape', 'x', 'y']
    """
    if (drawn := DRAWN.get(dataset.name)) is not None:
        return MappingProxyType(dict.fromkeys(drawn.names, "rendered"))
    images = {"scale": "enlarged", "rotation": "turned", **dict.fromkeys(ENTRIES, "transformed")}
    grid = grid_of(dataset)
    return MappingProxyType(images | ({} if grid is None else dict.fromkeys(grid.factors, "held")))


def grid_of(dataset: Dataset) -> Grid | None:
    """The grid of factors of a data set that has one, by its name without a version.

    Args:
        dataset: the set.

    Returns:
        The grid, or None where the set is not one.
    """
    return GRIDS.get(dataset.name.partition(":")[0])


# --- transformed images ---


def _of_images(dataset: Dataset, names: tuple[str, ...], frames: int) -> Sequences:
    if len(dataset.image_shape) != 3:
        raise ValueError(
            f"sequences transform images [h, w, c]; {dataset.name} holds examples of shape "
            f"{dataset.image_shape}"
        )
    height, width, channels = dataset.image_shape
    coloured = any(name in ENTRIES and ENTRIES[name].coloured for name in names)
    if coloured and channels not in (1, 3):
        raise ValueError(f"{dataset.name} has {channels} channels, so no hue or saturation")

    def examples(rows: np.ndarray) -> Mapping[str, np.ndarray | Array]:
        return {"example": dataset.examples(rows)["image"]}

    def colours(image: Image) -> Float[Array, "h w colours"]:
        if not coloured or channels == 3:
            return image
        return jnp.concatenate([image, jnp.zeros((height, width, 2), image.dtype)], -1)

    def changed(change: Change, example: Array, share: Scalar) -> Float[Array, "h w colours"]:
        return jnp.clip(change(colours(example), share), 0, 1)

    return Sequences(
        replace(dataset, examples=examples),
        names,
        frames,
        (height, width, 3 if coloured else channels),
        tuple(partial(changed, _transformed(name)) for name in names),
    )


def _transformed(name: str) -> Change:
    """An image transformation, black where nothing is known, as a function of the share."""

    def change(image: Array, share: Scalar) -> Image:
        if name == "scale":
            moved, mask = ENTRIES["zoom"].apply(image, jnp.log2(1 + 0.8 * share))
        else:
            own = ENTRIES["rotate" if name == "rotation" else name]
            moved, mask = own.apply(image, own.extent * share)
        return moved * mask[..., None]

    return change


# --- data that are drawn from their factors ---


def _of_drawn(dataset: Dataset, drawn: Drawn, names: tuple[str, ...], frames: int) -> Sequences:
    rows = split_rows(dataset.name, dataset.split, math.prod(drawn.grid))
    height, width, channels = dataset.image_shape
    low = jnp.asarray([span.low for span in drawn.spans], jnp.float32)
    half = jnp.asarray([(span.high - span.low) / 2 for span in drawn.spans], jnp.float32)
    anywhere = np.array([span.anywhere for span in drawn.spans])

    @jax.jit
    def start(index: Int[Array, "B"]) -> Float[Array, "B f"]:
        factors = jnp.stack(jax.vmap(drawn.grid_factors)(index), -1)
        return jnp.where(anywhere, factors, low + (factors - low) / 2)

    def examples(indices: np.ndarray) -> Mapping[str, Array]:
        return {"example": start(rows[indices])}

    def change(k: int, example: Array, share: Scalar) -> Image:
        moved = example.at[k].add(half[k] * share)
        return drawn.render(drawn.factors(*moved), size=height)

    places = [drawn.names.index(name) for name in names]
    return Sequences(
        Dataset(dataset.name, dataset.split, (len(drawn.names),), dataset.length, examples),
        names,
        frames,
        (height, width, channels),
        tuple(partial(change, k) for k in places),
    )


# --- sets that hold every combination of factors ---


def _of_grid(dataset: Dataset, grid: Grid, names: tuple[str, ...], frames: int) -> Sequences:
    place = rows_by_factors(dataset, grid)
    sizes = np.array(grid.sizes)
    steps = np.round(np.linspace(0, 1, frames)[:, None] * (sizes // 2)).astype(int)  # [T + 1, F]

    def examples(rows: np.ndarray) -> Mapping[str, np.ndarray]:
        held = np.stack(np.unravel_index(place.factors_of_row[rows], grid.sizes), -1)
        start = held * (sizes - 1 - sizes // 2) // np.maximum(sizes - 1, 1)
        visited = np.repeat(start[:, None, None], len(names), 1).repeat(frames, 2)  # [B, K, T+1, F]
        for k, name in enumerate(names):
            axis = grid.factors.index(name)
            visited[:, k, :, axis] += steps[:, axis]
        wanted = np.ravel_multi_index(tuple(np.moveaxis(visited, -1, 0)), grid.sizes)
        images = np.asarray(dataset.examples(place.row_of_factors[wanted.ravel()])["image"])
        return {"example": images.reshape(*wanted.shape, *dataset.image_shape)}

    def change(k: int, example: Array, share: Scalar) -> Image:
        return example[k, jnp.round(share * (frames - 1)).astype(int)]

    height, width, channels = dataset.image_shape
    return Sequences(
        replace(dataset, examples=examples),
        names,
        frames,
        (height, width, channels),
        tuple(partial(change, k) for k in range(len(names))),
    )
