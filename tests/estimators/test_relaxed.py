"""Relaxations of discrete latents: the bound for their value, and a biased gradient."""

import jax
import numpy as np
import pytest

import vaejax
from tests.lib.binary import MODEL, NET, X, gradients
from tests.lib.oracles import assert_mean
from vaejax.estimators.relaxed import hard_and_soft


@pytest.mark.parametrize(
    "estimator",
    [vaejax.Relaxed(0.5), vaejax.StraightThrough(), vaejax.StraightThrough(0.5)],
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


@pytest.mark.parametrize("family", [vaejax.Relaxed, vaejax.StraightThrough])
def test_a_temperature_is_above_zero(family):
    with pytest.raises(
        ValueError, match=f"{family.__name__}.temperature = 0.0; it must be above 0"
    ):
        family(0.0)
