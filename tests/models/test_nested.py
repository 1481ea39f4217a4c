"""A graph as a node of a graph, once and twice: exact, against brute-force enumeration."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib.cases import cases
from tests.lib.graphs import Affine
from tests.lib.oracles import assert_mean
from vaejax import DirectedGraph, Node

KEY = jax.random.key(0)
BINARY, CLASS = vaejax.Bernoulli(Affine()), vaejax.OneHotCategorical(Affine((3,)))
NORMAL = vaejax.Gaussian(Affine(), 1.0)


def pair(first, second):
    """u -> a -> b, u the input."""
    return DirectedGraph((Node("a", first, "u"), Node("b", second, ("a", "u"))), inputs=("u",))


def once(first=BINARY, second=CLASS):
    """u -> (a, b) -> c."""
    nodes = (Node("u", BINARY), Node("ab", pair(first, second), "u"), Node("c", BINARY, "ab"))
    return DirectedGraph(nodes)


def twice(first=BINARY, second=CLASS):
    """w -> (m, (a, b)) -> x: a pair in a graph in a graph."""
    inner = DirectedGraph(
        (Node("m", BINARY, "w"), Node("ab", pair(first, second), "m")), inputs=("w",)
    )
    return DirectedGraph((Node("w", BINARY), Node("g", inner, "w"), Node("x", CLASS, ("g", "w"))))


BITS, CLASSES = ([0.0], [1.0]), tuple(np.eye(3))
PAIRS = tuple({"a": a, "b": b} for a, b in itertools.product(BITS, CLASSES))
STATES = {  # of every node, written out
    once: {"u": BITS, "ab": PAIRS, "c": BITS},
    twice: {
        "w": BITS,
        "g": tuple({"m": m, "ab": ab} for m, ab in itertools.product(BITS, PAIRS)),
        "x": CLASSES,
    },
}
GIVEN = {once: {"c": [1.0]}, twice: {"x": [0.0, 1.0, 0.0]}}
INNER = {once: "ab", twice: "g"}
each_depth = pytest.mark.parametrize("make", cases({"once": once, "twice": twice}, slow={"twice"}))


def enumerated(make):
    """The joint density, every assignment in a list, and the log-probability of each."""
    graph = make()
    params = jax.tree.map(lambda leaf: 1.5 * leaf, jax.jit(graph.init)(KEY))
    joint, table = graph(params), STATES[make]
    assignments = [
        jax.tree.map(jnp.asarray, dict(zip(table, values, strict=True)), is_leaf=_is_value)
        for values in itertools.product(*table.values())
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *assignments)
    return joint, assignments, np.asarray(jax.jit(jax.vmap(joint.log_prob))(stacked))


def _is_value(tree):
    return isinstance(tree, list | np.ndarray)


def equal(left, right):
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all((np.asarray(a) == np.asarray(b)).all() for a, b in pairs)


def log_sum(log_p, matches):
    return np.logaddexp.reduce(log_p[np.asarray(matches)])


@each_depth
def test_sums_over_a_graph_that_is_a_node_are_exact(x64, make):
    joint, assignments, log_p = enumerated(make)
    given = jax.tree.map(jnp.asarray, GIVEN[make], is_leaf=_is_value)
    (observed, value), inner = *given.items(), INNER[make]
    np.testing.assert_allclose(np.logaddexp.reduce(log_p), 0, atol=1e-12)
    np.testing.assert_allclose(joint.log_marginal({}), 0, atol=1e-12)
    matches = [equal(a[observed], value) for a in assignments]
    evidence = log_sum(log_p, matches)
    np.testing.assert_allclose(joint.log_marginal(given), evidence, rtol=1e-12)
    conditioned = joint.condition(given)
    np.testing.assert_allclose(conditioned.log_evidence, evidence, rtol=1e-12)

    # Of the inner graph: its states, and the probability of each.
    states, p = conditioned.marginal(inner)
    (same_states,), table = joint.log_marginals(given, inner)
    assert equal(states, same_states) and len(p) == len(STATES[make][inner])
    for i in range(len(p)):
        state = jax.tree.map(lambda leaf, i=i: leaf[i], states)
        both = [m and equal(a[inner], state) for m, a in zip(matches, assignments, strict=True)]
        np.testing.assert_allclose(table[i], log_sum(log_p, both), rtol=1e-10)
        np.testing.assert_allclose(p[i], np.exp(log_sum(log_p, both) - evidence), rtol=1e-10)

    # A value of the inner graph that is given.
    state = assignments[-1][inner]
    matches = [equal(a[inner], state) for a in assignments]
    np.testing.assert_allclose(
        joint.log_marginal({inner: state}), log_sum(log_p, matches), rtol=1e-10
    )


@each_depth
def test_states_and_combinations_are_every_assignment_once(make):
    joint, assignments, _ = enumerated(make)
    states, inner = joint.states(), INNER[make]
    rows = {
        tuple(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(a)])) for a in assignments
    }
    flat = np.concatenate([leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(states)], 1)
    assert len(flat) == len(rows) and set(map(tuple, flat)) == rows
    combinations = joint.combinations((inner,))
    assert set(combinations) == {inner}
    assert len(jax.tree.leaves(combinations)[0]) == len(STATES[make][inner])


def test_samples_given_a_child_of_an_inner_graph_are_exact():
    joint, assignments, log_p = enumerated(once)
    given = {"c": jnp.ones(1)}
    keys = jax.random.split(KEY, 40_000)
    samples = jax.jit(partial(jax.lax.map, joint.condition(given).sample, batch_size=2_000))(keys)
    assert set(samples) == {"u", "ab"}
    matches = [equal(a["c"], given["c"]) for a in assignments]
    p = np.where(matches, np.exp(log_p), 0)
    p /= p.sum()

    def row(values):
        leaves = [np.asarray(values["u"]), *map(np.asarray, jax.tree.leaves(values["ab"]))]
        return np.concatenate(leaves, axis=-1)

    draws, expected = row(samples), np.array([row(a) for a in assignments])
    hits = (draws[:, None] == expected[None]).all(-1)[:, np.asarray(matches)]
    assert_mean(hits, p[np.asarray(matches)], detectable=0.03)


@pytest.mark.parametrize(
    "first, second, moves",
    [(NORMAL, NORMAL, True), (BINARY, NORMAL, False), (NORMAL, BINARY, False)],
    ids=["normal", "binary first", "binary last"],
)
def test_a_nested_graph_moves_if_all_its_factors_do(first, second, moves):
    inner = pair(first, second)
    joint = DirectedGraph((Node("z", vaejax.StandardNormal(1)), Node("ab", inner, "z")))
    assert joint(joint.init(KEY)).reparameterised == moves
    outer = DirectedGraph(
        (Node("n", NORMAL), Node("g", DirectedGraph((Node("ab", inner, "n"),), inputs=("n",)), "n"))
    )
    assert outer(outer.init(KEY)).reparameterised == moves
    with pytest.raises(ValueError, match="is not a finite node"):
        joint(joint.init(KEY)).log_marginal({"ab": {"a": jnp.ones(1), "b": jnp.ones(1)}})


def row_of(*conditionals):
    nodes = [
        Node(f"v{i}", conditional, f"v{i - 1}" if i else ())
        for i, conditional in enumerate(conditionals)
    ]
    graph = DirectedGraph(tuple(nodes))
    return graph(graph.init(KEY))


CONDITIONED = {  # the row of factors, the nodes that are given, whether what is left moves
    "below, all normal": ((NORMAL, NORMAL, NORMAL), (0,), True),
    "above, finite": ((BINARY, BINARY, NORMAL), (1,), False),
    "above, normal": ((NORMAL, NORMAL, NORMAL), (1,), False),
    "a discrete factor is left": ((NORMAL, BINARY, NORMAL), (0,), False),
    "the discrete factor is given": ((BINARY, NORMAL, NORMAL), (0,), True),
    "a discrete one above is given too": ((BINARY, BINARY, NORMAL), (0, 1), True),
    "one-hot below": ((NORMAL, NORMAL, CLASS), (0, 1), False),
    "an inner graph with a discrete factor": ((NORMAL, pair(NORMAL, BINARY)), (0,), False),
    "an inner graph of normals": ((NORMAL, pair(NORMAL, NORMAL)), (0,), True),
}


@pytest.mark.parametrize("case", CONDITIONED)
def test_whether_a_conditioned_joint_moves(case):
    conditionals, given, moves = CONDITIONED[case]
    joint = row_of(*conditionals)
    values = {f"v{i}": jnp.ones(1) for i in given}
    assert joint.condition(values).reparameterised == moves


def test_antithetic_pairs_of_nested_normals_mirror_each_other():
    graph = DirectedGraph((Node("u", NORMAL), Node("ab", pair(NORMAL, NORMAL), "u")))
    q = graph(graph.init(KEY))
    noise = vaejax.Antithetic()
    draws = jax.jit(jax.vmap(lambda source: noise.at(q, source)[0].sample(None)))(
        noise.sources(q, KEY, 6)
    )
    flat = np.stack([leaf[:, 0] for leaf in jax.tree.leaves(draws)], 1)
    centres = (flat[:3] + flat[3:]) / 2
    np.testing.assert_allclose(centres, np.broadcast_to(centres[:1], centres.shape), atol=1e-5)
    assert np.ptp(flat, axis=0).min() > 0.1
