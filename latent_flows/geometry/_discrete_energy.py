r"""The energy of a curve that is known at points: a sum over the chords between them.

Two forms, each with what a Newton method needs. Where the metric is pulled back, a chord is one
of data space and the energy a sum of squares,

$$E = \frac n2 \sum_i |f(z_{i+1}) - f(z_i)|^2,$$

of which the Gauss-Newton matrix $J^\top J$ is the larger part of the Hessian. Any other metric is
averaged over the chord by Simpson's rule,

$$E = \frac n2 \sum_i (z_{i+1} - z_i)^\top \tfrac16\Big( M(z_i)
  + 4 M\big(\tfrac{z_i + z_{i+1}}2\big) + M(z_{i+1}) \Big) (z_{i+1} - z_i).$$

Both are second order in $1/n$. A chord of data space can miss what lies between its ends, so that
form also knows what the metric at its ends makes of it.

Numbers of a sample that are drawn anew at every point, with a mean of zero, make no chords: what is
expected of the square of their difference is $|e(z_i)|^2 + |e(z_{i+1})|^2$.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent_flows._convolutions import channels_last
from latent_flows._transforms import vmap_chunked
from latent_flows.geometry import metrics
from latent_flows.geometry._newton import Advance, Model, Problem
from latent_flows.geometry.metrics import Pullback
from latent_flows.typing import Latent, Metric, Scalar

__all__ = ["Exact", "Total", "halved", "model", "refined", "ridge", "total", "with_slope"]

Exact = Callable[[Float[Array, "m d"], Model], Model]
"""`(points, model) -> model`: the model with its exact Hessian."""

Total = Callable[[Float[Array, "k d"]], Scalar]
"""`points -> energy`."""


def total(metric: Metric) -> Total:
    """The energy of a chain of points, ends included.

    Args:
        metric: any metric.

    Returns:
        The energy, as a function of the points `[n + 1, d]`.
    """
    if (immersed := metrics.euclidean(metric)) is not None:

        def chords(points: Float[Array, "k d"]) -> Scalar:
            return _of_images(immersed, jax.vmap(immersed.flat)(points), points[0])

        return chords

    def simpson(points: Float[Array, "k d"]) -> Scalar:
        steps = jnp.diff(points, axis=0)
        middles = jax.vmap(metric)((points[:-1] + points[1:]) / 2)
        corners = jax.vmap(metric)(points)
        matrices = (4 * middles + corners[:-1] + corners[1:]) / 6
        return len(steps) * jnp.einsum("id,ide,ie->", steps, matrices, steps) / 2

    return simpson


def with_slope(
    metric: Metric, batch_size: int | None = None
) -> Callable[[Float[Array, "k d"]], tuple[Scalar, Float[Array, "k d"]]]:
    """The energy of a chain of points, and its gradient in all of them.

    Args:
        metric: any metric.
        batch_size: of an immersion, the images that are made at once: they are made again on the
            way back, a third more work, so that the features of no more than these are held. None:
            all, once.

    Returns:
        The two, as a function of the points `[n + 1, d]`.
    """
    immersed = metrics.euclidean(metric)
    if immersed is None or batch_size is None:
        return jax.value_and_grad(total(metric))

    def pulled(z: Latent, of: Float[Array, "n"]) -> Latent:
        return jax.vjp(immersed.flat, z)[1](of)[0]

    def both(points: Float[Array, "k d"]) -> tuple[Scalar, Float[Array, "k d"]]:
        images = vmap_chunked(immersed.flat, batch_size)(points)
        value, slopes = jax.value_and_grad(partial(_of_images, immersed))(images, points[0])
        return value, vmap_chunked(channels_last(pulled), batch_size)(points, slopes)

    return both


def _of_images(immersed: Pullback, images: Float[Array, "k n"], z: Latent) -> Scalar:
    whole, drawn = immersed.split(images, z)
    return _of_chords(whole) + _of_draws(drawn)


def model(metric: Metric, z0: Latent, z1: Latent, segments: int) -> Problem:
    """The energy between two ends, as a Newton method sees it.

    Args:
        metric: any metric.
        z0: one end.
        z1: the other.
        segments: how many chords there are.

    Returns:
        The `Problem` of the points between the ends.
    """
    if (immersed := metrics.euclidean(metric)) is not None:
        advance, blank, exact = _immersed(immersed, z0, z1, segments)
    else:
        advance, blank, exact = _simpson(metric, z0, z1, segments)
    energy = total(metric)

    def value(inner: Float[Array, "m d"]) -> Scalar:
        return energy(jnp.concatenate([z0[None], inner, z1[None]]))

    return Problem(value, advance, blank, exact)


def _immersed(
    metric: Pullback, z0: Latent, z1: Latent, segments: int
) -> tuple[Advance, Model, Exact]:
    """Gauss-Newton, with the missing part of the Hessian learnt on the way.

    That part is, at each point, `S = r . f''` with the residual `r` of the point. A step `s` shows
    how it acts in one direction: the change of `J' r` under a fixed `r` is `S s`. Of all symmetric
    matrices with that property the one nearest to the last guess is the next guess (Powell's
    update). Every point has a small matrix of its own, so that few steps teach them all.
    """
    n, m, d = segments, segments - 1, z0.shape[0]
    tiny = jnp.finfo(z0.dtype).eps
    products = jax.vmap(metrics.products)
    ends, pushed = jax.vmap(metric.push)(jnp.stack([z0, z1]))
    edges = products(metric.split(pushed, z0)[0])

    def advance(
        points: Float[Array, "m d"], step: Float[Array, "m d"], here: Model
    ) -> tuple[Model, Model]:
        residual, second = here.memory
        x, jacobians = jax.vmap(metric.push)(points)
        images = jnp.concatenate([ends[:1], x, ends[1:]])
        images, drawn = metric.split(images, z0)
        steps = jnp.diff(images, axis=0)
        chords = value = n * (steps**2).sum() / 2
        new_residual = n * (steps[:-1] - steps[1:])
        if metric.is_drawn:
            value = chords + _of_draws(drawn)
            new_residual = jnp.concatenate([new_residual, 2 * n * drawn[1:-1]], 1)
        gradient = products(jacobians, new_residual[:, None])[..., 0]
        inside = products(jacobians)
        gauss_newton = 2 * n * inside
        linked, _ = metric.split(jacobians, z0)
        within = products(linked) if metric.is_drawn else inside
        matrices = jnp.concatenate([edges[:1], within, edges[1:]])
        finer = _by_ends(matrices, jnp.concatenate([z0[None], points, z1[None]]))
        if metric.is_drawn:
            # Draws say nothing of what lies between points: the chords alone are compared.
            finer = value * finer / jnp.where(chords > 0, chords, 1)
        upper = -n * products(linked[:-1], linked[1:])
        turned = products(jacobians, residual[:, None])[..., 0] - here.gradient
        second = jax.vmap(_nearest)(second, step, turned)
        safe = ridge(gauss_newton)
        there = Model(
            value=value,
            gradient=gradient,
            diagonal=safe + second,
            upper=upper,
            safe_diagonal=safe,
            safe_upper=upper,
            noise=4 * tiny * n * jnp.sqrt(d * (x**2).mean()),
            finer=finer,
            memory=(new_residual, second),
        )
        return there, here._replace(diagonal=here.safe_diagonal + second, memory=(residual, second))

    def exact(points: Float[Array, "m d"], here: Model) -> Model:
        residual, _ = here.memory

        def bend(z: Latent, force: Float[Array, "D"]) -> Float[Array, "d d"]:
            return jax.jacfwd(jax.grad(lambda z: metric.flat(z) @ force))(z)

        return here._replace(diagonal=here.safe_diagonal + jax.vmap(bend)(points, residual))

    memory = jnp.zeros((m, ends.shape[1]), z0.dtype), jnp.zeros((m, d, d), z0.dtype)
    return advance, _blank(z0, m, memory), exact


def _simpson(metric: Metric, z0: Latent, z1: Latent, segments: int) -> tuple[Advance, Model, Exact]:
    """Newton's method with exact second derivatives of the metric, one place at a time."""
    n, m, d = segments, segments - 1, z0.shape[0]
    tiny = jnp.finfo(z0.dtype).eps

    def place(z: Latent, steps: Float[Array, "k d"]) -> tuple[Array, Array, Array, Array]:
        """Derivatives of the energies of `k` chords that have a place in common, in that place and
        in their steps."""

        def first(z):
            def value(z):
                matrix = metric(z)
                matrix = n * (matrix + matrix.T) / 2
                return jnp.einsum("kd,de,ke->", steps, matrix, steps) / 2, matrix

            slope, matrix = jax.grad(value, has_aux=True)(z)
            return (slope, steps @ matrix), (slope, matrix)

        (bend, shear), (slope, matrix) = jax.jacfwd(first, has_aux=True)(z)
        return slope, matrix, bend, shear

    def advance(
        points: Float[Array, "m d"], step: Float[Array, "m d"], here: Model
    ) -> tuple[Model, Model]:
        chain = jnp.concatenate([z0[None], points, z1[None]])
        steps = jnp.diff(chain, axis=0)
        # A place in the middle of each chord, and one at each point for the chords that meet there.
        slope, matrix, bend, shear = jax.vmap(place)((chain[:-1] + chain[1:]) / 2, steps[:, None])
        shear = shear[:, 0]
        pairs = jnp.stack([steps[:-1], steps[1:]], 1)
        slope_at, inside, bend_at, shear_at = jax.vmap(place)(points, pairs)
        before, after = shear_at[:, 0], shear_at[:, 1]
        ends = jax.vmap(metric)(jnp.stack([z0, z1]))
        ends = n * (ends + ends.mT) / 2
        corners = jnp.concatenate([ends[:1], inside, ends[1:]])
        whole = (4 * matrix + corners[:-1] + corners[1:]) / 6
        pull = jnp.einsum("ide,ie->id", whole, steps)
        value = (pull * steps).sum() / 2
        both = shear + shear.mT
        turned = before + before.mT - after - after.mT
        safe = ridge(whole[:-1] + whole[1:])
        between = 4 * (bend / 4 + (shear.mT - shear) / 2)[1:-1] + after[:-1].mT - before[1:]
        there = Model(
            value=value,
            gradient=pull[:-1] - pull[1:] + (2 * (slope[:-1] + slope[1:]) + slope_at) / 6,
            diagonal=safe
            + (bend + 2 * both)[:-1] / 6
            + (bend - 2 * both)[1:] / 6
            + (bend_at + turned) / 6,
            upper=between / 6 - whole[1:-1],
            safe_diagonal=safe,
            safe_upper=-whole[1:-1],
            noise=4
            * tiny
            * n
            * jnp.sqrt(
                d * jnp.abs(jnp.einsum("id,idd,id->i", chain[1:], matrix, chain[1:])).mean() / n
            ),
            finer=value,
            memory=(),
        )
        return there, here

    return advance, _blank(z0, m, ()), lambda points, here: here


