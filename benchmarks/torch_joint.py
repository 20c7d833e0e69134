"""The training step of a VAE with potentials in eager PyTorch, the peer of `benchmarks.joint_step`.

Batches in every formula, as one would write it in PyTorch; potentials and their derivatives are
those of `benchmarks.torch_step`, whose parameters may have a leading axis of several potentials.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import hessian, vmap

from benchmarks.torch_step import Params, derivative, leaf_of, linear, map_layers, potential

Laplacian = Callable[[Params, Tensor, Tensor], Tensor]
"""Of a potential's parameters, times `[..., n]` and points `[..., n, d]`."""


class Numbers(NamedTuple):
    """All that the JAX step holds or draws, as tensors, so that both steps are the same one."""

    vae: Mapping[str, Any]
    """`encoder`, `posterior` and `decoder`."""
    potentials: Params
    """Each leaf with the potentials on its leading axis."""
    coefficients: Tensor
    """`[K]`."""
    before: Tensor
    """`x_0`, `[K, n, pixels]`."""
    after: Tensor
    """`x_t`."""
    t: Tensor
    """`[K, n]`."""
    noise: tuple[Tensor, Tensor]
    """Draws for the codes of both, `[K, n, d]`."""


class Setting(NamedTuple):
    """What is fixed while training."""

    horizon: int
    steps: int
    """Of the midpoint rule."""
    flowed: bool
    """Whether codes of `x_t` have the prior that the flow makes of N(0, I)."""
    weights: Mapping[str, float]
    learning_rate: float


def value(horizon: int, params: Params, t: Tensor, z: Tensor) -> Tensor:
    """A potential at rest at time 0."""
    return potential(params, horizon, t, z) - potential(params, horizon, 0 * t, z)


def velocity(horizon: int, params: Params, t: Tensor, z: Tensor) -> Tensor:
    """Its gradient."""
    z = z if z.requires_grad else z.requires_grad_()
    return derivative(value(horizon, params, t, z), z)


def columns(horizon: int) -> Laplacian:
    """The exact Laplacian by one more backward pass for each coordinate."""

    def laplacian(params: Params, t: Tensor, z: Tensor) -> Tensor:
        z = z if z.requires_grad else z.requires_grad_()
        slope = derivative(value(horizon, params, t, z), z)
        parts = [derivative(slope[..., i], z)[..., i] for i in range(z.shape[-1])]
        return torch.stack(parts).sum(0)

    return laplacian


def trace(horizon: int) -> Laplacian:
    """The exact Laplacian as the trace of `vmap(hessian)`."""

    def one(params, t, z):
        return value(horizon, params, t[None], z[None])[0]

    def laplacian(params: Params, t: Tensor, z: Tensor) -> Tensor:
        hessians = vmap(hessian(one, argnums=2), in_dims=(None, 0, 0))
        stacked = vmap(hessians) if z.ndim == 3 else hessians
        return stacked(params, t, z).diagonal(dim1=-2, dim2=-1).sum(-1)

    return laplacian


LAPLACIANS = {"columns": columns, "hessian": trace}


