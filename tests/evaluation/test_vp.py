"""Variation predictability of image changes whose predictability is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows.evaluation import vp, vp_score

# One set of sizes, so that the tests share compiled programs.
QUICK = {"steps": 60, "width": 8, "train_fraction": 0.3}


def brightened_side(key, pairs, shape=(8, 8, 1)):
    """Random images of which traversal k brightens the top, the left or all."""
    before = jax.random.uniform(key, (pairs, *shape))
    labels = jnp.arange(pairs) % 3
    masks = jnp.stack(
        [
            jnp.zeros(shape).at[: shape[0] // 2].set(1),
            jnp.zeros(shape).at[:, : shape[1] // 2].set(1),
            jnp.ones(shape),
        ]
    )
    return before, before + 0.2 * masks[labels], labels


@pytest.mark.parametrize("shape", [pytest.param((64, 64, 3), marks=pytest.mark.slow), (7, 9, 2)])
def test_distinct_changes_are_predicted(shape):
    images = brightened_side(jax.random.key(1), 300, shape)
    score = vp_score(jax.random.key(0), *images, **QUICK)
    assert score.accuracy > 0.95
    assert score.train_accuracy > 0.95


@pytest.mark.slow
def test_labels_that_say_nothing_are_memorised_but_not_predicted():
    before, after, _ = brightened_side(jax.random.key(1), 1000)
    labels = jax.random.randint(jax.random.key(2), (1000,), 0, 2)
    for end in (after, before):  # flows that do something, and flows that do nothing
        score = vp_score(jax.random.key(0), before, end, labels)
        assert score.train_accuracy > 0.95
        # Four standard deviations of 900 fair coins.
        assert abs(score.accuracy - 0.5) < 4 * 0.5 / 900**0.5


@pytest.mark.slow
def test_range_of_pixel_values_is_of_no_account():
    before, after, labels = brightened_side(jax.random.key(1), 300)
    key = jax.random.key(0)
    score = vp_score(key, before, after, labels, learning_rate=2e-4, **QUICK)
    assert 0.4 < score.accuracy < 0.99  # neither chance nor perfect, so that a change would show
    # A power of two, so that floating-point rounding scales as well.
    scaled = vp_score(key, 4 * before, 4 * after, labels, learning_rate=2e-4, **QUICK)
    assert score == scaled


@pytest.mark.slow
def test_result_is_a_function_of_the_key_under_jit_and_vmap():
    before, after, labels = brightened_side(jax.random.key(1), 300)

    def accuracy(key):
        return vp_score(key, before, after, labels, learning_rate=2e-4, **QUICK).accuracy

    keys = jax.random.split(jax.random.key(0), 4)
    together = jax.jit(jax.vmap(accuracy))(keys)
    apart = jnp.stack([accuracy(key) for key in keys])
    # Sums in another order may tip a few undecided pairs of the 210.
    np.testing.assert_allclose(together, apart, atol=0.02)
    assert accuracy(keys[0]) == apart[0]
    assert len(set(together.tolist())) > 1  # seeds differ


def test_other_data_of_the_same_shape_reuse_the_compiled_program(monkeypatch):
    traces = []
    inputs = vp._inputs
    monkeypatch.setattr(vp, "_inputs", lambda *images: traces.append(1) or inputs(*images))
    for seed in range(3):
        data = brightened_side(jax.random.key(seed), 90)
        jax.vmap(lambda key, data=data: vp_score(key, *data, steps=3, train_fraction=0.5))(
            jax.random.split(jax.random.key(seed), 2)
        )
    assert len(traces) == 1


@pytest.mark.slow
def test_double_precision_images_are_scored():
    with jax.enable_x64(True):
        before, after, labels = brightened_side(jax.random.key(1), 300)
        assert before.dtype == jnp.float64
        score = vp_score(jax.random.key(0), before, after, labels, **QUICK)
        assert score.accuracy > 0.95


def test_wrong_inputs_are_refused():
    key = jax.random.key(0)
    before, after, labels = brightened_side(key, 30)
    with pytest.raises(ValueError, match="is 2 to learn from; need at least one for each of 3"):
        vp_score(key, before, after, labels, train_fraction=0.05)
    with pytest.raises(ValueError, match="train_fraction must be between 0 and 1, got 1"):
        vp_score(key, before, after, labels, train_fraction=1.0)
    with pytest.raises(ValueError, match=r"\(30, 8, 8, 1\) and \(29, 8, 8, 1\)"):
        vp_score(key, before, after[:-1], labels)
    with pytest.raises(ValueError, match=r"labels must be 30 integers.* shape \(29,\)"):
        vp_score(key, before, after, labels[:-1])
    with pytest.raises(ValueError, match=r"labels must be 30 integers.* float32"):
        vp_score(key, before, after, labels.astype(jnp.float32))
    with pytest.raises(ValueError, match="floating-point images, got int32"):
        vp_score(key, labels[:, None, None, None], labels[:, None, None, None], labels)
    with pytest.raises(ValueError, match="labels must be 0 to 1, got 0 to 2"):
        vp_score(key, before, after, labels, classes=2)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        vp_score(key, before, after, labels, steps=0)
    with pytest.raises(ValueError, match="give classes="):
        jax.jit(vp_score)(key, before, after, labels)


@pytest.mark.parametrize(
    "shape", [*(pytest.param(s, marks=pytest.mark.slow) for s in ((6,), ())), (3, 2)], ids=str
)
def test_traversals_of_vectors_are_told_apart_whatever_their_unit(shape):
    key = jax.random.key(0)
    labels = jnp.arange(200) % 2
    before = 1000 * jax.random.normal(key, (200, *shape))
    step = jnp.where(labels == 0, 500.0, -500.0).reshape(-1, *(1 for _ in shape))
    score = vp_score(key, before, before + step, labels, steps=40, train_fraction=0.5)
    assert score.accuracy > 0.95
    still = vp_score(key, before, before, labels, steps=40, train_fraction=0.5)
    assert 0.3 < still.accuracy < 0.7
