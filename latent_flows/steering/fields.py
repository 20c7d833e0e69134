"""Vector fields of a latent along which a sample, or an attribute of it, changes as asked."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from latent_flows.calculus import Number
from latent_flows.directions.transformations import (
    Sample,
    Transformation,
    spread,
    transformed,
)
from latent_flows.steering._equations import (
    Attributes,
    at,
    check_damping,
    check_rates,
    check_settings,
    choice,
    features,
    inverse,
    joined,
    least_change,
    measured_rows,
)
from latent_flows.steering._least_squares import dual
from latent_flows.typing import Generator, Latent, Metric, Potential, Scalar, VectorField

__all__ = [
    "attribute_field",
    "dual_frame",
    "transformation_field",
    "velocity",
]

STEP = 1e-3
"""The amount over which the velocity of a transformation is taken, both ways."""


def velocity(transformation: Transformation, image: Sample) -> tuple[Sample, Float[Array, "..."]]:
    r"""How a sample begins to move under a transformation, and where that is known.

    $$\tau(x) = \frac{d}{dt} T_t(x) \Big|_{t = 0}$$

    as a central difference: images are interpolated linearly between pixels, which has a kink at
    `t = 0`, and so its slope from the left differs from that to the right.

    Args:
        transformation: `(x, t) -> (x, mask)`.
        image: `[h, w, c]`, or any other sample.

    Returns:
        The velocity, zero where it is not known, and the mask of where it is.

    >>> import jax.numpy as jnp
    >>> from latent_flows.directions import translate_x
    >>> ramp = jnp.tile(jnp.linspace(0.0, 1.0, 6)[None, :, None], (6, 1, 1))
    >>> moving, known = velocity(translate_x, ramp)
    >>> print(moving[0, 1:-1, 0].round(3), known[0])
    [-1.2 -1.2 -1.2 -1.2] [0. 1. 1. 1. 1. 0.]
    """
    (ahead, seen_ahead), (behind, seen_behind) = (
        transformed(transformation, image, jnp.asarray(t, image.dtype)) for t in (STEP, -STEP)
    )
    mask = seen_ahead * seen_behind
    weights = spread(mask, image)
    return weights * jnp.where(weights > 0, ahead - behind, 0) / (2 * STEP), mask


def transformation_field(
    generator: Generator,
    transformation: Transformation,
    *,
    blur: float = 3.0,
    damping: float = 0.01,
    hold: Attributes | None = None,
    match: Attributes | None = None,
) -> VectorField:
    r"""The field that performs a transformation of the sample, at unit rate, as well as can be.

    $$ v(z) = \arg\min_v\, |B (J(z)\, v - \tau(g(z)))|^2 + \lambda\, |v|^2,
       \qquad \tau(x) = \frac{d}{dt} T_t(x) \Big|_{t = 0} $$

    with $B$ the Gaussian blur of the pixels that the transformation knows, $J$ the Jacobian of the
    generator, and $\lambda$ the damping in units of the mean of the diagonal of $J' B' B J$. The
    Jacobian is formed for short latents; for long ones the equations are solved by conjugate
    gradients on products with it, in memory that does not grow with the latent.

    With `hold`, the rates of these attributes count as well, and with `match` how far those of
    others are from what the transformation makes of them: each in the unit in which its mean
    squared slope is a multiple of the image's. What cannot be had together is shared out.

    Args:
        generator: `z -> x`: an image `[h, w, c]`, or without a blur anything.
        transformation: `(x, t) -> (x, mask)`.
        blur: standard deviation in pixels; 0 compares pixel by pixel, or number by number.
        damping: `lambda`: little of it follows the image more closely, and drifts.
        hold: attributes `x -> [k]` that the transformation leaves alone and that shall stand still:
            a shape, while it moves.
        match: attributes that the transformation changes, and that shall do what it does to them: a
            place.

    Returns:
        `(t, z) -> dz/dt`, which does not depend on `t`. Zero where the image cannot move at all.

    Raises:
        ValueError: a negative blur, a damping that is not positive; when called, a transformation
            that does not return what it should, or a blur of a sample that is no image.

    References:
        The blur is that of Plumerault et al., *Controlling generative models with continuous
        factors of variations*, 2020, section 2.1; damped least squares: Nakamura and Hanafusa,
        *Inverse kinematic solutions with singularity robustness*, 1986.

    >>> import jax.numpy as jnp
    >>> from latent_flows.directions import translate_x
    >>> columns = jnp.arange(16.0)
    >>> row = lambda z: jnp.exp(-((columns - 8 - z[0]) ** 2) / 8)
    >>> bump = lambda z: jnp.tile(row(z)[None, :, None], (16, 1, 1))
    >>> field = transformation_field(bump, translate_x, damping=1e-4)
    >>> print(field(0.0, jnp.zeros(2)).round())  # pixels an image width
    [16.  0.]
    """
    check_settings(blur, damping)

    def field(t: Number, z: Latent) -> Latent:
        del t
        image = generator(z)
        moving, mask = velocity(transformation, image)
        found, weights = at(generator, mask, z, blur, damping, joined(hold, match))
        rates = jnp.zeros_like(weights)
        if match is not None:
            own = jax.jvp(match, (image,), (moving,))[1]
            rates = rates.at[len(rates) - len(own) :].set(own)
        asked = jnp.concatenate([features(moving, mask, blur), weights * rates])
        return found.solve(found.pull(asked))

    return field


def attribute_field(
    generator: Generator,
    attributes: Attributes,
    index: int | Sequence[int],
    *,
    rates: Float[ArrayLike, "m"] | Sequence[float] | None = None,
    hold: Sequence[int] | None = None,
    limits: Mapping[int, tuple[float, float]] | None = None,
    metric: Metric | None = None,
    damping: float = 0.01,
) -> VectorField:
    r"""The field along which attributes grow at given rates while others stand still.

    $$ v = G^{-1} A^\top (A G^{-1} A^\top + \delta)^{-1} r, \qquad
       A = \frac{d\, a(g(z))}{dz} $$

    the shortest change of the latent that does it, as `metric` measures length. The latent's own
    metric is usually best; the generator's with little damping the worst, since the least change of
    pixels that moves a barycentre is a deformation.

    Args:
        generator: `z -> x`, of any event shape. The identity, where the attributes are of the
            latent itself.
        attributes: `x -> [k]`, differentiable: moments, colours, a classifier's logits, or what
            `fit_attributes` learnt.
        index: which of them grows, or which grow together.
        rates: at which each of these does; by default 1.
        hold: which stand still; by default all others that have no limits.
        limits: the least and the greatest value of some others, which are free between them and
            stand still where they would leave.
        metric: `z -> G(z)`; by default the identity.
        damping: `delta`, in units of the mean of the diagonal, with the gradients in units of
            their own length.

    Returns:
        `(t, z) -> dz/dt`, which does not depend on `t`.

    Raises:
        ValueError: a damping that is not positive, a number out of range or named twice, not one
            rate for each that grows, limits that are none.

    >>> import jax.numpy as jnp
    >>> turn = lambda z: jnp.array([z[0] * jnp.cos(z[1]), z[0] * jnp.sin(z[1])])
    >>> field = attribute_field(turn, lambda x: x, 0)
    >>> print(field(0.0, jnp.array([2.0, jnp.pi / 2])).round(3))
    [-0.  -0.5]
    """
    check_damping(damping)
    wanted = check_rates(index, rates)

    def field(t: Number, z: Latent) -> Latent:
        del t
        found = choice(generator, attributes, index, hold, limits, z)
        values, rows = measured_rows(generator, attributes, found, z)
        asked = jnp.zeros(len(rows), z.dtype).at[: len(found.moved)].set(wanted.astype(z.dtype))
        return least_change(found, values, rows, asked, inverse(metric, z), damping)

    return field


def dual_frame(
    potentials: Callable[[Scalar, Latent], Float[Array, "k"]] | Sequence[Potential],
    metric: Metric | None = None,
    *,
    damping: float = 1e-4,
) -> Callable[[Number, Latent], Float[Array, "k d"]]:
    r"""The fields along which one of k functions grows at unit rate and the others stand still.

    $$ V = (\nabla u\, G^{-1} \nabla u^\top)^{-1} \nabla u\, G^{-1}, \qquad
       \nabla u_i \cdot v_j = \delta_{ij} $$

    the dual basis of the gradients in a metric: potentials as coordinates, and traversals along
    them.

    Args:
        potentials: `(t, z) -> u` each, or one function `(t, z) -> [k]`.
        metric: `z -> G(z)`; by default the identity.
        damping: for where gradients are parallel: only then it matters.

    Returns:
        `(t, z) -> [k, d]`; row `j` is the field of function `j`.

    Raises:
        ValueError: no potentials, or a damping that is not positive.

    >>> import jax.numpy as jnp
    >>> first, second = lambda t, z: z[0] + z[1], lambda t, z: z[1]
    >>> print(dual_frame([first, second])(0.0, jnp.zeros(2)).round(3))
    [[ 1.  0.]
     [-1.  1.]]
    """
    check_damping(damping)
    if not callable(potentials) and not potentials:
        raise ValueError("expected at least one potential")

    def together(t: Number, z: Latent) -> Float[Array, "k"]:
        if callable(potentials):
            return potentials(jnp.asarray(t, z.dtype), z)
        return jnp.stack([u(jnp.asarray(t, z.dtype), z) for u in potentials])

    def frame(t: Number, z: Latent) -> Float[Array, "k d"]:
        rows = jax.jacobian(together, argnums=1)(t, z)
        return jax.vmap(dual(rows, inverse(metric, z), damping))(jnp.eye(len(rows), dtype=z.dtype))

    return frame
