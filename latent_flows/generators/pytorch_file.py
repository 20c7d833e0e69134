"""PyTorch's files, read without PyTorch and without running the code that a pickle may hold.

`torch.save` writes a pickle that names its tensors, and beside it their numbers: since version 1.6
as members of a zip archive, before as one stream. The pickle is read with an unpickler that knows
only the few names that a state dict needs, and that stands in for all of them with inert values.
"""

import argparse
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np

__all__ = ["Bytes", "Refused", "Storage", "Tensor", "open_tensors", "tensors"]

_STORAGES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_MOST_REPEATED = 2**28  # numbers of a tensor that is larger than its storage


class Storage(NamedTuple):
    """A run of numbers in the file, which several tensors may share."""

    kind: str
    """The name of its class, which says the dtype."""
    key: str
    """Its name in the file."""
    length: int
    """How many numbers it has."""


class Tensor(NamedTuple):
    """A tensor that has not been read yet: a strided window onto a storage."""

    storage: Storage
    """What it looks onto."""
    offset: int
    """Where in the storage it starts, in numbers."""
    shape: tuple[int, ...]
    """Its shape."""
    strides: tuple[int, ...]
    """How far the next entry along each axis is, in numbers."""


class Refused(ValueError):
    """The pickle asks for something that no state dict needs."""


Bytes = Callable[[Storage], bytes]


@contextmanager
def open_tensors(path: Path) -> Iterator[tuple[Any, Callable[[Tensor], np.ndarray]]]:
    """The object that `torch.save` wrote, with `Tensor`s in it, and what reads one of them.

    Args:
        path: a file of `torch.save`, in today's format or in that of before 1.6.

    Returns:
        A context with the object, and a function that reads a tensor of it.

    Raises:
        ValueError: the pickle names anything but tensors, dicts, lists and numbers (nothing of it
            has been run), or the file is truncated, corrupt or something else.
    """
    try:
        with open(path, "rb") as file:
            archive = zipfile.is_zipfile(file)
            file.seek(0)
            if archive:
                with zipfile.ZipFile(file) as members:
                    tree, read = _zipped(members)
                    yield tree, lambda tensor: _array(tensor, read)
            else:
                tree, read = _streamed(file)
                yield tree, lambda tensor: _array(tensor, read)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except (IsADirectoryError, NotADirectoryError):
        raise ValueError(f"{path} is no file") from None
    except Refused as error:
        raise ValueError(f"{path} is refused: {error}") from None
    # A damaged pickle or archive can fail in any way at all, and it means one thing here.
    except Exception as error:
        what = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} is truncated, corrupt or no PyTorch file ({what})") from None


def _zipped(members: zipfile.ZipFile) -> tuple[Any, Bytes]:
    names = [name for name in members.namelist() if name.rpartition("/")[2] == "data.pkl"]
    if len(names) != 1:
        raise ValueError("the archive holds no data.pkl")
    root = names[0].removesuffix("data.pkl")
    if f"{root}byteorder" in members.namelist() and members.read(f"{root}byteorder") != b"little":
        raise ValueError("its numbers are big-endian")

    with members.open(names[0]) as file:
        tree = _Unpickler(file).load()

    def read(storage: Storage) -> bytes:
        name = f"{root}data/{storage.key}"
        # Looked up first, since little in a compressed archive can become a lot in memory.
        if members.getinfo(name).file_size != storage.length * _dtype(storage).itemsize:
            raise ValueError(f"a storage of {storage.length} numbers has another size")
        return members.read(name)

    return tree, read


def _streamed(file: BinaryIO) -> tuple[Any, Bytes]:
    if _Unpickler(file).load() != _LEGACY_MAGIC:
        raise ValueError("it does not begin as torch.save begins")
    _version, _system = _Unpickler(file).load(), _Unpickler(file).load()
    reader = _Unpickler(file)
    tree = reader.load()
    places = {}
    for key in _Unpickler(file).load():
        storage = reader.storages[key]
        count = int.from_bytes(file.read(8), "little", signed=True)
        if count != storage.length:
            raise ValueError(f"a storage of {storage.length} numbers has {count}")
        places[key] = file.tell()
        file.seek(count * _dtype(storage).itemsize, 1)

    def read(storage: Storage) -> bytes:
        file.seek(places[storage.key])
        return file.read(storage.length * _dtype(storage).itemsize)

    return tree, read


class _Unpickler(pickle.Unpickler):
    """Rebuilds tensors, dicts, lists and numbers; raises `Refused` for every other name."""

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _STORAGES:
            return name
        if f"{module}.{name}" == f"{argparse.__name__}.Namespace":
            return _forgotten()  # the flags of the training run, which many checkpoints carry
        # Made anew each time, so that a pickle that sets attributes on them changes nothing.
        known: dict[str, Callable[..., Any]] = {
            "torch._utils._rebuild_tensor": lambda *args: _tensor(*args[:4]),
            "torch._utils._rebuild_tensor_v2": lambda *args: _tensor(*args[:4]),
            "torch._utils._rebuild_parameter": lambda data, *_: data,
            "torch.Size": tuple,
        }
        if f"{module}.{name}" in known:
            return known[f"{module}.{name}"]
        raise Refused(
            f"its pickle asks for {module}.{name}, which could run code; only tensors, dicts, "
            "lists and numbers are read (save the state dict alone, or as safetensors)"
        )

    def persistent_load(self, pid: Any) -> Storage:
        what, kind, key, _location, count, *view = pid
        if what != "storage" or kind not in _STORAGES or (view and view[0] is not None):
            raise ValueError("it names a storage of an unknown kind")
        return self.storages.setdefault(key, Storage(kind, key, count))


def _forgotten() -> type:
    return type("Forgotten", (), {"__setstate__": lambda self, state: None})


def _dtype(storage: Storage) -> np.dtype:
    return np.dtype(_STORAGES[storage.kind])


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
    numbers = (offset, *shape, *strides)
    if not (
        isinstance(storage, Storage)
        and len(shape) == len(strides)
        and all(isinstance(n, int) and n >= 0 for n in (storage.length, *numbers))
    ):
        raise ValueError("a tensor without storage, or of an impossible shape")
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _array(tensor: Tensor, read: Bytes) -> np.ndarray:
    storage, offset, shape, strides = tensor
    dtype = _dtype(storage)
    size = math.prod(shape)
    if size == 0:
        return np.zeros(shape, dtype)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    content = read(storage)
    if last >= storage.length or len(content) != storage.length * dtype.itemsize:
        raise ValueError(f"a tensor of shape {list(shape)} does not fit into its storage")
    # An expanded tensor shows the same numbers many times, and a few bytes could mean terabytes.
    repeats = size > storage.length
    if repeats and size > _MOST_REPEATED:
        raise ValueError(f"a tensor of shape {list(shape)} repeats {storage.length} numbers")
    numbers = np.frombuffer(content, dtype)[offset:]
    steps = tuple(stride * dtype.itemsize for stride in strides)
    window = np.lib.stride_tricks.as_strided(numbers, shape, steps, writeable=False)
    return window if repeats else np.array(window)


def tensors(tree: Any) -> dict[str, Tensor]:
    """The tensors of nested dicts, by their names joined with dots; everything else is left out.

    Args:
        tree: what was read.

    Returns:
        The tensors by name.
    """
    found: dict[str, Tensor] = {}
    for name, value in tree.items() if isinstance(tree, Mapping) else ():
        if isinstance(value, Tensor):
            found[str(name)] = value
        else:
            found |= {f"{name}.{below}": tensor for below, tensor in tensors(value).items()}
    return found
