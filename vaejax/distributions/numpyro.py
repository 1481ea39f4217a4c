"""NumPyro's distributions as densities of one event, with what three of them need beside.

`Event` keeps the density and the samples of the distribution that it holds, and refuses a value of
another shape.
"""

import jax
import jax.numpy as jnp
import numpyro.distributions as npd
from jax.scipy.special import gammaln, ndtri
from jax.typing import ArrayLike

from vaejax.base.types import Key, Scalar
from vaejax.base.values import pytree
from vaejax.distributions.base import wrong_shape
from vaejax.distributions.normal import standard_normal


@pytree
class NumPyroDensity:
    """A NumPyro distribution as one event: its own density, but a value of another shape is
    refused, not broadcast.
    """

    base: npd.Distribution

    @property
    def name(self) -> str:
        return type(getattr(self.base, "base_dist", self.base)).__name__

    @property
    def reparameterised(self) -> bool:
        return self.base.has_rsample

    @property
    def mean(self) -> jax.Array:
        try:
            return self.base.mean
        except NotImplementedError:  # which hasattr would let through
            raise AttributeError(
                f"{type(self.base).__name__} has no closed form for its mean; average samples"
            ) from None

    @property
    def variance(self) -> jax.Array:
        return self.base.variance

    @property
    def states(self) -> jax.Array:
        """Every value, where there are finitely many and NumPyro can say which."""
        if not self.base.has_enumerate_support or self.base.event_shape:
            raise AttributeError(f"{self.name} has no finite list of values")
        return jnp.asarray(self.base.enumerate_support())

    def entropy(self) -> Scalar:
        return self.base.entropy()

    def sample(self, key: Key) -> jax.Array:
        return jnp.asarray(self.base.sample(key))

    def from_uniform(self, u: jax.Array) -> jax.Array:
        """By the inverse distribution function, where the coordinates are independent."""
        return jnp.asarray(getattr(self.base, "base_dist", self.base).icdf(u))

    def log_prob(self, value: ArrayLike) -> Scalar:
        self.require_one()
        if jnp.shape(value) != self.base.event_shape:
            raise ValueError(wrong_shape(self.name, jnp.shape(value), self.base.event_shape))
        return jnp.asarray(self.base.log_prob(jnp.asarray(value)))

    def require_one(self) -> None:
        """Raises ValueError where the distribution is a batch of several."""
        batch_shape = self.base.batch_shape
        if batch_shape:
            raise ValueError(
                f"{self.name} has batch_shape {batch_shape}, so its log_prob is not one number; add"
                f" .to_event({len(batch_shape)})"
            )


def from_numpyro(p: npd.Distribution) -> NumPyroDensity:
    """A NumPyro distribution with all its batch axes in one event."""
    return NumPyroDensity(p.to_event(len(p.batch_shape)) if p.batch_shape else p)


@pytree
class CholeskyNormal(NumPyroDensity):
    """NumPyro's multivariate normal, whose own samples have log N(z; loc, A A') = log N(noise; 0,
    I) - log det A, z = loc + A noise.

    That needs no A^-1, so it is exact and finite however close to singular A is.
    """

    base: npd.MultivariateNormal

    def sample_and_log_prob(self, key: Key) -> tuple[jax.Array, Scalar]:
        loc, scale_tril = jnp.asarray(self.base.loc), jnp.asarray(self.base.scale_tril)
        standard = standard_normal(loc)
        noise = standard.sample(key)
        return loc + scale_tril @ noise, standard.log_prob(noise) - jnp.sum(
            jnp.log(jnp.diag(scale_tril))
        )

    def from_uniform(self, u: jax.Array) -> jax.Array:
        return jnp.asarray(self.base.loc) + jnp.asarray(self.base.scale_tril) @ ndtri(u)


class ExactNegativeBinomial(npd.NegativeBinomial2):
    """NumPyro's takes its constant from JAX's `betaln`, which in float64 is right to eight digits
    only.
    """

    concentration: jax.Array
    rate: jax.Array

    def log_prob(self, value):
        x, c, rate = jnp.asarray(value, jnp.result_type(self.rate)), self.concentration, self.rate
        return (
            gammaln(x + c)
            - gammaln(c)
            - gammaln(x + 1)
            - c * jnp.log1p(1 / rate)
            - x * jnp.log1p(rate)
        )


class ClippedRelaxedBernoulli(npd.RelaxedBernoulliLogits):
    """NumPyro's keeps its samples off 0 and 1, where the density is infinite or 0; here the values
    that it is given too.
    """

    logits: jax.Array

    @property
    def mean(self) -> jax.Array:
        """Of the Bernoulli in the limit T -> 0; the relaxed one has no closed form."""
        return jax.nn.sigmoid(self.logits)

    def log_prob(self, value, intermediates=None):
        limits = jnp.finfo(self.logits.dtype)
        return super().log_prob(jnp.clip(value, limits.tiny, 1 - limits.eps), intermediates)


def relaxed_bernoulli(temperature: float, logits: jax.Array) -> NumPyroDensity:
    """Independent binary Concrete variables on (0, 1), as one event."""
    return from_numpyro(ClippedRelaxedBernoulli(jnp.asarray(temperature, logits.dtype), logits))
