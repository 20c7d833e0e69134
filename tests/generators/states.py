"""State dicts of random numbers, the same wherever they are made: here and beside PyTorch."""

import zlib
from collections.abc import Mapping

import numpy as np


def random_state(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """An array for each key, none of them trivial: no zero gain, no unit variance.

    Each key has a stream of its own, so neither order nor other keys matter.
    """
    return {key: _array(key, shape, seed) for key, shape in shapes.items()}


def _array(key: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    random = np.random.RandomState([seed, zlib.crc32(key.encode())])
    kind = key.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return np.array(7)
    values = random.standard_normal(shape)
    if kind.endswith("_var") or kind.startswith("sv"):
        values = 0.5 + random.random_sample(shape) * 1.5
    elif kind == "gamma":
        values = np.asarray(0.7)
    elif kind == "weight" and len(shape) > 1:
        values = values / np.sqrt(np.prod(shape[1:]))
    elif kind in ("gain", "weight"):
        values = 1 + 0.3 * values
    elif kind in ("bias", "running_mean", "stored_mean"):
        values = 0.3 * values
    return np.asarray(values, np.float32)
