import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import evaluation
from latent_flows.evaluation import reach, sequence_control

control_score = jax.jit(evaluation.control_score, static_argnames="up_to_constant")
ASKED = jnp.linspace(-1.0, 1.0, 5)


def test_perfect_control_has_no_spread_no_bias_and_no_leakage(dtype):
    asked = ASKED.astype(dtype)
    measured = jnp.broadcast_to(asked, (8, 5))
    others = jnp.broadcast_to(jnp.linspace(0, 1, 8, dtype=dtype)[:, None, None], (8, 5, 2))
    score = control_score(asked, measured, others)
    np.testing.assert_allclose(score.r2, 1, atol=1e-6)
    np.testing.assert_allclose(score.correlation, 1, atol=1e-6)
    for part in (score.spread, score.bias, score.leakage, score.leakage_span):
        np.testing.assert_allclose(part, 0, atol=1e-6)
    np.testing.assert_allclose(score.range, [-1, 1])
    assert score.valid == 1


def test_a_factor_that_does_not_listen_scores_nothing(key):
    measured = 0.3 * jax.random.normal(key, (4000, 5))
    score = control_score(ASKED, measured)
    assert abs(score.correlation) < 0.05
    # The error is that of the values asked for, plus the noise.
    np.testing.assert_allclose(score.r2, 1 - (0.5 + 0.09) / 0.09, rtol=0.05)
    np.testing.assert_allclose(score.spread, 0.3, rtol=0.05)


def test_noise_lowers_the_score_by_its_share_of_the_variance(key):
    measured = ASKED + 0.2 * jax.random.normal(key, (4000, 5))
    score = control_score(ASKED, measured)
    np.testing.assert_allclose(score.r2, 1 - 0.04 / 0.54, atol=0.005)
    np.testing.assert_allclose(score.correlation**2, score.r2, atol=0.005)


def test_a_wrong_slope_is_seen_by_the_score_and_not_by_the_correlation():
    score = control_score(ASKED, jnp.broadcast_to(2 * ASKED, (3, 5)))
    np.testing.assert_allclose(score.correlation, 1, atol=1e-5)
    np.testing.assert_allclose(score.r2, 0.75, atol=1e-5)
    np.testing.assert_allclose(score.bias, ASKED, atol=1e-5)
    np.testing.assert_allclose(score.range, [-2, 2])


def test_a_constant_is_free_only_where_said():
    measured = jnp.broadcast_to(ASKED + 0.5, (3, 5))
    np.testing.assert_allclose(control_score(ASKED, measured).r2, 1, atol=1e-5)
    strict = control_score(ASKED, measured, up_to_constant=False)
    np.testing.assert_allclose(strict.bias, 0.5, rtol=1e-5)
    np.testing.assert_allclose(strict.r2, 1 - 0.25 / 0.5, rtol=1e-5)


def test_leakage_is_a_share_of_the_range():
    others = jnp.broadcast_to(jnp.stack([ASKED, 0 * ASKED], -1), (3, 5, 2)) + 7.0
    score = control_score(ASKED, jnp.broadcast_to(ASKED, (3, 5)), others, jnp.array([4.0, 1.0]))
    np.testing.assert_allclose(score.leakage_span, [0.5, 0.0], atol=1e-5)
    np.testing.assert_allclose(score.leakage, [np.sqrt(0.5) / 4, 0.0], atol=1e-5)


def test_what_cannot_be_measured_does_not_count():
    measured = jnp.broadcast_to(ASKED, (4, 5)).at[0].set(99.0).at[1, 2].set(jnp.nan)
    others = jnp.broadcast_to(ASKED[:, None], (4, 5, 1)).at[0].set(-99.0)
    valid = jnp.ones((4, 5), bool).at[0].set(False)
    score = control_score(ASKED, measured, others, jnp.ones(1), valid=valid)
    np.testing.assert_allclose(score.r2, 1, atol=1e-5)
    np.testing.assert_allclose(score.spread, 0, atol=1e-5)
    np.testing.assert_allclose(score.leakage_span, 2, atol=1e-5)
    np.testing.assert_allclose(score.valid, 14 / 20)


def test_bad_input_is_named():
    measured = jnp.ones((3, 5))
    with pytest.raises(ValueError, match=r"values asked for \[a\]"):
        control_score(ASKED, measured[:, 1:])
    with pytest.raises(ValueError, match=r"others must have shape \[3, 5, k\]"):
        control_score(ASKED, measured, measured)
    with pytest.raises(ValueError, match="ranges must have shape"):
        control_score(ASKED, measured, measured[..., None], jnp.ones(2))
    with pytest.raises(ValueError, match="valid must have shape"):
        control_score(ASKED, measured, valid=jnp.ones(3))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ([0.0, 0.0, 0.0, 0.0, 0.0], 2.0),  # never too large
        ([0.3, 0.1, 0.0, 0.1, 0.2], 1.5),  # the worse side counts
        ([0.0, 0.4, 0.0, 0.0, 0.0], 0.5),  # what lies beyond is of no account
        ([np.nan, 0.1, 0.0, 0.0, np.nan], 1.0),  # what nobody could measure is not reached
        ([0.0, 0.0, 0.9, 0.0, 0.0], 0.0),
    ],
)
def test_the_reach_ends_where_the_error_first_gets_too_large(error, expected):
    amounts = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    assert reach(amounts, np.array(error), 0.2) == pytest.approx(expected)


def test_every_amount_has_an_error():
    with pytest.raises(ValueError, match=r"an error each, got shapes \(2,\) and \(3,\)"):
        reach(np.zeros(2), np.zeros(3), 0.1)


def test_what_follows_a_sequence_has_every_score_it_can():
    asked = np.linspace(0, 0.4, 9)[None] * np.array([[1.0], [-1.0]])
    leak = np.stack([asked, 0.2 * asked, 0 * asked, -0.5 * asked], axis=-1)
    found = sequence_control(asked, leak, np.ones_like(asked, bool), 0, 4)
    assert found["r2"] == 1
    assert found["error"] == found["far_error"] == 0
    assert found["leakage"] == pytest.approx(0.5)
    half = sequence_control(asked, leak / 2, np.ones_like(asked, bool), 0, 4)
    assert half["far_error"] == pytest.approx(0.2)
    assert half["r2"] == pytest.approx(0.75)
    alone = sequence_control(asked, leak[..., :1], np.ones_like(asked, bool), 0, 4)
    assert alone == {name: value for name, value in found.items() if name != "leakage"}
