"""Any image data set of TensorFlow Datasets that was prepared on disk, read without TensorFlow."""

import io
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, Int, UInt8

from latent_flows._extras import extra
from latent_flows.data.dataset import Dataset, Examples, from_arrays, to_unit

__all__ = ["IN_MEMORY", "dataset", "names", "splits"]

IN_MEMORY = 2**30
"""Sets of at most this many bytes, decoded, are decoded once and kept."""

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def dataset(
    name: str,
    split: str = "train",
    size: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """A prepared data set by its TFDS name, such as `"mnist"` or `"coil100:2.0.0"`.

    Only the folder is read: neither TensorFlow nor the network is touched. Sets of up to 1 GiB are
    decoded at once and held as uint8; of larger ones, records are decoded as they are asked for.

    Args:
        name: As in TFDS, `name[/config][:version]`.
        split: As in TFDS, slices such as `"train[:10%]"` included.
        size: Pixels along each side, by resizing the shorter side and cropping the middle.
        data_dir: Folder of prepared sets; `TFDS_DATA_DIR` or `~/tensorflow_datasets` if left out.

    Returns:
        A `Dataset` with "image" in [0, 1], float32, and "label" and "label_..." if the set has any.

    Raises:
        ValueError: The set is not there, has no such split, holds no 8-bit images, was prepared in
            a format without random access, or has images of varied size and no `size` was given.

    References:
        The layout on disk is that of TensorFlow Datasets.

    >>> dataset("mnist", data_dir="/nowhere")
    Traceback (most recent call last):
    ...
    ValueError: mnist is not prepared in ...nowhere: ...
    """
    if size is not None and size < 1:
        raise ValueError(f"size must be a positive number of pixels, got {size}")
    folder = _folder(data_dir)
    source, features = _open(name, split, folder)
    shape = features["image"].shape
    if size is None and None in shape:
        raise ValueError(f"{name} has images of varied size, {shape}: give size=, in pixels")
    shape = (*((size, size) if size else shape[:2]), shape[2])
    length = len(source)

    if length * math.prod(shape) > IN_MEMORY:

        def examples(indices: Int[Array | np.ndarray, "B"]) -> Examples:
            rows, images = _records(name, split, source, indices.tolist(), shape)
            return {"image": to_unit(images), **_labels(rows)}

        return Dataset(name, split, shape, length, examples)

    images = np.empty((length, *shape), np.uint8)

    def fill(start: int) -> dict[str, np.ndarray]:
        stop = min(start + 512, length)
        rows, images[start:stop] = _records(name, split, source, range(start, stop), shape)
        return _labels(rows)

    with ThreadPoolExecutor() as pool:
        labels = list(pool.map(fill, range(0, length, 512)))
    joined = {key: np.concatenate([part[key] for part in labels]) for key in labels[0]}
    return from_arrays(name, split=split, image=images, **joined)


def splits(name: str, data_dir: str | os.PathLike[str] | None = None) -> list[str]:
    """The splits of a prepared set.

    Args:
        name: As in `dataset`.
        data_dir: As in `dataset`.

    Returns:
        Their names.

    Raises:
        ValueError: The set is not there.
    """
    return list(_builder(name, _folder(data_dir)).info.splits)


def names(data_dir: str | os.PathLike[str] | None = None) -> list[str]:
    """Every name that TFDS knows, and every folder of a prepared set.

    Args:
        data_dir: As in `dataset`.

    Returns:
        Names in alphabetical order. Being listed does not mean that a set is prepared.

    >>> "mnist" in names()
    True
    """
    with extra("data"):
        import tensorflow_datasets

    folder = _folder(data_dir)
    prepared = [path.parts[len(folder.parts)] for path in folder.glob("*/**/dataset_info.json")]
    return sorted({*tensorflow_datasets.list_builders(with_community_datasets=False), *prepared})


def _folder(data_dir: str | os.PathLike[str] | None) -> Path:
    default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return Path(data_dir or default).expanduser()


def _builder(name: str, folder: Path) -> Any:
    """What reads a prepared set."""
    with extra("data"):
        import tensorflow_datasets
        from tensorflow_datasets.core.read_only_builder import builder_from_files

    # The registry of TFDS, and so `tfds.data_source`, asks the network about a set that is absent.
    set_name, _, version = name.partition(":")
    try:
        return builder_from_files(
            set_name, data_dir=folder, **({"version": version} if version else {})
        )
    except tensorflow_datasets.core.DatasetNotFoundError as error:
        raise ValueError(
            f"{name} is not prepared in {folder}: either `pip install latent-flows[prepare]`, then "
            f"`tfds build {set_name} --file_format=array_record --data_dir={folder}`, or set "
            "TFDS_DATA_DIR to where it is, or use `sprites`, which needs no data"
        ) from error


def _open(name: str, split: str, folder: Path) -> tuple[Any, Any]:
    """A sequence of undecoded records with `__getitems__`, and the features of one."""
    with extra("data"):
        import tensorflow_datasets

    builder = _builder(name, folder)
    features = builder.info.features
    keys: Any = getattr(features, "keys", tuple)()
    image = features["image"] if "image" in keys else None
    if image is None or len(image.shape or ()) != 3 or image.np_dtype != np.uint8:
        raise ValueError(f"{name} holds no 8-bit `image`; its features are {features}")
    if image.shape[2] not in _MODES:
        raise ValueError(f"{name} has {image.shape[2]} channels; expected one of {list(_MODES)}")
    there = list(builder.info.splits)
    if split.partition("[")[0] not in (*there, "all") and "+" not in split:
        raise ValueError(f"{name} has no split {split!r}; it has {', '.join(there)}")
    decoders = {"image": tensorflow_datasets.decode.SkipDecoding()}
    try:
        return builder.as_data_source(split=split, decoders=decoders), features
    except NotImplementedError as error:
        raise ValueError(
            f"{name} in {folder} is stored as {builder.info.file_format.value}, which cannot be "
            f"read in random order: build it again with --file_format=array_record"
        ) from error
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{name}: reading prepared sets needs {error.name}, which this Python lacks (there are "
            "no builds of it for Windows); `sprites` and `digits` need nothing"
        ) from error


def _records(
    name: str, split: str, source: Any, numbers: Sequence[int], shape: tuple[int, int, int]
) -> tuple[Sequence[Any], UInt8[np.ndarray, "n height width c"]]:
    """Records by their numbers, and their images, decoded.

    Raises:
        ValueError: Naming the set and the record that cannot be read.
    """
    try:
        rows = source.__getitems__(list(numbers))
        return rows, np.stack([_decode(row["image"], shape) for row in rows])
    except Exception as error:  # whatever the readers of records and of images may raise
        if len(numbers) > 1:
            for number in numbers:
                _records(name, split, source, [number], shape)
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"{name}: record {numbers[0]} of split {split!r} cannot be read ({what}); prepare the "
            "set again"
        ) from None


def _decode(encoded: bytes, shape: tuple[int, int, int]) -> UInt8[np.ndarray, "height width c"]:
    with extra("data"):
        from PIL import Image, ImageOps

    height, width, channels = shape
    image: Image.Image = Image.open(io.BytesIO(encoded))
    if image.mode != _MODES[channels]:
        image = image.convert(_MODES[channels])
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(shape)


def _labels(rows: Sequence[Any]) -> dict[str, np.ndarray]:
    # dSprites and Shapes3D have a label for each factor.
    names = [name for name in rows[0] if name == "label" or name.startswith("label_")]
    return {name: np.array([row[name] for row in rows]) for name in names}
