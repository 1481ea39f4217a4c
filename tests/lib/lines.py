"""A model of lines: two numbers, each with its own latent, q(z|x) = N(a x, exp(2 log_scale)). No
nets, so that it compiles fast.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import vaejax
from tests.lib.oracles import Line
from vaejax.objectives.base import Maximised

KEY = jax.random.key(1)


@vaejax.component
class Slope:
    """(loc, log_scale) = (a x, log_scale), coordinate by coordinate."""

    def init(self, key, x):
        return {"a": jnp.ones(jnp.shape(x)), "log_scale": jnp.zeros(jnp.shape(x))}

    def apply(self, params, x):
        return params["a"] * x, params["log_scale"]


def lines_with(scale, prior=vaejax.StandardNormal(2)):
    """x = w z + b + noise, coordinate by coordinate, and q(z|x) = N(a x, exp(2 log_scale))."""
    return vaejax.VAE(
        prior, vaejax.Gaussian(Line(), scale), vaejax.DiagNormal(Slope(), max_log_scale=None)
    )


LINES = lines_with(0.8)
LEARNED = lines_with("learned")


BERNOULLI = vaejax.VAE(LINES.prior, vaejax.Bernoulli(Line()), LINES.encoder)


def params_of(w=1.3, a=(1.4, 2.0), log_scale=(-0.7, -1.0), likelihood=None, dtype=float, prior=()):
    net = {"w": jnp.asarray(w, dtype), "b": jnp.asarray(0.2, dtype)}
    theta = {"prior": prior, "likelihood": {"net": net, **(likelihood or {})}}
    return vaejax.Params(
        theta, {"a": jnp.asarray(a, dtype), "log_scale": jnp.asarray(log_scale, dtype)}
    )


def log_scale_of(params):
    return params.theta["likelihood"]["log_scale"]


def terms_and_gradient(objective, step=0):
    """(params, xs, key) -> (Terms, the gradient of what is maximised)."""

    def maximised(params, xs, key):
        terms = objective(params, xs, key, step)
        return terms.objective, terms

    def swapped(params, xs, key):
        (_, terms), gradient = jax.value_and_grad(maximised, has_aux=True)(params, xs, key)
        return terms, gradient

    return swapped


def value_and_gradient(objective, step=0):
    """(params, xs, key) -> what is maximised, and its gradient."""
    return jax.value_and_grad(Maximised(objective, step))


def assert_close(actual, expected, **tolerance):
    jax.tree.map(
        partial(np.testing.assert_allclose, **{"rtol": 1e-10, "atol": 1e-12, **tolerance}),
        actual,
        expected,
    )


# The parts of the KL.


@jax.jit
def samples(params, xs, key):
    """z_i ~ q(z | x_i) as the one-sample bound of the batch draws them."""
    keys = jax.vmap(lambda key: jax.random.split(key, 1)[0])(jax.random.split(key, len(xs)))
    return jax.vmap(lambda x, key: LINES.encoder(params.phi, x).sample(key))(xs, keys)


def correlated():
    """Seven examples with dependent coordinates."""
    x = np.random.default_rng(0).normal(size=(7, 1))
    return np.hstack([x, 0.5 - x])
