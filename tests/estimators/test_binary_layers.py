"""Estimators for binary latents in a graph of layers: against enumeration, and one layer against a
Bernoulli q.
"""

import jax
import numpy as np
import pytest

import vaejax
from tests.lib.binary import NET, X, gradients
from tests.lib.cases import cases
from tests.lib.oracles import assert_mean
from vaejax import DirectedGraph, Node


def two_layers(prior=vaejax.FactorialBernoulli(2), second=vaejax.Bernoulli(NET(2))):
    """x - b1 - b2 in q, b2 - b1 - x in p, two latents in each layer; b2 is shown x too."""
    above = Node("b2", prior)
    below = Node("b1", vaejax.Bernoulli(NET(2)), "b2")
    likelihood = Node("x", vaejax.Gaussian(NET(2), scale=0.7), "b1")
    layers = Node("b1", vaejax.Bernoulli(NET(2)), "x"), Node("b2", second, ("b1", "x"))
    encoder = DirectedGraph(layers, inputs=("x",))
    return vaejax.GraphModel(DirectedGraph((above, below, likelihood)), encoder)


def parameters(model, estimator):
    params = jax.tree.map(
        lambda leaf: leaf + 0.5 * jax.random.normal(jax.random.key(leaf.size), leaf.shape),
        model.init(jax.random.key(0), X),
    )
    psi = estimator.init(model, params, X, jax.random.key(1))
    return params._replace(psi=psi)


UNBIASED = {
    "DisARM": vaejax.DisARM(2),
    "DisARM, two pairs": vaejax.DisARM(4),
    "REBAR": vaejax.REBAR(),
    "RELAX": vaejax.RELAX(NET(1)),
}


@pytest.mark.parametrize("estimator", cases(UNBIASED, slow=("DisARM, two pairs", "REBAR")))
def test_unbiased_in_two_layers(estimator):
    """In every parameter of both layers of p and of q, and the value for the ELBO."""
    model = two_layers()
    params = parameters(model, estimator)
    exact_value, exact = (
        leaf[0] for leaf in gradients(vaejax.Enumerate(), 1, model, params._replace(psi=()))
    )
    assert np.abs(exact).max() > 0.5
    values, draws = gradients(estimator, 60_000, model, params)
    assert_mean(values, exact_value, detectable=0.25)
    assert_mean(draws, exact, detectable=0.4)


def test_psi_is_by_layer():
    """And the variance has a gradient in each part of it."""
    model, estimator = two_layers(), vaejax.RELAX(NET(1))
    params = parameters(model, estimator)
    assert set(params.psi) == {"b1", "b2"}
    gradient = jax.jit(jax.grad(lambda p: estimator(model, p, X, jax.random.key(3))))(params)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient.psi))


def test_the_partners_differ_from_their_layer_on():
    from vaejax.estimators.binary_layers import layers_of
    from vaejax.estimators.disarm import with_partners

    model = two_layers()
    params = parameters(model, vaejax.DisARM())
    layers = layers_of(model.posterior(params, X), vaejax.DisARM())
    draws = jax.jit(jax.vmap(layers.draw))(jax.random.split(jax.random.key(4), 50))
    zs = jax.jit(jax.vmap(lambda draw: with_partners(layers, draw)))(draws)
    np.testing.assert_array_equal(zs["b1"][:, 0], zs["b1"][:, 2])
    assert (zs["b1"][:, 0] != zs["b1"][:, 1]).any() and (zs["b2"][:, 0] != zs["b2"][:, 2]).any()


def test_a_layer_of_another_kind_is_refused():
    model = two_layers(vaejax.StandardNormal(2), vaejax.DiagNormal(NET(2, heads=2)))
    params = model.init(jax.random.key(0), X)
    message = "DisARM is for a q whose node 'b2' is Bernoulli, and this one is DiagNormal; use"
    with pytest.raises(TypeError, match=message):
        vaejax.DisARM()(model, params, X, jax.random.key(0))
    with pytest.raises(TypeError, match="REBAR is for a q whose node 'b2' is Bernoulli"):
        vaejax.REBAR().init(model, params, X, jax.random.key(0))
