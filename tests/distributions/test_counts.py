"""Masses of counts from 0 to three million, in float32, against float64.

scipy's `gammaln` in float64 keeps 1e-9 of a mass at three million. A gradient that crosses 0 is
held to a millionth of the terms that it is the difference of.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import numpyro.distributions as npd
import pytest
from scipy.special import digamma, expit, gammaln

import vaejax
from tests.lib.cases import cases
from tests.lib.conditionals import Outputs
from vaejax.distributions import counts
from vaejax.distributions.masses import MASSES
from vaejax.distributions.numpyro import from_numpyro

GENERATOR = np.random.default_rng(0)
SIZE = 200


def single(array):
    """Numbers that float32 has."""
    return np.asarray(array, np.float32).astype(np.float64)


def draws(sample):
    """Counts from the family, some of them 0, some far off."""
    x = sample.astype(np.float64)
    x[:10], x[10:20] = 0, np.rint(10 ** GENERATOR.uniform(0, 6.5, 10))
    return x


class Case(NamedTuple):
    """A log-mass, NumPyro's family of it, float64's, and {parameter: its gradient, its terms}."""

    function: object
    family: object
    exact: object
    arrays: tuple
    slopes: dict


MEAN = single(10 ** GENERATOR.uniform(-3, 6.5, SIZE))
SHAPE = single(np.exp(GENERATOR.uniform(-7, 7, SIZE)))
WIDE_SHAPE = single(10 ** GENERATOR.uniform(-2, 6, SIZE))
RATE = single(SHAPE / MEAN)
TRIALS = np.rint(10 ** GENERATOR.uniform(0, 6.5, SIZE))
P = single(GENERATOR.uniform(0.001, 0.999, SIZE))
A, B = single(10 ** GENERATOR.uniform(-1, 5, (2, SIZE)))


def negative_binomial(x, m, c):
    terms = gammaln(x + c) - gammaln(x + 1) - gammaln(c)
    return terms + c * np.log(c / (c + m)) + x * np.log(m / (c + m))


def gamma_poisson(x, c, b):
    terms = gammaln(x + c) - gammaln(x + 1) - gammaln(c)
    return terms - c * np.log1p(1 / b) - x * np.log1p(b)


def of_mean(x, m, c):
    terms = digamma(x + c) - digamma(c), np.log1p(m / c), (m - x) / (c + m)
    return terms[0] - terms[1] + terms[2], np.abs(terms).max(0)


def of_shape(x, c, b):
    return digamma(x + c) - digamma(c) - np.log1p(1 / b), np.log1p(1 / b)


def binomial(x, n, p):
    terms = gammaln(n + 1) - gammaln(x + 1) - gammaln(n - x + 1)
    return terms + x * np.log(p) + (n - x) * np.log1p(-p)


def beta_binomial(x, n, a, b):
    terms = gammaln(n + 1) - gammaln(x + 1) - gammaln(n - x + 1) - gammaln(n + a + b)
    terms = terms + gammaln(x + a) + gammaln(n - x + b)
    return terms + gammaln(a + b) - gammaln(a) - gammaln(b)


def of_a(x, n, a, b):
    terms = digamma(x + a) - digamma(a), digamma(n + a + b) - digamma(a + b)
    return terms[0] - terms[1], np.abs(terms).max(0)


def of_p(x, n, p):
    return (x - n * p) / (p * (1 - p)), 0.0


def of_binomials(sampled):
    return np.minimum(draws(sampled), TRIALS)


SAMPLES = (
    GENERATOR.binomial(TRIALS.astype(int), P),
    GENERATOR.binomial(TRIALS.astype(int), GENERATOR.beta(A, B)),
)
CASES = {
    "Poisson": Case(
        counts.log_poisson,
        npd.Poisson,
        lambda x, r: x * np.log(r) - r - gammaln(x + 1),
        (draws(GENERATOR.poisson(MEAN)), MEAN),
        {1: lambda x, r: ((x - r) / r, 0.0)},
    ),
    "NegativeBinomial": Case(
        counts.log_negative_binomial,
        npd.NegativeBinomial2,
        negative_binomial,
        (draws(GENERATOR.negative_binomial(SHAPE, SHAPE / (SHAPE + MEAN))), MEAN, SHAPE),
        {1: lambda x, m, c: (c * (x - m) / (m * (c + m)), 0.0), 2: of_mean},
    ),
    "of a large shape": Case(
        counts.log_negative_binomial,
        npd.NegativeBinomial2,
        negative_binomial,
        (draws(GENERATOR.poisson(MEAN)), MEAN, WIDE_SHAPE),
        {1: lambda x, m, c: (c * (x - m) / (m * (c + m)), 0.0)},
    ),
    "GammaPoisson": Case(
        counts.log_gamma_poisson,
        npd.GammaPoisson,
        gamma_poisson,
        (draws(GENERATOR.negative_binomial(SHAPE, RATE / (1 + RATE))), SHAPE, RATE),
        {1: of_shape, 2: lambda x, c, b: ((c - x * b) / (b * (1 + b)), 0.0)},
    ),
    "Binomial": Case(
        counts.log_binomial,
        lambda n, p: npd.BinomialProbs(p, n),
        binomial,
        (of_binomials(SAMPLES[0]), TRIALS, P),
        {2: of_p},
    ),
    "BetaBinomial": Case(
        MASSES[npd.BetaBinomial][0],
        lambda n, a, b: npd.BetaBinomial(a, b, n),
        beta_binomial,
        (of_binomials(SAMPLES[1]), TRIALS, A, B),
        {2: of_a},
    ),
}


@pytest.mark.parametrize("case", cases(CASES))
def test_values_and_gradients_up_to_three_million(case):
    arrays = [jnp.asarray(array, jnp.float32) for array in case.arrays]
    exact = case.exact(*case.arrays)
    # Relative to the mass, or to 1 where it is all but certain.
    bound = 1e-6 * np.maximum(np.abs(exact), 1)
    values = np.asarray(case.function(*arrays), np.float64)
    assert (np.abs(values - exact) <= bound).all()
    for argument, slope in case.slopes.items():
        expected, terms = slope(*case.arrays)
        gradient = jax.grad(lambda *a: jnp.sum(case.function(*a)), argument)(*arrays)
        error = np.abs(np.asarray(gradient, np.float64) - expected)
        assert (error <= 1e-6 * (np.abs(expected) + terms)).all(), error / np.abs(expected)


ADAPTED = [name for name in CASES if name != "of a large shape"]


@pytest.mark.parametrize("name", cases(ADAPTED, slow=ADAPTED[1::2]))
def test_numpyros_families_are_taken_by_them(name):
    """The adapter's sum over one event."""
    case = CASES[name]
    x, *parameters = [jnp.asarray(array, jnp.float32) for array in case.arrays]
    p = from_numpyro(case.family(*parameters))
    np.testing.assert_allclose(p.log_prob(x), case.exact(*case.arrays).sum(), rtol=2e-6)


