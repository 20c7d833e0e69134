r"""The energy of a curve that is known at points: a sum over the chords between them.

Two forms, each with what a Newton method needs. Where the metric is pulled back, a chord is one
of data space and the energy a sum of squares,

$$E = \frac n2 \sum_i |f(z_{i+1}) - f(z_i)|^2,$$

of which the Gauss-Newton matrix $J^\top J$ is the larger part of the Hessian. For any other metric
the metric is taken at the middle of the chord,

$$E = \frac n2 \sum_i (z_{i+1} - z_i)^\top M\big(\tfrac{z_i + z_{i+1}}2\big) (z_{i+1} - z_i).$$

Both are second order in $1/n$.
"""

from collections.abc import Callable
from typing import TypeGuard

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent_flows.geometry import metrics
from latent_flows.geometry.descent import Advance, Model
from latent_flows.geometry.metrics import Pullback
from latent_flows.typing import Latent, Metric, Scalar

__all__ = ["Total", "is_immersed", "model", "ridge", "total"]

Total = Callable[[Float[Array, "n+1 d"]], Scalar]
"""`points -> energy`."""


def total(metric: Metric) -> Total:
    """The energy of a chain of points, ends included.

    Args:
        metric: any metric.

    Returns:
        The energy, as a function of the points `[n + 1, d]`.
    """
    if is_immersed(metric):

        def immersed(points: Float[Array, "n+1 d"]) -> Scalar:
            steps = jnp.diff(jax.vmap(metric.flat)(points), axis=0)
            return len(steps) * (steps**2).sum() / 2

        return immersed

    def middle(points: Float[Array, "n+1 d"]) -> Scalar:
        steps = jnp.diff(points, axis=0)
        matrices = jax.vmap(metric)((points[:-1] + points[1:]) / 2)
        return len(steps) * jnp.einsum("id,ide,ie->", steps, matrices, steps) / 2

    return middle


def model(metric: Metric, z0: Latent, z1: Latent, segments: int) -> tuple[Advance, Model]:
    """How a Newton method sees the energy between two ends; a blank model to begin with.

    Args:
        metric: any metric.
        z0: one end.
        z1: the other.
        segments: how many chords there are.

    Returns:
        What takes the inner points to the next model, and a model to begin with.
    """
    if is_immersed(metric):
        return _immersed(metric, z0, z1, segments)
    return _middle(metric, z0, z1, segments)


def is_immersed(metric: Metric) -> TypeGuard[Pullback]:
    """Whether lengths are those of Euclidean space, seen through an immersion.

    Args:
        metric: any metric.

    Returns:
        True for a `pullback` without an ambient metric.
    """
    return isinstance(metric, Pullback) and metric.ambient is None


def _immersed(metric: Pullback, z0: Latent, z1: Latent, segments: int) -> tuple[Advance, Model]:
    """Gauss-Newton, with the missing part of the Hessian learnt on the way.

    That part is, at each point, `S = r . f''` with the residual `r` of the point. A step `s` shows
    how it acts in one direction: the change of `J' r` under a fixed `r` is `S s`. Of all symmetric
    matrices with that property the one nearest to the last guess is the next guess (Powell's
    update). Every point has a small matrix of its own, so that few steps teach them all.
    """
    n, m, d = segments, segments - 1, z0.shape[0]
    tiny = jnp.finfo(z0.dtype).eps
    products = jax.vmap(metrics.products)
    ends = jax.vmap(metric.flat)(jnp.stack([z0, z1]))

    def advance(points: Float[Array, "m d"], step: Float[Array, "m d"], here: Model):
        residual, second = here.memory
        x, jacobians = jax.vmap(metric.push)(points)
        steps = jnp.diff(jnp.concatenate([ends[:1], x, ends[1:]]), axis=0)
        new_residual = n * (steps[:-1] - steps[1:])
        gradient = products(jacobians, new_residual[:, None])[..., 0]
        gauss_newton = 2 * n * products(jacobians)
        upper = -n * products(jacobians[:-1], jacobians[1:])
        turned = products(jacobians, residual[:, None])[..., 0] - here.gradient
        second = jax.vmap(_nearest)(second, step, turned)
        safe = ridge(gauss_newton)
        there = Model(
            value=n * (steps**2).sum() / 2,
            gradient=gradient,
            diagonal=safe + second,
            upper=upper,
            safe_diagonal=safe,
            safe_upper=upper,
            noise=4 * tiny * n * jnp.sqrt(d * (x**2).mean()),
            memory=(new_residual, second),
        )
        return there, here._replace(diagonal=here.safe_diagonal + second, memory=(residual, second))

    return advance, _blank(
        z0, m, (jnp.zeros((m, ends.shape[1]), z0.dtype), jnp.zeros((m, d, d), z0.dtype))
    )


