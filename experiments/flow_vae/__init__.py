"""Potential flows learnt together with a VAE, as a regulariser (Song et al., ICML 2023)."""
