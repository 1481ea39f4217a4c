"""Directed graphs with known joint densities."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

import vaejax
from vaejax import DirectedGraph, Node
from vaejax.networks.layers import flat


@vaejax.component
class Affine:
    """All parents -> W h + b, of shape `out`."""

    out: tuple[int, ...] = (1,)

    def init(self, key, example):
        weights = jax.random.normal(
            key, (*self.out, flat(example).size if example is not None else 0)
        )
        return {"w": weights, "b": 0.3 * jnp.ones(self.out)}

    def apply(self, params, example):
        return params["b"] + (params["w"] @ flat(example) if example is not None else 0)


def random_parents(num_nodes, seed=0, most=3):
    """Of each node, some of those before it."""
    generator = np.random.default_rng(seed)
    return [
        (
            sorted(
                generator.choice(
                    j, min(j, int(generator.integers(1, most + 1))), replace=False
                ).tolist()
            )
            if j
            else []
        )
        for j in range(num_nodes)
    ]


def name(j):
    return f"v{j:02d}"


# Discrete.


def binary_graph(num_nodes=12, seed=0):
    parents = random_parents(num_nodes, seed)
    graph = DirectedGraph(
        tuple(
            Node(name(j), vaejax.Bernoulli(Affine()), tuple(map(name, parents[j])))
            for j in range(num_nodes)
        )
    )
    return graph, jax.jit(graph.init)(jax.random.key(seed))


def brute_force(joint, num_nodes):
    """All states [n, nodes] and their log-probabilities."""
    states = np.array(list(itertools.product([0.0, 1.0], repeat=num_nodes)))
    values = {name(j): jnp.asarray(states[:, j : j + 1]) for j in range(num_nodes)}
    return states, np.asarray(jax.jit(jax.vmap(joint.log_prob))(values))


def log_sum(log_p):
    return np.logaddexp.reduce(log_p)
