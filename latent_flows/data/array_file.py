"""A file of NumPy arrays, `.npy` or `.npz`, as a data set of images or of vectors."""

import math
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from latent_flows import _memory
from latent_flows.data.dataset import Dataset, Examples, to_unit
from latent_flows.data.image_file import Crop, fit
from latent_flows.data.image_folder import Colour, Size
from latent_flows.data.sprites import split_indices
from latent_flows.data.subset import take

__all__ = ["NAMES", "SUFFIXES", "dataset", "output_names"]

SUFFIXES = (".npy", ".npz")
NAMES = ("image", "x", "label", "factors", "factor_names", "output_names")
"""Of the arrays of an `.npz` that are used."""
ROUNDING = 1e-4
"""By how much a pixel may leave [0, 1], which is cut off."""
_AT_ONCE = 2**24  # numbers that are looked at together
_CHANNELS = (1, 3, 4)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def dataset(
    file: Path,
    split: str = "train",
    size: Size = None,
    *,
    crop: Crop = "centre",
    colour: Colour = "own",
) -> Dataset:
    """The rows of an array; one in ten, chosen by a hash of its number, is held out.

    An array of two axes holds vectors, which come out as they are, in float32. One of three or four
    holds images, `[n, h, w]`, `[n, h, w, c]` or `[n, c, h, w]`, as uint8, as bool, or as floats in
    [0, 1]. An `.npz` holds it by the name `image` or `x`, and may hold `label`, whole numbers or
    names, `factors` of shape `[n, f]` with their `factor_names`, and the `output_names` of the
    numbers of a vector. Rows of an `.npy` are read
    from the disk as they are asked for. Nothing in a file is ever run.

    Args:
        file: an `.npy` or `.npz`.
        split: "train", "test", or "all".
        size: of images, pixels a side, or height and width; their own when left out.
        crop: how images of other proportions are brought to that size.
        colour: whether images come out grey or RGB; by default as they are.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: the file cannot be read, lacks the array, or holds it in a form that leaves
            open what its numbers mean.
    """
    arrays = _opened(file)
    name = "image" if "image" in arrays else "x"
    found = arrays[name]
    _check_kind(file, name, found)
    _memory.require(
        0 if isinstance(found, np.memmap) else found.nbytes, f"{file}", "take fewer rows"
    )
    images = _as_images(file, name, found)
    _check_values(file, name, found, is_image=images is not None)
    if images is None and (size is not None or colour != "own"):
        raise ValueError(
            f"{file} holds vectors, which have neither a size nor colours: leave --image-size and "
            "--data.colour out"
        )
    examples: Any = _Vectors(found) if images is None else _Images.of(images, size, crop, colour)
    labels, label_names = _labels(file, arrays, len(found))
    factors, factor_names = _factors(file, arrays, len(found))
    if "output_names" in arrays:
        _check_output_names(file, arrays["output_names"], found.shape)

    def rows_of(rows: Int[np.ndarray, "B"]) -> Examples:
        made: dict[str, Any] = {"image": examples(rows)}
        if labels is not None:
            made["label"] = labels[rows]
        return made if factors is None else made | {"factors": factors[rows]}

    whole = Dataset(
        file.name, split, examples.shape, len(found), rows_of, label_names, labels, factor_names
    )
    return whole if split == "all" else take(whole, split_indices(split, len(found)))


class _Vectors(NamedTuple):
    """Rows as they are."""

    array: Shaped[np.ndarray, "n d"]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape[1:]

    def __call__(self, rows: Int[np.ndarray, "B"]) -> Float[np.ndarray, "B d"]:
        return np.asarray(self.array[np.asarray(rows)], np.float32)


class _Images(NamedTuple):
    """Rows as images in [0, 1]."""

    array: Shaped[np.ndarray, "n h w c"]
    size: tuple[int, int]
    crop: Crop
    colour: Colour

    @classmethod
    def of(
        cls, array: Shaped[np.ndarray, "n h w c"], size: Size, crop: Crop, colour: Colour
    ) -> "_Images":
        """Images of a size, their own if none is given."""
        own = array.shape[1:3]
        sides = (size, size) if isinstance(size, int) else size or (own[0], own[1])
        if colour != "own" and array.shape[3] not in (1, 3):
            raise ValueError(
                f"images of {array.shape[3]} channels are neither grey nor RGB: leave "
                "--data.colour out"
            )
        return cls(array, sides, crop, colour)

    @property
    def shape(self) -> tuple[int, ...]:
        channels = {"own": self.array.shape[3], "grey": 1, "rgb": 3}
        return (*self.size, channels[self.colour])

    def __call__(self, rows: Int[np.ndarray, "B"]) -> Float[np.ndarray, "B h w c"]:
        found = to_unit(np.asarray(self.array[np.asarray(rows)]))
        images = np.clip(found.astype(np.float32), 0, 1)
        if images.shape[1:3] != self.size:
            images = np.stack([fit(image, self.size, self.crop) for image in images])
        channels = images.shape[3]
        if self.colour == "grey" and channels == 3:
            return (images @ _LUMA)[..., None]
        return np.repeat(images, 3, -1) if self.colour == "rgb" and channels == 1 else images


