"""Experiments: one module each, run as `python -m experiments.NAME`."""

from experiments import memory

memory.keep_freed()
