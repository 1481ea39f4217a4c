"""NumPyro's families of counts and of binary values, by log-masses that keep their digits."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as npd
from jax.scipy.special import gammaln

from vaejax.base.floats import full_dtype, log_sum_exp, times_log
from vaejax.distributions import counts
from vaejax.distributions.bernoulli import log1p_exp, log_bernoulli


class ExactNegativeBinomial(npd.NegativeBinomial2):
    """NumPyro's, which keeps its mean: c / mean, which NumPyro keeps, is rounded."""

    pytree_data_fields = ("exact_mean",)

    def __init__(self, mean: jax.Array, concentration: jax.Array, **keywords: Any):
        super().__init__(mean, concentration, **keywords)
        self.exact_mean = jnp.broadcast_to(mean, self.batch_shape)


def _multinomial_of_probs(x: jax.Array, p: jax.Array) -> jax.Array:
    seen = x > 0  # so that a p of 0 has the derivative 0 where nothing was counted
    log_p = jnp.where(seen, jnp.log(jnp.where(seen, p, 1)), 0)
    return counts.log_multinomial(x, log_p, p)


def _multinomial_of_logits(x: jax.Array, logits: jax.Array) -> jax.Array:
    return counts.log_multinomial(x, jax.nn.log_softmax(logits), jax.nn.softmax(logits))


