"""The training and the held-out part of a data set by its name, also where it has but one split."""

import os
import warnings
from dataclasses import replace

from latent_flows.data import tfds
from latent_flows.data.dataset import Dataset
from latent_flows.data.loading import BUILT_IN, load
from latent_flows.data.sprites import split_indices

__all__ = ["load_part"]


def load_part(
    name: str,
    part: str,
    *,
    size: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """A set's split of that name; of a set without a "test" split a fixed part of "train".

    One in ten of the training examples, chosen by a hash of their numbers, is the held-out part
    then, and the training part is the rest; a warning says so.

    Args:
        name: As in `load`.
        part: "train" or "test".
        size: As in `load`.
        data_dir: As in `load`.

    Returns:
        A `Dataset` whose `split` is `part`.

    Raises:
        ValueError: As `load` does; another part; or the set has too few examples to hold any out.

    >>> load_part("digits", "test").length
    360
    """
    if part not in ("train", "test"):
        raise ValueError(f"a part is train or test, got {part!r}")
    if name in BUILT_IN:
        return load(name, split=part, size=size)
    whole = load(name, split="train", size=size, data_dir=data_dir)
    if "test" in tfds.splits(name, data_dir):
        return whole if part == "train" else load(name, split=part, size=size, data_dir=data_dir)
    rows = split_indices(part, whole.length)
    if not len(rows):
        raise ValueError(f"{name} has no test split, and too few examples to hold any out")
    held_out = len(split_indices("test", whole.length))
    warnings.warn(
        f"{name} has no test split: {held_out} of its {whole.length} training examples, the same "
        "in every run, are held out and not trained on",
        stacklevel=2,
    )
    return replace(
        whole, split=part, length=len(rows), examples=lambda chosen: whole.examples(rows[chosen])
    )
