"""NumPyro's families of counts where they are certain of an outcome: logits of any size, and
probabilities of 0 and 1. No derivative is NaN there.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
from scipy import special, stats

from vaejax.distributions.numpyro import NumPyroDensity

INF = np.inf
LOGITS = [-INF, -1e30, -1e4, -104, -88, -41, -39, -20, -0.1, 0.0, 7, 20, 40, 42, 88, 100, 1e4, INF]
POISSON = npd.Poisson(2.0)


def log_shares(logit):
    """log p and log(1 - p), p = sigmoid(logit), in float64."""
    return -np.logaddexp(0, -logit), -np.logaddexp(0, logit)


def so_often(count, log_p):
    return count * log_p if count else 0.0


def negative_binomial(k, logit):
    coefficient = special.gammaln(k + 3.5) - special.gammaln(3.5) - special.gammaln(k + 1)
    return coefficient + so_often(k, log_shares(logit)[0]) + 3.5 * log_shares(logit)[1]


def zero_inflated(k, logit):
    log_gate, log_rest = log_shares(logit)
    return np.logaddexp(log_gate if k == 0 else -INF, log_rest + stats.poisson.logpmf(k, 2))


def binomial(k, logit):
    log_p, log_rest = log_shares(logit)
    return np.log(special.comb(7, k)) + so_often(k, log_p) + so_often(7 - k, log_rest)


def geometric(k, logit):
    return log_shares(logit)[0] + so_often(k, log_shares(logit)[1])


BY_LOGITS = {
    "BernoulliLogits": (npd.BernoulliLogits, lambda k, l: log_shares(l)[1 - k], (0, 1)),
    "BinomialLogits": (lambda l: npd.BinomialLogits(l, 7), binomial, (0, 3, 7)),
    "GeometricLogits": (npd.GeometricLogits, geometric, (0, 4)),
    "NegativeBinomialLogits": (
        lambda l: npd.NegativeBinomialLogits(3.5, l),
        negative_binomial,
        (0, 2, 60),
    ),
    "ZeroInflatedLogits": (lambda l: npd.ZeroInflatedLogits(POISSON, l), zero_inflated, (0, 2)),
}


@pytest.mark.parametrize("name", BY_LOGITS)
def test_families_of_numpyro_by_logits(name):
    family, reference, counts = BY_LOGITS[name]
    for k in counts:

        def log_prob(logit, k=k):
            return NumPyroDensity(family(logit)).log_prob(jnp.float32(k))

        slope = jax.grad(log_prob)
        both = jax.jit(jax.vmap(lambda l: (log_prob(l), slope(l), jax.grad(slope)(l))))
        values, *derivatives = both(jnp.asarray(LOGITS, jnp.float32))
        right = [reference(k, np.float64(np.float32(logit))) for logit in LOGITS]
        np.testing.assert_allclose(values, right, rtol=3e-6, atol=3e-6)
        assert not np.isnan(derivatives).any()


# By probabilities, at 0 and 1: {name: (family, a count, its log-mass at each)}.
BY_PROBS = {
    "no Bernoulli": (npd.BernoulliProbs, 0, (0, -INF)),
    "a Bernoulli": (npd.BernoulliProbs, 1, (-INF, 0)),
    "no binomial": (lambda p: npd.BinomialProbs(p, 7), 0, (0, -INF)),
    "some of a binomial": (lambda p: npd.BinomialProbs(p, 7), 3, (-INF, -INF)),
    "all of a binomial": (lambda p: npd.BinomialProbs(p, 7), 7, (-INF, 0)),
    "no geometric": (npd.GeometricProbs, 0, (-INF, 0)),
    "a geometric": (npd.GeometricProbs, 4, (-INF, -INF)),
    "no negative binomial": (lambda p: npd.NegativeBinomialProbs(3.5, p), 0, (0, -INF)),
    "a negative binomial": (lambda p: npd.NegativeBinomialProbs(3.5, p), 2, (-INF, -INF)),
    "no inflated zero": (lambda p: npd.ZeroInflatedPoisson(p, 2.0), 0, (-2, 0)),
    "an inflated count": (lambda p: npd.ZeroInflatedPoisson(p, 2.0), 2, (np.log(2) - 2, -INF)),
    "a masked class": (lambda p: npd.CategoricalProbs(jnp.stack([p, 1 - p])), 0, (-INF, 0)),
}


@pytest.mark.parametrize("family, k, right", BY_PROBS.values(), ids=BY_PROBS)
def test_families_of_numpyro_by_probabilities(family, k, right):
    def log_prob(p):
        return NumPyroDensity(family(p)).log_prob(jnp.float32(k))

    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(log_prob)))(jnp.asarray([0.0, 1.0]))
    np.testing.assert_allclose(values, right, rtol=1e-6)
    assert np.isfinite(slopes).all()
