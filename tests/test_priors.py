"""Priors, and the two that pull the design in different directions: one that ignores q and one that is made of it."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
from jax.scipy.special import logsumexp
from oracles import LinearGaussian
from scipy import stats

import vaejax

POINT = LinearGaussian()
X = jnp.linspace(0.0, 1.0, 4)


def laplace():
    return npd.Laplace(0.0, 1.0).expand((2,)).to_event(1)


def model_with(prior):
    encoder = vaejax.DiagNormal(vaejax.MLP(2, (5,), heads=2))
    return vaejax.VAE(prior, vaejax.Bernoulli(vaejax.MLP(4, (5,))), encoder)


def test_standard_normal(x64):
    z = np.array([0.3, -1.2])
    log_p = vaejax.StandardNormal(2)((), None).log_prob(z)
    np.testing.assert_allclose(log_p, stats.norm.logpdf(z).sum(), rtol=1e-13)


def test_vamp_prior_is_the_mean_of_the_encoder_at_its_pseudo_inputs():
    model = model_with(vaejax.VampPrior(3))
    params = model.init(jax.random.key(0), X)
    pseudo_inputs = params.theta["prior"]
    assert pseudo_inputs.shape == (3, 4)
    z = jnp.asarray([0.3, -1.2])
    expected = logsumexp(jnp.stack([model.posterior(params, u).log_prob(z) for u in pseudo_inputs])) - np.log(3)
    np.testing.assert_allclose(model.p_z(params).log_prob(z), expected, rtol=1e-5)


def test_vamp_prior_of_all_the_data_is_the_aggregated_posterior(x64):
    """Its density is mean_n q(z | x_n), which integrates to one."""
    point = LinearGaussian()
    model = vaejax.VAE(vaejax.VampPrior(2), point.model.likelihood, vaejax.DiagNormal(vaejax.MLP(1, (), heads=2)))
    params = model.init(jax.random.key(0), jnp.zeros(1))
    params.theta["prior"] = jnp.asarray([[-1.0], [2.0]])
    grid = np.linspace(-30, 30, 20_001)
    density = np.exp(jax.vmap(model.p_z(params).log_prob)(grid[:, None]))
    np.testing.assert_allclose(np.trapezoid(density, grid), 1, rtol=1e-10)
    encodings = [model.posterior(params, u) for u in params.theta["prior"]]
    expected = np.mean([stats.norm.pdf(grid, q.loc, np.exp(q.log_scale)) for q in encodings], axis=0)
    np.testing.assert_allclose(density, expected, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize(
    "prior, zero", [(vaejax.StandardNormal(2), True), (vaejax.NumPyroPrior(laplace), True), (vaejax.VampPrior(3), False)]
)
def test_phi_gradient_of_the_log_joint(prior, zero):
    """Exactly zero for a plain prior, and not for a VampPrior, whose density needs the encoder."""
    model = model_with(prior)
    params = model.init(jax.random.key(0), X)
    gradient = jax.grad(lambda p: model.log_joint(p, X, jnp.ones(2)))(params)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient.phi))
    assert largest == 0 if zero else largest > 1e-3


def test_pseudo_inputs_are_encoded_once_a_batch():
    """Their share of the work must not grow with the batch: counted in floating-point operations of the compiled program."""
    wide = vaejax.DiagNormal(vaejax.MLP(2, (512, 512), heads=2))
    model = vaejax.VAE(vaejax.VampPrior(50), vaejax.Bernoulli(vaejax.MLP(4, (5,))), wide)
    params = model.init(jax.random.key(0), X)

    def flops(batch):
        log_joint = jax.vmap(model.log_joint, (None, 0, 0))
        return jax.jit(log_joint).lower(params, jnp.zeros((batch, 4)), jnp.zeros((batch, 2))).compile().cost_analysis()["flops"]

    assert flops(64) < 1.2 * flops(1)


def test_numpyro_prior(x64):
    z = np.array([0.3, -1.2])
    prior = vaejax.NumPyroPrior(laplace)
    np.testing.assert_allclose(prior((), None).log_prob(z), stats.laplace.logpdf(z).sum(), rtol=1e-12)
    assert prior == vaejax.NumPyroPrior(laplace)
    with pytest.raises(ValueError, match=r"batch_shape \(2,\).* add .to_event\(1\)"):
        vaejax.NumPyroPrior(lambda: npd.Laplace(jnp.zeros(2), 1.0))((), None)


@pytest.mark.parametrize("components", [0, -3])
def test_a_mixture_has_components(components):
    with pytest.raises(ValueError, match=f"num_components = {components}"):
        vaejax.VampPrior(components)
