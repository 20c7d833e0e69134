import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import directions
from latent_flows.data import load
from latent_flows.data.image_factors import HUE, LIGHT, unwrapped
from latent_flows.data.sequences import known_factors
from latent_flows.directions import transformations
from latent_flows.directions.transformations import TRANSFORMATIONS
from tests.rest_slow import rest_slow


def jitted(name):
    return jax.jit(directions.transformation(name))


def smooth(size=24, channels=1, dtype=jnp.float32):
    """Bumps well inside the frame, so that little is lost by interpolating them."""
    y, x = jnp.meshgrid(jnp.arange(size, dtype=dtype), jnp.arange(size, dtype=dtype), indexing="ij")

    def bump(row, column):
        return jnp.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * 2.5**2))

    image = 0.7 * bump(0.4 * size, 0.45 * size) + 0.3 * bump(0.6 * size, 0.65 * size)
    return jnp.stack([image * (1 - 0.2 * c) for c in range(channels)], -1)


def noise(key, shape=(7, 8, 3), dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype)


@pytest.mark.parametrize("name", sorted(TRANSFORMATIONS))
def test_zero_is_exactly_the_identity_everywhere(name, key, dtype):
    image = noise(key, dtype=dtype)
    result, mask = jax.jit(directions.transformation(name))(image, 0.0)
    assert result.dtype == image.dtype
    assert (result == image).all()
    assert mask.shape == image.shape[:2]
    assert (mask == 1).all()


@pytest.mark.parametrize(
    ("name", "axis", "pixels"),
    [("translate_x", 1, -3), ("translate_x", 1, 2), ("translate_y", 0, 2)],
)
def test_whole_pixels_are_a_roll_inside_the_mask(name, axis, pixels, key):
    image = noise(key, (8, 10, 3))
    result, mask = jitted(name)(image, pixels / image.shape[axis])
    expected = jnp.roll(image, pixels, axis)
    np.testing.assert_allclose(result[mask == 1], expected[mask == 1], atol=1e-5)
    assert mask.sum() == mask.size * (1 - abs(pixels) / image.shape[axis])
    kept = jnp.roll(jnp.ones(image.shape[axis]), pixels).at[:pixels].set(0)
    kept = kept if pixels > 0 else jnp.ones(image.shape[axis]).at[pixels:].set(0)
    assert (mask.mean(1 - axis) == kept).all()


def test_sub_pixel_translation_of_a_ramp_is_exact(x64):
    ramp = jnp.broadcast_to(jnp.arange(10.0)[None, :, None], (4, 10, 1))
    result, mask = jitted("translate_x")(ramp, 0.137)
    np.testing.assert_allclose(result[mask == 1], (ramp - 1.37)[mask == 1], atol=1e-12)
    assert mask[0].tolist() == [0, 0] + 8 * [1]


def test_the_derivative_of_a_translation_is_the_slope_of_the_image(x64):
    ramp = jnp.broadcast_to(0.05 * jnp.arange(10.0)[None, :, None], (4, 10, 1))
    slope = jax.jit(jax.jacfwd(lambda t: directions.translate_x(ramp, t)[0]))(0.03)
    np.testing.assert_allclose(slope[:, 1:-1], -0.05 * 10, atol=1e-9)


@pytest.mark.parametrize(("name", "t"), [("translate_x", 0.13), ("zoom", 0.3), ("rotate", 0.4)])
def test_there_and_back_is_the_identity_where_known(name, t):
    apply = jitted(name)
    image = smooth()
    there, known = apply(image, t)
    back, known_again = apply(there, -t)
    inside = apply(known[..., None], -t)[0][..., 0] * known_again > 0.999
    assert inside.mean() > 0.3
    np.testing.assert_allclose(back[inside], image[inside], atol=0.05)


def test_a_quarter_turn_is_rot90(key):
    image = noise(key, (9, 9, 3))
    result, mask = directions.rotate(image, jnp.pi / 2)
    np.testing.assert_allclose(result, jnp.rot90(image), atol=1e-4)
    assert (mask == 1).all()


