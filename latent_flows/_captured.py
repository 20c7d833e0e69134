"""What a function depends on, as a key that changes when any of it does.

A compiled program has frozen what its functions found in closures, globals and attributes. It may
be used again only where all of that is as it was.
"""

import builtins
import dis
import enum
import functools
import hashlib
import sys
import types
import typing
import weakref
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Any

import jax
import numpy as np

_TRUSTED = {
    "abc",
    "beartype",
    "builtins",
    "chex",
    "cmath",
    "collections",
    "contextlib",
    "copy",
    "dataclasses",
    "diffrax",
    "einops",
    "enum",
    "equinox",
    "flax",
    "functools",
    "inspect",
    "itertools",
    "jax",
    "jaxlib",
    "jaxtyping",
    "latent_flows",
    "lineax",
    "math",
    "numbers",
    "numpy",
    "operator",
    "optax",
    "optimistix",
    "scipy",
    "types",
    "typing",
    "typing_extensions",
    "warnings",
}
"""Packages whose own code and globals nobody changes. What they close over is looked at."""
_FORBIDDEN = {
    "__import__",
    "breakpoint",
    "compile",
    "eval",
    "exec",
    "globals",
    "input",
    "open",
}
"""Built-in functions through which a function can reach what cannot be seen in its code."""
_FORGOTTEN = {
    "__abstractmethods__",
    "__annotate__",
    "__annotate_func__",
    "__annotations__",
    "__annotations_cache__",
    "__dataclass_fields__",
    "__dataclass_params__",
    "__dict__",
    "__doc__",
    "__firstlineno__",
    "__match_args__",
    "__module__",
    "__orig_bases__",
    "__parameters__",
    "__qualname__",
    "__replace__",
    "__repr__",
    "__slots__",
    "__static_attributes__",
    "__type_params__",
    "__weakref__",
    "_abc_impl",
}
"""Attributes of a class that no computation depends on."""
_LARGEST = 1 << 26  # bytes of a NumPy array that is compared by content
_SMALL = 1 << 16  # bytes of an array of JAX that is
_MOST = 50_000  # objects that are looked at
_HEAP_TYPE = 1 << 9  # the flag of classes that are not C's own
_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_LOCAL = ("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF")

_CONSTANTS = (type(None), bool, int, str, bytes, type(Ellipsis), type(NotImplemented), range, slice)
_THEMSELVES = (
    jax.Device,
    jax.sharding.Sharding,
    types.MethodDescriptorType,
    types.GetSetDescriptorType,
    types.ClassMethodDescriptorType,
)
_COMPILED = type(jax.jit(lambda: None))
_CACHED = type(functools.lru_cache(lambda: None))
_ALIASES = (types.GenericAlias, types.UnionType, type(typing.Any), typing.TypeVar)


class UnknownError(Exception):
    """Something whose state cannot be seen, or that only exists within a trace."""


