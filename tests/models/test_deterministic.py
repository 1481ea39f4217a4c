"""Deterministic nodes: a graph with them is the graph of the composed nets, each computed once."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib.graphs import Affine
from vaejax import Deterministic, DirectedGraph, Node, plots

NET = partial(vaejax.MLP, hidden=(3,))
CALLS: list[str] = []


@vaejax.component
class Noted:
    """A net that notes each evaluation."""

    net: vaejax.MLP
    name: str

    def init(self, key, example):
        return self.net.init(key, example)

    def apply(self, params, example):
        CALLS.append(self.name)
        return self.net.apply(params, example)


@vaejax.component
class Composed:
    """(x, ...) -> outer(inner(...))."""

    outer: object
    inner: object

    def init(self, key, example):
        inner_key, outer_key = jax.random.split(key)
        inner = self.inner.init(inner_key, example)
        return inner, self.outer.init(outer_key, self.inner.apply(inner, example))

    def apply(self, params, example):
        return self.outer.apply(params[1], self.inner.apply(params[0], example))


SHARED = DirectedGraph(
    (
        Node("a", vaejax.DiagNormal(NET(2, heads=2)), "h"),
        Node("b", vaejax.DiagNormal(NET(2, heads=2)), ("h", "a")),
        Node("c", vaejax.DiagNormal(NET(2, heads=2)), "g"),
        Node("d", vaejax.DiagNormal(NET(2, heads=2)), ("g", "h")),
    ),
    ("x",),
    (
        Deterministic("g", Noted(NET(4), "g"), ("h", "b")),
        Deterministic("h", Noted(NET(5), "h"), "x"),
    ),
)
X = jnp.asarray([0.5, -1.0, 2.0])


def double(tree):
    """The same numbers in float64: nets start in float32."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), tree)


def test_it_is_the_graph_with_the_values_put_in(x64):
    """log p and samples: the factors are those at g(h(x), b) and h(x), by hand."""
    params, x = double((SHARED.init(jax.random.key(0), X), X))
    assert SHARED.order == ("a", "b", "c", "d")
    joint, key = SHARED(params, x), jax.random.key(1)
    value, log_p = joint.sample_and_log_prob(key)
    h = SHARED.functions["h"].net.apply(params["h"], x)
    g = SHARED.functions["g"].net.apply(params["g"], (h, value["b"]))
    shown = {"a": h, "b": (h, value["a"]), "c": g, "d": (g, h)}
    keys = dict(zip("abcd", jax.random.split(key, 4), strict=True))
    total = 0.0
    for name, given in shown.items():
        factor = SHARED[name].conditional(params[name], given)
        np.testing.assert_allclose(factor.sample(keys[name]), value[name], rtol=1e-12)
        total += factor.log_prob(value[name])
    np.testing.assert_allclose(log_p, total, rtol=1e-12)
    np.testing.assert_allclose(joint.log_prob(value), total, rtol=1e-12)
    sample = joint.at_uniform(jnp.full(8, 0.3)).sample(None)
    assert set(sample) == {*"abcd"} and np.isfinite(joint.log_prob(sample))


def test_each_is_computed_once():
    """That of x with the graph, however many samples are drawn; that of a latent once a sample."""
    params = SHARED.init(jax.random.key(0), X)
    CALLS.clear()
    joint = SHARED(params, X)
    assert CALLS == ["h"]
    value = joint.sample(jax.random.key(1))
    joint.sample_and_factors(jax.random.key(1))
    assert CALLS == ["h", "g", "g"]
    joint.log_prob(value)
    assert CALLS == ["h", "g", "g", "g"]
    joint.factor("c", value)
    joint.factor("b", value)  # which needs none that is late
    assert CALLS == ["h", "g", "g", "g", "g"]


def test_a_density_depends_on_it_smoothly(x64):
    """The gradient in its parameters is that of the composed net."""
    encoder = DirectedGraph(
        (Node("z", vaejax.DiagNormal(NET(2, heads=2)), "h"),),
        ("x",),
        (Deterministic("h", NET(4), "x"),),
    )
    composed = vaejax.DiagNormal(Composed(NET(2, heads=2), NET(4)))
    params, x = double((encoder.init(jax.random.key(0), X), X))
    value = jnp.asarray([0.1, 0.2])
    gradient = jax.jit(jax.grad(lambda p: encoder(p, x).log_prob({"z": value})))(params)
    expected = jax.jit(jax.grad(lambda p: composed(p, x).log_prob(value)))(
        (params["h"], params["z"])
    )
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-12), (gradient["h"], gradient["z"]), expected
    )


def binary_graph():
    """a, b -> d (a function) -> c, and c -> e."""
    nodes = (
        Node("a", vaejax.Bernoulli(Affine())),
        Node("b", vaejax.Bernoulli(Affine()), "a"),
        Node("c", vaejax.Bernoulli(Affine()), "d"),
        Node("e", vaejax.Bernoulli(Affine()), ("d", "c")),
    )
    graph = DirectedGraph(nodes, (), (Deterministic("d", NET(2), ("a", "b")),))
    return graph, double(graph.init(jax.random.key(4)))


