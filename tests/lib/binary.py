"""Three binary latents, two observed numbers: small enough to enumerate."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

import vaejax

X = jnp.asarray([0.3, -0.8])
NET = partial(vaejax.MLP, hidden=(4,))
MODEL = vaejax.VAE(
    vaejax.FactorialBernoulli(3), vaejax.Gaussian(NET(2), scale=0.7), vaejax.Bernoulli(NET(3))
)
PARAMS = jax.tree.map(
    lambda leaf: leaf + 0.4 * jax.random.normal(jax.random.key(leaf.size), leaf.shape),
    MODEL.init(jax.random.key(0), X),
)


def with_psi(estimator):
    """The parameters, with what the estimator learns."""
    return PARAMS._replace(psi=estimator.init(MODEL, PARAMS, X, jax.random.key(1)))


def gradients(estimator, num_draws, model=MODEL, params=None):
    """The values and gradients in theta and phi of so many draws, as rows."""
    params = with_psi(estimator) if params is None else params

    @jax.jit
    @jax.vmap
    def draw(key):
        value, gradient = jax.value_and_grad(lambda p: estimator(model, p, X, key))(params)
        return value, ravel_pytree((gradient.theta, gradient.phi))[0]

    return draw(jax.random.split(jax.random.key(2), num_draws))
