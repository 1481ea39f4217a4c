"""The objectives of a VAE on the graph model that equals it, and on one that has inputs."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib.lines import KEY, terms_and_gradient
from vaejax import TCVAE, Beta, DirectedGraph, FreeBits, Node, WarmUp

NET = partial(vaejax.MLP, hidden=(5,))
PRIOR, LIKELIHOOD = vaejax.LearnedNormal(3), vaejax.Bernoulli(NET(5))
ENCODER = vaejax.DiagNormal(NET(3, heads=2))
PLAIN = vaejax.VAE(PRIOR, LIKELIHOOD, ENCODER)
GRAPH = vaejax.GraphModel(DirectedGraph((Node("z", PRIOR), Node("x", LIKELIHOOD, "z"))), ENCODER)
XS = (np.random.default_rng(0).random((6, 5)) < 0.4).astype(np.float32)
OBJECTIVES = {
    "TCVAE": lambda model: TCVAE(model, 20, 0.5, WarmUp(10, end=4.0), 2.0),
    "TCVAE, weighted": lambda model: TCVAE(model, 20, beta=3.0, estimator="weighted"),
    "FreeBits": lambda model: FreeBits(model, 0.3, 2),
    "Beta": lambda model: vaejax.minibatch(Beta(WarmUp(10), 2), model),
    "AnalyticKL": lambda model: vaejax.minibatch(vaejax.AnalyticKL(2), model),
    "GeneralisedDReG": lambda model: vaejax.minibatch(vaejax.GeneralisedDReG(2), model),
}


@pytest.mark.parametrize("make", OBJECTIVES.values(), ids=OBJECTIVES)
def test_equal_to_the_vae(make):
    """In value, gradient and the bound of one example; an example by name too."""
    params = PLAIN.init(jax.random.key(0), XS[0])
    theta = {"z": params.theta["prior"], "x": params.theta["likelihood"]}
    graph_params = params._replace(theta=theta)
    plain, graph = (
        jax.jit(terms_and_gradient(make(model), step=4))(start, xs, KEY)
        for model, start, xs in ((PLAIN, params, XS), (GRAPH, graph_params, {"x": XS}))
    )
    np.testing.assert_allclose(graph[0][:2], plain[0][:2], rtol=1e-5)
    renamed = graph[1]._replace(
        theta={"prior": graph[1].theta["z"], "likelihood": graph[1].theta["x"]}
    )
    for ours, theirs in zip(jax.tree.leaves(renamed), jax.tree.leaves(plain[1]), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        make(GRAPH).bound(graph_params, XS[0], KEY),
        make(PLAIN).bound(params, XS[0], KEY),
        rtol=1e-5,
    )


CONDITIONAL = vaejax.GraphModel(
    DirectedGraph(
        (Node("z", ENCODER, "u"), Node("x", vaejax.Bernoulli(NET(5)), ("z", "u"))), inputs=("u",)
    ),
    DirectedGraph((Node("z", ENCODER, ("x", "u")),), inputs=("x", "u")),
)


def test_a_conditional_model_has_no_one_prior():
    """Whose q(z) the decomposition could be held against; FreeBits has no closed form by name."""
    xs = {"x": XS, "u": XS[:, :2]}
    params = jax.eval_shape(CONDITIONAL.init, KEY, jax.tree.map(lambda leaf: leaf[0], xs))
    message = "TCVAE holds q.z. against one prior, .* inputs u; use a model without inputs"
    with pytest.raises(TypeError, match=message) as error:
        jax.eval_shape(partial(TCVAE(CONDITIONAL, 20), step=0), params, xs, KEY)
    assert "\n" not in str(error.value)
    message = "FreeBits splits .* must be diagonal normals, not Joint and Joint"
    with pytest.raises(TypeError, match=message):
        jax.eval_shape(partial(FreeBits(CONDITIONAL, 0.1), step=0), params, xs, KEY)


def test_a_conditional_model_with_a_bare_encoder():
    """TCVAE is refused; FreeBits takes each example's own prior, and is `AnalyticKL` at 0 nats."""
    model = vaejax.GraphModel(CONDITIONAL.graph, ENCODER)
    xs = {"x": jnp.asarray(XS), "u": jnp.asarray(XS[:, :2])}
    params = model.init(KEY, jax.tree.map(lambda leaf: leaf[0], xs))
    with pytest.raises(TypeError, match="TCVAE holds q.z. against one prior"):
        TCVAE(model, 20)(params, xs, KEY, 0)
    free = FreeBits(model, 0.0)(params, xs, KEY, 0)
    analytic = vaejax.minibatch(vaejax.AnalyticKL(), model)(params, xs, KEY, 0)
    np.testing.assert_allclose(free[:3], analytic[:3], rtol=1e-5)
