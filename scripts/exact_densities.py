"""Densities of scalars by mpmath, to any number of digits: log p(x; parameters), nats."""

from collections.abc import Sequence
from typing import Any

import mpmath

MAX_LOG_SCALE, MAX_LOG_RATE = 7, 15  # of the conditionals, in which soft_bound keeps raw heads
mp: Any = mpmath.mp


def bounded(raw: Any, limit: float) -> Any:
    return limit * mp.tanh(raw / limit)


def softplus(x: Any) -> Any:
    return mp.log1p(mp.exp(x)) if x < 0 else x + mp.log1p(mp.exp(-x))


def normal(x: Any, loc: Any, log_scale: Any) -> Any:
    noise = (x - loc) * mp.exp(-log_scale)
    return -(noise**2) / 2 - log_scale - mp.log(2 * mp.pi) / 2


def log_sum_exp(terms: Sequence) -> Any:
    top = max(terms)
    return top + mp.log(mp.fsum([mp.exp(term - top) for term in terms]))


def log_choose(n: Any, x: Any) -> Any:
    return mp.loggamma(n + 1) - mp.loggamma(x + 1) - mp.loggamma(n - x + 1)


def log_beta(a: Any, b: Any) -> Any:
    return mp.loggamma(a) + mp.loggamma(b) - mp.loggamma(a + b)


def continuous_bernoulli(x, l):
    constant = l**2 / 24 if abs(l) < mp.mpf(10) ** -20 else mp.log(mp.sinh(l / 2) / (l / 2))
    return x * l - l / 2 - constant


def relaxed_binary(y, temperature, l):
    noise = temperature * y - l
    return mp.log(temperature) + noise - 2 * softplus(noise)


def relaxed_one_hot(y, temperature, a, b):
    """Of two categories whose logit is y, so that it is the relaxed binary variable's."""
    return relaxed_binary(y, temperature, a - b)


def logistic_levels(x, loc, log_scale):
    width = mp.mpf(1) / 255
    above, below = ((x + side * width / 2 - loc) * mp.exp(-log_scale) for side in (1, -1))
    if x > 1 - width / 2:
        return -softplus(below)
    if x < width / 2:
        return -softplus(-above)
    return -softplus(-above) - softplus(below) + mp.log(-mp.expm1(below - above))


def von_mises_fisher(x, kappa, dim):
    """x is the cosine to the mean direction."""
    order = mp.mpf(dim) / 2 - 1
    if dim == 3:
        log_bessel = kappa + mp.log(-mp.expm1(-2 * kappa)) - mp.log(2 * mp.pi * kappa) / 2
    else:
        log_bessel = mp.log(mp.besseli(order, kappa))
    return kappa * x + order * mp.log(kappa) - mp.mpf(dim) / 2 * mp.log(2 * mp.pi) - log_bessel


def full_normal(x, log_scale, row):
    """Of (x, 1) under the scale factor exp(s) [[1, 0], [r, 1]]."""
    s, r = bounded(log_scale, MAX_LOG_SCALE), bounded(row, 30)
    first = x * mp.exp(-s)
    second = mp.exp(-s) - r * first
    return normal(first, 0, 0) + normal(second, 0, 0) - 2 * s


def low_rank_normal(x, log_scale, column):
    """Of (x, 1) under S (I + F F') S, F = (c, c)."""
    s, c = bounded(log_scale, MAX_LOG_SCALE), bounded(column, 30)
    first, second = x * mp.exp(-s), mp.exp(-s)
    determinant = 1 + 2 * c**2
    square = first**2 + second**2 - (c * (first + second)) ** 2 / determinant
    return -square / 2 - 2 * s - mp.log(determinant) / 2 - mp.log(2 * mp.pi)


def laplace(x, loc, log_scale):
    s = bounded(log_scale, MAX_LOG_SCALE)
    return -abs(x - loc) * mp.exp(-s) - s - mp.log(2)


def poisson(x, log_rate):
    r = bounded(log_rate, MAX_LOG_RATE)
    return x * r - mp.exp(r) - mp.loggamma(x + 1)


def negative_binomial(x, log_mean, log_concentration):
    m, c = (
        mp.exp(bounded(log_mean, MAX_LOG_RATE)),
        mp.exp(bounded(log_concentration, MAX_LOG_SCALE)),
    )
    constant = mp.loggamma(x + c) - mp.loggamma(c) - mp.loggamma(x + 1)
    return constant - c * mp.log1p(m / c) + x * (mp.log(m) - mp.log(m + c))


def beta_binomial(x, a, b):
    return log_choose(255, x) + log_beta(x + a, 255 - x + b) - log_beta(a, b)


def mixture(x, logit, first, second):
    weights = -softplus(-logit), -softplus(logit)
    terms = [w + normal(x, loc, 0) for w, loc in zip(weights, (first, second), strict=True)]
    return log_sum_exp(terms)


def category(x, a, b):
    logits = a, b, mp.mpf(0)
    return logits[int(x)] - log_sum_exp(logits)


def uniform_on_sphere(x):
    """In R^5, whose unit sphere has the area 8 pi^2 / 3."""
    return -mp.log(8 * mp.pi**2 / 3)
