"""Refined inference against the closed-form optimum, of any kind of model."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from tests.lib.conditional import conditional_line
from tests.lib.correlated import MIXED, posterior_mean, posterior_precision, start
from tests.lib.oracles import LinearGaussian
from vaejax.bounds import sample_posterior
from vaejax.inference.refined import WithPosterior

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


def test_of_correlated_latents_it_reaches_the_mean_field_optimum():
    """Posterior N(m, Lam^-1): the best diagonal q has its mean, and variances 1 / Lam_jj."""
    x = jnp.asarray([0.7, -0.4])
    params = start(x)
    refined = vaejax.Refined(MIXED, 2_000, "standard", learning_rate=0.1, num_samples=64)
    q = jax.jit(refined.posterior)(params, x)
    np.testing.assert_allclose(q.loc, posterior_mean(params, np.asarray(x)), atol=0.01)
    precision = np.diag(posterior_precision(params))
    np.testing.assert_allclose(np.exp(-2 * q.log_scale), precision, rtol=0.03)


@vaejax.component
class Bent(vaejax.Model):
    """log p(x, z) = sin(2 z) - z^2, so that the gradient has noise wherever q is."""

    support = latent_support = vaejax.supports.REAL

    def log_joint(self, params, x, z):
        return jnp.sum(jnp.sin(2 * z) - z**2)

    def posterior(self, params, x):
        return vaejax.distributions.DiagNormalDensity(*params.phi)


def test_steps_are_adam_along_a_gradient_of_fresh_noise(x64):
    """Two steps by hand: step t has the key fold_in(key(0), t) and `num_samples` samples, and the
    rate falls along a cosine.
    """
    start = vaejax.distributions.DiagNormalDensity(jnp.asarray([0.2]), jnp.asarray([-0.3]))
    params = vaejax.Params((), (start.loc, start.log_scale))
    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, 2))
    q, state = start, optimizer.init(start)
    for t in range(2):
        key = jax.random.fold_in(jax.random.key(0), t)

        def bound(q, key=key):
            model, estimator = WithPosterior(Bent(), q), vaejax.StickTheLanding(5)
            return estimator(model, params, jnp.zeros(1), key)

        descent = jax.tree.map(jnp.negative, jax.grad(bound)(q))
        updates, state = optimizer.update(descent, state)
        q = jax.tree.map(jnp.add, q, updates)
    refined = vaejax.Refined(Bent(), 2, learning_rate=0.1, num_samples=5)
    refined_q = refined.posterior(params, jnp.zeros(1))
    np.testing.assert_allclose(
        [refined_q.loc, refined_q.log_scale], [q.loc, q.log_scale], rtol=1e-9
    )


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


# Of a conditional model: p(z | u) = N(u, 1), p(x | z) = N(w z + b, tau^2).

CONDITIONAL = conditional_line(POINT)
EXAMPLE = {"u": jnp.asarray([-0.7]), "x": POINT.datum}


def test_analytic_kl_of_a_refined_conditional_model_by_hand(x64):
    """mean_k log N(x; w z_k + b, tau^2) - KL(N(mu, s^2) || N(u, 1)); once a shape error of the
    prior's net.
    """
    model, params = CONDITIONAL
    key, u = jax.random.key(2), -0.7
    values = [
        vaejax.AnalyticKL(3)(either, params, EXAMPLE, key)
        for either in (model, vaejax.Refined(model, 0))
    ]
    zs = np.asarray(sample_posterior(model.posterior(params, EXAMPLE), key, 3))
    residuals = POINT.x - POINT.w * zs - POINT.b
    log_p_x = np.mean(-0.5 * (np.log(2 * np.pi * POINT.tau**2) + residuals**2 / POINT.tau**2))
    kl = 0.5 * (POINT.s**2 + (POINT.mu - u) ** 2 - 1) - np.log(POINT.s)
    np.testing.assert_allclose(values, log_p_x - kl, rtol=1e-6)
    assert values[0] == values[1]


def test_refined_conditional_inference_reaches_log_p_of_x_given_u(x64):
    """At the exact posterior every weight is p(x | u) = N(x; w u + b, w^2 + tau^2); and its draws
    have the inputs that they are given.
    """
    model, params = CONDITIONAL
    refined = vaejax.Refined(model, 400, start="standard", learning_rate=0.1)
    variance, residual = POINT.w**2 + POINT.tau**2, POINT.x - POINT.b + 0.7 * POINT.w
    exact = -0.5 * (np.log(2 * np.pi * variance) + residual**2 / variance)
    bound = jax.jit(partial(vaejax.elbo, refined))(params, EXAMPLE, jax.random.key(0))
    np.testing.assert_allclose(bound, exact, atol=2e-3)
    drawn, _ = refined.sample(params, jax.random.key(0), EXAMPLE)
    assert refined.inputs == ("u",) and drawn["u"] == EXAMPLE["u"]


def test_a_family_that_is_a_graph_refines_a_graph(x64):
    """One latent by name, its q a graph of `Free` nets: the exact posterior, as of the VAE."""
    prior, likelihood = POINT.model.prior, POINT.model.likelihood
    free = vaejax.DiagNormal(vaejax.Free(1), max_log_scale=None)
    nodes = vaejax.Node("z", prior), vaejax.Node("x", likelihood, "z")
    encoder = vaejax.DirectedGraph((vaejax.Node("z", free, "x"),), inputs=("x",))
    model = vaejax.GraphModel(vaejax.DirectedGraph(nodes), encoder)
    theta = {"z": (), "x": POINT.params.theta["likelihood"]}
    family = vaejax.DirectedGraph((vaejax.Node("z", free),))
    refined = vaejax.Refined(model, 400, "standard", family, learning_rate=0.1)
    params = vaejax.Params(theta, {"z": POINT.params.phi})
    bound = jax.jit(partial(vaejax.elbo, refined))(params, POINT.datum, jax.random.key(0))
    np.testing.assert_allclose(bound, POINT.log_marginal, atol=2e-3)


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
        theta, phi, _ = gradient(**changes)
        assert float(theta["likelihood"]["net"]["w"]) != 0
        assert (float(phi["loc"][0]) != 0) == moves


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"unknown Refined.start 'encodr'; did you mean encoder"):
        vaejax.Refined(POINT.model, 1, "encodr")
    with pytest.raises(ValueError, match=r"Refined.num_steps = -1"):
        vaejax.Refined(POINT.model, -1)
    with pytest.raises(
        ValueError, match='Refined.family starts from its own init.*start="standard"'
    ):
        vaejax.Refined(POINT.model, 1, family=POINT.model.encoder)
    with pytest.raises(TypeError, match=r"Refined.model is .*derive from vaejax.Model"):
        vaejax.Refined(POINT.model.encoder, 1)
    with pytest.raises(
        ValueError, match="Refined.family Bernoulli is for z binary, and the latents"
    ):
        vaejax.Refined(POINT.model, 1, "standard", vaejax.Bernoulli(vaejax.Free(1)))
    laplace = vaejax.VAE(POINT.model.prior, POINT.model.likelihood, vaejax.Laplace(vaejax.Free(1)))
    with pytest.raises(TypeError, match="Refined is for a q that is DiagNormal, .*give a `family`"):
        vaejax.Refined(laplace, 1).posterior(POINT.params, POINT.datum)
