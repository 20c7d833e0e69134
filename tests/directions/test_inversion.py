import blob
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latent_flows import directions


def test_a_latent_is_recovered_from_its_image(dtype):
    z = jnp.array([0.5, -0.8, 0.3], dtype)
    found = jax.jit(lambda x: directions.invert(blob.generator, x, jnp.zeros(3, dtype), steps=100))(
        blob.generator(z)
    )
    assert found.z.dtype == dtype
    np.testing.assert_allclose(found.z, z, atol=0.005)
    assert found.error < 1e-4 * found.start_error


def test_the_result_is_never_worse_than_the_start_nor_less_than_finite():
    def brittle(z):
        return jnp.where(z[0] > 0.05, jnp.nan, blob.generator(z))

    target = blob.generator(jnp.array([1.0, 0.0, 0.0]))
    found = directions.invert(
        brittle, target, jnp.zeros(3), optimizer=optax.sgd(1e4), steps=5, loss="mse"
    )
    assert jnp.isfinite(found.z).all()
    assert found.error <= found.start_error


def test_masked_pixels_do_not_pull():
    seen = blob.generator(jnp.zeros(3))
    spoilt, mask = seen.at[:4].set(5.0), jnp.ones(seen.shape[:2]).at[:4].set(0.0)
    found = directions.invert(blob.generator, spoilt, jnp.zeros(3), mask=mask, steps=10)
    np.testing.assert_allclose(found.z, 0, atol=1e-4)


@pytest.mark.parametrize(
    ("project", "limit"), [(directions.to_ball, 3**0.5), (0.5, 0.5), (None, 9.0)]
)
def test_the_norm_is_bounded_as_asked(project, limit):
    target = blob.generator(jnp.array([3.0, 0.0, 0.0]))
    start = jnp.array([1.5, 0.0, 0.0])
    found = directions.invert(blob.generator, target, start, project=project, steps=60)
    assert jnp.linalg.norm(found.z) <= limit + 1e-5
    if project is None:
        np.testing.assert_allclose(found.z[0], 3.0, atol=0.1)
    else:
        np.testing.assert_allclose(found.z[0], limit, atol=0.1)


def test_a_projection_is_the_nearest_point(key):
    z = jax.random.normal(key, (5,))
    np.testing.assert_allclose(directions.to_ball(z, 0.1), 0.1 * z / jnp.linalg.norm(z), rtol=1e-5)
    assert (directions.to_ball(z, 10.0) == z).all()
    assert (directions.to_ball(jnp.zeros(5)) == 0).all()


def test_bad_input_is_named():
    z, x = jnp.zeros(3), jnp.zeros((blob.SIZE, blob.SIZE, 1))
    for error, call in {
        r"target has shape \(8, 8, 1\), but the generator makes \(20, 20, 1\)": {
            "target": jnp.zeros((8, 8, 1))
        },
        "mask must have shape": {"mask": jnp.ones((3, 3))},
        "unknown loss 'blur'": {"loss": "blur"},
        "steps must be at least 1": {"steps": 0},
        "positive radius": {"project": -1.0},
        "one latent, a vector of floats": {"z0": jnp.zeros((2, 3))},
        "loss must return one number": {"loss": lambda x, y, mask: x - y},
    }.items():
        with pytest.raises(ValueError, match=error):
            directions.invert(blob.generator, **{"target": x, "z0": z, **call})


@pytest.mark.parametrize("shape", [(6,), (3, 2), (3, 2, 1)])
def test_gauss_newton_solves_a_linear_generator_of_any_event_shape(shape, key, x64):
    matrix = jax.random.normal(key, (6, 3))

    def linear(z):
        return (matrix @ z).reshape(shape)

    z = jnp.array([1.0, -2.0, 0.5])
    found = directions.gauss_newton(linear, linear(z), jnp.zeros(3), steps=1, damping=1e-9)
    np.testing.assert_allclose(found.z, z, atol=1e-6)
    assert found.start_error == pytest.approx(jnp.mean(linear(z) ** 2))
    assert found.error < 1e-12


def test_a_damped_step_is_the_ridge_regression_of_what_is_missing(key, x64):
    matrix, target = jax.random.normal(key, (6, 3)), jnp.arange(6.0)
    found = directions.gauss_newton(
        lambda z: matrix @ z, target, jnp.zeros(3), steps=1, damping=2.0
    )
    ridge = jnp.linalg.solve(matrix.T @ matrix + 2 * jnp.eye(3), matrix.T @ target)
    np.testing.assert_allclose(found.z, ridge, rtol=1e-9)


def test_gauss_newton_brings_a_code_closer(dtype):
    z = jnp.array([0.5, -0.8, 0.3], dtype)
    near = z + jnp.array([0.1, 0.1, -0.1], dtype)
    found = directions.gauss_newton(blob.generator, blob.generator(z), near, steps=8, damping=1e-3)
    assert found.z.dtype == dtype
    np.testing.assert_allclose(found.z, z, atol=1e-3)


def test_masked_pixels_do_not_pull_a_gauss_newton_step():
    seen = blob.generator(jnp.zeros(3))
    spoilt, mask = seen.at[:4].set(jnp.nan), jnp.ones(seen.shape[:2]).at[:4].set(0.0)
    z = jnp.array([0.1, 0.1, 0.0])
    found = directions.gauss_newton(blob.generator, spoilt, z, mask=mask, steps=8, damping=1e-3)
    np.testing.assert_allclose(found.z, 0, atol=1e-3)


def test_gauss_newton_is_never_worse_than_its_start_nor_less_than_finite():
    def brittle(z):
        return jnp.where(z[0] > 0.05, jnp.nan, blob.generator(z))

    target = blob.generator(jnp.array([1.0, 0.0, 0.0]))
    found = directions.gauss_newton(brittle, target, jnp.zeros(3), steps=5, damping=1e-6)
    assert jnp.isfinite(found.z).all()
    assert found.error <= found.start_error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"target": jnp.zeros(3)}, r"shape \(3,\), but the generator makes \(2,\)"),
        ({"target": jnp.zeros(2, int)}, "floating-point"),
        ({"z0": jnp.zeros((2, 2))}, "expected one latent"),
        ({"mask": jnp.ones(5)}, r"mask must have shape \(2,\), got \(5,\)"),
    ],
)
def test_what_gauss_newton_cannot_take_is_said(change, message):
    given = {"target": jnp.zeros(2), "z0": jnp.zeros(2), **change}
    with pytest.raises(ValueError, match=message):
        directions.gauss_newton(lambda z: 2 * z, **given)


def test_a_vector_is_inverted_with_masks_that_broadcast():
    matrix = jnp.array([[1.0, 0.5], [0.0, 2.0], [1.0, 1.0]])
    z = jnp.array([0.4, -0.3])
    target = (matrix @ z).at[2].set(jnp.nan)
    mask = jnp.array([1.0, 1.0, 0.0])
    for found in (
        directions.invert(lambda z: matrix @ z, target, 0 * z, mask=mask, loss="mse", steps=200),
        directions.gauss_newton(lambda z: matrix @ z, target, 0 * z, mask=mask, damping=1e-6),
    ):
        np.testing.assert_allclose(found.z, z, atol=0.01)
    whole = directions.gauss_newton(lambda z: matrix @ z, matrix @ z, 0 * z, mask=1.0, damping=1e-6)
    np.testing.assert_allclose(whole.z, z, atol=1e-4)
