"""Guidance: the latent field that climbs any score of the generated sample."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array

from latent_flows._norms import safe_norm
from latent_flows._validation import choose
from latent_flows.calculus import Number
from latent_flows.typing import Generator, Latent, Scalar, VectorField

__all__ = ["guidance"]

_SPACES = {"latent": "the length of the step itself", "data": "the length of what it changes"}


def guidance(
    generator: Generator,
    score: Callable[[Any], Scalar],
    *,
    step: float | None = None,
    space: Literal["latent", "data"] = "latent",
) -> VectorField:
    r"""The gradient of a score of the generated sample, its length normalised on request.

    $$v(z) = \nabla_z\, s(g(z)), \qquad\text{or}\quad \ell\, \frac{v}{|v|}
      \quad\text{or}\quad \ell\, \frac{v}{|J_g v|}$$

    With a `step` the score rises at a pace that does not depend on its units, and a unit of time
    is a step of length `l` in latent space or, to first order, in data space. Where the gradient
    is zero, or (in data space) moves nothing, the field is zero.

    Args:
        generator: `z -> x`.
        score: `x -> scalar`: a classifier's log-probability, a measured factor, a property.
        step: the wanted length `l`, positive; None for the plain gradient.
        space: `"latent"` or `"data"`: where the length is measured.

    Returns:
        `(t, z) -> vector`, for `flows.integrate`; it does not depend on time.

    Raises:
        ValueError: a step that is not positive, an unknown space, a score that is not one number.

    References:
        Wei et al., *ChemFlow: Navigating Chemical Space with Latent Flows*, 2024, section 3.3.

    >>> import jax.numpy as jnp
    >>> twice = lambda z: 2.0 * z
    >>> for options in ({}, {"step": 1.0}, {"step": 1.0, "space": "data"}):
    ...     print(guidance(twice, jnp.sum, **options)(0.0, jnp.zeros(4)))
    [2. 2. 2. 2.]
    [0.5 0.5 0.5 0.5]
    [0.25 0.25 0.25 0.25]
    """
    choose("space of guidance", space, _SPACES)
    if step is not None and not step > 0:
        raise ValueError(f"step must be positive, or None for the plain gradient, got {step}")

    def of_latent(z: Latent) -> Scalar:
        value = jnp.asarray(score(generator(z)))
        if value.ndim != 0:
            raise ValueError(f"score must give one number, got shape {value.shape}")
        return value

    def field(t: Number, z: Latent) -> Latent:
        del t
        slope = jax.grad(of_latent)(z)
        if step is None:
            return slope
        # Of unit size before it is pushed forward, so that small gradients do not underflow.
        unit = slope * _inverse_length(slope)
        moved = unit if space == "latent" else jax.jvp(generator, (z,), (unit,))[1]
        return step * unit * _inverse_length(moved)

    return field


def _inverse_length(x: Array) -> Scalar:
    """One over the Euclidean length of an array, 0 for an array of zeros."""
    largest = jnp.max(jnp.abs(x))
    safe = jnp.where(largest > 0, largest, 1)
    length = safe * safe_norm(x / safe)
    return jnp.where(largest > 0, 1 / jnp.where(largest > 0, length, 1), 0)
