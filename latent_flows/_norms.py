"""Square roots and lengths whose derivative at zero is zero instead of NaN.

A length has no derivative at zero: it is a cone there, and zero is one of the slopes that touch it.
Reverse mode multiplies the infinite slope of the root by the zero slope of the square instead, and
one point that stands still makes every gradient NaN.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["safe_norm", "safe_sqrt"]


def safe_sqrt(x: Array) -> Array:
    r"""$\sqrt x$, and 0 where `x` is not positive, with the derivative 0 there.

    Args:
        x: numbers of at least 0, but for rounding.

    Returns:
        An array of the same shape.

    >>> import jax
    >>> print(safe_sqrt(jnp.array([4.0, 0.0])), jax.grad(safe_sqrt)(0.0))
    [2. 0.] 0.0
    """
    x = jnp.asarray(x)
    # Not `x > 0`: a NaN must stay one.
    flat = x <= 0
    return jnp.where(flat, 0, jnp.sqrt(jnp.where(flat, 1, x)))


def safe_norm(
    x: Float[Array, "..."], axis: int | Sequence[int] | None = None, *, keepdims: bool = False
) -> Float[Array, "..."]:
    r"""The Euclidean length $\bigl(\sum_i x_i^2\bigr)^{1/2}$, with the derivative 0 at 0.

    Args:
        x: an array.
        axis: over which to sum; all axes by default.
        keepdims: whether the axes are kept, with length one.

    Returns:
        The lengths.

    >>> import jax
    >>> print(safe_norm(jnp.array([3.0, 4.0])), jax.grad(safe_norm)(jnp.zeros(2)))
    5.0 [0. 0.]
    """
    axes = tuple(axis) if isinstance(axis, Sequence) else axis
    return safe_sqrt(jnp.sum(jnp.square(x), axis=axes, keepdims=keepdims))
