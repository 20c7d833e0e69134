"""A generator in another precision: near the same values, in the dtype of the latent."""

import jax
import jax.numpy as jnp
import pytest

from latent_flows.generators.memory import in_dtype
from latent_flows.generators.sngan import SNGAN


def test_a_network_computes_in_half_precision_between_latents_and_samples_in_full(key):
    net = SNGAN(channels=(4, 4), latent_dim=3)
    variables, z = net.init(key, jnp.zeros(3)), jnp.array([0.5, -1.0, 2.0])
    half = jax.jit(in_dtype(net.apply, variables, jnp.bfloat16))
    got, wanted = half(z), net.apply(variables, z)
    assert got.dtype == jnp.float32
    program = str(jax.make_jaxpr(half)(z))
    assert "bf16" in program
    # Nothing is computed in full precision: the only float32 are what goes in and comes out.
    convolutions = [line for line in program.splitlines() if "conv_general_dilated[" in line]
    assert convolutions
    assert all("bf16" in line for line in convolutions)
    assert 0 < jnp.abs(got - wanted).max() < 0.05


def test_whole_numbers_among_the_parameters_stay_whole():
    table = {"rows": jnp.arange(3), "values": jnp.ones(4)}
    pick = lambda table, z: table["values"][table["rows"]] * z  # noqa: E731
    assert in_dtype(pick, table, jnp.bfloat16)(jnp.ones(3)).tolist() == [1.0, 1.0, 1.0]


def test_only_floats_are_a_precision():
    with pytest.raises(ValueError, match="dtype must be floating, got int8"):
        in_dtype(lambda w, z: z, {}, jnp.int8)
