"""A posterior over the parameters: q(theta) = N(loc, diag exp(2 log_scale)) over all of a model's
generative weights, learned.

    log p(D) >= E_q(theta) [sum_i log p(x_i | theta)] - KL(q(theta) || p(theta)),
    p(theta) = N(0, prior_scale^2 I),

where the bound of each example stands for log p(x_i | theta) if there are latents, and a
minibatch's sum, scaled by N/M, for the sum over the data.
References: Kingma & Welling 2014, the appendix on full variational Bayes; Blundell et al. 2015.
"""

import math

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from vaejax.base.checks import require_count, require_key, require_positive
from vaejax.base.types import Key, Params, PyTree, Scalar, Terms
from vaejax.base.values import component
from vaejax.distributions.kl import kl_divergence
from vaejax.distributions.normal import DiagNormalDensity
from vaejax.objectives.base import Around, Objective, require_objective, terms_of


@component
class VariationalBayes(Around):
    """(1/M) sum_m bound(theta, x_m) - KL(q(theta) || p(theta)) / N, theta ~ q: nats per example; N
    times it bounds log p(D).

    `inner` is the objective of a batch, such as `vaejax.minibatch(vaejax.Pathwise(), model)`, and
    `vaejax.fit(VariationalBayes(inner, N), ...)` trains it: `params.theta` is then q(theta),
    {"loc": theta, "log_scale": as theta}, which `start` makes of a model's own parameters. Unbiased
    in value and gradient for batches drawn uniformly; one theta is drawn for all of a batch. phi
    and psi stay points. A validation is of theta at the mean of q(theta).
    """

    inner: Objective
    dataset_size: int
    prior_scale: float = 1.0

    def __post_init__(self):
        require_objective(self.inner)
        require_count(self.dataset_size, "VariationalBayes.dataset_size")
        require_positive(self.prior_scale, "VariationalBayes.prior_scale")

    def start(self, params: Params, log_scale: float = -4.0) -> Params:
        """q(theta) around a model's parameters, narrow."""
        log_scales = jax.tree.map(lambda leaf: jnp.full_like(leaf, log_scale), params.theta)
        return params._replace(theta={"loc": params.theta, "log_scale": log_scales})

    def draw(self, params: Params, key: Key) -> Params:
        """The model's parameters with theta ~ q(theta): of several draws the predictions differ,
        which is the uncertainty.
        """
        loc, unravel = ravel_pytree(params.theta["loc"])
        return params._replace(theta=unravel(q_theta(params.theta).sample(key).astype(loc.dtype)))

    def __call__(self, params: Params, xs: PyTree, key: Key, step: ArrayLike) -> Terms:
        require_key(key)
        theta_key, bound_key = jax.random.split(key)
        terms = terms_of(self.inner, self.draw(params, theta_key), xs, bound_key, step)
        q = q_theta(params.theta)
        log_prior_scale = jnp.full_like(q.loc, math.log(self.prior_scale))
        prior = DiagNormalDensity(jnp.zeros_like(q.loc), log_prior_scale)
        kl = kl_divergence(q, prior) / self.dataset_size * self.scale
        return terms._replace(bound=terms.bound - kl, objective=terms.objective - kl)

    def bound(self, params: Params, x: PyTree, key: Key) -> Scalar:
        return self.inner.bound(params._replace(theta=params.theta["loc"]), x, key)


def q_theta(theta: PyTree) -> DiagNormalDensity:
    """q(theta), over the weights in a row."""
    return DiagNormalDensity(ravel_pytree(theta["loc"])[0], ravel_pytree(theta["log_scale"])[0])
