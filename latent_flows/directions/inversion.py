"""Inversion: the latent whose image is nearest to a target, by descent or by least squares."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike

from latent_flows._compiled import keep_compiled
from latent_flows._norms import safe_norm
from latent_flows._validation import floats
from latent_flows.directions import losses
from latent_flows.directions.losses import Loss
from latent_flows.directions.transformations import Weights, spread
from latent_flows.typing import Generator, Latent, Scalar

__all__ = [
    "Inversion",
    "Projection",
    "gauss_newton",
    "invert",
    "projection",
    "shape_made",
    "to_ball",
]

Projection: TypeAlias = Callable[[Latent], Latent]
"""`z -> z`, onto the set of latents that are allowed."""


class Inversion(NamedTuple):
    """The best latent that a descent found."""

    z: Latent
    """The latent; where no iterate had a finite error, the start."""
    error: Scalar
    """Its loss, never above `start_error`; infinite where no iterate had a finite one."""
    start_error: Scalar
    """The loss at the start."""


def to_ball(z: Latent, radius: ArrayLike | None = None) -> Latent:
    r"""The nearest latent in a ball about the origin.

    $$z \min\bigl(1,\ r / |z|\bigr)$$

    Args:
        z: any latent.
        radius: of the ball; by default `sqrt(d)`, about which the norms of `N(0, I)` concentrate.

    Returns:
        The latent, unchanged inside the ball.

    >>> import jax.numpy as jnp
    >>> print(to_ball(jnp.array([3.0, 4.0]), 1.0))
    [0.6 0.8]
    """
    radius = jnp.sqrt(float(z.shape[0])) if radius is None else jnp.asarray(radius)
    length, radius = safe_norm(z), radius.astype(z.dtype)
    outside = length > radius
    return z * jnp.where(outside, radius / jnp.where(outside, length, 1), 1)


@keep_compiled(arrays=["target", "z0", "mask"])
def invert(
    generator: Generator,
    target: Array,
    z0: Latent,
    *,
    mask: Weights | None = None,
    loss: Loss | str = losses.blurred_error,
    optimizer: optax.GradientTransformation | None = None,
    steps: int = 50,
    project: Projection | float | None = to_ball,
) -> Inversion:
    r"""The latent whose image comes nearest to a target.

    $$\min_{z \in Z} \ell\bigl(g(z), x, m\bigr)$$

    by projected descent from `z0`. Of all iterates the best is returned, so that it is never worse
    than the start, and a step that is not finite does no harm.

    Args:
        generator: `z -> x`.
        target: `x`, of the shape that the generator makes.
        z0: where to start.
        mask: weights `[h, w]` of the target's pixels, or of the numbers of what is no image; all by
            default.
        loss: `(x, y, mask) -> scalar`, or the name of one; `"mse"` for what is no image.
        optimizer: any of optax; by default Adam with a rate that falls from 0.1 to 0 along a cosine
            and, as the steps are few and without noise, a short memory (`b1=0.5, b2=0.9`; with the
            usual one the last steps go to swinging back). Published: a constant rate of 0.01.
        steps: of the optimizer, at least 1.
        project: a projection `z -> z` applied to the start and after every step, or the radius of a
            ball; by default the ball of radius `sqrt(d)`. None for latents of another scale.

    Returns:
        An `Inversion`.

    Raises:
        ValueError: for a `z0` that is not one vector of floats, a target or a generator's sample
            that is not of floats, a target of another shape than the generator makes, a mask that
            does not fit, an unknown loss or one that is not a number.

    References:
        Plumerault, Le Borgne and Hudelot, *Controlling generative models with continuous factors
        of variations*, 2020, section 2.1.

    >>> import jax.numpy as jnp
    >>> generator = lambda z: jnp.full((4, 4, 1), z[0])
    >>> found = invert(generator, jnp.full((4, 4, 1), 0.5), jnp.zeros(1), loss="mse", steps=100)
    >>> print(jnp.allclose(found.z, 0.5, atol=0.01), found.error < found.start_error)
    True True
    """
    project = projection(project)
    loss = losses.loss(loss) if isinstance(loss, str) else loss
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if optimizer is None:
        optimizer = optax.adam(optax.cosine_decay_schedule(0.1, steps), b1=0.5, b2=0.9)
    floats("invert", target=target)
    z0, target = jnp.asarray(z0), jnp.asarray(target)
    _check_target(generator, target, z0)
    if mask is None:
        mask = jnp.ones(target.shape[:2], target.dtype)

    def objective(z: Latent) -> Scalar:
        value = loss(generator(z), target, mask)
        if jnp.shape(value) != ():
            raise ValueError(f"loss must return one number, got shape {jnp.shape(value)}")
        return value.astype(z0.dtype)

    def keep_better(best: tuple[Latent, Scalar], z: Latent, error: Scalar) -> tuple[Latent, Scalar]:
        better = error < best[1]
        return jnp.where(better, z, best[0]), jnp.where(better, error, best[1])

    def step(state, _):
        z, opt_state, best = state
        error, slope = jax.value_and_grad(objective)(z)
        best = keep_better(best, z, error)
        updates, opt_state = optimizer.update(slope, opt_state, z)
        moved = project(optax.apply_updates(z, updates))
        z = jnp.where(jnp.isfinite(moved).all(), moved, best[0])
        return (z, opt_state, best), error

    start = project(z0)
    best = (start, jnp.array(jnp.inf, start.dtype))
    (z, _, best), errors = jax.lax.scan(step, (start, optimizer.init(start), best), length=steps)
    z, error = keep_better(best, z, objective(z))
    return Inversion(z, error, errors[0])


@keep_compiled(arrays=["target", "z0", "mask", "damping"])
def gauss_newton(
    generator: Generator,
    target: Array,
    z0: Latent,
    *,
    mask: Weights | None = None,
    steps: int = 3,
    damping: ArrayLike = 1.0,
) -> Inversion:
    r"""The latent whose sample comes nearest to a target, by a few steps from close by.

    $$z \leftarrow z + (J^\top M J + \lambda I)^{-1} J^\top M\, (x - g(z))$$

    with `J` the derivative of the generator at `z` and `M` the weights of the mask. An encoder's
    codes tremble: of two images that differ by a shift, they differ by more. Started there, this
    brings the sample to the image that it is the code of. Of all iterates the best is returned,
    as by `invert`, which is for starts from which a step as long as this one goes astray.

    Args:
        generator: `z -> x`, of any event shape; its whole Jacobian is made.
        target: `x`, of the shape that the generator makes.
        z0: where to start.
        mask: weights of the target's pixels, or of its first axes, or what broadcasts against it;
            all by default.
        steps: at least 1.
        damping: `lambda`, positive, in squares of what the sample changes by along a unit of the
            latent: directions that change it less hardly move.

    Returns:
        An `Inversion`, whose errors are mean squares.

    Raises:
        ValueError: for a `z0` that is not one vector of floats, a target or a generator's sample
            that is not of floats, a target of another shape than the generator makes, a mask that
            does not fit, or no steps.

    References:
        Levenberg, *A method for the solution of certain non-linear problems in least squares*,
        1944, for the damping.

    >>> import jax.numpy as jnp
    >>> matrix = jnp.array([[100.0, 0.0], [0.0, 100.0], [50.0, 50.0]])
    >>> found = gauss_newton(lambda z: matrix @ z, matrix @ jnp.ones(2), jnp.zeros(2))
    >>> print(found.z.round(3), found.error < 1e-6 * found.start_error)
    [1. 1.] True
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    floats("gauss_newton", target=target)
    z0, target = jnp.asarray(z0), jnp.asarray(target)
    _check_target(generator, target, z0)
    weights = None
    if mask is not None:
        weights = jnp.broadcast_to(spread(mask, target), target.shape).reshape(-1)
    number = float(target.size) if weights is None else jnp.maximum(weights.sum(), 1)

    def missing(z: Latent) -> tuple[Array, Scalar]:
        gap = (target - generator(z)).reshape(-1)
        # What the mask leaves out may be anything.
        weighted = gap if weights is None else weights * jnp.where(weights > 0, gap, 0)
        gap = gap if weights is None else jnp.where(weights > 0, gap, 0)
        return weighted, jnp.asarray(jnp.sum(weighted * gap) / number, z0.dtype)

    def step(state: tuple[Latent, Inversion], _: None) -> tuple[tuple[Latent, Inversion], None]:
        z, best = state
        gap, error = missing(z)
        best = _better(best, z, error)
        rows = jax.jacfwd(generator)(z).reshape(-1, len(z))
        seen = rows if weights is None else weights[:, None] * rows
        damped = rows.T @ seen + damping * jnp.eye(len(z), dtype=rows.dtype)
        moved = z + jnp.linalg.solve(damped, rows.T @ gap)
        return (jnp.where(jnp.isfinite(moved).all(), moved, best.z), best), None

    _, first = missing(z0)
    unknown = Inversion(z0, jnp.array(jnp.inf, z0.dtype), first)
    (z, best), _ = jax.lax.scan(step, (z0, unknown), length=steps)
    return _better(best, z, missing(z)[1])


