"""The second stage of a generator: the deviation of its noise, once its mean is trained."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from experiments.runtime.run_dir import Folder
from experiments.runtime.training import Batch, Batches, Params, Training, fit
from latent_flows.generators import rbf
from latent_flows.generators.rbf import RBF, StdNetwork
from latent_flows.generators.stored import StoredStd
from latent_flows.generators.vae import VAE
from latent_flows.objectives import noisy_negative_log_likelihood
from latent_flows.typing import Generator, Latent, Scalar

Kind = Literal["rbf", "network"]
"""How a deviation is modelled, which is also the name of the phase that fits it."""
KINDS: dict[str, tuple[Kind, ...]] = {
    "none": (),
    "rbf": ("rbf",),
    "network": ("network",),
    "both": ("rbf", "network"),
}
"""What is fitted, by the name that the command line has for it."""


@dataclass(frozen=True)
class Deviation:
    """The deviation of the generator's noise, fitted with the encoder and the mean frozen."""

    centres: int = 64
    """Kernels of the RBF network."""
    reach: float = 1.0
    """Reach of a kernel, in mean distances of its cluster's codes from its centre."""
    zeta: float = 1e-4
    """Precision of the RBF network far from data."""
    codes: int = 10_000
    """Training images, at most, whose codes place the kernels."""
    width: int = 64
    """Units of a hidden layer of the ordinary network."""
    depth: int = 2
    """Hidden layers of the ordinary network."""
    noise: float = 0.02
    """Deviation of the noise that images are taken to carry already: what is fitted hardly falls
    below it, where a pixel that never changes would have none."""
    training: Training = field(
        default_factory=lambda: Training(
            steps=1000, batch_size=128, learning_rate=5e-2, warmup=50, decay="cosine"
        )
    )
    """Optimiser and duration."""

    def __post_init__(self) -> None:
        for name in ("centres", "codes", "width", "depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"deviation.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("reach", "zeta", "noise"):
            if not getattr(self, name) > 0:
                raise ValueError(f"deviation.{name} must be positive, got {getattr(self, name)}")


def close(kind: Kind, config: Deviation, vae: VAE, params: Params) -> Generator:
    """The deviation with its parameters closed over, `z -> sigma`."""
    return partial(_model(kind, config, vae), params)


def initial(
    kind: Kind, config: Deviation, vae: VAE, codes: Float[Array, "n d"], seed: int, key: Array
) -> Params:
    """Fresh parameters; those of the RBF network hold its kernels, which stay where they are."""
    if kind == "network":
        return _network(config, vae).init(key, jnp.zeros(vae.config.latent_dim))
    return rbf.init_rbf(
        codes,
        vae.image_shape,
        centres=config.centres,
        reach=config.reach,
        zeta=config.zeta,
        seed=seed,
    )


def loss(
    kind: Kind,
    config: Deviation,
    vae: VAE,
    vae_params: Params,
    params: Params,
    key: Array,
    step: Array,
    batch: Batch,
) -> tuple[Scalar, dict[str, Scalar]]:
    """Negative log-likelihood of a Gaussian per pixel, at codes drawn from the posterior."""
    del step
    if isinstance(params, RBF):
        learnt = params.log_weights
        params = jax.lax.stop_gradient(params)._replace(log_weights=learnt)
    apply: Any = partial(vae.apply, vae_params)  # flax types its result as a pair as well
    encode, decode = (partial(apply, method=part) for part in (vae.encode, vae.decode))
    std = close(kind, config, vae, params)
    evaluate = partial(noisy_negative_log_likelihood, encode, decode, std, config.noise)
    keys = jax.random.split(key, len(batch["image"]))
    values, stds = jax.vmap(evaluate)(keys, batch["image"])
    return jnp.mean(values), {"deviation": jnp.mean(stds)}


def train(
    folder: Folder,
    kind: Kind,
    config: Deviation,
    vae: VAE,
    vae_params: Params,
    *,
    codes: Float[Array, "n d"],
    batches: Batches,
    seed: int,
) -> Params:
    """Fit, or go on fitting, one deviation to a trained VAE."""
    return fit(
        folder,
        kind,
        init=partial(initial, kind, config, vae, codes, seed),
        loss=partial(loss, kind, config, vae, vae_params),
        batches=batches,
        config=config.training,
        seed=seed,
        describe=f"{'RBF' if kind == 'rbf' else 'ordinary'} deviation",
    )


def _network(config: Deviation, vae: VAE) -> StdNetwork:
    return StdNetwork(vae.image_shape, width=config.width, depth=config.depth)


def _model(kind: Kind, config: Deviation, vae: VAE) -> Callable[[Params, Latent], Array]:
    network: Any = _network(config, vae).apply
    return rbf.std if kind == "rbf" else network


def stored(kind: Kind, config: Deviation, params: Params) -> StoredStd:
    """One deviation, as the file of a generator holds it."""
    return StoredStd(params) if kind == "rbf" else StoredStd(params, config.width, config.depth)
