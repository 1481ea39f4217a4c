"""Biased gradients through relaxations of discrete latents."""

import jax
import jax.numpy as jnp

from vaejax.base.checks import require_count, require_positive
from vaejax.base.mapping import map_samples
from vaejax.base.types import Key, Params, PyTree, Scalar
from vaejax.base.values import component
from vaejax.bounds import elbo_bound, stopped
from vaejax.distributions.bernoulli import BernoulliDensity
from vaejax.distributions.discrete import OneHotCategoricalDensity
from vaejax.distributions.noise import open_uniform
from vaejax.estimators.base import (
    ELBOInParts,
    mean_reconstruction,
    posterior_in,
    with_gradient_of,
)
from vaejax.estimators.binary_layers import REMEDY, Latents, logit
from vaejax.models.base import Model


@component
class Relaxed(ELBOInParts):
    """Value: mean_k log w at hard samples. Gradient: of the same at their relaxations, sigmoid or
    softmax of (l + noise) / T.

    The noise is logistic or Gumbel. Biased, the less the lower T, where the variance grows; the
    relaxed objective is no bound. References: Maddison, Mnih & Teh 2017; Jang, Gu & Poole 2017.
    """

    temperature: float = 0.5
    num_samples: int = 1

    def __post_init__(self):
        require_positive(self.temperature, "Relaxed.temperature")
        require_count(self.num_samples, "Relaxed.num_samples")

    def parts(
        self, model: Model, params: Params, x: PyTree, key: Key
    ) -> tuple[Scalar, Scalar | None]:
        q = posterior_in(
            model, params, x, (BernoulliDensity, OneHotCategoricalDensity), self, REMEDY
        )

        def log_weights(key):
            """log w at a hard sample and at its relaxation, and log p(x | z) at the first."""
            hard, soft = hard_and_soft(q, key, self.temperature)
            log_joint, log_p_x = model.log_densities(params, x, hard)
            log_w_soft = model.log_joint(params, x, soft) - q.log_prob(soft)
            return log_joint - q.log_prob(hard), log_w_soft, log_p_x

        hard, soft, log_p_x = map_samples(log_weights, jax.random.split(key, self.num_samples))
        bound = with_gradient_of(jnp.mean(hard), jnp.mean(soft))
        return bound, mean_reconstruction(elbo_bound, log_p_x)


@component
class StraightThrough(ELBOInParts):
    """Value: mean_k log w at hard samples. Gradient: of the same, as if d hard / d l were d soft /
    d l.

    `soft` is the relaxed sample at the `temperature` with the same noise, or, with None, the mean
    of q. Biased. References: Bengio, Leonard & Courville 2013; Jang, Gu & Poole 2017 for the
    relaxed one.
    """

    temperature: float | None = None
    num_samples: int = 1

    def __post_init__(self):
        require_count(self.num_samples, "StraightThrough.num_samples")
        if self.temperature is not None:
            require_positive(self.temperature, "StraightThrough.temperature")

    def parts(
        self, model: Model, params: Params, x: PyTree, key: Key
    ) -> tuple[Scalar, Scalar | None]:
        q = posterior_in(
            model, params, x, (BernoulliDensity, OneHotCategoricalDensity), self, REMEDY
        )

        def log_weight(key):
            hard, soft = hard_and_soft(q, key, self.temperature or 1.0)
            soft = q.mean() if self.temperature is None else soft
            z = hard + soft - stopped(soft)  # the value of the first, the gradient of the second
            log_joint, log_p_x = model.log_densities(params, x, z)
            return log_joint - q.log_prob(z), log_p_x

        log_w, log_p_x = map_samples(log_weight, jax.random.split(key, self.num_samples))
        return jnp.mean(log_w), mean_reconstruction(elbo_bound, log_p_x)


def hard_and_soft(
    q: BernoulliDensity | OneHotCategoricalDensity, key: Key, temperature: float
) -> tuple[Latents, Latents]:
    """A sample of q, and its relaxation, of the same noise."""
    if isinstance(q, BernoulliDensity):
        soft = q.logits + logit(open_uniform(key, q.logits.shape, q.logits.dtype))
        return (stopped(soft) > 0).astype(soft.dtype), jax.nn.sigmoid(soft / temperature)
    soft = q.logits + jax.random.gumbel(key, q.logits.shape, q.logits.dtype)
    hard = jax.nn.one_hot(jnp.argmax(stopped(soft), axis=-1), soft.shape[-1], dtype=soft.dtype)
    return hard, jax.nn.softmax(soft / temperature)
