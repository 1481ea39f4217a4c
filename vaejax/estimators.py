"""Gradient estimators. An estimator is a function of one example whose VALUE is a bound and whose GRADIENT is the estimator.

`jax.grad` of it is all there is: each one is a visible placement of `stop_gradient`. Call signature:
`estimator(model, params, x, key) -> scalar`, nats. Those here go through samples z = T(noise; phi), so q must be reparameterised, and
each takes a `noise`; `gaussian` has those for a diagonal normal q alone, `score_function` those for any latents.

In the formulas w~_k = w_k / sum_j w_j, and the path derivative of a function of z is d/dz times dz/dphi, all other parameters held fixed.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from vaejax._values import value
from vaejax.distributions import DiagNormal, is_reparameterised
from vaejax.divergences import kl_divergence
from vaejax.elbo import (
    INDEPENDENT,
    elbo_bound,
    iwae_bound,
    log_likelihood,
    log_weight_at,
    log_weights,
    map_samples,
    prior_of,
    renyi_bound,
    require_count,
    sample_log_weight,
    sample_log_weights,
    sample_posterior,
    score_of,
    stopped,
    with_gradient_of,
)
from vaejax.graphs import Joint
from vaejax.noise import Noise
from vaejax.types import Bound, Distribution, Key, LatentVariableModel, Model, Params, PyTree, Scalar


def reparameterised_posterior(estimator, model: Model, params: Params, x: ArrayLike) -> Distribution:
    """q(z | x), or a TypeError where its samples are no smooth function of its parameters."""
    q = model.posterior(params, x)
    if not is_reparameterised(q):
        raise TypeError(
            f"{type(estimator).__name__} differentiates through samples of q, and those of {type(q).__name__} do not move smoothly with "
            "its parameters; use ScoreFunction, OptimalConstant, VIMCO, OVIS or RWS, for a Bernoulli q also Enumerate, DisARM, REBAR, "
            "RELAX, DoubleControlVariate, Relaxed or StraightThrough, or the relaxed families RelaxedBernoulli and RelaxedCategorical; "
            "for a graph, ByNode, which takes each node its own way"
        )
    return q


def require_factors(owner, model: Model) -> None:
    """Raises TypeError for a model that does not show its two factors."""
    if not hasattr(model, "p_z"):
        raise TypeError(f"{type(owner).__name__} needs a model with p_z and p_x_given_z; {type(model).__name__} has no prior to show")


@value
class Pathwise:
    """Value: bound(log w). Gradient: its total derivative, through z = T(noise; phi) and through log q itself.

    Unbiased for the gradient of E[bound], whatever the bound and K = `num_samples`: `iwae_bound`, `renyi_bound(alpha)` (VR-IWAE in its
    plain form), `jackknife_bound`. Reference: Kingma & Welling 2014, section 2.4; Burda et al. 2016 for `iwae_bound`.
    """

    num_samples: int = 1
    bound: Bound = elbo_bound
    noise: Noise = INDEPENDENT

    def __post_init__(self):
        require_count(self.num_samples, "Pathwise.num_samples")

    def __call__(self, model: Model, params: Params, x: ArrayLike, key: Key) -> Scalar:
        q = reparameterised_posterior(self, model, params, x)
        return self.bound(sample_log_weights(model, params, x, q, key, self.num_samples, self.noise))


@value
class AnalyticKL:
    """Value: mean_k log p_theta(x | z_k) - KL(q_phi(z|x) || p_theta(z)). Gradient: its total derivative.

    The KL in closed form, so only the reconstruction is noisy. Needs a pair (q, prior) with a known KL; raises TypeError
    otherwise. Unbiased for the gradient of the ELBO. Reference: Kingma & Welling 2014, eq. 7.
    """

    num_samples: int = 1
    noise: Noise = INDEPENDENT

    def __post_init__(self):
        require_count(self.num_samples, "AnalyticKL.num_samples")

    def __call__(self, model: LatentVariableModel, params: Params, x: ArrayLike, key: Key) -> Scalar:
        require_factors(self, model)
        q = reparameterised_posterior(self, model, params, x)
        zs = sample_posterior(q, key, self.num_samples, self.noise)
        log_p_x = jax.vmap(lambda z: log_likelihood(model, params, x, z))(zs)
        return jnp.mean(log_p_x) - kl_divergence(q, prior_of(model, params, x))


@value
class StickTheLanding:
    """Value: bound(log w). Gradient: that of `Pathwise` plus c times the score of q, weighted alike: at c = 1 the path derivative alone.

    The score has mean zero, so with `elbo_bound` this is unbiased for any c = `coefficient`. At c = 1 its variance vanishes where q is
    the exact posterior; in one dimension it beats `Pathwise` if and only if q's variance is more than half the posterior's. "estimated"
    takes the c of least variance, -Cov / Var over q's parameters, from `num_pilot` samples of its own for each example.
    With `iwae_bound` it is biased, by c E[sum_k w~_k score_k].
    References: Roeder, Wu & Duvenaud 2017; Geffner & Domke 2018 for the coefficient; Tucker et al. 2019 for the bias.
    """

    num_samples: int = 1
    bound: Bound = elbo_bound
    coefficient: float | Literal["estimated"] = 1.0
    num_pilot: int = 8
    noise: Noise = INDEPENDENT

    def __post_init__(self):
        require_count(self.num_samples, "StickTheLanding.num_samples")
        if isinstance(self.coefficient, str) and self.coefficient != "estimated":
            raise ValueError(f'StickTheLanding.coefficient = {self.coefficient!r}; give a number, or "estimated"')
        if self.num_pilot < 2:
            raise ValueError(f"StickTheLanding.num_pilot = {self.num_pilot}; a covariance needs at least 2")

    def __call__(self, model: Model, params: Params, x: ArrayLike, key: Key) -> Scalar:
        q = reparameterised_posterior(self, model, params, x)
        if isinstance(self.coefficient, str):
            key, pilot_key = jax.random.split(key)
            c = stopped(best_coefficient(model, params, x, q, pilot_key, self.num_pilot))
        else:
            c = self.coefficient
        zs = sample_posterior(q, key, self.num_samples, self.noise)
        log_w = log_weights(model, params, x, stopped(q), zs)
        if isinstance(c, float) and c == 1:
            return self.bound(log_w)
        score = map_samples(lambda z: stopped(q).log_prob(z) - q.log_prob(z), zs)  # of value zero
        return self.bound(log_w + (1 - c) * score)


def best_coefficient(model: Model, params: Params, x: ArrayLike, q: Distribution, key: Key, num_pilot: int) -> Scalar:
    """-sum Cov(g, s) / sum Var(s) over q's parameters: g the pathwise gradient, s the score of q, from `num_pilot` samples."""
    flat, unravel = ravel_pytree(q)

    def gradients(key):
        total = jax.grad(lambda flat: sample_log_weight(model, params, x, unravel(flat), key))(flat)
        return total, score_of(unravel, flat, q.sample(key))

    totals, scores = jax.vmap(gradients)(jax.random.split(key, num_pilot))
    covariance = jnp.sum((totals - jnp.mean(totals, axis=0, keepdims=True)) * scores) / (num_pilot - 1)
    return -covariance / (jnp.sum(scores**2) / num_pilot)


