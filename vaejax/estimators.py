"""Gradient estimators. An estimator is a function of one example whose VALUE is a bound and whose GRADIENT is the estimator.

`jax.grad` of it is all there is: each one is a visible placement of `stop_gradient`. Call signature:
`estimator(model, params, x, key) -> scalar`, nats.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from vaejax._values import value
from vaejax.distributions import is_reparameterised
from vaejax.divergences import kl_divergence
from vaejax.elbo import elbo_bound, log_weights, map_samples, require_count, sample_log_weights, sample_posterior
from vaejax.types import Bound, Distribution, Key, LatentVariableModel, Model, Params, Scalar


def reparameterised_posterior(estimator, model: Model, params: Params, x: ArrayLike) -> Distribution:
    """q(z | x), or a TypeError where its samples are no smooth function of its parameters."""
    q = model.posterior(params, x)
    if not is_reparameterised(q):
        raise TypeError(
            f"{type(estimator).__name__} differentiates through samples of q, and those of {type(q).__name__} do not move smoothly with "
            "its parameters; use vaejax.ScoreFunction, or a relaxed family: RelaxedBernoulli, RelaxedCategorical"
        )
    return q


def require_factors(owner, model: Model) -> None:
    """Raises TypeError for a model that does not show its two factors."""
    if not hasattr(model, "p_z"):
        raise TypeError(f"{type(owner).__name__} needs a model with p_z and p_x_given_z; {type(model).__name__} has no prior to show")


@value
class Pathwise:
    """Value: bound(log w). Gradient: its total derivative, through z = T(noise; phi) and through log q itself.

    Needs a reparameterised q. Unbiased for the gradient of E[bound], whatever the bound and K = `num_samples`.
    Reference: Kingma & Welling 2014, section 2.4; Burda et al. 2016 for `iwae_bound`.
    """

    num_samples: int = 1
    bound: Bound = elbo_bound

    def __post_init__(self):
        require_count(self.num_samples, "Pathwise.num_samples")

    def __call__(self, model: Model, params: Params, x: ArrayLike, key: Key) -> Scalar:
        q = reparameterised_posterior(self, model, params, x)
        return self.bound(sample_log_weights(model, params, x, q, key, self.num_samples))


@value
class AnalyticKL:
    """Value: mean_k log p_theta(x | z_k) - KL(q_phi(z|x) || p_theta(z)). Gradient: its total derivative.

    The KL in closed form, so only the reconstruction is noisy. Needs a reparameterised q and a pair (q, prior) with a known
    KL; raises TypeError otherwise. Unbiased for the gradient of the ELBO. Reference: Kingma & Welling 2014, eq. 7.
    """

    num_samples: int = 1

    def __post_init__(self):
        require_count(self.num_samples, "AnalyticKL.num_samples")

    def __call__(self, model: LatentVariableModel, params: Params, x: ArrayLike, key: Key) -> Scalar:
        require_factors(self, model)
        q = reparameterised_posterior(self, model, params, x)
        zs = sample_posterior(q, key, self.num_samples)
        log_p_x = jax.vmap(lambda z: model.p_x_given_z(params, z).log_prob(x))(zs)
        return jnp.mean(log_p_x) - kl_divergence(q, model.p_z(params))


@value
class StickTheLanding:
    """Value: mean_k log w_k. Gradient: along the path of z alone, the parameters of q stopped inside log q.

    What is dropped, the score of q, has mean zero, so this is unbiased for the gradient of the ELBO; its variance vanishes
    where q is the exact posterior. In one dimension it beats `Pathwise` if and only if q's variance is more than half the
    posterior's. Needs a reparameterised q. Reference: Roeder, Wu & Duvenaud 2017, eq. 8.
    """

    num_samples: int = 1

    def __post_init__(self):
        require_count(self.num_samples, "StickTheLanding.num_samples")

    def __call__(self, model: Model, params: Params, x: ArrayLike, key: Key) -> Scalar:
        q = reparameterised_posterior(self, model, params, x)
        zs = sample_posterior(q, key, self.num_samples)
        return elbo_bound(log_weights(model, params, x, jax.lax.stop_gradient(q), zs))


@value
class ScoreFunction:
    """Value: mean_k f_k, f = log w. Gradient: mean_k [grad log p_theta(x, z_k) + (f_k - b_k) grad log q_phi(z_k | x)], z_k held fixed.

    b_k is the mean of the other f_j, so K = `num_samples` >= 2. Needs no derivative in z, so z may be discrete. Unbiased for the
    gradient of the ELBO, usually with far more variance than `Pathwise` where that applies.
    References: Williams 1992; Kool, van Hoof & Welling 2019 for the leave-one-out baseline.
    """

    num_samples: int = 2

    def __post_init__(self):
        if self.num_samples < 2:
            raise ValueError(f"ScoreFunction.num_samples = {self.num_samples}; a leave-one-out baseline needs at least 2")

    def __call__(self, model: Model, params: Params, x: ArrayLike, key: Key) -> Scalar:
        q = model.posterior(params, x)
        zs = jax.lax.stop_gradient(sample_posterior(q, key, self.num_samples))
        log_joint = map_samples(lambda z: model.log_joint(params, x, z), zs)
        log_q = map_samples(q.log_prob, zs)
        log_w = jax.lax.stop_gradient(log_joint - log_q)
        others = (jnp.sum(log_w) - log_w) / (self.num_samples - 1)
        surrogate = jnp.mean(log_joint + (log_w - others) * log_q)
        return jnp.mean(log_w) + surrogate - jax.lax.stop_gradient(surrogate)