def _middle(metric: Metric, z0: Latent, z1: Latent, segments: int) -> tuple[Advance, Model]:
    """Newton's method with exact second derivatives of the metric, one chord at a time."""
    n, m, d = segments, segments - 1, z0.shape[0]
    tiny = jnp.finfo(z0.dtype).eps

    def chord(middle: Latent, step: Latent):
        """Derivatives of a chord's energy in its middle and its step."""

        def first(middle):
            def value(middle):
                matrix = metric(middle)
                matrix = n * (matrix + matrix.T) / 2
                return step @ matrix @ step / 2, matrix

            slope, matrix = jax.grad(value, has_aux=True)(middle)
            return (slope, matrix @ step), (slope, matrix)

        (bend, shear), (slope, matrix) = jax.jacfwd(first, has_aux=True)(middle)
        return slope, matrix, bend, shear

    def advance(points: Float[Array, "m d"], step: Float[Array, "m d"], here: Model):
        chain = jnp.concatenate([z0[None], points, z1[None]])
        steps = jnp.diff(chain, axis=0)
        slope, matrix, bend, shear = jax.vmap(chord)((chain[:-1] + chain[1:]) / 2, steps)
        force = jnp.einsum("ide,ie->id", matrix, steps)
        both = (shear + shear.mT) / 2
        safe = ridge(matrix[:-1] + matrix[1:])
        inner = matrix[1:-1]
        there = Model(
            value=(force * steps).sum() / 2,
            gradient=(slope / 2 + force)[:-1] + (slope / 2 - force)[1:],
            diagonal=safe + (bend / 4 + both)[:-1] + (bend / 4 - both)[1:],
            upper=(bend / 4 + (shear.mT - shear) / 2)[1:-1] - inner,
            safe_diagonal=safe,
            safe_upper=-inner,
            noise=4
            * tiny
            * n
            * jnp.sqrt(
                d * jnp.abs(jnp.einsum("id,idd,id->i", chain[1:], matrix, chain[1:])).mean() / n
            ),
            memory=(),
        )
        return there, here

    return advance, _blank(z0, m, ())


def _blank(z: Latent, m: int, memory) -> Model:
    d = z.shape[0]
    zero, blocks, links = (jnp.zeros(shape, z.dtype) for shape in ((), (m, d, d), (m - 1, d, d)))
    return Model(zero, jnp.zeros((m, d), z.dtype), blocks, links, blocks, links, zero, memory)


def ridge(blocks: Float[Array, "*m d d"]) -> Float[Array, "*m d d"]:
    """A little more on the diagonal, so that rounding does not make a block indefinite.

    In units of the axis that shows most: those that hardly show drown in its rounding. A GAN's
    images may move ten thousand times further along one latent axis than along another.

    Args:
        blocks: symmetric matrices.

    Returns:
        The blocks, to each diagonal added a small share of its largest entry.
    """
    d = blocks.shape[-1]
    largest = jnp.diagonal(blocks, axis1=-2, axis2=-1).max(-1)[..., None, None]
    return blocks + 16 * jnp.finfo(blocks.dtype).eps * largest * jnp.eye(d, dtype=blocks.dtype)


def _nearest(last: Float[Array, "d d"], step: Latent, image: Latent) -> Float[Array, "d d"]:
    """The symmetric matrix nearest to `last` that sends `step` to `image`; `last` if no step."""
    squared = step @ step
    scale = jnp.where(squared > 0, 1 / jnp.where(squared > 0, squared, 1), 0)
    off = jnp.outer(image - last @ step, step) * scale
    correction = off + off.T - jnp.outer(step, step) * (jnp.trace(off) * scale)
    return jnp.where(jnp.isfinite(correction).all(), last + correction, last)
