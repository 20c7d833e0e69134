"""The training and the held-out part of a data set by its name, also where it has but one split."""

import os
import warnings
from typing import Any

from latent_flows.data import tfds
from latent_flows.data.dataset import Dataset
from latent_flows.data.image_file import Crop
from latent_flows.data.image_folder import Colour, OnError, Size
from latent_flows.data.loading import BUILT_IN, is_own, load
from latent_flows.data.sprites import split_indices
from latent_flows.data.subset import take

__all__ = ["load_part"]


def load_part(
    name: str,
    part: str,
    *,
    size: Size = None,
    data_dir: str | os.PathLike[str] | None = None,
    crop: Crop = "centre",
    colour: Colour = "own",
    on_error: OnError = "refuse",
) -> Dataset:
    """A set's split of that name; of a set without a "test" split a fixed part of "train".

    One in ten of the training examples, chosen by a hash of their numbers, is the held-out part
    then, and the training part is the rest; a warning says so. Data of your own are always parted
    in such a way, see `load`.

    Args:
        name: As in `load`.
        part: "train" or "test".
        size: As in `load`.
        data_dir: As in `load`.
        crop: As in `load`.
        colour: As in `load`.
        on_error: As in `load`.

    Returns:
        A `Dataset` whose `split` is `part`.

    Raises:
        ValueError: As `load` does; another part; or the set has too few examples to hold any out.

    >>> load_part("digits", "test").length
    360
    """
    if part not in ("train", "test"):
        raise ValueError(f"a part is train or test, got {part!r}")
    how: Any = {"size": size, "crop": crop, "colour": colour, "on_error": on_error}
    if name in BUILT_IN or is_own(name, data_dir):
        return load(name, split=part, data_dir=data_dir, **how)
    whole = load(name, split="train", data_dir=data_dir, **how)
    if "test" in tfds.splits(name, data_dir):
        return whole if part == "train" else load(name, split=part, data_dir=data_dir, **how)
    rows = split_indices(part, whole.length)
    if not len(rows):
        raise ValueError(f"{name} has no test split, and too few examples to hold any out")
    held_out = len(split_indices("test", whole.length))
    warnings.warn(
        f"{name} has no test split: {held_out} of its {whole.length} training examples, the same "
        "in every run, are held out and not trained on",
        stacklevel=2,
    )
    return take(whole, rows, part)
