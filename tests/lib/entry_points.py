"""Every function of the library that is given a model, its parameters and data: of one example, and
over data.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vaejax
from vaejax import ais, plots
from vaejax.base.mapping import Transformed
from vaejax.training.optimizers import ByStructure
from vaejax.training.trainer import Trainer, keys_of_step
from vaejax.variance.groups import heads

KEY = jax.random.key(0)
KEYS = jax.random.split(KEY)
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
    "fit_seeds": lambda m, p, xs: vaejax.fit_seeds(objective(m), seeds(p), ADAM, xs, KEYS, **SHORT),
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
        p, xs, jnp.arange(2), keys_of_step(KEY, 0), 0
    ),
    "gradient_moments": lambda m, p, xs: vaejax.gradient_moments(objective(m), p, xs, KEY, 2),
    "variance_sources": lambda m, p, xs: vaejax.variance_sources(objective(m), p, xs, KEY, 2),
    "gradient_cost of a batch": lambda m, p, xs: vaejax.gradient_cost(objective(m), p, xs, KEY, 1),
    "reconstructions": lambda m, p, xs: plots.reconstructions(m, p, xs, KEY),
    "samples": lambda m, p, xs: plots.samples(m, p, KEY, 1, 2, xs),
}
# What reads the inputs of an example alone, where there are any.
OF_INPUTS = {"bdmc", "simulate", "calibration", "samples"}
