"""What is measured on images, and which data are measured in ways of their own."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import data
from latent_flows.data import image_factors, sprites
from latent_flows.data.image_factors import ANY_IMAGE, ImageFactor, measure
from latent_flows.directions.transformations import ENTRIES, transformation

HEART = sprites.Factors(2, 0.8, 0.4, 0.5, 0.5)
MEASURED = [name for name, entry in ENTRIES.items() if entry.factor is not None]


def picture(coloured):
    """A sprite a little darker than white, in one colour or in three of them."""
    image = 0.6 * sprites.render(HEART)
    return image * jnp.array([1.0, 0.8, 0.9]) if coloured else image


@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.parametrize("dataset", ["sprites", "digits", None])
def test_a_transformation_by_t_raises_its_factor_by_t(name, dataset):
    entry = ENTRIES[name]
    (factor,) = data.measures(dataset).best([entry.factor])
    image = picture(entry.coloured)
    # Light that exceeds white is lost.
    t = 0.5 * entry.reach if name in ("brightness", "saturation") else -0.6 * entry.reach
    moved, _ = transformation(name)(image, t)
    assert float(factor.measure(moved) - factor.measure(image)) == pytest.approx(t, abs=0.01)


@pytest.mark.parametrize("name", MEASURED)
def test_a_transformation_moves_the_barycentre_along_its_own_axis_alone(name):
    entry = ENTRIES[name]
    image = picture(entry.coloured)
    moved, _ = transformation(name)(image, 0.6 * entry.reach)
    for factor in (image_factors.X, image_factors.Y):
        if factor != entry.factor:
            assert float(factor.measure(moved)) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("name", ["translate_x", "translate_y"])
def test_what_moves_an_image_by_whole_pixels_changes_neither_light_nor_size(name):
    image = picture(False)
    moved, _ = transformation(name)(image, 8 / 64)
    for factor in (image_factors.LIGHT, image_factors.SIZE, image_factors.CONTRAST):
        change = factor.measure(moved) - factor.measure(image)
        assert float(change) == pytest.approx(0, abs=1e-4)


def test_sprites_are_measured_by_their_area_and_other_images_by_their_radius():
    image = sprites.render(HEART)
    sizes = {
        name: float(measure(data.measures(name).best([image_factors.SIZE]), image)[0])
        for name in ("sprites", "digits")
    }
    area = sprites.AREAS[2] * 0.8**2
    assert sizes["sprites"] == pytest.approx(np.log2(np.sqrt(area)), abs=0.01)
    assert sizes["digits"] == pytest.approx(np.log2(image_factors.radius(image)), abs=1e-6)


def test_sprites_carry_their_own_measures():
    found = data.measures("sprites")
    image = sprites.render(HEART)
    seen = dict(zip(found.factor_names, found.measure(image).tolist(), strict=True))
    assert seen == {
        name: pytest.approx(float(getattr(sprites.moments(image), name)))
        for name in ("x", "y", "size", "elongation")
    }
    assert bool(found.is_valid(image))
    assert not bool(found.is_valid(1 - image))
    assert found.true_factors == sprites.Factors._fields
    assert found.bounded


@pytest.mark.parametrize("name", ["digits", "mnist:3.0.1", "surface", None])
def test_other_data_are_measured_as_any_image(name):
    assert data.measures(name) is ANY_IMAGE
    assert not bool(ANY_IMAGE.is_valid(jnp.full((2, 2, 1), jnp.nan)))


def test_an_image_factor_of_ones_own_is_measured_like_the_others():
    tilt = ImageFactor("tilt", "", lambda image: image[0].mean() - image[-1].mean())
    image = jnp.zeros((4, 4, 1)).at[0].set(1.0)
    np.testing.assert_allclose(measure([image_factors.X, tilt], image), [0.5, 1.0])


def test_sharp_edges_are_sharper_than_blurred_ones_whatever_their_length():
    # Edges that lie equally between pixels: the first where one ends.
    scales = (np.array([4, 8]) / 64 / sprites.SQUARE).tolist()
    small, large = (sprites.render(sprites.Factors(0, scale, 0.0, 0.5, 0.5)) for scale in scales)
    sharp = image_factors.sharpness
    assert sharp(large) == pytest.approx(float(sharp(small)), rel=0.1)
    resized = partial(jax.image.resize, method="linear")
    blurred = resized(resized(large, (16, 16, 1)), large.shape)
    assert sharp(blurred) < 0.6 * sharp(large)


def test_of_no_factors_there_are_no_numbers():
    assert measure((), jnp.ones(3)).shape == (0,)
    assert image_factors.unwrapped((), jnp.zeros((2, 0)), jnp.zeros((2, 0))).shape == (2, 0)
