"""A flow-matching generator of this library: its network, and what its noise is carried to."""

import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from latent_flows.classifiers import number_scales
from latent_flows.generators._flow_map import followed
from latent_flows.generators.frozen import FrozenGenerator, freeze
from latent_flows.generators.memory import cast_and_remat
from latent_flows.generators.prior_flow import VelocityNet
from latent_flows.generators.spec import GeneratorSpec, log_prior, prior
from latent_flows.generators.unet import UNet
from latent_flows.typing import Latent, Scalar

__all__ = ["DataFlow", "data_flow_loss", "init_data_flow", "restore_data_flow"]


class DataFlow(nn.Module):
    r"""The velocity `(t, y) -> dy/dt` of standardised samples: a U-Net of images, else an MLP.

    $$x = m + s\, y(1), \qquad \dot y = v(t, y), \qquad y(0) \sim N(0, I)$$

    `m` and `s`, of each colour of an image or each number of a vector, are its variables
    `"standard"`, which training leaves as they are.

    >>> import jax
    >>> net = DataFlow((3,), width=8, depth=1)
    >>> variables = net.init(jax.random.key(0), *net.example_inputs())
    >>> net.latent_dim, sorted(variables), net.apply(variables, 0.5, jnp.ones(3)).tolist()
    (3, ['params', 'standard'], [0.0, 0.0, 0.0])
    """

    event_shape: tuple[int, ...]
    """Of a sample."""
    widths: tuple[int, ...] = (32, 64)
    """Features of the U-Net at each resolution, the finest first."""
    blocks: int = 1
    """Its residual blocks at each resolution, down and up."""
    patch: int = 2
    """Pixels along a side of the blocks that it starts from."""
    width: int = 64
    """Units of a layer of the MLP."""
    depth: int = 3
    """Its residual blocks."""
    steps: int | None = 8
    """Equal steps of the solver; None: it chooses them."""
    solver: str = "midpoint"
    """Name of the solver, see `flows.solver`."""

    def setup(self) -> None:
        self.is_image = len(self.event_shape) == 3
        scales = self.event_shape[-1:] if self.is_image else self.event_shape
        self.mean = self.variable("standard", "mean", jnp.zeros, scales)
        self.scale = self.variable("standard", "scale", jnp.ones, scales)
        if self.is_image:
            self.field: nn.Module = UNet(self.widths, self.blocks, self.patch)
        else:
            self.field = VelocityNet(self.width, self.depth)

    @property
    def latent_dim(self) -> int:
        """Numbers of the noise, which are those of a sample."""
        return math.prod(self.event_shape)

    def example_inputs(self) -> tuple[float, Array]:
        """What the network may be called with."""
        return 0.0, jnp.zeros(self.event_shape)

    def __call__(self, t: Scalar | float, y: Array) -> Array:
        field: Any = self.field
        if self.is_image:
            return field(t, y)
        return field(t, y.reshape(-1)).reshape(self.event_shape)

    def standardised(self, x: Array) -> Array:
        """A sample as the flow has it at time 1."""
        return (x - self.mean.value) / self.scale.value

    def to_sample(self, y: Array) -> Array:
        """The sample of which that is the standardised one."""
        return self.mean.value + self.scale.value * y


def init_data_flow(net: DataFlow, key: PRNGKeyArray, examples: Float[Array, "n *event"]) -> PyTree:
    """The variables of a flow before it is trained: noise with the mean and deviation of data.

    Args:
        net: the network.
        key: of the parameters.
        examples: some data, whose mean and deviation are taken for those of all.

    Returns:
        Its variables, `"params"` and `"standard"`.

    >>> import jax
    >>> net = DataFlow((2,), width=8, depth=1)
    >>> variables = init_data_flow(net, jax.random.key(0), jnp.array([[0.0, 5.0], [2.0, 9.0]]))
    >>> variables["standard"]["mean"].tolist(), variables["standard"]["scale"].tolist()
    ([1.0, 7.0], [1.0, 2.0])
    """
    variables = net.init(key, *net.example_inputs())
    mean = variables["standard"]["mean"]
    rows = examples.reshape(-1, mean.size)
    found = (scale.reshape(mean.shape) for scale in number_scales(rows))
    return {**variables, "standard": dict(zip(("mean", "scale"), found, strict=True))}


def data_flow_loss(
    net: DataFlow, variables: PyTree, key: PRNGKeyArray, xs: Float[Array, "n *event"]
) -> Scalar:
    """What a flow minimises: the flow-matching loss of its velocity field.

    Args:
        net: the network.
        variables: its variables.
        key: randomness of times and noise.
        xs: a batch of samples.

    Returns:
        The loss, see `objectives.flow_matching.flow_matching_loss`.
    """
    from latent_flows.objectives.flow_matching import flow_matching_loss

    apply: Any = net.apply  # flax types its result as a pair as well
    ys = apply(variables, xs, method=net.standardised)
    return flow_matching_loss(lambda t, y: apply(variables, t, y), key, ys)


def restore_data_flow(
    name: str,
    net: DataFlow,
    variables: PyTree,
    spec: GeneratorSpec,
    *,
    dataset: str | None = None,
    labels: tuple[int, ...] = (),
    reading: tuple[tuple[str, str], ...] = (),
) -> FrozenGenerator:
    """A trained flow as a generator of its noise.

    Args:
        name: what it is, for captions.
        net: the network; its solver and the number of its steps are those of the generator.
        variables: its variables.
        spec: how latents are drawn and samples computed.
        dataset: name of the data that it was trained on.
        labels: of these data.
        reading: how these data are read, where they have a path.

    Returns:
        The generator. Its images have most values in [0, 1], and some a little beyond.

    >>> import jax
    >>> net = DataFlow((2,), width=8, depth=1)
    >>> data = jnp.array([[0.0, 5.0], [2.0, 9.0]])
    >>> variables = init_data_flow(net, jax.random.key(0), data)
    >>> print(restore_data_flow("a flow", net, variables, GeneratorSpec())(jnp.ones(2)))
    [2. 9.]
    """
    apply: Any = net.apply

    def field(t: Scalar, y: Latent) -> Latent:
        # The solver keeps its precision.
        velocity = cast_and_remat(
            lambda variables, y: apply(variables, t, y.reshape(net.event_shape)).reshape(-1),
            variables,
            dtype=spec.dtype,
            recompute=spec.recompute,
        )
        return velocity(y)

    def decode(z: Latent) -> Array:
        y = followed(field, z, 0.0, 1.0, net.steps, net.solver).reshape(net.event_shape)
        return apply(variables, y, method=net.to_sample)

    return freeze(
        decode,
        net.latent_dim,
        name=name,
        prior=prior(spec, net.latent_dim),
        log_prior=log_prior(spec),
        dataset=dataset,
        labels=labels,
        reading=reading,
    )
