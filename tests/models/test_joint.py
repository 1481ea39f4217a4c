"""Joint densities of graphs: dense algebra, enumeration, forward pass, Kalman filter."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import vaejax
from tests.lib.graphs import Affine, binary_graph, brute_force, log_sum, name, random_parents
from tests.lib.oracles import Line, assert_distributed, assert_mean
from vaejax import DirectedGraph, Node

# Linear-Gaussian.


class LinearGaussianGraph:
    """v = B v + b + noise of standard deviations s: N((I - B)^-1 b, (I - B)^-1 diag s^2 (I -
    B)^-T).
    """

    def __init__(self, num_nodes=12, seed=0):
        generator = np.random.default_rng(seed)
        self.scales = 0.5 + generator.random(num_nodes)
        parents = random_parents(num_nodes, seed)
        nodes = [
            Node(
                name(j),
                vaejax.Gaussian(Affine(), float(self.scales[j])),
                tuple(map(name, parents[j])),
            )
            for j in range(num_nodes)
        ]
        self.graph = DirectedGraph(
            tuple(nodes[j] for j in generator.permutation(num_nodes))
        )  # any order
        b, matrix, self.params = (
            generator.normal(size=num_nodes),
            np.zeros((num_nodes, num_nodes)),
            {},
        )
        for j in range(num_nodes):
            matrix[j, parents[j]] = generator.normal(size=len(parents[j]))
            self.params[name(j)] = {
                "net": {
                    "w": jnp.asarray(matrix[j : j + 1, parents[j]]),
                    "b": jnp.asarray(b[j : j + 1]),
                }
            }
        inverse = np.linalg.inv(np.eye(num_nodes) - matrix)
        self.mean, self.factor = inverse @ b, inverse * self.scales[None]

    def values(self, v):
        return {name(j): v[..., j : j + 1] for j in range(len(self.mean))}


def test_a_linear_gaussian_graph_is_the_dense_normal(x64):
    from scipy.stats import multivariate_normal

    oracle = LinearGaussianGraph()
    joint = oracle.graph(oracle.params)
    for v in np.random.default_rng(1).normal(size=(5, 12)):
        expected = multivariate_normal(oracle.mean, oracle.factor @ oracle.factor.T).logpdf(v)
        np.testing.assert_allclose(
            joint.log_prob(oracle.values(jnp.asarray(v))), expected, rtol=1e-10
        )


def test_ancestral_samples_have_the_dense_covariance(x64):
    oracle = LinearGaussianGraph()
    joint = oracle.graph(oracle.params)
    samples = jax.jit(jax.vmap(joint.sample))(jax.random.split(jax.random.key(0), 40_000))
    v = np.concatenate([samples[name(j)] for j in range(12)], axis=1)
    white = np.linalg.solve(
        oracle.factor, (v - oracle.mean).T
    ).T  # the noise of each node, if all is right

    for j in range(12):
        assert_distributed(white[:, j], norm.cdf)
    pairs = [(i, j) for i in range(12) for j in range(i)]
    assert_mean(np.stack([white[:, i] * white[:, j] for i, j in pairs], axis=1), 0, detectable=0.05)


def test_a_binary_graph_sums_to_one_and_conditions_as_brute_force_does(x64):
    graph, params = binary_graph()
    joint = graph(params)
    states, log_p = brute_force(joint, 12)
    np.testing.assert_allclose(log_sum(log_p), 0, atol=1e-12)
    given = {3: 1.0, 7: 0.0, 10: 1.0}
    matches = np.all([states[:, j] == value for j, value in given.items()], axis=0)
    values = {name(j): jnp.asarray([value]) for j, value in given.items()}
    conditioned = joint.condition(values)
    np.testing.assert_allclose(joint.log_marginal(values), log_sum(log_p[matches]), rtol=1e-10)
    np.testing.assert_allclose(conditioned.log_evidence, log_sum(log_p[matches]), rtol=1e-10)
    for row in np.flatnonzero(matches)[::100]:
        rest = {name(j): jnp.asarray(states[row, j : j + 1]) for j in range(12) if j not in given}
        np.testing.assert_allclose(
            conditioned.log_prob(rest), log_p[row] - log_sum(log_p[matches]), rtol=1e-10
        )
    for j in (0, 5, 11):
        of_states, p = conditioned.marginal(name(j))
        expected = [
            np.exp(log_sum(log_p[matches & (states[:, j] == state)]) - log_sum(log_p[matches]))
            for state in of_states[:, 0]
        ]
        np.testing.assert_allclose(p, expected, rtol=1e-10)


def test_the_marginal_of_a_node_that_is_given_is_refused():
    """And of one named twice: both ended in a search of a tuple, or in a transpose."""
    graph, params = binary_graph(3, seed=3)
    joint, given = graph(params), {name(2): jnp.ones(1)}
    with pytest.raises(ValueError, match=f"the node {name(2)!r} is given; ask for"):
        joint.condition(given).marginal(name(2))
    with pytest.raises(ValueError, match=f"the node {name(2)!r} is given"):
        joint.log_marginals(given, name(0), name(2))
    with pytest.raises(ValueError, match=f"the node {name(0)!r} is named twice"):
        joint.log_marginals(given, name(0), name(0))
    with pytest.raises(ValueError, match="unknown node 'nobody'; known: "):
        joint.condition(given).marginal("nobody")


def test_samples_of_a_conditional_are_exact():
    graph, params = binary_graph(5, seed=3)
    joint = graph(params)
    states, log_p = brute_force(joint, 5)
    given = {name(4): jnp.ones(1), name(2): jnp.zeros(1)}
    p = np.where((states[:, 4] == 1) & (states[:, 2] == 0), np.exp(log_p), 0)
    p /= p.sum()
    samples = jax.jit(jax.vmap(joint.condition(given).sample))(
        jax.random.split(jax.random.key(0), 40_000)
    )
    codes = np.concatenate([samples[name(j)] for j in (0, 1, 3)], axis=1) @ [1, 2, 4]
    expected = np.bincount((states[:, [0, 1, 3]] @ [1, 2, 4]).astype(int), p, minlength=8)
    assert_mean(codes[:, None] == np.arange(8), expected, detectable=0.02)


def test_summing_out_what_is_below_costs_nothing():
    """A node that nothing observed hangs on sums to one, whatever it is: here one with no list of
    values.
    """
    graph = DirectedGraph(
        (Node("y", vaejax.Bernoulli(Affine())), Node("z", vaejax.Gaussian(Affine(), 1.0), "y"))
    )
    joint = graph(graph.init(jax.random.key(0)))
    np.testing.assert_allclose(
        joint.log_marginal({"y": jnp.ones(1)}), joint.ready["y"].log_prob(jnp.ones(1))
    )
    with pytest.raises(ValueError, match="'z' is not a finite node"):
        DirectedGraph(
            (
                Node("z", vaejax.Gaussian(Affine(), 1.0)),
                Node("x", vaejax.Gaussian(Affine(), 1.0), "z"),
            )
        )(
            {"z": joint.params["z"], "x": joint.params["z"]}
            | {"z": {"net": {"w": jnp.zeros((1, 0)), "b": jnp.zeros(1)}}}
        ).log_marginal({"x": jnp.ones(1)})


def test_a_joint_of_three_takes_its_uniform_numbers_in_a_row(x64):
    """Nodes of two, one and three numbers, each with its own: loc + ndtri(u). And its mean is that
    of each.
    """
    sizes = {"a": 2, "b": 1, "c": 3}
    graph = DirectedGraph(tuple(Node(n, vaejax.LearnedNormal(size)) for n, size in sizes.items()))
    params = graph.init(jax.random.key(0))
    params = {n: {**params[n], "loc": i + jnp.arange(float(sizes[n]))} for i, n in enumerate(sizes)}
    joint, u = graph(params), jnp.asarray([0.1, 0.3, 0.5, 0.6, 0.8, 0.9])
    z, parts = joint.from_uniform(u), np.split(norm.ppf(u), [2, 3])
    for (name_of_node, size), noise in zip(sizes.items(), parts, strict=True):
        loc = params[name_of_node]["loc"]
        assert len(noise) == size
        np.testing.assert_allclose(z[name_of_node], loc + noise, rtol=1e-12)
        np.testing.assert_array_equal(joint.mean()[name_of_node], loc)


def test_nodes_start_from_keys_of_their_own():
    """Two conditionals of one form have other parameters."""
    nodes = [Node(n, vaejax.Gaussian(Affine((3,)), 1.0), "u") for n in ("a", "b")]
    graph = DirectedGraph(tuple(nodes), inputs=("u",))
    params = graph.init(jax.random.key(0), jnp.ones(4))
    difference = params["a"]["net"]["w"] - params["b"]["net"]["w"]
    assert np.abs(difference).min() > 0


def hidden_markov_model(num_steps, num_states=3, num_symbols=4):
    """As a graph of one-hot variables, each step with tables of its own."""
    nodes = []
    for t in range(num_steps):
        nodes.append(
            Node(
                f"z{t}",
                vaejax.OneHotCategorical(Affine((num_states,))),
                (f"z{t - 1}",) if t else (),
            )
        )
        nodes.append(Node(f"x{t}", vaejax.OneHotCategorical(Affine((num_symbols,))), (f"z{t}",)))
    return DirectedGraph(tuple(nodes))


def log_forward(params, symbols):
    """The textbook's recursion, log p(x_1..x_t, z_t), in NumPy."""

    def table(net, num_rows):
        logits = np.asarray(net["b"])[None] + (np.asarray(net["w"]).T if num_rows else 0)
        return logits - np.logaddexp.reduce(logits, axis=1)[:, None]

    alpha = table(params["z0"], 0)[0]
    for t, symbol in enumerate(symbols):
        if t:
            alpha = np.logaddexp.reduce(alpha[:, None] + table(params[f"z{t}"], 3), axis=0)
        alpha = alpha + table(params[f"x{t}"], 3)[:, symbol]
    return alpha