class Captured:
    """A walk through everything that objects depend on.

    `held` are the objects that keys know by identity: as long as they live, no other can have the
    same. `contents` are digests of the arrays of NumPy, by identity.
    """

    def __init__(self) -> None:
        self.held: list[Any] = []
        self.contents: dict[int, tuple[np.ndarray, bytes]] = {}
        self._seen: dict[int, int] = {}
        self._alive: list[Any] = []
        self._count = 0

    def argument(self, x: Any) -> Hashable:
        """The key of an argument, in which JAX's arrays count by shape and dtype alone.

        Args:
            x: any pytree. Its arrays become arguments of the program.

        Returns:
            The key.

        Raises:
            UnknownError: there is none.
        """
        if isinstance(x, jax.Array):
            if isinstance(x, jax.core.Tracer):
                raise UnknownError("a traced array")
            return "array", x.shape, x.dtype, x.aval.weak_type
        level = None if x is None else jax.tree_util.default_registry.flatten_one_level(x)
        if level is None:
            return self.key(x)
        children, structure = level
        return type(x), self.key(structure), tuple(map(self.argument, children))

    def key(self, x: Any) -> Hashable:  # noqa: PLR0911, PLR0912, one for each kind of object
        """The key of anything else.

        Args:
            x: a function, a container, a constant, an object.

        Returns:
            The key: equal to another if both do the same.

        Raises:
            UnknownError: there is none.
        """
        self._count += 1
        if self._count > _MOST:
            raise UnknownError("too many objects")
        kind = type(x)
        if kind in _CONSTANTS:
            return kind, repr(x) if kind is slice else x
        if kind in (float, complex):
            return kind, repr(x)
        if isinstance(x, enum.Enum):
            return self._identity(kind), x.name
        if isinstance(x, jax.Array):
            if isinstance(x, jax.core.Tracer) or x.is_deleted():
                raise UnknownError("an array that cannot be kept")
            return self._array(x)
        if isinstance(x, np.ndarray | np.generic):
            return self._numbers(x)
        if isinstance(x, np.dtype):
            return "dtype", x.str, str(x)
        if isinstance(x, _ALIASES) or kind.__module__ == "typing":
            return "annotation", repr(x)
        if kind is tuple or (isinstance(x, tuple) and hasattr(x, "_fields")):
            return self._class(kind), tuple(map(self.key, x))
        if isinstance(x, types.BuiltinFunctionType | np.ufunc | types.WrapperDescriptorType):
            return self._builtin(x)
        if isinstance(x, _THEMSELVES):
            return self._identity(x)
        if isinstance(x, types.MemberDescriptorType):
            return "slot", x.__name__
        if isinstance(x, types.ModuleType):
            if not _is_trusted(x.__name__):
                raise UnknownError(f"the module {x.__name__} as a value")
            return "module", x.__name__
        if isinstance(x, type):
            return self._class(x)
        if not self._is_new(x):
            return "again", self._seen[id(x)]
        return self._inside(x)

    def _is_new(self, x: Any) -> bool:
        if id(x) in self._seen:
            return False
        self._seen[id(x)] = len(self._seen)
        self._alive.append(x)  # no other object gets its place meanwhile
        return True

    def _inside(self, x: Any) -> Hashable:  # noqa: PLR0911, as above
        """The key of something with parts, which may contain itself."""
        if isinstance(x, types.FunctionType):
            return self._function(x)
        if isinstance(x, types.MethodType):
            return "method", self.key(x.__func__), self.key(x.__self__)
        if isinstance(x, types.MappingProxyType):
            return "mapping", self._pairs(x)
        if isinstance(x, staticmethod | classmethod):
            return type(x), self.key(x.__func__)
        if isinstance(x, property | functools.cached_property):
            return type(x), self.key(x.fget if isinstance(x, property) else x.func)
        if isinstance(x, functools.partial):
            parts = x.func, x.args, x.keywords, vars(x)
            return self._class(type(x)), tuple(map(self.key, parts))
        if isinstance(x, _COMPILED | _CACHED):
            # What else they were told is not to be seen.
            return self._identity(x), self.key(vars(x)["__wrapped__"])
        if isinstance(x, set | frozenset):
            if not all(type(one) in _CONSTANTS for one in x):
                raise UnknownError("a set of objects")
            return type(x), frozenset(x)
        if isinstance(x, weakref.ref):
            return "reference", self.key(x())
        if isinstance(x, types.CellType):
            return "cell", self._cell(x)
        if isinstance(x, jax.tree_util.PyTreeDef):
            return self.key(x.node_data()), tuple(map(self.key, x.children()))
        return self._instance(x)

    def _identity(self, x: Any) -> Hashable:
        self.held.append(x)
        return "identity", id(x)

    def _array(self, x: jax.Array) -> Hashable:
        """Small arrays are what they hold, for they are often made anew, such as slices of others.

        They cannot change; JAX copies their numbers to the host once.
        """
        ordinary = not jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended)
        if not ordinary or x.nbytes > _SMALL or not x.is_fully_addressable:
            return self._identity(x)
        place = x.sharding, getattr(x, "committed", True)
        numbers = np.asarray(x).tobytes()
        return "values", x.dtype, x.shape, x.aval.weak_type, place, _digest(numbers)

    def _numbers(self, x: np.ndarray | np.generic) -> Hashable:
        """Arrays of NumPy can be changed in place: they are what they hold."""
        if x.dtype.hasobject or x.nbytes > _LARGEST:
            raise UnknownError("an array of objects, or a very large one")
        if type(x) is not np.ndarray and not isinstance(x, np.generic):
            raise UnknownError("an array of a special kind")
        content = _digest(np.ascontiguousarray(x).tobytes())
        if isinstance(x, np.ndarray):
            self.contents[id(x)] = x, content
        return type(x).__name__, x.dtype.str, x.shape, content

    def _builtin(self, x: Any) -> Hashable:
        owner = getattr(x, "__self__", None)
        if owner is not None and not isinstance(owner, types.ModuleType):
            return "builtin method", x.__name__, self.key(owner)
        module = owner.__name__ if owner is not None else getattr(x, "__module__", None)
        if isinstance(x, types.BuiltinFunctionType):
            hidden = x.__name__ in _FORBIDDEN and module == "builtins"
            if hidden or not _is_trusted((module or "").lstrip("_")):
                raise UnknownError(f"the built-in function {x.__name__}")
        return self._identity(x)

    def _pairs(self, x: Any) -> Hashable:
        return tuple((self.key(name), self.key(value)) for name, value in x.items())

    def _cell(self, cell: types.CellType, attributes: frozenset = frozenset({()})) -> Hashable:
        try:
            content = cell.cell_contents
        except ValueError:
            return "empty"
        return tuple(self._along(content, names) for names in sorted(attributes))

    def _along(self, x: Any, names: tuple[str, ...]) -> Hashable:
        """What a function sees of an object: of a module, the attributes that it names."""
        while isinstance(x, types.ModuleType) and names:
            if x is np and names[0] == "random":
                raise UnknownError("NumPy's random numbers")
            if _is_trusted(x.__name__):
                break
            if not hasattr(x, names[0]):
                return "missing"
            x, names = getattr(x, names[0]), names[1:]
        return self.key(x)

    def _function(self, x: types.FunctionType) -> Hashable:
        uses = _uses(x.__code__)
        cells = tuple(
            self._cell(cell, uses.locals.get(name, frozenset({()})))
            for name, cell in zip(x.__code__.co_freevars, x.__closure__ or (), strict=True)
        )
        parts = x.__defaults__, x.__kwdefaults__, vars(x)
        module = sys.modules.get(x.__globals__.get("__name__", ""))
        if module is not None and vars(module) is x.__globals__ and _is_trusted(module.__name__):
            return module.__name__, x.__code__, cells, tuple(map(self.key, parts))
        if not all(map(_is_trusted, uses.imported)):
            raise UnknownError("a function that imports")
        found: list[Hashable] = []
        for name in sorted(uses.globals):
            if name in x.__globals__:
                value = x.__globals__[name]
                chains = sorted(uses.globals[name])
                found.append((name, tuple(self._along(value, names) for names in chains)))
            elif name in _FORBIDDEN:
                raise UnknownError(f"a function that calls {name}")
            else:
                found.append((name, "builtin" if hasattr(builtins, name) else "missing"))
        return x.__code__, cells, tuple(map(self.key, parts)), tuple(found)

    def _class(self, x: type) -> Hashable:
        """A class is itself, and, where it is the user's, what its methods do."""
        if not self._is_new(x):
            return self._identity(x)
        own = [base for base in x.__mro__ if not _is_trusted(base.__module__)]
        attributes = [
            (name, self.key(value))
            for base in own
            for name, value in vars(base).items()
            if name not in _FORGOTTEN
        ]
        return self._identity(x), tuple(attributes)

    def _instance(self, x: Any) -> Hashable:
        kind = type(x)
        parts: list[Hashable] = [self._class(kind)]
        for base in kind.__mro__:
            if base in (dict, list):
                items = self._pairs(x) if base is dict else tuple(map(self.key, x))
                parts.append(items)
            elif base not in (object, OrderedDict) and not base.__flags__ & _HEAP_TYPE:
                raise UnknownError(f"an object of type {kind.__name__}")
        slots = [
            name
            for base in kind.__mro__
            for name, value in vars(base).items()
            if isinstance(value, types.MemberDescriptorType)
        ]
        if kind not in (dict, list) and not slots and not hasattr(x, "__dict__"):
            raise UnknownError(f"an object of type {kind.__name__}")
        values = ((name, getattr(x, name)) for name in slots if hasattr(x, name))
        parts.append(tuple((name, self.key(value)) for name, value in values))
        parts.append(self._pairs(getattr(x, "__dict__", {})))
        return tuple(parts)


