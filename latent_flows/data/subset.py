"""Part of a data set: the examples with certain labels."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from latent_flows.data.dataset import Dataset

__all__ = ["CHUNK", "with_labels"]

CHUNK = 4096
"""Examples that are looked at at once."""


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
    if "label" not in dataset.examples(chunks[0][:1]):
        raise ValueError(f"{dataset.name} has no labels, so none can be chosen, got {labels}")
    found = np.concatenate([np.asarray(dataset.examples(rows)["label"]) for rows in chunks])
    if missing := sorted(set(labels) - set(found.tolist())):
        raise ValueError(f"labels must be among those of {dataset.name}, which lacks {missing}")
    rows = np.flatnonzero(np.isin(found, list(labels)))
    return replace(
        dataset, length=len(rows), examples=lambda indices: dataset.examples(rows[indices])
    )
