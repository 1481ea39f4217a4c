"""Gradient estimators. An estimator is a function of one example whose VALUE is a bound and whose GRADIENT is the estimator.

`jax.grad` of it is all there is: each one is a visible placement of `stop_gradient`. Call signature:
`estimator(model, params, x, key) -> scalar`, nats.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from vaejax._values import value
from vaejax.distributions import kl_divergence
from vaejax.elbo import elbo_bound, log_weights, require_count, sample_posterior
from vaejax.types import Bound, Key, LatentVariableModel, Model, Params, Scalar


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
        q = model.posterior(params, x)
        zs = sample_posterior(q, key, self.num_samples)
        return self.bound(log_weights(model, params, x, q, zs))


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
        if not hasattr(model, "p_z"):
            raise TypeError(f"AnalyticKL needs a model with p_z and p_x_given_z; {type(model).__name__} has no prior to show")
        q = model.posterior(params, x)
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
        q = model.posterior(params, x)
        zs = sample_posterior(q, key, self.num_samples)
        return elbo_bound(log_weights(model, params, x, jax.lax.stop_gradient(q), zs))
