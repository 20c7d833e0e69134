"""What the library is compared with, where that is installed."""

import importlib
import importlib.util
import os
from typing import Any

import jax
import numpy as np

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


def tensors(tree: Any) -> Any:
    """Arrays as PyTorch's, where JAX computes, so that both sides use the same device.

    A GPU's products of float32 matrices have as many digits in both as JAX is told to keep
    (`JAX_DEFAULT_MATMUL_PRECISION`).

    Args:
        tree: of arrays.

    Returns:
        The same of tensors.

    Raises:
        ValueError: JAX computes on a device that this PyTorch cannot use.
    """
    torch = importlib.import_module("torch")
    device, backend = "cpu", jax.default_backend()
    if backend != "cpu":
        if backend != "gpu" or not torch.cuda.is_available():
            raise ValueError(
                f"JAX computes on a {backend} that this PyTorch cannot use; install the PyTorch "
                "that can, or set JAX_PLATFORMS=cpu"
            )
        device = "cuda"
        settings: Any = jax.config
        exact = settings.jax_default_matmul_precision in ("highest", "float32")
        torch.set_float32_matmul_precision("highest" if exact else "high")
        torch.backends.cudnn.allow_tf32 = not exact
    return jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf), device=device), tree)
