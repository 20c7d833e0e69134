"""Networks that are taught steered fields, as traversals to compare with."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.potential_flows import steered, taught
from experiments.potential_flows.flags import Scores
from experiments.runtime.run_dir import Folder
from latent_flows.data.image_factors import SIZE, Measures, X, Y

MEASURES = Measures(factors=(SIZE, X, Y))
RANGES = jnp.array([4.0, 6.0, 6.0])
HORIZON = 10.0
STARTS = 0.3 * jax.random.normal(jax.random.key(0), (4, 8, 3))


def bump(z):
    """A bump that the first two latents move, and the third widens."""
    ticks = jnp.arange(16.0) - 7.5
    width = 2 * jnp.exp(0.3 * z[2])
    across, down = (jnp.exp(-(((ticks - 2 * move) / width) ** 2) / 2) for move in z[:2])
    return jnp.outer(down, across)[..., None]


def families(folder, monkeypatch, steps, bank):
    monkeypatch.setattr(taught, "TRAINING", replace(taught.TRAINING, steps=steps))
    exact = steered.exact(bump, MEASURES, RANGES, HORIZON, most=2)
    assert [factor.name for factor in exact.factors] == ["x", "y"]
    np.testing.assert_allclose(exact.paces, 0.25 * 6 / 10, rtol=1e-6)
    latents = jax.random.normal(jax.random.key(1), (bank, 3))
    subject = taught.Subject(bump, exact, MEASURES)
    return taught.families(folder, ["gradient", "dual frame"], subject, STARTS, latents, seed=0)


@pytest.mark.slow
def test_what_is_taught_moves_one_factor_each(tmp_path, monkeypatch):
    found = families(Folder(tmp_path), monkeypatch, steps=400, bank=256)
    assert [family.name for family in found] == ["taught gradient", "taught dual frame"]
    for family in found:
        for place, own in enumerate(np.eye(2)):
            member = jax.tree.map(lambda leaf, place=place: leaf[place], family.params)
            moved = jax.vmap(lambda z, m=member, f=family.field: f(m, 0.0, z))(STARTS[0])
            # Mostly its own latent, forwards.
            towards = np.asarray(moved[:, :2] @ own) / np.linalg.norm(moved, axis=1)
            assert towards.mean() > 0.9, family.name


def test_what_was_taught_is_read_again(tmp_path, monkeypatch, compile_quickly):
    first = families(Folder(tmp_path), monkeypatch, steps=2, bank=8)
    monkeypatch.setattr(taught, "drawn", None)  # there are no lessons any more
    again = families(Folder(tmp_path), monkeypatch, steps=2, bank=8)
    z = STARTS[0, 0]
    for one, other in zip(first, again, strict=True):
        member = jax.tree.map(lambda leaf: leaf[0], one.params)
        np.testing.assert_array_equal(one.field(member, 0.0, z), other.field(member, 0.0, z))


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match=r"unknown scores.taught 'line'"):
        Scores(taught=("line",))
