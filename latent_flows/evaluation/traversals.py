"""What traversals do to the generated samples: how far they go, and which attributes change."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Num, PyTree

from latent_flows import flows
from latent_flows._norms import safe_norm
from latent_flows._validation import floats
from latent_flows.typing import Field, Generator, Latent, Scalar

__all__ = [
    "BothWays",
    "Dominance",
    "Traversal",
    "both_ways",
    "dominance",
    "equal_length_scale",
    "path_length",
    "traverse",
]


class Traversal(NamedTuple):
    """A path in latent space with what is generated along it."""

    zs: Float[Array, "t d"]
    """The latents at the times asked for."""
    samples: Float[Array, "t ..."]
    """`g(z_t)`."""
    length: Scalar
    """`sum_t |g(z_{t+1}) - g(z_t)|`, the path's length in data space."""
    ok: Bool[Array, ""]
    """Whether the solver reached the end with finite numbers."""
    num_steps: Int[Array, ""]
    """Steps that the solver took."""


def path_length(samples: Float[Array, "t ..."]) -> Scalar:
    r"""Length of a polygon in data space, $\sum_t |x_{t+1} - x_t|$.

    Its gradient is finite where neighbours coincide, as those of a path that stands still do.

    Args:
        samples: the corners, of any event shape.

    Returns:
        The length, in the units of the samples.

    Raises:
        ValueError: for samples that are not floats.

    >>> import jax.numpy as jnp
    >>> float(path_length(jnp.array([[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]])))
    6.0
    """
    floats("path_length", samples=samples)
    steps = jnp.diff(samples, axis=0)
    return jnp.sum(safe_norm(steps, axis=range(1, steps.ndim)))


def traverse(
    generator: Generator,
    field: flows.VectorField,
    z0: Latent,
    ts: Float[Array, "t"],
    *,
    scale: ArrayLike = 1.0,
    **options: Any,
) -> Traversal:
    """Follow `scale * field` from `z0` and generate along the way.

    Args:
        generator: `z -> x`.
        field: `(t, z) -> dz/dt`.
        z0: where to start.
        ts: times, the first being that of `z0`.
        scale: factor on the velocity; negative for the reversed flow.
        **options: of `flows.integrate`.

    Returns:
        A `Traversal`.
    """
    factor = jnp.asarray(scale)
    path = flows.integrate(lambda t, z: factor * field(t, z), z0, ts, **options)
    samples = jax.vmap(generator)(path.zs)
    return Traversal(path.zs, samples, path_length(samples), path.ok, path.num_steps)


class BothWays(NamedTuple):
    """Paths of `k` flows, reversed to the left of the start and forward to its right."""

    samples: Float[Array, "k t ..."]
    """What is generated along them."""
    zs: Float[Array, "k t d"]
    """The latents."""
    ts: Float[Array, "t"]
    """The times, negative on the way that is reversed."""


def both_ways(
    generator: Generator, field: Field, params: PyTree, z0: Latent, ts: Float[Array, "t"]
) -> BothWays:
    """Follow each member of a family from one latent, forward and reversed.

    Args:
        generator: `z -> x`.
        field: `(parameters, t, z) -> dz/dt`.
        params: parameters of the members, stacked.
        z0: where all of them start.
        ts: times of the way forward, the first being that of `z0`.

    Returns:
        The paths.

    >>> import jax.numpy as jnp
    >>> line = lambda direction, t, z: direction
    >>> both = both_ways(lambda z: z, line, jnp.eye(2), jnp.zeros(2), jnp.arange(2.0))
    >>> print(both.zs[0, :, 0].round(3), both.ts)
    [-1.  0.  1.] [-1.  0.  1.]
    """

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None))
    @partial(jax.vmap, in_axes=(None, 0))
    def follow(params: PyTree, sign: Array) -> Traversal:
        return traverse(generator, partial(field, params), z0, ts, scale=sign)

    def join(leaf: Array) -> Array:
        return jnp.concatenate([leaf[:, 0, :0:-1], leaf[:, 1]], axis=1)

    both = follow(params, jnp.array([-1.0, 1.0]))
    return BothWays(join(both.samples), join(both.zs), jnp.concatenate([-ts[:0:-1], ts]))


