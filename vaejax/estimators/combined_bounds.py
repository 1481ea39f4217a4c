"""Bounds between the ELBO and the importance-weighted one, since the tightest has the noisiest
gradient in phi: with K samples in a group its signal to noise falls as 1 / sqrt(K), and grows as
sqrt(M) with M groups. Reference: Rainforth et al. 2018.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vaejax.base.checks import Reals, require_count, require_in
from vaejax.base.types import Key, Params, Scalar
from vaejax.base.values import component
from vaejax.bounds import (
    INDEPENDENT,
    count_weights,
    elbo_bound,
    iwae_bound,
    sample_log_weights,
    stopped,
)
from vaejax.distributions.noise import Noise
from vaejax.estimators.base import Estimator, reparameterised_posterior, with_gradient_of
from vaejax.models.base import Model


@component
class MIWAEBound:
    """(1/M) sum_m log mean_k w_mk: the mean over M = `num_groups` of IWAE-K, from M K log-weights.

    A lower bound on log p(x) in expectation; at M = 1 `iwae_bound`, at K = 1 `elbo_bound`. An
    estimator of it is `Pathwise(64, MIWAEBound(8))`. Reference: Rainforth et al. 2018, eq. 13.

    >>> log_w = jnp.log(jnp.array([1.0, 3.0, 5.0, 7.0]))  # (log 2 + log 6) / 2
    >>> print(f"{vaejax.MIWAEBound(2)(log_w):.4f} nats")
    1.2425 nats
    """

    num_groups: int

    def __post_init__(self):
        require_count(self.num_groups, "MIWAEBound.num_groups")

    def __call__(self, log_w: Float[Array, " k"]) -> Scalar:
        count = count_weights("MIWAEBound", log_w)
        _require_groups("MIWAEBound", self.num_groups, count)
        groups = jnp.reshape(log_w, (self.num_groups, -1))
        return jnp.mean(jax.vmap(iwae_bound)(groups))


def _require_groups(owner: str, num_groups: int, num_samples: int) -> None:
    """Raises ValueError unless the samples can be dealt out to groups of one size."""
    if num_samples % num_groups:
        raise ValueError(
            f"{owner}.num_groups = {num_groups!r}, and num_samples is {num_samples}; it must be a"
            " multiple of the number of groups, since groups have one size"
        )


@component
class CIWAEBound:
    """beta mean_k log w_k + (1 - beta) log mean_k w_k, 0 < beta < 1: a mean of ELBO and IWAE-K.

    A lower bound on log p(x) in expectation. `beta` may not be 0 or 1, which are `iwae_bound` and
    `elbo_bound`. No conditional IWAE, which some papers name so. Reference: Rainforth et al. 2018,
    eq. 14.

    >>> log_w = jnp.log(jnp.array([1.0, 3.0]))  # 0.5 * 0.5493 + 0.5 * 0.6931
    >>> print(f"{vaejax.CIWAEBound(0.5)(log_w):.4f} nats")
    0.6212 nats
    """

    beta: float

    def __post_init__(self):
        require_in(self.beta, "CIWAEBound.beta", Reals(0, 1, is_open=True))

    def __call__(self, log_w: Float[Array, " k"]) -> Scalar:
        count_weights("CIWAEBound", log_w)
        return self.beta * elbo_bound(log_w) + (1 - self.beta) * iwae_bound(log_w)


@component
class PIWAE(Estimator):
    """Value: iwae_bound(log w). Gradient in theta: its own. In phi: that of MIWAEBound(num_groups).

    Each is a total derivative, so each is unbiased for the gradient of its own bound: theta follows
    the tight one, and phi the one whose gradient has more signal. Reference: Rainforth et al. 2018,
    section 4 (the partially importance weighted autoencoder).
    """

    num_samples: int
    num_groups: int
    noise: Noise = INDEPENDENT

    def __post_init__(self):
        require_count(self.num_samples, "PIWAE.num_samples")
        require_count(self.num_groups, "PIWAE.num_groups")
        _require_groups("PIWAE", self.num_groups, self.num_samples)

    def __call__(self, model: Model, params: Params, x: ArrayLike, key: Key) -> Scalar:
        def log_w(params):
            q = reparameterised_posterior(self, model, params, x)
            return sample_log_weights(model, params, x, q, key, self.num_samples, self.noise)

        # the same log-weights twice, of which theta or phi alone is live
        tight = iwae_bound(log_w(params._replace(phi=stopped(params.phi))))
        grouped = MIWAEBound(self.num_groups)(log_w(params._replace(theta=stopped(params.theta))))
        return with_gradient_of(tight, tight + grouped)