# --- what is in a file ---


def output_names(file: Path) -> tuple[str, ...]:
    """What the numbers of a vector are called.

    Args:
        file: an `.npz`, or what was one.

    Returns:
        Their names; none where there are none, or no such file.
    """
    try:
        with np.load(file, allow_pickle=False) as parts:
            found = parts["output_names"] if "output_names" in parts else np.array([])
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error):
        return ()
    texts = found.ndim == 1 and found.dtype.kind in "US"
    return tuple(found.astype(str).tolist()) if texts else ()


def _check_output_names(file: Path, names: np.ndarray, shape: tuple[int, ...]) -> None:
    if len(shape) != 2 or names.shape != shape[1:] or names.dtype.kind not in "US":
        raise ValueError(
            f"{file}: output_names are {names.dtype} of shape {names.shape}, expected a text for "
            f"each number of a vector, and samples are of shape {tuple(shape[1:])}"
        )


def _opened(file: Path) -> Mapping[str, np.ndarray]:
    """The arrays of a file that are used, by their names; the only one of an `.npy` is x.

    Raises:
        ValueError: it is damaged, holds Python objects, or no array of samples.
    """
    try:
        if file.suffix.lower() == ".npy":
            return {"x": np.load(file, mmap_mode="r", allow_pickle=False)}
        with zipfile.ZipFile(file) as parts:
            sizes = {part.filename.removesuffix(".npy"): part.file_size for part in parts.filelist}
        _check_names(file, list(sizes))
        used = [name for name in NAMES if name in sizes]
        _memory.require(
            sum(sizes[name] for name in used),
            f"the arrays of {file}",
            "take fewer rows, or an .npy",
        )
        with np.load(file, allow_pickle=False) as parts:
            return {name: parts[name] for name in used}
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, KeyError) as error:
        why = str(getattr(error, "strerror", None) or error)
    except ValueError as error:
        why = str(error)
        if "bject" in why:  # what NumPy says of arrays that only pickle can read
            why = "it holds Python objects, which are never loaded: save arrays of numbers"
        elif why.startswith(str(file)) or "memory" in why:
            raise
    raise ValueError(f"{file} cannot be read: {' '.join(why.split())}")


def _check_names(file: Path, names: list[str]) -> None:
    samples = [name for name in ("image", "x") if name in names]
    if len(samples) == 1:
        if unused := [name for name in names if name not in NAMES]:
            warnings.warn(
                f"{file}: not used: {', '.join(unused)} (known are {', '.join(NAMES)})",
                stacklevel=2,
            )
        return
    there = ", ".join(names) or "nothing"
    if samples:
        raise ValueError(f"{file} holds both image and x ({there}); leave one of them out")
    raise ValueError(
        f"{file} holds {there}; the array of samples is called image or x there: "
        f"np.savez({file.name!r}, image=...)"
    )


def _check_kind(file: Path, name: str, array: np.ndarray) -> None:
    """Whether an array can hold samples.

    Raises:
        ValueError: one axis alone, no rows or a single one, or none of real numbers.
    """
    what = f"{file}: {name} of shape {array.shape}"
    if array.dtype.kind not in "buif":
        raise ValueError(f"{what} holds {array.dtype}, not real numbers")
    if array.ndim not in (2, 3, 4):
        hint = "; one number a row is x[:, None]" if array.ndim == 1 else ""
        raise ValueError(
            f"{what}: expected vectors [n, d] or images [n, h, w], [n, h, w, c], [n, c, h, w]{hint}"
        )
    if name == "image" and array.ndim == 2:
        raise ValueError(
            f"{what} has no height and width: give it the shape [n, h, w], or call vectors x"
        )
    if len(array) < 2 or not array.size:
        raise ValueError(
            f"{what}: at least two rows are needed, one to learn from and one to hold out, and "
            "none that is empty"
        )


def _as_images(file: Path, name: str, array: np.ndarray) -> np.ndarray | None:
    """The array as `[n, h, w, c]`, None of one of vectors.

    Raises:
        ValueError: the order of its axes is open.
    """
    what = f"{file}: {name} of shape {array.shape}"
    if array.ndim == 2:
        return None
    if array.ndim == 3:
        warnings.warn(f"{what} is taken for grey images [n, h, w]", stacklevel=2)
        return array[..., None]
    _, first, middle, last = array.shape
    if last in _CHANNELS or (last < min(first, middle)):
        return array
    if first in _CHANNELS:
        warnings.warn(f"{what} is taken for [n, c, h, w], and turned to [n, h, w, c]", stacklevel=2)
        return np.moveaxis(array, 1, 3)
    raise ValueError(
        f"{what} does not tell where its channels are: save it as [n, h, w, c], for instance by "
        "np.moveaxis(x, 1, 3) of [n, c, h, w]"
    )


