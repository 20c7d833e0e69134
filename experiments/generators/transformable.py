"""Whether functions of somebody's own are for the samples of a generator: tried before a run."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments.runtime.cli import UsageError
from latent_flows._validation import what as told
from latent_flows.directions.transformations import entry, spread, transformed
from latent_flows.evaluation.image_control import decode
from latent_flows.generators import FrozenGenerator

SAME = 1e-3
"""Share of the largest number of a sample up to which two are the same."""

TRACED = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)
"""Errors of functions that look at numbers before there are any."""


def sample_of(generator: FrozenGenerator, seed: int) -> Array:
    """One sample to try functions on.

    Raises:
        UsageError: it has numbers that are not finite.
    """
    sample: Array = decode(generator.decode, generator.prior(jax.random.key(seed))[None])[0]
    if not jnp.isfinite(sample).all():
        raise UsageError(f"{generator.name} makes numbers that are not finite")
    return sample


def tried_on(who: str, sample: Array, function: Callable[..., Any], *args: Any) -> Any:
    """What a function of somebody's own gives for a sample, as NumPy.

    Args:
        who: what the function is, as the subject of a message.
        sample: the first argument.
        function: the function, which is compiled.
        *args: the others.

    Raises:
        UsageError: it fails.
    """
    try:
        return jax.tree.map(np.asarray, jax.jit(function)(sample, *args))
    except (Exception, SystemExit) as error:
        why = told(error).removeprefix("ValueError: ")
        if isinstance(error, TRACED):
            why += " (JAX traces it: write jnp.where for if, and jnp for numpy)"
        raise UsageError(f"{who} fails on a sample of shape {sample.shape}: {why}") from None


def check_transformation(who: str, name: str, sample: Array, largest: float) -> None:
    """Tries a transformation of one's own, and the factor that it is registered with.

    Args:
        who: the flag that names it, for messages.
        name: as `directions.transformations.entry` takes it.
        sample: of the generator.
        largest: the largest `|t|` that will be asked for.

    Raises:
        UsageError: it fails, returns what it should not, or is not the identity at t = 0.
    """
    of = entry(name)

    def results(sample: Array, ts: Array) -> tuple[Array, Array]:
        after, mask = jax.vmap(partial(transformed, of.apply, sample))(ts)
        return after, jax.vmap(lambda mask: spread(mask, sample) + 0 * sample)(mask)

    ts = jnp.array([0.0, -largest, largest], sample.dtype)
    after, mask = tried_on(who, sample, results, ts)
    if not (np.isfinite(mask).all() and (mask >= 0).all()):
        raise UsageError(f"{who} gives a mask that is not of weights from 0 on")
    for t, values, known in zip(np.asarray(ts), after, mask > 0, strict=True):
        if not np.isfinite(values[known]).all():
            raise UsageError(f"{who} gives numbers that are not finite at t = {t:g}")
    known, before = mask[0] > 0, np.asarray(sample)
    if not known.any():
        raise UsageError(f"{who} knows nothing of a sample at t = 0: its mask is 0 there")
    off = np.abs(after[0] - before)[known].max()
    if not off <= SAME * np.abs(before).max():
        raise UsageError(
            f"{who} must leave a sample as it is at t = 0, and changes it by up to {off:.3g}"
        )
    if of.factor is not None:
        value = tried_on(f"{who}: its factor {of.factor.name}", sample, of.factor.measure)
        if np.shape(value) != () or not np.issubdtype(value.dtype, np.floating):
            raise UsageError(
                f"{who}: its factor {of.factor.name} must give one number of a sample, got shape "
                f"{np.shape(value)} of {value.dtype}"
            )
        if not np.isfinite(value):
            raise UsageError(f"{who}: its factor {of.factor.name} of a sample is {value}")