def test_a_hidden_markov_model_is_its_forward_pass_and_its_enumeration(x64):
    num_steps = 6
    graph = hidden_markov_model(num_steps)
    params = graph.init(jax.random.key(0))
    joint, symbols = graph(params), [0, 3, 1, 1, 2, 0]
    observed = {f"x{t}": jax.nn.one_hot(symbol, 4) for t, symbol in enumerate(symbols)}
    alpha = log_forward(params, symbols)
    np.testing.assert_allclose(joint.log_marginal(observed), log_sum(alpha), rtol=1e-12)
    np.testing.assert_allclose(
        joint.condition(observed).marginal("z5")[1], np.exp(alpha - log_sum(alpha)), rtol=1e-10
    )
    paths = jnp.asarray(list(itertools.product(range(3), repeat=num_steps)))
    hidden = {f"z{t}": jax.nn.one_hot(paths[:, t], 3) for t in range(num_steps)}
    every = jax.jit(jax.vmap(lambda hidden: joint.log_prob({**observed, **hidden})))(hidden)
    np.testing.assert_allclose(joint.log_marginal(observed), log_sum(np.asarray(every)), rtol=1e-12)


def test_marginals_have_an_axis_for_each_name_in_the_order_asked_for(x64):
    """Against the sum over all 1,728 states, for nodes of three states and of four."""
    graph = hidden_markov_model(3)
    joint = graph(graph.init(jax.random.key(1)))
    names = ("z0", "x0", "z1", "x1", "z2", "x2")
    sizes = [3, 4] * 3
    index = np.array(list(itertools.product(*map(range, sizes))))
    states = {name: jax.nn.one_hot(index[:, j], sizes[j]) for j, name in enumerate(names)}
    p = np.exp(jax.jit(jax.vmap(joint.log_prob))(states)).reshape(sizes)
    for asked in itertools.permutations(("z0", "x1", "z2")):
        others = tuple(j for j, name in enumerate(names) if name not in asked)
        kept = [name for name in names if name in asked]
        expected = np.transpose(p.sum(axis=others), [kept.index(name) for name in asked])
        of_each, table = joint.log_marginals({}, *asked)
        np.testing.assert_allclose(np.exp(table), expected, rtol=1e-9)
        assert [len(of_node) for of_node in of_each] == list(expected.shape)