def _better(best: Inversion, z: Latent, error: Scalar) -> Inversion:
    """The better of two latents."""
    is_better = error < best.error
    return best._replace(
        z=jnp.where(is_better, z, best.z), error=jnp.where(is_better, error, best.error)
    )


def _check_target(generator: Generator, target: Array, z0: Latent) -> None:
    made = shape_made(generator, z0)
    if made.shape != target.shape:
        raise ValueError(
            f"the target has shape {target.shape}, but the generator makes {made.shape}"
        )


def projection(project: Projection | float | None) -> Projection:
    """A projection from what `invert` takes as one: a callable, the radius of a ball, or None.

    Args:
        project: a callable `z -> z`, the radius of a ball, or None for no projection.

    Returns:
        The projection, `z -> z`.
    """
    if project is None:
        return lambda z: z
    if callable(project):
        return project
    if not project > 0:
        raise ValueError(f"project must be a callable, a positive radius or None, got {project}")
    return partial(to_ball, radius=project)


def shape_made(generator: Generator, z: Latent) -> jax.ShapeDtypeStruct:
    """The shape and dtype of a generator's sample, once its latent is known to be one vector.

    Args:
        generator: `z -> x`.
        z: a latent, whose shape is looked at.

    Returns:
        The shape and dtype; nothing is computed.
    """
    if z.ndim != 1 or not jnp.issubdtype(z.dtype, jnp.floating):
        raise ValueError(
            f"expected one latent, a vector of floats, got shape {z.shape} and dtype {z.dtype}; "
            "use jax.vmap for a batch"
        )
    made = jax.eval_shape(generator, z)
    if not hasattr(made, "shape"):
        raise ValueError(f"the generator must return one array, got {type(made).__name__}")
    if not jnp.issubdtype(made.dtype, jnp.floating):
        raise ValueError(
            f"the generator must return floats, got {made.dtype}, through which nothing can be "
            "differentiated"
        )
    return made
