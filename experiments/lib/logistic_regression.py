"""Bayesian logistic regression of the breast-cancer data: E_q log p(y | w) - KL(q(w) || N(0, I)), q
a diagonal normal, as estimated and exact.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vaejax
from experiments.lib.normal_gradients import rules
from experiments.lib.training import cosine_adam
from vaejax.distributions.normal import standard_normal


def signed_rows() -> np.ndarray:
    """The breast-cancer data, [569, 31]: 30 standardised features and a 1, times -1 where the label
    is 0. All that the likelihood needs.
    """
    try:
        from sklearn.datasets import load_breast_cancer
    except ImportError:
        raise ValueError(
            "the regression's data come with scikit-learn: pip install 'vaejax[experiments]', or"
            " --parts curves"
        ) from None
    features, labels = load_breast_cancer(return_X_y=True)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    rows = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    return (np.where(labels == 1, 1, -1)[:, None] * rows).astype(np.float32)


def log_likelihood(num_data: int, rows, w):
    """(N / M) sum_m log sigmoid(r_m' w), of M signed rows: unbiased for the whole sum."""
    return num_data / len(rows) * jnp.sum(jax.nn.log_sigmoid(rows @ w))


@vaejax.component
class RegressionELBO(vaejax.Objective):
    """E_q log p(y | w), as estimated, less the exact KL; nats of the whole data set."""

    estimator: vaejax.Estimator
    model: vaejax.Expectation
    schedules = ()
    scale = 1

    def __call__(self, params, xs, key, step) -> vaejax.Terms:
        bound = self.bound(params, xs, key)
        return vaejax.Terms(bound, bound)

    def bound(self, params, x, key):
        return self.estimator(self.model, params, x, key) - kl_to_prior(self.model, params)


def kl_to_prior(model: vaejax.Expectation, params):
    q: Any = model.posterior(params, None)
    return vaejax.kl_divergence(q, standard_normal(q.loc))


def exact_elbo(model: vaejax.Expectation, params, rows):
    """The ELBO of a mean-field q: r' w is normal, so each row asks for one integral over a line."""
    q: Any = model.posterior(params, None)
    normal = rules()["normal"]
    # r' w ~ N(r' loc, (r^2)' scale^2)
    mean, scale = rows @ q.loc, jnp.sqrt(rows**2 @ jnp.exp(2 * q.log_scale))
    logits = mean[:, None] + scale[:, None] * normal.points[None]
    return jnp.sum(jax.nn.log_sigmoid(logits) @ normal.weights) - kl_to_prior(model, params)


@partial(jax.jit, static_argnames="model")
def best_elbo(model: vaejax.Expectation, params, rows):
    """The maximum of the exact ELBO, by 2,000 steps of Adam from `params`."""
    optimizer = cosine_adam(0.1, 2_000)
    loss_gradient = jax.grad(lambda params: -exact_elbo(model, params, rows))

    def step(_, carry):
        params, state = carry
        updates, state = optimizer.update(loss_gradient(params), state, params)
        return optax.apply_updates(params, updates), state

    carry = jax.lax.fori_loop(0, 2_000, step, (params, optimizer.init(params)))
    return exact_elbo(model, carry[0], rows)
