"""Doubly reparameterised gradients: unbiased for the gradient of the bound, with less variance,
exactly.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import vaejax
from tests.lib.oracles import Line, LinearGaussian, exact_moments, gradient_vector
from vaejax import DirectedGraph, Node

POINT = LinearGaussian()
NET = partial(vaejax.MLP, hidden=(5,))


@pytest.mark.parametrize(
    "alpha", [0.3, *(pytest.param(alpha, marks=pytest.mark.slow) for alpha in (0.0, 0.9, 1.0))]
)
def test_dreg_has_the_mean_of_the_renyi_bounds_gradient(x64, alpha):
    plain = exact_moments(vaejax.Pathwise(2, vaejax.renyi_bound(alpha)), POINT, 2, 40)
    doubly = exact_moments(vaejax.DReG(2, alpha), POINT, 2, 40)
    np.testing.assert_allclose(doubly[0], plain[0], rtol=1e-12)
    np.testing.assert_allclose(doubly[1], plain[1], atol=1e-8)
    assert (doubly[2][:2] < plain[2][:2]).all()


def test_generalised_dreg_in_the_priors_parameters(x64):
    """Its mean is that of the plain gradient, in prior, likelihood and encoder."""
    point = LinearGaussian()
    model = vaejax.VAE(vaejax.LearnedNormal(1), point.model.likelihood, point.model.encoder)
    prior = {"loc": jnp.asarray([0.3]), "log_scale": jnp.asarray([-0.2])}
    params = point.params._replace(theta={**point.params.theta, "prior": prior})

    def flat(gradient):
        prior = gradient.theta["prior"]
        return jnp.concatenate([prior["loc"], prior["log_scale"], gradient_vector(gradient)])

    plain, generalised = (
        exact_moments(estimator, point, 2, 40, model=model, params=params, vector=flat)
        for estimator in (vaejax.Pathwise(2, vaejax.iwae_bound), vaejax.GeneralisedDReG(2))
    )
    np.testing.assert_allclose(generalised[0], plain[0], rtol=1e-12)
    np.testing.assert_allclose(generalised[1], plain[1], atol=1e-8)
    assert (generalised[2][2:4] < plain[2][2:4]).all()
    with pytest.raises(
        TypeError,
        match=(
            "GeneralisedDReG needs a prior that is a diagonal normal, not Mixture for z; use"
            " vaejax.DReG"
        ),
    ):
        vamp = vaejax.VAE(vaejax.VampPrior(2), model.likelihood, model.encoder)
        key = jax.random.key(0)
        params = jax.eval_shape(vamp.init, key, point.datum)
        jax.eval_shape(partial(vaejax.GeneralisedDReG(2), vamp), params, point.datum, key)


def test_generalised_dreg_at_the_posterior(x64):
    """There the weights are equal, and in the prior's location its variance is (1 - lam)^2 times
    that of DReG, in closed form.
    """
    point = POINT.at_posterior()
    model = vaejax.VAE(vaejax.LearnedNormal(1), point.model.likelihood, point.model.encoder)
    prior = {"loc": jnp.zeros(1), "log_scale": jnp.zeros(1)}
    params = point.params._replace(theta={**point.params.theta, "prior": prior})
    dreg, generalised = (
        exact_moments(
            estimator,
            point,
            2,
            20,
            model=model,
            params=params,
            vector=lambda gradient: gradient.theta["prior"]["loc"],
        )[2]
        for estimator in (vaejax.DReG(2), vaejax.GeneralisedDReG(2))
    )
    np.testing.assert_allclose(generalised / dreg, (1 - POINT.lam) ** 2, rtol=1e-8)


LINE = vaejax.Gaussian(Line(), scale="learned")
LINES = DirectedGraph(
    (
        Node("z2", vaejax.LearnedNormal(1)),
        Node("z1", LINE, "z2"),
        Node("x", vaejax.Gaussian(Line(), scale=0.8), "z1"),
    )
)
DOWN = DirectedGraph((Node("z2", LINE, "x"), Node("z1", LINE, "z2")), inputs=("x",))
UP = DirectedGraph((Node("z1", LINE, "x"), Node("z2", LINE, "z1")), inputs=("x",))


def line(w, b, **rest):
    return {"net": {"w": jnp.asarray(w), "b": jnp.asarray(b)}, **jax.tree.map(jnp.asarray, rest)}


@pytest.mark.parametrize("encoder", [DOWN, UP], ids=["top-down", "bottom-up"])
def test_dreg_of_a_hierarchy(x64, encoder):
    """Plain and generalised have the mean of the total derivative in every parameter, by
    quadrature, and differ in the prior's alone.

    So stopping q stops its parameters, and never the path of one latent through the factor of
    another.
    """
    model = vaejax.GraphModel(LINES, encoder)
    theta = {
        "z2": {"loc": jnp.asarray([0.2]), "log_scale": jnp.asarray([0.1])},
        "z1": line(0.5, 0.1, log_scale=-0.1),
        "x": line(0.6, 0.2),
    }
    params = vaejax.Params(
        theta, {"z1": line(0.3, 0.2, log_scale=-0.6), "z2": line(0.2, -0.1, log_scale=-0.5)}
    )

    def exact(estimator):
        vector, x = lambda gradient: ravel_pytree(gradient)[0], jnp.asarray([1.1])
        return exact_moments(
            estimator,
            None,
            2,
            12,
            model=model,
            params=params,
            vector=vector,
            x=x,
            noise_shape=(2, 1),
        )

    plain, dreg, generalised = map(
        exact, (vaejax.Pathwise(2, vaejax.iwae_bound), vaejax.DReG(2), vaejax.GeneralisedDReG(2))
    )
    for value, mean, _ in (dreg, generalised):
        np.testing.assert_allclose(value, plain[0], rtol=1e-12)
        np.testing.assert_allclose(mean, plain[1], atol=2e-5)  # what 12 nodes leave
    of_prior = slice(2, 7)  # after x's two numbers, and before phi
    ratio = np.asarray(generalised[2] / dreg[2])
    assert (np.abs(ratio[of_prior] - 1) > 0.1).all()
    np.testing.assert_allclose(np.delete(ratio, of_prior), 1, rtol=1e-10)


def test_generalised_dreg_names_the_factor_that_it_cannot_take():
    nodes = (
        Node("z2", vaejax.LearnedNormal(2)),
        Node("z1", vaejax.Laplace(NET(3, heads=2)), "z2"),
        Node("x", vaejax.Bernoulli(NET(5)), "z1"),
    )
    encoder = (
        Node("z1", vaejax.DiagNormal(NET(3, heads=2)), "x"),
        Node("z2", vaejax.DiagNormal(NET(2, heads=2)), "z1"),
    )
    model = vaejax.GraphModel(DirectedGraph(nodes), DirectedGraph(encoder, inputs=("x",)))
    x = jnp.zeros(5)
    params = jax.eval_shape(model.init, jax.random.key(0), x)
    with pytest.raises(
        TypeError, match="a prior that is a diagonal normal, not .* for z1; use vaejax.DReG"
    ):
        jax.eval_shape(partial(vaejax.GeneralisedDReG(2), model), params, x, jax.random.key(0))
