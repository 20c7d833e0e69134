import blob
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import directions

TS = [-0.2, -0.1, 0.0, 0.1, 0.2]
AT_REST = jnp.array([[0.0, 0.0, 0.0], [0.3, -0.4, 0.1], [-0.2, 0.1, 0.5]])


@pytest.fixture(scope="module")
def found():
    """Trajectories of two transformations, five amounts each, from three starts."""
    return jax.jit(
        lambda key: directions.trajectories(
            key,
            blob.generator,
            ["translate_x", directions.brightness],
            [TS, [-0.4, -0.2, 0.1, 0.2, 0.3]],
            starts=AT_REST,
            steps=40,
            project=4.0,
            batch_size=4,
        )
    )(jax.random.key(0))


def test_a_translation_is_a_step_along_the_latent_that_translates(found):
    step = found.zs[0] - found.z0[0][:, None]
    np.testing.assert_allclose(step[..., 0], np.tile(np.array(TS) / blob.REACH, (3, 1)), atol=0.02)
    np.testing.assert_allclose(step[..., 1:], 0, atol=0.02)
    assert (found.errors[0] < 1e-5).all()


def test_several_transformations_are_one_call_each_with_its_own_amounts(found):
    assert found.zs.shape == (2, 3, 5, 3)
    assert found.errors.shape == (2, 3, 5)
    np.testing.assert_allclose(found.ts[1], [-0.4, -0.2, 0.1, 0.2, 0.3], rtol=1e-6)
    step = found.zs[1] - found.z0[1][:, None]
    expected = jnp.broadcast_to(found.ts[1] / 0.2, step.shape[:2])
    np.testing.assert_allclose(step[..., 2], expected, atol=0.02)
    np.testing.assert_allclose(step[..., :2], 0, atol=0.02)


def test_zero_stays_at_the_start(found):
    assert (found.zs[0, :, 2] == found.z0[0]).all()
    np.testing.assert_allclose(found.errors[0, :, 2], 0, atol=1e-10)


def test_one_shot_falls_behind_where_the_change_is_large(key):
    def run(sequential):
        return directions.trajectories(
            key,
            blob.generator,
            "translate_x",
            [0.1, 0.2, 0.3, 0.4],
            starts=jnp.array([[-2.0, 0.0, 0.0], [-1.8, 0.5, 0.2]]),
            sequential=sequential,
            steps=25,
            loss="mse",
            project=4.0,
        )

    step, leap = run(True), run(False)
    np.testing.assert_allclose(step.zs[:, 0], leap.zs[:, 0], atol=1e-4)
    assert (step.errors[:, -1] < 0.1 * leap.errors[:, -1]).all()


def test_starts_are_drawn_as_asked(key):
    settings = {"steps": 1, "project": None, "count": 3}
    call = (key, blob.generator, "zoom", [0.1])
    sample = lambda key: 5 + jax.random.normal(key, (3,))  # noqa: E731
    assert directions.trajectories(*call, sample=sample, **settings).z0.mean() > 3


def test_bad_input_is_named_before_anything_runs(key):
    good = {
        "generator": blob.generator,
        "transformation": "zoom",
        "ts": TS,
        "count": 2,
        "latent_dim": 3,
    }
    for error, change in {
        "unknown transformation 'slide'": {"transformation": "slide"},
        "unknown loss": {"loss": "slide"},
        "hue needs 3 channels": {"transformation": ["zoom", "hue"]},
        "must increase|and increase": {"ts": [0.2, 0.1]},
        r"ts must have shape \[T\]": {"ts": 0.3},
        "3 rows for 1 transformations": {"ts": [TS, TS, TS]},
        "count must be at least 1": {"count": None},
        "latent_dim must be at least 1": {"latent_dim": None},
        r"starts must have shape \[n, d\]": {"starts": jnp.zeros(3)},
        "batch_size must be at least 1": {"batch_size": 0},
        "at least one transformation": {"transformation": []},
        "a pair": {"transformation": lambda x, t: x},
        "keep the shape": {"transformation": lambda x, t: (x[1:], x[1:, :, 0])},
        r"one image of floats, \[h, w, c\]": {"generator": lambda z: z},
    }.items():
        with pytest.raises(ValueError, match=error):
            directions.trajectories(key, **{**good, **change})


def test_vectors_are_followed_by_transformations_of_ones_own():
    """Of `(exp(z0), exp(z0) z1)`: what makes both larger moves z0, and what adds to one, z1."""

    def vector(z):
        return jnp.exp(z[0]) * jnp.stack([jnp.ones_like(z[1]), z[1]])

    ways = [
        lambda x, t: (x * jnp.exp(t), 1.0),
        lambda x, t: (jnp.stack([jnp.nan * x[0], x[1] + t]), jnp.array([0.0, 1.0])),
    ]
    starts, ts = jnp.array([[0.1, 0.2], [-0.1, 0.4]]), jnp.array([-0.2, 0.2])
    found = directions.trajectories(
        jax.random.key(0), vector, ways, ts, starts=starts, loss="mse", steps=150, project=None
    )
    louder = starts[:, None] + jnp.stack([ts, 0 * ts], -1)
    np.testing.assert_allclose(found.zs[0], louder, atol=0.01)
    moved = jax.vmap(jax.vmap(vector))(found.zs[1])[..., 1]
    np.testing.assert_allclose(moved, jax.vmap(vector)(starts)[:, 1:] + ts, atol=0.01)
    with pytest.raises(ValueError, match="a blur by 3 pixels is of images"):
        directions.trajectories(jax.random.key(0), vector, ways, ts, starts=starts)
