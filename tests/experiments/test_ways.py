"""Which way the flows of potentials run."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.potential_flows import families, train, ways
from experiments.potential_flows.flow_space import FlowSpace, initial, load_run, vector_field
from experiments.runtime.cli import UsageError
from experiments.runtime.run_dir import Folder
from latent_flows import coordinates, pde
from latent_flows.generators import freeze
from tests.experiments.small_generators import small_vae
from tests.experiments.test_flow_families import SMALL, picture
from tests.experiments.test_potential_flows import FLAGS

SETTINGS = replace(SMALL.flows, count=4, initial="free", turned=True)


def forgetful(x):
    """An encoder that finds latents again unless their first number is large."""
    z = 8 * x[0, :, 0] / jnp.array([1.0, 2.0, 4.0])
    return z + jax.nn.relu(z[0]), jnp.ones(3)


@pytest.fixture(scope="module")
def space():
    starts = jax.random.normal(jax.random.key(0), (16, 3))
    frozen = freeze(picture, 3, encode=forgetful)
    frame = coordinates.identity(3)
    return FlowSpace(frozen, frame, frozen.decode, starts, starts.min(0), starts.max(0))


@pytest.fixture(scope="module")
def params(space):
    return initial(SETTINGS, space, jax.random.key(1))


def displacements(space, params):
    """How far each flow leads along the first axis, in the mean."""
    field = vector_field(SETTINGS, space)
    from_all = jax.vmap(lambda member, z: field(member, jnp.ones(()), z)[0], in_axes=(None, 0))
    return jax.vmap(from_all, in_axes=(0, None))(params["potentials"], space.starts).mean(1)


def test_flows_go_where_the_encoder_finds_latents_again(tmp_path, space, params):
    found = ways.better(SETTINGS, space, params)
    assert {*found.tolist()} == {1, -1}
    np.testing.assert_array_equal(found, -np.sign(displacements(space, params)))
    settled = ways.settled(Folder(tmp_path), SETTINGS, space, params)
    assert (displacements(space, settled) < 0).all()
    assert (ways.better(SETTINGS, space, settled) == 1).all()
    # What the folder holds is taken up, whatever would be found now.
    (tmp_path / ways.WAYS).write_text("[1, 1, 1, 1]")
    again = ways.settled(Folder(tmp_path), SETTINGS, space, params)
    np.testing.assert_array_equal(displacements(space, again), displacements(space, params))


@pytest.mark.parametrize("name", pde.EQUATIONS)
def test_only_of_a_linear_equation_a_solution_may_be_turned(name):
    settings = replace(SETTINGS, pde=name)
    assert families.is_odd(settings) == (name != "hamilton_jacobi")
    if (found := pde.EQUATIONS[name]) is None:
        return
    u = lambda t, z: jnp.sin(t + z[0]) * z[1]  # noqa: E731
    at = 0.3, jnp.array([0.2, 0.7])
    ahead, back = (found(partial(times, sign, u), 0.5)(*at) for sign in (1, -1))
    assert bool(jnp.isclose(ahead, -back)) == found.linear


def times(sign, u, t, z):
    return sign * u(t, z)


@pytest.mark.parametrize(
    "what", [{"turned": False}, {"pde": "hamilton_jacobi"}, {"family": "linear"}]
)
def test_nothing_is_turned_unless_asked_for_and_possible(tmp_path, space, params, what):
    settings = replace(SETTINGS, **what)
    assert ways.settled(Folder(tmp_path), settings, space, params) is params
    blind = space._replace(frozen=freeze(picture, 3))
    assert ways.settled(Folder(tmp_path), SETTINGS, blind, params) is params
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("ways_there", [[1, 1, 1], [1, 1, 1, 2], 1])
def test_ways_that_are_none_are_refused(tmp_path, params, ways_there):
    Folder(tmp_path).write_json(ways.WAYS, ways_there)
    with pytest.raises(UsageError, match=r"ways\.json"):
        ways.kept(tmp_path, params)


@pytest.mark.slow
def test_a_run_is_loaded_with_the_ways_that_it_keeps(tmp_path, call):
    run, vae = tmp_path / "run", small_vae(tmp_path / "vae")
    command = [*FLAGS, "--generator", vae, "--flows.turned", "--no-scores", "--run", run]
    assert call(train, *command)[0::2] == (0, "")
    kept = Folder(run).read_json(ways.WAYS)
    assert len(kept) == 2
    assert {*kept} <= {1, -1}
    *_, params = load_run(run)
    other = Path(shutil.copytree(run, tmp_path / "other"))
    Folder(other).write_json(ways.WAYS, [-way for way in kept])
    *_, turned = load_run(other)
    last = [found["potentials"]["params"]["potential"]["kernel"] for found in (params, turned)]
    np.testing.assert_array_equal(*(np.abs(kernel) for kernel in last))
    np.testing.assert_array_equal(last[0], -last[1])
