"""The loss of potential flows on fields whose every term is known in closed form."""

from dataclasses import fields, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import objectives, pde
from latent_flows.geometry.metrics import conformal
from latent_flows.geometry.operators import frame_and_bend, laplace_beltrami
from latent_flows.objectives import (
    PotentialFlowTerms,
    PotentialFlowWeights,
    potential_flow_terms,
    sample_flow,
    weighted_sum,
)

AXES = jnp.array([[0.1, 0.0, 0.0], [0.0, 0.2, 0.0]])
BOX = jnp.ones(3)
STARTS = jnp.linspace(-0.5, 0.5, 12).reshape(4, 3)


@partial(jax.jit, static_argnames=("horizon", "reverse", "at_rest"))
def along(velocity, **options):
    """Samples of flows along straight lines, `[K, n, ...]`, in one program for all of one kind."""
    keys = jax.random.split(jax.random.key(0), len(velocity))

    def one(key, v):
        return sample_flow(key, lambda t, z: v, STARTS, -BOX, BOX, **options)

    return jax.vmap(one)(keys, velocity)


def terms_of(samples, generator, classify, **options):
    """All terms in one program."""
    return jax.jit(lambda s: potential_flow_terms(s, generator, classify, **options))(samples)


def told_apart(before, after):
    """Logits that name the axis along which a step goes."""
    return 1e3 * jnp.abs(after - before)[..., :2]


def test_a_step_is_one_unit_of_time_along_the_flow_or_against_it():
    samples = along(AXES, horizon=3)
    steps = samples.after - samples.before
    np.testing.assert_allclose(jnp.abs(steps), jnp.abs(samples.velocity), atol=1e-6)
    assert {-1.0, 1.0} == set(np.sign(steps[:, :, :2].sum(-1)).ravel().tolist())
    forward = along(AXES, horizon=3, reverse=False)
    np.testing.assert_allclose(forward.after - forward.before, forward.velocity, atol=1e-6)


def test_flows_along_axes_of_their_own_lose_nothing_by_the_terms_that_ask_for_them():
    metric = jnp.tile(jnp.eye(3), (4, 1, 1))
    samples = along(AXES, horizon=3, metric=metric)
    terms = terms_of(samples, lambda z: 2 * z, told_apart, pace=0.3)
    assert terms.accuracy == 1
    expected = {
        "classification": 0.0,
        "residual": 0.0,
        "initial": 0.0,
        "variation": np.mean([0.3**2 / (0.3**2 + v**2) for v in (0.1, 0.2)]),
        "speed": np.mean([np.log(v / 0.3) ** 2 for v in (0.1, 0.2)]),
        "sparsity": 0.0,
        "overlap": 0.0,
        "consistency": 0.0,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(terms, name), value, atol=1e-4, err_msg=name)


def test_a_flow_pays_for_the_share_of_its_change_along_what_it_shall_avoid():
    stretch = jnp.diag(jnp.array([1.0, 4.0, 1.0]))
    metric = jnp.tile(stretch, (4, 1, 1))
    first = jnp.tile(jnp.array([[5.0, 0.0, 0.0]]), (4, 1, 1))
    velocity = jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [2.0, 1.0, 0.0]])
    samples = along(velocity, metric=metric, avoid=first)
    expected = [1.0, 0.0, 0.5]  # of the last one 2^2 of 2^2 + 4
    np.testing.assert_allclose(samples.avoided, np.tile(expected, (4, 1)).T, atol=1e-5)
    terms = terms_of(samples, lambda z: z, lambda a, b: 1e3 * jnp.abs(b - a))
    np.testing.assert_allclose(terms.avoided, 0.5, atol=1e-5)
    # What is named twice, in any length, is avoided once; what moves nothing is no direction.
    twice = jnp.concatenate([first, 1e-3 * first, 0 * first], axis=1)
    again = along(velocity, metric=metric, avoid=twice)
    np.testing.assert_allclose(again.avoided, samples.avoided, atol=1e-4)


def test_what_shall_be_avoided_has_to_be_measured_in_a_metric():
    with pytest.raises(ValueError, match="avoid needs the generator's metric"):
        along(AXES, avoid=jnp.zeros((4, 1, 3)))


def test_flows_may_be_drawn_to_a_share_of_the_range_whatever_the_generator_makes_of_it():
    samples = along(AXES, horizon=3)  # a twentieth and a tenth of the box a unit of time
    for scale in (1.0, 100.0):
        terms = terms_of(samples, lambda z, s=scale: s * z, told_apart, crossing=0.1)
        np.testing.assert_allclose(terms.speed, np.log(2) ** 2 / 2, rtol=1e-5)


