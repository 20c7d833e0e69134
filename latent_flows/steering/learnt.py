"""Attributes that are learnt from examples: of images, vectors, or latents with a score."""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from latent_flows._descent import descend, settling
from latent_flows.classifiers import shrink
from latent_flows.typing import Scalar

__all__ = ["AttributeNet", "LearntAttributes", "fit_attributes"]

FEWEST = 10
"""Examples, of which some are held out."""


class AttributeNet(nn.Module):
    """A smooth network from one sample to `k` numbers.

    Images pass two convolutions first; all else is one long vector.

    Args:
        count: the numbers `k`.
        width: units of a hidden layer.
        depth: hidden layers.

    >>> net, x = AttributeNet(count=2, width=8), jnp.ones(3)
    >>> net.apply(net.init(jax.random.key(0), x), x).shape
    (2,)
    """

    count: int
    width: int = 128
    depth: int = 2

    @nn.compact
    def __call__(self, x: Array) -> Float[Array, "k"]:
        if x.ndim == 3 and min(x.shape[:2]) >= 8:
            x = shrink(x)
            for features in (16, 32):
                x = nn.gelu(nn.Conv(features, (3, 3), (2, 2))(x))
        x = x.reshape(-1)
        for _ in range(self.depth):
            x = nn.gelu(nn.Dense(self.width)(x))
        return nn.Dense(self.count)(x)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class LearntAttributes:
    """Attributes `x -> [k]` that were learnt from examples."""

    params: PyTree
    """Of the network."""
    middle: Array
    """Mean of the samples."""
    spread: Scalar
    """Their root mean square deviation from it."""
    mean: Float[Array, "k"]
    """Of the values; 0 for those that are true or false."""
    scale: Float[Array, "k"]
    """Their standard deviation; 1 for those that are true or false."""
    quality: Float[Array, "k"]
    """On examples that were held out: R² of a value; the share of true and false that is right."""
    base: Float[Array, "k"]
    """What a constant has of it: 0 of R², the share of the more frequent of true and false."""
    net: AttributeNet = field(metadata={"static": True})
    """The network."""

    def __call__(self, x: Array) -> Float[Array, "k"]:
        found: Any = self.net.apply(self.params, (x - self.middle) / self.spread)
        return self.mean + self.scale * found


@partial(jax.jit, static_argnames=("net", "is_share", "steps", "batch_size", "learning_rate"))
def _fitted(
    key: PRNGKeyArray,
    net: AttributeNet,
    is_share: bool,
    xs: Float[Array, "n *event"],
    values: Float[Array, "n k"],
    steps: int,
    batch_size: int,
    learning_rate: float,
) -> LearntAttributes:
    key_net, key_batch = jax.random.split(key)
    middle = xs.mean(0)
    spread = jnp.maximum(jnp.sqrt(jnp.mean((xs - middle) ** 2)), 1e-6)
    none, one = jnp.zeros(values.shape[1:]), jnp.ones(values.shape[1:])
    mean = none if is_share else values.mean(0)
    scale = one if is_share else jnp.where(values.std(0) > 0, values.std(0), 1)
    params = net.init(key_net, xs[0])
    model = LearntAttributes(params, middle, spread, mean, scale, none, none, net)

    def objective(params: PyTree, key: PRNGKeyArray) -> Scalar:
        chosen = jax.random.randint(key, (batch_size,), 0, len(xs))
        found = jax.vmap(replace(model, params=params))(xs[chosen])
        if is_share:
            return optax.sigmoid_binary_cross_entropy(found, values[chosen]).mean()
        return jnp.mean(((found - values[chosen]) / scale) ** 2)

    optimizer = settling(learning_rate, steps)
    return replace(model, params=descend(optimizer, objective, params, steps, key_batch))


def fit_attributes(
    key: PRNGKeyArray,
    samples: Float[ArrayLike, "n *event"],
    values: ArrayLike,
    *,
    width: int = 128,
    depth: int = 2,
    held_out: float = 0.2,
    steps: int = 1000,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
) -> LearntAttributes:
    """Learns attributes from examples, for `attribute_field` and `steer_attribute`.

    Of latents with a score, as methods of linear boundaries take them, the attribute is one of the
    latent: there the generator is the identity.

    Args:
        key: randomness of the network, the batches, and of which examples are held out.
        samples: images, vectors or latents.
        values: `[n]` or `[n, k]`: numbers, by regression; or booleans, whose logits are learnt.
        width: units of a hidden layer of the network.
        depth: its hidden layers.
        held_out: share of the examples that `quality` is measured on, in (0, 1).
        steps: of Adam.
        batch_size: examples a step.
        learning_rate: at the first step; it falls to 0 along a cosine.

    Returns:
        The attributes, with their quality on what was held out.

    Raises:
        ValueError: shapes that do not fit, values that are not finite or all the same, fewer than
            ten examples, settings out of range.

    >>> zs = jax.random.normal(jax.random.key(0), (400, 3))
    >>> found = fit_attributes(jax.random.key(1), zs, zs[:, 0] * zs[:, 1], steps=300)
    >>> found(zs[0]).shape, bool(found.quality[0] > 0.8)
    ((1,), True)
    """
    xs, known = jnp.asarray(samples), np.asarray(values)
    if not jnp.issubdtype(xs.dtype, jnp.floating):
        raise ValueError(f"samples must be floats, got dtype {xs.dtype}")
    if known.ndim not in (1, 2) or len(known) != len(xs) or xs.ndim < 2:
        raise ValueError(
            f"expected samples [n, ...] and values [n] or [n, k], got shapes {xs.shape} and "
            f"{known.shape}"
        )
    is_share = known.dtype == bool
    known = known.reshape(len(known), -1).astype(xs.dtype)
    if len(known) < FEWEST:
        raise ValueError(f"expected at least {FEWEST} examples, got {len(known)}")
    if not (np.isfinite(known).all() and bool(jnp.isfinite(xs).all())):
        raise ValueError("samples and values must be finite")
    same = np.flatnonzero(np.ptp(known, axis=0) == 0)
    if len(same):
        raise ValueError(f"value {same[0]} is the same for all examples: there is nothing to learn")
    if not 0 < held_out < 1 or steps < 1 or batch_size < 1:
        raise ValueError(
            f"held_out must be in (0, 1), steps and batch_size at least 1, got {held_out}, "
            f"{steps} and {batch_size}"
        )
    key_split, key_fit = jax.random.split(key)
    order = np.asarray(jax.random.permutation(key_split, len(known)))
    test, train = np.split(order, [min(max(1, round(held_out * len(known))), len(known) - 1)])
    net = AttributeNet(known.shape[1], width, depth)
    model = _fitted(
        key_fit,
        net,
        is_share,
        xs[train],
        jnp.asarray(known[train]),
        steps,
        batch_size,
        learning_rate,
    )
    found = np.asarray(jax.jit(jax.lax.map)(model, xs[test]))
    truth = known[test]
    if is_share:
        quality, often = ((found > 0) == (truth > 0.5)).mean(0), known[train].mean(0)
        return replace(
            model,
            quality=jnp.asarray(quality, xs.dtype),
            base=jnp.asarray(np.maximum(often, 1 - often), xs.dtype),
        )
    spread = np.maximum(((truth - truth.mean(0)) ** 2).mean(0), np.finfo(truth.dtype).tiny)
    quality = 1 - ((found - truth) ** 2).mean(0) / spread
    return replace(model, quality=jnp.asarray(quality, xs.dtype))
