"""Fourier transforms along several axes, as PyTorch's operators have them."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array

__all__ = ["complex_to_complex", "complex_to_real", "real_to_complex"]


def _scale(count: int, normalization: int) -> float:
    """PyTorch's 0, 1 and 2: as it is, by the root of the count, by the count."""
    return (1.0, 1 / math.sqrt(count), 1 / count)[normalization]


def _count(shape: Sequence[int], dim: Sequence[int]) -> int:
    return math.prod(shape[d] for d in dim)


def complex_to_complex(self: Array, dim: Sequence[int], normalization: int, forward: bool) -> Array:
    """Of complex numbers, there or back."""
    transform = jnp.fft.fftn if forward else jnp.fft.ifftn
    made = transform(self, axes=tuple(dim), norm="backward" if forward else "forward")
    return made * _scale(_count(self.shape, dim), normalization)


def real_to_complex(
    self: Array, dim: Sequence[int], normalization: int, onesided: bool = True
) -> Array:
    """Of real numbers; one-sided: without the half along the last axis that mirrors the other."""
    transform = jnp.fft.rfftn if onesided else jnp.fft.fftn
    made = transform(self, axes=tuple(dim))
    return made * _scale(_count(self.shape, dim), normalization)


def complex_to_real(
    self: Array, dim: Sequence[int], normalization: int, last_dim_size: int
) -> Array:
    """Back from the one-sided transform to so many real numbers along the last axis."""
    sizes = [self.shape[d] for d in dim[:-1]] + [last_dim_size]
    made = jnp.fft.irfftn(self, s=sizes, axes=tuple(dim), norm="forward")
    return made * _scale(math.prod(sizes), normalization)