def test_sums_over_finite_nodes_go_through_it(x64):
    """Variable elimination is brute force."""
    graph, params = binary_graph()
    joint = graph(params)
    states = list(itertools.product([0.0, 1.0], repeat=4))
    values = [dict(zip("abce", state, strict=True)) for state in states]
    tables = dict(zip("abce", jnp.asarray(states).T[:, :, None], strict=True))
    log_p = np.asarray(jax.jit(jax.vmap(joint.log_prob))(tables))
    np.testing.assert_allclose(np.logaddexp.reduce(log_p), 0, atol=1e-12)
    for given in ({"e": 1.0}, {"c": 0.0, "a": 1.0}, {"b": 1.0, "e": 0.0}):
        fits = [all(value[name] == given[name] for name in given) for value in values]
        expected = np.logaddexp.reduce(log_p[np.array(fits)])
        marginal = joint.log_marginal({name: jnp.atleast_1d(v) for name, v in given.items()})
        np.testing.assert_allclose(marginal, expected, rtol=1e-10)
    rest = joint.condition({"e": jnp.ones(1)}).sample(jax.random.key(0))
    assert set(rest) == {"a", "b", "c"}


def model_with_paths():
    """Top down by a path, p(z2) p(z1 | d(z2)) p(x | d'(d, z1)); q by a path upwards."""
    graph = DirectedGraph(
        (
            Node("z2", vaejax.StandardNormal(2)),
            Node("z1", vaejax.DiagNormal(NET(2, heads=2)), "d2"),
            Node("x", vaejax.Bernoulli(NET(3)), "d1"),
        ),
        (),
        (Deterministic("d2", NET(4), "z2"), Deterministic("d1", NET(4), ("d2", "z1"))),
    )
    encoder = DirectedGraph(
        (
            Node("z2", vaejax.DiagNormal(NET(2, heads=2)), "d2"),
            Node("z1", vaejax.ResidualNormal(NET(2, heads=2)), "d1"),
        ),
        ("x",),
        (Deterministic("d1", NET(4), "x"), Deterministic("d2", NET(3), "d1")),
    )
    return vaejax.GraphModel(graph, encoder)


def test_a_model_with_paths_in_both_directions(x64):
    """The names of q's paths are its own; p(z), p(x | z) and the joint agree."""
    model, x = model_with_paths(), jnp.asarray([1.0, 0.0, 1.0])
    params = double(model.init(jax.random.key(0), x))
    z = model.posterior(params, x).sample(jax.random.key(1))
    log_joint, log_p_x = model.log_densities(params, x, z)
    prior, likelihood = model.p_z(params), model.p_x_given_z(params, z)
    assert prior.graph.functions.keys() == {"d2"}
    assert '"z2" -> "z1" [style=dashed];' in model.encoder.dot()
    np.testing.assert_allclose(likelihood.log_prob(x), log_p_x, rtol=1e-12)
    np.testing.assert_allclose(prior.log_prob(z), log_joint - log_p_x, rtol=1e-12)
    simulated, _ = model.sample(params, jax.random.key(2))
    assert simulated.shape == (3,)
    key = jax.random.key(3)
    log_p, kl = vaejax.kl_by_node(model, params, x, key)
    q = model.posterior(params, x)
    z = q.sample(key)
    factors = model.joint(params, x).factors({**z, "x": x})
    np.testing.assert_allclose(log_p, factors["x"].log_prob(x), rtol=1e-12)
    for name, factor in q.factors(z).items():
        expected = vaejax.kl_divergence(factor, factors[name])
        np.testing.assert_allclose(kl[name], expected, rtol=1e-12)


NORMAL = vaejax.Gaussian(Affine(), 1.0)
H = Deterministic("h", NET(2), "x")
WITH_FUNCTION = DirectedGraph(
    (Node("z", NORMAL), Node("x", NORMAL, "d")), (), (Deterministic("d", NET(2), "z"),)
)
WRONG = {
    "a density is asked for": (
        lambda: SHARED["h"],
        "'h' is a deterministic node, a function of x: it has no density",
    ),
    "a value is given": (
        lambda: SHARED(SHARED.init(jax.random.key(0), X), X).log_marginal({"h": jnp.ones(5)}),
        "'h' is a deterministic node",
    ),
    "observed": (
        lambda: vaejax.GraphModel(WITH_FUNCTION, vaejax.DiagNormal(NET(2, heads=2)), "d"),
        "'d' is a deterministic node, a function of z",
    ),
    "among the nodes": (lambda: DirectedGraph((H,), ("x",)), "does not derive from vaejax.Node"),
    "a node among them": (
        lambda: DirectedGraph((), ("x",), (Node("z", NORMAL, "x"),)),
        "does not derive from vaejax.Deterministic",
    ),
    "a constant": (lambda: Deterministic("h", NET(2), ()), "has no parents"),
    "no net": (lambda: Deterministic("h", NORMAL, "x"), "Deterministic.net is"),
    "no name": (lambda: Deterministic(NET(2), NET(2), "x"), "write Deterministic"),
    "a name twice": (
        lambda: DirectedGraph((Node("h", NORMAL, "x"),), ("x",), (H,)),
        "'h' stands for more than one",
    ),
    "an unknown parent": (
        lambda: DirectedGraph((), ("x",), (Deterministic("h", NET(2), "y"),)),
        "node 'h': unknown parent 'y'",
    ),
    "a cycle": (
        lambda: DirectedGraph((Node("z", NORMAL, "h"),), (), (Deterministic("h", NET(2), "z"),)),
        "is a cycle",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_refused(case):
    make, message = WRONG[case]
    with pytest.raises((TypeError, ValueError), match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_drawn_as_diamonds():
    text = SHARED.dot()
    assert '"h" [shape=diamond];' in text and '"x" -> "h";' in text and '"h" -> "a";' in text
    drawing = plots.graph(SHARED)
    sides = [len(patch.get_path().vertices) for patch in drawing.axes[0].patches]
    assert len(sides) >= 7
