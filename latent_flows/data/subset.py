"""Part of a data set: certain rows, or the examples with certain labels."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np
from jaxtyping import Int

from latent_flows.data.dataset import Dataset

__all__ = ["CHUNK", "take", "with_labels"]

CHUNK = 4096
"""Examples that are looked at at once."""


def take(dataset: Dataset, rows: Int[np.ndarray, "n"], split: str | None = None) -> Dataset:
    """Some examples of a set.

    Args:
        dataset: any.
        rows: their numbers, at least one.
        split: which part they are; that of the set when left out.

    Returns:
        A `Dataset` of the same name.

    Raises:
        ValueError: no rows.

    >>> from latent_flows.data import digits
    >>> take(digits.dataset("test"), np.arange(0, 360, 2)).length
    180
    """
    if not len(rows):
        raise ValueError(f"no rows of {dataset.name} were chosen")
    return replace(
        dataset,
        split=split or dataset.split,
        length=len(rows),
        examples=lambda chosen: dataset.examples(rows[chosen]),
        labels=None if dataset.labels is None else dataset.labels[rows],
    )


def with_labels(dataset: Dataset, labels: Collection[int]) -> Dataset:
    """The examples that carry one of some labels, in their order.

    Args:
        dataset: a set with a "label".
        labels: which to keep; all if empty.

    Returns:
        A `Dataset` of the same name and split.

    Raises:
        ValueError: the set has no labels, or no example with one of those asked for.

    >>> from latent_flows.data import digits
    >>> with_labels(digits.dataset("test"), (0, 1)).length
    72
    """
    if not labels:
        return dataset
    chunks = np.split(np.arange(dataset.length), range(CHUNK, dataset.length, CHUNK))
    if dataset.labels is None and "label" not in dataset.examples(chunks[0][:1]):
        raise ValueError(f"{dataset.name} has no labels, so none can be chosen, got {labels}")
    found = (
        np.concatenate([np.asarray(dataset.examples(rows)["label"]) for rows in chunks])
        if dataset.labels is None
        else dataset.labels
    )
    if missing := sorted(set(labels) - set(found.tolist())):
        raise ValueError(f"labels must be among those of {dataset.name}, which lacks {missing}")
    return take(dataset, np.flatnonzero(np.isin(found, list(labels))))
