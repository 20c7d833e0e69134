"""How the C library gives out memory, which on CPU decides a good part of a step's time."""

import contextlib
import ctypes


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
