"""The latents of pictures of one's own, and where commands take them from."""
