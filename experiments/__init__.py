"""Experiments: one module each, run as `python -m experiments.NAME`."""

import os

from experiments import announcements, interrupts, memory

# XLA's alarms about slow compilations and foldings, which it calls errors; JAX raises real ones.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
memory.keep_freed()  # before there are threads
interrupts.begin()
announcements.begin()
