"""Densities in the parametrisation that the library uses: normalised, in nats, summed over one event.

Each is a pytree with `sample(key)` and `log_prob(value)`. NumPyro's distributions have the same two methods, so whatever is
not here comes from there: see `events`. A distribution with `reparameterised = False` has samples that do not depend smoothly
on its parameters. One with `from_uniform(u)` says which sample u, uniform numbers of its event's shape, stand for: see `noise`. One with
finitely many values has all of them, [n, *event], in `states`.
"""

import itertools
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp, ndtri
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vaejax._values import pytree, static
from vaejax.types import Distribution, Key, PyTree, Scalar

LOG_2PI = math.log(2 * math.pi)
MAX_STATES = 2**16  # of one event that is to be enumerated


def one_event(name: str, value: ArrayLike, *parameters: jax.Array) -> list[jax.Array]:
    """`value` and the parameters as vectors, or a ValueError if value is not one event.

    Without the check, broadcasting would turn a batch into one wrong number in silence. As vectors, because on a CPU a whole
    training step with 50 samples took a third longer where this sum ran over [28, 28] than over 784.
    """
    value = as_event(name, value, parameters[0])
    return [jnp.ravel(array) for array in (value, *parameters)]


def as_event(name: str, value: ArrayLike, like: jax.Array) -> jax.Array:
    """`value` in the dtype of `like`, or a ValueError if it has not its shape."""
    if jnp.shape(value) != like.shape:
        raise ValueError(wrong_shape(name, jnp.shape(value), like.shape))
    return jnp.asarray(value, like.dtype)


def wrong_shape(name: str, got: tuple[int, ...], shape: tuple[int, ...]) -> str:
    return (
        f"{name}.log_prob got a value of shape {got}, but one event has shape {shape}; "
        "these functions take one example: use jax.vmap or vaejax.minibatch"
    )


@pytree
class DiagNormal:
    """log N(z; loc, diag exp(2 log_scale)), nats. Both fields have the shape of the event."""

    loc: Float[Array, "..."]
    log_scale: Float[Array, "..."]

    @property
    def mean(self) -> jax.Array:
        return self.loc

    def sample(self, key: Key) -> jax.Array:
        return self.loc + jnp.exp(self.log_scale) * jax.random.normal(key, self.loc.shape, self.loc.dtype)

    def from_uniform(self, u: jax.Array) -> jax.Array:
        return self.loc + jnp.exp(self.log_scale) * ndtri(u)

    def log_prob(self, value: ArrayLike) -> Scalar:
        value, loc, log_scale = one_event("DiagNormal", value, self.loc, self.log_scale)
        noise = (value - loc) * jnp.exp(-log_scale)
        return -jnp.sum(0.5 * noise**2 + log_scale) - 0.5 * LOG_2PI * loc.size


def standard_normal(like: ArrayLike) -> DiagNormal:
    """N(0, I) over arrays of this shape and dtype."""
    zeros = jnp.zeros_like(like)
    return DiagNormal(zeros, zeros)


@pytree
class Bernoulli:
    """sum_i [x_i l_i - log(1 + exp l_i)], nats: independent binary variables with logits l of the event's shape."""

    logits: Float[Array, "..."]
    reparameterised: ClassVar[bool] = False

    @property
    def mean(self) -> jax.Array:
        return jax.nn.sigmoid(self.logits)

    @property
    def states(self) -> Float[Array, "n ..."]:
        """Every value."""
        return jnp.asarray(_combinations(2, self.logits.size), self.logits.dtype).reshape(-1, *self.logits.shape)

    def sample(self, key: Key) -> jax.Array:
        return jax.random.bernoulli(key, self.mean).astype(self.logits.dtype)

    def log_prob(self, value: ArrayLike) -> Scalar:
        value, logits = one_event("Bernoulli", value, self.logits)
        return jnp.sum(value * logits - log1p_exp(logits))


@jax.custom_jvp
def log1p_exp(x: ArrayLike) -> jax.Array:
    """log(1 + exp x), finite for any x. `jax.nn.softplus` takes three times as long on a CPU (value and gradient)."""
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


