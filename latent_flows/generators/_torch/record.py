"""What PyTorch computes of a few latents, recorded beside the graph that it exports."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from latent_flows._validation import what
from latent_flows.generators._torch import module
from latent_flows.generators._torch.graph import Program
from latent_flows.generators._torch.module import Layout, Source

__all__ = ["Decoder", "Encoder", "record_decoder", "record_encoder"]


class Decoder(NamedTuple):
    """A generator as PyTorch has it."""

    program: Program
    """From a latent `[d]` to a sample as it lies in PyTorch."""
    tensors: dict[str, np.ndarray]
    """Of the program."""
    layout: Layout
    """How its samples lie."""
    samples: np.ndarray
    """Of each latent, as they lie in PyTorch."""
    direction: np.ndarray
    """Along which the first latent is moved."""
    weights: np.ndarray
    """Of the numbers of a sample."""
    slope: float | None
    """How the weighted sum of the first sample changes along the direction; None where PyTorch has
    no derivative."""


class Encoder(NamedTuple):
    """An encoder as PyTorch has it."""

    program: Program
    """From a sample as it lies in PyTorch to two tensors."""
    tensors: dict[str, np.ndarray]
    """Of the program."""
    codes: tuple[np.ndarray, np.ndarray]
    """Both tensors of each sample, one a row."""


def record_decoder(
    given: Source,
    latents: np.ndarray,
    latent_shape: Sequence[int] | None,
    output: int | str | None,
    channels_first: bool | None,
) -> Decoder:
    """Exports a generator and runs it.

    Args:
        given: the function.
        latents: one a row.
        latent_shape: in which the function takes one, if it is known.
        output: which of several tensors is the sample.
        channels_first: whether images begin with their channels, if it is known.

    Returns:
        The record.

    Raises:
        ValueError: it takes no such latents, is no function of them, or cannot be exported.
    """
    import torch

    with module.at_rest(given.modules) as dtype:
        zs = torch.tensor(latents, dtype=dtype)
        shape, x = module.takes(given, zs[0], latent_shape, output)
        layout = module.layout(given, zs[0].reshape(shape), x, output, channels_first)

        def call(z: Any) -> Any:
            return module.chosen(given.call(z.reshape(shape)), output)

        program, tensors = module.export(call, given.modules, zs[0])
        samples = [call(z).detach().clone() for z in zs]
        _check_repeats(samples, [call(z).detach() for z in zs])
        rng = np.random.default_rng(0)
        direction, weights = rng.normal(size=len(zs[0])), rng.normal(size=x.shape)
        slope = _slope(call, zs[0], torch.tensor(direction), torch.tensor(weights, dtype=x.dtype))
    stacked = np.stack([sample.numpy() for sample in samples])
    return Decoder(program, tensors, layout, stacked, direction, weights, slope)


def _check_repeats(first: Any, second: Any) -> None:
    """Whether two runs gave finite numbers, and the same.

    Raises:
        ValueError: they did not.
    """
    if not all(bool(each.isfinite().all()) for each in first):
        raise ValueError("makes samples that are not finite")
    if module.differ(first, second):
        raise ValueError(
            "gives another result each time it is called with the same: is there noise in it, or "
            "does it count its calls?"
        )


def _slope(call: Any, z: Any, direction: Any, weights: Any) -> float | None:
    """PyTorch's derivative, or None where it has none."""
    import torch

    z = z.clone().requires_grad_()
    try:
        (gradient,) = torch.autograd.grad(call(z), z, weights)
    except RuntimeError:
        return None  # made under `no_grad`, or without a backward
    return float(gradient.double() @ direction)


def record_encoder(given: Source, decoder: Decoder, latent_dim: int) -> Encoder:
    """Exports an encoder and runs it on samples.

    Args:
        given: the function.
        decoder: whose samples they are.
        latent_dim: numbers of a latent.

    Returns:
        The record.

    Raises:
        ValueError: it does not give two tensors with as many numbers as a latent, is no function of
            the sample, or cannot be exported.
    """
    import torch

    with module.at_rest(given.modules) as dtype:
        xs = torch.tensor(decoder.samples, dtype=dtype)

        def call(x: Any) -> Any:
            made = given.call(x)
            if not isinstance(made, list | tuple) or len(made) != 2:
                kind = type(made).__name__
                many = f" of {len(made)}" if isinstance(made, list | tuple) else ""
                raise ValueError(f"gives a {kind}{many}, where a pair is needed: mean and spread")
            for part in made:
                if not isinstance(part, torch.Tensor) or part.numel() != latent_dim:
                    shape = list(getattr(part, "shape", ())) or type(part).__name__
                    raise ValueError(
                        f"gives {shape} for one sample, where a latent has {latent_dim} numbers"
                    )
            return tuple(part.reshape(-1) for part in made)

        try:
            codes = [[part.detach() for part in call(x)] for x in xs]
        except ValueError:
            raise
        except Exception as error:
            raise ValueError(
                f"takes no sample of shape {list(xs[0].shape)}, which is what the generator gives "
                f"({what(error)})"
            ) from None
        program, tensors = module.export(call, given.modules, xs[0])
        for x, code in zip(xs, codes, strict=True):
            _check_repeats(code, [part.detach() for part in call(x)])
    mean, spread = (np.stack([code[i].numpy() for code in codes]) for i in (0, 1))
    return Encoder(program, tensors, (mean, spread))