class _Uses(typing.NamedTuple):
    """The names of a function that lead out of it, each with the attributes taken from it."""

    globals: dict[str, frozenset[tuple[str, ...]]]
    locals: dict[str, frozenset[tuple[str, ...]]]
    imported: frozenset[str]


@functools.lru_cache(1024)
def _uses(code: types.CodeType) -> _Uses:
    """What a function and those defined in it read by name."""
    found: tuple[dict[str, set], dict[str, set]] = {}, {}
    imported = set()
    for one in _with_inner(code):
        steps = list(dis.get_instructions(one))
        for at, step in enumerate(steps):
            if step.opname == "IMPORT_NAME":
                imported.add(step.argval)
            if step.opname in _GLOBAL:
                names = found[0]
            elif step.opname in _LOCAL:
                names = found[1]
            else:
                continue
            chain = []
            for after in steps[at + 1 :]:
                if after.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
                    break
                chain.append(after.argval)
            names.setdefault(step.argval, set()).add(tuple(chain))
    of_globals, of_locals = (
        {name: frozenset(chains) for name, chains in names.items()} for names in found
    )
    return _Uses(of_globals, of_locals, frozenset(imported))


def _with_inner(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _with_inner(constant)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _is_trusted(module: str | None) -> bool:
    return (module or "").partition(".")[0] in _TRUSTED
