"""Generators: VAEs and GANs as networks of flax, published weights, and your own functions."""

from latent_flows.generators.flow_generator import denoiser_velocity, flow_generator
from latent_flows.generators.frozen import FrozenGenerator, draw_latents, freeze
from latent_flows.generators.load import load_generator
from latent_flows.generators.prior_flow import PriorFlow, fit_prior_flow, through_noise, with_prior
from latent_flows.generators.spec import GeneratorSpec
from latent_flows.generators.torch_module import from_torch

__all__ = [
    "FrozenGenerator",
    "GeneratorSpec",
    "PriorFlow",
    "denoiser_velocity",
    "draw_latents",
    "fit_prior_flow",
    "flow_generator",
    "freeze",
    "from_torch",
    "load_generator",
    "through_noise",
    "with_prior",
]
