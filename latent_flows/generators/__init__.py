"""Generators: VAEs and GANs as networks of flax, published weights, and your own functions."""

from latent_flows.generators.frozen import FrozenGenerator, draw_latents, freeze
from latent_flows.generators.load import load_generator
from latent_flows.generators.spec import GeneratorSpec
from latent_flows.generators.torch_module import from_torch

__all__ = [
    "FrozenGenerator",
    "GeneratorSpec",
    "draw_latents",
    "freeze",
    "from_torch",
    "load_generator",
]
