"""A folder of images, of any sizes and colours, as a data set."""

import contextlib
import math
import os
import re
import stat
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int, UInt8

from latent_flows.data.dataset import Dataset, Examples, from_arrays, to_unit
from latent_flows.data.held_out import held_out
from latent_flows.data.image_file import SUFFIXES, Crop, Header, Unreadable, decode, read_header
from latent_flows.data.tfds import IN_MEMORY

__all__ = ["Colour", "Listing", "OnError", "Size", "dataset", "listed"]

Size = int | tuple[int, int] | None
"""Pixels a side, or height and width; None for the images' own."""
Colour = Literal["own", "grey", "rgb"]
"""own: grey if all images are, else RGB."""
OnError = Literal["refuse", "skip"]
"""What to do about a file that cannot be read."""
SHOWN = 5
"""Broken files that are named."""
_THREADS = min(32, (os.cpu_count() or 1) + 2)

Found = TypeVar("Found")
Key = TypeVar("Key", str, int)
Broken = dict[str, str]
"""Why files cannot be read, by their names."""


class Listing(NamedTuple):
    """What there is in a folder, all below it included, by paths relative to it."""

    images: list[str]
    """In a fixed order."""
    broken: Broken
    """What cannot be looked at, such as a link to nowhere."""
    others: Counter[str]
    """Suffixes of the files that are no images."""


def dataset(
    folder: Path,
    split: str = "train",
    size: Size = None,
    *,
    crop: Crop = "centre",
    colour: Colour = "own",
    on_error: OnError = "refuse",
) -> Dataset:
    """The images below a folder; hidden files, and files that are no images, are not looked at.

    One in ten is held out by a hash of its path in the folder. Where every image lies in a
    subfolder, the first one on its path is its label. What takes up to 1 GiB, decoded, is decoded
    at once; of more, files are decoded as they are asked for. Nothing is written anywhere.

    Args:
        folder: that holds them.
        split: "train", "test", or "all".
        size: pixels a side, or height and width; needed where the images differ in size.
        crop: how images of other proportions are brought to that size.
        colour: whether images are grey or RGB; by default grey if all are.
        on_error: "refuse" a folder with a file that cannot be read, or "skip" the file and say so.

    Returns:
        A `Dataset` with "image" in [0, 1], float32, and "label".

    Raises:
        ValueError: there are fewer than two images, they differ in size and none is given, or a
            file cannot be read.
    """
    listing = listed(folder)
    _report(folder, listing.broken, on_error)
    if len(listing.images) < 2:
        raise ValueError(_too_few(folder, listing))
    height_width = (size, size) if isinstance(size, int) else size
    is_known = height_width is not None and colour != "own"
    names = listing.images if not is_known else _part(listing.images, split)
    headers, broken = _each(lambda name: read_header(folder / name), names)
    _report(folder, broken, on_error)
    if not headers:
        raise ValueError(f"{folder}: none of its {len(names)} images can be read")
    _tell(folder, headers)
    shape = (
        *(height_width or _common_size(folder, headers)),
        1 if colour == "grey" or (colour == "own" and not _any_coloured(headers)) else 3,
    )
    names = [name for name in _part(listing.images, split) if name in headers]
    if not names:
        raise ValueError(f"{folder}: no image of the {split} part can be read; add some")
    decoder = _Decoder(folder, names, shape, crop, on_error)
    return _read(decoder, split, *_labels(folder, listing.images))


