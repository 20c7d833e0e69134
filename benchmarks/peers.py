"""What the library is compared with, where that is installed."""

import importlib
import importlib.util
import os
from typing import Any

NO_TORCH = "PyTorch is not installed, so JAX is measured alone: pip install 'latent-flows[peers]'"
NO_STOCHMAN = "stochman is not installed, so it is left out: pip install 'latent-flows[peers]'"


def has(*names: str) -> bool:
    """Whether all these packages are installed."""
    return all(importlib.util.find_spec(name) is not None for name in names)


def torch_module(name: str) -> Any | None:
    """A module that needs PyTorch, None where PyTorch is not installed."""
    if not has("torch"):
        return None
    # Read when PyTorch loads OpenMP, whose idle threads would otherwise spin, and take the cores
    # from JAX in between.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    return importlib.import_module(name)
