"""Experiments: one module each, run as `python -m experiments.NAME`."""

import gc
import sys
from importlib.util import find_spec

from latent_flows._extras import MissingExtra, extra

try:
    with extra("experiments"):
        for name in ("tyro", "orbax", "rich"):
            if find_spec(name) is None:
                raise ModuleNotFoundError(name=name)
except MissingExtra as error:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2) from None

from experiments import interrupts, memory

memory.keep_freed()  # before there are threads
interrupts.begin()
# Imports make much and leave no garbage: looking for it takes a tenth of a second of them.
gc.set_threshold(50_000, 20, 20)
