"""Work of hot paths in units of the generator's passes that their methods cannot do without.

Run as `python -m benchmarks.operations`. Nothing is timed: floating-point operations and bytes are
those of the compiled programs, by the compiler's account, so that they say the same on a busy
machine. Each path is divided by a program of the generator alone:

- flow step: a training step of the published loss; two images a start, and their gradients by the
  latents
- joint step: a training step of a VAE with potentials; the bound of both images, and its gradients
  by the VAE's parameters
- trajectory step: a step of Adam towards a transformed image; an image, and its gradient
- geodesic iteration: a step of Newton's method; image and Jacobian at each inner point
- steering: the field of a transformation; an image and its Jacobian

The compiler counts a loop once, whatever its length, so that each is looked at a step at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from benchmarks import gan_step, joint_step, table
from benchmarks import potential_flows as decoders
from benchmarks.command import Flags, Results, command
from benchmarks.passes import images_and_gradients, images_and_jacobians
from benchmarks.ratio import less
from benchmarks.training_step import Step
from latent_flows import directions, steering
from latent_flows._compiled import Cost, cost
from latent_flows.directions.losses import blurred_error
from latent_flows.generators import vae as vaes
from latent_flows.generators.vae import VAE, VAEConfig
from latent_flows.geometry import _discrete_energy, _newton
from latent_flows.geometry.metrics import pullback
from latent_flows.typing import Generator, Latent

Name: TypeAlias = Literal["vae", "sngan-animefaces", "stylegan2-256"]
Part: TypeAlias = Literal[
    "flow step", "joint step", "trajectory step", "geodesic iteration", "steering"
]
PATHS: dict[Name, tuple[Part, ...]] = {
    "vae": ("flow step", "joint step", "trajectory step", "geodesic iteration", "steering"),
    "sngan-animefaces": ("flow step", "trajectory step"),
    "stylegan2-256": ("flow step", "trajectory step"),
}
"""What makes sense on each: others are of a VAE, or of a Jacobian that is formed."""


@dataclass(frozen=True)
class Config(Flags):
    """What is counted."""

    generators: tuple[Name, ...] = ("vae", "sngan-animefaces", "stylegan2-256")
    """At random parameters: a convolutional VAE with ten latents, and published ones."""
    size: gan_step.Size = field(default_factory=lambda: gan_step.Size(count=4, batch=4))
    """Size of a flow step; the ratio hardly depends on the batch."""
    joint: joint_step.Size = field(default_factory=joint_step.Size)
    """Size of a joint step."""
    side: int = 64
    """Pixels along each side of the VAE's images."""
    segments: int = 16
    """Of a geodesic."""
    channels: tuple[int, ...] = ()
    """Features of the published ones, instead of theirs: to see that it runs."""


class Source(NamedTuple):
    """A generator, of whose parameters there are only shapes."""

    make: Callable[[Any], Generator]
    variables: Any
    latent: int
    image: tuple[int, ...]


def compiled(function: Callable, *shapes: Any) -> Cost:
    """What a function of arrays of some shapes costs, once compiled."""
    return cost(jax.jit(function).lower(*shapes).compile())


def source(config: Config, name: Name) -> Source:
    """A generator by its name."""
    if name == "vae":
        vae = VAE(VAEConfig(latent_dim=10, decoder="conv", width=64), (config.side, config.side, 1))
        variables = jax.eval_shape(vae.init, jax.random.key(0), jnp.zeros(vae.image_shape))
        return Source(partial(vaes.generator, vae), variables, 10, vae.image_shape)
    work = gan_step.prepared(
        gan_step.Config(model=name, size=config.size, channels=config.channels)
    )
    return Source(work.generator, work.variables, work.starts.shape[1], work.image_shape)


def latents(of: Source, count: int) -> jax.ShapeDtypeStruct:
    """That many latents."""
    return jax.ShapeDtypeStruct((count, of.latent), jnp.float32)


def pulled(of: Source, count: int) -> Cost:
    """That many images, and the gradients of something of them by their latents."""
    ends = jax.ShapeDtypeStruct((count, *of.image), jnp.float32)
    return compiled(
        lambda variables, *args: images_and_gradients(of.make(variables), *args),
        of.variables,
        latents(of, count),
        ends,
    )


def jacobians(of: Source, count: int) -> Cost:
    """That many images, and their Jacobians."""
    return compiled(
        lambda variables, zs: images_and_jacobians(of.make(variables), zs),
        of.variables,
        latents(of, count),
    )


