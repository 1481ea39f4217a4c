"""Pixels of finitely many levels, k / (n - 1)."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vaejax.base.floats import log_sum_exp
from vaejax.base.types import Key, Scalar
from vaejax.base.values import pytree, static
from vaejax.distributions.base import Distribution, as_event, event_of
from vaejax.distributions.bernoulli import log1p_exp


def _as_levels(name: str, value: ArrayLike, like: jax.Array, num_levels: int) -> jax.Array:
    """`as_event`, but whole numbers are refused where they must be counts of levels: 255 would pass
    for the brightest in silence.
    """
    if num_levels > 2 and jnp.issubdtype(jnp.asarray(value).dtype, jnp.integer):
        raise ValueError(
            f"{name} takes pixels k / {num_levels - 1} in [0, 1], and got whole numbers; divide"
            f" them by {num_levels - 1}"
        )
    return as_event(name, value, like)


@pytree
class Levels(Distribution):
    """sum_i log softmax(logits_i)_k, k = x_i (n-1), nats: pixels x_i = k/(n-1) of n levels, each
    with a free probability.
    """

    logits: Float[Array, "... n"]
    reparameterised = False

    @property
    def event(self) -> jax.ShapeDtypeStruct:
        return event_of(self, self.logits, without_last=True)

    def mean(self) -> jax.Array:
        return jax.nn.softmax(self.logits) @ jnp.linspace(
            0, 1, self.logits.shape[-1], dtype=self.logits.dtype
        )

    def sample(self, key: Key) -> jax.Array:
        return jax.random.categorical(key, self.logits).astype(self.logits.dtype) / (
            self.logits.shape[-1] - 1
        )

    def log_prob(self, value: ArrayLike) -> Scalar:
        value = _as_levels("Levels", value, self.logits[..., 0], self.logits.shape[-1])
        k = jnp.round(value * (self.logits.shape[-1] - 1)).astype(jnp.int32)
        return jnp.sum(jnp.take_along_axis(jax.nn.log_softmax(self.logits), k[..., None], axis=-1))


@pytree
class DiscretizedLogisticDensity(Distribution):
    """sum_i log sum_c w_ic [F_ic(x_i + d/2) - F_ic(x_i - d/2)], nats: a mixture of logistics
    rounded to levels x_i = k/(n-1).

    F_ic is the logistic cdf of loc_ic, exp(log_scale_ic), d = 1/(n-1), w = softmax(logits), and the
    end levels take the tails. Each difference is sigmoid(b) sigmoid(-a) (1 - exp(a - b)) with a < b
    the two arguments, so nothing cancels or underflows. Reference: Kingma et al. 2016; Salimans et
    al. 2017 for the mixture.
    """

    logits: Float[Array, "... c"]
    loc: Float[Array, "... c"]
    log_scale: Float[Array, "... c"]
    num_levels: int = static(256)
    reparameterised = False

    @property
    def event(self) -> jax.ShapeDtypeStruct:
        return event_of(self, self.loc, self.log_scale, self.logits, without_last=True)

    def mean(self) -> jax.Array:
        """Exact: the sum over k of P(x > k d) d."""
        edges = ((jnp.arange(self.num_levels - 1) + 0.5) / (self.num_levels - 1)).astype(
            self.loc.dtype
        )

        def above(edge):
            return jnp.sum(
                jax.nn.softmax(self.logits)
                * jax.nn.sigmoid((self.loc - edge) * jnp.exp(-self.log_scale)),
                axis=-1,
            )

        return jnp.mean(jax.lax.map(above, edges), axis=0)

    def sample(self, key: Key) -> jax.Array:
        component_key, value_key = jax.random.split(key)
        c = jax.random.categorical(component_key, self.logits)[..., None]
        loc, log_scale = (
            jnp.take_along_axis(array, c, axis=-1)[..., 0] for array in (self.loc, self.log_scale)
        )
        x = loc + jnp.exp(log_scale) * jax.random.logistic(value_key, loc.shape, loc.dtype)
        return jnp.clip(jnp.round(x * (self.num_levels - 1)) / (self.num_levels - 1), 0, 1)

    def log_prob(self, value: ArrayLike) -> Scalar:
        value = _as_levels("DiscretizedLogistic", value, self.loc[..., 0], self.num_levels)[
            ..., None
        ]
        width = 1 / (self.num_levels - 1)
        precision = jnp.exp(-self.log_scale)
        below, above = ((value + edge - self.loc) * precision for edge in (-width / 2, width / 2))
        log_upper = jnp.where(value > 1 - width / 2, 0, -log1p_exp(-above))
        log_lower = jnp.where(value < width / 2, 0, -log1p_exp(below))
        inside = (value > width / 2) & (value < 1 - width / 2)
        log_difference = jnp.where(inside, jnp.log(-jnp.expm1(-width * precision)), 0)
        return jnp.sum(
            log_sum_exp(
                jax.nn.log_softmax(self.logits) + log_upper + log_lower + log_difference, axis=-1
            )
        )
