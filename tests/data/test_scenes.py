import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import data
from latent_flows.data import scenes
from latent_flows.data.image_factors import unwrapped
from latent_flows.data.scenes import MEASURES, Factors, is_valid, render, silhouette

CUBE, CYLINDER, SPHERE, CAPSULE = 0.0, 1.0, 2.0, 3.0
SIZE = 32
NAMES = MEASURES.factor_names
render_all = jax.jit(jax.vmap(functools.partial(render, size=SIZE)))
measure_all = jax.jit(jax.vmap(MEASURES.measure))
check_all = jax.jit(jax.vmap(is_valid))
outline_all = jax.jit(jax.vmap(silhouette))


def scene(**given: float) -> Factors:
    usual = {
        "floor_hue": 0.1,
        "wall_hue": 0.55,
        "object_hue": 0.9,
        "scale": 1.0,
        "shape": CUBE,
        "orientation": 8.0,
    }
    return Factors(**{**usual, **given})


def images(*asked: Factors) -> jax.Array:
    """Of all at once; always as many, so that there is one program."""
    stacked = Factors(*map(np.float32, np.transpose(asked)))
    padded = Factors(*(jnp.asarray(np.resize(values, 16)) for values in stacked))
    return render_all(padded)[: len(asked)]


@functools.cache
def many() -> tuple[Factors, jax.Array, jax.Array]:
    """Random scenes of 64 pixels, and what is measured on them."""
    drawn = jax.jit(jax.vmap(scenes.random_factors))(jax.random.split(jax.random.key(0), 128))
    rendered = jax.jit(jax.vmap(render))(drawn)
    return drawn, rendered, measure_all(rendered)


def test_hues_scale_and_orientation_are_read_off_the_image():
    drawn, _, measured = many()
    truth = jnp.stack([*drawn[:4], jnp.zeros_like(drawn.scale), drawn.orientation], 1)
    error = np.asarray(jnp.abs(unwrapped(MEASURES.factors, truth, measured) - truth))
    for name in ("floor_hue", "wall_hue", "object_hue"):
        assert error[:, NAMES.index(name)].max() < 1e-6
    assert error[:, NAMES.index("orientation")].max() < 1e-3  # degrees
    scale = error[:, NAMES.index("scale")]
    assert np.sqrt((scale**2).mean()) < 0.015
    assert scale.max() < 0.05


def test_elongation_orders_sphere_cylinder_and_capsule_and_says_the_least_of_a_cube():
    drawn, _, measured = many()
    found = np.asarray(measured[:, NAMES.index("elongation")])
    means = [found[np.asarray(drawn.shape) == shape].mean() for shape in range(4)]
    np.testing.assert_allclose(means, [-0.01, 0.58, 0.09, 0.99], atol=0.03)


def test_a_room_that_is_a_trace_too_vivid_changes_nothing_that_is_measured_of_the_object():
    """As generators make it: noise of a hundredth, where a small object is all that is vivid."""
    small = images(*(scene(scale=0.75, shape=shape) for shape in range(4)))
    noisy = small + 0.01 * jax.random.normal(jax.random.key(0), small.shape)
    assert check_all(noisy).all()
    clean, found = (np.asarray(measure_all(of)) for of in (small, noisy))
    place = NAMES.index("elongation")
    np.testing.assert_allclose(found[:, place], clean[:, place], atol=0.03)
    for name in ("x", "y"):
        measure = jax.vmap(MEASURES.instead[name].measure)
        np.testing.assert_allclose(measure(noisy), measure(small), atol=0.003)


def test_true_scenes_are_valid_and_others_are_not():
    _, rendered, _ = many()
    assert check_all(rendered).all()
    assert rendered.min() >= 0
    assert rendered.max() <= 1
    noise = jax.random.uniform(jax.random.key(0), rendered.shape)
    assert not check_all(noise).any()
    assert not check_all(0.5 * jnp.ones_like(rendered)).any()
    others = jnp.roll(rendered, 32, axis=2)  # objects cut in two
    assert not check_all(others).any()


@pytest.mark.slow
def test_an_image_is_what_a_finer_one_averages_to():
    """So edges are smoothed by as much as they cover."""
    asked = [scene(shape=shape, orientation=angle) for shape, angle in ((0, 20), (1, 0), (3, -25))]
    fine = jax.jit(jax.vmap(functools.partial(render, size=8 * SIZE)))
    stacked = Factors(*map(jnp.asarray, np.float32(np.transpose(asked))))
    averaged = fine(stacked).reshape(3, SIZE, 8, SIZE, 8, 3).mean((2, 4))
    difference = np.abs(averaged - images(*asked))
    assert difference.mean() < 0.005
    assert difference.max() < 0.2


