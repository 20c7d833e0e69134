"""Attributes as factors of directions, several at once, within limits; and learnt ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import directions, steering


def polar(z):
    """Two attributes of three latents: along neither is any straight line right."""
    return jnp.array([z[0] * jnp.cos(z[1]), z[0] * jnp.sin(z[1]), z[2]])


def identity(x):
    return x


SEEN = jnp.array([[3.0, 0.1, 0.0], [3.0, 3.0, 1.0]])
START = jnp.array([2.0, 0.5, 0.3])


def test_placing_a_steered_model_sets_the_attribute_and_no_other():
    model = steering.steered_model(polar, identity, 0, SEEN)
    moved = polar(directions.place(model, START, -1.0))
    np.testing.assert_allclose(moved, polar(START).at[0].set(-1.0), atol=2e-3)


def test_its_limits_are_those_of_the_latents_that_were_seen():
    model = steering.steered_model(polar, identity, 0, SEEN)
    np.testing.assert_allclose(model.limits, [3 * np.cos(3.0), 3 * np.cos(0.1)], rtol=1e-6)
    with pytest.raises(ValueError, match="t must lie in"):
        directions.place(model, START, 5.0)


def test_shifting_there_and_back_is_the_identity_on_what_is_seen():
    model = steering.steered_model(polar, identity, 1, SEEN)

    @jax.jit
    def both(z, dt):
        there = directions.shift(model, z, dt, extrapolate=True)
        return polar(directions.shift(model, there, -dt, extrapolate=True))

    np.testing.assert_allclose(both(START, jnp.float32(0.7)), polar(START), atol=2e-3)


def test_sampling_gives_the_attribute_the_wanted_distribution():
    model = steering.steered_model(polar, identity, 0, SEEN)
    keys = jax.random.split(jax.random.key(0), 64)
    drawn = jax.jit(jax.vmap(lambda key: directions.sample(key, model, START, jax.random.uniform)))(
        keys
    )
    np.testing.assert_allclose(
        jax.vmap(lambda z: polar(z)[0])(drawn), jax.vmap(jax.random.uniform)(keys), atol=5e-3
    )


def test_steered_and_straight_models_are_set_together():
    line = jnp.array([0.0, 1.0])
    straight = directions.DirectionModel(
        jnp.array([0.0, 0.0, 1.0]), line, line, line, jnp.ones(()), jnp.ones(())
    )
    steered = steering.steered_model(polar, identity, 0, SEEN)
    z = directions.place_many([steered, straight], START, [1.0, 0.8])
    np.testing.assert_allclose([polar(z)[0], z[2]], [1.0, 0.8], atol=5e-3)


def test_two_attributes_grow_together_at_their_rates():
    led = steering.steer_attribute(
        polar, identity, [0, 2], START, np.array([-0.5, 0.5]), rates=[1.0, -2.0]
    )
    change = jax.vmap(polar)(led.zs) - polar(START)
    np.testing.assert_allclose(change, [[-0.5, 0, 1.0], [0.5, 0, -1.0]], atol=5e-3)
    assert led.reached.all()


def test_an_attribute_stops_at_its_limit_and_is_free_before():
    """Left free, the second attribute follows the first: the least change moves both."""

    def both(z):
        return jnp.array([z[0] + z[1], z[0]])

    start, ts = jnp.zeros(2), np.array([0.4, 2.0])
    free = steering.steer_attribute(both, identity, 0, start, ts, hold=[])
    kept = steering.steer_attribute(
        both, identity, 0, start, ts, hold=[], limits={1: (-1.0, 0.5)}, steps=8
    )
    np.testing.assert_allclose(jax.vmap(both)(free.zs)[:, 1], [0.2, 1.0], atol=1e-3)
    np.testing.assert_allclose(jax.vmap(both)(kept.zs), [[0.4, 0.2], [2.0, 0.5]], atol=2e-2)
    assert kept.reached.all()


def test_a_pull_goes_only_where_no_attribute_sees_it():
    def first(z):
        return z[:1]

    start = jnp.array([1.0, 3.0])
    led = steering.steer_attribute(
        first, identity, 0, start, np.array([0.5]), pull=lambda z: -0.25 * z, corrections=4
    )
    np.testing.assert_allclose(led.zs[0], [1.5, 3 * 0.75**4], atol=1e-2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"index": [0, 0]}, "attribute 0 can only"),
        ({"index": []}, "at least one attribute"),
        ({"index": 0, "hold": [0]}, "attribute 0 can only"),
        ({"index": 0, "limits": {1: (1.0, 0.0)}}, "must be increasing"),
        ({"index": 0, "limits": {7: (0.0, 1.0)}}, "no number 7"),
        ({"index": [0, 1], "rates": [1.0]}, "one rate for each of 2"),
    ],
)
def test_attributes_that_make_no_sense_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        steering.steer_attribute(polar, identity, z0=START, ts=np.array([0.1]), **settings)


def test_a_model_that_nobody_registered_is_refused():
    with pytest.raises(ValueError, match="SteeredModel, got str"):
        directions.shift("left", START, 0.1)


class TestLearntAttributes:
    zs = jax.random.normal(jax.random.key(0), (500, 3))

    def test_a_smooth_score_of_latents_is_learnt_and_steered(self):
        found = steering.fit_attributes(
            jax.random.key(1), self.zs, jnp.sin(self.zs[:, 0]) + self.zs[:, 1] ** 2, steps=400
        )
        assert found.quality[0] > 0.9
        led = steering.steer_attribute(lambda z: z, found, 0, self.zs[0], np.array([0.3]))
        assert led.reached.all()
        np.testing.assert_allclose(found(led.zs[0]) - found(self.zs[0]), [0.3], atol=0.02)

    @pytest.mark.slow
    def test_true_and_false_are_learnt_as_logits(self):
        truth = np.asarray(self.zs[:, 0] > 0)
        found = steering.fit_attributes(jax.random.key(1), self.zs, truth, steps=300)
        assert found.quality[0] > 0.9
        assert 0.5 <= found.base[0] < 0.6
        assert found(jnp.array([2.0, 0, 0]))[0] > 2 > -2 > found(jnp.array([-2.0, 0, 0]))[0]

    def test_noise_is_not_learnt_and_its_quality_says_so(self):
        noise = jax.random.normal(jax.random.key(2), (500, 2))
        found = steering.fit_attributes(jax.random.key(1), self.zs, noise, steps=50)
        assert found.quality.shape == (2,)
        assert (found.quality < 0.2).all()

    @pytest.mark.slow
    def test_images_are_taken_as_they_are(self):
        levels = jax.random.uniform(jax.random.key(3), (60,))
        images = jnp.broadcast_to(levels[:, None, None, None], (60, 8, 8, 1))
        found = steering.fit_attributes(
            jax.random.key(1), images, levels, width=8, steps=80, batch_size=32
        )
        assert found.quality[0] > 0.9

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (np.zeros(500), "the same for all"),
            (np.full(500, np.nan), "finite"),
            (np.zeros(7), "got shapes"),
        ],
    )
    def test_scores_that_teach_nothing_are_refused(self, values, message):
        with pytest.raises(ValueError, match=message):
            steering.fit_attributes(jax.random.key(0), self.zs, values)