def _chunks(array: np.ndarray) -> Iterator[np.ndarray]:
    rows = max(1, _AT_ONCE // max(1, math.prod(array.shape[1:])))
    for start in range(0, len(array), rows):
        yield np.asarray(array[start : start + rows])


def _check_values(file: Path, name: str, array: np.ndarray, *, is_image: bool) -> None:
    """Whether numbers are finite, and whether it is known what black and white are.

    Raises:
        ValueError: saying how to scale them.
    """
    low, high, bad, start = math.inf, -math.inf, np.zeros(0, int), 0
    for chunk in _chunks(array):
        finite = np.isfinite(chunk).reshape(len(chunk), -1).all(1)
        bad = np.concatenate([bad, start + np.flatnonzero(~finite)])
        start += len(chunk)
        if finite.any():
            low, high = min(low, float(chunk[finite].min())), max(high, float(chunk[finite].max()))
    if len(bad):
        hold = "1 row holds" if len(bad) == 1 else f"{len(bad)} rows hold"
        raise ValueError(
            f"{file}: {hold} NaN or infinity in {name}, first row {bad[0]}: leave such rows out, "
            "x[np.isfinite(x.reshape(len(x), -1)).all(1)]"
        )
    if low == high:
        raise ValueError(f"{file}: all of {name} is {low:g}, so there is nothing to learn")
    largest = float(np.finfo(np.float32).max)
    if not is_image and not -largest <= low <= high <= largest:
        raise ValueError(f"{file}: {name} runs from {low:g} to {high:g}, beyond float32; scale it")
    if is_image and (remedy := _remedy(array.dtype, low, high)):
        raise ValueError(
            f"{file}: {name} holds {array.dtype} from {low:g} to {high:g}, and images are uint8 up "
            f"to 255, bool, or floats in [0, 1]: {remedy}"
        )


def _remedy(dtype: np.dtype, low: float, high: float) -> str:
    """What makes pixels of numbers whose black and white are not known; empty where they are."""
    is_whole = dtype.kind in "iu"
    remedies = {
        "": dtype.kind == "b" or (dtype == np.uint8 and high > 1),
        " ": dtype.kind == "f" and low >= -ROUNDING and high <= 1 + ROUNDING,
        "save x.astype(bool)": is_whole and low >= 0 and high <= 1,
        "save x.astype(np.uint8)": is_whole and low >= 0 and high <= 255,
        "save x / 255": low >= 0 and high <= 255,
        "save (x + 1) / 2": low >= -1 - ROUNDING and high <= 1 + ROUNDING,
        "save x / 65535, or x divided by what is white": dtype == np.uint16,
        "save (x - x.min()) / (x.max() - x.min())": True,
    }
    return next(remedy for remedy, holds in remedies.items() if holds).strip()


def _labels(
    file: Path, arrays: Mapping[str, np.ndarray], length: int
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The label of each row, and the names of labels that are texts.

    Raises:
        ValueError: they are not whole numbers from 0 on, or texts, one a row.
    """
    if "label" not in arrays:
        return None, ()
    found = arrays["label"]
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.shape != (length,):
        hint = "; of one column a label take label.argmax(1)" if found.ndim == 2 else ""
        raise ValueError(
            f"{file}: label has shape {arrays['label'].shape}, expected one for each of the "
            f"{length} rows{hint}"
        )
    if found.dtype.kind in "US":
        names, numbers = np.unique(found.astype(str), return_inverse=True)
        return numbers.astype(np.int64), tuple(names.tolist())
    is_whole = found.dtype.kind in "bui" or (
        found.dtype.kind == "f" and np.isfinite(found).all() and (found == np.rint(found)).all()
    )
    if not is_whole or found.min() < 0 or found.max() >= 2**31:
        raise ValueError(
            f"{file}: label holds {found.dtype}, expected whole numbers from 0 on, or texts"
        )
    return found.astype(np.int64), ()


def _factors(
    file: Path, arrays: Mapping[str, np.ndarray], length: int
) -> tuple[Float[np.ndarray, "n f"] | None, tuple[str, ...]]:
    """What each row was made from, and what that is called.

    Raises:
        ValueError: they are not finite numbers `[n, f]`, or have not f names.
    """
    if "factors" not in arrays:
        if "factor_names" in arrays:
            raise ValueError(f"{file} holds factor_names, but no factors")
        return None, ()
    found = arrays["factors"]
    if (
        found.ndim != 2
        or len(found) != length
        or not found.shape[1]
        or found.dtype.kind not in "buif"
    ):
        raise ValueError(
            f"{file}: factors are {found.dtype} of shape {found.shape}, expected numbers of shape "
            f"({length}, f), a row for each of the samples"
        )
    values = found.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"{file}: factors hold numbers that are not finite")
    count = found.shape[1]
    names = arrays.get("factor_names")
    if names is None:
        return values, tuple(f"factor {i}" for i in range(count))
    if names.shape != (count,) or names.dtype.kind not in "US":
        raise ValueError(
            f"{file}: factor_names are {names.dtype} of shape {names.shape}, expected {count} texts"
        )
    return values, tuple(names.astype(str).tolist())
