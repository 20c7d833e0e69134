"""What the published StyleGAN2 and ProgGAN made of random weights, as it was recorded."""

from pathlib import Path

import numpy as np

from latent_flows.generators.proggan import ProgGAN
from latent_flows.generators.stylegan2 import StyleGAN2

STYLEGAN2 = StyleGAN2(16, latent_dim=6, mapping_layers=3, channels=(5, 4, 3))
PROGGAN = ProgGAN(channels=(6, 5, 4), latent_dim=7)


class Recorded(dict):
    """Inputs and outputs by name, and the state dict."""

    def __init__(self, name: str):
        with np.load(Path(__file__).parent / "recorded" / f"{name}.npz") as file:
            super().__init__(file)

    @property
    def state(self) -> dict[str, np.ndarray]:
        """The state dict of the PyTorch network."""
        return {k.removeprefix("state/"): v for k, v in self.items() if k.startswith("state/")}
