"""A PyTorch module as a generator: exported, run as JAX, and compared with PyTorch."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from latent_flows._extras import extra
from latent_flows.generators._torch import graph, record
from latent_flows.generators._torch.module import Source, source
from latent_flows.generators._torch.record import Decoder
from latent_flows.generators.frozen import (
    Encoder,
    FrozenGenerator,
    Prior,
    draw_latents,
    freeze,
    standard_normal,
)
from latent_flows.generators.memory import cast_and_remat
from latent_flows.typing import Generator, Latent

__all__ = ["from_torch"]

DRAWS = 3
"""Latents whose samples are compared."""
CLOSE = 1e-5
"""Of the range of PyTorch's samples: how far ours may be from them."""
CLOSE_SLOPES = 1e-3
"""Of the size of a derivative: how far ours may be from PyTorch's."""


def from_torch(
    module: Any,
    latent_dim: int,
    *,
    latent_shape: Sequence[int] | None = None,
    output: int | str | None = None,
    channels_first: bool | None = None,
    range: tuple[float, float] = (0.0, 1.0),
    encode: Any = None,
    spread: Literal["log_variance", "std"] = "log_variance",
    prior: Prior | None = None,
    name: str | None = None,
    dataset: str | None = None,
    dtype: str = "float32",
    recompute: bool = False,
) -> FrozenGenerator:
    r"""Makes a frozen generator of a PyTorch module, which runs as JAX from then on.

    `torch.export` gives the module's graph for a batch of one, in evaluation mode and on the CPU,
    and each operator becomes a function of `jax.numpy`. So it can be compiled, mapped and
    differentiated any number of times in both modes; its parameters are the leaves of the pytree,
    copied, so that training the module further changes nothing. The module itself is left as it
    was, its mode, device and dtype included; half precision is exported in float32.

    A few samples, and a derivative, are computed by PyTorch too, and have to agree.

    Args:
        module: a `torch.nn.Module`, a method of one such as `vae.decode`, or a function of tensors
            that calls some. It takes a latent as `[1, latent_dim]`, `[1, latent_dim, 1, 1]` or
            `[latent_dim]`, whichever works first, and gives a sample, with or without a batch of
            one.
        latent_dim: numbers of a latent.
        latent_shape: the shape in which the module takes one, without the batch, if it is none of
            these.
        output: the number or name of the sample, where the module gives a tuple, a dictionary or an
            object with several.
        channels_first: whether samples are `[c, h, w]`, to become `[h, w, c]`. By default those
            with three axes are of which the first has 1, 3 or 4 entries.
        range: black and white of the module's images, which become 0 and 1.
        encode: a module, method or function that takes what `module` gives, in its shape and range,
            and gives the mean of the latent and what `spread` says, as a pair.
        spread: whether `encode` gives the logarithm of the variance or the standard deviation.
        prior: from a random key to a latent; by default standard normal.
        name: what it is, for captions; by default the name of the class or function.
        dataset: name of the data that it was trained on.
        dtype: what it computes in, as for `cast_and_remat`.
        recompute: compute features again on the way back instead of keeping them.

    Returns:
        The generator.

    Raises:
        MissingExtra: PyTorch is not installed.
        ValueError: the module takes no latent like this, gives several tensors, draws random
            numbers, has operators without counterpart, all of which are named, or does not agree
            with PyTorch.

    References:
        https://docs.pytorch.org/docs/stable/export.html

    >>> import torch  # doctest: +SKIP
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 12), torch.nn.Tanh())  # doctest: +SKIP
    >>> generator = from_torch(net, 4)  # doctest: +SKIP
    >>> generator.event_shape, len(jax.tree.leaves(generator))  # doctest: +SKIP
    ((12,), 2)
    """
    with extra("torch"):
        import torch  # noqa: F401

    if latent_dim < 1:
        raise ValueError(f"latent_dim must be at least 1, got {latent_dim}")
    if latent_shape is not None and math.prod(latent_shape) != latent_dim:
        raise ValueError(
            f"latent_shape {tuple(latent_shape)} has {math.prod(latent_shape)} numbers, and "
            f"latent_dim is {latent_dim}"
        )
    if not range[0] < range[1]:
        raise ValueError(f"range must be black and white, got {range}")
    if spread not in ("log_variance", "std"):
        raise ValueError(f"spread must be log_variance or std, got {spread!r}")
    given = source(module, name)
    draw = prior or standard_normal(latent_dim)
    latents = np.asarray(draw_latents(draw, jax.random.key(0), DRAWS))
    with _about(given.name):
        theirs = record.record_decoder(given, latents, latent_shape, output, channels_first)
        program, tensors = graph.folded(theirs.program, _copied(theirs.tensors))

        def generate(tensors: graph.Tensors, z: Latent) -> Array:
            return theirs.layout.event(graph.run(program, tensors, z)[0])

        exact = freeze(partial(generate, tensors), latent_dim)
        _check_samples(exact.decode, latents, theirs)
    encoder = None
    if encode is not None:
        with _about(f"encode of {given.name}"):
            encoder = _encoder(source(encode), theirs, latent_dim, range, spread)
    low, high = range
    call = cast_and_remat(generate, tensors, dtype=dtype, recompute=recompute)
    return freeze(
        call if (low, high) == (0, 1) else lambda z: (call(z) - low) / (high - low),
        latent_dim,
        name=given.name,
        prior=draw,
        encode=encoder,
        dataset=dataset,
    )


