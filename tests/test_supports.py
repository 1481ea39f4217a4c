"""Data outside a model's support are refused in one sentence, whoever is given them and whatever
the model: every entry point x every kind of model x bad data of its kind.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest

import vaejax
from tests.lib.cases import cases
from tests.lib.entry_points import OF_INPUTS, OF_ONE, OVER_DATA
from tests.lib.kinds import KINDS, PRIOR, SHAPE, data_of, normal, params_of
from vaejax import Node

KEY = jax.random.key(0)


def gamma(rate):
    return npd.Gamma(2.0, jnp.exp(rate))


def numpyro_likelihood():
    return vaejax.NumPyroConditional(vaejax.MLP(SHAPE, (3,)), gamma)


def two_observed():
    x, y = vaejax.Bernoulli(vaejax.MLP(SHAPE, (3,))), vaejax.Poisson(vaejax.MLP(SHAPE, (3,)))
    nodes = Node("z", PRIOR), Node("x", x, "z"), Node("y", y, "z")
    return vaejax.GraphModel(vaejax.DirectedGraph(nodes), normal(), ("x", "y"))


MODELS = {
    **KINDS,
    "Refined": vaejax.Refined(KINDS["VAE"], 1),
    "NumPyro": vaejax.VAE(PRIOR, numpyro_likelihood(), normal()),
    "NumPyro node": vaejax.GraphModel(
        vaejax.DirectedGraph((Node("z", PRIOR), Node("x", numpyro_likelihood(), "z"))), normal()
    ),
    "two observed": two_observed(),
}
POSITIVE = ("NumPyro", "NumPyro node")
CONDITIONAL = ("conditional", "conditional layers", "own conditional")


def good(name):
    xs = data_of(MODELS[name])
    if name in POSITIVE:
        return 0.5 + xs
    return {"x": xs, "y": xs} if name == "two observed" else xs


def params_for(name):
    if name in KINDS:
        return params_of(MODELS[name])
    return MODELS[name].init(jax.random.key(0), one(good(name)))


def spoilt(name, factor):
    """Good data with one value of x out of its set, in row 1."""
    xs = good(name)
    x = np.array(xs["x"] if isinstance(xs, dict) else xs)
    x[1, 2, 3] = factor
    return {**xs, "x": x} if isinstance(xs, dict) else x


def one(xs):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[1]), xs)


SENTENCE = r"(?s)(has values in \[.*, and this likelihood is for |NaN or infinity)"


# {what is asked: the models that it is not for, whatever the data}
NOT_FOR = {
    "AIS": ["one-hot"],
    "map_dataset of AIS": ["one-hot"],
    "TCVAE": list(CONDITIONAL),
    "kl_decomposition": list(CONDITIONAL),
}


QUICK = {"VAE", "graph", "conditional", "NumPyro"}


@pytest.mark.parametrize("name", cases(MODELS.keys(), slow=MODELS.keys() - QUICK))
def test_data_outside_the_support_are_refused_wherever_they_come_in(name):
    model, params = MODELS[name], params_for(name)
    xs = spoilt(name, -1.0 if name in POSITIVE else 255.0)
    for asked, function in {**OF_ONE, **OVER_DATA}.items():
        if (asked in OF_INPUTS and not model.inputs) or name in NOT_FOR.get(asked, ()):
            continue
        with pytest.raises(ValueError, match=SENTENCE) as error:
            function(model, params, xs if asked in OVER_DATA else one(xs))
            pytest.fail(f"{asked} takes them")
        assert "\n" not in str(error.value)
