"""A weight on the KL."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from vaejax.base.checks import require_count, require_key
from vaejax.base.mapping import map_samples
from vaejax.base.types import Key, Params, PyTree, Scalar, Terms
from vaejax.base.values import component
from vaejax.estimators.base import Estimator, reparameterised_posterior
from vaejax.models.base import Model, prior_of
from vaejax.objectives.schedules import Schedule, Weight, at_step, require_weights, scheduled


@component
class Beta(Estimator):
    """mean_k [log p(x | z_k) + beta (log p(z_k) - log q(z_k | x))], z_k ~ q, of one example; the
    bound is the same at beta = 1.

    `weight` is beta: a number, or a schedule.
    `vaejax.minibatch(vaejax.Beta(vaejax.WarmUp(5_000)), model)` for `fit`. Gradient: the total
    derivative, as `Pathwise`, which this is at beta = 1. Needs a reparameterised q.
    Reference: Higgins et al. 2017.
    """

    weight: Weight = 1.0
    num_samples: int = 1

    def __post_init__(self):
        require_weights(self, weight=self.weight)
        require_count(self.num_samples, "Beta.num_samples")

    @property
    def schedules(self) -> tuple[tuple[str, Schedule], ...]:
        return scheduled(beta=self.weight)

    def __call__(self, model: Model, params: Params, x: PyTree, key: Key) -> Scalar:
        return self.terms(model, params, x, key, 0).bound  # which no weight moves

    def terms(self, model: Model, params: Params, x: PyTree, key: Key, step: ArrayLike) -> Terms:
        require_key(key)
        q = reparameterised_posterior(self, model, params, x)

        def parts(key):
            z, log_q = q.sample_and_log_prob(key)
            log_p_x = model.log_likelihood(params, x, z)
            return log_p_x, prior_of(model, params, x).log_prob(z) - log_q

        samples = map_samples(parts, jax.random.split(key, self.num_samples))
        log_p_x, log_ratio = map(jnp.mean, samples)
        objective = log_p_x + at_step(self.weight, step) * log_ratio
        return Terms(log_p_x + log_ratio, objective, log_p_x)