@value
class DReG:
    """Value: renyi_bound(alpha)(log w), IWAE at alpha = 0. Gradient in phi: the path derivative of sum_k c_k log w_k.

    c_k = alpha w~_k + (1-alpha) w~_k^2, where w~ are the normalised w^(1-alpha). In theta: sum_k w~_k grad log p(x, z_k), as `Pathwise`.
    Unbiased for the gradient of the bound; its signal to noise in phi grows with K, where that of `Pathwise` falls. At alpha = 1 it is
    `StickTheLanding`.
    References: Tucker et al. 2019; Daudel et al. for alpha (the doubly reparameterised form of VR-IWAE).
    """

    num_samples: int
    alpha: float = 0.0
    noise: Noise = INDEPENDENT

    def __post_init__(self):
        require_count(self.num_samples, "DReG.num_samples")

    def __call__(self, model: Model, params: Params, x: ArrayLike, key: Key) -> Scalar:
        q = reparameterised_posterior(self, model, params, x)
        zs = sample_posterior(q, key, self.num_samples, self.noise)
        path = log_weights(model, stopped(params), x, stopped(q), zs)
        w = jax.nn.softmax((1 - self.alpha) * stopped(path))
        log_joint = map_samples(lambda z: model.log_joint(params, x, z), stopped(zs))
        surrogate = jnp.sum((self.alpha * w + (1 - self.alpha) * w**2) * path + w * log_joint)
        return with_gradient_of(renyi_bound(self.alpha)(path), surrogate)


