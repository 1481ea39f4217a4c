"""The support of a NumPyro family is read off it; families on two sets are refused."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import optax
import pytest

import vaejax
from tests.lib.families import FAMILIES, POSITIVE, REAL, UNIT, First, one
from vaejax import supports
from vaejax.distributions.numpyro import from_numpyro, support_of_numpyro
from vaejax.models.conditionals.numpyro import support_of_family

# Supports.


@pytest.mark.parametrize("name", FAMILIES)
def test_the_support_is_the_familys_own(name):
    family = FAMILIES[name]
    assert family.model.prior.support == family.model.encoder.support == family.support


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_on_another_set_is_refused(name):
    family = FAMILIES[name]
    other = FAMILIES["Gamma" if family.support != POSITIVE else "Beta"]
    with pytest.raises(ValueError, match="NumPyroPrior is a prior on .* KL"):
        vaejax.VAE(family.model.prior, family.model.likelihood, other.model.encoder)


FORMS: dict[str, tuple[Any, supports.Support]] = {
    "a class": (npd.Gamma, POSITIVE),
    "a class of a vector": (npd.Dirichlet, supports.SIMPLEX),
    "a class with defaults": (npd.StudentT, REAL),
    "a class of a matrix": (npd.MultivariateNormal, REAL),
    "a lambda": (lambda raw: npd.Exponential(jnp.exp(raw)), POSITIVE),
    "two heads": (lambda loc, raw: npd.LogNormal(loc, jnp.exp(raw)), POSITIVE),
    "a partial": (partial(npd.Gamma, rate=2.0), POSITIVE),
    "any number of heads": (lambda *heads: npd.Normal(heads[0], 1.0), REAL),
    "a matrix": (lambda loc, tril: npd.MultivariateNormal(loc, scale_tril=tril), REAL),
    "low rank": (npd.LowRankMultivariateNormal, REAL),
    "vectors of a fixed size": (
        lambda a: npd.Dirichlet(jnp.stack([a, a, 1 + a], -1)),
        supports.SIMPLEX,
    ),
    "counts": (npd.Poisson, supports.COUNTS),
    "binary": (npd.BernoulliLogits, supports.BINARY),
    "directions": (npd.ProjectedNormal, supports.SPHERE),
    "fixed ends": (lambda low: npd.Uniform(0.0 * low, 1.0), UNIT),
    "cut off at 0": (lambda l, s: npd.TruncatedNormal(l, s, low=0.0), supports.NON_NEGATIVE),
    "pushed": (
        lambda l: npd.TransformedDistribution(npd.Normal(l, 1), npd.transforms.SigmoidTransform()),
        UNIT,
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_support_of_any_form_of_a_family(form):
    family, support = FORMS[form]
    assert support_of_family(family) == support


MOVING = {
    "Uniform": npd.Uniform,
    "Pareto": npd.Pareto,
    "LogUniform": npd.LogUniform,
    "cut off": lambda low: npd.TruncatedNormal(0.0, 1.0, low=low),
}


@pytest.mark.parametrize("name", MOVING)
def test_ends_that_the_net_moves_are_no_set_of_a_latent(name):
    """As data's density it is taken; of a latent the KL would be infinite, whatever the other."""
    family = MOVING[name]
    heads = 1 if name == "cut off" else 2
    encoder = vaejax.NumPyroConditional(vaejax.MLP(1, (2,), heads=heads), family)
    assert encoder.support.moving
    likelihood = vaejax.Gaussian(First(), 1.0)
    for prior in (vaejax.NumPyroPrior(one(npd.Uniform(0.2, 0.9))), vaejax.VampPrior(2)):
        with pytest.raises(ValueError, match=r"the ends of the support of NumPyroConditional move"):
            vaejax.VAE(prior, likelihood, encoder)
    vaejax.VAE(vaejax.StandardNormal(1), encoder, vaejax.DiagNormal(vaejax.MLP(1, heads=2)))


