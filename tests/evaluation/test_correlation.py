"""Correlations of attributes with time, beside SciPy's and where they are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from latent_flows.evaluation import correlation

TS = jnp.array([0.0, 1.0, 2.0, 4.0, 5.0, 7.0])


@pytest.mark.parametrize(("method", "scipy"), [("pearson", pearsonr), ("spearman", spearmanr)])
def test_it_agrees_with_scipy_also_where_some_times_do_not_count(key, method, scipy):
    values = jax.random.normal(key, (2, 3, 6, 2)).round(1)  # rounded: ties
    valid = jnp.ones((2, 3, 6), bool).at[1, 2, 3].set(False)
    found = jax.jit(lambda v: correlation(TS, v, method=method, valid=valid))(values)
    each = np.zeros((2, 3, 2))
    for k, n, f in np.ndindex(2, 3, 2):
        kept = np.asarray(valid[k, n])
        each[k, n, f] = scipy(TS[kept], values[k, n, kept, f]).statistic
    np.testing.assert_allclose(found.signed, each.mean(1), atol=1e-5)
    np.testing.assert_allclose(found.absolute, np.abs(each).mean(1), atol=1e-5)
    assert found.counted.tolist() == [1, 1]


def test_lines_have_correlation_1_and_monotone_curves_rank_correlation_1():
    paths = jnp.stack([3 - 2e-4 * TS, jnp.exp(TS)], -1)[None, None]
    linear, ranks = (correlation(TS, paths, method=m) for m in ("pearson", "spearman"))
    np.testing.assert_allclose(linear.signed[0, 0], -1, atol=1e-3)
    assert 0.7 < linear.signed[0, 1] < 0.9
    np.testing.assert_allclose(ranks.signed, [[-1, 1]], atol=1e-6)


def test_what_does_not_move_has_no_correlation_not_even_with_rounding():
    still = jnp.stack([jnp.zeros(6), 0.3 + 3e-8 * TS, jnp.full(6, -1e6)], -1)[None, None]
    for method in ("pearson", "spearman"):
        found = correlation(TS, still, method=method)
        np.testing.assert_array_equal(found.absolute, np.zeros((1, 3)))
        assert found.counted.tolist() == [1]


def test_paths_that_cannot_be_measured_do_not_count():
    rises = jnp.broadcast_to(TS[:, None], (2, 2, 6, 1))
    broken = rises.at[0, 0].set(jnp.nan).at[1, :, 2:].set(jnp.inf)
    found = correlation(TS, broken)
    np.testing.assert_allclose(found.signed, [[1], [0]], atol=1e-6)
    assert found.counted.tolist() == [0.5, 0]


def test_wrong_shapes_and_names_are_refused():
    good = jnp.zeros((1, 1, 6, 1))
    with pytest.raises(ValueError, match=r"got shapes \(6,\) and \(1, 6, 1\)"):
        correlation(TS, good[0])
    with pytest.raises(ValueError, match=r"at least three.* got shapes \(2,\)"):
        correlation(TS[:2], good[:, :, :2])
    with pytest.raises(ValueError, match=r"valid must have shape \(1, 1, 6\), got \(6,\)"):
        correlation(TS, good, valid=jnp.ones(6, bool))
    with pytest.raises(ValueError, match=r"unknown method 'spearmen' \(did you mean 'spearman'"):
        correlation(TS, good, method="spearmen")