def flow_step(config: Config, of: Source) -> tuple[Cost, Cost]:
    """A training step of the published loss."""
    size = config.size
    net = decoders.PotentialNet(width=size.width, horizon=float(size.horizon), initial="free")
    work = gan_step.Work(net, size, 0, of.make, of.image, of.variables, latents(of, size.batch))
    learnt = jax.eval_shape(lambda: gan_step.begin(work))
    whole = compiled(gan_step.update(work), work.variables, work.starts, *learnt)
    return whole, pulled(of, 2 * size.batch)


def joint(config: Config, of: Source) -> tuple[Cost, Cost]:
    """A training step of a VAE together with potentials."""
    del of
    work = joint_step.problem(config.joint)
    return cost(Step(work).update), compiled(*work.passes)


def trajectory_step(config: Config, of: Source) -> tuple[Cost, Cost]:
    """A step of Adam towards a transformed image, at each of some starts."""
    count = config.size.batch

    def step(variables: Any, zs: jax.Array, targets: jax.Array, states: Any) -> Any:
        generator = of.make(variables)

        def one(z: Latent, target: jax.Array, state: Any) -> Any:
            mask = jnp.ones(target.shape[:2])
            error = lambda z: blurred_error(generator(z), target, mask, sigma=3.0)  # noqa: E731
            value, slope = jax.value_and_grad(error)(z)
            change, state = optax.adam(0.05).update(slope, state)
            return value, optax.apply_updates(z, change), state

        return jax.vmap(one)(zs, targets, states)

    zs = latents(of, count)
    targets = jax.ShapeDtypeStruct((count, *of.image), jnp.float32)
    states = jax.eval_shape(jax.vmap(optax.adam(0.05).init), zs)
    return compiled(step, of.variables, zs, targets, states), pulled(of, count)


def geodesic_iteration(config: Config, of: Source) -> tuple[Cost, Cost]:
    """A step of Newton's method on the energy of a curve."""
    inner = config.segments - 1

    def iteration(variables: Any, ends: jax.Array, points: jax.Array) -> Any:
        metric = pullback(of.make(variables))
        _, advance, blank, _ = _discrete_energy.model(metric, ends[0], ends[1], config.segments)
        return _newton.propose(advance(points, points, blank)[0], jnp.zeros(()))

    whole = compiled(iteration, of.variables, latents(of, 2), latents(of, inner))
    return whole, jacobians(of, inner)


def steering_step(config: Config, of: Source) -> tuple[Cost, Cost]:
    """The field of a translation at one latent."""
    del config

    def velocity(variables: Any, z: Latent) -> Latent:
        move = steering.transformation_field(of.make(variables), directions.translate_x)
        return move(jnp.zeros(()), z)

    z = jax.ShapeDtypeStruct((of.latent,), jnp.float32)
    return compiled(velocity, of.variables, z), jacobians(of, 1)


COUNTED: dict[Part, Callable[[Config, Source], tuple[Cost, Cost]]] = {
    "flow step": flow_step,
    "joint step": joint,
    "trajectory step": trajectory_step,
    "geodesic iteration": geodesic_iteration,
    "steering": steering_step,
}


def measure(config: Config, name: Name) -> Results:
    """A row for each path through a generator."""
    found = Results()
    of = source(config, name)
    for path in PATHS[name]:
        whole, floor = COUNTED[path](config, of)
        found.rows.append(
            {
                "generator": name,
                "path": path,
                "operations": whole.operations,
                "operations_over_passes": whole.operations / floor.operations,
                "bytes_over_passes": whole.bytes / floor.bytes,
            }
        )
        what, against = f"{path}, {name}", "the generator's own passes"
        found.ratios += [
            less(what, against, unit, getattr(whole, unit), getattr(floor, unit))
            for unit in ("operations", "bytes")
        ]
    return found


def main(config: Config) -> Results:
    """Count and print."""
    shown = table.empty(
        "Operations and bytes, in units of the generator's own passes",
        "generator*, path*, operations, over passes, bytes over passes",
    )
    found = Results()
    for name in config.generators:
        found += (here := measure(config, name))
        for row in here.rows:
            shown.add_row(
                row["generator"],
                row["path"],
                f"{row['operations']:.2e}",
                f"{row['operations_over_passes']:.2f}",
                f"{row['bytes_over_passes']:.2f}",
            )
    table.console().print(shown)
    return found


if __name__ == "__main__":
    command(main, __doc__, Config)
