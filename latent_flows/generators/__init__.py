"""Generators: VAEs and GANs as networks of flax, published weights, likelihoods, noise."""

__all__ = []
