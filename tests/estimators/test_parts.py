"""What an estimator says of its bound's parts: the mean of the reconstruction is E_q log p(x | z),
and it is the bound plus the rate.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib.binary import MODEL, NET, PARAMS, X, with_psi
from tests.lib.cases import cases
from tests.lib.oracles import LinearGaussian, assert_mean
from vaejax import DirectedGraph, Node

OF_BINARY = {
    "DisARM": vaejax.DisARM(4),
    "REBAR": vaejax.REBAR(2),
    "RELAX": vaejax.RELAX(NET(1)),
    "DoubleControlVariate": vaejax.DoubleControlVariate(2),
    "Relaxed": vaejax.Relaxed(0.5, 2),
    "StraightThrough": vaejax.StraightThrough(0.5, 2),
    "ScoreFunction": vaejax.ScoreFunction(2),
}
GRAPH = vaejax.GraphModel(
    DirectedGraph((Node("z", MODEL.prior), Node("x", MODEL.likelihood, "z"))),
    DirectedGraph((Node("z", MODEL.encoder, "x"),), inputs=("x",)),
)
GRAPH_PARAMS = vaejax.Params(
    {"z": PARAMS.theta["prior"], "x": PARAMS.theta["likelihood"]}, {"z": PARAMS.phi}
)


def reconstructions(estimator, model, params, x, num_draws):
    """Of so many draws, and the bounds less them."""

    @jax.jit
    @jax.vmap
    def draw(key):
        terms = estimator.terms(model, params, x, key, 0)
        return terms.reconstruction, terms.reconstruction - terms.bound

    return draw(jax.random.split(jax.random.key(3), num_draws))


def exact_parts():
    terms = vaejax.Enumerate().terms(MODEL, PARAMS, X, jax.random.key(0), 0)
    return float(terms.reconstruction), float(terms.reconstruction - terms.bound)


@pytest.mark.parametrize("estimator", cases(OF_BINARY, slow=("RELAX", "ScoreFunction")))
def test_of_binary_latents(estimator):
    parts = reconstructions(estimator, MODEL, with_psi(estimator), X, 40_000)
    for part, expected in zip(parts, exact_parts(), strict=True):
        assert_mean(part, expected, detectable=0.1)


def test_of_nodes_that_are_summed_out():
    """Exactly, with any key; and by the score function in the mean."""
    expected = exact_parts()
    measured = reconstructions(vaejax.ByNode(enumerate=("z",)), GRAPH, GRAPH_PARAMS, X, 2)
    np.testing.assert_allclose([part[0] for part in measured], expected, rtol=1e-4)
    sampled = reconstructions(vaejax.ByNode(score=("z",)), GRAPH, GRAPH_PARAMS, X, 40_000)
    for part, exact in zip(sampled, expected, strict=True):
        assert_mean(part, exact, detectable=0.1)


@pytest.mark.parametrize(
    "estimator",
    [vaejax.TaylorControlVariate(2), vaejax.MeasureValued(2)],
    ids=lambda estimator: type(estimator).__name__,
)
def test_of_a_normal_q(estimator):
    """The rate's mean is the KL in closed form."""
    point = LinearGaussian()
    model, params, x = point.model, point.params, jnp.asarray(point.datum)
    kl = vaejax.kl_divergence(model.posterior(params, x), model.p_z(params))
    _, rates = reconstructions(estimator, model, params, x, 40_000)
    assert_mean(rates, float(kl), detectable=0.1)
