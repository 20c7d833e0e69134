"""PyTorch modules as functions of JAX: the exported graph, a rule an operator, and the module."""
