"""Priors, conditionals and graphs that are called on their own look at their parameters: those of
another part are refused in a line that names the first that does not fit, by shapes alone.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest

import vaejax
from tests.lib.cases import cases
from vaejax import Deterministic, DirectedGraph, Node
from vaejax.models.base import Conditional, Factor, Prior

KEY = jax.random.key(0)
MLP, X = vaejax.MLP, jnp.ones(3)
RELAXED = {"temperature": 0.5}
# {part: (of this size, and of another whose parameters have other names or shapes)}
PRIORS = {
    "LearnedNormal": (vaejax.LearnedNormal(2), vaejax.LearnedNormal(3)),
    "StandardNormal": (vaejax.StandardNormal(2), vaejax.LearnedNormal(2)),
    "MixtureOfGaussians": (vaejax.MixtureOfGaussians(2, 5), vaejax.MixtureOfGaussians(2, 3)),
    "VampPrior": (vaejax.VampPrior(5), vaejax.VampPrior(3)),
    "FlowPrior": (vaejax.FlowPrior(2, 2, (3,)), vaejax.FlowPrior(2, 3, (3,))),
    "autoregressive": (
        vaejax.FlowPrior(2, 2, (3,), "autoregressive"),
        vaejax.FlowPrior(2, 3, (3,), "autoregressive"),
    ),
    "UniformOnSphere": (vaejax.UniformOnSphere(2), vaejax.LearnedNormal(2)),
    "FactorialBernoulli": (vaejax.FactorialBernoulli(2), vaejax.FactorialBernoulli(3)),
    "FactorialCategorical": (
        vaejax.FactorialCategorical(2, 3),
        vaejax.FactorialCategorical(2, 4),
    ),
    "NumPyroPrior": (
        vaejax.NumPyroPrior(lambda: npd.Laplace(0.0, 1.0).expand([2]).to_event(1)),
        vaejax.LearnedNormal(2),
    ),
}


def of_nets(make, dim=3, heads=1):
    """A conditional, and the same with a layer more, whose parameters a net alone would take."""
    return make(MLP(dim, (3,), heads)), make(MLP(dim, (3, 3), heads))


CONDITIONALS = {
    "Bernoulli": of_nets(vaejax.Bernoulli),
    "ContinuousBernoulli": of_nets(vaejax.ContinuousBernoulli),
    "Categorical": of_nets(partial(vaejax.Categorical, num_levels=4), (3, 4)),
    "DiagNormal": of_nets(vaejax.DiagNormal, heads=2),
    "DiscretizedLogistic": of_nets(vaejax.DiscretizedLogistic, heads=2),
    "FullNormal": of_nets(vaejax.FullNormal, heads=5),
    "LowRankNormal": of_nets(vaejax.LowRankNormal, heads=3),
    "Laplace": of_nets(vaejax.Laplace, heads=2),
    "Gaussian": of_nets(partial(vaejax.Gaussian, scale="learned")),
    "InverseAutoregressive": of_nets(vaejax.InverseAutoregressive, heads=3),
    "RealNVP": of_nets(vaejax.RealNVP, heads=3),
    "NegativeBinomial": of_nets(vaejax.NegativeBinomial, heads=2),
    "OneHotCategorical": of_nets(vaejax.OneHotCategorical),
    "Poisson": of_nets(vaejax.Poisson),
    "RelaxedBernoulli": of_nets(partial(vaejax.RelaxedBernoulli, **RELAXED)),
    "RelaxedCategorical": of_nets(partial(vaejax.RelaxedCategorical, **RELAXED)),
    "VonMisesFisher": of_nets(vaejax.VonMisesFisher),
    "NumPyroConditional": of_nets(
        partial(vaejax.NumPyroConditional, family=lambda rate: npd.Poisson(jnp.exp(rate)))
    ),
}
PARTS = PRIORS | CONDITIONALS


def q(x):
    return vaejax.distributions.standard_normal(jnp.zeros(2))


def shown_to(part):
    return q if isinstance(part, Prior) else X


def wrong_trees(own, other):
    params, stack = own.init(KEY, X), lambda leaf: jnp.stack([leaf, leaf])
    whole = {"prior": params, "likelihood": ()}
    trees = {"of another": other.init(KEY, X)}
    if jax.tree.leaves(params):
        trees |= {
            "None": None,
            "nothing": {},
            "an empty tuple": (),
            "a batch": jax.tree.map(stack, params),
            "theta": whole,
            "the model's": vaejax.Params(theta=whole, phi=()),
            "complex": jax.tree.map(lambda leaf: leaf + 0j, params),
            "names": jax.tree.map(lambda leaf: "weights.npy", params),
        }
    return trees


def refused(call, message="parameters|its init made|init made for"):
    with pytest.raises((ValueError, TypeError), match=message) as error:
        call()
    assert "\n" not in str(error.value).split("\n---")[0]


@pytest.mark.parametrize("own, other", PARTS.values(), ids=PARTS)
def test_parameters_of_another_part(own, other):
    for params in wrong_trees(own, other).values():
        refused(lambda params=params: own(params, shown_to(own)))


@pytest.mark.parametrize("own, other", PARTS.values(), ids=PARTS)
def test_its_own_parameters_are_taken(own, other):
    """By a trace too, of NumPy, and one by one of a batch of them."""
    params, given = own.init(KEY, X), shown_to(own)
    sample = own(params, given).sample(KEY)
    np.testing.assert_array_equal(own(jax.tree.map(np.asarray, params), given).sample(KEY), sample)
    jax.jit(lambda params: own(params, given).sample(KEY))(params)
    if jax.tree.leaves(params):
        batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), params)
        jax.vmap(lambda params: own(params, given).sample(KEY))(batch)


def test_every_public_part_is_tried():
    """But for what is shown the prior's factor, as the nodes of an encoder are."""
    public = [getattr(vaejax, name) for name in dir(vaejax)]
    kinds = {kind for kind in public if isinstance(kind, type) and issubclass(kind, Factor)}
    kinds -= {Prior, Conditional, DirectedGraph}
    shown = {kind for kind in kinds if kind.is_shown_prior}
    assert kinds - shown == {type(own) for own, _ in PARTS.values()}