def halved(metric: Metric, z0: Latent, z1: Latent, segments: int) -> Problem:
    """The energy with every chord made of two, and the point between them in its middle.

    It knows more of the curve between the points, at the price of one with twice the segments.

    Args:
        metric: any metric.
        z0: one end.
        z1: the other.
        segments: how many chords, before they are halved.

    Returns:
        The `Problem` of the points between the ends.
    """
    fine = model(metric, z0, z1, 2 * segments)
    ends, still = jnp.stack([z0, z1]), jnp.zeros((2, len(z0)), z0.dtype)

    def spread(inner: Float[Array, "m d"], ends: Float[Array, "2 d"]) -> Float[Array, "2*m+1 d"]:
        chain = jnp.concatenate([ends[:1], inner, ends[1:]])
        middles = (chain[:-1] + chain[1:]) / 2
        return jnp.concatenate(
            [middles[:1], jnp.stack([inner, middles[1:]], 1).reshape(-1, len(z0))]
        )

    def diagonals(blocks: Float[Array, "k d d"], links: Float[Array, "k-1 d d"]) -> Array:
        """The middle of `P' A P` where `P` spreads: what each point and its two middles add."""
        linked = (links + links.mT) / 2
        return blocks[1::2] + (blocks[:-2:2] + blocks[2::2]) / 4 + linked[::2] + linked[1::2]

    def links_of(blocks: Float[Array, "k d d"], links: Float[Array, "k-1 d d"]) -> Array:
        return blocks[2:-2:2] / 4 + (links[1:-1:2] + links[2::2]) / 2

    def gathered(model: Model) -> Model:
        blocks, safe = (model.diagonal, model.upper), (model.safe_diagonal, model.safe_upper)
        gradient = model.gradient
        return Model(
            value=model.value,
            gradient=gradient[1::2] + (gradient[:-2:2] + gradient[2::2]) / 2,
            diagonal=diagonals(*blocks),
            upper=links_of(*blocks),
            safe_diagonal=diagonals(*safe),
            safe_upper=links_of(*safe),
            noise=model.noise,
            finer=model.finer,
            memory=model,
        )

    def advance(
        points: Float[Array, "m d"], step: Float[Array, "m d"], here: Model
    ) -> tuple[Model, Model]:
        there, amended = fine.advance(spread(points, ends), spread(step, still), here.memory)
        learnt = gathered(amended)
        return gathered(there), here._replace(diagonal=learnt.diagonal, memory=amended)

    def exact(points: Float[Array, "m d"], here: Model) -> Model:
        return gathered(fine.exact(spread(points, ends), here.memory))

    return Problem(
        lambda inner: fine.value(spread(inner, ends)), advance, gathered(fine.blank), exact
    )


