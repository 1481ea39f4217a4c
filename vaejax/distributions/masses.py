"""NumPyro's families of counts and of binary values, by log-masses that keep their digits."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as npd
from jax.scipy.special import gammaln

from vaejax.base.floats import full_dtype
from vaejax.distributions import counts
from vaejax.distributions.bernoulli import log_bernoulli


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


# {family: (log-mass of a value and parameters, the names of these)}
Mass = tuple[Callable[..., jax.Array], tuple[str, ...]]
GAMMA_POISSON: Mass = counts.log_gamma_poisson, ("concentration", "rate")
MASSES: dict[type, Mass] = {
    npd.Poisson: (counts.log_poisson, ("rate",)),
    npd.GammaPoisson: GAMMA_POISSON,
    npd.NegativeBinomial2: GAMMA_POISSON,
    npd.NegativeBinomialProbs: GAMMA_POISSON,
    npd.NegativeBinomialLogits: GAMMA_POISSON,
    ExactNegativeBinomial: (counts.log_negative_binomial, ("exact_mean", "concentration")),
    npd.BinomialProbs: (counts.log_binomial, ("total_count", "probs")),
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
}


def mass_of(family: type[npd.Distribution]) -> Callable[..., Any]:
    """log p of (a distribution of this family, a value): ours, where NumPyro's loses digits."""
    if issubclass(family, npd.CategoricalProbs | npd.CategoricalLogits):
        return lambda p, value: family.log_prob(p, value.astype(jnp.int32))  # an index
    if family not in MASSES:
        return family.log_prob
    function, names = MASSES[family]

    def log_prob(p: npd.Distribution, value: jax.Array) -> jax.Array:
        parameters = [vars(p)[name] for name in names]
        dtype = full_dtype(value, *parameters)
        arrays = [jnp.asarray(array, dtype) for array in (value, *parameters)]
        return function(*jnp.broadcast_arrays(*arrays))

    return log_prob
