"""One linear-Gaussian example whose gradient is measured, and all of its draws kept."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import vaejax
from tests.lib.oracles import LinearGaussian
from vaejax.objectives.base import Maximised

POINT = LinearGaussian()
OBJECTIVE = vaejax.per_example(vaejax.Pathwise(), POINT.model)
MINIBATCH = vaejax.minibatch(vaejax.Pathwise(), POINT.model)
XS = jnp.asarray([[0.3], [-1.0], [2.1], [0.7], [1.4]])
measure = partial(
    vaejax.gradient_moments, params=POINT.params, x=POINT.datum, key=jax.random.key(0)
)


def all_draws(objective, num_draws, params=POINT.params, x=POINT.datum, key=jax.random.key(0)):
    """[draws, parameters] of the draws that `gradient_moments` takes, kept."""
    _, draw_key = jax.random.split(key)
    keys = jax.vmap(lambda i: jax.random.fold_in(draw_key, i))(jnp.arange(num_draws))
    gradient = jax.grad(Maximised(objective))
    draws = jax.jit(jax.vmap(lambda key: ravel_pytree(gradient(params, x, key))[0]))(keys)
    return np.asarray(draws, np.float64)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
