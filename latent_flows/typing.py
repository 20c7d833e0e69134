"""The nouns of the library: what every function takes and returns.

Everything is unbatched; the caller writes `jax.vmap`.
"""

from collections.abc import Callable
from typing import TypeAlias

from jaxtyping import Array, Float, PyTree

__all__ = ["Curve", "Field", "Generator", "Latent", "Metric", "Potential", "Scalar", "VectorField"]

Scalar: TypeAlias = Float[Array, ""]
"""A number, as an array without axes."""

Latent: TypeAlias = Float[Array, "d"]
"""One point `z` of the latent space."""

Generator: TypeAlias = Callable[[Latent], Array]
"""`z -> x`: one latent to one sample, of any event shape."""

Potential: TypeAlias = Callable[[Scalar, Latent], Scalar]
"""`(t, z) -> u`: time first, as in diffrax."""

VectorField: TypeAlias = Callable[[Scalar, Latent], Latent]
"""`(t, z) -> dz/dt`."""

Field: TypeAlias = Callable[[PyTree, Scalar, Latent], Latent]
"""`(parameters, t, z) -> dz/dt`: one of a family of vector fields."""

Metric: TypeAlias = Callable[[Latent], Float[Array, "d d"]]
"""`z -> M(z)`, symmetric positive definite."""

Curve: TypeAlias = Callable[[Scalar], Latent]
"""`s -> z`, for `s` in [0, 1]."""
