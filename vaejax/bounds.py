"""The main idea: K log-weights of one example, and the bounds on log p(x) that are made of them.
All in nats.

    log w_k = log p_theta(x, z_k) - log q_phi(z_k | x),    z_k ~ q_phi(z | x)
    ELBO    = E mean_k log w_k  =  log p(x) - KL(q(z|x) || p(z|x))
    IWAE-K  = E log mean_k w_k,  between the ELBO and log p(x)

Bounds are maximised. Your own is a function of the log-weights [K] of one example; `jax.vmap` makes
the batch. A weight of 0 has the logarithm -inf: where all are 0, a bound is -inf and has no
gradient.
"""

import math
from numbers import Real
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaejax.base.checks import require_count, require_key, require_no_class, shortened
from vaejax.base.floats import log_sum_exp
from vaejax.base.mapping import map_samples
from vaejax.base.types import Bound, Key, Params, PyTree, Scalar
from vaejax.base.values import check_fields_of, component
from vaejax.distributions.base import Distribution
from vaejax.distributions.noise import Independent, Noise
from vaejax.models.base import Model, posterior_of

INDEPENDENT = Independent()
AT_LIMIT = 1e30  # of Renyi's order: a larger one gives the floats of an infinite one


def require_bound(bound: Bound, name: str) -> None:
    """Raises TypeError for what is no function of log-weights."""
    require_no_class(bound, name)
    if not callable(bound) or bound is renyi_bound:
        raise TypeError(
            f"{name} is {shortened(bound)}, and must be a function of the log-weights [K], such as"
            " vaejax.iwae_bound or vaejax.renyi_bound(0.5)"
        )


check_fields_of(Bound, require_bound)

stopped = jax.lax.stop_gradient


class Weights(NamedTuple):
    """log w_k of K samples, and log p_theta(x | z_k) where the model knows it apart; nats."""

    log_w: Float[Array, " *k"]
    log_p_x: Float[Array, " *k"] | None


def weights(model: Model, params: Params, x: PyTree, q: Distribution, zs: PyTree) -> Weights:
    """log w_k = log p_theta(x, z_k) - log q(z_k), for K given samples `zs` along the leading
    axis.
    """

    def weight(z):
        log_joint, log_p_x = model.log_densities(params, x, z)
        return Weights(log_joint - q.log_prob(z), log_p_x)

    return map_samples(weight, zs)


def log_weights(
    model: Model, params: Params, x: PyTree, q: Distribution, zs: PyTree
) -> Float[Array, " k"]:
    """The log w_k of `weights` alone, nats."""
    return weights(model, params, x, q, zs).log_w


def sample_weight(model: Model, params: Params, x: PyTree, q: Distribution, key: Key) -> Weights:
    """Of one sample of q: all that a bound needs of q is the log-density of its own samples."""
    z, log_q = q.sample_and_log_prob(key)
    log_joint, log_p_x = model.log_densities(params, x, z)
    return Weights(log_joint - log_q, log_p_x)


def sample_log_weight(model: Model, params: Params, x: PyTree, q: Distribution, key: Key) -> Scalar:
    """log w of one sample of q, nats."""
    return sample_weight(model, params, x, q, key).log_w


def sample_weights(
    model: Model,
    params: Params,
    x: PyTree,
    q: Distribution,
    key: Key,
    num_samples: int,
    noise: Noise = INDEPENDENT,
) -> Weights:
    """Of K samples of q, independent or as `noise` has them."""
    require_count(num_samples, "num_samples")
    require_key(key)
    return map_samples(
        lambda source: sample_weight(model, params, x, *noise.at(q, source)),
        noise.sources(q, key, num_samples),
    )


def sample_log_weights(
    model: Model,
    params: Params,
    x: PyTree,
    q: Distribution,
    key: Key,
    num_samples: int,
    noise: Noise = INDEPENDENT,
) -> Float[Array, " k"]:
    """The log w_k of `sample_weights` alone, nats."""
    return sample_weights(model, params, x, q, key, num_samples, noise).log_w


