"""Names of the numbers of a sample: where they come from, and where they are drawn."""

import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import data, plots
from latent_flows.data import array_file
from latent_flows.generators import GeneratorSpec, freeze, load_generator

GENES = tuple(f"gene {i}" for i in range(40))


def test_a_generator_has_a_name_for_each_number_or_none():
    found = freeze(lambda z: jnp.tile(z, 20), 2, output_names=GENES)
    assert found.output_names == GENES
    assert freeze(lambda z: z, 2).output_names == ()
    with pytest.raises(ValueError, match=r"shape \(2,\), and there are 40 output_names: give one"):
        freeze(lambda z: z, 2, output_names=GENES)


def test_a_function_of_ones_own_brings_them_as_an_attribute(tmp_path):
    text = "import jax.numpy as jnp\ndef f(z):\n    return jnp.tile(z, 2)\n"
    (tmp_path / "own.py").write_text(f"{text}f.output_names = list('abcd')\n")
    found = load_generator(GeneratorSpec(f"{tmp_path / 'own.py'}:f", latent_dim=2))
    assert found.output_names == ("a", "b", "c", "d")


def test_the_data_of_a_generator_bring_them(tmp_path):
    file = tmp_path / "cells.npz"
    np.savez(file, x=np.random.default_rng(0).normal(size=(30, 4)), output_names=list("abcd"))
    assert data.load(str(file)).image_shape == (4,)
    (tmp_path / "own.py").write_text(
        "import jax.numpy as jnp\ndef f(z):\n    return jnp.tile(z, 2)\n"
    )
    spec = GeneratorSpec(f"{tmp_path / 'own.py'}:f", latent_dim=2, data=str(file))
    assert load_generator(spec).output_names == ("a", "b", "c", "d")
    assert array_file.output_names(tmp_path / "gone.npz") == ()


@pytest.mark.parametrize("names", [list("abc"), [1, 2, 3, 4], [["a"], ["b"], ["c"], ["d"]]])
def test_names_that_do_not_fit_the_data_are_refused(tmp_path, names):
    file = tmp_path / "cells.npz"
    np.savez(file, x=np.random.default_rng(0).normal(size=(30, 4)), output_names=names)
    with pytest.raises(ValueError, match="expected a text for each number of a vector"):
        data.load(str(file))


def ticks(samples, names):
    figure = plots.vector_traversals(
        samples, places=range(samples.shape[1]), row_labels=["a"], names=names
    )
    axes = figure.axes[0]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    return dict(zip(axes.get_xticks().tolist(), labels, strict=True)), axes.get_xlabel()


def test_a_few_numbers_are_all_named_on_the_axis():
    named, label = ticks(np.random.default_rng(0).normal(size=(1, 3, 4)), list("abcd"))
    assert named == {0: "a", 1: "b", 2: "c", 3: "d"}
    assert label == ""


def test_of_many_those_are_named_that_change_most():
    samples = np.zeros((1, 3, 40))
    samples[0, :, 7], samples[0, :, 30] = [0, 1, 2], [0, 0, -5]
    named, label = ticks(samples, GENES)
    assert named == {7: "gene 7", 30: "gene 30"}  # the others stand still
    assert "change most" in label
    with pytest.raises(ValueError, match="names"):
        ticks(samples, GENES[:3])