def test_zoom_scales_areas_by_its_factor_squared():
    image = smooth(32)
    for t in (-0.5, 0.4):
        result, _ = jitted("zoom")(image, t)
        np.testing.assert_allclose(result.sum() / image.sum(), 4**t, rtol=0.02)


def test_zooming_out_leaves_the_border_unknown():
    _, mask = directions.zoom(jnp.ones((16, 16, 1)), -1.0)
    assert mask.sum() == 8 * 8


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_doublings_add_up(name, key):
    image = 0.4 + 0.1 * noise(key)
    apply = directions.transformation(name)
    once, _ = apply(image, 0.7)
    twice, _ = apply(apply(image, 0.3)[0], 0.4)
    np.testing.assert_allclose(once, twice, atol=1e-5)
    assert not jnp.allclose(once, image, atol=1e-3)


def test_hue_turns_red_green_blue_and_comes_round(key):
    image = 0.3 + 0.4 * noise(key)
    np.testing.assert_allclose(directions.hue(image, 1.0)[0], image, atol=1e-5)
    np.testing.assert_allclose(directions.hue(image, 1 / 3)[0], jnp.roll(image, 1, -1), atol=1e-5)
    np.testing.assert_allclose(directions.hue(image, 0.2)[0].mean(-1), image.mean(-1), atol=1e-2)


@pytest.mark.parametrize("name", ["brightness", "contrast", "hue", "saturation"])
def test_colours_stay_between_black_and_white(name, key):
    result, mask = directions.transformation(name)(noise(key), 0.45)
    assert result.min() >= 0
    assert result.max() <= 1
    assert (mask == 1).all()


@pytest.mark.parametrize("name", rest_slow(sorted(TRANSFORMATIONS), every=3))
def test_vmap_over_images_and_amounts_is_a_loop_and_derivatives_are_finite(name, key):
    apply = directions.transformation(name)
    images, ts = noise(key, (3, 6, 6, 3)), jnp.array([-0.2, 0.0, 0.3])
    together = jax.jit(jax.vmap(apply))(images, ts)
    one = jitted(name)
    for i in range(3):
        np.testing.assert_allclose(together[0][i], one(images[i], ts[i])[0], atol=1e-6)
    slope = jax.jit(jax.vmap(jax.jacfwd(lambda t: apply(images[0], t)[0])))(ts)
    assert jnp.isfinite(slope).all()
    assert (abs(slope).max((1, 2, 3)) > 0).all()


def test_bad_input_is_named():
    grey = jnp.ones((4, 4, 1))
    with pytest.raises(ValueError, match=r"hue needs 3 channels \(colour\), got 1"):
        directions.hue(grey, 0.1)
    with pytest.raises(ValueError, match="saturation needs 3 channels"):
        directions.saturation(grey, 0.1)
    with pytest.raises(ValueError, match=r"zoom expected one image .* got shape \(2, 4, 4, 1\)"):
        directions.zoom(jnp.ones((2, 4, 4, 1)), 0.1)
    with pytest.raises(ValueError, match="dtype int32"):
        directions.rotate(jnp.ones((4, 4, 1), jnp.int32), 0.1)
    with pytest.raises(ValueError, match="one number t"):
        directions.translate_x(grey, jnp.ones(2))
    with pytest.raises(ValueError, match=r"unknown transformation 'rotat' .*'rotate'"):
        directions.transformation("rotat")


@pytest.mark.parametrize("name", ["brightness", "contrast"])
def test_light_leaves_alpha_alone_and_alpha_leaves_light_alone(name):
    colours, alpha = smooth(8, 3), jnp.linspace(0, 1, 64).reshape(8, 8, 1)
    change = directions.transformation(name)
    for t in (-1.0, 0.0, 0.7):
        changed, mask = change(jnp.concatenate([colours, alpha], -1), t)
        np.testing.assert_array_equal(changed[..., 3:], alpha)
        np.testing.assert_array_equal(changed[..., :3], change(colours, t)[0])
        assert mask.shape == (8, 8)


@pytest.mark.parametrize("name", ["translate_x", "translate_y", "zoom", "rotate"])
def test_alpha_moves_with_the_image(name):
    colours = smooth(8, 4)
    moved, _ = directions.transformation(name)(colours, 0.2)
    np.testing.assert_array_equal(
        moved[..., 3:], directions.transformation(name)(colours[..., 3:], 0.2)[0]
    )


