"""From a data set to an endless stream of batches on the devices."""

import sys
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from latent_flows._extras import extra
from latent_flows.data.dataset import Dataset

__all__ = ["batches"]


def batches(
    dataset: Dataset,
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    sharding: jax.sharding.NamedSharding | None = None,
    prefetch: int = 2,
) -> Iterator[dict[str, Any]]:
    """Endless shuffled batches, fetched ahead of time in the background.

    Every epoch shows each example once, in its own order. The stream of epochs is cut into batches
    of one size, so a batch may end one epoch and begin the next. Batch `s` depends on the seed and
    `s` only: a run that stopped after `s` batches goes on with `start=s`.

    Args:
        dataset: What to draw from.
        batch_size: Examples in a batch, over all processes; at most the length of the set.
        seed: Of the shuffle, any integer of at least 0.
        start: The number of the first batch.
        sharding: Splits the leading axis over devices; all on the default device when left out.
            With several processes, each fetches its own share, in the order of the processes.
        prefetch: How many batches to have ready ahead of time.

    Returns:
        An iterator over dicts of JAX arrays with leading axis `batch_size`. Its threads end when it
        is dropped.

    Raises:
        ValueError: `batch_size`, `start`, `seed` or `prefetch` is out of range, or the processes
            cannot share the batch evenly.

    >>> from latent_flows.data import from_arrays
    >>> letters = from_arrays("numbers", value=np.arange(6))
    >>> stream = batches(letters, batch_size=3, seed=0)
    >>> sorted([*next(stream)["value"].tolist(), *next(stream)["value"].tolist()])
    [0, 1, 2, 3, 4, 5]
    """

    with extra("data"):
        import grain

    shares = 1 if sharding is None else jax.process_count()
    if not 1 <= batch_size <= dataset.length or batch_size % shares:
        raise ValueError(
            f"batch_size must be a multiple of {shares} from 1 to {dataset.length}, the length of "
            f"{dataset.name}, got {batch_size}"
        )
    for name, value, least in (("start", start, 0), ("seed", seed, 0), ("prefetch", prefetch, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    share = batch_size // shares
    offset = share * jax.process_index() if shares > 1 else 0

    epoch = lru_cache(maxsize=2)(partial(_epoch, dataset.length, seed))

    def fetch(step: int) -> dict[str, Any]:
        first = step * batch_size + offset
        examples = dict(dataset.examples(_rows(epoch, first, share, dataset.length)))
        if shares > 1:
            return jax.tree.map(
                lambda rows: jax.make_array_from_process_local_data(sharding, np.asarray(rows)),
                examples,
            )
        return jax.device_put(examples, sharding)

    steps = grain.MapDataset.range(start, sys.maxsize).map(fetch)
    options = grain.ReadOptions(num_threads=prefetch, prefetch_buffer_size=prefetch)
    return iter(steps.to_iter_dataset(options))


def _epoch(length: int, seed: int, number: int) -> Int[np.ndarray, "length"]:
    """The order of one epoch; numpy promises that `RandomState` never changes its stream."""
    mixed = np.random.MT19937(np.random.SeedSequence((seed, number)))
    return np.random.RandomState(mixed).permutation(length)


def _rows(
    epoch: Callable[[int], Int[np.ndarray, "length"]], first: int, count: int, length: int
) -> Int[np.ndarray, "count"]:
    """Which examples stand at `count` <= `length` positions of the stream of epochs."""
    number, place = divmod(first, length)
    head = epoch(number)[place : place + count]
    missing = count - len(head)
    return np.concatenate([head, epoch(number + 1)[:missing]]) if missing else head
