"""The architectures as generators: their spaces, classes, priors and first layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows.generators import GeneratorSpec
from latent_flows.generators.pretrained import (
    ARCHITECTURES,
    PRESETS,
    architecture,
    published,
    style_mixing,
)
from latent_flows.generators.style_layers import layer_numbers
from tests.generators.small_nets import (
    SMALL_BIGGAN,
    SMALL_PROGGAN,
    SMALL_SNGAN,
    SMALL_STYLEGAN2,
    filled,
)


def frozen(net, seed=0, variables=None, **spec):
    variables = filled(net) if variables is None else variables
    return published("net", net, variables, GeneratorSpec(**spec), seed)


def test_an_image_is_the_same_in_every_space_of_stylegan(key):
    z, *others = (frozen(SMALL_STYLEGAN2, space=space) for space in ("z", "w", "w+"))
    assert [one.latent_dim for one in (z, *others)] == [3, 3, 3 * SMALL_STYLEGAN2.style_count]
    assert [one.name for one in (z, *others)] == [f"net, {name} space" for name in ("Z", "W", "W+")]
    image = jax.jit(z.decode)(z.prior(key))
    assert image.shape == z.event_shape == (8, 8, 3)
    for one in others:
        np.testing.assert_allclose(jax.jit(one.decode)(one.prior(key)), image, rtol=1e-4)
    # The more is cut off, the nearer are images to that of the mean of W.
    mean = filled(SMALL_STYLEGAN2)["statistics"]["mean_w"]
    cut = frozen(SMALL_STYLEGAN2, space="w", truncation=1e-6)
    images = jax.jit(jax.vmap(cut.decode))(jnp.stack([mean, mean + 1]))
    np.testing.assert_allclose(images[0], images[1], rtol=1e-3, atol=1e-3)


def test_the_class_of_a_biggan_is_the_one_asked_for_or_drawn_by_the_seed():
    names = [frozen(SMALL_BIGGAN, seed).name for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]
    with pytest.raises(ValueError, match=r"generator.label must lie in \[0, 5\), got 5"):
        frozen(SMALL_BIGGAN, label=5)


@pytest.mark.slow
def test_images_of_a_biggan_are_of_its_class(key):
    variables = jax.jit(SMALL_BIGGAN.init)(jax.random.key(0), *SMALL_BIGGAN.example_inputs())
    one = frozen(SMALL_BIGGAN, variables=variables, label=3)
    z = one.prior(key)
    image = jax.jit(one.decode)(z)
    np.testing.assert_allclose(image, (SMALL_BIGGAN.apply(variables, z, 3) + 1) / 2, atol=1e-5)
    assert jnp.abs(image - frozen(SMALL_BIGGAN, variables=variables, label=2)(z)).max()


def test_settings_of_another_architecture_are_refused():
    with pytest.raises(ValueError, match=r"generator.space w is StyleGAN2's; net has z alone"):
        frozen(SMALL_SNGAN, space="w")
    with pytest.raises(
        ValueError, match=r"generator.label is for a BigGAN or StyleGAN2 of classes; net has no"
    ):
        frozen(SMALL_SNGAN, label=1)


# Styles of chosen layers


@pytest.mark.parametrize("space", ["z", pytest.param("w", marks=pytest.mark.slow), "w+"])
def test_a_latent_moves_the_chosen_layers_alone_and_the_others_keep_the_base(key, space):
    net, variables = SMALL_STYLEGAN2, filled(SMALL_STYLEGAN2)
    whole, part = frozen(net, space="w+"), frozen(net, space=space, layers="1-2", base=5)
    base = frozen(net, space="w").prior(jax.random.key(5))
    z = part.prior(key)
    assert part.latent_dim == z.size == {"z": 3, "w": 3, "w+": 6}[space]
    assert part.name == f"net, {space.upper()} space, layers 1-2"
    own = net.apply(variables, z, method=net.to_w) if space == "z" else z
    styles = jnp.tile(base, (net.style_count, 1)).at[1:3].set(own.reshape(-1, 3))

    @jax.jit
    def images(z, styles):
        return part.decode(z), whole.decode(styles.ravel())

    np.testing.assert_allclose(*images(z, styles), rtol=1e-4, atol=1e-5)


def test_layers_are_named_by_numbers_and_ranges():
    assert layer_numbers("3, 0-1,1", 4) == (0, 1, 3)
    for text, message in {
        "2-4": r"generator.layers 2-4 names layer 4, and there are 4: 0 to 3",
        "9999999": "names layer 9999999, and there are 4",
    }.items():
        with pytest.raises(ValueError, match=message):
            frozen(SMALL_STYLEGAN2, layers=text)
    for text in ("7-4", "-1", "a", "1;2", "1,,2", " ", "1.5", "1-", "99999999999"):
        with pytest.raises(ValueError, match=f"numbers and ranges from 0 .*, got {text}"):
            GeneratorSpec(layers=text)


def test_layers_of_a_generator_without_any_are_refused():
    with pytest.raises(ValueError, match=r"generator.layers 0-1 is StyleGAN2's; net has no layers"):
        frozen(SMALL_SNGAN, layers="0-1")
    with pytest.raises(ValueError, match=r"base is what the layers keep that generator.layers lea"):
        frozen(SMALL_STYLEGAN2, base=1)


def test_first_weights_of_some_layers_are_those_of_their_modulations():
    whole = frozen(SMALL_STYLEGAN2, space="w").first_layer
    parts = [frozen(SMALL_STYLEGAN2, space="w", layers=str(i)).first_layer for i in range(4)]
    # Convolution of 4 pixels; its colours and the way up; convolution of 8 pixels; its colours.
    assert [len(part) for part in parts] == [2, 2 + 2, 4, 4]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts), axis=0), np.sort(whole, axis=0))


@pytest.mark.parametrize(
    "net", [SMALL_SNGAN, pytest.param(SMALL_STYLEGAN2, marks=pytest.mark.slow)]
)
def test_features_that_are_computed_again_give_the_same_images(net):
    z = jnp.ones(3)
    kept, again = (frozen(net, recompute=on) for on in (False, True))
    push = lambda g: jax.jit(lambda z: jax.vjp(g, z))(z)[1](jnp.ones((8, 8, g(z).shape[2])))  # noqa: E731
    np.testing.assert_allclose(again(z), kept(z), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(push(again.decode)[0], push(kept.decode)[0], rtol=1e-4, atol=1e-4)
    assert "remat" in str(jax.make_jaxpr(again.decode)(z))
    assert "remat" not in str(jax.make_jaxpr(kept.decode)(z))


@pytest.mark.parametrize(
    ("net", "space", "rows", "seen"),
    [
        (SMALL_SNGAN, "z", 16 * 2, 3),
        (SMALL_PROGGAN, "z", 16 * 2, 5),
        # The first of four parts of the latent.
        (SMALL_BIGGAN, "z", 16 * 8, 2),
        # A modulation each: conv of 4 pixels, up and conv of 8, two to RGB.
        (SMALL_STYLEGAN2, "w", 2 + 2 + 4 + 2 + 4, 3),
    ],
)
def test_first_weights_have_a_column_for_each_latent_that_the_layers_see(net, space, rows, seen):
    weight = frozen(net, space=space).first_layer
    assert weight.shape == (rows, net.latent_dim)
    assert weight[:, :seen].all()
    assert not weight[:, seen:].any()


@pytest.mark.parametrize("space", ["z", "w+"])
def test_sefa_has_no_weights_to_go_by_behind_a_mapping_network_or_where_each_layer_has_its_own(
    space,
):
    assert frozen(SMALL_STYLEGAN2, space=space).first_layer is None


@pytest.mark.parametrize("module", ARCHITECTURES, ids=lambda module: module.__name__)
def test_an_architecture_has_all_that_the_commands_ask_of_it(module):
    net = next(iter(module.PRESETS.values()))
    assert architecture(net) is module
    assert module.PRESETS.items() <= PRESETS.items()
    assert net.latent_dim > 0
    assert net.resolution > 0
    assert module.key_names(net)
    assert callable(module.first_weights)


# Some layers of one latent, the others of another


@pytest.mark.parametrize(
    ("space", "layers", "own"),
    [("z", "1-2", ""), pytest.param("w", "0,3", "", marks=pytest.mark.slow), ("w+", "2", "1-2")],
)
def test_mixed_styles_are_of_the_second_latent_in_these_layers_and_of_the_first_elsewhere(
    key, space, layers, own
):
    net, variables = SMALL_STYLEGAN2, filled(SMALL_STYLEGAN2)
    spec = GeneratorSpec(space=space, layers=own, base=5 if own else 0, truncation=0.7)
    whole = published("net", net, variables, spec, 0)
    z0, z = (whole.prior(k) for k in jax.random.split(key))
    base = frozen(net, space="w").prior(jax.random.key(5))

    def styles(z):
        w = net.apply(variables, z, method=net.to_w) if space == "z" else z
        given = jnp.array(layer_numbers(own or "0-3", 4))
        return jnp.tile(base, (4, 1)).at[given].set(w.reshape(-1, 3))

    moved = jnp.array(layer_numbers(layers, 4))
    expected = styles(z0).at[moved].set(styles(z)[moved])
    mix = style_mixing(net, variables, spec, 0, layers)

    @jax.jit
    def images(z0, z, expected):
        wanted = net.apply(variables, expected, truncation=0.7, method=net.from_w)
        return mix(z0, z), (wanted + 1) / 2, mix(z, z), whole.decode(z)

    mixed, wanted, same, plain = images(z0, z, expected)
    np.testing.assert_allclose(mixed, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(same, plain, rtol=1e-4, atol=1e-5)
    assert jnp.abs(mixed - plain).max() > 1e-3


def test_layers_that_a_latent_does_not_reach_cannot_be_moved():
    net, variables = SMALL_STYLEGAN2, filled(SMALL_STYLEGAN2)
    for spec, layers, message in [
        (GeneratorSpec(), "3-4", r"--layers 3-4 names layer 4, and there are 4: 0 to 3"),
        (GeneratorSpec(), "a", r"--layers must be numbers and ranges from 0 .*, got a"),
        (GeneratorSpec(layers="0-1"), "1-2", r"--layers 1-2: the latent is given to layers 0-1 al"),
    ]:
        with pytest.raises(ValueError, match=message):
            style_mixing(net, variables, spec, 0, layers)
