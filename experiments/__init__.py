"""Experiments: one module each, run as `python -m experiments.NAME`."""

import contextlib
import ctypes
import gc
import os
import sys
from importlib.util import find_spec

from experiments.runtime import announcements, interrupts
from latent_flows._extras import MissingExtra, extra

interrupts.begin()
try:
    with extra("experiments"):
        for name in ("tyro", "orbax", "rich", "filelock"):
            if find_spec(name) is None:
                raise ModuleNotFoundError(name=name)
except MissingExtra as error:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2) from None
# XLA's alarms about slow compilations and foldings, which it calls errors; JAX raises real ones.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with contextlib.suppress(OSError, AttributeError, TypeError):
    # XLA frees its temporary buffers after each step on CPU, and glibc maps them anew for the next,
    # which takes a third of the time of a step. It has to hear of it before there are threads; the
    # environment (MALLOC_TRIM_THRESHOLD_ and the like) does the same, but has to be set by whoever
    # starts Python.
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(-1, 2**30)  # M_TRIM_THRESHOLD
    libc.mallopt(-2, 2**28)  # M_TOP_PAD
    libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
    libc.mallopt(-8, 1)  # M_ARENA_MAX
announcements.begin()
# Imports make much and leave no garbage: looking for it takes a tenth of a second of them.
gc.set_threshold(50_000, 20, 20)