def test_every_shape_of_a_scale_has_one_area():
    shapes = np.linspace(0, 3, 13)
    areas = outline_all(images(*(scene(shape=shape) for shape in shapes))).sum((1, 2))
    np.testing.assert_allclose(areas, areas.mean(), rtol=0.06)


@pytest.mark.parametrize("shape", [CYLINDER, SPHERE, CAPSULE])
def test_a_round_object_has_the_same_outline_however_it_is_turned(shape):
    here, there = outline_all(
        images(scene(shape=shape, orientation=-30.0), scene(shape=shape, orientation=30.0))
    )
    # The pixels of the outline are mixed with those of another wall.
    assert jnp.abs(here - there).mean() < 0.01


def test_a_cube_at_zero_shows_its_edge_and_is_symmetric():
    (outline,) = outline_all(images(scene(orientation=0.0)))
    # The pixels of the outline are mixed with those of two walls.
    assert jnp.abs(outline - outline[:, ::-1]).mean() < 0.01


def test_a_hue_is_periodic_changes_no_brightness_and_no_other_part():
    first, same, other = images(
        scene(object_hue=0.25), scene(object_hue=1.25), scene(object_hue=0.75)
    )
    np.testing.assert_allclose(first, same, atol=1e-5)
    np.testing.assert_allclose(first.mean(-1), other.mean(-1), atol=1e-5)
    for border in (np.s_[:4], np.s_[-4:], np.s_[:, :6], np.s_[:, -6:]):
        np.testing.assert_allclose(first[border], other[border], atol=1e-6)


def test_no_object_reaches_the_pixels_that_hues_of_the_room_are_read_from():
    largest = [scene(shape=shape, scale=1.25) for shape in range(4)]
    outlines = outline_all(images(*largest))
    assert outlines[:, :2].max() < 1e-3
    assert outlines[:, -2:].max() < 1e-3


def test_no_object_is_cut_off_by_the_window_that_is_searched():
    extremes = [
        scene(shape=shape, scale=1.25, orientation=angle, object_hue=0.1, wall_hue=0.1)
        for shape in np.linspace(0, 3, 5)
        for angle in (-30.0, 0.0, 30.0)
    ]
    outlines = outline_all(images(*extremes))
    (top, bottom), (left, right) = (np.round(np.multiply(ends, SIZE)) for ends in scenes._WINDOW)
    for border in (np.s_[:, : int(top)], np.s_[:, int(bottom) :]):
        assert outlines[border].max() < 1e-3
    for border in (np.s_[..., : int(left) + 1], np.s_[..., int(right) - 1 :]):
        assert outlines[border].max() < 1e-3


