"""Commands of the experiments by name."""

import importlib


def front(name):
    """The module behind `python -m experiments.NAME`."""
    module = importlib.import_module(f"experiments.{name}")
    is_room = hasattr(module, "__path__")
    return importlib.import_module(f"experiments.{name}.__main__") if is_room else module
