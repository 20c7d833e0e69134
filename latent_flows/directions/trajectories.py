"""Trajectories: the latents of one sample under more and more of a transformation."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from latent_flows._compiled import keep_compiled
from latent_flows._transforms import vmap_chunked
from latent_flows.directions import losses, transformations
from latent_flows.directions.inversion import Projection, invert, projection, shape_made, to_ball
from latent_flows.directions.losses import Loss
from latent_flows.directions.transformations import Transformation
from latent_flows.typing import Generator, Latent

__all__ = ["Trajectories", "trajectories"]


class Trajectories(NamedTuple):
    """Latents whose images are transformed copies of those of `z0`.

    Where several transformations were asked for, every field has a leading axis for them.
    """

    z0: Float[Array, "*k n d"]
    """The starts, at `t = 0`."""
    zs: Float[Array, "*k n T d"]
    """The latents at each `t`."""
    ts: Float[Array, "*k T"]
    """The amounts, increasing."""
    errors: Float[Array, "*k n T"]
    """The loss between the image of each latent and the transformed image of its start."""


@keep_compiled(arrays=["key", "starts"], known=["ts"])
def trajectories(
    key: PRNGKeyArray,
    generator: Generator,
    transformation: Transformation | str | Sequence[Transformation | str],
    ts: ArrayLike | Sequence[float] | Sequence[Sequence[float]],
    *,
    count: int | None = None,
    latent_dim: int | None = None,
    sample: Callable[[PRNGKeyArray], Latent] | None = None,
    starts: Float[Array, "n d"] | None = None,
    sequential: bool = True,
    loss: Loss | str = losses.blurred_error,
    optimizer: optax.GradientTransformation | None = None,
    steps: int = 50,
    project: Projection | float | None = to_ball,
    batch_size: int = 64,
) -> Trajectories:
    r"""Follows random images through a transformation, in latent space.

    $$z_t = \arg\min_z \ell\bigl(g(z),\, T_t(g(z_0)),\, m_t\bigr)$$

    From `t = 0` outwards, to both sides, each descent starts from the result of the one before:
    from `z_0` itself the loss of a large change is flat, or the minimum that is found another one.

    All starts and transformations are one program: a map over batches of `batch_size`
    trajectories, which bounds the memory. Outside of `jax.jit` too it is compiled once.

    Args:
        key: randomness of the starts.
        generator: `z -> x`.
        transformation: `(sample, t) -> (sample, mask)`, its name, or several of these, which share
            their starts.
        ts: increasing amounts `[T]`, or one row a transformation, `[k, T]`; 0 may be among them.
            Known before the program runs, not traced.
        count: how many starts to draw.
        latent_dim: the length of a latent.
        sample: `key -> z`, draws a start; from `N(0, I)` by default.
        starts: the starts themselves, such as codes of a VAE; then `count`, `latent_dim` and
            `sample` are not needed.
        sequential: whether each descent starts from the one before; else from `z_0` ("one shot").
        loss: as in `invert`; `"mse"` for samples that are no images.
        optimizer: as in `invert`; starts anew at every `t`.
        steps: of the optimizer, at every `t`.
        project: as in `invert`; applied to the starts as well, before anything else.
        batch_size: how many trajectories at a time.

    Returns:
        `Trajectories`.

    Raises:
        ValueError: for an unknown transformation or loss; `ts` that do not increase, or rows that
            are not as many as the transformations; a transformation that changes the shape of the
            generator's samples; starts that are not `[n, d]`; sizes below 1.

    References:
        Plumerault, Le Borgne and Hudelot, *Controlling generative models with continuous factors
        of variations*, 2020, algorithm 1.

    >>> import jax, jax.numpy as jnp
    >>> generator = lambda z: jnp.full((4, 4, 1), jnp.exp2(z[0] - 3.0))
    >>> found = trajectories(
    ...     jax.random.key(0), generator, "brightness", [-0.5, 0.5], count=3, latent_dim=2
    ... )
    >>> found.zs.shape, bool(jnp.allclose(found.zs[:, 1, 0] - found.z0[:, 0], 0.5, atol=0.05))
    ((3, 2, 2), True)
    """
    kinds = _named(transformation)
    several = not (callable(transformation) or isinstance(transformation, str))
    project = projection(project)
    loss = losses.loss(loss) if isinstance(loss, str) else loss
    z0s = _starts(key, count, latent_dim, sample, starts)
    amounts = _amounts(ts, len(kinds))
    kinds = transformations.alike(kinds, shape_made(generator, z0s[0]))
    z0s = jax.vmap(project)(z0s)
    order, fresh = _outwards(amounts, sequential)
    schedule = jnp.asarray(np.take_along_axis(amounts, order, 1), z0s.dtype)
    back = jnp.asarray(np.argsort(order, 1))
    anew = jnp.asarray(fresh)

    def follow(k: Array, z0: Latent) -> tuple[Array, Array]:
        before = generator(z0)

        def visit(z: Latent, leg: tuple[Array, Array]) -> tuple[Latent, tuple[Latent, Array]]:
            t, start_again = leg
            target, mask = jax.lax.switch(k, kinds, before, t)
            found = invert(
                generator,
                target,
                jnp.where(start_again, z0, z),
                mask=mask,
                loss=loss,
                optimizer=optimizer,
                steps=steps,
                project=project,
            )
            return found.z, (found.z, found.error)

        _, (zs, errors) = jax.lax.scan(visit, z0, (schedule[k], anew[k]))
        return zs[back[k]], errors[back[k]]

    number = len(z0s)
    items = (jnp.repeat(jnp.arange(len(kinds)), number), jnp.tile(z0s, (len(kinds), 1)))
    zs, errors = vmap_chunked(follow, batch_size)(*items)
    found = Trajectories(
        jnp.tile(z0s, (len(kinds), 1, 1)),
        zs.reshape(len(kinds), number, *zs.shape[1:]),
        jnp.asarray(amounts, z0s.dtype),
        errors.reshape(len(kinds), number, -1),
    )
    return found if several else jax.tree.map(lambda leaf: leaf[0], found)


def _named(
    transformation: Transformation | str | Sequence[Transformation | str],
) -> list[Transformation]:
    """One or several transformations as a list of callables."""
    if callable(transformation):
        return [transformation]
    if isinstance(transformation, str):
        return [transformations.transformation(transformation)]
    kinds = [kind for each in transformation for kind in _named(each)]
    if not kinds:
        raise ValueError("expected at least one transformation, got none")
    return kinds


def _starts(
    key: PRNGKeyArray,
    count: int | None,
    latent_dim: int | None,
    sample: Callable[[PRNGKeyArray], Latent] | None,
    starts: Array | None,
) -> Float[Array, "n d"]:
    """The latents to start from, drawn unless given."""
    if starts is not None:
        starts = jnp.asarray(starts)
        if starts.ndim != 2 or 0 in starts.shape:
            raise ValueError(f"starts must have shape [n, d], got {starts.shape}")
        return starts
    if count is None or count < 1:
        raise ValueError(f"count must be at least 1 where no starts are given, got {count}")
    if sample is None:
        if latent_dim is None or latent_dim < 1:
            raise ValueError(f"latent_dim must be at least 1 to draw starts, got {latent_dim}")
        return jax.random.normal(key, (count, latent_dim))
    return jax.vmap(sample)(jax.random.split(key, count))


def _amounts(ts: ArrayLike | Sequence, rows: int) -> Float[np.ndarray, "k T"]:
    """The amounts, one row a transformation, once they are known to make sense."""
    if isinstance(ts, jax.core.Tracer):
        raise ValueError("ts must be known before the program runs, got a traced array")
    amounts = np.asarray(ts, np.float64)
    if amounts.ndim not in (1, 2) or amounts.shape[-1] == 0:
        raise ValueError(f"ts must have shape [T] or [k, T], got {amounts.shape}")
    if amounts.ndim == 2 and len(amounts) != rows:
        raise ValueError(f"ts has {len(amounts)} rows for {rows} transformations")
    if not np.isfinite(amounts).all() or not (np.diff(amounts) > 0).all():
        raise ValueError(f"ts must be finite and increase, got {amounts}")
    return np.broadcast_to(amounts, (rows, amounts.shape[-1]))


def _outwards(amounts: np.ndarray, sequential: bool) -> tuple[np.ndarray, np.ndarray]:
    """The order of visits, each side from 0 outwards, and which of them start at `z_0`."""
    order = np.stack([np.r_[np.flatnonzero(t > 0), np.flatnonzero(t <= 0)[::-1]] for t in amounts])
    fresh = np.full(order.shape, not sequential)
    fresh[:, 0] = True
    for row, positive in enumerate((amounts > 0).sum(1)):
        fresh[row, positive : positive + 1] = True
    return order, fresh
