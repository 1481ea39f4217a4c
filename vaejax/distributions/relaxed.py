"""Relaxed discrete variables, in coordinates where they do not saturate.

A relaxed variable is a point of (0, 1) or of the simplex, and at a low temperature most of its mass
lies closer to a corner than a float can: in float32 no number lies between 1 - 6e-8 and 1. Both
densities of a bound would be taken at the same rounded point, which made it exceed log p(x) by
hundreds of nats. So the densities here are of the logit, and of the logarithms. Factors are shown
the point itself, by `Support.shown`; a KL does not depend on the coordinates.

Reference: Maddison, Mnih & Teh 2017, appendices B and C; Jang, Gu & Poole 2017.
"""

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vaejax.base.floats import full_dtype
from vaejax.base.types import Key, Scalar
from vaejax.base.values import pytree
from vaejax.distributions.base import Distribution, as_event, event_of
from vaejax.distributions.bernoulli import log1p_exp


@pytree
class RelaxedBernoulliDensity(Distribution):
    """log p(y), y = (l + logistic noise) / T: the logits of independent points sigmoid(y) of (0, 1)
    that tend to 0 and 1 as T -> 0.

    log p = sum_i [log T + t_i - 2 log(1 + exp t_i)], t_i = T y_i - l_i the noise, nats.
    `temperature` is T and `logits` are l, which have the shape of the event. At an infinite logit
    the variable is certain: a mass of 1 at y = l.
    """

    temperature: Float[Array, ""]
    logits: Float[Array, "..."]
    reparameterised = True

    @property
    def event(self) -> jax.ShapeDtypeStruct:
        return event_of(self, self.logits)

    def mean(self) -> jax.Array:
        """E y = l / T."""
        return self.logits / self.temperature

    def sample(self, key: Key) -> jax.Array:
        noise = jax.random.logistic(key, self.logits.shape, self.logits.dtype)
        return (self.logits + noise) / self.temperature

    def from_uniform(self, u: jax.Array) -> jax.Array:
        return (self.logits + jnp.log(u) - jnp.log1p(-u)) / self.temperature

    def log_prob(self, value: ArrayLike) -> Scalar:
        return jnp.sum(self.coordinate_log_probs(value))

    def coordinate_log_probs(self, value: ArrayLike) -> Float[Array, " d"]:
        y = as_event("RelaxedBernoulli", value, self.logits)
        certain = jnp.isinf(self.logits)
        noise = self.temperature * jnp.where(certain, 0, y) - jnp.where(certain, 0, self.logits)
        # t - 2 log(1 + exp t) without inf - inf
        log_p = jnp.log(self.temperature) - log1p_exp(noise) - log1p_exp(-noise)
        mass = jnp.where(y == self.logits, 0, -jnp.inf)
        return jnp.ravel(jnp.where(certain, mass, log_p))


@pytree
class RelaxedCategoricalDensity(Distribution):
    """log p(y), y = log softmax((l + Gumbel noise) / T): the logarithms of independent points
    exp(y_i) of the simplex that tend to one-hot vectors as T -> 0.

    log p = sum_i [log (n-1)! + (n-1) log T + sum_c t_ic - n logsumexp_c t_ic], t_ic = l_ic - T
    y_ic, n categories, nats; with respect to the n - 1 logits y_ic - y_in. `temperature` is T and
    `logits` are l, which have the shape of the event. A category whose logit is -inf is left out: n
    counts the others, and its y is -inf.
    """

    temperature: Float[Array, ""]
    logits: Float[Array, "... c"]
    reparameterised = True

    @property
    def event(self) -> jax.ShapeDtypeStruct:
        return event_of(self, self.logits)

    def sample(self, key: Key) -> jax.Array:
        noise = jax.random.gumbel(key, self.logits.shape, self.logits.dtype)
        return jax.nn.log_softmax((self.logits + noise) / self.temperature)

    def log_prob(self, value: ArrayLike) -> Scalar:
        return jnp.sum(self.coordinate_log_probs(value))

    def coordinate_log_probs(self, value: ArrayLike) -> Float[Array, " d"]:
        """Of each categorical variable."""
        y = as_event("RelaxedCategorical", value, self.logits)
        possible = self.logits > -jnp.inf
        inside = possible & (y > -jnp.inf)
        t = jnp.where(possible, self.logits - self.temperature * jnp.where(inside, y, 0), -jnp.inf)
        # sum_c t_c - n logsumexp t = sum_c log softmax(t)_c
        log_shares = jnp.sum(jnp.where(possible, jax.nn.log_softmax(t), 0), axis=-1)
        n = jnp.sum(possible, axis=-1, dtype=t.dtype)
        log_p = gammaln(n) + (n - 1) * jnp.log(self.temperature) + log_shares
        # -inf at the edge of the simplex, and off the face that the possible categories span
        matches = jnp.all(possible == (y > -jnp.inf), axis=-1)
        return jnp.ravel(jnp.where(matches, log_p, -jnp.inf))


def relaxed_bernoulli(temperature: float, logits: jax.Array) -> RelaxedBernoulliDensity:
    return RelaxedBernoulliDensity(jnp.asarray(temperature, full_dtype(logits)), logits)


def relaxed_categorical(temperature: float, logits: jax.Array) -> RelaxedCategoricalDensity:
    return RelaxedCategoricalDensity(jnp.asarray(temperature, full_dtype(logits)), logits)