def test_doubles_are_exact(x64):
    for case in CASES.values():
        values = case.function(*map(jnp.asarray, case.arrays))
        np.testing.assert_allclose(values, case.exact(*case.arrays), rtol=1e-9, atol=3e-7)


PROBABILITIES = np.array([0.2, 0.3, 0.5])


def test_a_multinomial_of_a_million():
    x = GENERATOR.multinomial(1_000_000, PROBABILITIES)
    p = single(PROBABILITIES)
    exact = gammaln(x.sum() + 1) - gammaln(x + 1).sum() + x @ np.log(p)
    q = from_numpyro(npd.Multinomial(1_000_000, jnp.asarray(p, jnp.float32)))
    # The three numbers of float32 miss a sum of 1 by 3e-8, which a million counts tell apart.
    np.testing.assert_allclose(q.log_prob(x), exact, atol=0.05)

    def log_prob(logits):
        return from_numpyro(npd.Multinomial(7, logits=logits)).log_prob(jnp.asarray([0, 0, 7]))

    value, gradient = jax.jit(jax.value_and_grad(log_prob))(jnp.asarray([200.0, -200.0, -1.0]))
    np.testing.assert_allclose([value, *gradient], [-7 * 201, -7, 0, 7], rtol=1e-6)


@pytest.mark.parametrize("logit", [-300.0, -3.0, 0.0, 90.0])
def test_a_binomial_by_its_logits(logit):
    """Where p rounds to 0 or 1 in float32, too."""
    x, n = np.array([0.0, 1.0, 4.0, 7.0]), 7.0
    exact = gammaln(n + 1) - gammaln(x + 1) - gammaln(n - x + 1)
    exact += -x * np.logaddexp(0, -logit) - (n - x) * np.logaddexp(0, logit)
    value, gradient = jax.vmap(
        jax.value_and_grad(counts.log_binomial_of_logits, 2), (0, None, None)
    )(jnp.asarray(x, jnp.float32), jnp.float32(n), jnp.float32(logit))
    np.testing.assert_allclose(value, exact, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(gradient, x - n * expit(logit), rtol=1e-5, atol=1e-6)


def test_what_is_made_of_counts_has_their_digits():
    """Zero-inflated families, mixtures, and what `vmap` gives back."""
    x, rate = 1_001_000.0, 1e6
    exact = x * np.log(rate) - rate - gammaln(x + 1)
    inflated = from_numpyro(npd.ZeroInflatedPoisson(0.2, rate))
    np.testing.assert_allclose(inflated.log_prob(x), np.log(0.8) + exact, rtol=1e-6)
    np.testing.assert_allclose(inflated.log_prob(0), np.log(0.2), rtol=1e-6)
    rates = jnp.asarray([rate, 2 * rate])
    mixed = npd.MixtureSameFamily(npd.Categorical(jnp.ones(2) / 2), npd.Poisson(rates))
    np.testing.assert_allclose(from_numpyro(mixed).log_prob(x), np.log(0.5) + exact, rtol=1e-6)
    several = jax.vmap(lambda rate: from_numpyro(npd.Poisson(rate)))(rates)
    values = jax.vmap(lambda p, x: p.log_prob(x))(several, jnp.asarray([x, x + 0.5]))
    np.testing.assert_allclose(values, [exact, -np.inf], rtol=1e-6)


def test_our_conditionals_of_counts():
    """At a mean of a million NumPyro's Poisson is off by 0.7 nats, its negative binomial by 2."""
    raw, x = jnp.log(jnp.asarray([1e6, 2e6])), np.array([1_001_000, 1_990_000])
    poisson = vaejax.Poisson(Outputs((2,)))
    rate = np.asarray(poisson(raw, 0.0).base.base_dist.rate, np.float64)
    exact = (x * np.log(rate) - rate - gammaln(x + 1.0)).sum()
    np.testing.assert_allclose(poisson(raw, 0.0).log_prob(x), exact, rtol=1e-6)
    gradient = jax.grad(lambda raw: poisson(raw, 0.0).log_prob(x))(raw)
    bend = 1 - np.tanh(np.asarray(raw, np.float64) / 15) ** 2
    np.testing.assert_allclose(gradient, (x - rate) * bend, rtol=1e-5)

    c = jnp.asarray([1.5, 0.0])
    p = vaejax.NegativeBinomial(Outputs((2,), 2))((raw, c), 0.0)
    mean = np.asarray(p.base.base_dist.exact_mean, np.float64)
    shape = np.asarray(p.base.base_dist.concentration, np.float64)
    np.testing.assert_allclose(p.log_prob(x), negative_binomial(x, mean, shape).sum(), rtol=1e-6)


def test_no_count_and_no_rate():
    for value, rate, expected in ((0, 0.0, 0.0), (3, 0.0, -np.inf), (-1, 2.0, -np.inf)):
        assert counts.log_poisson(jnp.float32(value), jnp.float32(rate)) == expected
    assert counts.log_binomial(jnp.float32(8), jnp.float32(7), jnp.float32(0.5)) == -np.inf
    for x, p in ((0, 0.0), (7, 1.0)):
        assert counts.log_binomial(jnp.float32(x), jnp.float32(7), jnp.float32(p)) == 0
    slope = jax.grad(jax.grad(counts.log_poisson, 1), 1)(jnp.float32(3), jnp.float32(1e6))
    np.testing.assert_allclose(slope, -3e-12, rtol=1e-6)


def log_beta_negative_binomial(x, a, b, n):
    ups = [n + x, a + x, b + n, a + b]
    downs = [n, x + 1, a + b + n + x, a, b]
    return sum(map(mpmath.loggamma, ups)) - sum(map(mpmath.loggamma, downs))


def test_a_beta_negative_binomial_of_millions():
    """NumPyro's was off by 1.05 nats at 3e6; n, a and b are no whole numbers here."""

    def log_prob(x, a, b, n):
        return from_numpyro(npd.BetaNegativeBinomial(a, b, n)).log_prob(x)

    ours = jax.jit(jax.value_and_grad(log_prob, (1, 2, 3)))
    with mpmath.workdps(40):
        for x in (0, 3, 1_000, 3_000_000):
            for parameters in ((2.5, 3.0, 4.25), (50.0, 0.5, 10.0), (1e5, 1e3, 1e4)):
                value, gradient = ours(jnp.float32(x), *parameters)
                exact = log_beta_negative_binomial(x, *map(mpmath.mpf, parameters))
                np.testing.assert_allclose(float(value), float(exact), rtol=1e-6, atol=1e-6)
                for which, slope in enumerate(gradient):

                    def along(t, x=x, which=which, parameters=parameters):
                        moved = [*parameters[:which], t, *parameters[which + 1 :]]
                        return log_beta_negative_binomial(x, *moved)

                    expected = float(mpmath.diff(along, mpmath.mpf(parameters[which])))
                    np.testing.assert_allclose(float(slope), expected, rtol=1e-5, atol=1e-5)