def normal_factors(prior: Distribution, z: PyTree) -> PyTree:
    """The prior, or {latent node: its factor at z} of a hierarchy; TypeError for one that is no diagonal normal."""
    factors = prior.factors(z) if isinstance(prior, Joint) else prior
    for name, factor in (factors if isinstance(factors, dict) else {"z": factors}).items():
        if not is_diag_normal(factor):
            raise TypeError(
                f"GeneralisedDReG needs a prior that is a diagonal normal, not {type(factor).__name__} for {name}; use vaejax.DReG"
            )
    return factors


def is_diag_normal(part: Any) -> bool:
    return isinstance(part, DiagNormal)


@value
class GeneralisedDReG:
    """Value: iwae_bound(log w). Gradient in phi: as `DReG`. In the prior's parameters: the same trick, with z as a sample of the prior.

    For each factor p_j = p_theta(z_j | Pa(z_j)) of the prior, one of them or a hierarchy, its parents held fixed,

        E sum_k w~_k grad log p_j(z_kj) = E sum_k [(w~_k - w~_k^2) d log w_k/dz_kj + w~_k d log(q/p_j)/dz_kj] grad T_j(noise_kj; theta),

    where T_j is its map from noise to samples, loc + scale * noise, and T_j(noise_kj; theta) = z_kj. Unbiased for the gradient of the
    bound. Not always of less variance than `DReG`: at q = p(z|x) that of the prior's loc is (1 - s_p^2/s_q^2)^2 times as large, s_p and
    s_q the scales of prior and q. Needs factors that are diagonal normals. Reference: Bauer & Mnih 2021.
    """

    num_samples: int
    noise: Noise = INDEPENDENT

    def __post_init__(self):
        require_count(self.num_samples, "GeneralisedDReG.num_samples")

    def __call__(self, model: LatentVariableModel, params: Params, x: ArrayLike, key: Key) -> Scalar:
        require_factors(self, model)
        q, prior = reparameterised_posterior(self, model, params, x), prior_of(model, params, x)
        zs = sample_posterior(q, key, self.num_samples, self.noise)
        path = log_weights(model, stopped(params), x, stopped(q), zs)
        w = jax.nn.softmax(stopped(path))

        def of_prior(z, w):
            def of_factor(p, z, log_w_slope, log_q_slope):
                slope = (w - w**2) * log_w_slope + w * (log_q_slope - jax.grad(p.log_prob)(z))
                as_sample = p.loc + jnp.exp(p.log_scale) * stopped((z - p.loc) * jnp.exp(-p.log_scale))
                return jnp.sum(stopped(slope) * as_sample)

            slopes = jax.grad(log_weight_at(model, params, x, q))(z), jax.grad(stopped(q).log_prob)(z)
            each = jax.tree.map(of_factor, normal_factors(prior, z), z, *slopes, is_leaf=is_diag_normal)
            return sum(jax.tree.leaves(each), start=jnp.zeros(()))

        zs = stopped(zs)
        log_p_x = map_samples(lambda z: log_likelihood(model, params, x, z), zs)
        surrogate = jnp.sum(w**2 * path + w * log_p_x + jax.vmap(of_prior)(zs, w))
        return with_gradient_of(iwae_bound(path), surrogate)


@value
class RWS:
    """Value: iwae_bound(log w). Gradient in theta: sum_k w~_k grad log p(x, z_k). In phi: sum_k w~_k grad log q(z_k | x).

    In theta as IWAE, unbiased. In phi it follows E_p(z|x) log q(z | x), the inclusive KL, and not the gradient of the value: biased for
    both, consistent for the first as K grows. `doubly_reparameterised` has the same mean by the path derivative of
    sum_k (w~_k - w~_k^2) log w_k, usually with less variance; without it, q's samples need not be smooth.
    References: Bornschein & Bengio 2015 (reweighted wake-sleep, the wake-phi update); Tucker et al. 2019.
    """

    num_samples: int
    doubly_reparameterised: bool = False
    noise: Noise = INDEPENDENT

    def __post_init__(self):
        require_count(self.num_samples, "RWS.num_samples")

    def __call__(self, model: Model, params: Params, x: ArrayLike, key: Key) -> Scalar:
        q = reparameterised_posterior(self, model, params, x) if self.doubly_reparameterised else model.posterior(params, x)
        zs = sample_posterior(q, key, self.num_samples, self.noise)
        path = log_weights(model, stopped(params), x, stopped(q), zs)
        w = jax.nn.softmax(stopped(path))
        log_joint = map_samples(lambda z: model.log_joint(params, x, z), stopped(zs))
        of_q = (w - w**2) * path if self.doubly_reparameterised else w * map_samples(q.log_prob, stopped(zs))
        return with_gradient_of(iwae_bound(path), jnp.sum(w * log_joint + of_q))
