"""The generator's own passes, which the methods that use it cannot do without."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent_flows.generators.vae import VAE
from latent_flows.typing import Generator, Latent


def images_and_gradients(generator: Generator, zs: Float[Array, "n d"], ends: Array) -> Any:
    """Images of latents, and the gradients by these of something of them.

    Args:
        generator: of one latent.
        zs: the latents.
        ends: the gradients by the images.
    """
    images, pull = jax.vjp(jax.vmap(generator), zs)
    return images, pull(ends)


def images_and_jacobians(generator: Generator, zs: Float[Array, "n d"]) -> Any:
    """Images of latents, and their Jacobians."""

    def one(z: Latent) -> Any:
        image, push = jax.linearize(generator, z)
        return image, jax.vmap(push)(jnp.eye(len(z)))

    return jax.vmap(one)(zs)


def bound_and_gradient(vae: VAE, params: Any, key: Array, images: Array) -> Any:
    """The mean reconstruction of a VAE, and its gradient by the parameters."""
    apply: Any = vae.apply

    def bound(params: Any) -> Array:
        def one(key: Array, x: Array) -> Array:
            mean, deviation = apply(params, x, method=vae.encode)
            z = mean + deviation * jax.random.normal(key, mean.shape)
            return apply(params, x, z, method=vae.log_likelihood)

        return jax.vmap(one)(jax.random.split(key, len(images)), images).mean()

    return jax.value_and_grad(bound)(params)