@log1p_exp.defjvp
def _log1p_exp_jvp(primals, tangents):
    # The derivative is written out because that of the formula above is wrong at 0 from the second order on.
    (x,), (tangent,) = primals, tangents
    return log1p_exp(x), jax.nn.sigmoid(x) * tangent


@pytree
class ContinuousBernoulli:
    """sum_i [x_i l_i - log((exp l_i - 1) / l_i)], nats, on [0, 1]: the Bernoulli's formula with the constant that it lacks there.

    Reference: Loaiza-Ganem & Cunningham 2019, whose lambda is sigmoid(l).
    """

    logits: Float[Array, "..."]

    @property
    def mean(self) -> jax.Array:
        # Log-partition functions differentiate to means.
        return jax.grad(lambda logits: jnp.sum(_log_expm1_over(logits)))(self.logits)

    def sample(self, key: Key) -> jax.Array:
        u = jax.random.uniform(key, self.logits.shape, self.logits.dtype) + jnp.finfo(self.logits.dtype).epsneg  # never 0 or 1
        return self.from_uniform(u)

    def from_uniform(self, u: jax.Array) -> jax.Array:
        return _continuous_bernoulli_quantile(u, self.logits)

    def log_prob(self, value: ArrayLike) -> Scalar:
        value, logits = one_event("ContinuousBernoulli", value, self.logits)
        return jnp.sum(value * logits - _log_expm1_over(logits))


def _log_expm1_over(x: jax.Array) -> jax.Array:
    """log((exp x - 1) / x) = x/2 + log(sinh(a)/a), a = |x|/2: by its series near 0, where the quotient is 0/0."""
    small = jnp.abs(x) < 0.4
    a = jnp.where(small, 1, jnp.abs(x) / 2)
    square = jnp.where(small, x, 0) ** 2 / 4
    series = jnp.zeros_like(x)
    for coefficient in (-691 / 3831077250, 1 / 467775, -1 / 37800, 1 / 2835, -1 / 180, 1 / 6):
        series = square * (coefficient + series)
    return x / 2 + jnp.where(small, series, a - jnp.log(2 * a) + jnp.log(-jnp.expm1(-2 * a)))


def _continuous_bernoulli_quantile(u: jax.Array, logits: jax.Array) -> jax.Array:
    """x with cdf (exp(l x) - 1) / (exp l - 1) = u: log(1 + u (exp l - 1)) / l, by the first terms of its series near l = 0."""
    small = jnp.abs(logits) < 0.1
    # The terms are the cumulants of a Bernoulli variable of probability u; what is left out is below 1e-9.
    l, variance, skew = jnp.where(small, logits, 0), u * (1 - u), 1 - 2 * u
    series = u + variance * l / 2 * (1 + l / 3 * (skew + l / 4 * (1 - 6 * variance + l / 5 * skew * (1 - 12 * variance))))
    steep = jnp.where(small, 1, jnp.abs(logits))
    x = -jnp.log1p(jnp.where(logits > 0, 1 - u, u) * jnp.expm1(-steep)) / steep  # falls from x = 0, so that nothing overflows
    return jnp.where(small, series, jnp.where(logits > 0, 1 - x, x))


@pytree
class OneHotCategorical:
    """sum_i sum_c x_ic log softmax(logits_i)_c, nats: independent categorical variables as one-hot vectors [..., c]."""

    logits: Float[Array, "... c"]
    reparameterised: ClassVar[bool] = False

    @property
    def mean(self) -> jax.Array:
        return jax.nn.softmax(self.logits)

    @property
    def states(self) -> Float[Array, "n ..."]:
        """Every value."""
        *shape, num_categories = self.logits.shape
        states = _combinations(num_categories, math.prod(shape))
        return jax.nn.one_hot(states, num_categories, dtype=self.logits.dtype).reshape(-1, *self.logits.shape)

    def sample(self, key: Key) -> jax.Array:
        return jax.nn.one_hot(jax.random.categorical(key, self.logits), self.logits.shape[-1], dtype=self.logits.dtype)

    def log_prob(self, value: ArrayLike) -> Scalar:
        value, log_p = one_event("OneHotCategorical", value, jax.nn.log_softmax(self.logits))
        return jnp.sum(value * log_p)


