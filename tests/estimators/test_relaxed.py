"""Relaxations of discrete latents: the bound for their value, and a biased gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import vaejax
from tests.lib.binary import MODEL, NET, PARAMS, X, gradients
from tests.lib.oracles import assert_distributed, assert_mean
from vaejax.distributions.bernoulli import BernoulliDensity
from vaejax.distributions.discrete import OneHotCategoricalDensity
from vaejax.estimators.relaxed import hard_and_soft
from vaejax.inference.refined import WithPosterior


@pytest.mark.parametrize(
    "estimator",
    [vaejax.Relaxed(0.5, 2), vaejax.StraightThrough(None, 2), vaejax.StraightThrough(0.5)],
    ids=str,
)
def test_biased_ones_have_the_bound_for_their_value(estimator):
    """And a gradient that is off by more than chance: they are told apart from the unbiased."""
    exact_value, exact = (leaf[0] for leaf in gradients(vaejax.Enumerate(), 1))
    values, draws = gradients(estimator, 60_000)
    assert_mean(values, exact_value, detectable=0.1)
    with pytest.raises(AssertionError, match="standard errors from"):
        assert_mean(draws, exact, detectable=np.inf)


@pytest.mark.slow
def test_relaxed_samples_of_categories():
    """One-hot latents too; at a low temperature the relaxation is close to its hard sample."""
    model = vaejax.VAE(
        vaejax.FactorialCategorical(2, 3), MODEL.likelihood, vaejax.OneHotCategorical(NET((2, 3)))
    )
    params = model.init(jax.random.key(0), X)
    hard, soft = hard_and_soft(model.posterior(params, X), jax.random.key(1), 0.01)
    np.testing.assert_allclose(soft, hard, atol=1e-3)
    values, _ = gradients(vaejax.Relaxed(0.5), 40_000, model, params)
    assert_mean(values, vaejax.Enumerate()(model, params, X, None), detectable=0.1)


def test_the_temperature_divides_the_noisy_logits():
    """T logit(soft) = l + logistic noise of a binary latent, and T log(soft_1 / soft_2) = l_1 - l_2
    + logistic noise of a category; the hard sample is on the side of the greatest.
    """
    keys, temperature = jax.random.split(jax.random.key(0), 40_000), 0.7
    logits = jnp.asarray([0.8, -0.4])
    draw = jax.jit(jax.vmap(lambda q, key: hard_and_soft(q, key, temperature), (None, 0)))
    hard, soft = map(np.asarray, draw(BernoulliDensity(logits), keys))
    np.testing.assert_array_equal(hard, soft > 0.5)
    for j, l in enumerate((0.8, -0.4)):
        assert_distributed(temperature * special.logit(soft[:, j]), stats.logistic(l).cdf)
    hard, soft = map(np.asarray, draw(OneHotCategoricalDensity(logits[None]), keys))
    np.testing.assert_array_equal(hard.argmax(-1), soft.argmax(-1))
    log_ratio = np.log(soft[:, 0, 0] / soft[:, 0, 1])
    assert_distributed(temperature * log_ratio, stats.logistic(0.8 + 0.4).cdf)


def test_straight_through_is_the_slope_of_its_soft_sample():
    """At a hard sample b of log w = c.b - log q(b): the gradient in l is that of log w at b with db
    / dl the slope of the relaxation, p (1 - p) of the mean where there is no temperature.
    """
    q = MODEL.posterior(PARAMS, X)
    p = jax.nn.sigmoid(q.logits)
    key = jax.random.key(3)
    hard, soft = hard_and_soft(q, jax.random.split(key, 1)[0], 1.0)

    def f(b, logits):
        return MODEL.log_joint(PARAMS, X, b) - BernoulliDensity(logits).log_prob(b)

    in_b, in_logits = jax.jit(jax.grad(f, (0, 1)))(hard, q.logits)
    soft_at_half = jax.nn.sigmoid(2 * jax.scipy.special.logit(soft))
    slopes = {None: p * (1 - p), 0.5: 2 * soft_at_half * (1 - soft_at_half)}
    for temperature, slope in slopes.items():
        estimator = vaejax.StraightThrough(temperature)

        def bound(logits, estimator=estimator):
            return estimator(WithPosterior(MODEL, BernoulliDensity(logits)), PARAMS, X, key)

        np.testing.assert_allclose(
            jax.grad(bound)(q.logits), in_b * slope + in_logits, rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("family", [vaejax.Relaxed, vaejax.StraightThrough])
def test_a_temperature_is_above_zero(family):
    with pytest.raises(
        ValueError, match=f"{family.__name__}.temperature = 0.0; it must be positive and finite"
    ):
        family(0.0)