VALID = {
    "Categorical": (npd.CategoricalLogits, [0, 4], [-1, 0.5]),
    "Categorical of probabilities": (lambda r: npd.Categorical(jax.nn.softmax(r)), [0, 4], [-1]),
    "Binomial": (lambda r: npd.Binomial(7, logits=r), [0, 7], [-1, 8, 0.5]),
    "Binomial of the net's n": (lambda n: npd.Binomial(jnp.round(n) + 1, 0.5), [0, 9], [-1, 0.5]),
    "BetaBinomial": (lambda r: npd.BetaBinomial(jnp.exp(r), 1.0, 7), [0, 7], [-1, 8]),
    "DiscreteUniform": (lambda r: npd.DiscreteUniform(0, r), [0, 9], [0.5]),
    "OrderedLogistic": (
        lambda r: npd.OrderedLogistic(r[0], jnp.cumsum(jnp.exp(r[1:]))),
        [0, 4],
        [-1],
    ),
}


@pytest.mark.parametrize("name", VALID)
def test_nothing_valid_is_refused(name):
    """Whatever of a support depends on the values or the number of the parameters."""
    family, inside, outside = VALID[name]
    support: Any = vaejax.NumPyroConditional(vaejax.MLP(5), family).support
    assert all(support.contains(np.asarray(value, np.float32)) for value in inside), support
    assert not any(support.contains(np.asarray(value, np.float32)) for value in outside), support


def test_the_number_0_is_no_difference_between_two_sets():
    """A normal that is cut off at 0 may stand for a positive latent, and the other way round."""
    cut = vaejax.NumPyroConditional(vaejax.MLP(1, (2,)), lambda l: npd.TruncatedNormal(l, low=0.0))
    likelihood = vaejax.Gaussian(First(), 1.0)
    vaejax.VAE(vaejax.NumPyroPrior(one(npd.HalfNormal(1.0))), likelihood, cut)
    prior = vaejax.NumPyroPrior(one(npd.TruncatedNormal(0.0, 1.0, low=0.0)))
    vaejax.VAE(prior, likelihood, FAMILIES["Gamma"].model.encoder)


def test_a_family_that_cannot_be_tried_asks_for_its_support():
    def picky(loc):
        if loc.shape != (7,):
            raise ValueError("only of seven")
        return npd.Normal(loc, 1.0)

    net = vaejax.MLP(7)
    with pytest.raises(TypeError, match=r"cannot be read off it; say NumPyroConditional\(net,"):
        vaejax.NumPyroConditional(net, picky)
    assert vaejax.NumPyroConditional(net, picky, support=REAL).support == REAL


@pytest.mark.parametrize(
    "p, support",
    [
        (npd.Uniform(0.0, 1.0), UNIT),
        (npd.Uniform(0.0, 2.0), supports.Support("interval", "NumPyro's", 0.0, 2.0)),
        (npd.Pareto(1.0, 1.0), supports.Support("greaterthan", "NumPyro's", 1.0)),
        (npd.HalfNormal(1.0).expand((3,)).to_event(1), POSITIVE),
        (npd.Categorical(jnp.ones(3) / 3), supports.Support("", "", 0.0, 2.0, 1)),
    ],
)
def test_the_support_of_one_numpyro_density(p, support):
    read = support_of_numpyro(from_numpyro(p).base)
    assert (read.low, read.high, read.steps) == (support.low, support.high, support.steps)


def gamma_likelihood():
    """A VAE of positive data, whose likelihood names no support."""
    likelihood = vaejax.NumPyroConditional(
        vaejax.MLP(2, (3,), heads=2), lambda a, b: npd.Gamma(jnp.exp(a), jnp.exp(b))
    )
    encoder = vaejax.DiagNormal(vaejax.MLP(1, (3,), heads=2))
    return vaejax.VAE(vaejax.StandardNormal(1), likelihood, encoder)


def test_data_off_the_familys_support_are_refused():
    """They were -inf +- NaN, for a likelihood whose support was taken for all of R."""
    model, xs = gamma_likelihood(), np.ones((4, 2), np.float32)
    xs[1, 0] = -0.5
    objective = vaejax.minibatch(vaejax.Pathwise(), model)
    key = jax.random.key(0)
    params = model.init(key, jnp.ones(2))
    message = r"-0\.5.* numbers above 0"
    sgd = optax.sgd(0.1)
    with pytest.raises(ValueError, match=message):
        vaejax.fit(objective, params, sgd, xs, key, batch_size=2, num_steps=1)
    with pytest.raises(ValueError, match=message):
        vaejax.evaluate(model, params, xs, key, num_samples=2)
