"""The state of a PyTorch module out of a file, none of whose code is run."""

from pathlib import Path
from typing import Any

import numpy as np

from latent_flows.generators.weights import HARMLESS, read_state_dict

__all__ = ["load_state"]

SHOWN = 3
"""Keys of each kind that a message names."""


def load_state(module: Any, path: str | Path) -> None:
    """Gives a module the numbers that a file holds under its names, behind whatever prefix.

    Args:
        module: of PyTorch.
        path: a `.pt`, `.pth`, `.pkl` or `.safetensors` file.

    Raises:
        ValueError: it cannot be read without running code, or its names or shapes are not those of
            the module.
    """
    import torch

    wanted = module.state_dict()
    state = read_state_dict(path, names=wanted)
    missing = [k for k in wanted if k not in state and k.rpartition(".")[2] not in HARMLESS]
    extra = [k for k in state if k not in wanted and k.rpartition(".")[2] not in HARMLESS]
    odd = [
        f"{k} {list(state[k].shape)} in place of {list(v.shape)}"
        for k, v in wanted.items()
        if k in state and state[k].shape != tuple(v.shape)
    ]
    groups = {"missing": missing, "left over": extra, "of another shape": odd}
    told = [f"{len(keys)} {kind} ({_listed(keys)})" for kind, keys in groups.items() if keys]
    if told:
        raise ValueError(f"{path} is not the state of {type(module).__name__}: {', '.join(told)}")
    found = {k: torch.from_numpy(np.array(v)) for k, v in state.items() if k in wanted}
    module.load_state_dict(found, strict=False)


def _listed(keys: list[str]) -> str:
    more = len(keys) - SHOWN
    return ", ".join(keys[:SHOWN]) + (f" and {more} more" if more > 0 else "")
