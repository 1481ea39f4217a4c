"""The mass beyond the last float of transformed families, against scipy's functions."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
from numpyro.distributions import constraints, transforms
from scipy import special, stats

from vaejax.distributions.numpyro import from_numpyro
from vaejax.distributions.tails import cells_of, highest, log_tail, lowest

# NumPyro's distribution of X, scipy's, and the heights at which X is asked
BASES = {
    "Normal": (npd.Normal(1.0, 4.0), stats.norm(1, 4), (-150.0, -3.0, 2.0, 150.0)),
    "Logistic": (npd.Logistic(1.0, 4.0), stats.logistic(1, 4), (-300.0, -3.0, 2.0, 300.0)),
    "Laplace": (npd.Laplace(1.0, 4.0), stats.laplace(1, 4), (-200.0, -3.0, 2.0, 200.0)),
    "Cauchy": (npd.Cauchy(1.0, 4.0), stats.cauchy(1, 4), (-1e4, -3.0, 2.0, 1e4)),
    "Student": (npd.StudentT(3.0, 1.0, 4.0), stats.t(3, 1, 4), (-200.0, -3.0, 2.0, 200.0)),
    "Gumbel": (npd.Gumbel(1.0, 4.0), stats.gumbel_r(1, 4), (-10.0, 2.0, 30.0)),
    "Exponential": (npd.Exponential(0.5), stats.expon(scale=2), (1e-4, 2.0, 10.0)),
}


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("rising", [True, False])
def test_both_tails_through_a_rising_and_a_falling_transform(name, rising):
    """P(Z <= T(x)) = P(X <= x) where T rises, and P(X >= x) where it falls."""
    base, oracle, heights = BASES[name]
    scale = 2.0 if rising else -2.0
    p = npd.TransformedDistribution(base.expand((1,)), [transforms.AffineTransform(3.0, scale)])
    for x in heights:
        z = jnp.full(1, 3 + scale * x)
        below, above = (float(log_tail(p, z, above=side)[0]) for side in (False, True))
        expected = oracle.logcdf(x), oracle.logsf(x)
        np.testing.assert_allclose(
            (below, above)[:: 1 if rising else -1], expected, rtol=1e-3, atol=1e-6
        )


def test_the_density_in_the_last_cells_is_the_mass_over_the_width():
    """Of a logit-normal, of either end: exp(log p) width = P(X beyond the logit of the end)."""
    loc, scale = np.array([-70.0, 0.3]), np.array([20.0, 9.0])
    normal = npd.Normal(jnp.float32(loc), jnp.float32(scale))
    q = from_numpyro(npd.TransformedDistribution(normal, transforms.SigmoidTransform()))
    low, high = lowest(np.float32), highest(np.float32)
    for end, width, log_mass in (
        (low, low, stats.norm(loc, scale).logcdf(special.logit(low))),
        (high, 1 - high, stats.norm(loc, scale).logsf(special.logit(high))),
    ):
        log_density = q.coordinate_log_probs(jnp.full(2, end, jnp.float32))
        np.testing.assert_allclose(log_density + np.log(width), log_mass, rtol=1e-4)


def test_cells_lie_at_the_ends_of_intervals_alone():
    """Inside the support, the lower before the upper, also where the ends are traced; a grid has
    none.
    """
    assert cells_of(constraints.nonnegative_integer, np.float32) == []
    for low, high in ((0, 1), (-np.inf, np.inf), (0, np.inf), (-np.inf, 0), (-3, 1e6), (2, np.inf)):

        def ends(low, high):
            return cells_of(constraints.interval(low, high), np.float32)

        for below, above in (ends(low, high), jax.jit(ends)(low, high)):
            assert low < below.end < above.end < high
            assert (below.above, above.above) == (False, True) and min(below.width, above.width) > 0


def test_a_family_without_a_distribution_function_keeps_its_density():
    """NumPyro's absolute value has no sign, so the mass of a cell is not known."""
    p = from_numpyro(npd.FoldedDistribution(npd.Normal(0.0, 2.0)))
    largest = np.finfo(np.float32).max
    assert np.isneginf(p.log_prob(largest))
    np.testing.assert_allclose(p.log_prob(1.0), stats.foldnorm(0, scale=2).logpdf(1), rtol=1e-6)
