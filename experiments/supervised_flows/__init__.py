"""Potential flows taught by sequences of known factors (Song et al., ICML 2023)."""
