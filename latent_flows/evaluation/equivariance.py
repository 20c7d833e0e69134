"""Equivariance error: does moving in latent space do what was done to the sample?"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent_flows._validation import floats
from latent_flows.typing import Generator, Latent, Scalar

__all__ = ["EquivarianceError", "equivariance_error"]


class EquivarianceError(NamedTuple):
    """Distances of a true sequence from what a flow makes of its first sample."""

    total: Scalar
    """Summed over the samples after the first, as published."""
    frames: Float[Array, "t"]
    """Of each of them: the sum over pixels of the absolute difference."""
    still: Scalar
    """The total of a flow that never moves: what has to be beaten."""
    rebuilt: Scalar
    """The total of encoding and decoding each sample by itself: what to hope for."""


def equivariance_error(
    encode: Callable[[Array], Latent],
    decode: Generator,
    follow: Callable[[Latent, Float[Array, "t"]], Float[Array, "t d"]],
    xs: Float[Array, "t ..."],
    ts: Float[Array, "t"],
) -> EquivarianceError:
    r"""Error of one sequence `x_0, ..., x_T` in which one known factor changes.

    $$ \mathcal{E} = \sum_{t=1}^{T} |x_t - g(z_t)|_1, \qquad z_0 = \mathrm{enc}(x_0), \quad
       z_t = \phi_t(z_0) $$

    It is a sum over pixels, channels and time, so compare only sequences of one size; published
    tables average it over sequences (`jax.vmap`, then `mean`).

    Args:
        encode: a sample to its code, for instance the posterior's mean, or a draw from it.
        decode: a code to a sample.
        follow: a code and times to the codes on its way, the first being that of `ts[0]`, such as
            `lambda z0, ts: flows.integrate(field, z0, ts).zs`.
        xs: the true sequence; nothing but `xs[0]` is shown to the flow.
        ts: the time of each sample, `ts[0]` that of the first.

    Returns:
        An `EquivarianceError`.

    Raises:
        ValueError: shapes that do not fit, fewer than two samples, or samples that are not floats.

    References:
        Song, Keller, Sebe and Welling, *Flow Factorized Representation Learning*, 2023, section 4
        (two of the published programs leave `z` where it is; this is what they call the error).

    >>> import jax.numpy as jnp
    >>> xs, ts = jnp.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]]), jnp.arange(3.0)
    >>> right = lambda z0, ts: z0 + ts[:, None] * jnp.array([1.0, 0.0])
    >>> found = equivariance_error(lambda x: x, lambda z: z, right, xs, ts)
    >>> float(found.total), float(found.still)
    (0.0, 3.0)
    """
    if jnp.ndim(ts) != 1 or jnp.ndim(xs) < 1 or len(xs) != len(ts) or len(xs) < 2:
        raise ValueError(
            "expected a sequence [t, ...] of at least 2 samples and times [t], got shapes "
            f"{jnp.shape(xs)} and {jnp.shape(ts)}"
        )
    floats("equivariance_error", xs=xs)
    start = encode(xs[0])
    codes = follow(start, ts)
    if codes.shape != (len(ts), *start.shape):
        raise ValueError(
            f"follow must give one code of shape {start.shape} for each of {len(ts)} times, got "
            f"shape {codes.shape}"
        )

    def miss(code: Latent, x: Array) -> Scalar:
        made = decode(code)
        if made.shape != x.shape:
            raise ValueError(f"decode gives shape {made.shape}, the sequence has {x.shape}")
        floats("equivariance_error", decoded=made)
        return jnp.sum(jnp.abs(made - x))

    misses = jax.vmap(miss)
    frames = misses(codes[1:], xs[1:])
    return EquivarianceError(
        frames.sum(),
        frames,
        jax.vmap(miss, (None, 0))(start, xs[1:]).sum(),
        misses(jax.vmap(encode)(xs[1:]), xs[1:]).sum(),
    )
