"""Node by node is exact: against enumeration and quadrature."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import vaejax
from tests.lib.given_keys import key_of_uniforms
from tests.lib.graph_models import semi_supervised
from tests.lib.oracles import LinearGaussian, assert_mean, exact_moments, gauss_hermite
from vaejax import DirectedGraph, Node

# Node by node.


def chain(num_samples=1):
    """Three binary latents in a chain, a -> b -> c, under p and under q."""
    net = partial(vaejax.MLP, hidden=(4,))
    graph = DirectedGraph(
        (
            Node("a", vaejax.FactorialBernoulli(1)),
            Node("b", vaejax.Bernoulli(net(1)), "a"),
            Node("c", vaejax.Bernoulli(net(1)), "b"),
            Node("x", vaejax.Bernoulli(net(3)), ("a", "b", "c")),
        )
    )
    nodes = (
        Node("a", vaejax.Bernoulli(net(1)), "x"),
        Node("b", vaejax.Bernoulli(net(1)), ("x", "a")),
        Node("c", vaejax.Bernoulli(net(1)), ("x", "b")),
    )
    model = vaejax.GraphModel(graph, DirectedGraph(nodes, inputs=("x",)))
    x = jnp.asarray([1.0, 0.0, 1.0])
    params = jax.tree.map(lambda leaf: 2 * leaf, model.init(jax.random.key(0), x))
    return model, params, x


def exact_elbo(model, params, x):
    """By enumeration, written out."""
    q = model.posterior(params, x)

    def term(state):
        z = dict(zip("abc", state[:, None], strict=True))
        log_q = q.log_prob(z)
        return jnp.exp(log_q) * (model.log_joint(params, x, z) - log_q)

    states = jnp.asarray(list(itertools.product([0.0, 1.0], repeat=3)))
    return jnp.sum(jax.vmap(term)(states))


def assert_mean_gradient(draws, expected):
    """`assert_mean`, and equality where the draws are all the same."""
    draws = np.asarray(draws, np.float64)
    moves = draws.std(axis=0) > 1e-5
    np.testing.assert_allclose(draws[:, ~moves].mean(axis=0), expected[~moves], atol=1e-4)
    assert_mean(draws[:, moves], expected[moves], detectable=0.2)


def test_all_nodes_enumerated_is_the_elbo_and_its_gradient():
    model, params, x = chain()
    estimator = vaejax.ByNode(enumerate=("a", "b", "c"))
    value, gradient = jax.jit(jax.value_and_grad(partial(estimator, model)))(
        params, x, jax.random.key(0)
    )
    expected, exact = jax.jit(jax.value_and_grad(partial(exact_elbo, model)))(params, x)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(
        ravel_pytree(gradient)[0], ravel_pytree(exact)[0], rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize(
    "estimator",
    [
        vaejax.ByNode(enumerate=("b",), score=("a", "c"), num_samples=2),
        vaejax.ByNode(enumerate=("a", "c"), score=("b",)),
        vaejax.ByNode(score=("a", "b", "c"), num_samples=3),
    ],
    ids=["middle", "ends", "none"],
)
def test_any_split_of_the_nodes_is_unbiased(estimator):
    """One enumerated before, between and after those that are sampled."""
    model, params, x = chain()
    exact = ravel_pytree(jax.jit(jax.grad(partial(exact_elbo, model)))(params, x))[0]
    gradient = jax.jit(
        jax.vmap(lambda key: ravel_pytree(jax.grad(partial(estimator, model))(params, x, key))[0])
    )
    draws = np.asarray(gradient(jax.random.split(jax.random.key(1), 20_000)))
    assert_mean_gradient(draws, np.asarray(exact))


def test_the_baseline_is_the_mean_of_the_other_samples():
    """At each pair of samples of a, b and c summed out: mean_k grad F(a_k) + (F(a_k) - F(a_j)) grad
    log q(a_k), so that equal samples have no score.
    """
    model, params, x = chain()
    estimator = vaejax.ByNode(enumerate=("b", "c"), score=("a",), num_samples=2)

    def total(params, a):
        """F(a) = sum_bc q(b, c | a) (log p(x, a, b, c) - log q(a, b, c)), and log q(a)."""
        q, summed = model.posterior(params, x), 0.0
        log_q_a = q.ready["a"].log_prob(a)
        for b, c in itertools.product([0.0, 1.0], repeat=2):
            z = {"a": a, "b": jnp.asarray([b]), "c": jnp.asarray([c])}
            log_q = q.log_prob(z)
            summed += jnp.exp(log_q - log_q_a) * (model.log_joint(params, x, z) - log_q)
        return summed, log_q_a

    @jax.jit
    def expected(params, a):
        """By the formula, at a = (a_1, a_2)."""
        (values, _), slopes = jax.vmap(lambda a: (total(params, a), jax.jacrev(total)(params, a)))(
            a
        )
        of_total, score = (jax.vmap(lambda tree: ravel_pytree(tree)[0])(part) for part in slopes)
        difference = values - values[::-1]
        return jnp.mean(of_total + difference[:, None] * score, axis=0)

    @jax.jit
    def found(params, a):
        """b = 1[u < p], so u = 0 gives 1 and u near 1 gives 0; b and c draw nothing."""
        u = (1 - a) * (1 - 1e-6) * jnp.asarray([[1.0, 0.0, 0.0]])
        key = key_of_uniforms(u)
        return ravel_pytree(jax.grad(partial(estimator, model))(params, x, key))[0]

    for pair in itertools.product([0.0, 1.0], repeat=2):
        a = jnp.asarray(pair)[:, None]
        np.testing.assert_allclose(found(params, a), expected(params, a), rtol=1e-3, atol=1e-4)


def test_a_smooth_node_by_the_score_function_has_no_path(x64):
    """Mean and variance of its gradient are those of the score function with the constant 1 for a
    baseline: f brings minus the score of its own.
    """
    point = LinearGaussian()
    prior, likelihood, q = point.model.prior, point.model.likelihood, point.model.encoder
    encoder = DirectedGraph((Node("z", q, "x"),), inputs=("x",))
    graph = DirectedGraph((Node("z", prior), Node("x", likelihood, "z")))
    theta = {"z": (), "x": point.params.theta["likelihood"]}

    def vector(gradient):
        theta, phi = gradient.theta["x"]["net"], gradient.phi["z"]
        return jnp.stack([phi["loc"][0], phi["log_scale"][0], theta["w"]])

    measured = exact_moments(
        vaejax.ByNode(score=("z",)),
        point,
        model=vaejax.GraphModel(graph, encoder),
        params=vaejax.Params(theta, {"z": point.params.phi}),
        vector=vector,
    )
    expected = exact_moments(vaejax.ScoreFunction(1, vaejax.ConstantBaseline(1.0)), point)
    for ours, theirs in zip(measured, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)


def test_paths_and_sums_together_by_quadrature(x64):
    """y summed out, z by its path: the gradient's mean over z's noise is that of the exact bound,
    by Gauss-Hermite.
    """
    model, params, x = semi_supervised()
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
    noise, weights = gauss_hermite(20, 2)

    def log_q_y(params):
        return jax.nn.log_softmax(model.encoder["y"].conditional(params.phi["y"], x).logits)

    def exact(params):
        def term(y, log_q):
            q = model.encoder["z"].conditional(params.phi["z"], (x, y))
            zs = q.loc[None] + jnp.exp(q.log_scale)[None] * noise
            log_w = jax.vmap(
                lambda z: model.log_joint(params, x, {"z": z, "y": y}) - q.log_prob(z)
            )(zs)
            return jnp.exp(log_q) * (weights @ log_w - log_q)

        return jnp.sum(jax.vmap(term)(jnp.eye(3), log_q_y(params)))

    gradient = jax.jit(
        jax.vmap(
            lambda key: ravel_pytree(
                jax.grad(partial(vaejax.ByNode(("y",)), model))(params, x, key)
            )[0]
        )
    )
    draws = np.asarray(gradient(jax.random.split(jax.random.key(1), 20_000)))
    expected = np.asarray(ravel_pytree(jax.jit(jax.grad(exact))(params))[0])
    assert_mean_gradient(draws, expected)
