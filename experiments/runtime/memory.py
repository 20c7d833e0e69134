"""How much memory a compiled step needs, and how the C library gives it out on CPU."""

import contextlib
import ctypes
import re
from collections.abc import Mapping
from typing import Any

_SHORT = "RESOURCE_EXHAUSTED|bad_alloc|[Oo]ut of memory|array is too big|Unable to allocate"
"""What XLA and NumPy say when there is too little memory."""


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


def shortage(error: BaseException) -> str | None:
    """How much memory was asked for and what to do, when an error says that it ran out, else None.

    >>> shortage(MemoryError("Unable to allocate 1.5 TiB for an array with shape (3,)"))
    'out of memory: 1.5 TiB asked for; lower what is large: ...'
    >>> shortage(RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 4294967296 bytes."))
    'out of memory: 4 GiB asked for; lower what is large: ...'
    >>> shortage(RuntimeError("no memory of that"))
    """
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause)
        if isinstance(cause, MemoryError) or re.search(_SHORT, text):
            return (
                f"out of memory{_asked(text)}; lower what is large: batches, --image-size, "
                "latents, or what is measured and drawn at once"
            )
        cause = cause.__cause__ or cause.__context__
    return None


def _asked(text: str) -> str:
    """The number of bytes in the words of XLA or NumPy."""
    if found := re.search(r"allocat\w+ ([\d.]+) ?([KMGTPEZY]i?B)", text):
        return f": {float(found[1]):g} {found[2]} asked for"
    if found := re.search(r"allocat\w+ (\d+)(?: bytes)?", text):
        from latent_flows import _memory

        return f": {_memory.text(int(found[1]))} asked for"
    return ""


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