def equal_length_scale(
    mean_length: Callable[[Float[Array, "*k"]], Float[Array, "*k"]],
    target: Float[Array, "*k"] | float,
    *,
    rounds: int = 4,
) -> Float[Array, "*k"]:
    """The factor on a field at which its traversals have a wanted mean length in data space.

    The secant method on the logarithms of factor and length, each step at most a factor of 4; a
    field that cannot go so far ends short of the target, so look at the length that it reached. A
    length that is not finite says that the solver did not come to an end: the factor stays below
    the smallest one at which that was seen, and at last goes no farther than what was.
    Not traced: the iteration calls `mean_length` from Python, so that one compiled program serves
    all rounds.

    Args:
        mean_length: from the factors to the mean lengths, of one field or several at once.
        target: the wanted lengths.
        rounds: iterations.

    Returns:
        The factor, one for each target, between 1e-4 and 1e4.

    >>> import jax.numpy as jnp
    >>> scale = equal_length_scale(lambda a: 2.0 * a, jnp.array([6.0, 1.0]))
    >>> bool(jnp.allclose(scale, jnp.array([3.0, 0.5])))
    True
    """
    # Not of a weak type, as what a float fills is: the next factors are not, and a compiled
    # `mean_length` would be compiled again for them.
    target = jnp.asarray(target, jnp.result_type(target, float))
    most = jnp.log(jnp.asarray(4.0, target.dtype))
    scale, slope = jnp.zeros_like(target), jnp.ones_like(target)
    last_scale = last_length = jnp.full_like(target, jnp.nan)
    ceiling, reached = jnp.full_like(target, jnp.inf), scale
    for _ in range(rounds):
        length = jnp.log(jnp.maximum(mean_length(jnp.exp(scale)), 1e-12))
        ended = jnp.isfinite(length)
        ceiling = jnp.where(ended, ceiling, scale)
        seen = (length - last_length) / (scale - last_scale)
        # Steps too small to tell the slope by, the first one included, keep the one before.
        tells = ended & (jnp.abs(scale - last_scale) > 1e-3)
        slope = jnp.where(tells, jnp.clip(seen, 0.3, 3.0), slope)
        last_scale = jnp.where(ended, scale, last_scale)
        last_length = jnp.where(ended, length, last_length)
        step = jnp.clip((jnp.log(target) - last_length) / slope, -most, most)
        reached = jnp.where(jnp.isnan(last_scale), ceiling - most, last_scale)
        between = jnp.where(jnp.isnan(last_scale), reached, (reached + ceiling) / 2)
        scale = jnp.where(last_scale + step < ceiling, last_scale + step, between)
        scale = jnp.clip(scale, -10.0, 10.0)
    scale = jnp.where(jnp.isfinite(ceiling), jnp.minimum(scale, reached), scale)
    return jnp.clip(jnp.exp(scale), 1e-4, 1e4)


class Dominance(NamedTuple):
    """Which attribute each flow changes, of `f` attributes, for `k` flows."""

    change: Float[Array, "k f"]
    """Mean absolute change of each attribute, in units of its range."""
    share: Float[Array, "k"]
    """The largest change divided by the sum of all."""
    winner: Int[Array, "k"]
    """The attribute with the largest change."""
    sign_consistency: Float[Array, "k"]
    """Share of starting points from which the winner changes in the more common direction."""


def dominance(
    before: Num[Array | np.ndarray, "k n f"],
    after: Num[Array | np.ndarray, "k n f"],
    valid: Bool[Array | np.ndarray, "k n"],
    ranges: Num[Array | np.ndarray, "f"],
) -> Dominance:
    """Is each flow dominated by one attribute?

    Args:
        before: attributes at the start of `n` traversals of each of `k` flows.
        after: attributes at their ends.
        valid: which of them to count: attributes of a broken image mean nothing.
        ranges: the range of each attribute in the data.

    Returns:
        A `Dominance`.

    >>> import jax.numpy as jnp
    >>> before = jnp.zeros((1, 2, 2))
    >>> after = jnp.array([[[0.3, 0.1], [0.3, -0.1]]])
    >>> result = dominance(before, after, jnp.ones((1, 2), bool), jnp.ones(2))
    >>> result.share.round(2).tolist(), result.winner.tolist()
    ([0.75], [0])
    """
    # Whole numbers are attributes too, of which differences must not wrap.
    moved = (1.0 * jnp.asarray(after) - 1.0 * jnp.asarray(before)) / ranges
    # What is not counted need not be a number: zero times it would not be one either.
    moved = jnp.where(valid[..., None], moved, 0.0)
    weight = valid[..., None] / jnp.maximum(valid.sum(-1)[:, None, None], 1)
    change = jnp.sum(jnp.abs(moved) * weight, axis=1)
    winner = jnp.argmax(change, -1)
    share = jnp.max(change, -1) / jnp.maximum(change.sum(-1), 1e-12)
    signs = jnp.take_along_axis(moved, winner[:, None, None], axis=2)[..., 0] > 0
    positive = jnp.sum(signs * weight[..., 0], axis=1)
    return Dominance(change, share, winner, jnp.maximum(positive, 1 - positive))
