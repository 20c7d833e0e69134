"""Latent Space Oddity: the geometry of a generator (Arvanitidis et al., ICLR 2018)."""
