"""Gradient estimators through samples z = T(noise; phi), so that q must be reparameterised.

In the formulas w~_k = w_k / sum_j w_j, and the path derivative of a function of z is d/dz times
dz/dphi, all other parameters held fixed. Each takes a `noise`.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from vaejax.base.asserts import assert_shape
from vaejax.base.checks import Reals, require_count
from vaejax.base.mapping import map_samples
from vaejax.base.types import Bound, Key, Params, PyTree, Scalar
from vaejax.base.values import component
from vaejax.bounds import (
    INDEPENDENT,
    elbo_bound,
    sample_log_weight,
    sample_posterior,
    sample_weights,
    stopped,
    weights,
)
from vaejax.distributions.base import Distribution
from vaejax.distributions.kl import kl_divergence
from vaejax.distributions.noise import Noise
from vaejax.estimators.base import (
    ELBOInParts,
    mean_reconstruction,
    reparameterised_posterior,
    score_of,
)
from vaejax.models.base import Model, prior_of


@component
class Pathwise(ELBOInParts):
    """Value: bound(log w). Gradient: its total derivative, through z = T(noise; phi) and through
    log q itself.

    Unbiased for the gradient of E[bound], whatever the bound and K = `num_samples`: `iwae_bound`,
    `renyi_bound(alpha)` (VR-IWAE in its plain form), `jackknife_bound`. Reference: Kingma & Welling
    2014, section 2.4; Burda et al. 2016 for `iwae_bound`.
    """

    num_samples: int = 1
    bound: Bound = elbo_bound
    noise: Noise = INDEPENDENT

    def __post_init__(self):
        require_count(self.num_samples, "Pathwise.num_samples")

    def parts(
        self, model: Model, params: Params, x: PyTree, key: Key
    ) -> tuple[Scalar, Scalar | None]:
        q = reparameterised_posterior(self, model, params, x)
        log_w, log_p_x = sample_weights(model, params, x, q, key, self.num_samples, self.noise)
        return self.bound(log_w), mean_reconstruction(self.bound, log_p_x)


@component
class AnalyticKL(ELBOInParts):
    """Value: mean_k log p_theta(x | z_k) - KL(q_phi(z|x) || p_theta(z)). Gradient: its total
    derivative.

    The KL in closed form, so only the reconstruction is noisy. Needs a pair (q, prior) with a known
    KL; raises TypeError otherwise. Unbiased for the gradient of the ELBO. Reference: Kingma &
    Welling 2014, eq. 7.
    """

    num_samples: int = 1
    noise: Noise = INDEPENDENT

    def __post_init__(self):
        require_count(self.num_samples, "AnalyticKL.num_samples")

    def parts(
        self, model: Model, params: Params, x: PyTree, key: Key
    ) -> tuple[Scalar, Scalar | None]:
        q = reparameterised_posterior(self, model, params, x)
        zs = sample_posterior(q, key, self.num_samples, self.noise)
        log_p_x = jnp.mean(jax.vmap(lambda z: model.log_likelihood(params, x, z))(zs))
        return log_p_x - kl_divergence(q, prior_of(model, params, x)), log_p_x


@component
class StickTheLanding(ELBOInParts):
    """Value: bound(log w). Gradient: that of `Pathwise` plus c times the score of q, weighted
    alike: at c = 1 the path derivative alone.

    The score has mean zero, so with `elbo_bound` this is unbiased for any c = `coefficient`. At c =
    1 its variance vanishes where q is the exact posterior; in one dimension it beats `Pathwise` if
    and only if q's variance is more than half the posterior's. "estimated" takes the c of least
    variance, -Cov / Var over q's parameters, from `num_pilot` samples of its own for each example.
    With `iwae_bound` it is biased, by c E[sum_k w~_k score_k]. References: Roeder, Wu & Duvenaud
    2017; Geffner & Domke 2018 for the coefficient; Tucker et al. 2019 for the bias.
    """

    num_samples: int = 1
    bound: Bound = elbo_bound
    coefficient: float | Literal["estimated"] = 1.0
    num_pilot: int = 8
    noise: Noise = INDEPENDENT

    def __post_init__(self):
        require_count(self.num_samples, "StickTheLanding.num_samples")
        if self.coefficient != "estimated" and self.coefficient not in Reals():
            raise ValueError(
                f"StickTheLanding.coefficient = {self.coefficient!r}; it must be {Reals()}, or"
                ' "estimated"'
            )
        require_count(self.num_pilot, "StickTheLanding.num_pilot", least=2)

    def parts(
        self, model: Model, params: Params, x: PyTree, key: Key
    ) -> tuple[Scalar, Scalar | None]:
        q = reparameterised_posterior(self, model, params, x)
        c: Any = self.coefficient
        if isinstance(c, str):
            key, pilot_key = jax.random.split(key)
            c = stopped(best_coefficient(model, params, x, q, pilot_key, self.num_pilot))

        # log w_k with q's parameters stopped: its gradient is the path derivative
        zs = sample_posterior(q, key, self.num_samples, self.noise)
        path, log_p_x = weights(model, params, x, stopped(q), zs)
        reconstruction = mean_reconstruction(self.bound, log_p_x)
        if isinstance(c, float) and c == 1:
            return self.bound(path), reconstruction

        # + (1 - c) times a term of value zero, whose gradient is minus the score
        minus_score = map_samples(lambda z: stopped(q).log_prob(z) - q.log_prob(z), zs)
        return self.bound(path + (1 - c) * minus_score), reconstruction


def best_coefficient(
    model: Model, params: Params, x: ArrayLike, q: Distribution, key: Key, num_pilot: int
) -> Scalar:
    """-sum Cov(g, s) / sum Var(s) over q's parameters: g the pathwise gradient, s the score of q,
    from `num_pilot` samples.
    """
    flat_q, unravel = ravel_pytree(q)

    def log_weight(flat_q, key):
        return sample_log_weight(model, params, x, unravel(flat_q), key)

    def gradient_and_score(key):
        # g = d log w / d (q's parameters),   s = d log q(z) / d (the same), z held fixed
        return jax.grad(log_weight)(flat_q, key), score_of(unravel, flat_q, q.sample(key))

    gradients, scores = jax.vmap(gradient_and_score)(jax.random.split(key, num_pilot))
    assert_shape((gradients, scores), (num_pilot, flat_q.size))

    # Cov(g, s) = E[(g - E g) s] and Var(s) = E[s^2], for E s = 0
    centred = gradients - jnp.mean(gradients, axis=0, keepdims=True)
    covariance = jnp.sum(centred * scores) / (num_pilot - 1)
    variance = jnp.sum(scores**2) / num_pilot
    return -covariance / variance