# Time series: the ELBO at the smoother is the Kalman filter's log-likelihood.


class StateSpace:
    """z_t = a z_(t-1) + N(0, s^2), x_t = c z_t + N(0, r^2), z_0 ~ N(0, 1), and its filter and
    smoother.
    """

    a, s, c, r = 0.9, 0.5, 1.4, 0.7

    def __init__(self, xs):
        self.xs = np.asarray(xs)
        self.num_steps = len(xs)
        mean, variance, self.log_likelihood, self.filtered = 0.0, 1.0, 0.0, []
        for t, x in enumerate(xs):
            if t:
                mean, variance = self.a * mean, self.a**2 * variance + self.s**2
            of_x = self.c**2 * variance + self.r**2
            self.log_likelihood += -0.5 * (
                np.log(2 * np.pi * of_x) + (x - self.c * mean) ** 2 / of_x
            )
            gain = self.c * variance / of_x
            mean, variance = mean + gain * (x - self.c * mean), (1 - gain * self.c) * variance
            self.filtered.append((mean, variance))

    @property
    def graph(self):
        nodes = []
        for t in range(self.num_steps):
            nodes.append(
                Node(
                    f"z{t}",
                    vaejax.Gaussian(Line(), self.s if t else 1.0),
                    (f"z{t - 1}",) if t else ("zero",),
                )
            )
            nodes.append(Node(f"x{t}", vaejax.Gaussian(Line(), self.r), (f"z{t}",)))
        return DirectedGraph(tuple(nodes), inputs=("zero",))

    @property
    def params(self):
        line = lambda w: {"net": {"w": jnp.asarray(w), "b": jnp.zeros(())}}  # noqa: E731
        params = {f"z{t}": line(self.a) for t in range(self.num_steps)}
        return params | {f"x{t}": line(self.c) for t in range(self.num_steps)}

    def smoother(self):
        """q(z_T | x) prod q(z_t | z_(t+1), x): backwards, a graph whose arrows run against those of
        the model.
        """
        nodes, params = [], {}
        for t in reversed(range(self.num_steps)):
            mean, variance = self.filtered[t]
            gain = 0.0
            if t < self.num_steps - 1:
                predicted = self.a**2 * variance + self.s**2
                gain = self.a * variance / predicted
                mean, variance = mean - gain * self.a * mean, variance - gain**2 * predicted
            parent = f"z{t + 1}" if t < self.num_steps - 1 else "zero"
            nodes.append(Node(f"z{t}", vaejax.Gaussian(Line(), float(np.sqrt(variance))), parent))
            params[f"z{t}"] = {"net": {"w": jnp.asarray(gain), "b": jnp.asarray(mean)}}
        return DirectedGraph(tuple(nodes), inputs=("zero",)), params


def test_the_elbo_at_the_smoother_is_the_kalman_log_likelihood(x64):
    series = StateSpace([0.3, -1.2, 0.8, 2.0, 1.1])
    encoder, phi = series.smoother()
    model = vaejax.GraphModel(series.graph, encoder, observed=tuple(f"x{t}" for t in range(5)))
    params = vaejax.Params(series.params, phi)
    x = {"zero": jnp.zeros(1)} | {
        f"x{t}": jnp.asarray([value]) for t, value in enumerate(series.xs)
    }
    gradient = jax.jit(jax.grad(partial(vaejax.StickTheLanding(), model)))
    for key in jax.random.split(
        jax.random.key(0), 3
    ):  # at the exact posterior every sample has the same log-weight
        np.testing.assert_allclose(
            vaejax.elbo(model, params, x, key), series.log_likelihood, rtol=1e-10
        )
        sticking = gradient(params, x, key)
        np.testing.assert_allclose(jax.flatten_util.ravel_pytree(sticking.phi)[0], 0, atol=1e-10)
