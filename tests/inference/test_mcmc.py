"""NUTS against the closed form of a linear-Gaussian model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib.oracles import LinearGaussian, assert_mean
from vaejax.inference.mcmc import Chains, nuts

POINT = LinearGaussian()


def test_nuts_reaches_the_closed_form(x64):
    """Mean and variance. The means of independent chains are independent, so their error needs no
    autocorrelation time.
    """
    chains = jax.jit(lambda params, x, key: nuts(POINT.model, params, x, key, 300, 150, 100))(
        POINT.params, POINT.datum, jax.random.key(1)
    )
    samples = np.asarray(chains.samples)[..., 0]
    assert samples.shape == chains.divergent.shape == (300, 100) and not chains.divergent.any()
    assert_mean(samples.mean(axis=1), POINT.posterior_mean, detectable=0.1 * POINT.lam**-0.5)
    assert_mean(
        np.mean((samples - POINT.posterior_mean) ** 2, axis=1),
        1 / POINT.lam,
        detectable=0.1 / POINT.lam,
    )
    assert np.max(chains.r_hat()) < 1.05


def test_split_r_hat_sees_a_trend_within_the_chains():
    """Two chains that drift alike agree with each other, and not with their own halves: W = 0
    within, so R-hat is large. Independent draws are worth as many.
    """
    noise = np.random.default_rng(0).normal(size=(2, 1_000, 1))
    still = Chains(jnp.asarray(noise), jnp.zeros((2, 1_000), bool))
    drift = np.linspace(-5, 5, 1_000)[None, :, None]
    moving = still._replace(samples=jnp.asarray(noise + drift))
    assert still.r_hat() < 1.05 and moving.r_hat() > 1.5
    assert 1_500 < still.effective_sample_size() < 2_600 and moving.effective_sample_size() < 100


def test_mistakes_are_named():
    model, params, x = POINT.model, POINT.params, POINT.datum
    with pytest.raises(ValueError, match="num_chains = 0"):
        nuts(model, params, x, jax.random.key(0), 0)
    binary = vaejax.VAE(
        vaejax.FactorialBernoulli(3),
        vaejax.Bernoulli(vaejax.MLP(4)),
        vaejax.Bernoulli(vaejax.MLP(3)),
    )
    with pytest.raises(ValueError, match="NUTS moves through R.d, but the latents z .* binary"):
        nuts(binary, params, x, jax.random.key(0))
