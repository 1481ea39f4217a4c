"""Binary variables and continuous ones on [0, 1]: scipy, quadrature, samples, extremes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tests.lib.densities import KEYS
from tests.lib.oracles import assert_distributed, assert_mean
from vaejax.distributions.bernoulli import (
    BernoulliDensity,
    ContinuousBernoulliDensity,
    _continuous_bernoulli_quantile,
    _log_expm1_over,
)

GENERATOR = np.random.default_rng(0)


LOC, LOG_SCALE, LOGITS = (GENERATOR.normal(size=3) for _ in range(3))


def test_bernoulli_equals_scipy_and_sums_to_one(x64):
    p = BernoulliDensity(jnp.asarray(LOGITS))
    states = np.array(list(itertools.product([0.0, 1.0], repeat=3)))
    log_p = jax.jit(jax.vmap(p.log_prob))(states)
    np.testing.assert_allclose(
        log_p, stats.bernoulli.logpmf(states, 1 / (1 + np.exp(-LOGITS))).sum(1), rtol=1e-12
    )
    np.testing.assert_allclose(np.exp(log_p).sum(), 1, rtol=1e-14)


@pytest.mark.parametrize("logit", [-1e4, -100.0, -1.0, 0.0, 1.0, 100.0, 1e4])
@pytest.mark.parametrize("x", [0.0, 1.0])
def test_bernoulli_at_extreme_logits(logit, x):
    value, gradient = jax.value_and_grad(lambda l: BernoulliDensity(l).log_prob(jnp.asarray([x])))(
        jnp.asarray([logit])
    )
    expected = -np.logaddexp(0.0, -logit if x else logit)
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(
        gradient, [x - 1 / (1 + np.exp(-np.float64(np.clip(logit, -700, 700))))], atol=1e-6
    )


# Continuous Bernoulli. Its log-partition function is a cumulant generating function: every
# derivative is a central moment.

CB_LOGITS = np.array(
    [0.0, 1e-9, -1e-9, 1e-4, 0.19, 0.21, -0.39, 0.399, 0.401, -0.41, 3.0, -20.0, 100.0]
)


def test_continuous_bernoulli_by_quadrature(x64):
    """Its integral, mean, and three derivatives of its log-partition function; the closed form of
    its constant away from 0.
    """
    nodes, weights = np.polynomial.legendre.leggauss(200)
    x, weights = (nodes + 1) / 2, weights / 2
    density = np.exp(
        jax.jit(
            jax.vmap(lambda l: jax.vmap(ContinuousBernoulliDensity(l[None]).log_prob)(x[:, None]))
        )(CB_LOGITS)
    )
    np.testing.assert_allclose(density @ weights, 1, rtol=1e-12)
    unnormalised = np.exp(np.outer(CB_LOGITS, x)) * weights
    p = unnormalised / unnormalised.sum(1, keepdims=True)
    mean = p @ x
    np.testing.assert_allclose(
        ContinuousBernoulliDensity(jnp.asarray(CB_LOGITS)).mean(), mean, rtol=1e-12
    )
    moments = [(p * (x[None] - mean[:, None]) ** k).sum(1) for k in (2, 3)]
    derivative = jax.grad(jax.grad(_log_expm1_over))
    np.testing.assert_allclose(jax.jit(jax.vmap(derivative))(CB_LOGITS), moments[0], rtol=1e-10)
    np.testing.assert_allclose(
        jax.jit(jax.vmap(jax.grad(derivative)))(CB_LOGITS), moments[1], rtol=1e-8, atol=1e-11
    )
    steep = CB_LOGITS[-3:]
    np.testing.assert_allclose(
        _log_expm1_over(jnp.asarray(steep)), np.log(np.expm1(steep) / steep), rtol=1e-14
    )


def test_continuous_bernoulli_in_float32():
    """Close to float64: the log-partition function with two derivatives, and how a sample moves
    with the logit.
    """

    @jax.jit
    @jax.vmap
    def derivatives(l):
        first = jax.grad(_log_expm1_over)
        slopes = jax.vmap(jax.grad(_continuous_bernoulli_quantile, argnums=1), (0, None))(
            jnp.asarray([0.1, 0.5, 0.9], l.dtype), l
        )
        return _log_expm1_over(l), first(l), jax.grad(first)(l), slopes

    single = derivatives(jnp.asarray(CB_LOGITS, jnp.float32))
    with jax.enable_x64(True):
        double = derivatives(jnp.asarray(CB_LOGITS))
    for got, expected in zip(single, double, strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-6, atol=3e-6)


def continuous_bernoulli_cdf(x, l):
    return x + 0 * l if abs(l) < 1e-8 else np.expm1(l * x) / np.expm1(l)


def test_continuous_bernoulli_quantiles(x64):
    """The sampler is the inverse cdf, without a jump at l = 0, and moves as -(dF/dl) / (dF/dx)."""
    u = np.array([1e-6, 0.1, 0.4, 0.7, 0.999])
    logits = np.array(
        [-30.0, -0.101, -0.099, -1e-3, 0.0, 1e-7, 0.05, 0.0999, 0.1001, 0.4, 0.8, 2.0, 30.0]
    )
    x, slope = jax.jit(
        jax.vmap(
            jax.vmap(jax.value_and_grad(_continuous_bernoulli_quantile, argnums=1), (0, None)),
            (None, 0),
        )
    )(u, logits)
    np.testing.assert_allclose(
        [continuous_bernoulli_cdf(row, l) for row, l in zip(np.asarray(x), logits, strict=True)],
        [u] * len(logits),
        rtol=1e-7,
    )
    # E[x; x < a] - F(a) E x = dF/dl, by quadrature.
    nodes, weights = np.polynomial.legendre.leggauss(100)
    nodes, weights = (nodes + 1) / 2, weights / 2
    for row, slopes, l in zip(np.asarray(x), np.asarray(slope), logits, strict=True):
        constant = weights @ np.exp(l * nodes)
        mean = weights @ (nodes * np.exp(l * nodes)) / constant
        below = (
            row[:, None]
            * weights
            * (row[:, None] * nodes - mean)
            * np.exp(l * row[:, None] * nodes)
        ).sum(1)
        np.testing.assert_allclose(slopes, -below / np.exp(l * row), rtol=1e-5)


def test_continuous_bernoulli_samples():
    logits = np.array([0.0, 0.05, -0.3, 3.0, -20.0])
    q = ContinuousBernoulliDensity(jnp.asarray(logits, jnp.float32))
    draws, slopes = jax.jit(
        jax.vmap(
            lambda key: jax.jvp(
                lambda l: ContinuousBernoulliDensity(l).sample(key), (q.logits,), (jnp.ones(5),)
            )
        )
    )(KEYS)
    for column, l in zip(np.asarray(draws).T, logits, strict=True):
        assert_distributed(column, lambda x, l=l: continuous_bernoulli_cdf(x, l))
    variance = jax.jit(jax.vmap(jax.grad(jax.grad(_log_expm1_over))))(q.logits)  # d/dl E x
    assert_mean(slopes, variance, detectable=0.003)
    np.testing.assert_allclose(variance[0], 1 / 12, rtol=1e-6)
