"""Inert stand-ins for the names that pickles of weights ask for.

A pickle says what to call by a name. Here each name that checkpoints are known to hold has a
stand-in that keeps numbers and text and calls nothing of what it was named after; there is none for
any other. Stand-ins are made anew for every pickle, so that one that sets attributes on them
changes nothing.
"""

import math
import re
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

__all__ = ["Module", "Numbers", "Refused", "stand_in"]

_PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
_TENSORFLOW = "dnnlib.tflib"
_NUMERIC = re.compile(r"\??|[biufcSU]\d+")


class Refused(ValueError):
    """The pickle asks for something that no weights need."""


class Numbers:
    """An array of NumPy."""

    array: np.ndarray = np.zeros(0)
    """Its numbers."""

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, fortran, content = state
        self.array = _array(content, dtype, shape, "F" if fortran else "C")


class Module:
    """A module of PyTorch that was pickled with its source text, which is not looked at."""

    def __init__(self, meta: Any) -> None:
        if not (isinstance(meta, Mapping) and isinstance(meta.get("state"), Mapping)):
            raise ValueError("a module without state")
        self._state = meta["state"]
        self.settings: dict[str, Any] = {
            name: value
            for name, value in self._state.items()
            if isinstance(value, str | int | float | None) and not str(name).startswith("_")
        }
        """Numbers and texts that it was made with, by name."""

    @property
    def children(self) -> dict[str, Any]:
        """Parameters, buffers and modules within it, by name."""
        kinds = [self._state.get(f"_{kind}", {}) for kind in ("parameters", "buffers", "modules")]
        if not all(isinstance(kind, Mapping) for kind in kinds):
            raise ValueError("a module whose parameters are no mapping")
        return {str(name): value for kind in kinds for name, value in kind.items()}


class _Dtype:
    """A dtype of numbers or text."""

    def __init__(self, name: Any, *_: Any) -> None:
        if not (isinstance(name, str) and _NUMERIC.fullmatch(name)):
            raise Refused(f"its pickle holds an array of {name!r}; only numbers and text are read")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


def _array(content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if not (isinstance(content, bytes | bytearray) and isinstance(dtype, _Dtype)):
        raise ValueError("an array without numbers")
    shape = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    # Compared first: the numbers are in the file, and a shape alone may say anything.
    if not all(isinstance(n, int) and n >= 0 for n in shape) or (
        math.prod(shape) * dtype.dtype.itemsize != len(content)
    ):
        raise ValueError(f"an array of shape {list(shape)} has {len(content)} bytes")
    if not content:
        return np.zeros(shape, dtype.dtype.newbyteorder("="))
    found = np.frombuffer(content, dtype.dtype).reshape(shape, order="F" if order == "F" else "C")
    return found.astype(found.dtype.newbyteorder("="))


def _numbers(content: Any, dtype: Any, shape: Any, order: Any = "C") -> Numbers:
    made = Numbers()
    made.array = _array(content, dtype, shape, order)
    return made


def _scalar(dtype: Any, content: Any = b"") -> Any:
    return _array(content, dtype, (), "C").item()


def _container(make: Callable[[Any], Any], kinds: tuple[type, ...]) -> Callable[..., Any]:
    """Of a list that the pickle spells out; a count would take memory that the file has not."""

    def build(content: Any = (), *_: Any) -> Any:
        if not isinstance(content, kinds):
            raise ValueError("a container of something else")
        return make(content)

    return build


def _forgotten() -> type:
    """Of things that are passed over, whatever they were made of."""

    class Forgotten:
        def __new__(cls, *_: Any, **__: Any) -> Any:
            return object.__new__(cls)

        def __setstate__(self, state: Any) -> None:
            pass

    return Forgotten


def _filled() -> type:
    """A mapping that a pickle fills, whatever it was made of."""

    class Filled(dict):
        def __new__(cls, *_: Any, **__: Any) -> Any:
            return dict.__new__(cls)

        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__()

        def __setstate__(self, state: Any) -> None:
            pass

    return Filled


def _calling(function: Callable[..., Any]) -> Callable[[], Any]:
    def anew() -> Any:
        def call(*args: Any) -> Any:
            return function(*args)

        return call

    return anew


def _encoded(text: Any, encoding: Any = "utf-8") -> bytes:
    """Bytes, as protocols before the third spell them."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise ValueError("bytes in an unknown encoding")
    return text.encode(encoding)


_LISTS: tuple[type, ...] = (list, tuple)


def stand_in(module: str, name: str) -> Any:
    """What takes the place of a name in a pickle.

    Args:
        module: where it is.
        name: within the module.

    Returns:
        A class or a function without effect, or None where the name is unknown.

    Raises:
        Refused: it is of a file that another program has to convert first.

    >>> stand_in("builtins", "set")([1, 2, 2]), stand_in("os", "system")
    ({1, 2}, None)
    """
    if module.startswith(_TENSORFLOW):
        raise Refused(
            "it is a network of TensorFlow; legacy.py of stylegan2-ada-pytorch converts it to a "
            ".pkl that is read here"
        )
    module = {"__builtin__": "builtins", "numpy.core": "numpy._core"}.get(module, module)
    full = f"{module.replace('numpy.core.', 'numpy._core.')}.{name}"
    if full == "collections.OrderedDict":
        return OrderedDict
    if full in _MADE:
        return _MADE[full]()
    if module == "torch" and name in _DTYPES:
        return name
    return None


_DTYPES = {
    *("float32", "float64", "float16", "bfloat16", "float", "double", "half"),
    *("int64", "int32", "int16", "int8", "uint8", "long", "int", "short", "bool"),
    *("complex64", "complex128"),
}
_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path", "PurePath")
_TIMES = ("datetime", "date", "time", "timedelta", "timezone")
_MADE: dict[str, Callable[[], Any]] = {
    _PERSISTENT: _calling(Module),
    "argparse.Namespace": _forgotten,  # the flags of the training run
    "types.SimpleNamespace": _forgotten,
    "torch.device": _forgotten,
    **{f"pathlib.{name}": _forgotten for name in _PATHS},
    **{f"pathlib._local.{name}": _forgotten for name in _PATHS},
    **{f"datetime.{name}": _forgotten for name in _TIMES},
    "dnnlib.util.EasyDict": _filled,
    "collections.defaultdict": _filled,
    "collections.Counter": lambda: _container(Counter, (dict, Counter)),
    "collections.deque": lambda: _container(deque, _LISTS),
    "builtins.set": lambda: _container(set, _LISTS),
    "builtins.frozenset": lambda: _container(frozenset, _LISTS),
    **{f"builtins.{kind}": _forgotten for kind in ("list", "dict", "int", "float", "str", "bool")},
    "builtins.complex": _calling(lambda real, imag: complex(float(real), float(imag))),
    "builtins.bytearray": lambda: _container(bytes, (bytes, *_LISTS)),
    "builtins.bytes": lambda: _container(bytes, (bytes, *_LISTS)),
    "builtins.slice": _forgotten,
    "_codecs.encode": _calling(_encoded),
    "numpy.dtype": lambda: type("_Dtype", (_Dtype,), {}),
    "numpy.ndarray": _forgotten,
    "numpy._core.multiarray._reconstruct": _calling(lambda *_: Numbers()),
    "numpy._core.multiarray.scalar": _calling(_scalar),
    "numpy._core.numeric._frombuffer": _calling(_numbers),
}
