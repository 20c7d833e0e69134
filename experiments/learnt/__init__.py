"""What a run has learnt that moves latents, read once for all that show it."""
