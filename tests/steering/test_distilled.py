"""What networks can learn of exact fields, where it is known what there is to learn."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows._descent import descend, settling
from latent_flows.steering import distilled


def turning(t, z):
    """A rotation: the gradient of nothing, and without divergence."""
    return jnp.array([-z[1], z[0]])


def climbing(t, z):
    """The gradient of half the squared length."""
    return z


def radius_and_angle(z):
    return jnp.stack([jnp.log(z @ z) / 2, jnp.arctan2(z[1], z[0])])


SQUARE = jax.random.uniform(jax.random.key(0), (256, 2), minval=-0.7, maxval=0.7)
ZS = jnp.array([1.5, 0.0]) + SQUARE


@pytest.fixture(scope="module")
def lessons():
    """Half the fields are a gradient, half a rotation."""
    one = partial(distilled.lesson, [climbing, turning], radius_and_angle)
    return jax.jit(jax.vmap(one))(ZS)


def taught(name, lessons, steps=300):
    """Mean squared errors of both fields, relative to their lengths, after training."""
    form, sizes = distilled.form(name, width=24, depth=2), distilled.scales(lessons)
    like = jax.tree.map(lambda leaf: leaf[0], lessons)

    @jax.jit
    def learn(lessons):
        def objective(params):
            return jnp.mean(jax.vmap(partial(form.loss, params, sizes))(lessons))

        start = form.init(jax.random.key(1), like)
        params = descend(settling(0.02, steps), objective, start, steps)
        found = jax.vmap(partial(form.fields(params, sizes), 0.0))(lessons.z)
        return jnp.mean((found - lessons.fields) ** 2, (0, 2)) / jnp.mean(lessons.fields**2, (0, 2))

    return learn(lessons)


def test_a_free_field_learns_both(lessons):
    assert (taught("free field", lessons) < 0.01).all()


def test_a_gradient_learns_the_gradient_and_not_the_rotation(lessons):
    gradient, rotation = taught("gradient", lessons)
    assert gradient < 0.01
    # What is antisymmetric of it about the middle of the latents is 0.13 of its square.
    assert rotation > 0.08


@pytest.mark.slow
def test_with_a_part_without_divergence_it_learns_the_rotation_too(lessons):
    assert (taught("gradient and solenoidal", lessons) < 0.02).all()


def test_the_dual_frame_moves_each_of_its_potentials_alone(lessons):
    """Log radius grows along z, the angle along the rotation: the frame of both is these fields."""
    assert (taught("dual frame", lessons) < 0.02).all()


def test_a_part_of_a_dual_frame_is_the_frame_of_its_potentials(lessons):
    """All of them are the whole frame; without what was taught last nothing of it is held."""
    form, sizes = distilled.form("dual frame", width=8, depth=1), distilled.scales(lessons)
    params = form.init(jax.random.key(0), jax.tree.map(lambda leaf: leaf[0], lessons))
    whole = form.fields(params, sizes)(0.0, ZS[0])
    same = form.fields(*distilled.first(2, params, sizes))(0.0, ZS[0])
    np.testing.assert_allclose(same, whole, rtol=1e-5)
    one = sizes._replace(fields=sizes.fields[:1])
    alone = form.fields(*distilled.first(1, params, one))(0.0, ZS[0])
    assert alone.shape == (1, len(ZS[0]))
    # Of one potential the way is its gradient, whatever the other does.
    assert not np.allclose(alone[0], whole[0], rtol=1e-2)
    for count in (1, 3):
        with pytest.raises(ValueError, match="from 2 to 2"):
            distilled.first(count, params, sizes)


def test_a_rotation_is_all_asymmetry_and_a_gradient_has_none():
    assert distilled.asymmetry(turning, ZS[0]) == pytest.approx(1)
    assert distilled.asymmetry(climbing, ZS[0]) == 0
    assert distilled.asymmetry(lambda t, z: jnp.ones(2), ZS[0]) == 0


def test_matrices_without_structure_have_the_root_of_a_half():
    slopes = jax.random.normal(jax.random.key(2), (200, 200))
    found = distilled.asymmetry(lambda t, z: slopes @ z, jnp.zeros(200))
    assert found == pytest.approx(np.sqrt(0.5), abs=0.01)


def test_lessons_of_absurd_size_do_not_drown_the_others(lessons):
    form, sizes = distilled.form("free field", width=8, depth=1), distilled.scales(lessons)
    like = jax.tree.map(lambda leaf: leaf[0], lessons)
    params = form.init(jax.random.key(0), like)
    absurd = like._replace(fields=1e6 * like.fields)
    assert form.loss(params, sizes, absurd) < 20


def test_an_unknown_form_is_named():
    with pytest.raises(ValueError, match="did you mean 'gradient'"):
        distilled.form("gradiant")