def follow(
    horizon: int, params: Params, z: Tensor, start: Tensor, stop: Tensor, steps: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Times and points along the flow, in steps of the midpoint rule."""
    size = (stop - start) / steps
    times, points = [start], [z]
    for i in range(steps):
        now = start + i * size
        middle = z + size[..., None] / 2 * velocity(horizon, params, now, z)
        z = z + size[..., None] * velocity(horizon, params, now + size / 2, middle)
        times.append(start + (i + 1) * size)
        points.append(z)
    return times, points


def dense(layers: Params, x: Tensor, last: bool) -> Tensor:
    """Dense layers with GELUs between them, and after the last one if it is not the output."""
    for i in range(len(layers)):
        x = linear(layers[f"Dense_{i}"], x)
        if i < len(layers) - 1 or not last:
            x = F.gelu(x, approximate="tanh")
    return x


def log_normal(z: Tensor, mean: Tensor | float, std: Tensor | float) -> Tensor:
    """The log-density of a diagonal Gaussian."""
    std = torch.as_tensor(std, dtype=z.dtype, device=z.device)
    square = ((z - mean) / std) ** 2
    return (-0.5 * square - std.log() - 0.5 * math.log(2 * math.pi)).sum(-1)


def loss(
    setting: Setting,
    laplacian: Laplacian,
    vae: Mapping[str, Any],
    learnt: Mapping[str, Any],
    before: Tensor,
    after: Tensor,
    t: Tensor,
    noise: tuple[Tensor, Tensor],
) -> Tensor:
    """The loss of one potential's share of the batch, or the mean over several."""
    params, horizon, weights = learnt["potentials"], setting.horizon, setting.weights

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        both = linear(vae["posterior"], dense(vae["encoder"], x, last=False))
        mean, raw = both.chunk(2, -1)
        return mean, torch.exp(5.0 * torch.tanh(raw / 5.0))

    def unexplained(x: Tensor, z: Tensor) -> Tensor:
        logits = dense(vae["decoder"], z, last=True)
        return F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1).mean()

    def kl(mean: Tensor, std: Tensor) -> Tensor:
        return (0.5 * (mean**2 + std**2 - 1) - std.log()).sum(-1).mean()

    (mean0, std0), (mean, std) = encode(before), encode(after)
    z0, z = mean0 + std0 * noise[0], mean + std * noise[1]
    divergence = kl(mean, std)
    times, points = follow(horizon, params, z, t, torch.zeros_like(t), setting.steps)
    if setting.flowed:
        there, when = torch.stack(points), torch.stack(times)
        moved = laplacian(
            params, when.movedim(0, -2).flatten(-2), there.movedim(0, -3).flatten(-3, -2)
        )
        moved = moved.unflatten(-1, when.movedim(0, -2).shape[-2:]).movedim(-2, 0)
        gained = -torch.trapezoid(moved, when, dim=0)
        prior = log_normal(points[-1], 0.0, 1.0) - gained
        divergence = (log_normal(z, mean, std) - prior).mean()
    _, path = follow(horizon, params, z0, torch.zeros_like(t), t, setting.steps)
    end = path[-1]

    now = t.clone().requires_grad_()
    u = value(horizon, params, now, end)
    speed = 0.1 + F.softplus(learnt["coefficients"])
    terms = (
        derivative(derivative(u, now), now),
        -(speed**2)[..., None] * laplacian(params, now, end),
    )
    size = sum(term.square().mean(-1) for term in terms)
    residual = sum(terms).square().mean(-1) / size  # type: ignore[union-attr]
    share = weights["transport"]
    total = (
        (1 - share) * 0.5 * (unexplained(before, z0) + unexplained(after, z))
        + share * 0.5 * (unexplained(before, points[-1]) + unexplained(after, end))
        + 0.5 * (kl(mean0, std0) + divergence)
        - weights["matching"] * log_normal(end, mean, std).mean()
        + weights["residual"] * residual.mean()
    )
    return total / before.shape[-1]


class Step:
    """One training step at each call, which returns the loss and gradient norm before it.

    Args:
        numbers: parameters to start from, and what is fixed.
        setting: sizes and weights.
        laplacian: a key of `LAPLACIANS`.
        stacked: all potentials at once as batched products; otherwise a loop over them, in which
            the graph of each is freed before the next is built.
    """

    def __init__(self, numbers: Numbers, setting: Setting, laplacian: str, stacked: bool):
        self.threads = 1
        self.setting, self.laplacian = setting, LAPLACIANS[laplacian](setting.horizon)
        count = len(numbers.coefficients)
        groups: list[Any] = [slice(None)] if stacked else list(range(count))
        fixed = (numbers.before, numbers.after, numbers.t)
        self.fixed: list[Any] = [
            (*(leaf[k] for leaf in fixed), (numbers.noise[0][k], numbers.noise[1][k]))
            for k in groups
        ]
        self.learnt: list[dict[str, Any]] = [
            {
                "potentials": map_layers(leaf_of, map_layers(itemgetter(k), numbers.potentials)),
                "coefficients": leaf_of(numbers.coefficients[k]),
            }
            for k in groups
        ]
        self.vae: dict[str, Any] = {
            "posterior": {name: leaf_of(leaf) for name, leaf in numbers.vae["posterior"].items()},
            **{name: map_layers(leaf_of, numbers.vae[name]) for name in ("encoder", "decoder")},
        }
        tree = torch.utils._pytree.tree_leaves
        self.leaves = [*tree(self.learnt), *tree(self.vae)]
        self.optimizer = torch.optim.Adam(self.leaves, lr=setting.learning_rate, fused=True)
        self.loss = partial(loss, setting, self.laplacian, self.vae)

    def __call__(self) -> tuple[float, float]:
        torch.set_num_threads(self.threads)
        self.optimizer.zero_grad()
        total = self.fixed[0][0].new_zeros(())
        for learnt, fixed in zip(self.learnt, self.fixed, strict=True):
            value = self.loss(learnt, *fixed) / len(self.learnt)
            value.backward()
            total += value.detach()
        gradients = [leaf.grad for leaf in self.leaves if leaf.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self.optimizer.step()
        return total.item(), norm.item()