def _combinations(num_values: int, num_variables: int) -> np.ndarray:
    """All values of so many variables of so many values each, [n, variables]; ValueError if they are too many."""
    if num_values**num_variables > MAX_STATES:
        raise ValueError(
            f"{num_variables} latents of {num_values} values have {num_values**num_variables} states, more than {MAX_STATES}; "
            "use vaejax.ScoreFunction, or fewer latents"
        )
    return np.array(list(itertools.product(range(num_values), repeat=num_variables)))


@pytree
class RelaxedOneHotCategorical:
    """log Concrete(x; logits, temperature), nats: independent points x_i of the simplex that tend to one-hot vectors as T -> 0.

    log p = sum_i [log (n-1)! + (n-1) log T + sum_c (l_ic - (T+1) log x_ic) - n logsumexp_c(l_ic - T log x_ic)], n categories,
    with respect to the first n - 1 coordinates. Reference: Maddison, Mnih & Teh 2017; Jang, Gu & Poole 2017.
    """

    temperature: Float[Array, ""]
    logits: Float[Array, "... c"]

    @property
    def mean(self) -> jax.Array:
        """Of the categorical variable in the limit T -> 0; the relaxed one has no closed form."""
        return jax.nn.softmax(self.logits)

    def sample(self, key: Key) -> jax.Array:
        gumbel = jax.random.gumbel(key, self.logits.shape, self.logits.dtype)
        return jnp.maximum(jax.nn.softmax((self.logits + gumbel) / self.temperature), _floor(self.logits))

    def log_prob(self, value: ArrayLike) -> Scalar:
        num_categories = self.logits.shape[-1]
        log_x = jnp.log(jnp.maximum(as_event("RelaxedOneHotCategorical", value, self.logits), _floor(self.logits)))
        constant = math.lgamma(num_categories) + (num_categories - 1) * jnp.log(self.temperature)
        partition = num_categories * logsumexp(self.logits - self.temperature * log_x, axis=-1)
        return jnp.sum(constant + jnp.sum(self.logits - (self.temperature + 1) * log_x, axis=-1) - partition)


def relaxed_categorical(temperature: float, logits: jax.Array) -> RelaxedOneHotCategorical:
    return RelaxedOneHotCategorical(jnp.asarray(temperature, logits.dtype), logits)


def _floor(array: jax.Array):
    """The least coordinate of a relaxed sample: small, and far enough above underflow that its inverse, times T + 1, is finite."""
    return jnp.finfo(array.dtype).tiny / jnp.finfo(array.dtype).eps


def _as_levels(name: str, value: ArrayLike, like: jax.Array, num_levels: int) -> jax.Array:
    """`as_event`, but whole numbers are refused where they must be counts of levels: 255 would pass for the brightest in silence."""
    if num_levels > 2 and jnp.issubdtype(jnp.asarray(value).dtype, jnp.integer):
        raise ValueError(f"{name} takes pixels k / {num_levels - 1} in [0, 1], and got whole numbers; divide them by {num_levels - 1}")
    return as_event(name, value, like)


@pytree
class Levels:
    """sum_i log softmax(logits_i)_k, k = x_i (n-1), nats: pixels x_i = k/(n-1) of n levels, each with a free probability."""

    logits: Float[Array, "... n"]
    reparameterised: ClassVar[bool] = False

    @property
    def mean(self) -> jax.Array:
        return jax.nn.softmax(self.logits) @ jnp.linspace(0, 1, self.logits.shape[-1], dtype=self.logits.dtype)

    def sample(self, key: Key) -> jax.Array:
        return jax.random.categorical(key, self.logits).astype(self.logits.dtype) / (self.logits.shape[-1] - 1)

    def log_prob(self, value: ArrayLike) -> Scalar:
        value = _as_levels("Levels", value, self.logits[..., 0], self.logits.shape[-1])
        k = jnp.round(value * (self.logits.shape[-1] - 1)).astype(jnp.int32)
        return jnp.sum(jnp.take_along_axis(jax.nn.log_softmax(self.logits), k[..., None], axis=-1))


