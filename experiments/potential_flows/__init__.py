"""Latent Traversals in Generative Models as Potential Flows (Song et al., ICML 2023)."""
