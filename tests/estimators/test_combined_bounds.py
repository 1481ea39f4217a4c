"""MIWAE, CIWAE and PIWAE: by definition, by quadrature, and each half of PIWAE by its own bound."""

import itertools
import math
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import vaejax
from tests.lib.oracles import LinearGaussian, exact_moments
from tests.lib.started import started

POINT = LinearGaussian()
MIWAE = vaejax.Pathwise(4, vaejax.MIWAEBound(2))
ROWS = np.random.default_rng(0).normal(size=(6, 12)) * 3


@pytest.mark.parametrize("num_groups", [1, 2, 3, 4, 6, 12])
def test_miwae_is_the_mean_over_groups(x64, num_groups):
    for row in ROWS:
        logs = [math.log(np.mean(np.exp(group))) for group in row.reshape(num_groups, -1)]
        bound = vaejax.MIWAEBound(num_groups)(jnp.asarray(row))
        np.testing.assert_allclose(bound, np.mean(logs), rtol=1e-12)


def test_the_ends_are_the_elbo_and_iwae(x64):
    for row in jnp.asarray(ROWS):
        iwae, elbo = vaejax.iwae_bound(row), vaejax.elbo_bound(row)
        np.testing.assert_allclose(vaejax.MIWAEBound(1)(row), iwae, rtol=1e-12)
        np.testing.assert_allclose(vaejax.MIWAEBound(12)(row), elbo, rtol=1e-12)
        bounds = [elbo, *(vaejax.MIWAEBound(m)(row) for m in (4, 2)), iwae]
        assert all(low < high for low, high in itertools.pairwise(bounds))


def test_ciwae_is_between_by_beta(x64):
    for row in jnp.asarray(ROWS):
        iwae, elbo = vaejax.iwae_bound(row), vaejax.elbo_bound(row)
        for beta in (0.05, 0.5, 0.9):
            expected = beta * elbo + (1 - beta) * iwae
            np.testing.assert_allclose(vaejax.CIWAEBound(beta)(row), expected, rtol=1e-12)


def test_a_group_of_weight_zero(x64):
    log_w = jnp.asarray([0.0, -jnp.inf, 1.0, 2.0])
    assert np.isfinite(vaejax.MIWAEBound(2)(log_w))
    assert vaejax.MIWAEBound(2)(log_w.at[0].set(-jnp.inf)) == -jnp.inf


def test_miwae_of_two_groups_has_the_mean_of_iwae_2(x64):
    """By quadrature over four samples: value and gradient of IWAE-2, and half its variance."""
    two = exact_moments(vaejax.Pathwise(2, vaejax.iwae_bound), POINT, 2, 14)
    four = exact_moments(MIWAE, POINT, 4, 14)
    np.testing.assert_allclose(four[0], two[0], rtol=1e-12)
    np.testing.assert_allclose(four[1], two[1], rtol=1e-10)
    np.testing.assert_allclose(four[2], two[2] / 2, rtol=1e-10)


def test_the_mean_of_ciwae_is_that_of_its_parts(x64):
    elbo, iwae, ciwae = (
        exact_moments(vaejax.Pathwise(2, bound), POINT, 2, 40)
        for bound in (vaejax.elbo_bound, vaejax.iwae_bound, vaejax.CIWAEBound(0.3))
    )
    np.testing.assert_allclose(elbo[0], POINT.elbo, rtol=1e-10)
    for part in (0, 1):
        expected = 0.3 * elbo[part] + 0.7 * iwae[part]
        np.testing.assert_allclose(ciwae[part], expected, rtol=1e-10)


def test_piwae_is_unbiased_for_either_bound(x64):
    """By quadrature: in theta the mean of IWAE-4, in phi that of IWAE-2; the value is IWAE-4."""
    piwae, iwae, miwae = (
        exact_moments(estimator, POINT, 4, 14)
        for estimator in (vaejax.PIWAE(4, 2), vaejax.Pathwise(4, vaejax.iwae_bound), MIWAE)
    )
    np.testing.assert_allclose(piwae[0], iwae[0], rtol=1e-12)
    for part in (1, 2):  # of the mean and of the variance
        np.testing.assert_allclose(piwae[part][:2], miwae[part][:2], rtol=1e-10)
        np.testing.assert_allclose(piwae[part][2], iwae[part][2], rtol=1e-10)
    assert (np.abs(miwae[1] - iwae[1]) > 1e-3).all()


NET = vaejax.MLP(6, (5,))
LATENTS = vaejax.MLP(2, (5,), heads=2)
PRIORS = {
    "VampPrior": vaejax.VampPrior(3),
    "FlowPrior": vaejax.FlowPrior(2, 2, (4,)),
    "MixtureOfGaussians": vaejax.MixtureOfGaussians(2, 3),
}
ENCODERS = {
    "DiagNormal": vaejax.DiagNormal(LATENTS),
    "InverseAutoregressive": vaejax.InverseAutoregressive(vaejax.MLP(2, (5,), heads=3), 1, (4,)),
}


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("prior", PRIORS)
def test_each_half_is_the_derivative_of_its_own_bound(x64, prior, encoder):
    """With the same key: theta's of IWAE, phi's of MIWAE, that of a prior made of q included."""
    if (prior, encoder) == ("VampPrior", "InverseAutoregressive"):
        pytest.skip("a prior of those posteriors has no density")
    model = vaejax.VAE(PRIORS[prior], vaejax.Bernoulli(NET), ENCODERS[encoder])
    x = jnp.asarray([0.0, 1, 1, 0, 1, 0])
    params = started(model, jax.random.key(1), x)

    def gradient(estimator):
        value_and_gradient = jax.jit(jax.value_and_grad(partial(estimator, model)))
        return value_and_gradient(params, x, jax.random.key(2))

    value, halves = gradient(vaejax.PIWAE(6, 3))
    tight, of_theta = gradient(vaejax.Pathwise(6, vaejax.iwae_bound))
    _, of_phi = gradient(vaejax.Pathwise(6, vaejax.MIWAEBound(3)))
    np.testing.assert_allclose(value, tight, rtol=1e-12)
    chex.assert_trees_all_close(halves.theta, of_theta.theta, rtol=1e-10, atol=1e-14)
    chex.assert_trees_all_close(halves.phi, of_phi.phi, rtol=1e-10, atol=1e-14)
    assert np.max(np.abs(ravel_pytree(of_theta.phi)[0] - ravel_pytree(of_phi.phi)[0])) > 1e-4


def test_groups_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="PIWAE.num_groups = 3, and num_samples is 4; .* multiple"):
        vaejax.PIWAE(4, 3)
    with pytest.raises(ValueError, match="MIWAEBound.num_groups = 3, and num_samples is 4"):
        vaejax.MIWAEBound(3)(jnp.zeros(4))
    with pytest.raises(ValueError, match="MIWAEBound takes the log-weights"):
        vaejax.MIWAEBound(2)(jnp.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"CIWAEBound.beta = 1; .* between 0 and 1"):
        vaejax.CIWAEBound(1)
