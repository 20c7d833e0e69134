"""The one object that an experiment is about: a generator whose parameters no longer change."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, PRNGKeyArray

from latent_flows import _memory
from latent_flows._normal import log_normal
from latent_flows._transforms import closure_convert, closure_convert_at
from latent_flows.typing import Generator, Latent, Scalar

__all__ = [
    "Encoder",
    "FrozenGenerator",
    "LogPrior",
    "Prior",
    "draw_latents",
    "freeze",
    "replace_prior",
    "standard_normal",
]

Prior = Callable[[PRNGKeyArray], Latent]
"""A draw of one latent."""
LogPrior = Callable[[Latent], Scalar]
"""The log-density of a latent, in nats."""
Encoder = Callable[[Array], tuple[Latent, Latent]]
"""Mean and standard deviation of the posterior of one sample."""


_STATIC = {"static": True}  # no leaf of the pytree
_IMPL = "threefry2x32"


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class FrozenGenerator:
    """A generator with what is known about it, as a pytree: `freeze` makes one of any function.

    Its leaves are the arrays that its functions close over, so that it can be an argument of a
    compiled function. It is itself a generator, `z -> x`, for one unbatched latent.

    >>> import jax, jax.numpy as jnp
    >>> weights = jnp.arange(6.0).reshape(3, 2)
    >>> generator = freeze(lambda z: weights @ z, 2, name="a plane")
    >>> generator.event_shape, len(jax.tree.leaves(generator))
    ((3,), 1)
    >>> print(jax.jit(lambda generator, z: generator(z))(generator, jnp.ones(2)))
    [1. 5. 9.]
    """

    name: str = field(metadata=_STATIC)
    """What it is, for captions."""
    decode: Generator
    """From a latent to a sample."""
    latent_dim: int = field(metadata=_STATIC)
    """Numbers of a latent."""
    event_shape: tuple[int, ...] = field(metadata=_STATIC)
    """Of a sample: an image `[h, w, c]`, a vector, anything."""
    prior: Prior
    """Draws a latent."""
    encode: Encoder | None = None
    """From a sample to the posterior of its latent; None where there is no encoder."""
    log_likelihood: Callable[[Array, Latent], Scalar] | None = None
    """`log p(x | z)`, in nats; None where it is not known."""
    log_prior: LogPrior | None = None
    """`log p(z)` of the prior, in nats; None where there is no closed form, as of a sphere."""
    noise_std: Mapping[str, Generator] = field(default_factory=dict)
    """Deviations of its noise, `z -> sigma`, by how they are modelled: "rbf" grows away from data,
    "network" is an ordinary network."""
    first_layer: Float[Array, "m d"] | None = None
    """Weights of the linear layers that take the latent, stacked, for SeFa."""
    dataset: str | None = field(default=None, metadata=_STATIC)
    """Name, or absolute path, of the data set that it was trained on."""
    labels: tuple[int, ...] = field(default=(), metadata=_STATIC)
    """The labels of the examples that it was trained on; none: all."""
    augment: tuple[tuple[str, float], ...] = field(default=(), metadata=_STATIC)
    """Transformations that every training image underwent, and the largest amount of each."""
    reading: tuple[tuple[str, str], ...] = field(default=(), metadata=_STATIC)
    """How data with a path are read: settings of `latent_flows.data.load`, and their values."""

    output_names: tuple[str, ...] = field(default=(), metadata=_STATIC)
    """Names of the numbers of a sample that is no image, such as genes; none: they have none."""
    members: Generator | None = None
    """`z -> [M, *event]`: a sample of each of several decoders, of which `decode` gives the mean;
    `geometry.ensemble_pullback(generator)` is their metric. None where there is one decoder."""

    def __call__(self, z: Latent) -> Array:
        return self.decode(z)


def freeze(
    decode: Generator,
    latent_dim: int,
    *,
    name: str = "generator",
    prior: Prior | None = None,
    log_prior: LogPrior | None = None,
    encode: Encoder | None = None,
    log_likelihood: Callable[[Array, Latent], Scalar] | None = None,
    noise_std: Mapping[str, Generator] | None = None,
    first_layer: Float[Array, "m d"] | None = None,
    dataset: str | None = None,
    labels: Sequence[int] = (),
    augment: Sequence[tuple[str, float]] = (),
    reading: Sequence[tuple[str, str]] = (),
    output_names: Sequence[str] = (),
    members: Generator | None = None,
) -> FrozenGenerator:
    """Makes a frozen generator of functions of one point, of any framework that JAX can trace.

    Args:
        decode: from a latent `[latent_dim]` to a sample of any shape.
        latent_dim: numbers of a latent.
        name: what it is, for captions.
        prior: from a random key to a latent; by default standard normal.
        log_prior: its log-density, `z -> scalar`; known by default if `prior` is left out.
        encode: from a sample to mean and standard deviation of its latent.
        log_likelihood: `(x, z) -> log p(x | z)`.
        noise_std: deviations of the noise, by name.
        first_layer: weights of the linear layers that take the latent.
        dataset: name, or path, of the data that it was trained on.
        labels: of these data.
        augment: transformations of these data.
        reading: how these data are read, where they have a path.
        output_names: of the numbers of a sample, for the axes of drawings.
        members: from a latent to the samples of each of at least two decoders, `[M, *event]`, of
            which `decode` gives the mean, or whatever stands for them all.

    Returns:
        The generator, for latents of this length.

    Raises:
        ValueError: a latent dimension below 1, a sample that is not one array of floats, another
            number of names than a sample has numbers, or members of other samples.

    >>> freeze(lambda z: z[:, None, None] ** 2, 4).event_shape
    (4, 1, 1)
    """
    if latent_dim < 1:
        raise ValueError(f"latent_dim must be at least 1, got {latent_dim}")
    z = jax.ShapeDtypeStruct((latent_dim,), jnp.result_type(float))
    made: Any = jax.eval_shape(decode, z)
    shape, dtype = getattr(made, "shape", None), getattr(made, "dtype", None)
    if shape is None or dtype is None:
        raise ValueError(f"{name} gives {type(made).__name__}, not an array")
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{name} gives {dtype}, not floating-point numbers")
    if output_names and len(output_names) != math.prod(shape):
        raise ValueError(
            f"{name} makes samples of shape {tuple(shape)}, and there are {len(output_names)} "
            "output_names: give one for each number"
        )
    if members is not None:
        stack: Any = jax.eval_shape(members, z)
        found = getattr(stack, "shape", type(stack).__name__)
        if not isinstance(found, tuple) or found[1:] != shape or len(found) == len(shape):
            raise ValueError(
                f"the members of {name} must give [M, {', '.join(map(str, shape))}], a sample of "
                f"each, got {found}"
            )
        if found[0] < 2:
            raise ValueError(f"{name} needs at least two members, got {found[0]}: leave them out")
    x = jax.ShapeDtypeStruct(shape, dtype)
    if prior is None and log_prior is None:
        log_prior = log_normal
    return FrozenGenerator(
        name=name,
        decode=closure_convert(decode, latent_dim),
        latent_dim=latent_dim,
        event_shape=tuple(shape),
        prior=_converted_prior(prior or standard_normal(latent_dim)),
        encode=None if encode is None else closure_convert_at(encode, x),
        log_likelihood=(
            None if log_likelihood is None else closure_convert_at(log_likelihood, x, z)
        ),
        log_prior=None if log_prior is None else closure_convert(log_prior, latent_dim),
        noise_std={
            kind: closure_convert(std, latent_dim) for kind, std in (noise_std or {}).items()
        },
        first_layer=first_layer,
        dataset=dataset,
        labels=tuple(labels),
        augment=tuple((kind, float(most)) for kind, most in augment),
        reading=tuple((setting, value) for setting, value in reading),
        output_names=tuple(map(str, output_names)),
        members=None if members is None else closure_convert(members, latent_dim),
    )


def replace_prior(
    generator: FrozenGenerator, prior: Prior, log_prior: LogPrior | None = None
) -> FrozenGenerator:
    """The same generator with another prior.

    Args:
        generator: any.
        prior: from a random key to a latent.
        log_prior: its log-density, if there is a closed form.

    Returns:
        The generator.

    >>> generator = freeze(lambda z: z, 2)
    >>> uniform = replace_prior(generator, lambda key: jax.random.uniform(key, (2,)))
    >>> round(float(generator.log_prior(jnp.zeros(2))), 2), uniform.log_prior
    (-1.84, None)
    """
    density = None if log_prior is None else closure_convert(log_prior, generator.latent_dim)
    return replace(generator, prior=_converted_prior(prior), log_prior=density)


def standard_normal(dim: int) -> Prior:
    """The prior `N(0, I)` of `dim` numbers.

    Args:
        dim: numbers of a latent.

    Returns:
        From a random key to a latent.

    >>> import jax
    >>> standard_normal(3)(jax.random.key(0)).shape
    (3,)
    """
    return lambda key: jax.random.normal(key, (dim,))


def draw_latents(prior: Prior, key: PRNGKeyArray, count: int) -> Float[Array, "n d"]:
    """Independent draws.

    Args:
        prior: from a random key to a latent.
        key: a random key.
        count: how many.

    Returns:
        One a row.

    Raises:
        ValueError: there is too little memory for so many.

    >>> import jax
    >>> draw_latents(standard_normal(3), jax.random.key(0), 5).shape
    (5, 3)
    """
    one = jax.eval_shape(prior, jax.random.key(0))
    _memory.require(
        count * (8 + _memory.size_of(one)),
        f"drawing {count} latents of {one.shape[0]} numbers",
        "draw fewer, or lower the latent dimensions",
    )
    return jax.jit(jax.vmap(prior))(jax.random.split(key, count))


def _converted_prior(prior: Prior) -> Prior:
    return Partial(_draw, closure_convert_at(prior, jax.random.key(0, impl=_IMPL)))


def _draw(prior: Prior, key: PRNGKeyArray) -> Latent:
    """A draw by a key of any kind, where a converted prior takes one kind alone."""
    if not jax.dtypes.issubdtype(jnp.asarray(key).dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)  # one of `jax.random.PRNGKey`
    if key.dtype != jax.random.key(0, impl=_IMPL).dtype:
        key = jax.random.wrap_key_data(jax.random.bits(key, (2,), jnp.uint32), impl=_IMPL)
    return prior(key)