@pytest.mark.parametrize(
    "sides",
    rest_slow([(33, 17), (28, 32), (32, 28), (64, 36)], every=4),
    ids=str,
)
@pytest.mark.parametrize("name", sorted(TRANSFORMATIONS))
def test_images_of_any_sides_are_transformed_about_their_middle(name, sides):
    # An image that is its own mirror image along both sides, and stays one turned by pi.
    y, x = (jnp.abs(jnp.linspace(-1, 1, side)) for side in sides)
    image = jnp.stack([1 - (y[:, None] * x[None]) * (0.5 + 0.1 * c) for c in range(3)], -1)
    transform = jax.jit(directions.transformation(name))
    for t in (0.0, jnp.pi if name == "rotate" else 0.1):
        changed, mask = transform(image, t)
        assert changed.shape == image.shape
        assert mask.shape == image.shape[:2]
        if t == 0 or name == "rotate":
            np.testing.assert_allclose(changed, image, atol=1e-3)


@pytest.mark.parametrize("t", [-0.2, 0.1, 0.3])
def test_the_hue_is_raised_across_the_end_of_the_circle(t):
    image = jnp.full((2, 2, 3), 0.5).at[..., 0].add(0.2).at[..., 2].add(0.05)
    before = HUE.measure(image)
    after = HUE.measure(transformations.hue(image, t)[0])
    change = unwrapped((HUE,), before[None], after[None])[0] - before
    np.testing.assert_allclose(change, t, atol=1e-6)


def test_a_transformation_is_known_by_its_name_as_soon_as_it_is_registered(monkeypatch):
    for registry in ("_entries", "_apply"):
        known = getattr(transformations, registry)
        for name in ["darken"]:
            monkeypatch.setitem(known, name, None)  # taken out again in the end
            del known[name]

    @transformations.registered(reach=0.3, factor=LIGHT)
    def darken(image, t):
        return image * jnp.exp2(-t), jnp.ones(image.shape[:2])

    assert directions.transformation("darken") is darken
    assert TRANSFORMATIONS["darken"] is darken
    assert transformations.ENTRIES["darken"] == (darken, 0.3, 0.3, LIGHT, False)
    assert "darken" in known_factors(load("digits"))
    with pytest.raises(ValueError, match="there is a transformation 'darken' already"):
        transformations.registered(reach=1.0)(darken)
    other = LIGHT._replace(measure=jnp.mean)
    with pytest.raises(ValueError, match="the factor 'light' is measured in another way already"):
        transformations.registered(reach=1.0, factor=other)(lambda image, t: (image, t))


@pytest.mark.parametrize("reach", [0.0, -1.0, float("nan")])
def test_a_reach_is_positive(reach):
    with pytest.raises(ValueError, match="must be positive"):
        transformations.registered(reach=reach)


def test_one_of_a_users_own_is_found_in_its_file_with_what_it_is_registered_with(
    tmp_path, monkeypatch
):
    for name, read in (("_entries", "ENTRIES"), ("_apply", "TRANSFORMATIONS")):
        kept = dict(getattr(transformations, name))
        monkeypatch.setattr(transformations, name, kept)
        monkeypatch.setattr(transformations, read, kept)
    file = tmp_path / "mine.py"
    file.write_text(
        "import jax.numpy as jnp\n"
        "from latent_flows.directions import registered\n"
        "from latent_flows.data import ImageFactor\n"
        "def plain(x, t):\n"
        "    return x + t, jnp.ones_like(x)\n"
        "@registered(reach=0.5, factor=ImageFactor('level', 'units', jnp.mean))\n"
        "def raised(x, t):\n"
        "    return plain(x, t)\n"
    )
    plain, raised = (transformations.entry(f"{file}:{name}") for name in ("plain", "raised"))
    assert (plain.reach, plain.factor) == (1.0, None)
    assert (raised.reach, raised.factor.name) == (0.5, "level")
    moved, mask = directions.transformation(f"{file}:plain")(jnp.zeros(3), 2.0)
    np.testing.assert_array_equal(moved, [2.0, 2.0, 2.0])
    np.testing.assert_array_equal(mask, 1.0)