# Graphs, whose nodes may be some of those that have parameters.


def graph(widths=(3,), function_widths=(3,)):
    return DirectedGraph(
        (
            Node("z", vaejax.StandardNormal(2)),
            Node("x", vaejax.Bernoulli(MLP(3, widths)), "h"),
        ),
        (),
        (Deterministic("h", MLP(4, function_widths), "z"),),
    )


GRAPH = graph()
VALUES = {"z": jnp.zeros(2), "x": jnp.ones(3)}
GRAPHS = {"a wider node": graph((4,)), "a node with a layer more": graph((3, 3))} | {
    "a function with a layer more": graph(function_widths=(3, 4))
}


@pytest.mark.parametrize("other", cases(GRAPHS))
def test_parameters_of_another_graph(other):
    params = other.init(KEY, None)
    refused(lambda: GRAPH(params).log_prob(VALUES))
    refused(lambda: GRAPH(params).sample(KEY))


def test_a_node_without_parameters_is_named():
    params = GRAPH.init(KEY, None)
    for missing in ("x", "h", "z"):
        rest = {name: params[name] for name in params if name != missing}
        refused(lambda rest=rest: GRAPH(rest), f"none of the node '{missing}'")
    refused(lambda: GRAPH(()), "none of the node")
    clamped = GRAPH.clamp("z")
    assert np.isfinite(clamped(params, VALUES).log_prob({"x": VALUES["x"]}))


# The methods of a model.

MODEL = vaejax.VAE(
    vaejax.LearnedNormal(2),
    vaejax.Bernoulli(MLP(3, (3,))),
    vaejax.DiagNormal(MLP(2, (3,), heads=2)),
)
WIDER = replace(MODEL, encoder=vaejax.DiagNormal(MLP(2, (3, 4), heads=2)))
METHODS = {
    "posterior": lambda params: MODEL.posterior(params, X),
    "encoder": lambda params: MODEL.encoder(params.phi, X),
    "log_joint": lambda params: MODEL.log_joint(params, X, jnp.zeros(2)),
    "reconstruct": lambda params: MODEL.reconstruct(params, X, KEY),
}


@pytest.mark.parametrize("ask", cases(METHODS))
def test_parameters_of_another_encoder(ask):
    ask(MODEL.init(KEY, X))
    refused(lambda: ask(WIDER.init(KEY, X)))


# What is not known of an `init`.


@vaejax.component
class ReadsItsExample(vaejax.Prior):
    """A user's, whose parameters have a shape that the example gives."""

    support = vaejax.supports.REAL

    def init(self, key, x):
        return jnp.zeros(np.shape(x))

    def __call__(self, params, q):
        return vaejax.distributions.standard_normal(params)


@vaejax.component
class ReadsValues(vaejax.Conditional):
    support = vaejax.supports.REAL

    def init(self, key, given):
        return jnp.zeros(int(np.sum(given)) + 5)

    def __call__(self, params, given):
        return vaejax.distributions.standard_normal(params)


def test_an_init_that_cannot_be_asked_says_nothing():
    for part in (ReadsItsExample(), ReadsValues()):
        assert part(jnp.zeros(7), X).sample(KEY).shape == (7,)
