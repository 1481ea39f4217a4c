"""Log-masses of counts that keep their digits however large the counts are.

log Gamma(x + 1) and x log(mean) are of the size of x log x, and their difference is a few nats: in
float32 nothing is left of it at a million. Here no such pair is subtracted. With Stirling's
remainder A and the deviance D,

    A(z) = log Gamma(z + 1) - z log z + z,    D(x, m) = x log(x / m) - x + m >= 0,

both small where the mass is not, every mass below is a sum of a few of them, as in
-A(x) - D(x, m) for a Poisson of mean m. D is made of the gap x - m, which is computed exactly.
Derivatives with respect to parameters are written out, for they cancel too; a count has none.
Reference: Loader 2000, "Fast and accurate computation of binomial probabilities".
"""

import math

import jax
import jax.numpy as jnp

from vaejax.base.floats import times_log

# log Gamma(z) = (z - 1/2) log z - z + log(2 pi)/2 + J(z), J = sum_k B_2k / (2k (2k - 1) z^(2k - 1))
BINET = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400)
MAX_LOGIT = 40.0  # where 1 - p is 1 to all digits of float64, and 1 / p^2 is a float32
NEAR = 0.2  # |x - m| / (x + m) below which D is a series


def log_poisson(x: jax.Array, rate: jax.Array) -> jax.Array:
    """x log r - r - log x!"""
    x = jax.lax.stop_gradient(x)
    return _of_counts(-_remainder(x) - _deviance(x, rate), x)


def log_negative_binomial(x: jax.Array, mean: jax.Array, concentration: jax.Array) -> jax.Array:
    """log of Gamma(x + c) / (x! Gamma(c)) (c / (c + m))^c (m / (c + m))^x."""
    x = jax.lax.stop_gradient(x)
    deviance = _deviance_by_mean(x, mean, concentration)
    return _of_counts(_coefficient(x, concentration) - deviance, x)


def log_gamma_poisson(x: jax.Array, concentration: jax.Array, rate: jax.Array) -> jax.Array:
    """The negative binomial by b = c / m: (b / (1 + b))^c (1 / (1 + b))^x."""
    x = jax.lax.stop_gradient(x)
    deviance = _deviance_by_rate(x, concentration, rate)
    return _of_counts(_coefficient(x, concentration) - deviance, x)


def log_binomial(x: jax.Array, trials: jax.Array, probability: jax.Array) -> jax.Array:
    """log of C(n, x) p^x (1 - p)^(n - x)."""
    x, trials = jax.lax.stop_gradient((x, trials))
    rest = trials - x
    choices = _remainder(trials) - _remainder(x) - _remainder(rest)
    return _of_counts(choices - _deviance_by_probability(x, trials, probability), x, rest)


def log_binomial_of_logits(x: jax.Array, trials: jax.Array, logits: jax.Array) -> jax.Array:
    """The binomial with p = sigmoid(l), of whichever outcome is the rarer."""
    x = jax.lax.stop_gradient(x)
    rarer = jnp.where(logits > 0, trials - x, x)
    size = jnp.where(logits > 0, logits, -logits)  # of one slope at 0, as `abs` is not
    # Beyond it log p = -l to all digits.
    beyond = times_log(rarer, -jnp.maximum(size - MAX_LOGIT, 0))
    probability = jax.nn.sigmoid(-jnp.minimum(size, MAX_LOGIT))
    return log_binomial(rarer, trials, probability) + beyond


def log_negative_binomial_of_logits(
    x: jax.Array, concentration: jax.Array, logits: jax.Array
) -> jax.Array:
    """The negative binomial with m / (c + m) = sigmoid(l)."""
    x = jax.lax.stop_gradient(x)
    # Beyond MAX_LOGIT one of the two probabilities is exp(-|l|) to all digits.
    beyond = times_log(x, jnp.minimum(logits + MAX_LOGIT, 0))
    beyond += times_log(concentration, -jnp.maximum(logits - MAX_LOGIT, 0))
    rate = jnp.exp(-jnp.clip(logits, -MAX_LOGIT, MAX_LOGIT))
    return log_gamma_poisson(x, concentration, rate) + beyond


def log_multinomial(x: jax.Array, log_p: jax.Array, p: jax.Array) -> jax.Array:
    """log of n! prod_i p_i^x_i / x_i!, over the last axis, n being the sum of x. The derivative is
    that with respect to log p.
    """
    x, p = jax.lax.stop_gradient((x, p))
    trials = jnp.sum(x, -1)
    choices = _remainder(trials) - jnp.sum(_remainder(x), -1)
    deviance = jnp.sum(_deviance_by_log_p(x, trials[..., None], p, log_p), -1)
    return _of_counts(choices - deviance, jnp.min(x, -1))