def test_without_a_metric_speeds_are_pushed_through_the_generator():
    terms = terms_of(along(AXES), lambda z: 2 * z, told_apart, pace=0.3)
    expected = np.mean([0.3**2 / (0.3**2 + (2 * v) ** 2) for v in (0.1, 0.2)])
    np.testing.assert_allclose(terms.variation, expected, rtol=1e-5)
    assert (terms.sparsity, terms.overlap, terms.consistency) == (None, None, None)


def test_making_few_samples_at_once_changes_no_number():
    samples = along(AXES)
    generator = lambda z: jnp.sin(jnp.outer(z, z))  # noqa: E731
    classify = lambda a, b: told_apart(a, b)[..., 0, :]  # noqa: E731
    all_at_once = terms_of(samples, generator, classify)
    few = terms_of(samples, generator, classify, at_once=3)
    for one, other in zip(jax.tree.leaves(all_at_once), jax.tree.leaves(few), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_paths_that_leave_the_box_pay_for_it():
    inside = terms_of(along(0 * AXES), jnp.sin, told_apart).outside
    beyond = terms_of(along(100 * AXES), jnp.sin, told_apart).outside
    assert inside == 0
    assert beyond > 1


def test_a_flow_that_moves_at_time_zero_pays_half_for_being_as_fast_as_later():
    assert (along(AXES).initial == 0).all()
    np.testing.assert_allclose(along(AXES, at_rest=False).initial, 0.5, rtol=1e-5)


def plane_wave(t, z):
    """Solves the wave equation of speed 2."""
    return jnp.sin(z[0] - 2.0 * t)


@pytest.mark.parametrize(("speed", "solves"), [(2.0, True), (1.0, False)])
def test_a_solution_of_its_equation_has_no_residual(speed, solves):
    equation = partial(pde.wave, plane_wave, speed)
    field = jax.grad(plane_wave, argnums=1)
    flow = jax.jit(lambda key: sample_flow(key, field, STARTS, -BOX, BOX, equation=equation))
    found = flow(jax.random.key(0)).residual
    assert (found < 1e-8) == solves


def test_on_a_manifold_the_equation_holds_in_its_laplacian():
    metric = conformal(lambda z: 1 + z @ z)
    equation = partial(pde.wave, plane_wave, 2.0)
    field = jax.grad(plane_wave, argnums=1)
    options = {"equation": equation, "manifold": metric, "metric": jnp.tile(jnp.eye(3), (4, 1, 1))}
    key = jax.random.key(0)
    flow = jax.jit(lambda axes: sample_flow(key, field, STARTS, -BOX, BOX, axes=axes, **options))
    found = flow(None)
    known = flow(jax.jit(jax.vmap(frame_and_bend(metric)))(STARTS))
    np.testing.assert_allclose(found.residual, known.residual, rtol=1e-5)
    # At the starting points, at the times that the key draws.
    times = jax.random.uniform(jax.random.split(key, 3)[2], (4,), maxval=10)
    exact = equation(laplacian=laplace_beltrami(metric))
    expected = jax.jit(lambda *points: pde.relative_residual(exact, *points))(times, STARTS)
    np.testing.assert_allclose(found.residual, expected, rtol=1e-4)
    assert expected > 1e-3


def test_every_weight_is_of_a_term_and_every_term_but_the_accuracy_has_one():
    weighed = [field.name for field in fields(PotentialFlowWeights)]
    assert [*weighed, "accuracy"] == [*PotentialFlowTerms._fields]


def test_the_loss_is_the_weighted_sum_of_the_terms_that_are_known():
    terms = PotentialFlowTerms(*jnp.arange(1.0, 11.0), jnp.array(0.5))
    nothing = PotentialFlowWeights(**dict.fromkeys(vars(PotentialFlowWeights()), 0.0))
    for k, field in enumerate(fields(nothing)):
        assert weighted_sum(replace(nothing, **{field.name: 2.0}), terms) == 2.0 * (k + 1)
    unknown = terms._replace(sparsity=None, overlap=None, consistency=None, avoided=None)
    everything = PotentialFlowWeights(**dict.fromkeys(vars(nothing), 1.0))
    assert weighted_sum(everything, unknown) == sum(range(1, 7))


def test_a_weight_below_zero_is_refused():
    with pytest.raises(ValueError, match=r"weights\.overlap must be at least 0, got -1"):
        PotentialFlowWeights(overlap=-1.0)


@pytest.mark.slow
def test_the_loss_teaches_vectors_as_well_as_images():
    """Nothing in it asks for an image."""

    def loss(velocity):
        samples = along(velocity)
        terms = potential_flow_terms(samples, jnp.tanh, told_apart)
        return weighted_sum(PotentialFlowWeights(outside=1.0), terms)

    slope = jax.jit(jax.grad(loss))(AXES)
    assert jnp.isfinite(slope).all()
    assert (slope != 0).any()
    assert objectives.weighted_sum is weighted_sum
