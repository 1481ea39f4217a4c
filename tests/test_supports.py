"""Data outside a model's support are refused in one sentence, whoever is given them and whatever
the model: every entry point x every kind of model x bad data of its kind.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import optax
import pytest

import vaejax
from tests.lib.cases import cases
from tests.lib.kinds import KINDS, PRIOR, SHAPE, data_of, normal, params_of
from vaejax import Node, ais, plots
from vaejax.base.mapping import Transformed
from vaejax.training.optimizers import ByStructure
from vaejax.training.trainer import Trainer
from vaejax.variance.groups import heads

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

SHORT = {"num_steps": 1, "batch_size": 2, "progress": False}
ADAM = optax.adam(0.1)


def objective(model, estimator=vaejax.ScoreFunction()):
    return vaejax.minibatch(estimator, model)


def seeds(params):
    return jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), params)


def annealed(model):
    return vaejax.AIS(model, ais.Linear(2), 2, transition=ais.HMC(1))


def draws_a_latent(model, params, x):
    return model.posterior(params, jax.tree.map(jnp.abs, x)).sample(KEY)


OF_ONE = {
    "elbo": lambda m, p, x: vaejax.elbo(m, p, x, KEY),
    "iwae": lambda m, p, x: vaejax.iwae(m, p, x, KEY, 2),
    "log_marginal": lambda m, p, x: vaejax.log_marginal(m, p, x, KEY, 2),
    "its gradient": lambda m, p, x: jax.grad(lambda p: vaejax.log_marginal(m, p, x, KEY, 2))(p),
    "in a jit of its parameters": lambda m, p, x: jax.jit(lambda p: vaejax.elbo(m, p, x, KEY))(p),
    "ScoreFunction": lambda m, p, x: vaejax.ScoreFunction()(m, p, x, KEY),
    "VIMCO": lambda m, p, x: vaejax.VIMCO(2)(m, p, x, KEY),
    "Beta": lambda m, p, x: vaejax.Beta(2.0)(m, p, x, KEY),
    "Pathwise": lambda m, p, x: vaejax.Pathwise()(m, p, x, KEY),
    "AIS": lambda m, p, x: annealed(m)(p, x, KEY),
    "bdmc": lambda m, p, x: annealed(m).bdmc(p, KEY, x),
    "simulate": lambda m, p, x: m.simulate(p, KEY, KEY, x),
    "log_joint": lambda m, p, x: m.log_joint(p, x, draws_a_latent(m, p, x)),
    "log_likelihood": lambda m, p, x: m.log_likelihood(p, x, draws_a_latent(m, p, x)),
    "reconstruct": lambda m, p, x: m.reconstruct(p, x, KEY),
    "Refined": lambda m, p, x: vaejax.elbo(vaejax.Refined(m, 1), p, x, KEY),
    "decoder_evaluations": lambda m, p, x: vaejax.decoder_evaluations(
        vaejax.ScoreFunction(), m, p, x, KEY
    ),
    "gradient_cost": lambda m, p, x: vaejax.gradient_cost(
        vaejax.per_example(vaejax.ScoreFunction(), m), p, x, KEY, 1
    ),
    "gradient_moments of one": lambda m, p, x: vaejax.gradient_moments(
        vaejax.per_example(vaejax.ScoreFunction(), m), p, x, KEY, 2
    ),
    "heads": lambda m, p, x: heads(m, p, x),
}
OVER_DATA = {
    "fit": lambda m, p, xs: vaejax.fit(objective(m), p, ADAM, xs, KEY, **SHORT),
    "fit of a source": lambda m, p, xs: vaejax.fit(
        objective(m), p, ADAM, vaejax.Arrays(xs), KEY, **SHORT
    ),
    "fit, by a lambda": lambda m, p, xs: vaejax.fit(
        vaejax.minibatch(lambda p, x, key: vaejax.elbo(m, p, x, key), support=m.support),
        p,
        ADAM,
        xs,
        KEY,
        **SHORT,
    ),
    "fit, transformed": lambda m, p, xs: vaejax.fit(
        objective(m), p, ADAM, xs, KEY, transform=lambda x, key: x, **SHORT
    ),
    "fit_seeds": lambda m, p, xs: vaejax.fit_seeds(
        objective(m), seeds(p), ADAM, xs, jax.random.split(KEY), **SHORT
    ),
    "evaluate": lambda m, p, xs: vaejax.evaluate(m, p, xs, KEY, num_samples=2),
    "posterior_means": lambda m, p, xs: vaejax.posterior_means(m, p, xs, KEY),
    "latent_space": lambda m, p, xs: vaejax.latent_space(m, p, xs, KEY),
    "calibration": lambda m, p, xs: vaejax.calibration(
        m, p, KEY, xs=xs, num_simulations=4, num_draws=3, num_bins=2
    ),
    "predictive_check": lambda m, p, xs: vaejax.predictive_check(
        lambda x: jnp.mean(jax.tree.leaves(x)[0]), m, p, xs, KEY
    ),
    "inference_gap": lambda m, p, xs: vaejax.inference_gap(
        m if isinstance(m, vaejax.Refined) else vaejax.Refined(m, 1), p, xs, np.zeros(6), KEY
    ),
    "map_dataset": lambda m, p, xs: vaejax.map_dataset(partial(vaejax.elbo, m), p, xs, KEY),
    "map_dataset of a lambda": lambda m, p, xs: vaejax.map_dataset(
        lambda p, x, key: vaejax.log_marginal(m, p, x, key, 2), p, xs, KEY
    ),
    "map_dataset of AIS": lambda m, p, xs: vaejax.map_dataset(annealed(m), p, xs, KEY),
    "map_dataset of Transformed": lambda m, p, xs: vaejax.map_dataset(
        Transformed(partial(vaejax.elbo, m), lambda x, key: x), p, xs, KEY
    ),
    "map_source": lambda m, p, xs: vaejax.map_source(
        partial(vaejax.elbo, m), p, vaejax.Arrays(xs), KEY
    ),
    "minibatch": lambda m, p, xs: objective(m)(p, xs, KEY, 0),
    "TCVAE": lambda m, p, xs: vaejax.TCVAE(m, 6)(p, xs, KEY, 0),
    "kl_decomposition": lambda m, p, xs: vaejax.kl_decomposition(m, p, xs, KEY),
    "FreeBits": lambda m, p, xs: vaejax.FreeBits(m, 0.1)(p, xs, KEY, 0),
    "VariationalBayes": lambda m, p, xs: (lambda bayes: bayes(bayes.start(p), xs, KEY, 0))(
        vaejax.VariationalBayes(objective(m), 6)
    ),
    "Trainer": lambda m, p, xs: Trainer(objective(m), ByStructure(ADAM), None, None, 2, ()).terms(
        p, xs, jnp.arange(2), KEY, 0
    ),
    "gradient_moments": lambda m, p, xs: vaejax.gradient_moments(objective(m), p, xs, KEY, 2),
    "variance_sources": lambda m, p, xs: vaejax.variance_sources(objective(m), p, xs, KEY, 2),
    "gradient_cost of a batch": lambda m, p, xs: vaejax.gradient_cost(objective(m), p, xs, KEY, 1),
    "reconstructions": lambda m, p, xs: plots.reconstructions(m, p, xs, KEY),
    "samples": lambda m, p, xs: plots.samples(m, p, KEY, 1, 2, xs),
}
# What reads the inputs of an example alone, where there are any.
OF_INPUTS = {"bdmc", "simulate", "calibration", "samples"}


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
