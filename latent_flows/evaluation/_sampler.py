"""What the scores of beta-VAE and FactorVAE share: groups of examples with one factor in common."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from latent_flows._transforms import vmap_chunked
from latent_flows.evaluation.labelled import Table, labelled
from latent_flows.typing import Latent

__all__ = [
    "Group",
    "Recognition",
    "Sampler",
    "check",
    "groups",
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


def sampler_of_examples(codes: Table, factors: Table) -> Sampler:
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

    def draw(key: PRNGKeyArray, k: Int[Array, ""] | int, count: int) -> Float[Array, "count d"]:
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

    def draw(key: PRNGKeyArray, k: Int[Array, ""] | int, count: int) -> Float[Array, "count d"]:
        drawn = jax.vmap(sample_factors)(jax.random.split(key, count))
        return jax.vmap(represent)(drawn.at[:, k].set(drawn[0, k]))

    return Sampler(factors.shape[0], draw)


class Recognition(NamedTuple):
    """How often the factor that examples share is named correctly, in [0, 1]."""

    accuracy: float
    """On groups of examples that nothing was learnt from: the score."""
    train_accuracy: float
    """On those that were learnt from."""


def check(sampler: Sampler, **counts: tuple[int, int]) -> None:
    """Rejects fewer of anything than a score takes.

    Args:
        sampler: of the score.
        **counts: each number, and the least that it may be.

    Raises:
        ValueError: fewer than two factors, or less than the least.
    """
    if sampler.factors < 2:
        raise ValueError(f"the sampler must know at least 2 factors, got {sampler.factors}")
    for name, (value, least) in counts.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


Group = Callable[[Any, PRNGKeyArray, Array, int], Float[Array, "..."]]
"""`(draw, key, k, size) -> array`: what is made of a group of examples that share factor `k`."""


def groups(
    of: Group, sampler: Sampler, size: int, key: PRNGKeyArray, count: int
) -> tuple[Int[np.ndarray, "count"], Float[np.ndarray, "count ..."]]:
    """Random factors, and what is made of a group of examples that share each.

    Args:
        of: what is made of a group.
        sampler: draws the examples.
        size: of a group.
        key: a random key.
        count: how many groups.

    Returns:
        The factor of each group, and what was made of it.

    Raises:
        ValueError: it is not finite.
    """
    label_key, key = jax.random.split(key)
    labels = jax.random.randint(label_key, (count,), 0, sampler.factors)

    def one(key: PRNGKeyArray, k: Int[Array, ""]) -> Float[Array, "..."]:
        return of(sampler.draw, key, k, size)

    found = np.asarray(
        jax.jit(vmap_chunked(one, _AT_ONCE))(jax.random.split(key, count), labels), np.float64
    )
    if not np.isfinite(found).all():
        raise ValueError("the codes of the sampler are not all finite")
    return np.asarray(labels), found