def test_a_file_without_the_transformation_names_the_nearest(tmp_path):
    (tmp_path / "mine.py").write_text("def louder(x, t):\n    return x, 1\n")
    with pytest.raises(ValueError, match="has no 'lauder'; did you mean 'louder'"):
        directions.transformation(f"{tmp_path}/mine.py:lauder")


@pytest.mark.parametrize(
    ("mask", "sample", "expected"),
    [
        ((), (7,), (1,)),
        ((7,), (7,), (7,)),
        ((4, 6), (4, 6, 3), (4, 6, 1)),
        ((6, 3), (4, 6, 3), (1, 6, 3)),
        ((4, 6, 1), (4, 6, 3), (4, 6, 1)),
        ((3, 3), (3, 3, 3), (3, 3, 1)),  # of pixels, where both could be meant
        ((5,), (5, 2), (5, 1)),
        ((2,), (5, 2), (1, 2)),
    ],
)
def test_a_mask_is_of_the_first_axes_or_broadcasts(mask, sample, expected):
    found = transformations.spread(np.ones(mask), np.ones(sample))
    assert found.shape == expected


@pytest.mark.parametrize("mask", [(6,), (7, 1), (2, 7), (0,)])
def test_a_mask_that_does_not_fit_is_named(mask):
    with pytest.raises(ValueError, match=r"mask must have shape \(7,\), got "):
        transformations.spread(np.ones(mask), np.ones(7))


def test_masks_of_several_shapes_are_chosen_from_in_one_program():
    ways = [
        directions.brightness,
        lambda x, t: (x + t, 1),
        lambda x, t: (jnp.float32(1) * x - t, jnp.ones_like(x, dtype=bool).at[..., 1:].set(False)),
    ]
    x = jnp.full((4, 5, 2), 0.25)
    like = transformations.alike(ways, x)
    chosen = jax.jit(lambda k: jax.lax.switch(k, like, x, jnp.array(1.0)))
    for k, level in enumerate((0.5, 1.25, -0.75)):
        after, mask = chosen(k)
        np.testing.assert_allclose(after, level)
        assert (after.dtype, mask.dtype, mask.shape) == (x.dtype, x.dtype, x.shape)
    assert chosen(2)[1][..., 0].all()
    assert not chosen(2)[1][..., 1].any()
    # Of one kind masks are left as they are, which losses of one's own may count on.
    assert transformations.alike(ways[:1], x)[0](x, jnp.array(1.0))[1].shape == (4, 5)


def test_a_file_that_was_changed_registers_its_functions_anew(tmp_path, monkeypatch):
    for name, read in (("_entries", "ENTRIES"), ("_apply", "TRANSFORMATIONS")):
        kept = dict(getattr(transformations, name))
        monkeypatch.setattr(transformations, name, kept)
        monkeypatch.setattr(transformations, read, kept)
    file = tmp_path / "mine.py"
    text = (
        "from latent_flows.data import ImageFactor\n"
        "from latent_flows.directions import registered\n"
        "level = ImageFactor('level', 'units', lambda x: x.mean())\n"
        "@registered(reach=0.5, factor=level)\n"
        "def raised(x, t):\n    return x + t, 1.0\n"
        "@registered(reach=0.5, factor=level)\n"
        "def lowered(x, t):\n    return x - t, 1.0\n"
    )
    file.write_text(text)
    assert transformations.entry(f"{file}:raised").reach == 0.5
    file.write_text(text.replace("0.5", "0.25") + "\n")
    os.utime(file, ns=(1, 1))
    assert transformations.entry(f"{file}:lowered").reach == 0.25
    assert transformations.entry(f"{file}:raised").reach == 0.25
    # In one file two of a name are two, and so are two measures of one factor.
    file.write_text(text.replace("lowered", "raised"))
    os.utime(file, ns=(2, 2))
    with pytest.raises(ValueError, match="there is a transformation 'raised' already"):
        transformations.entry(f"{file}:raised")