def refined(metric: Pullback, points: Float[Array, "k d"], fine: int) -> tuple[Scalar, Scalar]:
    """The energy of a chain with draws, by some points and by what lies between them.

    Args:
        metric: with draws, whose part of the energy grows as the square of the segments.
        points: a chain of `fine` times as many segments as the energy has, ends included.
        fine: how many of them are one of the energy's.

    Returns:
        The energy of every `fine`-th point; then the same with the chords as long, and the variance
        of the draws as large, as all points tell.
    """
    images, drawn = metric.split(jax.vmap(metric.flat)(points), points[0])
    rough = _of_chords(images[::fine]) + _of_draws(drawn[::fine])
    return rough, _of_chords(images) + _of_draws(drawn) / fine**2


def _of_chords(images: Float[Array, "k n"]) -> Scalar:
    steps = jnp.diff(images, axis=0)
    return len(steps) * (steps**2).sum() / 2


def _of_draws(drawn: Float[Array, "k n"]) -> Scalar:
    """What is expected of the squared differences of numbers drawn at each point of a chain."""
    squares = (drawn**2).sum(-1)
    return (len(drawn) - 1) * (squares[:-1] + squares[1:]).sum() / 2


def _by_ends(matrices: Float[Array, "k d d"], chain: Float[Array, "k d"]) -> Scalar:
    """The energy of straight lines between points with the mean of the metrics at their ends."""
    steps = jnp.diff(chain, axis=0)
    return len(steps) * jnp.einsum("id,ide,ie->", steps, matrices[:-1] + matrices[1:], steps) / 4


def _blank(z: Latent, m: int, memory) -> Model:
    d = z.shape[0]
    zero, blocks, links = (jnp.zeros(shape, z.dtype) for shape in ((), (m, d, d), (m - 1, d, d)))
    return Model(zero, jnp.zeros((m, d), z.dtype), blocks, links, blocks, links, zero, zero, memory)


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
