"""Steering on generators whose every answer is known: a blob that the latent places."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import steering
from latent_flows.directions import brightness, translate_x, translate_y
from latent_flows.steering import _least_squares

SIDE = 24
PIXELS = jnp.arange(SIDE) + 0.5


def blob(x, y, light=1.0):
    """A Gaussian blob about `(x, y)`, in image widths from the middle."""
    across = jnp.exp(-((PIXELS - SIDE * (0.5 + x)) ** 2) / 8)
    down = jnp.exp(-((PIXELS - SIDE * (0.5 + y)) ** 2) / 8)
    return light * (down[:, None] * across)[..., None]


def straight(z):
    """The position is two latents; a third does nothing."""
    return blob(z[0] / 10, z[1] / 10)


def turning(z):
    """The position is two latents turned by an angle that a third sets: no line moves it."""
    cos, sin = jnp.cos(2 * z[2]), jnp.sin(2 * z[2])
    return blob((cos * z[0] - sin * z[1]) / 10, (sin * z[0] + cos * z[1]) / 10)


def barycentre(image):
    plane = image[..., 0]
    mass = plane.sum()
    places = PIXELS / SIDE
    return jnp.stack([(plane.sum(0) @ places) / mass, (plane.sum(1) @ places) / mass])


@jax.jit
def places(zs):
    """Where the turning generator puts the blobs of many latents."""
    return jax.vmap(lambda z: barycentre(turning(z)))(zs)


STARTS = jnp.clip(jax.random.normal(jax.random.key(0), (6, 3)), -1, 1)
TS = np.array([-0.1, -0.05, 0.0, 0.05, 0.1], np.float32)


def test_a_position_that_is_a_latent_has_a_constant_field():
    field = steering.transformation_field(straight, translate_x, damping=1e-5)
    found = jax.jit(jax.vmap(lambda z: field(0.0, z)))(STARTS)
    np.testing.assert_allclose(found, jnp.tile(jnp.array([10.0, 0, 0]), (6, 1)), atol=0.3)


@pytest.mark.parametrize(
    ("transformation", "axis"),
    [(translate_x, 0), pytest.param(translate_y, 1, marks=pytest.mark.slow)],
)
def test_where_no_straight_direction_exists_steering_moves_one_thing(transformation, axis):
    led = jax.jit(jax.vmap(lambda z: steering.steer(turning, transformation, z, TS)))(STARTS)
    before = places(STARTS)
    after = jax.vmap(places)(led.zs)
    wanted = before[:, None] + TS[:, None] * jnp.eye(2)[axis]
    np.testing.assert_allclose(after, wanted, atol=2e-3)
    assert led.reached.all()
    assert float(led.residual.max()) < 0.05


@pytest.mark.slow
def test_there_and_back_is_the_identity():
    for start in STARTS[:3]:
        there = steering.steer(turning, translate_x, start, [0.1], corrections=3).zs[0]
        back = steering.steer(turning, translate_x, there, [-0.1], corrections=3).zs[0]
        np.testing.assert_allclose(turning(back), turning(start), atol=0.01)


def test_amounts_may_come_in_any_order_and_be_traced_around():
    z = STARTS[0]
    mixed = np.array([0.1, -0.05, 0.0, 0.05, -0.1], np.float32)
    found = jax.jit(lambda z: steering.steer(turning, translate_x, z, mixed))(z)
    sorted_ = steering.steer(turning, translate_x, z, TS)
    np.testing.assert_allclose(found.zs, sorted_.zs[np.searchsorted(TS, mixed)], atol=1e-4)
    np.testing.assert_array_equal(found.zs[2], z)
    with pytest.raises(ValueError, match="close over it"):
        jax.jit(lambda ts: steering.steer(turning, translate_x, z, ts))(mixed)


@pytest.mark.slow
def test_products_with_the_jacobian_do_as_well_as_the_jacobian(monkeypatch):
    wide = jax.random.normal(jax.random.key(3), (3, 40)) / 6
    generator = lambda z: turning(wide @ z)  # noqa: E731
    z = jax.random.normal(jax.random.key(4), (40,))
    formed = jax.jit(steering.transformation_field(generator, translate_x))(0.0, z)
    monkeypatch.setattr(_least_squares, "FORMED", 8)
    free = jax.jit(steering.transformation_field(generator, translate_x))(0.0, z)
    np.testing.assert_allclose(free, formed, rtol=0.1, atol=0.02 * float(jnp.abs(formed).max()))
    led = steering.steer(generator, translate_x, z, TS)
    after = places(led.zs @ wide.T)
    wanted = barycentre(generator(z)) + TS[:, None] * jnp.array([1.0, 0.0])
    np.testing.assert_allclose(after, wanted, atol=3e-3)


def test_what_is_held_changes_less_while_the_rest_moves():
    generator = lambda z: blob((z[0] + z[1]) / 10, 0.0, 1 + 0.2 * z[1])  # noqa: E731
    light = lambda x: x.max()[None]  # noqa: E731
    z = jnp.array([0.1, 0.2])

    @jax.jit
    def rates(z):
        found = []
        for hold in (None, light):
            field = steering.transformation_field(generator, translate_x, damping=1.0, hold=hold)
            found.append(jax.jvp(lambda z: light(generator(z)), (z,), (field(0.0, z),))[1][0])
        return jnp.abs(jnp.stack(found))

    free, held = rates(z)
    assert held < 0.95 * free


def test_what_a_transformation_moves_is_matched_with_where_it_moves_it():
    generator = lambda z: (1 + z[0]) * blob(z[0] / 10, 0.0, 1.0)  # noqa: E731
    z = jnp.array([0.1])

    @jax.jit
    def errors(z):
        found = []
        for match in (None, barycentre):
            led = steering.steer(generator, translate_x, z, TS, match=match, corrections=4)
            moved = jax.vmap(lambda z: barycentre(generator(z)))(led.zs)
            found.append(jnp.abs(moved[:, 0] - barycentre(generator(z))[0] - TS).max())
        return jnp.stack(found)

    free, matched = errors(z)
    assert matched < 0.97 * free


def test_an_attribute_grows_at_unit_rate_and_the_others_stand_still():
    attributes = lambda x: jnp.concatenate([barycentre(x), x.mean()[None]])  # noqa: E731
    generator = lambda z: jnp.exp(z[3] / 4) * turning(z[:3])  # noqa: E731
    for index in range(3):
        field = steering.attribute_field(generator, attributes, index)
        z = jnp.array([0.4, -0.3, 0.5, 0.2])
        slope = jax.jit(jax.jacobian(lambda z: attributes(generator(z))))(z)
        np.testing.assert_allclose(slope @ jax.jit(field)(0.0, z), jnp.eye(3)[index], atol=1e-2)


def test_the_change_is_the_shortest_in_the_metric():
    metric = lambda z: jnp.diag(jnp.array([1.0, 4.0, 9.0]))  # noqa: E731
    total = lambda z: z.sum()[None]  # noqa: E731
    found = steering.attribute_field(total, lambda x: x, 0, metric=metric)(0.0, jnp.zeros(3))
    shares = jnp.array([1, 1 / 4, 1 / 9])
    np.testing.assert_allclose(found, shares / shares.sum(), rtol=1e-3)


def test_a_dual_frame_is_dual():
    matrix = jax.random.normal(jax.random.key(1), (3, 5))
    together = lambda t, z: jnp.tanh(matrix @ z) + t * z[:3]  # noqa: E731
    frame = steering.dual_frame(together, lambda z: jnp.diag(1 + z**2))
    z = 0.3 * jnp.ones(5)
    slopes = jax.jacobian(together, argnums=1)(0.5, z)
    np.testing.assert_allclose(slopes @ frame(0.5, z).T, jnp.eye(3), atol=1e-3)
    several = [lambda t, z, i=i: together(t, z)[i] for i in range(3)]
    apart = steering.dual_frame(several, lambda z: jnp.diag(1 + z**2))
    np.testing.assert_allclose(apart(0.5, z), frame(0.5, z), atol=1e-4)


@pytest.mark.parametrize(
    ("generator", "transformation"),
    [
        (lambda z: jnp.zeros((SIDE, SIDE, 1)) * z.sum(), translate_x),
        pytest.param(
            lambda z: blob(0.0, 0.0, 1 + 0.1 * jnp.tanh(z[0])),
            translate_x,
            marks=pytest.mark.slow,
        ),
        (straight, brightness),
    ],
    ids=["black", "cannot move", "cannot brighten"],
)
def test_what_a_generator_cannot_show_is_not_reached_and_nothing_breaks(generator, transformation):
    ts = np.array([-0.3, 0.3])
    led = steering.steer(generator, transformation, jnp.array([0.1, 0.2, 0.3]), ts)
    assert not led.reached.any()
    assert jnp.isfinite(led.zs).all()
    assert float(jnp.linalg.norm(led.zs, axis=1).max()) < 6
    assert float(led.residual.min()) > 0.3


def test_beyond_reach_latents_stay_bounded_and_say_how_far_they_got():
    bounded = lambda z: blob(0.1 * jnp.tanh(z[0]), 0.0)  # noqa: E731
    ts = np.array([0.03, 0.06, 0.2, 0.3], np.float32)
    led = steering.steer(bounded, translate_x, jnp.zeros(2), ts)
    np.testing.assert_array_equal(led.reached, [True, True, False, False])
    assert float(jnp.linalg.norm(led.zs, axis=1).max()) <= 3 * 2**0.5 + 1e-4


def test_attributes_that_say_the_same_or_nothing_are_not_reached():
    z = jnp.array([0.2, 0.3, 0.4])
    twice = lambda x: jnp.tile(barycentre(x)[:1], 2)  # noqa: E731
    led = steering.steer_attribute(turning, twice, 0, z, np.array([0.05]))
    assert not led.reached.any()
    assert jnp.isfinite(led.zs).all()
    nothing = lambda x: jnp.ones(1) + 0 * x.sum()  # noqa: E731
    led = steering.steer_attribute(turning, nothing, 0, z, np.array([0.05]))
    assert not led.reached.any()
    np.testing.assert_array_equal(led.zs[0], z)


def test_an_attribute_is_set_to_what_is_asked_for():
    steer = jax.jit(jax.vmap(lambda z: steering.steer_attribute(turning, barycentre, 1, z, TS)))
    led = steer(STARTS)
    after = jax.vmap(places)(led.zs)
    before = places(STARTS)
    np.testing.assert_allclose(after, before[:, None] + TS[:, None] * jnp.eye(2)[1], atol=2e-3)
    assert led.reached.all()


def test_double_precision_is_kept(x64):
    z = jnp.array([0.2, 0.3, 0.4])
    led = steering.steer(turning, translate_x, z, [0.05])
    assert led.zs.dtype == x64
    assert jax.jit(steering.attribute_field(turning, barycentre, 0))(0.0, z).dtype == x64


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z: steering.transformation_field(turning, translate_x, blur=-1), "at least 0"),
        (lambda z: steering.transformation_field(turning, translate_x, damping=0), "drifts"),
        (lambda z: steering.steer(turning, translate_x, z, 0.1), "vector of amounts"),
        (lambda z: steering.steer(turning, translate_x, z, [jnp.nan]), "must be finite"),
        (lambda z: steering.steer(turning, translate_x, z, [0.1], steps=0), "steps must be"),
        (lambda z: steering.steer(turning, translate_x, z, [0.1], tolerance=0), "tolerance"),
        (lambda z: steering.steer(lambda z: z, translate_x, z, [0.1]), "one image of floats"),
        (lambda z: steering.attribute_field(turning, barycentre, 2)(0.0, z), "no number 2"),
        (
            lambda z: steering.attribute_field(turning, barycentre, 0, hold=[0])(0.0, z),
            "attribute 0 can only grow",
        ),
        (
            lambda z: steering.attribute_field(turning, lambda x: x, 0)(0.0, z),
            r"one vector \[k\]",
        ),
        (lambda z: steering.dual_frame([]), "at least one potential"),
    ],
)
def test_what_makes_no_sense_is_said(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.array([0.2, 0.3, 0.4]))


def test_vectors_are_steered_without_a_blur_and_what_is_not_known_of_them_does_not_matter():
    def wave(z):
        return jnp.exp(z[0]) * jnp.cos(jnp.arange(9.0) + z[1])

    def louder(x, t):
        known = jnp.arange(9) < 7
        return jnp.where(known, jnp.exp(t) * x, jnp.nan), known

    z, ts = jnp.array([0.2, 0.5]), np.array([-0.5, 0.5])
    field = steering.transformation_field(wave, louder, blur=0.0, damping=1e-4)
    np.testing.assert_allclose(field(0.0, z), [1, 0], atol=2e-3)
    led = steering.steer(wave, louder, z, ts, blur=0.0, damping=1e-3)
    np.testing.assert_allclose(led.zs, z + np.stack([ts, 0 * ts], -1), atol=1e-3)
    assert led.reached.all()
    with pytest.raises(ValueError, match=r"a blur by 3 pixels is of images .* shape \(9,\)"):
        steering.steer(wave, louder, z, ts)
    with pytest.raises(ValueError, match="must return a pair"):
        steering.steer(wave, lambda x, t: x, z, ts, blur=0.0)


def test_a_mask_of_all_numbers_of_an_image_steers_as_one_of_its_pixels():
    def shifted(x, t):
        moved, mask = translate_x(x, t)
        return moved, jnp.broadcast_to(mask[..., None], x.shape)

    z = jnp.array([0.3, -0.2, 0.4])
    own, usual = (
        steering.transformation_field(turning, way)(0.0, z) for way in (shifted, translate_x)
    )
    np.testing.assert_allclose(own, usual, rtol=1e-4, atol=1e-5)
