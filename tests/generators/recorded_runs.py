"""What published PyTorch implementations made of random weights, as it was recorded."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.generators.states import random_state

FOLDER = Path(__file__).parent / "recorded"


class Run(NamedTuple):
    """One network: its settings, its state dict, and what it made of two latents."""

    settings: dict[str, Any]
    state: dict[str, np.ndarray]
    z: np.ndarray
    label: np.ndarray
    images: np.ndarray
    step: int
    """`images` has every so many pixels of a row and a column."""


def read(name: str) -> Run:
    """The run of a file of `recorded`."""
    with np.load(FOLDER / f"{name}.npz") as file:
        about = json.loads(str(file["about"]))
        arrays = {key: file[key] for key in ("z", "label", "images")}
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in about["settings"].items()}
    state = random_state({k: tuple(v) for k, v in about["shapes"].items()}, about["seed"])
    return Run(settings, state, **arrays, step=about["step"])
