"""PyTorch generators run as JAX: how far they are from PyTorch, and how fast beside it and flax.

Run as `python -m benchmarks.from_torch`; it needs the extra `peers`. Samples, derivatives along a
direction (jvp) and back from a sample (vjp) are compared with PyTorch's; then a batch of samples
and of derivatives is timed in eager PyTorch, taken over by `from_torch`, and where there is one
in the same network of flax with the same weights, in turns. What is timed is the processor's time
of all threads, which other work on the machine changes little. diffusers' AutoencoderKL is
measured where that is installed.
"""

import importlib.util
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import linen as nn
from jaxtyping import Array
from rich.console import Console
from rich.table import Table

from benchmarks.laplacian import compiled
from latent_flows.generators import from_torch
from latent_flows.generators.weights import Target, from_state_dict

Name = Literal["MLP", "DCGAN", "VAE", "AutoencoderKL", "StyleGAN2"]


@dataclass(frozen=True)
class Config:
    """What is measured."""

    networks: tuple[Name, ...] = get_args(Name)
    """Which generators."""
    batch: int = 16
    """Latents at once."""
    repeats: int = 10
    """Timed calls of each, of which the median counts."""
    threads: int = 1
    """Threads of PyTorch."""
    json: str = ""
    """File for the rows, as JSON."""


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


def processor_ms(calls: Mapping[str, Callable], repeats: int) -> dict[str, float]:
    """The median of each in milliseconds, taken in turns, the first turn not counted."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            began = time.process_time()
            jax.block_until_ready(call())
            taken[name].append(1e3 * (time.process_time() - began))
    return {name: statistics.median(each[1:]) for name, each in taken.items()}


def measure(config: Config, name: str) -> dict[str, Any]:
    """The row of one network.

    Raises:
        AssertionError: flax's network is another.
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

    # Then in turns.
    functions: dict[str, Any] = {"PyTorch": net, "JAX": generator}
    twin = flax_twin(name, {k: v.numpy() for k, v in net.state_dict().items()})
    if twin is not None:
        apart = difference(jax.vmap(twin)(zs).reshape(samples.shape), samples, float(np.ptp(x)))
        if not apart < 1e-4:
            raise AssertionError(f"flax's {name} makes other samples, by {apart:.1e}")
        functions["flax"] = twin
    for work, theirs, ours in (
        ("forward", forward, lambda generator, zs, vs: jax.vmap(generator)(zs)),
        ("jvp", forward_mode, pushed),
    ):
        calls: dict[str, Callable] = {"PyTorch": theirs}
        for side in list(functions)[1:]:
            args = (functions[side], zs, vs)
            ready, _ = compiled(ours, *args)
            calls[side] = lambda ready=ready, args=args: ready(*args)
        for side, spent in processor_ms(calls, config.repeats).items():
            row[f"{work}_{side}_ms"] = spent
    return row


def main(config: Config) -> None:
    """Measure and print."""
    console = Console()
    if importlib.util.find_spec("torch") is None:
        console.print("PyTorch is not installed: pip install 'latent-flows[peers]'", markup=False)
        return
    import torch

    torch.set_num_threads(config.threads)
    table = Table(
        title=f"{config.batch} latents at once, {jax.devices()[0].device_kind}, JAX "
        f"{jax.__version__}, PyTorch {torch.__version__} with {torch.get_num_threads()} threads"
    )
    columns = ("network", "parameters", "forward error", "jvp error", "vjp error")
    for column in (*columns, "ms: PyTorch, here, flax", "jvp: PyTorch, here, flax"):
        table.add_column(column, justify="left" if column == "network" else "right")
    rows = []
    for name in config.networks:
        if name == "AutoencoderKL" and importlib.util.find_spec("diffusers") is None:
            console.print("AutoencoderKL is left out: pip install diffusers", markup=False)
            continue
        row = measure(config, name)
        rows.append(row)
        if config.json:
            Path(config.json).write_text(json.dumps([asdict(config), *rows], indent=2) + "\n")
        times = (
            ", ".join(
                f"{row[key]:.1f}" if key in row else "-"
                for key in (f"{work}_{side}_ms" for side in ("PyTorch", "JAX", "flax"))
            )
            for work in ("forward", "jvp")
        )
        errors = (f"{row[f'{work}_error']:.0e}" for work in ("forward", "jvp", "vjp"))
        table.add_row(name, f"{row['parameters']:,}", *errors, *times)
    console.print(table)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
