"""Data that are drawn from their factors, every combination of a grid; one in ten is held out."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from latent_flows.data.dataset import Dataset, Examples

__all__ = ["Drawn", "Span", "drawn_dataset", "split_rows"]


class Span(NamedTuple):
    """What values of a factor a sequence of images goes through."""

    low: float
    """The least."""
    high: float
    """The greatest; a sequence goes through half of the way from the least."""
    anywhere: bool = False
    """Whether a sequence may start at any value, as where the greatest is the least again."""


class Drawn(NamedTuple):
    """How the images of a set are made from real-valued factors."""

    factors: type[Any]
    """A named tuple of one number a factor."""
    render: Callable[..., Float[Array, "size size c"]]
    """`(factors, size=64) -> image`."""
    grid: tuple[int, ...]
    """How many values each factor takes in the set; the last varies fastest."""
    grid_factors: Callable[[Any], Any]
    """`index -> factors` of the grid."""
    random_factors: Callable[[PRNGKeyArray], Any]
    """`key -> factors`, drawn from the ranges that the grid fills."""
    spans: tuple[Span, ...]
    """What a sequence of images goes through, for each factor."""
    shown: tuple[str, ...]
    """Names of the factors whose change is seen by what is measured on images."""
    label: str
    """The factor of few whole values that an image is classified by."""
    channels: int
    """Of an image."""
    smallest: int = 1
    """Pixels a side below which some factor cannot be seen."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the factors."""
        return self.factors._fields


def drawn_dataset(drawn: Drawn, name: str, split: str, size: int | None) -> Dataset:
    """The images of a grid of factors, rendered batch by batch on the default device.

    Args:
        drawn: how they are made.
        name: of the set.
        split: "train" or "test"; see `split_rows`.
        size: pixels along each side; 64 when left out.

    Returns:
        A `Dataset` with "image", "label" and "factors" (a named tuple of arrays).

    Raises:
        ValueError: there is no such split, or the size is too small.
    """
    side = 64 if size is None else size
    if side < drawn.smallest:
        least = "a positive number of" if drawn.smallest == 1 else f"at least {drawn.smallest}"
        raise ValueError(f"size must be {least} pixels, to show a factor of {name}, got {size}")
    rows = split_rows(name, split, int(np.prod(drawn.grid)))

    def examples(indices: Int[Array | np.ndarray, "B"]) -> Examples:
        return _render_grid(drawn, side, rows[indices])

    return Dataset(name, split, (side, side, drawn.channels), len(rows), examples)


@partial(jax.jit, static_argnums=(0, 1))
def _render_grid(drawn: Drawn, size: int, index: Int[Array, "B"]) -> dict[str, Any]:
    found = jax.vmap(drawn.grid_factors)(index)
    factors = jax.tree.map(lambda value: value.astype(jnp.float32), found)
    images = jax.vmap(lambda one: drawn.render(one, size=size))(factors)
    label = getattr(factors, drawn.label).astype(jnp.int32)
    return {"image": images, "label": label, "factors": factors}


def split_rows(name: str, split: str, count: int) -> Int[np.ndarray, "N"]:
    """Which rows of a set belong to a split; one in ten is for testing.

    A fixed hash of the number of the row decides, so a split never changes and nothing is stored.

    Args:
        name: of the set, for the message.
        split: "train" or "test".
        count: rows of the whole set.

    Returns:
        Their numbers, in increasing order.

    Raises:
        ValueError: there is no such split.

    >>> split_rows("scenes", "test", 30).tolist()
    [0, 7, 11, 22, 25]
    """
    if split not in ("train", "test"):
        raise ValueError(f"{name} has the splits train, test, got {split!r}")
    # The finaliser of MurmurHash3: neighbouring indices land in unrelated places.
    mixed = np.arange(count, dtype=np.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed = (mixed ^ (mixed >> np.uint32(shift))) * np.uint32(factor)
    mixed ^= mixed >> np.uint32(16)
    return np.flatnonzero((mixed % 10 == 0) == (split == "test")).astype(np.int32)
