"""Models made of graphs."""

from functools import partial

import jax
import jax.numpy as jnp

import vaejax
from tests.lib.started import started
from vaejax import DirectedGraph, Node


def as_graph(model, params):
    """The two-node graph of a VAE, and its parameters."""
    graph = DirectedGraph((Node("z", model.prior), Node("x", model.likelihood, "z")))
    theta = {"z": params.theta["prior"], "x": params.theta["likelihood"]}
    return vaejax.GraphModel(graph, model.encoder), params._replace(theta=theta)


# Semi-supervised: p(y) p(z) p(x | z, y), q(y | x) q(z | x, y).


def semi_supervised():
    net = partial(vaejax.MLP, hidden=(6,))
    graph = DirectedGraph(
        (
            Node("y", vaejax.OneHotCategorical(vaejax.Free(3, ("logits",)))),
            Node("z", vaejax.StandardNormal(2)),
            Node("x", vaejax.Bernoulli(net(4)), ("z", "y")),
        )
    )
    encoder = DirectedGraph(
        (
            Node("y", vaejax.OneHotCategorical(net(3)), "x"),
            Node("z", vaejax.DiagNormal(net(2, heads=2)), ("x", "y")),
        ),
        inputs=("x",),
    )
    model = vaejax.GraphModel(graph, encoder)
    x = jnp.asarray([1.0, 0.0, 0.0, 1.0])
    return model, started(model, jax.random.key(0), x), x
