"""The explorer: a latent space in the browser."""
