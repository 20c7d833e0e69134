"""Data sets that hold one image for every combination of their factors, and where each one is."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from latent_flows.data.dataset import Dataset

__all__ = ["CHUNK", "GRIDS", "Grid", "Places", "rows_by_factors"]

CHUNK = 4096
"""Examples that are looked at at once."""


class Grid(NamedTuple):
    """The factors of such a set."""

    labels: tuple[str, ...]
    """For each factor, the entry of an example that holds which of its values it has."""
    factors: tuple[str, ...]
    """Their names here."""
    sizes: tuple[int, ...]
    """How many values each has. The last varies fastest."""


GRIDS: Mapping[str, Grid] = MappingProxyType(
    {
        # The colour of dSprites has one value only, which leaves five factors of the six.
        "dsprites": Grid(
            (
                "label_shape",
                "label_scale",
                "label_orientation",
                "label_x_position",
                "label_y_position",
            ),
            ("shape", "scale", "orientation", "x", "y"),
            (3, 6, 40, 32, 32),
        ),
        "shapes3d": Grid(
            (
                "label_floor_hue",
                "label_wall_hue",
                "label_object_hue",
                "label_scale",
                "label_shape",
                "label_orientation",
            ),
            ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation"),
            (10, 10, 10, 8, 4, 15),
        ),
    }
)
"""Those of TensorFlow Datasets, by name: Matthey et al. (2017), Burgess and Kim (2018)."""


class Places(NamedTuple):
    """Where the image of each combination of factors is."""

    row_of_factors: Int[np.ndarray, "N"]
    """The row of the data set for each combination, numbered as
    `np.ravel_multi_index` does."""
    factors_of_row: Int[np.ndarray, "N"]
    """The number of the combination at each row."""


def rows_by_factors(dataset: Dataset, grid: Grid) -> Places:
    """Find the row of every combination of factors, from the labels stored with the images.

    A prepared set is shuffled on disk, so all labels are read once.

    Args:
        dataset: The whole set, with the grid's labels.
        grid: Its factors.

    Returns:
        The `Places`.

    Raises:
        ValueError: The set lacks a label, or does not hold each combination exactly once.

    >>> from latent_flows.data.dataset import from_arrays
    >>> tiny = Grid(("a", "b"), ("a", "b"), (2, 2))
    >>> whole = from_arrays("tiny", a=np.array([1, 0, 0, 1]), b=np.array([0, 0, 1, 1]))
    >>> rows_by_factors(whole, tiny).row_of_factors
    array([1, 2, 0, 3])
    """
    expected = math.prod(grid.sizes)
    if dataset.length != expected:
        raise ValueError(
            f"{dataset.name} must hold all {expected} combinations of its factors to look up a "
            f"sequence, got {dataset.length} examples; use the whole split"
        )
    numbers = []
    for rows in np.split(np.arange(expected), range(CHUNK, expected, CHUNK)):
        examples = dataset.examples(rows)
        if missing := [name for name in grid.labels if name not in examples]:
            raise ValueError(f"{dataset.name} has no {', '.join(missing)} to look sequences up by")
        values = tuple(np.asarray(examples[name]) for name in grid.labels)
        numbers.append(np.ravel_multi_index(values, grid.sizes))
    factors_of_row = np.concatenate(numbers)
    row_of_factors = np.full(expected, -1)
    row_of_factors[factors_of_row] = np.arange(expected)
    if (row_of_factors < 0).any():
        raise ValueError(f"{dataset.name} holds some combination of its factors twice")
    return Places(row_of_factors, factors_of_row)
