"""Solvers that are compiled once for a function, and not at every call."""

import functools
import gc
import inspect
import logging
import math
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import get_opaque_trace_state
from jaxtyping import Array

from latent_flows._captured import Captured, UnknownError

P = ParamSpec("P")
T = TypeVar("T")

_MOST = 32
"""Programs that are kept."""
_WEIGHT = 1 << 29
"""Bytes of arrays, at most, that all but the newest of them hold."""


class _Kept(NamedTuple):
    """A program, with what its key knows by identity."""

    program: "_Program"
    held: list[Any]


_kept: OrderedDict[Hashable, _Kept] = OrderedDict()
_lock = threading.Lock()
_contents: dict[int, tuple[weakref.ref, bytes]] = {}
"""Digests of the arrays of NumPy that programs were made with."""
_ARRAY = object()
"""Where an array goes among other arguments."""


def keep_compiled(
    *,
    arrays: Sequence[str] = (),
    known: Sequence[str] = (),
    check: Callable[..., object] | None = None,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A decorator for what takes long to compile: outside of `jax.jit` its programs are kept.

    Called again with functions that do the same, and arrays of the same shapes, it runs the program
    that it has. Functions do the same if their code is equal and so is all that they capture, in
    closures, globals, attributes and arguments of `partial`: large arrays of JAX are compared by
    identity, as they cannot change; small ones and those of NumPy by content. A function that
    captures what cannot be compared is compiled at every call. The oldest programs are given up,
    with their memory, where there are many, or where they hold large arrays.

    Within a trace (`jax.jit`, `jax.grad`, `jax.vmap`) nothing is done at all. Where the program
    cannot be made or fails, the plain function is called, and says what is wrong.

    Args:
        arrays: names of the arguments that are numbers: lists of them, numbers and arrays of NumPy
            become arguments of the program, as arrays of JAX everywhere do.
        known: names of those whose values have to be known before the program runs.
        check: is called before, with all arguments by name: to look at values that the program does
            not know.

    Returns:
        The decorator.

    >>> import jax.numpy as jnp
    >>> made = []
    >>> @keep_compiled(arrays=["x"])
    ... def total(f, x):
    ...     made.append(jnp.shape(x))
    ...     return f(x).sum()
    >>> print(total(jnp.sin, [0.0, 0.0]), total(jnp.sin, [0, 0.0]), total(jnp.cos, [0.0, 0.0]))
    0.0 0.0 2.0
    >>> made
    [(2,), (2,)]
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            if _is_tracing((args, kwargs)):
                return function(*args, **kwargs)
            try:
                bound = signature.bind(*args, **kwargs)
                bound.apply_defaults()
                for name in arrays:
                    bound.arguments[name] = _as_arrays(bound.arguments[name])
                for name in known:
                    bound.arguments[name] = _as_known(bound.arguments[name])
                if check is not None:
                    check(**bound.arguments)
                return _run(function, bound)
            except Exception:
                # The plain function raises what is to be raised, or can do what a program cannot.
                return function(*args, **kwargs)

        return call

    return decorate


def unjitted(function: T) -> T:
    """A solver of Equinox's family without its own `jit`, for use within a program of ours.

    Theirs keeps all that it was ever called with, and so the memory of every new function.

    Args:
        function: what `equinox.filter_jit` made, or any other, which stays as it is.

    Returns:
        The function.

    >>> import equinox as eqx
    >>> unjitted(eqx.filter_jit(lambda x: x + 1)).__name__
    '<lambda>'
    """
    return getattr(function, "__wrapped__", function)


def _run(function: Callable[..., T], bound: inspect.BoundArguments) -> T:
    """The result of the program that is kept, or of a new one."""
    key, captured = _key(function, bound)
    with _lock:
        kept = _kept.get(key) if key is not None else None
        if kept is not None:
            _kept.move_to_end(key)
    if kept is not None:
        return kept.program(bound)
    _forget_changed(captured)
    program = _Program(function)
    found = program(bound)
    # As it is now, after the trace: a function that counts its calls is still the same one.
    key, captured = _key(function, bound)
    if key is not None:
        _keep(key, _Kept(program, captured.held))
    return found


class _Program:
    """A function of arrays, compiled, and of other arguments that are always the same.

    These are handed in at every call, for JAX may trace it again, such as in double precision, and
    hold no memory in between.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        others = self._others = threading.local()

        @functools.wraps(function)
        def run(arrays: list[Array]) -> Any:
            leaves, structure = others.now
            given = iter(arrays)
            whole = [next(given) if leaf is _ARRAY else leaf for leaf in leaves]
            args, kwargs = jax.tree.unflatten(structure, whole)
            return function(*args, **kwargs)

        del run.__wrapped__  # whose signature is not its own
        self._compiled = jax.jit(run)

    def __call__(self, bound: inspect.BoundArguments) -> Any:
        """The finished result. What fails in it is raised, and not logged as well."""
        leaves, structure = jax.tree.flatten((bound.args, bound.kwargs))
        arrays = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]
        others = [_ARRAY if isinstance(leaf, jax.Array) else leaf for leaf in leaves]
        quiet, log = _Quiet(), logging.getLogger("jax._src.callback")
        log.addFilter(quiet)
        self._others.now = others, structure
        try:
            return jax.block_until_ready(self._compiled(arrays))
        finally:
            del self._others.now
            log.removeFilter(quiet)


class _Quiet(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return "callback failed" not in record.getMessage()


def _key(function: Callable, bound: inspect.BoundArguments) -> tuple[Hashable | None, Captured]:
    """What decides about the program, None if that is not known, and what was seen."""
    captured = Captured()
    try:
        arguments = captured.argument((bound.args, bound.kwargs))
    except UnknownError:
        return None, captured
    key = function, arguments
    hash(key)
    return key, captured


def _forget_changed(captured: Captured) -> None:
    """Clears all programs where one of them may hold an array of NumPy that has since changed.

    JAX takes what it once made of such an array again, as long as a program has it.
    """
    changed = False
    with _lock:
        for identity, (array, content) in captured.contents.items():
            known = _contents.get(identity)
            changed |= known is not None and known[0]() is array and known[1] != content
            reference = weakref.ref(array, functools.partial(_forget_content, identity))
            _contents[identity] = reference, content
        if changed:
            _kept.clear()
    if changed:
        jax.clear_caches()
        gc.collect()


def _forget_content(identity: int, _: weakref.ref) -> None:
    _contents.pop(identity, None)


def _keep(key: Hashable, new: _Kept) -> None:
    with _lock:
        _kept[key] = new
        while len(_kept) > 1 and (len(_kept) > _MOST or _weight() > _WEIGHT):
            _kept.popitem(last=False)


def _weight() -> int:
    """Bytes of the arrays that all programs hold."""
    arrays = {id(x): x.nbytes for one in _kept.values() for x in one.held if _is_array(x)}
    return sum(arrays.values())


def _is_array(x: Any) -> bool:
    return isinstance(x, jax.Array) and not x.is_deleted()


def _is_tracing(arguments: Any) -> bool:
    """Whether the call is part of a program that is made, differentiated or mapped, or of none."""
    if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
        return True
    if get_opaque_trace_state(convention="nnx") != _outside():
        return True
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arguments))


@functools.cache
def _outside() -> Any:
    """The state in which nothing is traced: that of a thread that has just begun."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(get_opaque_trace_state, convention="nnx").result()


def _as_arrays(value: Any) -> Any:
    """Numbers as arrays; whatever else as it is."""
    plain = isinstance(value, list | tuple) and not hasattr(value, "_fields")
    if plain or isinstance(value, bool | int | float | np.generic | np.ndarray):
        return jnp.asarray(value)
    return jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, value)


def _as_known(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, jax.Array) else value


class Cost(NamedTuple):
    """What a compiled program does, by the compiler's account; NaN where it gives none.

    Loops are counted once by the compiler, whatever their length.
    """

    operations: float
    """Of floating-point numbers."""
    bytes: float
    """Read and written."""


def cost(program: Any) -> Cost:
    """What a compiled program costs, whatever machine runs it.

    Args:
        program: of `jax.jit(function).lower(...).compile()`.

    Returns:
        The `Cost`.
    """
    found = program.cost_analysis() or {}
    return Cost(*(float(found.get(name, math.nan)) for name in ("flops", "bytes accessed")))


def operations(function: Callable[..., Any], *args: Any) -> float:
    """The operations of a compiled function, see `Cost`.

    Args:
        function: of arrays; a new program is made for it.
        *args: its arguments.

    Returns:
        Floating-point operations.

    >>> operations(lambda x: x @ x, jnp.ones((8, 8))) >= 2 * 8**3 - 8**2
    True
    """
    return cost(jax.jit(function).lower(*args).compile()).operations
