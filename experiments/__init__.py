"""Experiments: one module each, run as `python -m experiments.NAME`."""

import gc

from experiments import interrupts, memory

memory.keep_freed()  # before there are threads
interrupts.begin()
# Imports make much and leave no garbage: looking for it takes a tenth of a second of them.
gc.set_threshold(50_000, 20, 20)
