"""Controlling generative models with continuous factors of variations (Plumerault et al., 2020)."""
