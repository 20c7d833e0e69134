"""Scores that ask which factor some examples share: those of beta-VAE and FactorVAE."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from latent_flows._extras import extra
from latent_flows._transforms import vmap_chunked
from latent_flows.evaluation.labelled import labelled
from latent_flows.typing import Latent

__all__ = [
    "Recognition",
    "Sampler",
    "beta_vae_score",
    "factor_vae_score",
    "sampler_of_examples",
    "sampler_of_model",
]

# So many groups of examples are in memory at once.
_AT_ONCE = 64


class Sampler(NamedTuple):
    """A source of codes of examples that share the value of one factor, and nothing else."""

    factors: int
    """How many factors there are."""
    draw: Callable[[PRNGKeyArray, Int[Array, ""], int], Float[Array, "count d"]]
    """`(key, k, count) -> codes`: of `count` random examples with one random value of factor `k`.
    Traced but for the count."""


def sampler_of_examples(codes: ArrayLike, factors: ArrayLike) -> Sampler:
    """Draws, with replacement, from examples that are at hand.

    The examples must be a fair sample: factors independent of each other, as in a data set that
    holds all combinations.

    Args:
        codes: `[n, d]`.
        factors: the true ones, `[n, f]`, discrete.

    Returns:
        A `Sampler` for the scores.

    Raises:
        ValueError: see `labelled`; also a value that only one example has.

    >>> factors = np.stack(np.meshgrid(range(3), range(3)), -1).reshape(-1, 2)
    >>> sampler = sampler_of_examples(1.0 * factors, factors)
    >>> drawn = sampler.draw(jax.random.key(0), 1, 5)
    >>> drawn.shape, bool(jnp.all(drawn[:, 1] == drawn[0, 1]))
    ((5, 2), True)
    """
    both = labelled(codes, factors)
    order = np.argsort(both.factors, axis=0, kind="stable")
    starts, sizes = np.empty_like(order), np.empty_like(order)
    for j, column in enumerate(both.factors.T):
        counts = np.bincount(column)
        if counts.min() < 2:
            raise ValueError(
                f"factors[:, {j}] has a value that only one of {len(column)} samples has: a score "
                "needs at least two"
            )
        starts[:, j], sizes[:, j] = (np.cumsum(counts) - counts)[column], counts[column]
    rows, start, size = (jnp.asarray(a) for a in (order, starts, sizes))
    table = jnp.asarray(both.codes, jnp.result_type(float))

    def draw(key: PRNGKeyArray, k: Int[Array, ""], count: int) -> Float[Array, "count d"]:
        value_key, key = jax.random.split(key)
        some = jax.random.randint(value_key, (), 0, len(table))
        chosen = start[some, k] + jax.random.randint(key, (count,), 0, size[some, k])
        return table[rows[chosen, k]]

    return Sampler(both.factors.shape[1], draw)


def sampler_of_model(
    sample_factors: Callable[[PRNGKeyArray], Float[Array, "f"]],
    represent: Callable[[Float[Array, "f"]], Latent],
) -> Sampler:
    """Draws new examples every time, where they can be made from their factors.

    Args:
        sample_factors: a key to the factors of one example, independent of each other.
        represent: factors to the code of the example that they make: renders it, and encodes.

    Returns:
        A `Sampler` for the scores.

    Raises:
        ValueError: factors or codes are no vectors.

    >>> sampler = sampler_of_model(lambda key: jax.random.normal(key, (3,)), lambda f: 2 * f)
    >>> drawn = sampler.draw(jax.random.key(0), 2, 4)
    >>> drawn.shape, bool(jnp.all(drawn[:, 2] == drawn[0, 2]))
    ((4, 3), True)
    """
    factors = jax.eval_shape(sample_factors, jax.random.key(0))
    code = jax.eval_shape(represent, factors)
    if len(factors.shape) != 1 or len(code.shape) != 1:
        raise ValueError(
            f"sample_factors and represent must give vectors, got {factors.shape} and {code.shape}"
        )

    def draw(key: PRNGKeyArray, k: Int[Array, ""], count: int) -> Float[Array, "count d"]:
        drawn = jax.vmap(sample_factors)(jax.random.split(key, count))
        return jax.vmap(represent)(drawn.at[:, k].set(drawn[0, k]))

    return Sampler(factors.shape[0], draw)


class Recognition(NamedTuple):
    """How often the factor that examples share is named correctly, in [0, 1]."""

    accuracy: float
    """On groups of examples that nothing was learnt from: the score."""
    train_accuracy: float
    """On those that were learnt from."""


def beta_vae_score(
    key: PRNGKeyArray,
    sampler: Sampler,
    *,
    batch_size: int = 64,
    train: int = 10_000,
    test: int = 5_000,
) -> Recognition:
    r"""Can a linear classifier name the factor that pairs of examples share?

    One point is the mean of `|z - z'|` over a batch of pairs that share the value of one random
    factor; logistic regression learns to name it. Chance is one over the number of factors. Codes
    that differ by a rotation may still score 1, and the regularisation (`C = 1`) makes the score of
    very small codes lower.

    Args:
        key: randomness of the factors and pairs.
        sampler: of `sampler_of_examples` or `sampler_of_model`.
        batch_size: pairs a point.
        train: points to learn from.
        test: points to judge on.

    Returns:
        A `Recognition`.

    Raises:
        ValueError: fewer than two factors or points that cannot be told, or codes that are not
            finite.

    References:
        Higgins et al., *beta-VAE*, 2017, section 3; defaults of disentanglement_lib.

    >>> same = sampler_of_model(lambda key: jax.random.normal(key, (2,)), lambda f: f)
    >>> beta_vae_score(jax.random.key(0), same, train=100, test=50).accuracy
    1.0
    """

    with extra("evaluation"):
        from sklearn.linear_model import LogisticRegression

    _check(sampler, batch_size=(batch_size, 1), train=(train, sampler.factors), test=(test, 1))
    labels, points = _groups(_difference, sampler, batch_size, key, train + test)
    if len(np.unique(labels[:train])) < sampler.factors:
        raise ValueError(f"train of {train} points is too few: a factor is missing among them")
    model = LogisticRegression(max_iter=1000).fit(points[:train], labels[:train])
    right = model.predict(points) == labels
    return Recognition(float(right[train:].mean()), float(right[:train].mean()))


def factor_vae_score(
    key: PRNGKeyArray,
    sampler: Sampler,
    *,
    batch_size: int = 64,
    train: int = 10_000,
    test: int = 5_000,
    threshold: float = 0.0,
) -> Recognition:
    r"""Does the code that varies least among examples name the factor that they share?

    Each batch shares the value of one random factor `k` and casts a vote: the dimension whose
    variance in the batch, over its variance among all examples (the first of each batch), is least.
    Each dimension stands for
    the factor that most of its votes come from; the score is the share of votes that come from the
    factor that theirs stands for. No classifier is trained. Chance is about one over the number of
    factors.

    Dimensions with a standard deviation of at most `threshold` among all examples do not vote, in
    particular those that never change (whose ratio disentanglement_lib makes 0/0). If none is left
    the score is 0, as there.

    Args:
        key: randomness of the factors and examples.
        sampler: of `sampler_of_examples` or `sampler_of_model`.
        batch_size: examples a vote, at least 2.
        train: votes that decide what each dimension stands for.
        test: votes that are judged.
        threshold: see above; such as 0.05 to leave out dimensions that a VAE does not use.

    Returns:
        A `Recognition`.

    Raises:
        ValueError: fewer votes, examples or factors than it takes, or codes that are not finite.

    References:
        Kim and Mnih, *Disentangling by Factorising*, 2018, section 5; defaults of
        disentanglement_lib.

    >>> same = sampler_of_model(lambda key: jax.random.normal(key, (2,)), lambda f: 3 * f[::-1])
    >>> factor_vae_score(jax.random.key(0), same, train=100, test=50).accuracy
    1.0
    """
    _check(sampler, batch_size=(batch_size, 2), train=(train, sampler.factors), test=(test, 1))
    labels, found = _groups(_first_and_variance, sampler, batch_size, key, train + test)
    # One example alone shares its factor with nobody: a draw from all.
    codes, variances = found[:, 0], found[:, 1]
    variance = codes.var(axis=0, ddof=1)
    active = (np.sqrt(variance) > threshold) & (np.ptp(codes, axis=0) > 0)
    if not active.any():
        return Recognition(0.0, 0.0)
    ratios = np.where(active, variances / np.where(active, variance, 1), np.inf)
    votes = ratios.argmin(axis=1)
    table = np.zeros((sampler.factors, len(active)), int)
    np.add.at(table, (labels[:train], votes[:train]), 1)
    right = table.argmax(axis=0)[votes] == labels
    return Recognition(float(right[train:].mean()), float(right[:train].mean()))


def _check(sampler: Sampler, **counts: tuple[int, int]) -> None:
    if sampler.factors < 2:
        raise ValueError(f"the sampler must know at least 2 factors, got {sampler.factors}")
    for name, (value, least) in counts.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


_Group = Callable[[Any, PRNGKeyArray, Array, int], Float[Array, "..."]]


def _groups(
    of: _Group, sampler: Sampler, size: int, key: PRNGKeyArray, count: int
) -> tuple[Int[np.ndarray, "count"], Float[np.ndarray, "count ..."]]:
    """Random factors, and what is made of a group of examples that share each.

    Raises:
        ValueError: it is not finite.
    """
    label_key, key = jax.random.split(key)
    labels = jax.random.randint(label_key, (count,), 0, sampler.factors)
    one = lambda key, k: of(sampler.draw, key, k, size)  # noqa: E731
    found = np.asarray(
        jax.jit(vmap_chunked(one, _AT_ONCE))(jax.random.split(key, count), labels), np.float64
    )
    if not np.isfinite(found).all():
        raise ValueError("the codes of the sampler are not all finite")
    return np.asarray(labels), found


def _difference(draw: Any, key: PRNGKeyArray, k: Array, size: int) -> Float[Array, "d"]:
    pairs = jax.vmap(lambda key: draw(key, k, 2))(jax.random.split(key, size))
    return jnp.mean(jnp.abs(pairs[:, 0] - pairs[:, 1]), axis=0)


def _first_and_variance(draw: Any, key: PRNGKeyArray, k: Array, size: int) -> Float[Array, "2 d"]:
    codes = draw(key, k, size)
    return jnp.stack([codes[0], jnp.var(codes, axis=0, ddof=1)])
