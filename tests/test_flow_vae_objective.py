"""The pairs that a VAE is trained with flows on, and its kinds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows.data.sequences import load_sequences
from latent_flows.generators.vae import VAEConfig
from latent_flows.objectives.flow_vae import KINDS, WITH_FLOW, flow_vae, sample_pairs


@pytest.fixture(scope="module")
def digits():
    return load_sequences("digits", ("rotation", "brightness"), split="test", frames=3)


def test_each_factor_gets_its_share_of_a_batch_and_a_time_after_the_first(digits, key):
    examples = jnp.asarray(digits.dataset.examples(np.arange(6))["example"])
    found = sample_pairs(digits, key, examples)
    assert found.before.shape == found.after.shape == (3, 2, 8, 8, 1)
    np.testing.assert_array_equal(found.before.reshape(examples.shape), examples)
    assert set(np.unique(found.t)) <= {1.0, 2.0}
    np.testing.assert_allclose(
        found.after[1, 1], digits.frame(examples[3], 1, found.t[1, 1]), atol=1e-6
    )


@pytest.mark.parametrize(("family", "alike"), [("line", True), ("linear", False)])
def test_a_line_moves_every_code_alike_and_a_linear_map_does_not(key, family, alike):
    codes = jnp.array([[0.0, 0.0], [1.0, -1.0]])
    model = flow_vae("flow", VAEConfig(2), (8, 8, 1), factors=1, frames=3, family=family)
    own = jax.tree.map(lambda leaf: leaf[0], model.init(key)["potentials"])
    moved = jax.vmap(jax.grad(lambda z: model.one(own)(0.0, z)))(codes)
    assert model.equation is None
    assert bool(jnp.allclose(moved[0], moved[1], atol=1e-6)) is alike


def test_all_kinds_are_described():
    assert set(WITH_FLOW) < set(KINDS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "flows"}, "unknown kind 'flows' .did you mean 'flow'"),
        ({"equation": "wav"}, "unknown equation 'wav' .did you mean 'wave'"),
        ({"count": 3}, "must be 2, one a factor, got 3"),
        ({"family": "lines"}, "unknown fields.family 'lines' .did you mean 'line'"),
        ({"family": "line", "kind": "sparse"}, "line is of the kind flow, got sparse"),
    ],
)
def test_networks_that_cannot_be_are_refused(settings, message):
    given = {"kind": "flow", "factors": 2, "frames": 3} | settings
    with pytest.raises(ValueError, match=message):
        flow_vae(given.pop("kind"), VAEConfig(2), (8, 8, 1), **given)
