"""PyTorch generators run as JAX: how far they are from PyTorch, and how fast beside it and flax.

Run as `python -m benchmarks.from_torch`; it needs the extra `peers`. Samples, derivatives along a
direction (jvp) and back from a sample (vjp) are compared with PyTorch's; then a batch of samples
and of derivatives is timed in eager PyTorch, taken over by `from_torch`, and where there is one
in the same network of flax with the same weights, in turns. What is timed is the processor's time
of all threads, which other work on the machine changes little. diffusers' AutoencoderKL is
measured where that is installed.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array

from benchmarks import table
from benchmarks.command import Flags, MismatchError, Results, command
from benchmarks.peers import has
from benchmarks.ratio import compared
from benchmarks.turns import compiled, median, turns
from latent_flows.generators import from_torch
from latent_flows.generators.weights import Target, from_state_dict

Name = Literal["MLP", "DCGAN", "VAE", "AutoencoderKL", "StyleGAN2"]


@dataclass(frozen=True)
class Config(Flags):
    """What is measured."""

    networks: tuple[Name, ...] = get_args(Name)
    """Which generators."""
    batch: int = 16
    """Latents at once."""
    repeats: int = 10
    """Timed calls of each, of which the median counts."""
    threads: int = 1
    """Threads of PyTorch."""


class MLP(nn.Module):
    """The same layers as `torch_generators.mlp`."""

    latent_dim: int
    sizes: tuple[int, ...]

    @nn.compact
    def __call__(self, z: Array) -> Array:
        for i, size in enumerate(self.sizes[:-1]):
            z = nn.relu(nn.Dense(size, name=f"dense{i}")(z))
        return nn.sigmoid(nn.Dense(self.sizes[-1], name=f"dense{len(self.sizes) - 1}")(z))


class DCGAN(nn.Module):
    """The same layers as `torch_generators.dcgan`."""

    latent_dim: int
    sizes: tuple[int, ...]

    @nn.compact
    def __call__(self, z: Array) -> Array:
        x = z[None, None, None]
        for i, size in enumerate(self.sizes):
            stride, padding = ((1, 1), "VALID") if i == 0 else ((2, 2), "SAME")
            conv = nn.ConvTranspose(size, (4, 4), stride, padding, use_bias=False, name=f"conv{i}")
            x = conv(x)
            if i < len(self.sizes) - 1:
                norm = nn.BatchNorm(use_running_average=True, epsilon=1e-5, name=f"norm{i}")
                x = nn.relu(norm(x))
        return jnp.tanh(x)[0]


def flax_twin(name: str, state: Mapping[str, np.ndarray]) -> Callable[[Array], Array] | None:
    """The same network in flax with these weights, where there is one."""
    weights = [key for key, value in state.items() if key.endswith("weight") and value.ndim > 1]
    keys: dict[str, Target] = {}
    if name == "MLP":
        sizes = tuple(len(state[key]) for key in weights)
        net: Any = MLP(state[weights[0]].shape[1], sizes)
        for i, key in enumerate(weights):
            keys[key] = Target(("params", f"dense{i}", "kernel"), "dense")
            keys[key.replace("weight", "bias")] = Target(("params", f"dense{i}", "bias"))
    elif name == "DCGAN":
        net = DCGAN(len(state[weights[0]]), tuple(state[key].shape[1] for key in weights))
        for i, key in enumerate(weights):
            keys[key] = Target(("params", f"conv{i}", "kernel"), "transposed_conv")
            if i < len(weights) - 1:
                before = str(int(key.partition(".")[0]) + 1)
                keys[f"{before}.weight"] = Target(("params", f"norm{i}", "scale"))
                keys[f"{before}.bias"] = Target(("params", f"norm{i}", "bias"))
                keys[f"{before}.running_mean"] = Target(("batch_stats", f"norm{i}", "mean"))
                keys[f"{before}.running_var"] = Target(("batch_stats", f"norm{i}", "var"))
    else:
        return None
    variables = jax.tree.map(jnp.asarray, from_state_dict(net, keys, state))
    return jax.tree_util.Partial(net.apply, variables)


def difference(a: Any, b: Any, scale: float) -> float:
    """The largest difference of two arrays, in units of `scale`."""
    return float(np.abs(np.asarray(a) - np.asarray(b)).max()) / scale


def ahead(function: Callable, firsts: Mapping[str, Any], *args: Any) -> dict[str, Callable]:
    """Calls of a function that is compiled for each of some first arguments."""
    return {
        name: partial(compiled(function, first, *args)[0], first, *args)
        for name, first in firsts.items()
    }


def measure(config: Config, name: str) -> Results:
    """The row of one network.

    Raises:
        MismatchError: flax's network is another.
    """
    import torch

    from benchmarks.torch_generators import GENERATORS

    torch.manual_seed(0)
    given = GENERATORS[name]()
    net = given.call.eval()
    began = time.perf_counter()
    generator = from_torch(net, given.latent_dim, latent_shape=given.latent_shape)
    row: dict[str, Any] = {"network": name, "taking_over_s": time.perf_counter() - began}
    row["parameters"] = sum(p.numel() for p in net.parameters())

    rng = np.random.default_rng(0)
    zs, vs = rng.normal(size=(2, config.batch, given.latent_dim)).astype(np.float32)
    shape = (config.batch, *given.latent_shape)
    tensors = [torch.tensor(each).view(shape) for each in (zs, vs)]

    def forward() -> Any:
        with torch.no_grad():
            return net(tensors[0])

    def forward_mode() -> Any:
        # The fused kernels of attention have neither forward mode nor second derivatives.
        with torch.no_grad(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return torch.func.jvp(net, (tensors[0],), (tensors[1],))[1]

    def twice_backward() -> Any:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return torch.autograd.functional.jvp(net, tensors[0], tensors[1])[1]

    def pushed(generator: Any, zs: Array, vs: Array) -> Array:
        return jax.vmap(lambda z, v: jax.jvp(generator, (z,), (v,))[1])(zs, vs)

    # Once as they are, to compare.
    x = forward().numpy()
    try:
        moved, row["jvp_by"] = forward_mode().numpy(), "forward mode"
    except RuntimeError:  # PyTorch has none of some operators
        moved, row["jvp_by"] = twice_backward().numpy(), "two backward passes"
        forward_mode = twice_backward
    layout = (0, 2, 3, 1) if x.ndim == 4 else (0, 1)
    ws = rng.normal(size=x.shape).astype(np.float32)
    wanted_slopes = torch.autograd.functional.vjp(net, tensors[0], torch.tensor(ws))[1]
    samples, pull = jax.vjp(jax.jit(jax.vmap(generator)), jnp.asarray(zs))
    (slopes,) = pull(jnp.asarray(ws.transpose(layout)))
    row["forward_error"] = difference(samples, x.transpose(layout), float(np.ptp(x)))
    along = jax.jit(pushed)(generator, zs, vs)
    row["jvp_error"] = difference(along, moved.transpose(layout), float(np.abs(moved).max()))
    wanted = wanted_slopes.numpy().reshape(zs.shape)
    row["vjp_error"] = difference(slopes, wanted, float(np.abs(wanted).max()))

    functions: dict[str, Any] = {"JAX": generator}
    twin = flax_twin(name, {k: v.numpy() for k, v in net.state_dict().items()})
    if twin is not None:
        apart = difference(jax.vmap(twin)(zs).reshape(samples.shape), samples, float(np.ptp(x)))
        if not apart < 1e-4:
            raise MismatchError(f"flax's {name} makes other samples, by {apart:.1e}")
        functions["flax"] = twin
    found = Results([row])
    for work, theirs, ours in (
        ("forward", forward, lambda generator, zs, vs: jax.vmap(generator)(zs)),
        ("jvp", forward_mode, pushed),
    ):
        calls = {"PyTorch": theirs} | ahead(ours, functions, zs, vs)
        # The processor's time, see above.
        spent = turns(calls, (), config.repeats, clock=time.process_time)
        row |= {f"{work}_{side}_ms": 1e3 * median(taken) for side, taken in spent.items()}
        what = f"{name} taken over from PyTorch, {work}"
        found.ratios += compared(what, spent, ours="JAX", unit="s of all threads")
    return found


def main(config: Config) -> Results:
    """Measure and print."""
    console = table.console()
    if not has("torch"):
        console.print("PyTorch is not installed: pip install 'latent-flows[peers]'", markup=False)
        return Results()
    import torch

    torch.set_num_threads(config.threads)
    shown = table.empty(
        f"{config.batch} latents at once, {jax.devices()[0].device_kind}, JAX "
        f"{jax.__version__}, PyTorch {torch.__version__} with {torch.get_num_threads()} threads",
        "network*, parameters, forward error, jvp error, vjp error, ms: PyTorch; here; flax, "
        "jvp: PyTorch; here; flax",
    )
    found = Results()
    for name in config.networks:
        if name == "AutoencoderKL" and not has("diffusers"):
            console.print("AutoencoderKL is left out: pip install diffusers", markup=False)
            continue
        found += (here := measure(config, name))
        [row] = here.rows
        times = (
            "; ".join(
                f"{row[key]:.1f}" if key in row else "-"
                for key in (f"{work}_{side}_ms" for side in ("PyTorch", "JAX", "flax"))
            )
            for work in ("forward", "jvp")
        )
        errors = (f"{row[f'{work}_error']:.0e}" for work in ("forward", "jvp", "vjp"))
        shown.add_row(name, f"{row['parameters']:,}", *errors, *times)
    console.print(shown)
    return found


if __name__ == "__main__":
    command(main, __doc__, Config)
