"""Densities: normalised, equal to scipy in float64, sampled as they say, finite at the extremes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
from jax.test_util import check_grads
from oracles import assert_distributed, assert_mean, gauss_hermite
from scipy import stats

from vaejax.distributions import Bernoulli, DiagNormal, Mixture, kl_divergence, log1p_exp

GENERATOR = np.random.default_rng(0)
LOC, LOG_SCALE, LOGITS = (GENERATOR.normal(size=3) for _ in range(3))
KEYS = jax.random.split(jax.random.key(0), 40_000)


def mixture():
    return Mixture(jnp.asarray([0.3, -1.0]), DiagNormal(jnp.asarray([[-2.0], [1.0]]), jnp.asarray([[-0.5], [0.2]])))


def mixture_cdf(x):
    weights = np.exp([0.3, -1.0]) / np.exp([0.3, -1.0]).sum()
    return weights[0] * stats.norm.cdf(x, -2, np.exp(-0.5)) + weights[1] * stats.norm.cdf(x, 1, np.exp(0.2))


def test_diag_normal_equals_scipy(x64):
    q = DiagNormal(jnp.asarray(LOC), jnp.asarray(LOG_SCALE))
    for z in GENERATOR.normal(size=(20, 3)):
        np.testing.assert_allclose(q.log_prob(z), stats.norm.logpdf(z, LOC, np.exp(LOG_SCALE)).sum(), rtol=1e-12)


def test_bernoulli_equals_scipy_and_sums_to_one(x64):
    p = Bernoulli(jnp.asarray(LOGITS))
    states = np.array(list(itertools.product([0.0, 1.0], repeat=3)))
    log_p = jax.vmap(p.log_prob)(states)
    np.testing.assert_allclose(log_p, stats.bernoulli.logpmf(states, 1 / (1 + np.exp(-LOGITS))).sum(1), rtol=1e-12)
    np.testing.assert_allclose(np.exp(log_p).sum(), 1, rtol=1e-14)


def test_continuous_densities_integrate_to_one(x64):
    grid = np.linspace(-15, 15, 20_001)
    for p in (DiagNormal(jnp.asarray(LOC[:1]), jnp.asarray(LOG_SCALE[:1])), mixture()):
        density = np.exp(jax.vmap(p.log_prob)(grid[:, None]))
        np.testing.assert_allclose(np.trapezoid(density, grid), 1, rtol=1e-12)


def test_mixture_equals_its_sum(x64):
    x = GENERATOR.normal(size=20)
    weights = np.exp([0.3, -1.0]) / np.exp([0.3, -1.0]).sum()
    density = weights[0] * stats.norm.pdf(x, -2, np.exp(-0.5)) + weights[1] * stats.norm.pdf(x, 1, np.exp(0.2))
    np.testing.assert_allclose(jax.vmap(mixture().log_prob)(x[:, None]), np.log(density), rtol=1e-12)
    np.testing.assert_allclose(mixture().mean, weights @ [[-2.0], [1.0]], rtol=1e-12)


def test_samplers_agree_with_their_densities():
    q = DiagNormal(jnp.asarray(LOC), jnp.asarray(LOG_SCALE))
    for column, loc, log_scale in zip(np.asarray(jax.vmap(q.sample)(KEYS)).T, LOC, LOG_SCALE, strict=True):
        assert_distributed(column, stats.norm(loc, np.exp(log_scale)).cdf)
    assert_distributed(jax.vmap(mixture().sample)(KEYS), mixture_cdf)
    draws = jax.vmap(Bernoulli(jnp.asarray(LOGITS)).sample)(KEYS)
    assert set(np.unique(draws)) == {0.0, 1.0}
    assert_mean(draws, 1 / (1 + np.exp(-LOGITS)), detectable=0.02)


def test_noise_is_not_shared_between_dimensions():
    draws = jax.vmap(DiagNormal(jnp.zeros(2), jnp.zeros(2)).sample)(KEYS)
    assert_mean(draws[:, 0] * draws[:, 1], 0, detectable=0.04)


def test_derivatives(x64):
    z = jnp.asarray(GENERATOR.normal(size=3))
    check_grads(jax.jit(lambda *p: DiagNormal(*p).log_prob(z)), (LOC, LOG_SCALE), order=2, modes=("fwd", "rev"))
    check_grads(jax.jit(lambda logits: Bernoulli(logits).log_prob(jnp.asarray([0.0, 1.0, 1.0]))), (LOGITS,), order=2, modes=("fwd", "rev"))
    check_grads(jax.jit(lambda z: mixture().log_prob(z)), (z[:1],), order=2, modes=("fwd", "rev"))
    assert jax.grad(jax.grad(log1p_exp))(0.0) == 0.25


@pytest.mark.parametrize("logit", [-1e4, -100.0, -1.0, 0.0, 1.0, 100.0, 1e4])
@pytest.mark.parametrize("x", [0.0, 1.0])
def test_bernoulli_at_extreme_logits(logit, x):
    value, gradient = jax.value_and_grad(lambda l: Bernoulli(l).log_prob(jnp.asarray([x])))(jnp.asarray([logit]))
    expected = -np.logaddexp(0.0, -logit if x else logit)
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(gradient, [x - 1 / (1 + np.exp(-np.float64(np.clip(logit, -700, 700))))], atol=1e-6)


def test_gradient_stops_at_a_stopped_distribution():
    q = DiagNormal(jnp.zeros(2), jnp.zeros(2))
    gradient = jax.grad(lambda q: jax.lax.stop_gradient(q).log_prob(jnp.ones(2)))(q)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("p", [DiagNormal(jnp.zeros(4), jnp.zeros(4)), Bernoulli(jnp.zeros(4))], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("shape", [(3, 4), (1, 4), (3,), ()])
def test_a_wrong_shape_never_passes(p, shape):
    with pytest.raises(ValueError, match=r"log_prob got a value of shape .* one event has shape \(4,\); .*jax.vmap"):
        p.log_prob(jnp.zeros(shape))


def test_integer_data_are_taken_as_numbers():
    p = Bernoulli(jnp.asarray([0.5, -2.0]))
    assert p.log_prob(np.array([1, 0], np.uint8)) == p.log_prob(jnp.asarray([1.0, 0.0]))


def test_kl_equals_quadrature(x64):
    q, p = (DiagNormal(*jnp.asarray(GENERATOR.normal(size=(2, 2)))) for _ in range(2))
    noise, weights = gauss_hermite(30, 2)
    zs = q.loc[None] + jnp.exp(q.log_scale)[None] * noise
    expected = weights @ (jax.vmap(q.log_prob)(zs) - jax.vmap(p.log_prob)(zs))
    np.testing.assert_allclose(kl_divergence(q, p), expected, rtol=1e-10)
    assert kl_divergence(q, q) == 0


def test_kl_of_numpyro_pairs_and_of_pairs_without_one():
    q, p = npd.Normal(0.3, 0.5), npd.Normal(0.0, 1.0)
    np.testing.assert_allclose(kl_divergence(q, p), npd.kl_divergence(q, p))
    with pytest.raises(TypeError, match=r"KL\(StudentT \|\| Normal\) has no closed form"):
        kl_divergence(npd.StudentT(3.0), p)
