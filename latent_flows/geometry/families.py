r"""Families of distributions as geometry sees them: the Fisher-Rao metric of what a decoder says.

Between two distributions of a family that are close, the Kullback-Leibler divergence is half of
their squared distance, $\mathrm{KL} \approx \frac12 d\theta^\top I(\theta)\, d\theta$, with the
Fisher information $I$. Some families lie isometrically in a flat space: Bernoulli, categorical,
Poisson, exponential and negative binomial distributions. They are taken there, so that lengths are
those of differences and the fast solvers apply.

The numbers that a decoder gives are independent outputs; the distribution of each is of the family.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import polygamma
from jaxtyping import Array, Float, PRNGKeyArray

from latent_flows.calculus import Number
from latent_flows.geometry.metrics import Ambient
from latent_flows.typing import Scalar

__all__ = [
    "Family",
    "bernoulli",
    "beta",
    "categorical",
    "dirichlet",
    "exponential",
    "gamma",
    "gaussian",
    "negative_binomial",
    "of_log_prob",
    "poisson",
    "von_mises_fisher",
]

Parameters = Any
"""What a decoder gives: an array of any shape, or a tuple of such."""


class Family(NamedTuple):
    """A family of distributions, in coordinates in which its geometry is known."""

    name: str
    """What it is called."""
    coordinates: Callable[[Parameters], Float[Array, "n"]]
    """From what a decoder gives to one vector."""
    ambient: Ambient | None = None
    """The Fisher metric in these coordinates; None where it is Euclidean."""
    error: Ambient | None = None
    """The standard error of that, where it is an average over samples."""


# --- families that lie in a flat space ---


def bernoulli(*, logits: bool = True) -> Family:
    r"""Yes or no, with probability `p`: $\theta = 2 \arcsin \sqrt p$ is isometric.

    From logits `l` it is taken as $2 \arctan e^{l / 2} - \pi / 2$, the same but for a constant, of
    which slopes keep their digits in 32 bits where `p` is next to 0 or 1.

    Args:
        logits: whether the decoder gives `log(p / (1 - p))`, and not `p` itself.

    Returns:
        The family.

    References:
        Arvanitidis, Gonzalez-Duque, Pouplin, Kalatzis and Hauberg, *Pulling back information
        geometry*, 2022.

    >>> angle = bernoulli().coordinates(jnp.array([0.0, 30.0, 60.0]))
    >>> print(angle.round(4))
    [0.     1.5708 1.5708]
    """

    def coordinates(given: Array) -> Array:
        if logits:
            above = given >= 0
            # Of the odds and their inverse the one below 1: so slopes keep their digits.
            rest = 2 * jnp.arctan(jnp.exp(jnp.where(above, -given, given) / 2))
            return jnp.ravel(jnp.where(above, math.pi / 2 - rest, rest - math.pi / 2))
        _within("probabilities", given, 0, 1)
        return jnp.ravel(2 * jnp.arctan2(jnp.sqrt(given), jnp.sqrt(1 - given)))

    return Family("Bernoulli", coordinates)


def categorical(*, logits: bool = True) -> Family:
    r"""One of `k` classes, the last axis: $2 \sqrt p$ lies isometrically on a sphere of radius 2.

    Args:
        logits: whether the decoder gives logarithms of the probabilities, up to a constant, and not
            these themselves.

    Returns:
        The family.

    References:
        Arvanitidis et al., *Pulling back information geometry*, 2022.

    >>> point = categorical().coordinates(jnp.zeros(4))
    >>> print(point, jnp.linalg.norm(point))
    [1. 1. 1. 1.] 2.0
    """

    def coordinates(given: Array) -> Array:
        if jnp.ndim(given) == 0 or given.shape[-1] < 2:
            raise ValueError(
                f"a categorical distribution has at least 2 classes along the last axis, got "
                f"{jnp.shape(given)}"
            )
        if logits:
            return jnp.ravel(2 * jnp.exp(jax.nn.log_softmax(given) / 2))
        _within("probabilities", given, 0, 1)
        return jnp.ravel(2 * jnp.sqrt(given))

    return Family("categorical", coordinates)


def poisson(*, log: bool = True) -> Family:
    r"""Counts at a rate $\lambda$: $2 \sqrt\lambda$ is isometric.

    Args:
        log: whether the decoder gives the logarithm of the rate.

    Returns:
        The family.

    References:
        Arvanitidis et al., *Pulling back information geometry*, 2022.

    >>> print(poisson(log=False).coordinates(jnp.array([4.0, 9.0])))
    [4. 6.]
    """

    def coordinates(given: Array) -> Array:
        return jnp.ravel(2 * _root(given, log))

    return Family("Poisson", coordinates)


def exponential(*, log: bool = True) -> Family:
    r"""Waiting times of rate, or of mean, $\lambda$: $\log \lambda$ is isometric.

    Args:
        log: whether the decoder gives the logarithm.

    Returns:
        The family.

    >>> print(exponential(log=False).coordinates(jnp.array([1.0, 1.0])))
    [0. 0.]
    """

    def coordinates(given: Array) -> Array:
        return jnp.ravel(_logarithm("rates", given, log))

    return Family("exponential", coordinates)


def negative_binomial(dispersion: Float[Array, "..."] | float, *, log: bool = True) -> Family:
    r"""Counts of mean $\mu$ and variance $\mu + \mu^2 / r$, with $r$ known for each output.

    $$\theta = 2 \sqrt r \operatorname{arcsinh} \sqrt{\mu / r}$$

    is isometric. With a large $r$ it is that of Poisson counts.

    Args:
        dispersion: `r`, positive; one number, or one for each output (the inverse dispersion of
            single-cell models).
        log: whether the decoder gives the logarithm of the mean.

    Returns:
        The family.

    Raises:
        ValueError: a dispersion that is not positive.

    References:
        The variance-stabilising transformation of Anscombe, *The transformation of Poisson,
        binomial and negative-binomial data*, 1948.

    >>> many = negative_binomial(1e6, log=False).coordinates(jnp.array([4.0]))
    >>> print(many.round(3))
    [4.]
    """
    r = np.asarray(dispersion)
    if not (r > 0).all():
        raise ValueError("a negative binomial's dispersion r must be positive everywhere")

    def coordinates(given: Array) -> Array:
        scale = jnp.sqrt(jnp.asarray(r, jnp.result_type(given)))
        return jnp.ravel(2 * scale * jnp.arcsinh(_root(given, log) / scale))

    return Family("negative binomial", coordinates)


def gaussian(std: Float[Array, "..."] | float | None = None, *, log: bool = False) -> Family:
    r"""Normal distributions of each output.

    Of a known deviation $\sigma$ the mean over it is isometric. Where both are generated, the
    decoder gives a pair `(mean, std)`, and the metric is that of the hyperbolic half-plane,

    $$ds^2 = \frac{d\mu^2 + 2\, d\sigma^2}{\sigma^2}.$$

    Args:
        std: the deviation, one or one for each output; None where the decoder gives it.
        log: whether the decoder gives the logarithm of the deviation in its place.

    Returns:
        The family.

    Raises:
        ValueError: a deviation that is not positive.

    References:
        Costa, Santos and Strapasson, *Fisher information distance: a geometrical reading*, 2015.

    >>> family = gaussian()
    >>> print(family.ambient(family.coordinates((jnp.zeros(1), 0.5 * jnp.ones(1)))))
    [4. 2.]
    """
    if std is not None:
        known = np.asarray(std)
        if not (known > 0).all():
            raise ValueError("a Gaussian's deviation must be positive everywhere")
        return Family(
            "Gaussian", lambda mean: jnp.ravel(mean / jnp.asarray(known, jnp.result_type(mean)))
        )

    def coordinates(given: Parameters) -> Array:
        mean, deviation = _several("mean, std", given, 2)
        return jnp.ravel(jnp.stack([mean, _logarithm("deviations", deviation, log)], -1))

    def ambient(x: Array) -> Array:
        # d sigma / sigma is the change of the logarithm.
        spread = x.reshape(-1, 2)[:, 1]
        return jnp.stack([jnp.exp(-2 * spread), 2 * jnp.ones_like(spread)], -1).ravel()

    return Family("Gaussian", coordinates, ambient)


# --- families whose metric is known ---


def beta(*, log: bool = False) -> Family:
    r"""Beta distributions, of shares in (0, 1); the decoder gives a pair `(alpha, beta)`.

    $$I = \begin{pmatrix} \psi'(\alpha) - \psi'(\alpha + \beta) & -\psi'(\alpha + \beta) \\
          -\psi'(\alpha + \beta) & \psi'(\beta) - \psi'(\alpha + \beta) \end{pmatrix}$$

    Args:
        log: whether the decoder gives logarithms.

    Returns:
        The family.

    References:
        Le Brigant, Guigui, Rebelo and Puechmorel, *Classifying histograms of medical data using
        information geometry of beta distributions*, 2021.

    >>> family = beta()
    >>> print(family.ambient(jnp.ones(2))[0].round(2))
    [[ 1.   -0.64]
     [-0.64  1.  ]]
    """

    def coordinates(given: Parameters) -> Array:
        pair = [_positive("parameters", part, log) for part in _several("alpha, beta", given, 2)]
        return jnp.ravel(jnp.stack(pair, -1))

    return Family("Beta", coordinates, lambda x: _shares(x.reshape(-1, 2)))


def dirichlet(count: int, *, log: bool = False) -> Family:
    r"""Dirichlet distributions, of shares that sum to one; concentrations along the last axis.

    $$I_{ij} = \psi'(\alpha_i)\, \delta_{ij} - \psi'\Big(\sum_k \alpha_k\Big)$$

    Args:
        count: how many shares there are, at least 2: the length of the last axis.
        log: whether the decoder gives logarithms.

    Returns:
        The family.

    Raises:
        ValueError: fewer than 2 shares; when used, another last axis.

    >>> print(dirichlet(2).ambient(jnp.ones(2))[0].round(2))
    [[ 1.   -0.64]
     [-0.64  1.  ]]
    """
    _at_least_two("a Dirichlet distribution", count)

    def coordinates(given: Array) -> Array:
        _check_last_axis("a Dirichlet distribution", given, count)
        return jnp.ravel(_positive("concentrations", given, log))

    return Family("Dirichlet", coordinates, lambda x: _shares(x.reshape(-1, count)))


def gamma(*, log: bool = False) -> Family:
    r"""Gamma distributions; the decoder gives a pair `(shape, rate)`, $k$ and $\beta$.

    $$I = \begin{pmatrix} \psi'(k) & -1 / \beta \\ -1 / \beta & k / \beta^2 \end{pmatrix}$$

    Args:
        log: whether the decoder gives logarithms.

    Returns:
        The family.

    >>> print(gamma().ambient(jnp.array([1.0, 2.0]))[0].round(4))
    [[ 1.6449 -0.5   ]
     [-0.5     0.25  ]]
    """

    def coordinates(given: Parameters) -> Array:
        pair = [_positive("parameters", part, log) for part in _several("shape, rate", given, 2)]
        return jnp.ravel(jnp.stack(pair, -1))

    def ambient(x: Array) -> Array:
        k, rate = jnp.moveaxis(x.reshape(-1, 2), -1, 0)
        rows = [[polygamma(1, k), -1 / rate], [-1 / rate, k / rate**2]]
        return jnp.stack([jnp.stack(row, -1) for row in rows], -2)

    return Family("gamma", coordinates, ambient)


def von_mises_fisher(dim: int) -> Family:
    r"""Directions in `dim` dimensions; the decoder gives $\kappa \mu$ along the last axis.

    With $A(\kappa) = I_{d/2}(\kappa) / I_{d/2-1}(\kappa)$, the length of the mean,

    $$I = \frac{A}{\kappa} (1 - \mu \mu^\top) + A' \mu \mu^\top,$$

    from the continued fraction of the ratio of Bessel functions. In 32 bits the second part keeps
    three digits up to $\kappa = 100$.

    Args:
        dim: of the space around the sphere, at least 2.

    Returns:
        The family.

    Raises:
        ValueError: fewer than 2 dimensions; when used, another last axis.

    References:
        Mardia and Jupp, *Directional Statistics*, 2000, section 10.3.

    >>> print(von_mises_fisher(3).ambient(jnp.zeros(3))[0].round(4))  # no direction: 1 / dim
    [[0.3333 0.     0.    ]
     [0.     0.3333 0.    ]
     [0.     0.     0.3333]]
    """
    _at_least_two("a von Mises-Fisher distribution", dim)

    def coordinates(given: Array) -> Array:
        _check_last_axis("a von Mises-Fisher distribution", given, dim)
        return jnp.ravel(given)

    def one(eta: Array) -> Array:
        across, bent = _mean_ratio(dim, eta @ eta)
        return across * jnp.eye(dim, dtype=eta.dtype) + bent * jnp.outer(eta, eta)

    return Family("von Mises-Fisher", coordinates, lambda x: jax.vmap(one)(x.reshape(-1, dim)))


# --- any other family ---


def of_log_prob(
    log_prob: Callable[[Array, Array], Scalar],
    *,
    parameters: int = 1,
    support: Float[Array, "s ..."] | Sequence[Any] | None = None,
    sample: Callable[[PRNGKeyArray, Array], Array] | None = None,
    samples: int = 1000,
    key: PRNGKeyArray | None = None,
    name: str = "own",
) -> Family:
    r"""A family of your own, by its log-density: the Fisher information is that of its scores.

    $$I(\theta) = \mathbb E\big[\nabla_\theta \log p(x \mid \theta)\,
                             \nabla_\theta \log p(x \mid \theta)^\top\big]$$

    exactly where what can happen is a finite list, else as a mean over draws, whose standard error
    is the `error` of the family. Draws depend on the key alone, so that the metric is a function.

    Args:
        log_prob: `(parameters, x) -> log p(x)` of one output, differentiable in its parameters: a
            number, or `[parameters]`.
        parameters: how many numbers the decoder gives for each output, along the last axis where
            there are more than one.
        support: all values that one output can take.
        sample: `(key, parameters) -> x`, where they cannot be listed; no derivative is taken.
        samples: draws for each output, at least 2.
        key: of the draws.
        name: what to call it.

    Returns:
        The family.

    Raises:
        ValueError: no log-density, neither a support nor a sampler with its key, both of them, or
            fewer than 2 draws; when used, another last axis.

    >>> loaded = lambda logit, x: jax.nn.log_sigmoid(jnp.where(x == 1, logit, -logit))
    >>> coin = of_log_prob(loaded, support=[0, 1])
    >>> print(coin.ambient(jnp.zeros(1)))
    [0.25]
    """
    if not callable(log_prob):
        raise ValueError(f"a family of your own needs log_prob(parameters, x), got {log_prob!r}")
    if (support is None) == (sample is None):
        raise ValueError(
            "a family of your own needs one of support (all values that an output can take) and "
            "sample (a function that draws one)"
        )
    if sample is not None and (key is None or samples < 2):
        raise ValueError(f"draws need a key, and at least 2 of them, got {key} and {samples}")
    if parameters < 1:
        raise ValueError(f"parameters must be at least 1, got {parameters}")
    values = None if support is None else np.asarray(support)
    if values is not None and (values.ndim == 0 or len(values) == 0):
        raise ValueError("the support must be a list of at least one value")

    def coordinates(given: Array) -> Array:
        if parameters > 1:
            _check_last_axis("this family", given, parameters)
        return jnp.ravel(given)

    def log_density(theta: Array, x: Array) -> Scalar:
        return log_prob(theta if parameters > 1 else theta[0], x)

    def scored(theta: Array, x: Array) -> Array:
        score = jax.grad(log_density)(theta, x)
        return jnp.outer(score, score)

    def listed(theta: Array, key: Array) -> tuple[Array, Array]:
        del key
        assert values is not None
        xs = jnp.asarray(values)
        weights = jnp.exp(jax.vmap(partial(log_density, theta))(xs))
        found = jnp.tensordot(weights, jax.vmap(partial(scored, theta))(xs), 1)
        return found, jnp.zeros_like(found)

    def drawn(theta: Array, key: Array) -> tuple[Array, Array]:
        assert sample is not None
        still = jax.lax.stop_gradient(theta if parameters > 1 else theta[0])
        xs = jax.vmap(lambda key: sample(key, still))(jax.random.split(key, samples))
        squares = jax.vmap(partial(scored, theta))(xs)
        return squares.mean(0), jnp.std(squares, axis=0, ddof=1) / math.sqrt(samples)

    def information(x: Array) -> tuple[Array, Array]:
        """Of every output, and its standard error."""
        outputs = x.reshape(-1, parameters)
        keys = jax.random.split(jax.random.key(0) if key is None else key, len(outputs))
        found = jax.vmap(drawn if values is None else listed)(outputs, keys)
        mean, spread = (part[:, 0, 0] if parameters == 1 else part for part in found)
        return mean, spread

    def ambient(x: Array) -> Array:
        return information(x)[0]

    def error(x: Array) -> Array:
        return information(x)[1]

    return Family(name, coordinates, ambient, error)


# --- parts ---


def _shares(alpha: Float[Array, "m k"]) -> Float[Array, "m k k"]:
    """The information of Dirichlet distributions, of which those of two shares are Beta."""
    own = polygamma(1, alpha)
    total = polygamma(1, alpha.sum(-1))
    return own[..., None] * jnp.eye(alpha.shape[-1], dtype=alpha.dtype) - total[:, None, None]


FRACTIONS = 64
"""Terms of a continued fraction; what follows is taken to be nearly constant, which it is."""


def _mean_ratio(dim: int, square: Scalar) -> tuple[Scalar, Scalar]:
    r"""$A / \kappa$, and $(A' - A / \kappa) / \kappa^2$, as functions of $\kappa^2$.

    $\kappa / A = t_0$ with $t_j = d + 2 j + \kappa^2 / t_{j+1}$.
    """
    last = dim + 2 * FRACTIONS
    # What the tail would be if it never changed, and what it owes to the slope at which it does.
    root = jnp.sqrt(last**2 + 4 * square)
    tail = (last + root) / 2
    after = tail = tail + (1 + last / root) * (last - tail) / root
    for j in reversed(range(FRACTIONS)):
        after, tail = tail, dim + 2 * j + square / tail
    return 1 / tail, -(after - tail) / (tail**2 * after)


def _root(given: Array, log: bool) -> Array:
    """The square root of rates, from their logarithms or themselves."""
    if log:
        return jnp.exp(given / 2)
    _within("rates", given, 0, math.inf)
    return jnp.sqrt(given)


def _logarithm(what: str, given: Array, log: bool) -> Array:
    return given if log else jnp.log(_positive(what, given, log))


def _positive(what: str, given: Array, log: bool) -> Array:
    if log:
        return jnp.exp(given)
    _within(what, given, 0, math.inf, open_below=True)
    return given


def _within(
    what: str, given: Array, low: Number, high: Number, *, open_below: bool = False
) -> None:
    """Raise where values are known; under a transformation they become NaN instead."""
    if isinstance(given, jax.core.Tracer):
        return
    least, most = float(jnp.min(given)), float(jnp.max(given))
    if not (least > low if open_below else least >= low) or not most <= high:
        above = "greater than" if open_below else "at least"
        below = "" if high == math.inf else f" and at most {high}"
        raise ValueError(f"{what} must be {above} {low}{below}, got {least:g} to {most:g}")


def _several(what: str, given: Parameters, count: int) -> Sequence[Array]:
    if not isinstance(given, tuple | list) or len(given) != count:
        raise ValueError(f"the decoder must give a tuple ({what}), got {type(given).__name__}")
    if len({jnp.shape(part) for part in given}) != 1:
        shapes = " and ".join(str(jnp.shape(part)) for part in given)
        raise ValueError(f"{what} must have one shape, got {shapes}")
    return given


def _at_least_two(what: str, count: int) -> None:
    if count < 2:
        raise ValueError(f"{what} has at least 2 dimensions, got {count}")


def _check_last_axis(what: str, given: Array, count: int) -> None:
    if jnp.ndim(given) == 0 or given.shape[-1] != count:
        raise ValueError(f"{what} needs a last axis of {count}, got shape {jnp.shape(given)}")
