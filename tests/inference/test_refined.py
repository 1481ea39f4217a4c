"""Refined inference against the closed-form optimum, and the amortisation gap against its closed
form.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib.oracles import LinearGaussian, assert_mean

POINT = LinearGaussian()
FREE = vaejax.Refined(POINT.model, 400, start="standard", learning_rate=0.1)


@pytest.mark.parametrize("start", ["encoder", "standard"])
def test_it_reaches_the_exact_posterior(start):
    q = jax.jit(replace(FREE, start=start).posterior)(POINT.params, POINT.datum)
    np.testing.assert_allclose(q.loc, [POINT.posterior_mean], atol=2e-3)
    np.testing.assert_allclose(np.exp(q.log_scale), [POINT.lam**-0.5], rtol=2e-3)


def test_the_amortisation_gap_of_a_narrow_encoder_is_its_closed_form():
    """One q for all x is as narrow as an encoder can be: what refining it wins is KL(q || p(z|x)),
    example by example.
    """
    for x in (-2.0, 0.3, 1.1):
        point = replace(POINT, x=x)
        refined = jax.jit(FREE.posterior)(point.params, point.datum)
        best = replace(point, mu=float(refined.loc[0]), s=float(np.exp(refined.log_scale[0])))
        np.testing.assert_allclose(best.elbo - point.elbo, point.kl_to_posterior, atol=1e-4)
        np.testing.assert_allclose(best.elbo, point.log_marginal, atol=1e-4)


@vaejax.component
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
    np.testing.assert_allclose(
        q.loc, np.linalg.solve(precision, w.T @ np.asarray(x) / tau**2), atol=0.01
    )
    np.testing.assert_allclose(np.exp(-2 * q.log_scale), np.diag(precision), rtol=0.03)


MIXED = vaejax.VAE(
    vaejax.StandardNormal(2),
    vaejax.Gaussian(Mixing(), 0.5),
    vaejax.DiagNormal(vaejax.Free(2), max_log_scale=None),
)
FAMILIES = {
    "diagonal": MIXED.encoder,
    "full": vaejax.FullNormal(vaejax.Free(2, ("loc", "log_scale", "row 1", "row 2"))),
    "flow": vaejax.RealNVP(vaejax.Free(2), 4, (16,)),
}


@pytest.mark.parametrize("name", ["diagonal", "full", pytest.param("flow", marks=pytest.mark.slow)])
def test_the_gap_is_split_as_in_closed_form(x64, name):
    """Posterior N(m, Lam^-1): no diagonal q does better than (sum log Lam_jj - log det Lam)/2 below
    log p(x), and a full one reaches it.

    The ELBO of the encoder is below the best by KL(q || p(z|x)) minus that. The bounds are means of
    4,000 weights for 20 keys.
    """
    tau, x = 0.5, np.array([0.7, -0.4])
    params = MIXED.init(jax.random.key(0), jnp.asarray(x))
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)._replace(
        phi={"loc": jnp.asarray([0.4, -0.5]), "log_scale": jnp.asarray([-0.6, -0.9])}
    )
    w = np.asarray(params.theta["likelihood"]["net"])
    precision = np.eye(2) + w.T @ w / tau**2
    d, variance = (
        np.array([0.4, -0.5]) - np.linalg.solve(precision, w.T @ x / tau**2),
        np.exp([-1.2, -1.8]),
    )
    log_det = np.linalg.slogdet(precision)[1]
    kl = 0.5 * (
        np.diag(precision) @ variance + d @ precision @ d - 2 - np.log(variance).sum() - log_det
    )
    covariance = w @ w.T + tau**2 * np.eye(2)
    log_p = -0.5 * (
        x @ np.linalg.solve(covariance, x) + np.linalg.slogdet(2 * np.pi * covariance)[1]
    )
    refined = vaejax.Refined(MIXED, 1_500, "standard", FAMILIES[name], num_samples=16)
    gap = vaejax.inference_gap(
        refined,
        params,
        np.tile(x, (20, 1)),
        np.full(20, log_p),
        jax.random.key(1),
        num_samples=4_000,
    )
    np.testing.assert_array_equal(gap.total, gap.log_marginal - gap.elbo)
    np.testing.assert_allclose(gap.approximation + gap.amortisation, gap.total, rtol=0, atol=1e-12)
    of_diagonal = 0.5 * (np.log(np.diag(precision)).sum() - log_det)
    assert_mean(gap.total, kl, detectable=0.08)
    if name == "diagonal":
        assert_mean(gap.approximation, of_diagonal, detectable=0.08)
    else:
        assert np.all(np.abs(gap.approximation) < 0.02)


def test_no_steps_are_the_model_itself():
    amortised = vaejax.Refined(POINT.model, 0)
    key = jax.random.key(1)
    assert vaejax.elbo(amortised, POINT.params, POINT.datum, key) == vaejax.elbo(
        POINT.model, POINT.params, POINT.datum, key
    )
    evaluation = vaejax.evaluate(
        amortised, POINT.params, np.asarray([[0.3], [1.1]]), key, num_samples=50
    )
    assert np.isfinite(evaluation.log_marginal.mean)


def test_which_gradients_flow():
    """theta's always; phi's through the steps if they are asked for, and none from a start that
    does not see the encoder.
    """

    def gradient(**changes):
        refined = replace(vaejax.Refined(POINT.model, 3), **changes)
        return jax.grad(
            lambda params: vaejax.elbo(refined, params, POINT.datum, jax.random.key(0))
        )(POINT.params)

    for changes, moves in (
        ({}, False),
        ({"through_steps": True}, True),
        ({"through_steps": True, "start": "standard"}, False),
    ):
        of = gradient(**changes)
        assert float(of.theta["likelihood"]["net"]["w"]) != 0
        assert (float(of.phi["loc"][0]) != 0) == moves


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"unknown Refined.start 'encodr'; did you mean encoder"):
        vaejax.Refined(POINT.model, 1, "encodr")
    with pytest.raises(ValueError, match=r"Refined.num_steps = -1"):
        vaejax.Refined(POINT.model, -1)
    with pytest.raises(
        ValueError, match='Refined.family starts from its own init.*start="standard"'
    ):
        vaejax.Refined(POINT.model, 1, family=POINT.model.encoder)
    with pytest.raises(
        ValueError, match=r"log_marginal has shape \(2,\); give one number for each of 3 examples"
    ):
        vaejax.inference_gap(
            vaejax.Refined(POINT.model, 0),
            POINT.params,
            np.zeros((3, 1)),
            np.zeros(2),
            jax.random.key(0),
        )
    laplace = vaejax.VAE(POINT.model.prior, POINT.model.likelihood, vaejax.Laplace(vaejax.Free(1)))
    with pytest.raises(TypeError, match="Refined is for a q that is DiagNormal"):
        vaejax.Refined(laplace, 1).posterior(POINT.params, POINT.datum)
