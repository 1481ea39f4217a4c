"""The oracle agrees with itself: closed forms against the numbers frozen elsewhere, and against
quadrature.
"""

import numpy as np
import pytest
from scipy import stats

from tests.lib.oracles import LinearGaussian, assert_distributed, assert_mean, gauss_hermite


def test_frozen_point():
    point = LinearGaussian()
    np.testing.assert_allclose(point.lam, 3.640625)
    np.testing.assert_allclose(point.log_marginal, -1.5156924095, rtol=1e-10)
    np.testing.assert_allclose(point.elbo, -1.5547456056564534, rtol=1e-14)
    np.testing.assert_allclose(point.elbo_gradient, [0.371875, -0.310625, -0.49375], rtol=1e-12)


def test_elbo_by_quadrature():
    point = LinearGaussian()
    noise, weights = (np.asarray(array) for array in gauss_hermite(60))
    z = point.mu + point.s * noise[:, 0]
    log_joint = stats.norm.logpdf(z) + stats.norm.logpdf(point.x, point.w * z + point.b, point.tau)
    np.testing.assert_allclose(
        weights @ (log_joint - stats.norm.logpdf(z, point.mu, point.s)), point.elbo, rtol=1e-5
    )


def test_calibrated_tests_can_fail():
    samples = np.random.default_rng(0).normal(size=40_000)
    assert_mean(samples, 0.0, detectable=0.05)
    with pytest.raises(AssertionError, match="standard errors"):
        assert_mean(samples + 0.05, 0.0, detectable=0.05)
    with pytest.raises(AssertionError, match="would be caught"):
        assert_mean(samples, 0.0, detectable=0.001)
    assert_distributed(samples, stats.norm.cdf)
    with pytest.raises(AssertionError, match="off by"):
        assert_distributed(1.12 * samples, stats.norm.cdf)