def test_the_corner_moves_to_the_right_as_the_orientation_grows():
    rows = images(*(scene(orientation=angle) for angle in (-25.0, 0.0, 25.0)))[:, 0].mean(-1)
    corners = np.abs(np.diff(rows, axis=1)).argmax(1)
    assert corners[0] < corners[1] < corners[2]
    assert corners[1] in (SIZE // 2 - 1, SIZE // 2)


def test_the_nearest_surface_along_a_ray_is_found_to_a_thousandth():
    rays = scenes._rays(jnp.float32(20.0), SIZE)
    body = tuple(jnp.float32(number) for number in (0.5, 0.5, 0.1, 0.1))
    half = rays.pixel * 2.5
    t, hit = jax.jit(lambda: scenes._search(rays, body, half))()
    found = scenes._distance(body, rays.at(t)) + half
    ts = jnp.linspace(3.6, 6.4, 400)

    @jax.jit
    @jax.vmap
    def dense(t):
        return scenes._distance(body, rays.at(jnp.full((SIZE, SIZE), t))) + half

    values = dense(ts)
    nearest = values.min(0)
    inside, outside = nearest < -0.01, nearest > 0.01
    assert hit[inside].all()
    assert not hit[outside].any()
    np.testing.assert_allclose(found[inside], 0, atol=1e-3)
    np.testing.assert_allclose(t[inside], ts[(values < 0).argmax(0)][inside], atol=0.01)
    np.testing.assert_allclose(found[outside], nearest[outside], atol=5e-3)


def slopes_of(asked: Factors) -> Factors:
    def weighted(asked: Factors) -> jax.Array:
        image = render(asked, size=16)
        return (image.ravel() * jnp.cos(jnp.arange(image.size, dtype=image.dtype) / 5)).sum()

    return jax.grad(weighted)(asked)


@pytest.mark.slow
def test_derivatives_in_the_factors_match_finite_differences(x64):
    def weighted(asked):
        image = render(Factors(*asked), size=16)
        return (image.ravel() * jnp.cos(jnp.arange(image.size, dtype=image.dtype) / 5)).sum()

    base = jnp.array([0.13, 0.58, 0.91, 1.03, 1.6, 8.0])
    slopes = jax.jit(jax.grad(weighted))(base)
    step = 1e-5
    ends = base + step * np.concatenate([np.eye(6), -np.eye(6)])
    values = jax.jit(jax.vmap(weighted))(ends)
    np.testing.assert_allclose(slopes, (values[:6] - values[6:]) / (2 * step), rtol=0.02, atol=0.02)
    assert (jnp.abs(slopes) > 0.01).all()


@pytest.mark.slow
def test_derivatives_are_finite_where_shapes_and_walls_have_kinks():
    asked = [
        scene(shape=shape, orientation=angle, scale=scale)
        for shape in (0.0, 1.0, 2.0, 3.0)
        for angle, scale in ((0.0, 1.0), (30.0, 1.25))
    ]
    found = jax.jit(jax.vmap(slopes_of))(
        Factors(*map(jnp.asarray, np.float32(np.transpose(asked))))
    )
    assert all(bool(jnp.isfinite(slope).all()) for slope in found)


def test_measures_have_finite_derivatives_on_a_scene_and_on_black():
    (image,) = images(scene())
    slopes = jax.jit(jax.jacrev(MEASURES.measure))
    for one in (image, jnp.zeros_like(image)):
        assert bool(jnp.isfinite(slopes(one)).all())


@pytest.mark.parametrize("dtype", ["float32", "float64"], indirect=True)
def test_dtype_follows_the_precision(dtype):
    assert jax.eval_shape(lambda: render(scene())).dtype == dtype


def test_grid_is_every_combination_once_with_orientation_fastest():
    table = np.stack(jax.jit(jax.vmap(scenes.grid_factors))(jnp.arange(scenes.COUNT)), axis=1)
    assert scenes.COUNT == 480_000
    assert len(np.unique(table.round(4), axis=0)) == scenes.COUNT
    assert [len(np.unique(column.round(4))) for column in table.T] == list(scenes.GRID)
    np.testing.assert_allclose(table[0], [0, 0, 0, 0.75, 0, -30], atol=1e-5)
    np.testing.assert_allclose(table[-1], [0.9, 0.9, 0.9, 1.25, 3, 30], rtol=1e-5)
    np.testing.assert_allclose(table[1] - table[0], [0, 0, 0, 0, 0, 60 / 14], rtol=1e-4)


def test_data_set_renders_the_factors_it_names():
    whole = data.load("scenes", split="test", size=SIZE)
    assert whole.image_shape == (SIZE, SIZE, 3)
    assert whole.length + data.load("scenes", size=SIZE).length == scenes.COUNT
    batch = whole.examples(np.arange(0, 48_000, 3000))
    np.testing.assert_allclose(batch["image"], render_all(batch["factors"]), atol=1e-5)
    np.testing.assert_array_equal(batch["label"], np.rint(batch["factors"].shape))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: render(scene(), size=8), "size must be at least 16 pixels, to show every factor"),
        (lambda: render(scene(scale=jnp.ones(3))), "scale must be a scalar"),
        (lambda: render(scene(scale=2.0)), r"scale must lie in \[0.75, 1.25\], got 2"),
        (lambda: render(scene(shape=-1)), r"shape must lie in \[0, 3\], got -1"),
        (lambda: render(scene(orientation=45)), r"orientation must lie in \[-30, 30\], got 45"),
        (lambda: render(scene(floor_hue=np.nan)), "floor_hue must be a finite number, got nan"),
        (lambda: scenes.grid_factors(scenes.COUNT), "index must lie in"),
        (lambda: scenes.dataset("val"), "scenes has the splits train, test, got 'val'"),
        (lambda: data.load("scenes", size=8), "size must be at least 16 pixels"),
        (lambda: is_valid(jnp.ones((8, 8, 1))), r"shape \(height, width, 3\), got \(8, 8, 1\)"),
    ],
)
def test_wrong_arguments_say_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
