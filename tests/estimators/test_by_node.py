"""Each layer's KL: the sum is the ELBO's, closed forms are taken where they hold, and the objective
is its formula.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import vaejax
from tests.lib.oracles import Line, LinearGaussian, assert_mean, exact_moments
from vaejax import DirectedGraph, Node

NET = partial(vaejax.MLP, hidden=(5,))
X = jnp.asarray([1.0, 0.0, 0.0, 1.0, 1.0])


def model_of(*encoder):
    """z2 -> z1 -> x, with the nodes of q."""
    nodes = (
        Node("z2", vaejax.StandardNormal(2)),
        Node("z1", vaejax.DiagNormal(NET(3, heads=2)), "z2"),
        Node("x", vaejax.Bernoulli(NET(5)), "z1"),
    )
    model = vaejax.GraphModel(DirectedGraph(nodes), DirectedGraph(encoder, inputs=("x",)))
    return model, jax.tree.map(lambda leaf: 0.5 * leaf, model.init(jax.random.key(0), X))


TOP_DOWN = model_of(
    Node("z2", vaejax.DiagNormal(NET(2, heads=2)), "x"),
    Node("z1", vaejax.DiagNormal(NET(3, heads=2)), ("x", "z2")),
)
BOTTOM_UP = model_of(
    Node("z1", vaejax.DiagNormal(NET(3, heads=2)), "x"),
    Node("z2", vaejax.DiagNormal(NET(2, heads=2)), "z1"),
)


@pytest.mark.parametrize("model, params", [TOP_DOWN, BOTTOM_UP], ids=["top-down", "bottom-up"])
def test_the_parts_add_up_to_the_elbo(model, params):
    keys = jax.random.split(jax.random.key(1), 40_000)
    by_node = jax.jit(jax.vmap(partial(vaejax.KLByNode(), model, params, X)))(keys)
    plain = jax.jit(jax.vmap(partial(vaejax.elbo, model, params, X)))(keys)
    assert_mean(np.asarray(by_node) - np.asarray(plain), 0, detectable=0.1)
    assert by_node.std() < plain.std()


def test_closed_forms_are_taken_where_they_hold():
    """Top down: all of z2's KL, and z1's given z2. Bottom up, z1's prior hangs on z2, which comes
    after z1 under q: one sample.
    """
    key = jax.random.key(2)
    (model, params), (other, other_params) = TOP_DOWN, BOTTOM_UP
    q, p = model.posterior(params, X), model.joint(params)
    z = q.sample(key)
    _, kl = vaejax.kl_by_node(model, params, X, key)
    np.testing.assert_allclose(
        kl["z2"], vaejax.kl_divergence(q.ready["z2"], p.ready["z2"]), rtol=1e-6
    )
    np.testing.assert_allclose(
        kl["z1"], vaejax.kl_divergence(q.factor("z1", z), p.factor("z1", z)), rtol=1e-6
    )
    q, p = other.posterior(other_params, X), other.joint(other_params)
    z = q.sample(key)
    _, kl = vaejax.kl_by_node(other, other_params, X, key)
    np.testing.assert_allclose(
        kl["z2"], vaejax.kl_divergence(q.factor("z2", z), p.ready["z2"]), rtol=1e-6
    )
    np.testing.assert_allclose(
        kl["z1"], q.ready["z1"].log_prob(z["z1"]) - p.factor("z1", z).log_prob(z["z1"]), rtol=1e-5
    )


def test_the_objective_is_its_formula():
    model, params = TOP_DOWN
    xs, key = jnp.stack([X, 1 - X, X]), jax.random.key(3)
    keys = [jax.random.split(of, 1)[0] for of in jax.random.split(key, 3)]
    by_node = jax.jit(partial(vaejax.kl_by_node, model, params))
    each = [by_node(x, key) for x, key in zip(xs, keys, strict=True)]
    log_p_x = np.mean([log_p for log_p, _ in each])
    kl = {name: np.mean([of[name] for _, of in each]) for name in ("z1", "z2")}
    nats = float(kl["z1"] + kl["z2"]) / 2  # one layer is above, the other below
    terms = jax.jit(vaejax.FreeBitsByNode(model, nats, vaejax.WarmUp(10)))(params, xs, key, step=4)
    np.testing.assert_allclose(terms.bound, log_p_x - kl["z1"] - kl["z2"], rtol=1e-5)
    np.testing.assert_allclose(
        terms.objective, log_p_x - 0.4 * (max(kl["z1"], nats) + max(kl["z2"], nats)), rtol=1e-5
    )


def test_free_bits_take_the_pressure_off_a_layer_below_them():
    """Its gradient is then that of the likelihood alone."""
    model, params = TOP_DOWN
    xs, key = X[None], jax.random.key(3)

    def objective(nats):
        return jax.jit(
            jax.grad(lambda p: vaejax.FreeBitsByNode(model, nats)(p, xs, key).objective)
        )(params)

    assert float(jnp.abs(objective(0.0).theta["z1"]["params"]["Dense_0"]["kernel"]).max()) > 0
    assert float(jnp.abs(objective(1e3).theta["z1"]["params"]["Dense_0"]["kernel"]).max()) == 0


def test_mistakes_are_named():
    point = LinearGaussian()
    with pytest.raises(
        TypeError,
        match="a KL by node is of a GraphModel whose encoder is a DirectedGraph; this is a VAE",
    ):
        vaejax.FreeBitsByNode(point.model, 1.0)
    with pytest.raises(TypeError, match="this is a VAE"):
        vaejax.kl_by_node(point.model, point.params, point.datum, jax.random.key(0))


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
    model = vaejax.GraphModel(DirectedGraph(nodes), BOTTOM_UP[0].encoder)
    params = jax.eval_shape(model.init, jax.random.key(0), X)
    with pytest.raises(
        TypeError, match="a prior that is a diagonal normal, not .* for z1; use vaejax.DReG"
    ):
        jax.eval_shape(partial(vaejax.GeneralisedDReG(2), model), params, X, jax.random.key(0))
