"""Gradient estimators for any latents: they move the probability of a sample, never the sample, so z may be discrete.

In the formulas f_k = log w_k, w~_k = w_k / sum_j w_j and score_k = grad log q_phi(z_k | x), z_k held fixed.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vaejax._values import value
from vaejax.baselines import Baseline, LeaveOneOut
from vaejax.elbo import iwae_bound, log_mean_of_others, map_samples, sample_posterior, score_of, stopped, with_gradient_of
from vaejax.types import Distribution, Key, Model, Params, Scalar


def fixed_samples(model: Model, params: Params, x: ArrayLike, q: Distribution, key: Key, num_samples: int):
    """log p(x, z_k) and log q(z_k | x) of K samples that are held fixed."""
    zs = stopped(sample_posterior(q, key, num_samples))
    return map_samples(lambda z: model.log_joint(params, x, z), zs), map_samples(q.log_prob, zs)


@value
class ScoreFunction:
    """Value: mean_k f_k. Gradient: mean_k [grad log p_theta(x, z_k) + (f_k - b_k) score_k].

    Unbiased for the gradient of the ELBO, whatever the `baseline`; usually with far more variance than `Pathwise` where that applies. A
    learned baseline has its parameters in `params.psi`: `params._replace(psi=estimator.init(model, params, x, key))`.
    References: Williams 1992 (REINFORCE); `baselines` names those of each baseline.
    """

    num_samples: int = 2
    baseline: Baseline = LeaveOneOut()

    def __post_init__(self):
        require_samples(self, self.baseline.fewest_samples, f"with {type(self.baseline).__name__}")

    def init(self, model: Model, params: Params, x: ArrayLike, key: Key):
        """psi, the parameters of the baseline."""
        return self.baseline.init(key, x)

    def __call__(self, model: Model, params: Params, x: ArrayLike, key: Key) -> Scalar:
        log_joint, log_q = fixed_samples(model, params, x, model.posterior(params, x), key, self.num_samples)
        f = stopped(log_joint - log_q)
        b = self.baseline(params.psi, x, f)
        surrogate = jnp.mean(log_joint + (f - stopped(b)) * log_q)
        if self.baseline.learned:
            surrogate -= 0.5 * jnp.mean((f - b) ** 2)
        return with_gradient_of(jnp.mean(f), surrogate)


@value
class OptimalConstant:
    """Value and gradient as `ScoreFunction` with b = E[f |score|^2] / E[|score|^2], the constant of least variance.

    Over all of q's own parameters together; the expectations are from `num_pilot` samples of their own for each example, so that the
    estimate stays unbiased.
    """

    num_samples: int = 1
    num_pilot: int = 8

    def __post_init__(self):
        require_samples(self, 1, "")
        if self.num_pilot < 1:
            raise ValueError(f"OptimalConstant.num_pilot = {self.num_pilot}; it must be at least 1")

    def __call__(self, model: Model, params: Params, x: ArrayLike, key: Key) -> Scalar:
        key, pilot_key = jax.random.split(key)
        q = model.posterior(params, x)
        log_joint, log_q = fixed_samples(model, params, x, q, key, self.num_samples)
        f = stopped(log_joint - log_q)
        b = stopped(optimal_constant(model, params, x, q, pilot_key, self.num_pilot))
        return with_gradient_of(jnp.mean(f), jnp.mean(log_joint + (f - b) * log_q))


def optimal_constant(model: Model, params: Params, x: ArrayLike, q: Distribution, key: Key, num_samples: int) -> Scalar:
    """E[f |score|^2] / E[|score|^2] from samples, the score that of q's own parameters."""
    flat, unravel = ravel_pytree(q)

    def one(key):
        z = stopped(q.sample(key))
        return model.log_joint(params, x, z) - q.log_prob(z), jnp.sum(score_of(unravel, flat, z) ** 2)

    f, squares = jax.vmap(one)(jax.random.split(key, num_samples))
    return jnp.sum(f * squares) / jnp.maximum(jnp.sum(squares), jnp.finfo(squares.dtype).tiny)


@value
class VIMCO:
    """Value: iwae_bound(log w). Gradient: sum_k [(L - c_k - w~_k) score_k + w~_k grad log p_theta(x, z_k)], L the value.

    c_k is L with w_k replaced by the `mean` of the others, "geometric" or "arithmetic". Unbiased for the gradient of the bound.
    Reference: Mnih & Rezende 2016.
    """

    num_samples: int = 2
    mean: Literal["geometric", "arithmetic"] = "geometric"

    def __post_init__(self):
        require_samples(self, 2, "which leaves one out")
        if self.mean not in ("geometric", "arithmetic"):
            raise ValueError(f'VIMCO.mean = {self.mean!r}; choose "geometric" or "arithmetic"')

    def __call__(self, model: Model, params: Params, x: ArrayLike, key: Key) -> Scalar:
        return multi_sample_score(model, params, x, key, self.num_samples, self.control)

    def control(self, log_w: Float[Array, " k"]) -> Float[Array, " k"]:
        """log mean of the weights, w_k replaced by the mean of the others."""
        k = log_w.shape[0]
        if self.mean == "arithmetic":
            return log_mean_of_others(log_w)
        geometric = (jnp.sum(log_w) - log_w) / (k - 1)
        others = jnp.where(jnp.eye(k, dtype=bool), geometric[:, None], log_w[None])
        return logsumexp(others, axis=1) - math.log(k)


@value
class OVIS:
    """Value: iwae_bound(log w). Gradient as `VIMCO` with c_k = log Z_k - gamma w~_k + (1 - gamma) log(1 - 1/K).

    Z_k is the mean of the weights but w_k. Unbiased for the gradient of the bound at gamma = 0, where its signal to noise grows with K; at
    gamma = 1 biased by E[sum_k w~_k score_k], since c_k then depends on z_k. Reference: Lievin et al. 2020.
    """

    num_samples: int = 2
    gamma: float = 0.0

    def __post_init__(self):
        require_samples(self, 2, "which leaves one out")

    def __call__(self, model: Model, params: Params, x: ArrayLike, key: Key) -> Scalar:
        return multi_sample_score(model, params, x, key, self.num_samples, self.control)

    def control(self, log_w: Float[Array, " k"]) -> Float[Array, " k"]:
        k = log_w.shape[0]
        return log_mean_of_others(log_w) - self.gamma * jax.nn.softmax(log_w) + (1 - self.gamma) * math.log(1 - 1 / k)


def multi_sample_score(model: Model, params: Params, x: ArrayLike, key: Key, num_samples: int, control) -> Scalar:
    """Value: iwae_bound(log w). Gradient: sum_k [(L - control(log w)_k - w~_k) score_k + w~_k grad log p_theta(x, z_k)]."""
    log_joint, log_q = fixed_samples(model, params, x, model.posterior(params, x), key, num_samples)
    log_w = stopped(log_joint - log_q)
    w, bound = jax.nn.softmax(log_w), iwae_bound(log_w)
    return with_gradient_of(bound, jnp.sum(w * log_joint + (bound - control(log_w) - w) * log_q))


def require_samples(owner, fewest: int, why: str) -> None:
    """Raises ValueError for a number of samples that is none, or too small."""
    number = owner.num_samples
    if not isinstance(number, int) or number < fewest:
        raise ValueError(f"{type(owner).__name__}.num_samples = {number!r}; it must be a whole number, at least {fewest} {why}".rstrip())
