"""Binary variables, and grey ones on [0, 1], by their logits."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vaejax.base.types import Key, Scalar
from vaejax.base.values import pytree
from vaejax.distributions.base import Distribution, event_of, one_event
from vaejax.distributions.discrete import combinations


@pytree
class BernoulliDensity(Distribution):
    """sum_i [x_i l_i - log(1 + exp l_i)], nats: independent binary variables with logits l of the
    event's shape.
    """

    logits: Float[Array, "..."]
    reparameterised = False

    @property
    def event(self) -> jax.ShapeDtypeStruct:
        return event_of(self, self.logits)

    def mean(self) -> jax.Array:
        return jax.nn.sigmoid(self.logits)

    def states(self) -> Float[Array, "n ..."]:
        """Every value."""
        return jnp.asarray(combinations(2, self.logits.size), self.logits.dtype).reshape(
            -1, *self.logits.shape
        )

    def sample(self, key: Key) -> jax.Array:
        return jax.random.bernoulli(key, self.mean()).astype(self.logits.dtype)

    def log_prob(self, value: ArrayLike) -> Scalar:
        return jnp.sum(self.coordinate_log_probs(value))

    def coordinate_log_probs(self, value: ArrayLike) -> Float[Array, " d"]:
        return log_bernoulli(*one_event("Bernoulli", value, self.logits))


def log_bernoulli(x: jax.Array, logits: jax.Array) -> jax.Array:
    """x l - log(1 + exp l); at l = +-inf it is 0 where x is certain and -inf where x is impossible,
    and its slope in l stays x - sigmoid(l).
    """
    logits = _finite(logits)  # as 0 times infinity is NaN
    return _infinite(x * logits - log1p_exp(logits))


# Both have the derivative 1: that of a selection would keep a mask for every pixel of every sample.


@jax.custom_jvp
def _finite(logits: jax.Array) -> jax.Array:
    """The greatest float in place of infinity."""
    largest = jnp.finfo(logits.dtype).max
    return jnp.clip(logits, -largest, largest)


@jax.custom_jvp
def _infinite(log_p: jax.Array) -> jax.Array:
    """-inf in place of what no finite logit gives."""
    limits = jnp.finfo(log_p.dtype)
    return jnp.where(log_p < -limits.max * limits.eps, -jnp.inf, log_p)


_finite.defjvp(lambda primals, tangents: (_finite(*primals), tangents[0]))
_infinite.defjvp(lambda primals, tangents: (_infinite(*primals), tangents[0]))


@jax.custom_jvp
def log1p_exp(x: ArrayLike) -> jax.Array:
    """log(1 + exp x), finite for any x. `jax.nn.softplus` takes three times as long on a CPU (value
    and gradient).
    """
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


@log1p_exp.defjvp
def _log1p_exp_jvp(primals, tangents):
    # The derivative is written out because that of the formula above is wrong at 0 from the second
    # order on.
    (x,), (tangent,) = primals, tangents
    return log1p_exp(x), jax.nn.sigmoid(x) * tangent


@pytree
class ContinuousBernoulliDensity(Distribution):
    """sum_i [x_i l_i - log((exp l_i - 1) / l_i)], nats, on [0, 1]: the Bernoulli's formula with the
    constant that it lacks there.

    Reference: Loaiza-Ganem & Cunningham 2019, whose lambda is sigmoid(l).
    """

    logits: Float[Array, "..."]
    reparameterised = True

    @property
    def event(self) -> jax.ShapeDtypeStruct:
        return event_of(self, self.logits)

    def mean(self) -> jax.Array:
        # Log-partition functions differentiate to means.
        return jax.grad(lambda logits: jnp.sum(_log_expm1_over(logits)))(self.logits)

    def sample(self, key: Key) -> jax.Array:
        u = (
            jax.random.uniform(key, self.logits.shape, self.logits.dtype)
            + jnp.finfo(self.logits.dtype).epsneg
        )  # never 0 or 1
        return self.from_uniform(u)

    def from_uniform(self, u: jax.Array) -> jax.Array:
        return _continuous_bernoulli_quantile(u, self.logits)

    def log_prob(self, value: ArrayLike) -> Scalar:
        return jnp.sum(self.coordinate_log_probs(value))

    def coordinate_log_probs(self, value: ArrayLike) -> Float[Array, " d"]:
        value, logits = one_event("ContinuousBernoulli", value, self.logits)
        return value * logits - _log_expm1_over(logits)


def _log_expm1_over(x: jax.Array) -> jax.Array:
    """log((exp x - 1) / x) = x/2 + log(sinh(a)/a), a = |x|/2: by its series near 0, where the
    quotient is 0/0.
    """
    small = jnp.abs(x) < 0.4
    a = jnp.where(small, 1, jnp.abs(x) / 2)
    square = jnp.where(small, x, 0) ** 2 / 4
    series = jnp.zeros_like(x)
    for coefficient in (-691 / 3831077250, 1 / 467775, -1 / 37800, 1 / 2835, -1 / 180, 1 / 6):
        series = square * (coefficient + series)
    return x / 2 + jnp.where(small, series, a - jnp.log(2 * a) + jnp.log(-jnp.expm1(-2 * a)))


def _continuous_bernoulli_quantile(u: jax.Array, logits: jax.Array) -> jax.Array:
    """x with cdf (exp(l x) - 1) / (exp l - 1) = u: log(1 + u (exp l - 1)) / l, by the first terms
    of its series near l = 0.
    """
    small = jnp.abs(logits) < 0.1
    # The terms are the cumulants of a Bernoulli variable of probability u; what is left out is
    # below 1e-9.
    l, variance, skew = jnp.where(small, logits, 0), u * (1 - u), 1 - 2 * u
    series = u + variance * l / 2 * (
        1 + l / 3 * (skew + l / 4 * (1 - 6 * variance + l / 5 * skew * (1 - 12 * variance)))
    )
    steep = jnp.where(small, 1, jnp.abs(logits))
    x = (
        -jnp.log1p(jnp.where(logits > 0, 1 - u, u) * jnp.expm1(-steep)) / steep
    )  # falls from x = 0, so that nothing overflows
    return jnp.where(small, series, jnp.where(logits > 0, 1 - x, x))
