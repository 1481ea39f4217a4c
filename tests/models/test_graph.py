"""Directed graphs as values: factors of graphs, batches, noise, mistakes, drawings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib.graphs import Affine, binary_graph, name
from vaejax import DirectedGraph, Node

# The graph itself.


def test_a_graph_is_a_factor_of_a_graph():
    inner = DirectedGraph(
        (
            Node("a", vaejax.Gaussian(Affine(), 1.0), "u"),
            Node("b", vaejax.Gaussian(Affine(), 1.0), "a"),
        ),
        inputs=("u",),
    )
    outer = DirectedGraph(
        (
            Node("u", vaejax.StandardNormal(1)),
            Node("ab", inner, "u"),
            Node("c", vaejax.Gaussian(Affine(), 1.0), "ab"),
        )
    )
    params = outer.init(jax.random.key(0))
    value = outer(params).sample(jax.random.key(1))
    by_hand = outer(params).log_probs(value)
    assert set(value["ab"]) == {"a", "b"} and set(by_hand) == {"u", "ab", "c"}
    plain = DirectedGraph(
        (
            Node("u", vaejax.StandardNormal(1)),
            Node("a", vaejax.Gaussian(Affine(), 1.0), "u"),
            Node("b", vaejax.Gaussian(Affine(), 1.0), "a"),
            Node("c", vaejax.Gaussian(Affine(), 1.0), ("a", "b")),
        )
    )
    same = plain({"u": params["u"], **params["ab"], "c": params["c"]})
    np.testing.assert_allclose(
        outer(params).log_prob(value),
        same.log_prob({"u": value["u"], **value["ab"], "c": value["c"]}),
        rtol=1e-6,
    )


def test_one_node_draws_what_its_factor_draws():
    graph = DirectedGraph(
        (Node("z", vaejax.DiagNormal(vaejax.MLP(2, (3,), heads=2)), "x"),), inputs=("x",)
    )
    x, key = jnp.ones(4), jax.random.key(1)
    params = graph.init(jax.random.key(0), x)
    np.testing.assert_array_equal(
        graph(params, x).sample(key)["z"], graph["z"].conditional(params["z"], x).sample(key)
    )
    np.testing.assert_array_equal(
        graph(params, {"x": x}).mean()["z"], graph["z"].conditional(params["z"], x).mean()
    )


def test_a_joint_is_a_distribution_over_batches_too():
    graph, params = binary_graph(4)
    batch = jax.jit(jax.vmap(lambda key: graph(params).sample(key)))(
        jax.random.split(jax.random.key(0), 7)
    )
    assert jax.jit(jax.vmap(graph(params).log_prob))(batch).shape == (7,)
    stopped = jax.lax.stop_gradient(graph(params))
    assert isinstance(stopped, type(graph(params)))


def test_graphs_are_values():
    assert binary_graph()[0] == binary_graph()[0] and hash(binary_graph()[0]) == hash(
        binary_graph()[0]
    )


def test_noise_other_than_independent_goes_node_by_node():
    """Antithetic pairs of a linear-Gaussian chain have opposite deviations in every node."""
    chain = DirectedGraph(
        (
            Node("a", vaejax.Gaussian(Affine(), 1.0), "x"),
            Node("b", vaejax.Gaussian(Affine(), 0.5), "a"),
        ),
        inputs=("x",),
    )
    params = chain.init(jax.random.key(0), jnp.zeros(1))
    q = chain(params, jnp.zeros(1))
    noise = vaejax.Antithetic()
    draws = jax.jit(jax.vmap(lambda source: noise.at(q, source)[0].sample(None)))(
        noise.sources(q, jax.random.key(1), 2)
    )
    mean_a = params["a"]["net"]["b"]
    mean_b = params["b"]["net"]["w"] @ mean_a + params["b"]["net"]["b"]
    np.testing.assert_allclose(draws["a"].mean(0), mean_a, atol=1e-5)
    np.testing.assert_allclose(draws["b"].mean(0), mean_b, atol=1e-5)


NORMAL = vaejax.Gaussian(Affine(), 1.0)


MISTAKES = {
    "a cycle": (
        lambda: DirectedGraph((Node("a", NORMAL, "b"), Node("b", NORMAL, "a"))),
        "a -> b -> a is a cycle",
    ),
    "an unknown parent": (
        lambda: DirectedGraph((Node("z", NORMAL), Node("x", NORMAL, "zz"))),
        "node 'x': unknown parent 'zz'; did you mean z",
    ),
    "a name twice": (
        lambda: DirectedGraph((Node("z", NORMAL), Node("z", NORMAL))),
        "'z' stands for more than one node",
    ),
    "a missing value": (
        lambda: binary_graph(3)[0](binary_graph(3)[1]).log_prob({name(0): jnp.ones(1)}),
        "no value for 'v01'",
    ),
    "an unknown value": (
        lambda: binary_graph(3)[0](binary_graph(3)[1]).log_marginal({"v1": jnp.ones(1)}),
        "unknown node 'v1'; did you mean v01",
    ),
    "a missing input": (
        lambda: DirectedGraph((Node("z", NORMAL, "x"),), ("x",))({"z": ()}, {"y": 1}),
        "no value for the input 'x'",
    ),
    "a value of another shape": (
        lambda: binary_graph(1)[0](binary_graph(1)[1]).log_prob({name(0): jnp.ones(2)}),
        r"shape \(2,\), but one event has shape \(1,\)",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_named(case):
    make, message = MISTAKES[case]
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_in_graphviz():
    graph = DirectedGraph((Node("z", NORMAL), Node("x", NORMAL, ("z", "y"))), inputs=("y",))
    text = graph.dot(observed=("x",))
    assert text.startswith("digraph {") and '"z" -> "x";' in text and '"y" -> "x";' in text
    assert '"x" [shape=circle, style=filled' in text and '"y" [shape=plaintext]' in text


def test_the_drawing_has_every_node_and_arrow():
    from matplotlib.patches import Circle

    from vaejax import plots

    graph = DirectedGraph((Node("z", NORMAL, "y"), Node("x", NORMAL, ("z", "y"))), inputs=("y",))
    axes = plots.graph(graph, observed=("x",)).axes[0]
    assert {text.get_text() for text in axes.texts if text.get_text()} == {"x", "y", "z"}
    assert (
        sum(text.arrow_patch is not None for text in axes.texts if hasattr(text, "arrow_patch"))
        == 3
    )
    assert (
        sum(isinstance(patch, Circle) and patch.get_linewidth() > 0 for patch in axes.patches) == 2
    )
