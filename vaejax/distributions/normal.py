"""The diagonal normal."""

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vaejax.base.types import Key, Scalar
from vaejax.base.values import pytree
from vaejax.distributions.base import Distribution, event_of, one_event

LOG_2PI = math.log(2 * math.pi)


@pytree
class DiagNormalDensity(Distribution):
    """log N(z; loc, diag exp(2 log_scale)), nats. Both fields have the shape of the event.

    >>> q = vaejax.distributions.DiagNormalDensity(jnp.zeros(2), jnp.zeros(2))
    >>> print(f"{q.log_prob(jnp.zeros(2)):.4f}")  # -log(2 pi)
    -1.8379
    """

    loc: Float[Array, "..."]
    log_scale: Float[Array, "..."]
    reparameterised = True

    @property
    def event(self) -> jax.ShapeDtypeStruct:
        return event_of(self, self.loc, self.log_scale)

    def mean(self) -> jax.Array:
        return self.loc

    def sample(self, key: Key) -> jax.Array:
        return self.loc + jnp.exp(self.log_scale) * jax.random.normal(
            key, self.loc.shape, self.loc.dtype
        )

    def from_uniform(self, u: jax.Array) -> jax.Array:
        return self.loc + jnp.exp(self.log_scale) * ndtri(u)

    def log_prob(self, value: ArrayLike) -> Scalar:
        value, loc, log_scale = one_event("DiagNormal", value, self.loc, self.log_scale)
        noise = (value - loc) * jnp.exp(-log_scale)
        return -jnp.sum(0.5 * noise**2 + log_scale) - 0.5 * LOG_2PI * loc.size

    def coordinate_log_probs(self, value: ArrayLike) -> Float[Array, " d"]:
        value, loc, log_scale = one_event("DiagNormal", value, self.loc, self.log_scale)
        return -0.5 * ((value - loc) * jnp.exp(-log_scale)) ** 2 - log_scale - 0.5 * LOG_2PI


def standard_normal(like: ArrayLike) -> DiagNormalDensity:
    """N(0, I) over arrays of this shape and dtype."""
    zeros = jnp.zeros_like(like)
    return DiagNormalDensity(zeros, zeros)
