"""Experiments: one module each, run as `python -m experiments.NAME`."""

from experiments import interrupts, memory

memory.keep_freed()  # before there are threads
interrupts.begin()
