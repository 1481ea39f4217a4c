"""Doubly reparameterised gradients of importance-weighted bounds."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from vaejax.base.checks import require_count, require_number
from vaejax.base.mapping import map_samples
from vaejax.base.types import Key, Params, PyTree, Scalar
from vaejax.base.values import component
from vaejax.bounds import (
    INDEPENDENT,
    iwae_bound,
    log_weights,
    normalised_weights,
    renyi_bound,
    sample_posterior,
    stopped,
)
from vaejax.distributions.base import Distribution
from vaejax.distributions.noise import Noise
from vaejax.distributions.normal import DiagNormalDensity
from vaejax.estimators.base import (
    Estimator,
    log_weight_at,
    reparameterised_posterior,
    with_gradient_of,
)
from vaejax.models.base import Model, prior_of
from vaejax.models.joint import Joint


@component
class DReG(Estimator):
    """Value: renyi_bound(alpha)(log w), IWAE at alpha = 0. Gradient in phi: the path derivative of
    sum_k c_k log w_k.

    c_k = alpha w~_k + (1-alpha) w~_k^2, where w~ are the normalised w^(1-alpha). In theta: sum_k
    w~_k grad log p(x, z_k), as `Pathwise`. Unbiased for the gradient of the bound; its signal to
    noise in phi grows with K, where that of `Pathwise` falls. At alpha = 1 it is `StickTheLanding`.
    References: Tucker et al. 2019; Daudel et al. for alpha (the doubly reparameterised form of
    VR-IWAE).
    """

    num_samples: int
    alpha: float = 0.0
    noise: Noise = INDEPENDENT

    def __post_init__(self):
        require_count(self.num_samples, "DReG.num_samples")
        require_number(self.alpha, "DReG.alpha")

    def __call__(self, model: Model, params: Params, x: ArrayLike, key: Key) -> Scalar:
        q = reparameterised_posterior(self, model, params, x)
        zs = sample_posterior(q, key, self.num_samples, self.noise)

        # log w_k, of whose parameters only the path z_k = T(noise_k; phi) is live
        path = log_weights(model, stopped(params), x, stopped(q), zs)
        w = normalised_weights((1 - self.alpha) * stopped(path))

        # sum_k (alpha w~_k + (1 - alpha) w~_k^2) log w_k + w~_k log p(x, z_k), z_k held fixed
        log_joint = map_samples(lambda z: model.log_joint(params, x, z), stopped(zs))
        surrogate = jnp.sum((self.alpha * w + (1 - self.alpha) * w**2) * path + w * log_joint)
        return with_gradient_of(renyi_bound(self.alpha)(path), surrogate)


def normal_factors(prior: Distribution, z: PyTree) -> PyTree:
    """The prior, or {latent node: its factor at z} of a hierarchy; TypeError for one that is no
    diagonal normal.
    """
    named = prior.factors(z) if isinstance(prior, Joint) else {"z": prior}
    for name, factor in named.items():
        if not is_diag_normal(factor):
            raise TypeError(
                f"GeneralisedDReG needs a prior that is a diagonal normal, not {factor.name} for"
                f" {name}; use vaejax.DReG"
            )
    return named if isinstance(prior, Joint) else prior


def is_diag_normal(part: Any) -> bool:
    """Whether a part of a tree of factors is a whole factor, not to be taken apart."""
    return isinstance(part, DiagNormalDensity)


@component
class GeneralisedDReG(Estimator):
    """Value: iwae_bound(log w). Gradient in phi: as `DReG`. In the prior's parameters: the same
    trick, with z as a sample of the prior.

    For each factor p_j = p_theta(z_j | Pa(z_j)) of the prior, one of them or a hierarchy, its
    parents held fixed,

        E sum_k w~_k grad log p_j(z_kj) = E sum_k slope_kj . grad T_j(noise_kj; theta),
        slope_kj = (w~_k - w~_k^2) d log w_k/dz_kj + w~_k d log(q/p_j)/dz_kj,

    where T_j is its map from noise to samples, loc + scale * noise, and T_j(noise_kj; theta) =
    z_kj. Unbiased for the gradient of the bound. Not always of less variance than `DReG`: at q =
    p(z|x) that of the prior's loc is (1 - s_p^2/s_q^2)^2 times as large, s_p and s_q the scales of
    prior and q. Needs factors that are diagonal normals. Reference: Bauer & Mnih 2021.
    """

    num_samples: int
    noise: Noise = INDEPENDENT

    def __post_init__(self):
        require_count(self.num_samples, "GeneralisedDReG.num_samples")

    def __call__(self, model: Model, params: Params, x: ArrayLike, key: Key) -> Scalar:
        q, prior = reparameterised_posterior(self, model, params, x), prior_of(model, params, x)
        zs = sample_posterior(q, key, self.num_samples, self.noise)
        path = log_weights(model, stopped(params), x, stopped(q), zs)
        w = normalised_weights(stopped(path))
        log_weight = log_weight_at(model, params, x, q)

        def prior_term(z, w):
            # d log w / dz and d log q / dz, shaped as z: a part for each factor of the prior
            slopes = jax.grad(log_weight)(z), jax.grad(stopped(q).log_prob)(z)
            factors = normal_factors(prior, z)
            terms = jax.tree.map(
                partial(factor_term, w), factors, z, *slopes, is_leaf=is_diag_normal
            )
            return sum(jax.tree.leaves(terms), start=jnp.zeros(()))

        # sum_k w~_k^2 log w_k (its path) + w~_k log p(x | z_k) + the prior's terms, z_k held fixed
        zs = stopped(zs)
        log_p_x = map_samples(lambda z: model.log_likelihood(params, x, z), zs)
        surrogate = jnp.sum(w**2 * path + w * log_p_x + jax.vmap(prior_term)(zs, w))
        return with_gradient_of(iwae_bound(path), surrogate)


def factor_term(
    w: Scalar, p: DiagNormalDensity, z: jax.Array, log_w_slope: jax.Array, log_q_slope: jax.Array
) -> Scalar:
    """What the gradient of one factor p_j of the prior is of, at one sample: slope . T_j."""
    # slope = (w~ - w~^2) d log w/dz_j + w~ d log(q / p_j)/dz_j
    slope = (w - w**2) * log_w_slope + w * (log_q_slope - jax.grad(p.log_prob)(z))

    # T_j(noise_j; theta) = loc + scale noise_j, with the noise that gives z_j held fixed
    noise = stopped((z - p.loc) * jnp.exp(-p.log_scale))
    as_sample = p.loc + jnp.exp(p.log_scale) * noise
    return jnp.sum(stopped(slope) * as_sample)
