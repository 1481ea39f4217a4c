"""Categorical variables as one-hot vectors, and their relaxation on the simplex."""

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vaejax.base.floats import times_log
from vaejax.base.types import Key, Scalar
from vaejax.base.values import pytree
from vaejax.distributions.base import Distribution, as_event, combinations, one_event


@pytree
class OneHotCategoricalDensity(Distribution):
    """sum_i sum_c x_ic log softmax(logits_i)_c, nats: independent categorical variables as one-hot
    vectors [..., c].
    """

    logits: Float[Array, "... c"]
    reparameterised = False

    def mean(self) -> jax.Array:
        return jax.nn.softmax(self.logits)

    def states(self) -> Float[Array, "n ..."]:
        """Every value."""
        *shape, num_categories = self.logits.shape
        states = combinations(num_categories, math.prod(shape))
        return jax.nn.one_hot(states, num_categories, dtype=self.logits.dtype).reshape(
            -1, *self.logits.shape
        )

    def sample(self, key: Key) -> jax.Array:
        return jax.nn.one_hot(
            jax.random.categorical(key, self.logits), self.logits.shape[-1], dtype=self.logits.dtype
        )

    def log_prob(self, value: ArrayLike) -> Scalar:
        value, log_p = one_event("OneHotCategorical", value, jax.nn.log_softmax(self.logits))
        return jnp.sum(times_log(value, log_p))


@pytree
class RelaxedCategoricalDensity(Distribution):
    """log Concrete(x; logits, temperature), nats: independent points x_i of the simplex that tend
    to one-hot vectors as T -> 0.

    log p = sum_i [log (n-1)! + (n-1) log T + sum_c (l_ic - (T+1) log x_ic) - n logsumexp_c(l_ic - T
    log x_ic)], n categories, with respect to the first n - 1 coordinates. Reference: Maddison, Mnih
    & Teh 2017; Jang, Gu & Poole 2017.
    """

    temperature: Float[Array, ""]
    logits: Float[Array, "... c"]
    reparameterised = True

    def mean(self) -> jax.Array:
        """Of the categorical variable in the limit T -> 0; the relaxed one has no closed form."""
        return jax.nn.softmax(self.logits)

    def sample(self, key: Key) -> jax.Array:
        gumbel = jax.random.gumbel(key, self.logits.shape, self.logits.dtype)
        return jnp.maximum(
            jax.nn.softmax((self.logits + gumbel) / self.temperature), _floor(self.logits)
        )

    def log_prob(self, value: ArrayLike) -> Scalar:
        num_categories = self.logits.shape[-1]
        log_x = jnp.log(
            jnp.maximum(
                as_event("RelaxedOneHotCategorical", value, self.logits), _floor(self.logits)
            )
        )
        constant = math.lgamma(num_categories) + (num_categories - 1) * jnp.log(self.temperature)
        partition = num_categories * logsumexp(self.logits - self.temperature * log_x, axis=-1)
        return jnp.sum(
            constant + jnp.sum(self.logits - (self.temperature + 1) * log_x, axis=-1) - partition
        )


def relaxed_categorical(temperature: float, logits: jax.Array) -> RelaxedCategoricalDensity:
    return RelaxedCategoricalDensity(jnp.asarray(temperature, logits.dtype), logits)


def _floor(array: jax.Array):
    """The least coordinate of a relaxed sample: small, and far enough above underflow that its
    inverse, times T + 1, is finite.
    """
    return jnp.finfo(array.dtype).tiny / jnp.finfo(array.dtype).eps
