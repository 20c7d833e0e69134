"""Variation predictability: can a fresh classifier tell which flow changed a sample?"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from latent_flows._descent import descend
from latent_flows._validation import floats
from latent_flows.classifiers import (
    PairClassifier,
    VectorPairClassifier,
    number_scales,
    shrink,
)
from latent_flows.typing import Scalar

__all__ = ["VPScore", "vp_score"]


class VPScore(NamedTuple):
    """Shares of pairs whose label the classifier names correctly, in [0, 1]."""

    accuracy: Scalar
    """Over the held-out pairs; this is the score."""
    train_accuracy: Scalar
    """Over the pairs that it was trained on; 1 when it memorised them."""


def vp_score(
    key: PRNGKeyArray,
    before: Float[Array, "n *event"],
    after: Float[Array, "n *event"],
    labels: Int[Array, "n"],
    *,
    train_fraction: float = 0.1,
    width: int = 32,
    steps: int = 300,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    classes: int | None = None,
) -> VPScore:
    r"""Score of variation predictability of a set of traversals.

    A fresh convolutional network sees `before` and `after - before`, learns from a random
    `train_fraction` of the pairs which of the traversals made each, and is scored on the rest:

    $$\mathrm{VP} = \frac{1}{|\text{held out}|} \sum_{i \in \text{held out}}
      [\hat k(x_i, x'_i) = k_i]$$

    Few training pairs make it a test of how *simple* the changes are. Chance is one over the
    number of traversals. The score depends on **how far** each traversal goes: a longer step is
    easier to tell apart. Methods can be compared only at equal path length in data space for
    every traversal, with starting points drawn independently for every label; even then random
    directions may score high, so read it next to measures that know the true factors.

    Both inputs are brought to mean 0 and deviation 1 over the whole set, so the range of pixel
    values is of no account; images larger than 32 pixels a side are mean-pooled by 2 until they
    fit. Samples that are no images `[h, w, c]` are flattened, standardised number by number, and
    seen by dense layers. All of the training is one compiled program, reused for data of the same
    shape. `jax.vmap` over keys gives several seeds in one call (splits and networks both differ).

    Args:
        key: randomness of the split, the network and the batches.
        before: images, or other samples, at the start of the traversals.
        after: those at their ends.
        labels: which traversal, 0 to K - 1.
        train_fraction: share of the pairs to learn from, in (0, 1).
        width: channels, or units, of the first layer.
        steps: steps of Adam.
        batch_size: pairs a step, drawn with replacement.
        learning_rate: of Adam.
        classes: K; by default the largest label plus one, for which labels must not be traced.

    Returns:
        `VPScore(accuracy, train_accuracy)`.

    Raises:
        ValueError: shapes, dtypes or ranges are wrong, or the fraction leaves fewer training pairs
            than classes or nothing to score.

    References:
        Zhu, Xu and Tao, "Learning Disentangled Representations with Latent Variation
        Predictability", ECCV 2020, section 3.3.

    >>> import jax, jax.numpy as jnp
    >>> before = jax.random.uniform(jax.random.key(0), (400, 4, 4, 1))
    >>> labels = jnp.arange(400) % 2
    >>> after = before + jnp.where(labels == 0, 0.5, -0.5)[:, None, None, None]
    >>> score = vp_score(jax.random.key(1), before, after, labels, steps=50)
    >>> bool(score.accuracy > 0.95)
    True
    """
    _check_pairs(before, after, labels)
    classes = _count_classes(labels, classes)
    if not 0 < train_fraction < 1:
        raise ValueError(f"train_fraction must be between 0 and 1, got {train_fraction}")
    for name, value in {"width": width, "steps": steps, "batch_size": batch_size}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    pairs = len(labels)
    train_count = round(train_fraction * pairs)
    if not classes <= train_count < pairs:
        raise ValueError(
            f"train_fraction {train_fraction} of {pairs} pairs is {train_count} to learn from; "
            f"need at least one for each of {classes} classes and one left to score"
        )
    return _fit_and_score(
        key,
        before,
        after,
        labels,
        learning_rate,
        train_count=train_count,
        width=width,
        steps=steps,
        batch_size=batch_size,
        classes=classes,
    )


def _check_pairs(before: Array, after: Array, labels: Array) -> None:
    if before.ndim < 1 or before.shape != after.shape:
        raise ValueError(
            "before and after must have one shape, [n, h, w, c] or [n, ...], "
            f"got {before.shape} and {after.shape}"
        )
    floats("vp_score", before=before, after=after)
    if len(before) == 0:
        raise ValueError("before and after hold no pairs")
    if labels.shape != before.shape[:1] or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"labels must be {len(before)} integers, one a pair, "
            f"got shape {labels.shape} of {labels.dtype}"
        )


def _count_classes(labels: Array, classes: int | None) -> int:
    if isinstance(labels, jax.core.Tracer):
        if classes is None:
            raise ValueError("labels are traced, so their number is not known: give classes=")
        return classes
    # NumPy, because jnp would trace even known labels under an outer jit.
    known = np.asarray(labels)
    low, high = int(known.min()), int(known.max())
    classes = high + 1 if classes is None else classes
    if low < 0 or high >= classes:
        raise ValueError(f"labels must be 0 to {classes - 1}, got {low} to {high}")
    return classes


@partial(jax.jit, static_argnames=("train_count", "width", "steps", "batch_size", "classes"))
def _fit_and_score(
    key, before, after, labels, learning_rate, *, train_count, width, steps, batch_size, classes
) -> VPScore:
    key_split, key_init, key_batches = jax.random.split(key, 3)
    inputs = _inputs(before, after)
    order = jax.random.permutation(key_split, len(labels))
    kind = PairClassifier if before.ndim == 4 else VectorPairClassifier
    net = kind(width=width, classes=classes)

    def loss(params, key):
        chosen = order[jax.random.randint(key, (batch_size,), 0, train_count)]
        logits = net.apply(params, inputs[chosen])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[chosen]).mean()

    start = net.init(key_init, inputs[:1])
    params = descend(optax.adam(learning_rate), loss, start, steps, key_batches)

    def guess(pair):
        logits: Any = net.apply(params, pair)  # flax types it as a pair as well
        return logits.argmax(axis=-1)

    guesses = jax.lax.map(guess, inputs, batch_size=256)
    correct = (guesses == labels).astype(jnp.float32)[order]
    return VPScore(
        accuracy=correct[train_count:].mean(), train_accuracy=correct[:train_count].mean()
    )


def _inputs(before: Array, after: Array) -> Float[Array, "n *features"]:
    """What the classifier sees: the first image and the change, small and of unit scale."""
    if before.ndim != 4:
        rows = [x.reshape(len(x), -1).astype(jnp.float32) for x in (before, after - before)]
        return jnp.concatenate([_standardise_numbers(x) for x in rows], axis=-1)
    # A classifier needs no more than single precision, whatever the images were computed in.
    start = shrink(before.astype(jnp.float32))
    change = shrink((after - before).astype(jnp.float32))
    return jnp.concatenate([_standardise(start), _standardise(change)], axis=-1)


def _standardise_numbers(vectors: Array) -> Array:
    mean, scale = number_scales(vectors)
    return (vectors - mean) / scale


def _standardise(images: Array) -> Array:
    deviation = jnp.std(images)
    # Flows that change nothing at all must score chance, not NaN.
    return (images - jnp.mean(images)) / jnp.where(deviation > 0, deviation, 1.0)