def log_dirichlet_multinomial(x: jax.Array, concentration: jax.Array) -> jax.Array:
    """log of n! Gamma(a) / Gamma(n + a) prod_i Gamma(x_i + a_i) / (x_i! Gamma(a_i)), over the last
    axis; n and a are the sums of x and of a_i. Of two categories it is the beta-binomial.
    """
    x = jax.lax.stop_gradient(x)
    terms = _coefficient(x, concentration) - _deviance_of_shares(x, concentration)
    whole = _coefficient(jnp.sum(x, -1), jnp.sum(concentration, -1))
    return _of_counts(jnp.sum(terms, -1) - whole, jnp.min(x, -1))


def _of_counts(log_mass: jax.Array, *counts: jax.Array) -> jax.Array:
    """A log-mass, and -inf where a count is negative."""
    for count in counts:
        log_mass = jnp.where(count < 0, -jnp.inf, log_mass)
    return log_mass


def _coefficient(x: jax.Array, c: jax.Array) -> jax.Array:
    """log of Gamma(x + c) / (x! Gamma(c)), less (x + c) log(x + c) - x log x - c log c."""
    gain = jnp.where(x == 0, 0, _binet(x + c) - _binet(c))
    return gain - 0.5 * jnp.log1p(x / c) - _remainder(x)


# A.


def _remainder(z: jax.Array) -> jax.Array:
    """A(z) = log Gamma(z + 1) - z log z + z, for z >= 0."""
    positive = jnp.where(z > 0, z, 1)
    return jnp.where(z > 0, 0.5 * jnp.log(2 * math.pi * positive) + _binet(positive), 0)


def _binet(z: jax.Array) -> jax.Array:
    """J(z) for z > 0: by its series, and where z is small by J(z) = J(z + 1) + (z + 1/2) log(1 +
    1/z) - 1 from further out.
    """
    steps, num_terms = (8, 8) if z.dtype == jnp.float64 else (3, 5)
    small = z < steps
    low = jnp.where(small, z, 1)
    climbed = jnp.zeros_like(z)
    for k in range(steps):
        climbed += (low + k + 0.5) * jnp.log1p(1 / (low + k)) - 1
    inverse = 1 / jnp.where(small, low + steps, z)
    series = jnp.zeros_like(z)
    for coefficient in reversed(BINET[:num_terms]):
        series = coefficient + series * inverse**2
    return series * inverse + jnp.where(small, climbed, 0)


# D, and the sums of it that the masses need, each with its derivatives.


def _deviance_at(x: jax.Array, mean: jax.Array, gap: jax.Array) -> jax.Array:
    """D(x, m) for gap = x - m. Where that is small, with v = gap / (x + m), D = gap v + 2 x (v^3/3
    + v^5/5 + ...).
    """
    total = x + mean
    v = gap / jnp.where(total > 0, total, 1)
    near = jnp.abs(v) < NEAR
    square = jnp.where(near, v, 0) ** 2
    series = jnp.zeros_like(v)
    for k in range(11, 0, -1):
        series = square * (1 / (2 * k + 1) + series)
    log_ratio = jnp.log(jnp.where(x > 0, x / mean, 1))
    return jnp.where(near, v * (gap + 2 * x * series), x * log_ratio - gap)


def _log_ratio(x: jax.Array, mean: jax.Array, gap: jax.Array) -> jax.Array:
    """log(x / m)."""
    near = 2 * jnp.abs(gap) < mean
    return jnp.where(near, jnp.log1p(jnp.where(near, gap / mean, 0)), jnp.log(x / mean))


@jax.custom_jvp
def _deviance(x: jax.Array, mean: jax.Array) -> jax.Array:
    """D(x, m)."""
    return _deviance_at(x, mean, x - mean)


@_deviance.defjvp
def _deviance_jvp(primals, tangents):
    x, mean = primals
    return _deviance(x, mean), -_excess(x, mean) * tangents[1]


@jax.custom_jvp
def _excess(x: jax.Array, mean: jax.Array) -> jax.Array:
    """x / m - 1."""
    return jnp.where(mean > 0, (x - mean) / mean, jnp.where(x > 0, jnp.inf, -1))


@_excess.defjvp
def _excess_jvp(primals, tangents):
    x, mean = primals
    return _excess(x, mean), -x / mean / mean * tangents[1]


@jax.custom_jvp
def _deviance_by_mean(x: jax.Array, mean: jax.Array, c: jax.Array) -> jax.Array:
    """D(x, (x + c) m / (c + m)) + D(c, (x + c) c / (c + m))."""
    gap = c * ((x - mean) / (c + mean))
    growth = (x + c) / (c + mean)
    return _deviance_at(x, mean * growth, gap) + _deviance_at(c, c * growth, -gap)


@_deviance_by_mean.defjvp
def _deviance_by_mean_jvp(primals, tangents):
    x, mean, c = primals
    of_mean = -_excess(x, mean) * (c / (c + mean))
    growth = (x + c) / (c + mean)
    of_c = _deviance_at(jnp.ones_like(c), growth, (mean - x) / (c + mean))
    return _deviance_by_mean(x, mean, c), of_mean * tangents[1] + of_c * tangents[2]


