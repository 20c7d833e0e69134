"""How much memory a compiled step needs, and how the C library gives it out on CPU."""

import contextlib
import ctypes
from collections.abc import Mapping
from typing import Any


def needs(program: Any) -> dict[str, float]:
    """What a compiled program needs by the compiler's account, in GiB; nothing where it has none.

    `argument`, `output` and `temp`, which are features and other numbers in between, and `total`.
    What is given to be written over counts once.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> found = needs(jax.jit(lambda x: x + 1).lower(jnp.ones(2**18)).compile())
    >>> found["argument"] * 2**10, found["total"] * 2**10
    (1.0, 2.0)
    """
    with contextlib.suppress(Exception):  # not every backend keeps account
        found = program.memory_analysis()
        parts = {
            name: getattr(found, f"{name}_size_in_bytes") / 2**30
            for name in ("argument", "output", "temp")
        }
        shared = found.alias_size_in_bytes / 2**30
        return {**parts, "total": sum(parts.values()) - shared}
    return {}


def text(found: Mapping[str, float]) -> str:
    """What a program needs, in words.

    >>> text({"temp": 0.25, "total": 1.5})
    '1.5 GiB of memory, 0.25 of them for features'
    """
    if not found:
        return "an unknown amount of memory"
    return f"{found['total']:.2g} GiB of memory, {found['temp']:.2g} of them for features"


def keep_freed() -> None:
    """Ask glibc not to hand large blocks back to the system after every step.

    XLA frees its temporary buffers after each step on CPU, and without this glibc maps them anew
    for the next: page faults took a third of the time of a step. Has to be called before threads
    are started, since the arenas that they already have keep their ways. Does nothing where
    there is no glibc.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-1, 2**30)  # M_TRIM_THRESHOLD
        libc.mallopt(-2, 2**28)  # M_TOP_PAD
        libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
        libc.mallopt(-8, 1)  # M_ARENA_MAX
