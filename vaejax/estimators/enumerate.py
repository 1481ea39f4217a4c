"""The ELBO of finitely many latents, exactly."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from vaejax.base.types import Key, Model, Params, Scalar
from vaejax.base.values import component
from vaejax.distributions.bernoulli import BernoulliDensity
from vaejax.distributions.discrete import OneHotCategoricalDensity
from vaejax.estimators.base import posterior_of
from vaejax.estimators.control_variates import REMEDY


@component
class Enumerate:
    """Value: sum_z q(z|x) [log p(x, z) - log q(z|x)], the ELBO itself. Gradient: its own, exact.

    Of q a Bernoulli or an OneHotCategorical with at most 65,536 states. The key is not used.
    """

    def __call__(self, model: Model, params: Params, x: ArrayLike, key: Key) -> Scalar:
        q = posterior_of(
            model, params, x, (BernoulliDensity, OneHotCategoricalDensity), self, REMEDY
        )
        zs = q.states
        log_q = jax.vmap(q.log_prob)(zs)
        log_joint = jax.vmap(lambda z: model.log_joint(params, x, z))(zs)
        return jnp.sum(jnp.exp(log_q) * (log_joint - log_q))
