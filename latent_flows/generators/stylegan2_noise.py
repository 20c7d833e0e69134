"""StyleGAN2's noise maps as part of the latent, for an inversion that may choose them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from latent_flows.generators import stylegan2
from latent_flows.generators.frozen import FrozenGenerator, freeze
from latent_flows.generators.stylegan2 import StyleGAN2
from latent_flows.typing import Latent, Scalar

__all__ = ["NoiseLatents", "noise_correlation", "noise_latents", "whitened"]

WEIGHT = 10.0
"""Of the correlation of neighbouring numbers, beside errors in units of the samples' variance.
Published, beside the distance of a network: 1e5."""
_SMALLEST = 8


class NoiseLatents(NamedTuple):
    """A generator whose latents have the noise maps at their end, and what keeps these noise."""

    generator: FrozenGenerator
    """Of latents `[d + n]`."""
    latent_dim: int
    """`d`: of a latent without noise."""
    maps: Any
    """From the noise of a latent, `[n]`, to the maps by their names."""

    def penalty(self, z: Latent) -> Scalar:
        """What neighbours in the noise of a latent have in common, weighted."""
        maps = jax.tree.leaves(self.maps(z[self.latent_dim :]))
        return WEIGHT * jnp.sum(jnp.stack([noise_correlation(one) for one in maps]))

    def project(self, z: Latent) -> Latent:
        """The latent with noise of mean 0 and deviation 1 in every map."""
        maps = self.maps(z[self.latent_dim :])
        noise = ravel_pytree(jax.tree.map(whitened, maps))[0]
        return jnp.concatenate([z[: self.latent_dim], noise.astype(z.dtype)])


def noise_latents(
    net: StyleGAN2,
    variables: PyTree,
    generator: FrozenGenerator,
    *,
    space: stylegan2.Space = "w",
    truncation: float = 1.0,
) -> NoiseLatents:
    """A StyleGAN2 whose noise maps are part of the latent.

    Args:
        net: the network.
        variables: its variables.
        generator: the same with fixed noise, such as from `pretrained.published`, for its prior.
        space: that its latents are of.
        truncation: what the distance from the mean of W is multiplied with.

    Returns:
        The generator, with `penalty` and `project` for `inversion.InversionSettings`.

    References:
        Karras et al., *Analyzing and Improving the Image Quality of StyleGAN*, 2020, section 5 and
        appendix D.

    >>> from latent_flows.generators.pretrained import published
    >>> from latent_flows.generators.spec import GeneratorSpec
    >>> net = StyleGAN2(8, latent_dim=4, mapping_layers=1, channels=(2, 2))
    >>> variables = jax.jit(net.init)(jax.random.key(0), jnp.ones(4))
    >>> plain = published("a StyleGAN2", net, variables, GeneratorSpec(space="w"), 0)
    >>> noisy = noise_latents(net, variables, plain)
    >>> noisy.generator.latent_dim == 4 + 16 + 64 + 64
    True
    """
    stored, maps = ravel_pytree(variables["noise"])
    dim = generator.latent_dim

    def decode(z: Latent) -> Array:
        given = {**variables, "noise": maps(z[dim:].astype(stored.dtype))}
        within = stylegan2.generator(net, given, space=space, truncation=truncation)
        return (within(z[:dim]) + 1) / 2

    def prior(key: Array) -> Latent:
        first, second = jax.random.split(key)
        noise = jax.random.normal(second, stored.shape)
        return jnp.concatenate([generator.prior(first), noise])

    found = freeze(decode, dim + stored.size, name=f"{generator.name}, with its noise", prior=prior)
    return NoiseLatents(found, dim, maps)


def noise_correlation(noise: Float[Array, "h w"]) -> Scalar:
    r"""How much neighbours in a noise map have in common, at every scale down to 8 pixels.

    $$\sum_l \bigl(\tfrac1{n_l} \sum_{ij} n_{ij} n_{i,j-1}\bigr)^2
      + \bigl(\tfrac1{n_l} \sum_{ij} n_{ij} n_{i-1,j}\bigr)^2$$

    Args:
        noise: a square map, whose side is a power of two.

    Returns:
        The sum, 0 for white noise but for chance.

    >>> noise = jax.random.normal(jax.random.key(0), (32, 32))
    >>> print(noise_correlation(noise) < 0.2, noise_correlation(jnp.ones((32, 32))))
    True 546.0
    """
    total = jnp.zeros((), noise.dtype)
    while True:
        for axis in (0, 1):
            total = total + jnp.mean(noise * jnp.roll(noise, 1, axis)) ** 2
        side = noise.shape[0]
        if side <= _SMALLEST:
            return total
        # The mean of four has half the deviation.
        noise = 2 * noise.reshape(side // 2, 2, side // 2, 2).mean((1, 3))


def whitened(noise: Float[Array, "h w"]) -> Float[Array, "h w"]:
    """A map of mean 0 and deviation 1.

    Args:
        noise: any.

    Returns:
        The map; zero where it was constant.

    >>> print(whitened(jnp.array([[1.0, 3.0], [1.0, 3.0]])))
    [[-1.  1.]
     [-1.  1.]]
    """
    centred = noise - noise.mean()
    return centred * jax.lax.rsqrt(jnp.mean(centred**2) + 1e-12)
