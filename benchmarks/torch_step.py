"""The training step of potential flows in eager PyTorch, the peer of `benchmarks.potential_flows`.

Written as one would write it in PyTorch, with batches in every formula. The functions of a
potential take its parameters either bare, or with a leading axis for several potentials at once.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import hessian, jvp, vmap

Params = dict[str, dict[str, Tensor]]
Decoder = Callable[[Any, Tensor], Tensor]
Laplacian = Callable[[Params, Tensor, Tensor, Tensor, Tensor], Tensor]
"""Of the parameters, times, points, values `u` at these, and their gradient in the points."""


class Numbers(NamedTuple):
    """All that the JAX step holds or draws, as tensors, so that both steps are the same one."""

    potentials: Params
    """Each leaf with the potentials on its leading axis."""
    coefficients: Tensor
    """`[K]`."""
    classifier: Params
    decoder: Any
    """Parameters of `Setting.decoder`."""
    starts: Tensor
    """`[K, n, d]`."""
    signs: Tensor
    """`[K, n]`, +1 or -1: forwards or backwards."""
    chosen: Tensor
    """`[K, n]`: the step whose two ends are decoded."""


class Setting(NamedTuple):
    """What is fixed while training."""

    decoder: Decoder
    """The parameters and latents `[..., d]` to images `[..., c, h, w]`."""
    horizon: int
    pace: float
    weights: Mapping[str, float]
    learning_rate: float


# --- networks ---


def linear(layer: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """A dense layer; with a leading axis in `layer`, one for each of several potentials."""
    y = x @ layer["kernel"]
    return y + layer["bias"].unsqueeze(-2) if "bias" in layer else y


def time_embedding(t: Tensor, features: int, horizon: int) -> Tensor:
    """Sines and cosines on a new last axis."""
    rates = torch.logspace(0.0, 1.0, features // 2, dtype=t.dtype, device=t.device) / horizon
    angles = t[..., None] * rates
    return torch.cat([angles.sin(), angles.cos()], -1)


def potential(params: Params, horizon: int, t: Tensor, z: Tensor) -> Tensor:
    """`u(t, z)`, `[..., n]`, of times `[..., n]` (or one, `[1]`) and points `[..., n, d]`."""
    e = time_embedding(t, params["time_in"]["kernel"].shape[-2], horizon)
    e = linear(params["time_out"], torch.tanh(linear(params["time_in"], e)))
    h = torch.tanh(linear(params["latent"], z) + e)
    for i in range(1, 1 + sum(name.startswith("hidden_") for name in params)):
        h = torch.tanh(linear(params[f"hidden_{i}"], h))
    return linear(params["potential"], h)[..., 0]


def decode(name: str, params: Params, z: Tensor) -> Tensor:
    """Images `[..., 1, 28, 28]` of latents, by a decoder that is mlp or conv."""
    lead, z = z.shape[:-1], z.reshape(-1, z.shape[-1])
    *hidden, last = (params[f"Dense_{i}"] for i in range(len(params)))
    for layer in hidden:
        z = F.gelu(linear(layer, z), approximate="tanh")
    if name == "conv":
        z = z.reshape(len(z), 7, 7, -1)
    x = linear(last, z)
    if name == "conv":
        x = x.reshape(-1, 7, 7, 4, 4).transpose(2, 3)
    return torch.sigmoid(x.reshape(*lead, 1, 28, 28))


def convolution(layer: Mapping[str, Tensor], x: Tensor, size: int, **how: int) -> Tensor:
    """A convolution whose weights lie in the layout of a dense layer on patches."""
    weight = layer["kernel"].reshape(size, size, x.shape[1], -1).permute(3, 2, 0, 1)
    return F.relu(F.conv2d(x, weight, layer["bias"], **how))


def classify(params: Params, before: Tensor, after: Tensor) -> Tensor:
    """Logits of image pairs, `[n, c, h, w]` each, of sides that 4 divides."""
    while before.shape[-1] > 32:
        before, after = F.avg_pool2d(before, 2), F.avg_pool2d(after, 2)
    x = torch.cat([before, 5.0 * (after - before)], 1)
    x = convolution(params["Dense_0"], x, 4, stride=4)
    x = convolution(params["Dense_1"], x, 3, padding=1)
    odd = x.shape[-1] % 2
    x = convolution(params["Dense_2"], F.pad(x, (0, odd, 0, odd)), 2, stride=2)
    x = x.permute(0, 2, 3, 1).flatten(1)
    # The layer of the logits is made first, so it has the lower number.
    return linear(params["Dense_3"], F.relu(linear(params["Dense_4"], x)))


# --- Laplacians ---


def derivative(y: Tensor, x: Tensor) -> Tensor:
    """The gradient of a sum, kept differentiable."""
    return torch.autograd.grad(y.sum(), x, create_graph=True)[0]


def columns(horizon: int) -> Laplacian:
    """The exact Laplacian by one more backward pass for each coordinate."""

    def laplacian(params, t, z, u, slope):
        del params, t, u
        return sum(derivative(slope[..., i], z)[..., i] for i in range(z.shape[-1]))

    return laplacian


def trace(horizon: int) -> Laplacian:
    """The exact Laplacian as the trace of `vmap(hessian)`."""

    def one(params, t, z):
        return potential(params, horizon, t[None], z[None])[0]

    def laplacian(params, t, z, u, slope):
        del u, slope
        hessians = vmap(hessian(one, argnums=2), in_dims=(None, 0, 0))
        stacked = vmap(hessians) if z.ndim == 3 else hessians
        return stacked(params, t, z).diagonal(dim1=-2, dim2=-1).sum(-1)

    return laplacian


def row_sums(horizon: int) -> Laplacian:
    """The published shortcut: the sum of all entries of the Hessian, which is no Laplacian."""

    def laplacian(params, t, z, u, slope):
        del params, t, u
        return derivative(slope, z).sum(-1)

    return laplacian


LAPLACIANS = {"columns": columns, "hessian": trace, "row sums": row_sums}


# --- the step ---


def loss(
    setting: Setting,
    laplacian: Laplacian,
    decoder: Any,
    learnt: Mapping[str, Any],
    classifier: Params,
    starts: Tensor,
    signs: Tensor,
    chosen: Tensor,
    labels: Tensor,
) -> Tensor:
    """The loss of one potential, or the mean over several with a leading axis."""
    params, horizon, weights = learnt["potentials"], setting.horizon, setting.weights

    def velocity(t, z):
        return derivative(potential(params, horizon, t, z), z)

    starts = starts.clone().requires_grad_()
    path = [starts]
    for step in range(horizon):
        path.append(path[-1] + signs[..., None] * velocity(starts.new_tensor([step]), path[-1]))
    stops = torch.stack(path, -2)
    rows = chosen[..., None, None].expand(*chosen.shape, 1, starts.shape[-1])
    before, after = (stops.take_along_dim(rows + i, -2).squeeze(-2) for i in (0, 1))

    moving = velocity((chosen + 1).to(starts), after)
    pushed: Any = jvp(lambda z: setting.decoder(decoder, z), (after,), (moving,))
    image, push = pushed
    squared_speed = push.square().sum((-3, -2, -1)).mean(-1)
    variation = setting.pace**2 / (setting.pace**2 + squared_speed)

    logits = classify(
        classifier,
        setting.decoder(decoder, before).flatten(0, -4),
        image.flatten(0, -4),
    )
    classification = F.cross_entropy(logits, labels.flatten()) / math.log(logits.shape[-1])

    at_start = velocity(starts.new_zeros(1), starts).square().sum(-1).mean(-1)
    initial = at_start / (at_start + moving.square().sum(-1).mean(-1) + 1e-12)

    z = stops[..., 1:, :].flatten(-3, -2)
    t = torch.arange(1.0, horizon + 1, dtype=z.dtype, device=z.device)
    t = t.repeat(chosen.shape[-1])
    t = t.expand(z.shape[:-1]).clone().requires_grad_()
    u = potential(params, horizon, t, z)
    speed = 0.1 + F.softplus(learnt["coefficients"])
    terms = (
        derivative(derivative(u, t), t),
        -(speed**2)[..., None] * laplacian(params, t, z, u, derivative(u, z)),
    )
    size = sum(term.square().mean(-1) for term in terms)
    residual = sum(terms).square().mean(-1) / size  # type: ignore[union-attr]

    return (
        weights["classification"] * classification
        + weights["residual"] * residual.mean()
        + weights["initial"] * initial.mean()
        + weights["variation"] * variation.mean()
    )


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
        count = len(numbers.coefficients)
        self.threads = 1
        self.laplacian = LAPLACIANS[laplacian](setting.horizon)
        self.setting, self.decoder = setting, numbers.decoder
        everyone = torch.arange(count, device=numbers.starts.device)
        groups: Sequence[Any] = [slice(None)] if stacked else range(count)
        labels = everyone[:, None].expand(numbers.chosen.shape)
        self.fixed = [
            (numbers.starts[k], numbers.signs[k], numbers.chosen[k], labels[k]) for k in groups
        ]
        self.learnt: list[dict[str, Any]] = [
            {
                "potentials": map_layers(leaf_of, map_layers(itemgetter(k), numbers.potentials)),
                "coefficients": leaf_of(numbers.coefficients[k]),
            }
            for k in groups
        ]
        self.classifier = map_layers(leaf_of, numbers.classifier)
        self.leaves = [*_leaves(self.learnt), *_leaves(self.classifier)]
        self.optimizer = torch.optim.Adam(self.leaves, lr=setting.learning_rate, fused=True)

    def __call__(self) -> tuple[float, float]:
        torch.set_num_threads(self.threads)
        self.optimizer.zero_grad()
        total = self.fixed[0][0].new_zeros(())
        for learnt, fixed in zip(self.learnt, self.fixed, strict=True):
            value = loss(
                self.setting, self.laplacian, self.decoder, learnt, self.classifier, *fixed
            ) / len(self.learnt)
            value.backward()
            total += value.detach()
        norm = torch.nn.utils.get_total_norm(
            [leaf.grad for leaf in self.leaves if leaf.grad is not None]
        )
        self.optimizer.step()
        return total.item(), norm.item()


def leaf_of(tensor: Tensor) -> Tensor:
    return tensor.clone().requires_grad_()


def map_layers(f: Callable[[Tensor], Tensor], params: Params) -> Params:
    return {name: {key: f(leaf) for key, leaf in layer.items()} for name, layer in params.items()}


def _leaves(tree: Any) -> list[Tensor]:
    return torch.utils._pytree.tree_leaves(tree)
