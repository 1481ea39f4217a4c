"""One small model of images [4, 4] of every kind there is, with its data: what works for one works
for all, or is refused in a sentence.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd

import vaejax
from tests.lib.started import started
from vaejax import Node

SHAPE, DIM = (4, 4), 2
IMAGES = np.random.default_rng(0).integers(2, size=(6, *SHAPE)).astype(np.float32)
INPUTS = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
PAIRS = {"u": INPUTS, "x": IMAGES}


class frozendict(dict):  # noqa: N801  a mapping that a component may hold
    """{name: support}, hashable."""

    def __hash__(self):
        return hash(tuple(self.items()))


def normal(dim=DIM):
    return vaejax.DiagNormal(vaejax.MLP(dim, (3,), heads=2))


def pixels():
    return vaejax.Bernoulli(vaejax.MLP(SHAPE, (3,)))


def one_hot():
    return vaejax.OneHotCategorical(vaejax.MLP((1, 3), (3,)))


def graph(*nodes: Node, inputs: tuple[str, ...] = ()) -> vaejax.DirectedGraph:
    return vaejax.DirectedGraph(nodes, inputs)


@vaejax.component
class Own(vaejax.Model):
    """A user's: z ~ N(0, 1)^2, x Bernoulli with logits w z_1, and a q of NumPyro."""

    support = vaejax.supports.BINARY
    latent_support = vaejax.supports.REAL

    def init(self, key, x):
        return vaejax.Params(theta=jax.random.normal(key, SHAPE), phi=jnp.zeros(DIM))

    def p_z(self, params, x=None):
        return npd.Normal(jnp.zeros(DIM), 1.0).to_event(1)

    def p_x_given_z(self, params, z, x=None):
        return vaejax.distributions.BernoulliDensity(params.theta * z[0])

    def posterior(self, params, x):
        return npd.Normal(params.phi + jnp.mean(x), 1.0).to_event(1)


@vaejax.component
class OwnConditional(vaejax.Model):
    """A user's, with inputs: z ~ N(u_1, 1)^2, x Bernoulli with logits w z_1, one q for all."""

    support = frozendict(x=vaejax.supports.BINARY)
    latent_support = vaejax.supports.REAL
    inputs = ("u",)

    def init(self, key, x):
        return vaejax.Params(theta=jax.random.normal(key, SHAPE), phi=jnp.zeros(DIM))

    def p_z(self, params, x=None):
        return vaejax.distributions.DiagNormalDensity(jnp.full(DIM, x["u"][0]), jnp.zeros(DIM))

    def p_x_given_z(self, params, z, x=None):
        return vaejax.distributions.BernoulliDensity(params.theta * z[0])

    def posterior(self, params, x):
        loc = params.phi + jnp.mean(x["x"]) + x["u"][:DIM]
        return vaejax.distributions.DiagNormalDensity(loc, jnp.zeros(DIM))


PRIOR = vaejax.StandardNormal(DIM)
LAYERS = Node("top", vaejax.StandardNormal(1)), Node("z", normal(), "top")
BOTTOM_UP = Node("z", normal(), "x"), Node("top", normal(1), "z")
MERGED = vaejax.PrecisionWeightedNormal(vaejax.MLP(DIM, (3,), heads=2))
ABOVE = Node("top", normal(1), "u"), Node("z", normal(), ("top", "u"))
KINDS: dict[str, Any] = {
    "VAE": vaejax.VAE(PRIOR, pixels(), normal()),
    "graph": vaejax.GraphModel(graph(Node("z", PRIOR), Node("x", pixels(), "z")), normal()),
    "layers": vaejax.GraphModel(
        graph(*LAYERS, Node("x", pixels(), "z")), graph(*BOTTOM_UP, inputs=("x",))
    ),
    "ladder": vaejax.GraphModel(
        graph(*LAYERS, Node("x", pixels(), "z")),
        vaejax.DirectedGraph(
            (Node("top", normal(1), "h"), Node("z", MERGED, "h")),
            ("x",),
            (vaejax.Deterministic("h", vaejax.MLP(4, (3,)), "x"),),
        ),
    ),
    "one-hot": vaejax.GraphModel(
        graph(Node("z", vaejax.FactorialCategorical(1, 3)), Node("x", pixels(), "z")),
        graph(Node("z", one_hot(), "x"), inputs=("x",)),
    ),
    "conditional": vaejax.GraphModel(
        graph(Node("z", normal(), "u"), Node("x", pixels(), ("z", "u")), inputs=("u",)), normal()
    ),
    "conditional layers": vaejax.GraphModel(
        graph(*ABOVE, Node("x", pixels(), "z"), inputs=("u",)),
        graph(*BOTTOM_UP, inputs=("x", "u")),
    ),
    "own": Own(),
    "own conditional": OwnConditional(),
}
REFINED = {f"Refined {name}": vaejax.Refined(KINDS[name], 1) for name in KINDS}


def data_of(model: vaejax.Model) -> Any:
    """Six examples."""
    return PAIRS if model.inputs else IMAGES


def params_of(model: vaejax.Model) -> vaejax.Params:
    first = jax.tree.map(lambda leaf: leaf[0], data_of(model))
    return started(model, jax.random.key(0), first)