def _encoder(
    given: Source, theirs: Decoder, latent_dim: int, range: tuple[float, float], spread: str
) -> Encoder:
    """PyTorch's encoder as one of ours, once it gives the same codes of a few samples."""
    found = record.record_encoder(given, theirs, latent_dim)
    program, tensors = graph.folded(found.program, _copied(found.tensors))
    low, high = range

    def both(x: Array) -> tuple[Array, ...]:
        return graph.run(program, tensors, theirs.layout.sample(x))

    def encode(x: Array) -> tuple[Array, Array]:
        mean, second = both(low + (high - low) * x)
        return mean, second if spread == "std" else jnp.exp(second / 2)

    events = jnp.stack([theirs.layout.event(x) for x in theirs.samples])
    with jax.default_matmul_precision("highest"):
        ours = jax.jit(partial(jax.lax.map, both))(events)
    for name, mine, wanted in zip(("means", "spreads"), ours, found.codes, strict=True):
        _check_close(name, np.asarray(mine), wanted)
    if spread == "std" and found.codes[1].min() < 0:
        raise ValueError("gives negative deviations; is it spread='log_variance'?")
    return encode


@contextmanager
def _about(name: str) -> Iterator[None]:
    """Says whose fault it is, where this block refuses something."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None


def _copied(tensors: Mapping[str, np.ndarray]) -> dict[str, Array]:
    """Copies in JAX, those of floats in its usual precision."""
    usual = jnp.result_type(float)

    def copied(tensor: np.ndarray) -> Array:
        return jnp.array(tensor, usual if np.issubdtype(tensor.dtype, np.floating) else None)

    return {name: copied(tensor) for name, tensor in tensors.items()}


def _check_samples(decode: Generator, latents: np.ndarray, theirs: Decoder) -> None:
    """Whether a generator makes PyTorch's samples, and changes with the latent as they do.

    Raises:
        ValueError: it does not.
    """
    v = np.asarray(theirs.direction, np.float32)
    with jax.default_matmul_precision("highest"):
        both = jax.jit(lambda decode, z: jax.jvp(decode, (z,), (jnp.asarray(v, z.dtype),)))
        made = [both(decode, jnp.asarray(z)) for z in latents]
    ours = np.stack([np.asarray(x) for x, _ in made])
    _check_close("samples", ours, np.stack([theirs.layout.event(x) for x in theirs.samples]))
    if theirs.slope is None:
        return
    weights, slope = theirs.layout.event(theirs.weights), theirs.slope
    moved = np.asarray(made[0][1], np.float64)
    found = float((weights * moved).sum())
    typical = float(np.linalg.norm(weights) * np.linalg.norm(moved)) / math.sqrt(moved.size)
    size = max(typical, abs(slope), abs(found))
    error = abs(found - slope) / size if size else 0.0
    if not error <= CLOSE_SLOPES:
        raise ValueError(
            f"has a derivative in JAX that differs from PyTorch's by {error:.1e} of its size; at "
            f"most {CLOSE_SLOPES:.0e} is accepted: is something in it detached, or has it a "
            "backward of its own?"
        )


def _check_close(what: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    span = float(np.ptp(theirs)) or float(np.abs(theirs).max()) or 1.0
    error = float(np.abs(ours - theirs).max()) / span
    if not error <= CLOSE:
        raise ValueError(
            f"gives {what} in JAX that differ from PyTorch's by {error:.1e} of their range; at "
            f"most {CLOSE:.0e} is accepted"
        )
