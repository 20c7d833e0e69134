"""Mixtures of LANDs and of Gaussians that follow codes: how they are fitted, kept and evaluated."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from experiments.runtime.progress import progress
from experiments.runtime.run_dir import Timed
from latent_flows.geometry import land
from latent_flows.geometry.land import Land, Proposal
from latent_flows.typing import Latent, Metric, Scalar

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture


def gaussian(codes: Float[Array, "n d"], count: int, seed: int) -> "GaussianMixture":
    """The Gaussian mixture of greatest likelihood."""
    from sklearn.mixture import GaussianMixture

    return GaussianMixture(count, n_init=10, random_state=seed).fit(np.asarray(codes))


def fit(
    key: PRNGKeyArray,
    metric: Metric,
    codes: Float[Array, "n d"],
    start: Float[Array, "k d"],
    *,
    title: str,
    max_iterations: int,
    **settings: Any,
) -> Timed:
    """The mixture of LANDs under one metric, from first means; settings are those of `fit_land`."""
    begun, before = time.monotonic(), _compiling.total
    with progress(title, 0, (1 + max_iterations) * len(start)) as report:

        def told(step: int, log_likelihood: float) -> None:
            is_known = np.isfinite(log_likelihood)
            report(step, f"log-likelihood {log_likelihood:.4g}" if is_known else "the first round")

        report(0, "begins")
        # Without `jax.jit` around it: its parts are smaller programs, which both measures share.
        found = land.fit_land(
            key,
            metric,
            codes,
            len(start),
            initial=start,
            max_iterations=max_iterations,
            progress=told,
            **settings,
        )
        jax.block_until_ready(found)
    compiling = _compiling.total - before
    times = {"seconds": time.monotonic() - begun - compiling, "compiling": compiling}
    return vars(found), times


class _Compiling:
    """The seconds that JAX has spent on making programs, of this process."""

    def __init__(self) -> None:
        self.total = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._add)

    def _add(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event.startswith("/jax/core/compile/"):
            self.total += duration_secs


_compiling = _Compiling()


def revive(saved: Mapping[str, Any]) -> Land:
    """A LAND from the numbers that `fit` saved."""
    arrays = {
        name: numbers(saved[name])
        for name in ("means", "precisions", "weights", "log_constants", "log_constant_errors")
    }
    return Land(
        **arrays,
        log_likelihood=numbers(saved["log_likelihood"]),
        converged=jnp.asarray(saved["converged"]),
        proposal=Proposal(**{name: numbers(v) for name, v in saved["proposal"].items()}),
        measure=saved["measure"],
        segments=saved["segments"],
    )


def numbers(saved: Any) -> Array:
    """Numbers as they were saved, where one that is not finite is null."""
    return jnp.asarray(np.array(saved, np.float32))


def log_density(metric: Metric, saved: Mapping[str, Any]) -> Callable[[Latent], Scalar]:
    """The log-density of a mixture of LANDs."""
    return partial(land.land_log_prob, revive(saved), metric)


def gaussian_log_density(mixture: "GaussianMixture") -> Callable[[Latent], Scalar]:
    """The log-density of a Gaussian mixture."""
    means, covariances = jnp.asarray(mixture.means_), jnp.asarray(mixture.covariances_)
    normal = jax.vmap(jax.scipy.stats.multivariate_normal.logpdf, in_axes=(None, 0, 0))
    log_weights = jnp.log(jnp.asarray(mixture.weights_))
    return lambda z: jax.nn.logsumexp(log_weights + normal(z, means, covariances))


def error_of_constant(saved: Mapping[str, Any]) -> float:
    """The standard error of the constants of a mixture of LANDs, over its components."""
    return float(np.dot(numbers(saved["weights"]), numbers(saved["log_constant_errors"])))
