"""An example outside a model's support: every likelihood x every kind of value, and what a traced
call can see.
"""

from collections.abc import Callable
from contextlib import nullcontext
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest

import vaejax
from tests.lib.cases import cases
from tests.lib.kinds import KINDS, PRIOR, SHAPE, normal, params_of
from vaejax.data.check import check_data, check_values
from vaejax.distributions.numpyro import from_numpyro, support_of_numpyro
from vaejax.models import base as models_base
from vaejax.models.base import check_example

KEY = jax.random.key(0)
SENTENCE = r"(has values in \[.*, and this likelihood is for |NaN or infinity)"


def gamma(rate):
    return npd.Gamma(2.0, jnp.exp(rate))


@vaejax.component
class FromFamily(vaejax.Conditional):
    """p(x | z) of NumPyro, whatever z: each with the values that it is for."""

    family: Callable
    shape: tuple[int, ...]

    @property
    def support(self):
        return support_of_numpyro(self.family(jnp.zeros(self.shape)))

    def init(self, key, given):
        return ()

    def __call__(self, params, given):
        return from_numpyro(self.family(jnp.zeros(self.shape)))


def simplex(logits):
    return npd.Dirichlet(jnp.exp(logits))


LIKELIHOODS = {
    "Bernoulli": vaejax.Bernoulli(vaejax.MLP(3, ())),
    "ContinuousBernoulli": vaejax.ContinuousBernoulli(vaejax.MLP(3, ())),
    "levels": vaejax.Categorical(vaejax.MLP((3, 5), ()), 5),
    "Poisson": vaejax.Poisson(vaejax.MLP(3, ())),
    "one-hot": vaejax.OneHotCategorical(vaejax.MLP(3, ())),
    "sphere": vaejax.VonMisesFisher(vaejax.MLP(3, ())),
    "Gaussian": vaejax.Gaussian(vaejax.MLP(3, ()), 1.0),
    "Gamma": FromFamily(gamma, (3,)),
    "Beta": FromFamily(lambda a: npd.Beta(jnp.exp(a), 1.0), (3,)),
    "Binomial": FromFamily(lambda a: npd.Binomial(4, logits=a), (3,)),
    "Dirichlet": FromFamily(simplex, (3,)),
}
THIRD, NAN = 1 / 3, float("nan")
VALUES = {
    "stored pixels": [0.0, 17.0, 255.0],
    "grey": [0.1, 0.5, 0.9],
    "binary": [0.0, 1.0, 1.0],
    "one-hot": [0.0, 1.0, 0.0],
    "none is hot": [0.0, 0.0, 0.0],
    "negative": [-0.6, 0.8, 0.0],
    "quarters": [0.25, 0.5, 1.0],
    "counts": [0.0, 3.0, 4.0],
    "sum 1": [0.2, 0.3, 0.5],
    "above 0": [0.1, 2.0, 7.3],
    "NaN": [0.0, NAN, 1.0],
    "infinity": [0.0, 1.0, -np.inf],
}
INSIDE = {
    "Bernoulli": {"binary", "one-hot", "none is hot"},
    "ContinuousBernoulli": {"grey", "binary", "one-hot", "none is hot", "quarters", "sum 1"},
    "levels": {"binary", "one-hot", "none is hot", "quarters"},
    "Poisson": {"stored pixels", "binary", "one-hot", "none is hot", "counts"},
    "one-hot": {"one-hot"},
    "sphere": {"one-hot", "negative"},
    "Gaussian": set(VALUES) - {"NaN", "infinity"},
    "Gamma": {"grey", "quarters", "sum 1", "above 0"},
    "Beta": {"grey", "binary", "one-hot", "none is hot", "quarters", "sum 1"},
    "Binomial": {"binary", "one-hot", "none is hot", "counts"},
    "Dirichlet": {"one-hot", "sum 1"},
}


@pytest.mark.parametrize("name", cases(LIKELIHOODS.keys()))
def test_one_example_and_a_data_set_have_one_answer(name):
    """Every likelihood x every kind of value, in float32, float64 and bfloat16, as an example and
    as data: inside passes and outside does not.
    """
    model = vaejax.VAE(PRIOR, LIKELIHOODS[name], normal())
    for kind, values in VALUES.items():
        passes = kind in INSIDE[name]
        for dtype in (np.float32, np.float64, jnp.bfloat16):
            if dtype is jnp.bfloat16 and kind in ("grey", "sum 1", "negative"):
                continue  # a rounding away
            x = np.asarray(values, dtype)
            asked = [lambda x=x: check_example(model, x), lambda x=x: check_example(model, x[None])]
            if dtype is not jnp.bfloat16:
                asked.append(lambda x=x: check_data(x[None], model.support))
            for question in asked:
                with nullcontext() if passes else pytest.raises(ValueError, match=SENTENCE):
                    question()


def test_whole_numbers_and_booleans_are_numbers():
    model = vaejax.VAE(PRIOR, LIKELIHOODS["Bernoulli"], normal())
    for dtype in (np.uint8, np.int32, bool):
        check_example(model, np.array([0, 1, 1], dtype))
    with pytest.raises(ValueError, match=SENTENCE):
        check_example(model, np.array([0, 255, 1], np.uint8))


def test_an_example_without_numbers_has_none_to_refuse():
    """Such as what an objective is made of that draws for itself."""
    for x in ((), {}, None):
        check_values(x, vaejax.supports.BINARY)


# What a traced call cannot see, and what it can.


def test_an_argument_that_is_traced_is_not_seen_and_costs_nothing():
    """The program of a step with the doors is that of the same model with none."""
    model = KINDS["VAE"]
    params, x = params_of(model), jnp.full(SHAPE, 255.0)
    assert jnp.isfinite(jax.jit(lambda p, x: vaejax.elbo(model, p, x, KEY))(params, x))
    seen = jax.make_jaxpr(lambda p, x: vaejax.elbo(model, p, x, KEY))(params, x)
    with mock.patch.object(models_base, "check_example"):
        unseen = jax.make_jaxpr(lambda p, x: vaejax.elbo(model, p, x, KEY))(params, x)
    assert str(seen) == str(unseen)
    with pytest.raises(ValueError, match=SENTENCE):
        jax.jit(lambda p: vaejax.elbo(model, p, x, KEY))(params)


def test_pseudo_inputs_are_no_data():
    """Those of a VampPrior lie anywhere."""
    model = vaejax.VAE(vaejax.VampPrior(2), vaejax.Bernoulli(vaejax.MLP(SHAPE, ())), normal())
    x = jnp.ones(SHAPE)
    assert jnp.isfinite(vaejax.elbo(model, model.init(KEY, x), x, KEY))
