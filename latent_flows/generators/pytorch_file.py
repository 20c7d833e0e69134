"""PyTorch's files, read without PyTorch and without running the code that a pickle may hold.

`torch.save` writes a pickle that names its tensors, and beside it their numbers: since version 1.6
as members of a zip archive, before as one stream. A plain pickle, such as a network of
stylegan2-ada-pytorch, holds such a stream for each tensor. The pickle is read with an unpickler
that knows only the few names that weights need, and that stands in for all of them with inert
values.
"""

import io
import math
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np

from latent_flows.generators._inert import Module, Numbers, Refused, stand_in

__all__ = ["Bytes", "Leaf", "Refused", "Storage", "Tensor", "open_tensors", "settings", "tensors"]

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
    content: bytes | None = None
    """They themselves, where the pickle holds them."""


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


Bytes = Callable[[Storage], bytes]
Leaf: TypeAlias = Tensor | Numbers
"""What has numbers: a tensor, or an array of NumPy."""


@contextmanager
def open_tensors(path: Path) -> Iterator[tuple[Any, Callable[[Leaf], np.ndarray]]]:
    """The object that `torch.save` or `pickle.dump` wrote, and what reads a tensor in it.

    Args:
        path: a file of `torch.save`, in today's format or in that of before 1.6, or a pickle of
            tensors, arrays, or modules that carry their source text.

    Returns:
        A context with the object, and a function that reads a leaf of it.

    Raises:
        ValueError: the pickle names anything but tensors, containers and numbers (nothing of it
            has been run), or the file is truncated, corrupt or something else.
    """
    try:
        with open(path, "rb") as file:
            archive = zipfile.is_zipfile(file)
            file.seek(0)
            if archive:
                with zipfile.ZipFile(file) as members:
                    tree, read = _zipped(members)
                    yield tree, lambda leaf: _array(leaf, read)
            else:
                tree, read = _streamed(file)
                yield tree, lambda leaf: _array(leaf, read)
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


def _streamed(file: io.BufferedIOBase) -> tuple[Any, Bytes]:
    first = _Unpickler(file).load()
    if isinstance(first, Mapping | Module):
        return first, _beside_nothing
    if first != _LEGACY_MAGIC:
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


def _beside_nothing(storage: Storage) -> bytes:
    raise ValueError("a tensor without numbers")


def _stored(content: Any) -> Storage:
    """The storage of a stream of its own, with its numbers."""
    if not isinstance(content, bytes | bytearray):
        raise ValueError("a storage without numbers")
    storage, read = _streamed(io.BytesIO(content))
    if not isinstance(storage, Storage):
        raise ValueError("a storage that is none")
    return storage._replace(content=read(storage))


class _Unpickler(pickle.Unpickler):
    """Rebuilds tensors, containers and numbers; raises `Refused` for every other name."""

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return name
        # Made anew each time, so that a pickle that sets attributes on them changes nothing.
        known: dict[str, Callable[..., Any]] = {
            "torch._utils._rebuild_tensor": lambda *args: _tensor(*args[:4]),
            "torch._utils._rebuild_tensor_v2": lambda *args: _tensor(*args[:4]),
            "torch._utils._rebuild_parameter": lambda data, *_: data,
            "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
            "torch.storage._load_from_bytes": lambda *args: _stored(args[0]),
            "torch.Size": lambda sizes=(): tuple(sizes),
        }
        if f"{module}.{name}" in known:
            return known[f"{module}.{name}"]
        if (found := stand_in(module, name)) is not None:
            return found
        raise Refused(
            f"its pickle asks for {module}.{name}, which could run code; only tensors, dicts, "
            "lists and numbers are read (save the state dict alone, or as safetensors)"
        )

    def persistent_load(self, pid: Any) -> Storage:
        what, kind, key, _location, count, *view = pid
        if what != "storage" or kind not in _STORAGES or (view and view[0] is not None):
            raise ValueError("it names a storage of an unknown kind")
        return self.storages.setdefault(key, Storage(kind, key, count))


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


def _array(leaf: Leaf, read: Bytes) -> np.ndarray:
    if isinstance(leaf, Numbers):
        return leaf.array
    storage, offset, shape, strides = leaf
    dtype = _dtype(storage)
    size = math.prod(shape)
    if size == 0:
        return np.zeros(shape, dtype)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    content = read(storage) if storage.content is None else storage.content
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


def tensors(tree: Any) -> dict[str, Leaf]:
    """The tensors of nested dicts and modules, by their names joined with dots.

    Args:
        tree: what was read.

    Returns:
        The tensors and arrays by name; everything else is left out.
    """
    found: dict[str, Leaf] = {}
    for name, value in _entries(tree).items():
        if isinstance(value, Tensor):
            found[str(name)] = value
        elif isinstance(value, Numbers):
            if value.array.dtype.kind in "biufc":
                found[str(name)] = value
        else:
            found |= {f"{name}.{below}": leaf for below, leaf in tensors(value).items()}
    return found


def settings(tree: Any) -> dict[str, Any]:
    """The numbers and texts that modules were made with, by their names joined with dots.

    Args:
        tree: what was read.

    Returns:
        The settings by name; none where there are no modules.
    """
    found = dict(tree.settings) if isinstance(tree, Module) else {}
    for name, value in _entries(tree).items():
        found |= {f"{name}.{below}": setting for below, setting in settings(value).items()}
    return found


def _entries(tree: Any) -> Mapping[Any, Any]:
    if isinstance(tree, Module):
        return tree.children
    return tree if isinstance(tree, Mapping) else {}
