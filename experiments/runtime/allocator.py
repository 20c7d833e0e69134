"""How glibc keeps the memory that XLA frees."""

import contextlib
import ctypes


def begin() -> None:
    """Keeps what is freed, for the next step.

    XLA frees its temporary buffers after each step on CPU. As it is, glibc gives them back to the
    system and maps them anew for the next step, which takes a third to a half of the time of one.
    It has to hear of this before there is any thread: a thread that is there already has a part of
    the memory of its own, and what does not fit into such a part, 64 MiB, is mapped anew each
    time. The environment (MALLOC_TRIM_THRESHOLD_ and the like) does the same, but has to be set by
    whoever starts Python.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-1, 2**30)  # M_TRIM_THRESHOLD
        libc.mallopt(-2, 2**28)  # M_TOP_PAD
        libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
        libc.mallopt(-8, 1)  # M_ARENA_MAX
