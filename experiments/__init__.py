"""Experiments: one module each, run as `python -m experiments.NAME`."""

import gc
import os
import sys
from importlib.util import find_spec

from experiments.runtime import allocator, announcements, interrupts
from latent_flows._extras import MissingExtra, extra

allocator.begin()  # before there are threads
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
announcements.begin()
# Imports make much and leave no garbage: looking for it takes a tenth of a second of them.
gc.set_threshold(50_000, 20, 20)
