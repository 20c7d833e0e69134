"""A metric that is large where there are no data, from a density of the codes, in any dimension."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent_flows._transforms import in_chunks
from latent_flows.geometry.metrics import conformal
from latent_flows.typing import Latent, Metric, Scalar

__all__ = ["density_metric"]


def density_metric(
    log_density: Callable[[Latent], Scalar],
    codes: Float[Array, "n d"],
    *,
    far: float = 10.0,
    rare: float = 0.05,
    base: Metric | None = None,
) -> Metric:
    r"""A base metric, stretched where a density of the codes is low.

    $$M(z) = \frac{1 + \varepsilon}{s(z) + \varepsilon}\, M_0(z), \qquad
      s(z) = \frac{p(z)}{p(z) + p_0}, \qquad \varepsilon = \frac{1}{f^2 - 1}$$

    with $p_0$ a density that few codes fall below: about 1 where data are, and lengths `far` times
    as large where there are none. It asks nothing of the decoder, and so serves where a deviation
    that grows away from data cannot be had: of many dimensions, of a GAN, of an autoencoder.

    Args:
        log_density: `z -> log p(z)`: of a prior flow (`generators.fit_prior_flow`), or of
            `jax.scipy.stats.gaussian_kde`.
        codes: of data, `[n, d]`.
        far: how many times longer lengths are where there are no data, more than 1.
        rare: the share of codes whose density is below `p_0`, in (0, 1).
        base: the metric that is stretched; Euclidean by default.

    Returns:
        The metric.

    Raises:
        ValueError: codes that are no matrix with a row, `far` or `rare` out of their range, or
            codes whose density is not finite.

    References:
        Arvanitidis, Hauberg and Schoelkopf, *Geometrically Enriched Latent Spaces*, 2021, for
        conformal metrics of densities; the bounded form is ours.

    >>> codes = jax.random.normal(jax.random.key(0), (100, 2))
    >>> metric = density_metric(jax.scipy.stats.gaussian_kde(codes.T).logpdf, codes)
    >>> at, off = metric(codes.mean(0))[0, 0], metric(jnp.array([50.0, 0.0]))[0, 0]
    >>> bool(at < 1.1), round(float(off))
    (True, 100)
    """
    codes = jnp.asarray(codes)
    if codes.ndim != 2 or len(codes) == 0:
        raise ValueError(f"codes must have shape [n, d] with n at least 1, got {codes.shape}")
    if not far > 1:
        raise ValueError(f"far must be more than 1, got {far}")
    if not 0 < rare < 1:
        raise ValueError(f"rare must lie in (0, 1), got {rare}")

    def value(z: Latent) -> Scalar:
        return jnp.reshape(log_density(z), ())

    found = in_chunks(value)(codes)
    if not bool(jnp.isfinite(found).all()):
        raise ValueError(
            f"the density of {int((~jnp.isfinite(found)).sum())} of {len(codes)} codes is not "
            "finite: they are not of the latent that the density is of, or it has none there"
        )
    least = jnp.quantile(found, rare)
    floor = 1 / (far**2 - 1)

    def factor(z: Latent) -> Scalar:
        return (1 + floor) / (jax.nn.sigmoid(value(z) - least) + floor)

    return conformal(factor, base)
