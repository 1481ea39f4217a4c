"""Refined inference against the closed-form optimum, and the amortisation gap against its closed form."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import LinearGaussian

import vaejax

POINT = LinearGaussian()
FREE = vaejax.Refined(POINT.model, 400, start="standard", learning_rate=0.1)


@pytest.mark.parametrize("start", ["encoder", "standard"])
def test_it_reaches_the_exact_posterior(start):
    q = jax.jit(replace(FREE, start=start).posterior)(POINT.params, POINT.datum)
    np.testing.assert_allclose(q.loc, [POINT.posterior_mean], atol=2e-3)
    np.testing.assert_allclose(np.exp(q.log_scale), [POINT.lam**-0.5], rtol=2e-3)


def test_the_amortisation_gap_of_a_narrow_encoder_is_its_closed_form():
    """One q for all x is as narrow as an encoder can be: what refining it wins is KL(q || p(z|x)), example by example."""
    for x in (-2.0, 0.3, 1.1):
        point = replace(POINT, x=x)
        refined = jax.jit(FREE.posterior)(point.params, point.datum)
        best = replace(point, mu=float(refined.loc[0]), s=float(np.exp(refined.log_scale[0])))
        np.testing.assert_allclose(best.elbo - point.elbo, point.kl_to_posterior, atol=1e-4)
        np.testing.assert_allclose(best.elbo, point.log_marginal, atol=1e-4)


@vaejax.value
class Mixing:
    """z -> W z."""

    def init(self, key, example):
        return jnp.asarray([[1.0, 0.8], [0.3, 1.2]])

    def apply(self, params, z):
        return params @ z


def test_of_correlated_latents_it_reaches_the_mean_field_optimum():
    """Posterior N(m, Lam^-1): the best diagonal q has its mean, and variances 1 / Lam_jj."""
    tau, x = 0.5, jnp.asarray([0.7, -0.4])
    encoder = vaejax.DiagNormal(vaejax.Free(2), max_log_scale=None)
    model = vaejax.VAE(vaejax.StandardNormal(2), vaejax.Gaussian(Mixing(), tau), encoder)
    params = model.init(jax.random.key(0), x)
    w = np.asarray(params.theta["likelihood"]["net"])
    precision = np.eye(2) + w.T @ w / tau**2
    refined = vaejax.Refined(model, 2_000, "standard", learning_rate=0.1, num_samples=64)
    q = jax.jit(refined.posterior)(params, x)
    np.testing.assert_allclose(q.loc, np.linalg.solve(precision, w.T @ np.asarray(x) / tau**2), atol=0.01)
    np.testing.assert_allclose(np.exp(-2 * q.log_scale), np.diag(precision), rtol=0.03)


def test_no_steps_are_the_model_itself():
    amortised = vaejax.Refined(POINT.model, 0)
    key = jax.random.key(1)
    assert vaejax.elbo(amortised, POINT.params, POINT.datum, key) == vaejax.elbo(POINT.model, POINT.params, POINT.datum, key)
    evaluation = vaejax.evaluate(amortised, POINT.params, np.asarray([[0.3], [1.1]]), key, num_samples=50)
    assert np.isfinite(evaluation.log_marginal.mean)


def test_which_gradients_flow():
    """theta's always; phi's through the steps if they are asked for, and none from a start that does not see the encoder."""

    def gradient(**changes):
        refined = replace(vaejax.Refined(POINT.model, 3), **changes)
        return jax.grad(lambda params: vaejax.elbo(refined, params, POINT.datum, jax.random.key(0)))(POINT.params)

    for changes, moves in (({}, False), ({"through_steps": True}, True), ({"through_steps": True, "start": "standard"}, False)):
        of = gradient(**changes)
        assert float(of.theta["likelihood"]["net"]["w"]) != 0
        assert (float(of.phi["loc"][0]) != 0) == moves


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"unknown Refined.start 'encodr'; did you mean encoder"):
        vaejax.Refined(POINT.model, 1, "encodr")
    with pytest.raises(ValueError, match=r"Refined.num_steps = -1"):
        vaejax.Refined(POINT.model, -1)
    laplace = vaejax.VAE(POINT.model.prior, POINT.model.likelihood, vaejax.Laplace(vaejax.Free(1)))
    with pytest.raises(TypeError, match="Refined is for a q that is DiagNormal"):
        vaejax.Refined(laplace, 1).posterior(POINT.params, POINT.datum)
