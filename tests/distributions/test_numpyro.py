"""The adapter of NumPyro's distributions."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
from scipy import stats

from tests.lib.densities import KEYS
from vaejax.distributions.numpyro import NumPyroDensity


def test_counts_take_integers():
    p = NumPyroDensity(npd.Poisson(jnp.asarray([0.5, 2.0])).to_event(1))
    np.testing.assert_allclose(
        p.log_prob(np.array([1, 3], np.uint8)),
        stats.poisson([0.5, 2.0]).logpmf([1, 3]).sum(),
        rtol=1e-6,
    )


def test_event_says_what_numpyro_says():
    base = npd.MultivariateNormal(
        jnp.asarray([1.0, 2.0]), scale_tril=jnp.asarray([[1.0, 0.0], [0.5, 2.0]])
    )
    q = NumPyroDensity(base)
    np.testing.assert_array_equal(q.sample(KEYS[0]), base.sample(KEYS[0]))
    np.testing.assert_array_equal(q.mean(), base.mean)
    np.testing.assert_array_equal(q.variance(), [1.0, 4.25])
    assert q.entropy() == base.entropy()
    with pytest.raises(ValueError, match=r"Normal has batch_shape \(3,\),.* add .to_event\(1\)"):
        NumPyroDensity(npd.Normal(jnp.zeros(3), 1.0)).log_prob(jnp.zeros(()))
