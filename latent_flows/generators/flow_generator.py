"""Flow-matching and diffusion models as generators: noise, carried to a sample by a velocity."""

import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array

from latent_flows.calculus import Number
from latent_flows.generators._flow_map import check_steps, followed
from latent_flows.generators.frozen import FrozenGenerator, freeze
from latent_flows.typing import Latent, Scalar

__all__ = ["denoiser_velocity", "flow_generator"]


def flow_generator(
    velocity: Callable[[Scalar, Array], Array],
    event_shape: Sequence[int],
    *,
    steps: int | None = 16,
    solver: str = "tsit5",
    name: str = "flow",
    dataset: str | None = None,
) -> FrozenGenerator:
    r"""A trained velocity field as a generator, from noise to samples.

    $$g(z) = x(1), \qquad \dot x = v(t, x), \qquad x(0) = z \sim N(0, I)$$

    The latent is the noise, a vector as long as a sample has numbers. Both modes of differentiation
    go through the solver's steps, so flows, directions and geodesics are as of any generator.

    Args:
        velocity: `(t, x) -> dx/dt`, of one sample, from noise at time 0 to a sample at time 1. One
            that runs the other way is `lambda t, x: -velocity(1 - t, x)`.
        event_shape: of a sample.
        steps: of the solver, all equal; None: it chooses as many as an error of 1e-5 needs, which
            costs more to compile and to differentiate.
        solver: its name, see `flows.solver`. Euler takes one evaluation a step, Heun 2, tsit5 6.
        name: what it is, for captions.
        dataset: name of the data that it was trained on.

    Returns:
        The generator, whose prior is `N(0, I)`.

    Raises:
        ValueError: a shape without numbers, no step, an unknown solver, or a velocity of another
            shape than its sample.

    References:
        Lipman et al., *Flow Matching for Generative Modeling*, 2023; Liu et al., *Flow Straight and
        Fast*, 2023; the probability flow of a diffusion model: Song et al., *Score-Based Generative
        Modeling through Stochastic Differential Equations*, 2021, section 4.3.

    >>> import jax.numpy as jnp
    >>> growing = flow_generator(lambda t, x: x, (2, 2, 1))
    >>> growing.latent_dim, growing(jnp.ones(4)).shape, round(float(growing(jnp.ones(4)).max()), 3)
    (4, (2, 2, 1), 2.718)
    """
    shape = tuple(event_shape)
    dim = math.prod(shape)
    if dim < 1:
        raise ValueError(f"a sample must have at least one number, got the shape {shape}")
    check_steps(steps, solver)

    def field(t: Scalar, z: Latent) -> Latent:
        moved = velocity(t, z.reshape(shape))
        if jnp.shape(moved) != shape:
            raise ValueError(
                f"{name}: the velocity of a sample of shape {shape} has shape {jnp.shape(moved)}"
            )
        return moved.reshape(dim)

    def decode(z: Latent) -> Array:
        return followed(field, z, 0.0, 1.0, steps, solver).reshape(shape)

    return freeze(decode, dim, name=name, dataset=dataset)


def denoiser_velocity(
    denoise: Callable[[Array, Scalar], Array],
    *,
    sigma_min: float = 2e-3,
    sigma_max: float = 80.0,
) -> Callable[[Number, Array], Array]:
    r"""The velocity field of a denoiser, as diffusion models have one.

    $$v(t, x) = \frac{D(x / t, \sigma) - x}{1 - t}, \qquad \sigma = \frac{1 - t}{t}$$

    which is the probability flow of $D(y, \sigma) = E[x_0 | x_0 + \sigma \varepsilon = y]$ in the
    coordinates $x_t = t\, y = (1 - t)\, \varepsilon + t\, x_0$ of straight paths.

    Args:
        denoise: `(y, sigma) -> x`: the mean of the data given data with noise of that deviation.
            From a network that predicts the noise: `lambda y, sigma: y - sigma * noise(y, sigma)`.
        sigma_min: the least noise that it knows.
        sigma_max: the most.

    Returns:
        `(t, x) -> dx/dt`, for `flow_generator`.

    Raises:
        ValueError: levels of noise that are not positive and increasing.

    References:
        Karras et al., *Elucidating the Design Space of Diffusion-Based Generative Models*, 2022,
        equations 1 and 3, in the time of Lipman et al., 2023.

    >>> import jax.numpy as jnp
    >>> spread = 3.0  # of data that are normal, whose denoiser is linear
    >>> velocity = denoiser_velocity(lambda y, sigma: y * spread**2 / (spread**2 + sigma**2))
    >>> print(flow_generator(velocity, (2,), steps=32)(jnp.array([1.0, -2.0])).round(2))
    [ 3. -6.]
    """
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(
            "sigma_min and sigma_max must be positive, the second larger, got "
            f"{sigma_min} and {sigma_max}"
        )

    def velocity(t: Number, x: Array) -> Array:
        within = jnp.clip(jnp.asarray(t, x.dtype), 1 / (1 + sigma_max), 1 / (1 + sigma_min))
        return (denoise(x / within, (1 - within) / within) - x) / (1 - within)

    return velocity