def listed(folder: Path) -> Listing:
    """What there is below a folder; links are followed, those in a circle once.

    Args:
        folder: to look through.

    Returns:
        Its files.

    Raises:
        ValueError: the folder cannot be read.
    """
    images: list[str] = []
    broken: Broken = {}
    others: Counter[str] = Counter()
    waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    while waiting:
        name, above = waiting.pop()
        try:
            known = os.stat(folder / name)
            here = (known.st_dev, known.st_ino)
            entries = list(os.scandir(folder / name)) if here not in above else []
        except OSError as error:
            if not name:
                raise ValueError(f"{folder} cannot be read ({error.strerror})") from None
            broken[name] = str(error.strerror)
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            full = f"{name}/{entry.name}".lstrip("/")
            try:
                mode = entry.stat().st_mode
            except OSError as error:
                if _is_image(entry.name):
                    broken[full] = f"it is a link to nowhere: {error.strerror}"
                continue
            if stat.S_ISDIR(mode):
                waiting.append((full, (*above, here)))
            elif stat.S_ISREG(mode) and _is_image(entry.name):
                images.append(full)
            elif stat.S_ISREG(mode):
                others[Path(entry.name).suffix.lower() or "no suffix"] += 1
    return Listing(sorted(images), dict(sorted(broken.items())), others)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _part(names: Sequence[str], split: str) -> list[str]:
    if split == "all":
        return list(names)
    chosen = held_out(names) == (split == "test")
    return [name for name, is_in in zip(names, chosen, strict=True) if is_in]


def _each(
    function: Callable[[Key], Found], keys: Sequence[Key]
) -> tuple[dict[Key, Found], dict[Key, str]]:
    """A function of many files at once, and why it cannot be had of some."""

    def attempt(key: Key) -> Found | Unreadable:
        try:
            return function(key)
        except Unreadable as error:
            return error

    with ThreadPoolExecutor(_THREADS) as pool:
        results = dict(zip(keys, pool.map(attempt, keys), strict=True))
    good: dict[Key, Any] = {k: v for k, v in results.items() if not isinstance(v, Unreadable)}
    return good, {k: str(v) for k, v in results.items() if isinstance(v, Unreadable)}


def _report(folder: Path, broken: Broken, on_error: OnError) -> None:
    """Names files that cannot be read.

    Raises:
        ValueError: there are some, and they are not to be skipped.
    """
    if not broken:
        return
    named = "; ".join(f"{name}: {why}" for name, why in list(broken.items())[:SHOWN])
    more = f"; and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
    are = "1 file cannot" if len(broken) == 1 else f"{len(broken)} files cannot"
    if on_error == "refuse":
        raise ValueError(
            f"{folder}: {are} be read as an image ({named}{more}); mend or remove what is broken, "
            "or leave it out by --data.on-error skip (on_error='skip')"
        )
    warnings.warn(f"{folder}: {are} be read and left out ({named}{more})", stacklevel=2)


def _too_few(folder: Path, listing: Listing) -> str:
    if listing.images:
        return (
            f"{folder} holds one image, {listing.images[0]}: at least two are needed, one to learn "
            "from and one to hold out"
        )
    kinds = ", ".join(SUFFIXES)
    most = sorted(listing.others.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]
    others = ", ".join(f"{count} {kind}" for kind, count in most)
    what = f"files ({others}), but none of an image" if others else "no images"
    arrays = [kind for kind in (".npz", ".npy") if kind in listing.others]
    hint = f"; name the {arrays[0]} file itself" if arrays else ""
    return f"{folder} holds {what} ({kinds}){hint}"


def _any_coloured(headers: Mapping[str, Header]) -> bool:
    return any(header.is_coloured for header in headers.values())


def _common_size(folder: Path, headers: Mapping[str, Header]) -> tuple[int, int]:
    sizes = sorted({header.size for header in headers.values()}, key=lambda s: (s[0] * s[1], s))
    if len(sizes) > 1:
        low, high = (" x ".join(map(str, end)) for end in (sizes[0], sizes[-1]))
        raise ValueError(
            f"{folder} holds images of {len(sizes)} sizes, from {low} to {high} pixels: give the "
            "size to bring them to, such as --image-size 64 (size=64)"
        )
    return sizes[0]


def _tell(folder: Path, headers: Mapping[str, Header]) -> None:
    """Says what is made of images that hold more than one opaque picture."""
    several = sum(header.frames > 1 for header in headers.values())
    clear = sum(header.is_transparent for header in headers.values())
    if several:
        warnings.warn(
            f"{folder}: of {several} animated files the first frame is taken", stacklevel=2
        )
    if clear:
        warnings.warn(
            f"{folder}: what is transparent in {clear} images is laid over black", stacklevel=2
        )


