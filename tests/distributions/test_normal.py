"""Normal densities and their mixture: scipy in float64, samples, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads
from scipy import stats

from tests.lib.densities import KEYS, mixture
from tests.lib.oracles import assert_distributed, assert_mean
from vaejax.distributions.bernoulli import (
    BernoulliDensity,
    log1p_exp,
)
from vaejax.distributions.normal import DiagNormalDensity

GENERATOR = np.random.default_rng(0)


LOC, LOG_SCALE, LOGITS = (GENERATOR.normal(size=3) for _ in range(3))


def mixture_cdf(x):
    weights = np.exp([0.3, -1.0]) / np.exp([0.3, -1.0]).sum()
    return weights[0] * stats.norm.cdf(x, -2, np.exp(-0.5)) + weights[1] * stats.norm.cdf(
        x, 1, np.exp(0.2)
    )


def test_diag_normal_equals_scipy(x64):
    q = DiagNormalDensity(jnp.asarray(LOC), jnp.asarray(LOG_SCALE))
    for z in GENERATOR.normal(size=(20, 3)):
        np.testing.assert_allclose(
            q.log_prob(z), stats.norm.logpdf(z, LOC, np.exp(LOG_SCALE)).sum(), rtol=1e-12
        )


def test_a_uniform_number_is_the_probability_below(x64):
    q, u = DiagNormalDensity(jnp.asarray(LOC), jnp.asarray(LOG_SCALE)), np.array([0.1, 0.5, 0.99])
    below = stats.norm.cdf(q.from_uniform(jnp.asarray(u)), LOC, np.exp(LOG_SCALE))
    np.testing.assert_allclose(below, u, rtol=1e-12)


def test_continuous_densities_integrate_to_one(x64):
    grid = np.linspace(-15, 15, 20_001)
    for p in (DiagNormalDensity(jnp.asarray(LOC[:1]), jnp.asarray(LOG_SCALE[:1])), mixture()):
        density = np.exp(jax.jit(jax.vmap(p.log_prob))(grid[:, None]))
        np.testing.assert_allclose(np.trapezoid(density, grid), 1, rtol=1e-12)


def test_mixture_equals_its_sum(x64):
    x = GENERATOR.normal(size=20)
    weights = np.exp([0.3, -1.0]) / np.exp([0.3, -1.0]).sum()
    density = weights[0] * stats.norm.pdf(x, -2, np.exp(-0.5)) + weights[1] * stats.norm.pdf(
        x, 1, np.exp(0.2)
    )
    np.testing.assert_allclose(
        jax.jit(jax.vmap(mixture().log_prob))(x[:, None]), np.log(density), rtol=1e-12
    )
    np.testing.assert_allclose(mixture().mean(), weights @ [[-2.0], [1.0]], rtol=1e-12)


def test_samplers_agree_with_their_densities():
    q = DiagNormalDensity(jnp.asarray(LOC), jnp.asarray(LOG_SCALE))
    for column, loc, log_scale in zip(
        np.asarray(jax.jit(jax.vmap(q.sample))(KEYS)).T, LOC, LOG_SCALE, strict=True
    ):
        assert_distributed(column, stats.norm(loc, np.exp(log_scale)).cdf)
    assert_distributed(jax.jit(jax.vmap(mixture().sample))(KEYS), mixture_cdf)
    draws = jax.jit(jax.vmap(BernoulliDensity(jnp.asarray(LOGITS)).sample))(KEYS)
    assert set(np.unique(draws)) == {0.0, 1.0}
    assert_mean(draws, 1 / (1 + np.exp(-LOGITS)), detectable=0.02)


def test_noise_is_not_shared_between_dimensions():
    draws = jax.vmap(DiagNormalDensity(jnp.zeros(2), jnp.zeros(2)).sample)(KEYS)
    assert_mean(draws[:, 0] * draws[:, 1], 0, detectable=0.04)


def test_derivatives(x64):
    z = jnp.asarray(GENERATOR.normal(size=3))
    check_grads(
        jax.jit(lambda *p: DiagNormalDensity(*p).log_prob(z)),
        (LOC, LOG_SCALE),
        order=2,
        modes=("fwd", "rev"),
    )
    check_grads(
        jax.jit(lambda logits: BernoulliDensity(logits).log_prob(jnp.asarray([0.0, 1.0, 1.0]))),
        (LOGITS,),
        order=2,
        modes=("fwd", "rev"),
    )
    check_grads(jax.jit(lambda z: mixture().log_prob(z)), (z[:1],), order=2, modes=("fwd", "rev"))
    assert jax.jit(jax.grad(jax.grad(log1p_exp)))(0.0) == 0.25
