"""Move through, steer and measure the latent spaces of generative models, in JAX."""
