"""Two layers of latents, with q top down and bottom up."""

from functools import partial

import jax
import jax.numpy as jnp

import vaejax
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
