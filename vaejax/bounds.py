"""The main idea: K log-weights of one example, and the bounds on log p(x) that are made of them.
All in nats.

    log w_k = log p_theta(x, z_k) - log q_phi(z_k | x),    z_k ~ q_phi(z | x)
    ELBO    = E mean_k log w_k  =  log p(x) - KL(q(z|x) || p(z|x))
    IWAE-K  = E log mean_k w_k,  between the ELBO and log p(x)

Bounds are maximised. Your own is a function of the log-weights.
"""

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from vaejax.base.checks import require_count
from vaejax.base.mapping import map_samples
from vaejax.base.types import Bound, Key, Params, PyTree, Scalar
from vaejax.base.values import component
from vaejax.distributions.base import Distribution
from vaejax.distributions.noise import Independent, Noise
from vaejax.models.base import Model, posterior_of

INDEPENDENT = Independent()

stopped = jax.lax.stop_gradient


def log_weights(
    model: Model, params: Params, x: PyTree, q: Distribution, zs: PyTree
) -> Float[Array, " k"]:
    """log w_k = log p_theta(x, z_k) - log q(z_k), nats, for K given samples `zs` along the leading
    axis.
    """
    return map_samples(lambda z: model.log_joint(params, x, z) - q.log_prob(z), zs)


def sample_log_weight(model: Model, params: Params, x: PyTree, q: Distribution, key: Key) -> Scalar:
    """log w of one sample of q, nats: all that a bound needs of q is the log-density of its own
    samples.
    """
    z, log_q = q.sample_and_log_prob(key)
    return model.log_joint(params, x, z) - log_q


def sample_log_weights(
    model: Model,
    params: Params,
    x: PyTree,
    q: Distribution,
    key: Key,
    num_samples: int,
    noise: Noise = INDEPENDENT,
) -> Float[Array, " k"]:
    """log w_k of K samples of q, nats, independent or as `noise` has them."""
    require_count(num_samples, "num_samples")
    return map_samples(
        lambda source: sample_log_weight(model, params, x, *noise.at(q, source)),
        noise.sources(q, key, num_samples),
    )


def elbo_bound(log_w: Float[Array, " k"]) -> Scalar:
    """mean_k log w_k: an unbiased estimate of the ELBO."""
    return jnp.mean(log_w)


def iwae_bound(log_w: Float[Array, " k"]) -> Scalar:
    """log mean_k w_k. Reference: Burda, Grosse & Salakhutdinov 2016, eq. 8."""
    return logsumexp(log_w) - math.log(log_w.shape[0])


def jackknife_bound(log_w: Float[Array, " k"]) -> Scalar:
    """K L_K - (K-1) mean_j L_(K-1) without w_j, L_K the log of the mean of K weights: no 1/K term
    in its bias, and no lower bound.

    Reference: Nowozin 2018 (JVI-1).
    """
    k = log_w.shape[0]
    if k < 2:
        raise ValueError(
            "jackknife_bound leaves one weight out, so it needs num_samples of at least 2"
        )
    return k * iwae_bound(log_w) - (k - 1) * jnp.mean(log_mean_of_others(log_w))


def log_mean_of_others(log_w: Float[Array, " k"]) -> Float[Array, " k"]:
    """log of the mean of all weights but w_k, for every k. In log space: from 1 - w_k / sum w it
    would be log 0 where one dominates.
    """
    k = log_w.shape[0]
    others = jnp.where(jnp.eye(k, dtype=bool), -jnp.inf, log_w[None])
    return logsumexp(others, axis=1) - math.log(k - 1)


def renyi_bound(alpha: float) -> Bound:
    """(1/(1-alpha)) log mean_k w_k^(1-alpha): IWAE at alpha = 0, the ELBO in the limit 1.
    Reference: Li & Turner 2016, eq. 8.

    A lower bound on log p(x) in expectation for alpha >= 0.
    """
    if alpha == 1:
        return elbo_bound
    return iwae_bound if alpha == 0 else RenyiBound(alpha)


@component
class RenyiBound:
    """(1/(1-alpha)) log mean_k w_k^(1-alpha)."""

    alpha: float

    def __call__(self, log_w: Float[Array, " k"]) -> Scalar:
        return iwae_bound((1 - self.alpha) * log_w) / (1 - self.alpha)


def sample_posterior(
    q: Distribution, key: Key, num_samples: int, noise: Noise = INDEPENDENT
) -> PyTree:
    """K samples of q along a leading axis, independent or as `noise` has them."""
    require_count(num_samples, "num_samples")

    def sample(source):
        density, key = noise.at(q, source)
        return density.sample(key)

    return map_samples(sample, noise.sources(q, key, num_samples))


def elbo(model: Model, params: Params, x: PyTree, key: Key, num_samples: int = 1) -> Scalar:
    """mean_k [log p_theta(x, z_k) - log q_phi(z_k | x)], z_k ~ q: an unbiased estimate of the ELBO
    of one example, nats.
    """
    q = posterior_of(model, params, x)
    return elbo_bound(sample_log_weights(model, params, x, q, key, num_samples))


def iwae(model: Model, params: Params, x: PyTree, key: Key, num_samples: int) -> Scalar:
    """log mean_k w_k: the importance-weighted bound of one example, nats. All K samples in memory:
    see `log_marginal`.
    """
    q = posterior_of(model, params, x)
    return iwae_bound(sample_log_weights(model, params, x, q, key, num_samples))


def log_marginal(
    model: Model, params: Params, x: PyTree, key: Key, num_samples: int, chunk: int = 100
) -> Scalar:
    """log mean_k w_k, the importance-sampled log p(x) of one example, nats, in memory that grows
    with `chunk` alone.

    Sample k has the key fold_in(key, k), so `chunk` changes the result by rounding only. Each chunk
    is computed again in the backward pass rather than kept, so that the gradient's memory does not
    grow either. Biased low by Var(w)/(2 K p(x)^2) to first order; it converges to log p(x).
    """
    require_count(num_samples, "num_samples")
    require_count(chunk, "chunk")
    chunk = min(chunk, num_samples)
    q = posterior_of(model, params, x)

    def log_weight(k):
        return sample_log_weight(model, params, x, q, jax.random.fold_in(key, k))

    @jax.checkpoint
    def add_chunk(total, start):
        ks = start + jnp.arange(chunk)
        log_w = jnp.where(ks < num_samples, jax.vmap(log_weight)(ks), -jnp.inf)
        return jnp.logaddexp(total, logsumexp(log_w)), None

    nothing = jnp.full_like(jax.eval_shape(log_weight, 0), -jnp.inf)
    total, _ = jax.lax.scan(add_chunk, nothing, jnp.arange(0, num_samples, chunk))
    return total - math.log(num_samples)