def _labels(folder: Path, names: Sequence[str]) -> tuple[dict[str, int], tuple[str, ...]]:
    """The label of each image, and what the labels are called; empty where some have none.

    Subfolders that are called by whole numbers are their own labels.
    """
    outer = {name: name.partition("/")[0] for name in names if "/" in name}
    if not outer:
        return {}, ()
    if len(outer) < len(names):
        warnings.warn(
            f"{folder}: {len(names) - len(outer)} images lie in no subfolder, so that none has a "
            "label",
            stacklevel=2,
        )
        return {}, ()
    kinds = sorted({*outer.values()})
    if all(re.fullmatch(r"0|[1-9]\d{0,8}", kind) for kind in kinds):
        return {name: int(kind) for name, kind in outer.items()}, ()
    numbers = {kind: number for number, kind in enumerate(kinds)}
    return {name: numbers[kind] for name, kind in outer.items()}, tuple(kinds)


class _Decoder(NamedTuple):
    """Decodes the images of a part, each by its number."""

    folder: Path
    names: list[str]
    shape: tuple[int, int, int]
    crop: Crop
    on_error: OnError

    def __call__(self, number: int) -> UInt8[np.ndarray, "h w c"]:
        return decode(self.folder / self.names[number], self.shape, self.crop)


def _read(
    decoder: _Decoder, split: str, labels: Mapping[str, int], label_names: tuple[str, ...]
) -> Dataset:
    """The images of a part, decoded now if they are few enough."""
    folder, names, shape = decoder.folder, decoder.names, decoder.shape
    title = f"{folder.name or folder}/"
    known = np.array([labels[name] for name in names]) if labels else None
    if len(names) * math.prod(shape) > IN_MEMORY:
        examples = partial(_decoded, decoder, known)
        return Dataset(title, split, shape, len(names), examples, label_names, known)
    images = np.empty((len(names), *shape), np.uint8)

    def fill(number: int) -> None:
        images[number] = decoder(number)

    _, broken = _each(fill, range(len(names)))
    _report(folder, {names[number]: why for number, why in broken.items()}, decoder.on_error)
    if broken:
        kept = np.array([number not in broken for number in range(len(names))])
        if not kept.any():
            raise ValueError(f"{folder}: no image of the {split} part can be read; add some")
        images, known = images[kept], None if known is None else known[kept]
    arrays = {"image": images} if known is None else {"image": images, "label": known}
    found = from_arrays(title, split=split, **arrays)
    return replace(found, label_names=label_names, labels=known)


def _decoded(
    decoder: _Decoder, labels: Int[np.ndarray, "n"] | None, rows: Int[np.ndarray, "B"]
) -> Examples:
    """Some images of many. What cannot be read was whole at its beginning, or has changed since.

    Raises:
        ValueError: it is not to be skipped. What is stands for the next one that can be read.
    """
    chosen = np.array(rows)
    numbers: list[int] = sorted({*chosen.tolist()})
    good, broken = _each(decoder.__call__, numbers)
    _report(decoder.folder, {decoder.names[i]: why for i, why in broken.items()}, decoder.on_error)
    for place in np.flatnonzero(np.isin(chosen, list(broken))):
        chosen[place] = _next_readable(decoder, int(chosen[place]), good)
    images = np.stack([good[row] for row in chosen.tolist()])
    found = {"image": to_unit(images)}
    return found if labels is None else found | {"label": labels[chosen]}


def _next_readable(decoder: _Decoder, row: int, good: dict[int, Any]) -> int:
    """The first row after one whose file can be read; its image is added to those known."""
    length = len(decoder.names)
    for other in ((row + step) % length for step in range(1, length)):
        with contextlib.suppress(Unreadable):
            if other not in good:
                good[other] = decoder(other)
            return other
    raise ValueError(f"{decoder.folder}: no image can be read any more")