@pytree
class DiscretizedLogistic:
    """sum_i log sum_c w_ic [F_ic(x_i + d/2) - F_ic(x_i - d/2)], nats: a mixture of logistics rounded to levels x_i = k/(n-1).

    F_ic is the logistic cdf of loc_ic, exp(log_scale_ic), d = 1/(n-1), w = softmax(logits), and the end levels take the tails.
    Each difference is sigmoid(b) sigmoid(-a) (1 - exp(a - b)) with a < b the two arguments, so nothing cancels or underflows.
    Reference: Kingma et al. 2016; Salimans et al. 2017 for the mixture.
    """

    logits: Float[Array, "... c"]
    loc: Float[Array, "... c"]
    log_scale: Float[Array, "... c"]
    num_levels: int = static(256)
    reparameterised: ClassVar[bool] = False

    @property
    def mean(self) -> jax.Array:
        """Exact: the sum over k of P(x > k d) d."""
        edges = ((jnp.arange(self.num_levels - 1) + 0.5) / (self.num_levels - 1)).astype(self.loc.dtype)

        def above(edge):
            return jnp.sum(jax.nn.softmax(self.logits) * jax.nn.sigmoid((self.loc - edge) * jnp.exp(-self.log_scale)), axis=-1)

        return jnp.mean(jax.lax.map(above, edges), axis=0)

    def sample(self, key: Key) -> jax.Array:
        component_key, value_key = jax.random.split(key)
        c = jax.random.categorical(component_key, self.logits)[..., None]
        loc, log_scale = (jnp.take_along_axis(array, c, axis=-1)[..., 0] for array in (self.loc, self.log_scale))
        x = loc + jnp.exp(log_scale) * jax.random.logistic(value_key, loc.shape, loc.dtype)
        return jnp.clip(jnp.round(x * (self.num_levels - 1)) / (self.num_levels - 1), 0, 1)

    def log_prob(self, value: ArrayLike) -> Scalar:
        value = _as_levels("DiscretizedLogistic", value, self.loc[..., 0], self.num_levels)[..., None]
        width = 1 / (self.num_levels - 1)
        precision = jnp.exp(-self.log_scale)
        below, above = ((value + edge - self.loc) * precision for edge in (-width / 2, width / 2))
        log_upper = jnp.where(value > 1 - width / 2, 0, -log1p_exp(-above))
        log_lower = jnp.where(value < width / 2, 0, -log1p_exp(below))
        inside = (value > width / 2) & (value < 1 - width / 2)
        log_difference = jnp.where(inside, jnp.log(-jnp.expm1(-width * precision)), 0)
        return jnp.sum(logsumexp(jax.nn.log_softmax(self.logits) + log_upper + log_lower + log_difference, axis=-1))


@pytree
class Mixture:
    """log sum_c softmax(logits)_c p_c(z), nats. `components` is one distribution whose leaves have a leading axis c."""

    logits: Float[Array, " c"]
    components: Distribution
    reparameterised: ClassVar[bool] = False

    @property
    def mean(self) -> jax.Array:
        return jnp.tensordot(jax.nn.softmax(self.logits), self.components.mean, 1)

    def sample(self, key: Key) -> jax.Array:
        component_key, value_key = jax.random.split(key)
        c = jax.random.categorical(component_key, self.logits)
        return jax.tree.map(lambda leaf: leaf[c], self.components).sample(value_key)

    def log_prob(self, value: ArrayLike) -> Scalar:
        log_p = jax.vmap(lambda component: component.log_prob(value))(self.components)
        return logsumexp(jax.nn.log_softmax(self.logits) + log_p)


def sample_and_log_prob(q: Distribution, key: Key) -> tuple[PyTree, Scalar]:
    """(z, log q(z)), z ~ q. A distribution with a cheaper way than one after the other, or no other way, has this method."""
    both = getattr(q, "sample_and_log_prob", None)
    if both is not None:
        return both(key)
    z = q.sample(key)
    return z, q.log_prob(z)


def is_reparameterised(q: Distribution) -> bool:
    """Whether samples of q are smooth functions of its parameters; a NumPyro distribution says so in `has_rsample`."""
    return getattr(q, "reparameterised", getattr(q, "has_rsample", True))