@jax.custom_jvp
def _deviance_by_rate(x: jax.Array, c: jax.Array, rate: jax.Array) -> jax.Array:
    """The same by b = c / m: D(x, (x + c) / (1 + b)) + D(c, (x + c) b / (1 + b))."""
    of_x, of_c, gap = _split(x, c, rate)
    return _deviance_at(x, of_x, gap) + _deviance_at(c, of_c, -gap)


def _split(x: jax.Array, c: jax.Array, rate: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The two means, and x less the first."""
    gap = _difference(x, rate, c, jnp.ones_like(c)) / (1 + rate)
    return (x + c) / (1 + rate), (x + c) * (rate / (1 + rate)), gap


@_deviance_by_rate.defjvp
def _deviance_by_rate_jvp(primals, tangents):
    x, c, rate = primals
    _, of_c, gap = _split(x, c, rate)
    slopes = _log_ratio(c, of_c, -gap) * tangents[1] + gap / rate * tangents[2]
    return _deviance_by_rate(x, c, rate), slopes


@jax.custom_jvp
def _deviance_by_probability(x: jax.Array, trials: jax.Array, p: jax.Array) -> jax.Array:
    """D(x, n p) + D(n - x, n (1 - p))."""
    gap = _difference(jnp.ones_like(x), x, trials, p)
    return _deviance_at(x, trials * p, gap) + _deviance_at(trials - x, trials * (1 - p), -gap)


@_deviance_by_probability.defjvp
def _deviance_by_probability_jvp(primals, tangents):
    x, trials, p = primals
    gap = _difference(jnp.ones_like(x), x, trials, p)
    return _deviance_by_probability(x, trials, p), -gap / p / (1 - p) * tangents[2]


@jax.custom_jvp
def _deviance_by_log_p(x: jax.Array, n: jax.Array, p: jax.Array, log_p: jax.Array) -> jax.Array:
    """D(x, n p)."""
    gap = _difference(jnp.ones_like(x), x, n, p)
    seen = x > 0
    log_ratio = jnp.log(jnp.where(seen, x / n, 1)) - jnp.where(seen, log_p, 0)
    underflown = seen & (p < jnp.finfo(p.dtype).tiny)
    return jnp.where(underflown, x * log_ratio - gap, _deviance_at(x, n * p, gap))


@_deviance_by_log_p.defjvp
def _deviance_by_log_p_jvp(primals, tangents):
    return _deviance_by_log_p(*primals), -primals[0] * tangents[3]


@jax.custom_jvp
def _deviance_of_shares(x: jax.Array, a: jax.Array) -> jax.Array:
    """D(x_i, t_i n / (n + a)) + D(a_i, t_i a / (n + a)), t_i = x_i + a_i, n and a the sums over the
    last axis.
    """
    of_x, of_a, gap = _shares(x, a)
    return _deviance_at(x, of_x, gap) + _deviance_at(a, of_a, -gap)


def _shares(x: jax.Array, a: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The two means, and x_i less the first."""
    n, whole = jnp.sum(x, -1, keepdims=True), jnp.sum(a, -1, keepdims=True)
    scale = n + whole
    gap = _difference(x, _others(a), a, _others(x)) / scale
    return (x + a) * (n / scale), (x + a) * (whole / scale), gap


def _others(x: jax.Array) -> jax.Array:
    """sum_(j not i) x_j, over the last axis, without a subtraction."""
    before = jnp.cumsum(x, -1)[..., :-1]
    after = jnp.cumsum(x[..., ::-1], -1)[..., ::-1][..., 1:]
    zero = jnp.zeros_like(x[..., :1])
    return jnp.concatenate([zero, before], -1) + jnp.concatenate([after, zero], -1)


@_deviance_of_shares.defjvp
def _deviance_of_shares_jvp(primals, tangents):
    # Of the sum over i: what moves by way of n and a cancels in it.
    x, a = primals
    _, of_a, gap = _shares(x, a)
    return _deviance_of_shares(x, a), _log_ratio(a, of_a, -gap) * tangents[1]


# Exact products.


def _difference(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> jax.Array:
    """a b - c d, right to its last digits: the errors of both products are added to it."""
    product, error = _product(a, b)
    other, other_error = _product(c, d)
    return (product - other) + (error - other_error)


def _product(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """a b rounded, and what the rounding left: a + b of half as many digits multiply exactly.
    Reference: Dekker 1971; `reduce_precision` also keeps a compiler from fusing the two.
    """
    bits = (11, 52, 25) if a.dtype == jnp.float64 else (8, 23, 11)

    def high(array):
        return jax.lax.reduce_precision(array, bits[0], bits[2])

    product = jax.lax.reduce_precision(a * b, bits[0], bits[1])
    a_high, b_high = high(a), high(b)
    a_low, b_low = a - a_high, b - b_high
    error = (a_high * b_high - product) + a_high * b_low + a_low * b_high
    return product, error + a_low * b_low