def elbo_bound(log_w: Float[Array, " k"]) -> Scalar:
    """mean_k log w_k: an unbiased estimate of the ELBO.

    >>> log_w = jnp.log(jnp.array([1.0, 3.0]))  # (log 1 + log 3) / 2
    >>> print(f"{vaejax.elbo_bound(log_w):.4f} nats")
    0.5493 nats
    """
    count_weights("elbo_bound", log_w)
    return jnp.mean(log_w)


def iwae_bound(log_w: Float[Array, " k"]) -> Scalar:
    """log mean_k w_k. Reference: Burda, Grosse & Salakhutdinov 2016, eq. 8.

    >>> log_w = jnp.log(jnp.array([1.0, 3.0]))  # log 2
    >>> print(f"{vaejax.iwae_bound(log_w):.4f} nats")
    0.6931 nats
    """
    k = count_weights("iwae_bound", log_w)
    return log_sum_exp(log_w) - math.log(k)


def jackknife_bound(log_w: Float[Array, " k"]) -> Scalar:
    """K L_K - (K-1) mean_j L_(K-1) without w_j, L_K the log of the mean of K weights: no 1/K term
    in its bias, and no lower bound. Where one weight alone is above 0 it is inf.

    Reference: Nowozin 2018 (JVI-1).
    """
    k = count_weights("jackknife_bound", log_w, leaves_one_out=True)
    # Of w / max w, since the K-fold of log max w would only add rounding.
    highest = finite_or_zero(stopped(jnp.max(log_w)))
    bound = iwae_bound(log_w - highest)
    others = jnp.mean(log_mean_of_others(log_w - highest))
    return jnp.where(bound == -jnp.inf, bound, k * bound - (k - 1) * others) + highest


def count_weights(owner: str, log_w: Float[Array, " k"], leaves_one_out: bool = False) -> int:
    """K. ValueError for what are not the log-weights of one example: of a batch of them [batch, K],
    a bound would be one number, and wrong.
    """
    shape = jnp.shape(log_w)
    if len(shape) != 1 or shape[0] == 0:
        raise ValueError(
            f"{owner} takes the log-weights [K] of one example, and these have shape {shape}; of a"
            " batch [batch, K] it is jax.vmap of it, one number for each example"
        )
    if leaves_one_out and shape[0] < 2:
        raise ValueError(f"{owner} leaves one weight out, so it needs num_samples of at least 2")
    return shape[0]


def normalised_weights(log_w: Float[Array, " k"]) -> Float[Array, " k"]:
    """w~_k = w_k / sum_j w_j; all 0 where all w_k are."""
    nothing = jnp.all(log_w == -jnp.inf)
    return jnp.where(nothing, 0, jax.nn.softmax(jnp.where(nothing, 0, log_w)))


def finite_or_zero(number: Scalar) -> Scalar:
    """What may be taken from log-weights and be added again."""
    return jnp.where(jnp.isfinite(number), number, 0)


def log_mean_of_others(log_w: Float[Array, " k"]) -> Float[Array, " k"]:
    """log of the mean of all weights but w_k, for every k. In log space: from 1 - w_k / sum w it
    would be log 0 where one dominates.
    """
    k = count_weights("log_mean_of_others", log_w, leaves_one_out=True)
    others = jnp.where(jnp.eye(k, dtype=bool), -jnp.inf, log_w[None])
    return log_sum_exp(others, axis=1) - math.log(k - 1)


def mean_of_others(log_w: Float[Array, " k"]) -> Float[Array, " k"]:
    """The mean of all log w_j but log w_k, for every k. Not by taking it from the sum, where one
    may be far below the others, or -inf.
    """
    k = count_weights("mean_of_others", log_w, leaves_one_out=True)
    others = jnp.where(jnp.eye(k, dtype=bool), 0, log_w[None])
    return jnp.sum(others, axis=1) / (k - 1)