def _beta_binomial(x: jax.Array, n: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    return _of_two(x, n - x, a, b)


def _of_two(x: jax.Array, rest: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """The Dirichlet-multinomial of two categories."""
    return counts.log_dirichlet_multinomial(jnp.stack([x, rest], -1), jnp.stack([a, b], -1))


def _beta_negative_binomial(x: jax.Array, n: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """n / (n + x) of the beta-binomial of x and n, for n that is no whole number too.

    The derivative in n, which counts have not, is that of its gamma functions.
    """
    x, count, *shapes = jax.lax.stop_gradient((x, n, a, b))
    gammas = gammaln(n + x) - gammaln(n) + gammaln(n + shapes[1]) - gammaln(n + x + sum(shapes))
    slope = gammas - jax.lax.stop_gradient(gammas)
    return _of_two(x, count, a, b) - jnp.log1p(x / count) + slope


# By probabilities, which are 0 or 1 where a net is certain: what is impossible there has the mass 0
# (NumPyro's Bernoulli takes the next float for the probability), and no derivative is NaN.


def _times_log(x: jax.Array, p: jax.Array) -> jax.Array:
    """x log p."""
    positive = (x > 0) & (p > 0)
    log_p = jnp.log(jnp.where(positive, p, 1))
    return jnp.where((x > 0) & ~positive, -jnp.inf, x * log_p)


def _times_log_rest(x: jax.Array, p: jax.Array) -> jax.Array:
    """x log(1 - p)."""
    positive = (x > 0) & (p < 1)
    log_rest = jnp.log1p(-jnp.where(positive, p, 0))
    return jnp.where((x > 0) & ~positive, -jnp.inf, x * log_rest)


def _bernoulli_of_probs(x: jax.Array, p: jax.Array) -> jax.Array:
    return _times_log(x, p) + _times_log_rest(1 - x, p)


def _geometric_of_probs(x: jax.Array, p: jax.Array) -> jax.Array:
    return _times_log(jnp.ones_like(x), p) + _times_log_rest(x, p)


def _binomial_of_probs(x: jax.Array, n: jax.Array, p: jax.Array) -> jax.Array:
    inside = (p > 0) & (p < 1)
    certain = jnp.where(x == n * p, 0, -jnp.inf)
    return jnp.where(inside, counts.log_binomial(x, n, jnp.where(inside, p, 0.5)), certain)


def _negative_binomial_of_probs(x: jax.Array, c: jax.Array, p: jax.Array) -> jax.Array:
    inside = (p > 0) & (p < 1)
    certain = jnp.where((p == 0) & (x == 0), 0, -jnp.inf)
    rate = 1 / jnp.where(inside, p, 0.5) - 1
    return jnp.where(inside, counts.log_gamma_poisson(x, c, rate), certain)


def _geometric_of_logits(x: jax.Array, logits: jax.Array) -> jax.Array:
    return times_log(x, -log1p_exp(logits)) - log1p_exp(-logits)


def _zero_inflated(p: npd.ZeroInflatedProbs, value: jax.Array) -> jax.Array:
    """log of g 1[x = 0] + (1 - g) p(x). By logits NumPyro's adds the logit and takes it off."""
    if isinstance(p, npd.ZeroInflatedLogits):
        logits = jnp.asarray(p.gate_logits)
        log_gate, log_rest = -log1p_exp(-logits), -log1p_exp(logits)
    else:
        gate = jnp.asarray(p.gate)
        log_gate, log_rest = (f(jnp.ones_like(gate), gate) for f in (_times_log, _times_log_rest))
    counted = log_rest + p.base_dist.log_prob(value)
    at_zero = log_sum_exp(jnp.stack(jnp.broadcast_arrays(log_gate, counted)), axis=0)
    return jnp.where(value == 0, at_zero, counted)


# {family: (log-mass of a value and parameters, the names of these)}
Mass = tuple[Callable[..., jax.Array], tuple[str, ...]]
GAMMA_POISSON: Mass = counts.log_gamma_poisson, ("concentration", "rate")
MASSES: dict[type, Mass] = {
    npd.Poisson: (counts.log_poisson, ("rate",)),
    npd.GammaPoisson: GAMMA_POISSON,
    npd.NegativeBinomial2: GAMMA_POISSON,
    npd.NegativeBinomialProbs: (_negative_binomial_of_probs, ("concentration", "probs")),
    npd.NegativeBinomialLogits: (
        counts.log_negative_binomial_of_logits,
        ("concentration", "logits"),
    ),
    npd.GeometricLogits: (_geometric_of_logits, ("logits",)),
    ExactNegativeBinomial: (counts.log_negative_binomial, ("exact_mean", "concentration")),
    npd.BinomialProbs: (_binomial_of_probs, ("total_count", "probs")),
    npd.BinomialLogits: (counts.log_binomial_of_logits, ("total_count", "logits")),
    npd.MultinomialProbs: (_multinomial_of_probs, ("probs",)),
    npd.MultinomialLogits: (_multinomial_of_logits, ("logits",)),
    npd.BetaBinomial: (_beta_binomial, ("total_count", "concentration1", "concentration0")),
    npd.BetaNegativeBinomial: (
        _beta_negative_binomial,
        ("n", "concentration1", "concentration0"),
    ),
    npd.DirichletMultinomial: (counts.log_dirichlet_multinomial, ("concentration",)),
    npd.BernoulliLogits: (log_bernoulli, ("logits",)),
    npd.BernoulliProbs: (_bernoulli_of_probs, ("probs",)),
    npd.GeometricProbs: (_geometric_of_probs, ("probs",)),
}


def mass_of(family: type[npd.Distribution]) -> Callable[..., Any]:
    """log p of (a distribution of this family, a value): ours, where NumPyro's loses digits."""
    if issubclass(family, npd.CategoricalProbs | npd.CategoricalLogits):
        return lambda p, value: family.log_prob(p, value.astype(jnp.int32))  # an index
    if issubclass(family, npd.ZeroInflatedProbs):
        return _zero_inflated
    if family not in MASSES:
        return family.log_prob
    function, names = MASSES[family]

    def log_prob(p: npd.Distribution, value: jax.Array) -> jax.Array:
        parameters = [vars(p)[name] for name in names]
        dtype = full_dtype(value, *parameters)
        arrays = [jnp.asarray(array, dtype) for array in (value, *parameters)]
        return function(*jnp.broadcast_arrays(*arrays))

    return log_prob