def renyi_bound(alpha: float) -> Bound:
    """(1/(1-alpha)) log mean_k w_k^(1-alpha): IWAE at alpha = 0, the ELBO in the limit 1, log max w
    in the limit -inf, log min w in the limit inf. Reference: Li & Turner 2016, eq. 8.

    A lower bound on log p(x) in expectation for alpha >= 0.

    >>> log_w = jnp.log(jnp.array([1.0, 3.0]))
    >>> print([f"{vaejax.renyi_bound(alpha)(log_w):.3f}" for alpha in (0, 0.5, 1)])
    ['0.693', '0.624', '0.549']
    """
    _require_order(alpha, "renyi_bound: alpha")
    if alpha == 1:
        return elbo_bound
    return iwae_bound if alpha == 0 else RenyiBound(float(alpha))


def _require_order(alpha: float, name: str) -> None:
    """Raises ValueError unless alpha is a number; it may be infinite."""
    if not isinstance(alpha, Real) or isinstance(alpha, bool) or math.isnan(alpha):
        raise ValueError(f"{name} = {alpha!r}; give a number, such as 0 for IWAE or 1 for the ELBO")


@component
class RenyiBound:
    """(1/(1-alpha)) log mean_k w_k^(1-alpha), alpha not 1, as `renyi_bound` makes it."""

    alpha: float

    def __post_init__(self):
        _require_order(self.alpha, "RenyiBound.alpha")
        if self.alpha == 1:
            raise ValueError(f"RenyiBound.alpha = {self.alpha!r}; use renyi_bound(1), its limit")

    def __call__(self, log_w: Float[Array, " k"]) -> Scalar:
        k = count_weights("renyi_bound", log_w)
        if abs(self.alpha) > AT_LIMIT:
            return jnp.min(log_w) if self.alpha > 0 else jnp.max(log_w)
        # Of w / its extreme, so that the powers are at most 1.
        extreme = jnp.max(log_w) if self.alpha < 1 else jnp.min(log_w)
        extreme = finite_or_zero(stopped(extreme))
        log_powers = (1 - self.alpha) * (log_w - extreme)
        # Near alpha = 1 they are near 1: log mean w^c = log(1 + mean(w^c - 1)) without rounding.
        near = jnp.all(jnp.abs(log_powers) < 1)
        by_difference = jnp.log1p(jnp.mean(jnp.expm1(jnp.where(near, log_powers, 0))))
        log_mean = jnp.where(near, by_difference, log_sum_exp(log_powers) - math.log(k))
        return log_mean / (1 - self.alpha) + extreme


def sample_posterior(
    q: Distribution, key: Key, num_samples: int, noise: Noise = INDEPENDENT
) -> PyTree:
    """K samples of q along a leading axis, independent or as `noise` has them."""
    require_count(num_samples, "num_samples")
    require_key(key)

    def sample(source):
        density, key = noise.at(q, source)
        return density.sample(key)

    return map_samples(sample, noise.sources(q, key, num_samples))


def elbo(model: Model, params: Params, x: PyTree, key: Key, num_samples: int = 1) -> Scalar:
    """mean_k [log p_theta(x, z_k) - log q_phi(z_k | x)], z_k ~ q: an unbiased estimate of the ELBO
    of one example, nats.
    """
    require_count(num_samples, "num_samples")
    require_key(key)
    q = posterior_of(model, params, x)
    return elbo_bound(sample_log_weights(model, params, x, q, key, num_samples))


def iwae(model: Model, params: Params, x: PyTree, key: Key, num_samples: int) -> Scalar:
    """log mean_k w_k: the importance-weighted bound of one example, nats. All K samples in memory:
    see `log_marginal`.
    """
    require_count(num_samples, "num_samples")
    require_key(key)
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
    require_key(key)
    chunk = min(chunk, num_samples)
    q = posterior_of(model, params, x)

    def log_weight(k):
        return sample_log_weight(model, params, x, q, jax.random.fold_in(key, k))

    @jax.checkpoint
    def add_chunk(total, start):
        ks = start + jnp.arange(chunk)
        log_w = jnp.where(ks < num_samples, jax.vmap(log_weight)(ks), -jnp.inf)
        return log_sum_exp(jnp.append(log_w, total)), None

    nothing = jnp.full_like(jax.eval_shape(log_weight, 0), -jnp.inf)
    total, _ = jax.lax.scan(add_chunk, nothing, jnp.arange(0, num_samples, chunk))
    return total - math.log(num_samples)
