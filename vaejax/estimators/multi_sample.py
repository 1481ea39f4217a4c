"""Gradient estimators of the importance-weighted bound for any latents.

In the formulas f_k = log w_k, w~_k = w_k / sum_j w_j and score_k = grad log q_phi(z_k | x), z_k
held fixed.
"""

import math
from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vaejax.base.asserts import assert_shape
from vaejax.base.checks import require_count, require_number
from vaejax.base.floats import log_sum_exp
from vaejax.base.mapping import map_samples
from vaejax.base.types import Key, Params, Scalar
from vaejax.base.values import component
from vaejax.bounds import (
    INDEPENDENT,
    count_weights,
    iwae_bound,
    log_mean_of_others,
    log_weights,
    mean_of_others,
    normalised_weights,
    sample_posterior,
    stopped,
)
from vaejax.distributions.noise import Noise
from vaejax.estimators.base import (
    Estimator,
    fixed_samples,
    reparameterised_posterior,
    require_samples,
    with_gradient_of,
)
from vaejax.models.base import Model, posterior_of


@component
class VIMCO(Estimator):
    """Value: iwae_bound(log w). Gradient: sum_k [(L - c_k - w~_k) score_k + w~_k grad log
    p_theta(x, z_k)], L the value.

    c_k is L with w_k replaced by the `mean` of the others, "geometric" or "arithmetic". Unbiased
    for the gradient of the bound. Reference: Mnih & Rezende 2016.
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
        k = count_weights("VIMCO.control", log_w)
        if self.mean == "arithmetic":
            return log_mean_of_others(log_w)
        others = jnp.where(jnp.eye(k, dtype=bool), mean_of_others(log_w)[:, None], log_w[None])
        return log_sum_exp(others, axis=1) - math.log(k)


@component
class OVIS(Estimator):
    """Value: iwae_bound(log w). Gradient as `VIMCO` with c_k = log Z_k - gamma w~_k + (1 - gamma)
    log(1 - 1/K).

    Z_k is the mean of the weights but w_k. Unbiased for the gradient of the bound at gamma = 0,
    where its signal to noise grows with K; at gamma = 1 biased by E[sum_k w~_k score_k], since c_k
    then depends on z_k. Reference: Lievin et al. 2020.
    """

    num_samples: int = 2
    gamma: float = 0.0

    def __post_init__(self):
        require_samples(self, 2, "which leaves one out")
        require_number(self.gamma, "OVIS.gamma")

    def __call__(self, model: Model, params: Params, x: ArrayLike, key: Key) -> Scalar:
        return multi_sample_score(model, params, x, key, self.num_samples, self.control)

    def control(self, log_w: Float[Array, " k"]) -> Float[Array, " k"]:
        """log mean of the others, less gamma times the normalised weight, and a constant of K."""
        k = count_weights("OVIS.control", log_w)
        return (
            log_mean_of_others(log_w)
            - self.gamma * normalised_weights(log_w)
            + (1 - self.gamma) * math.log(1 - 1 / k)
        )


def multi_sample_score(
    model: Model, params: Params, x: ArrayLike, key: Key, num_samples: int, control: Callable
) -> Scalar:
    """Value: L = iwae_bound(log w). Gradient: sum_k [w~_k grad log p_theta(x, z_k) + signal_k
    score_k], signal_k = L - control(log w)_k - w~_k.

    Samples may have the weight 0, log w = -inf. A control is -inf where all the others have it, and
    then nothing is taken off, which depends on the others alone as it must; where all have it there
    is no gradient. So the mean is the gradient of E[L], over the samples of which L is finite.
    """
    q = posterior_of(model, params, x)
    log_joint, log_q, _ = fixed_samples(model, params, x, q, key, num_samples)
    log_w = stopped(log_joint - log_q)
    w, bound = normalised_weights(log_w), iwae_bound(log_w)
    taken_off = control(log_w)
    taken_off = jnp.where(taken_off == -jnp.inf, 0, taken_off)
    signal = jnp.where(bound == -jnp.inf, 0, bound - taken_off - w)
    assert_shape((log_w, signal), (num_samples,))
    return with_gradient_of(bound, jnp.sum(w * log_joint + signal * log_q))


@component
class RWS(Estimator):
    """Value: iwae_bound(log w). Gradient in theta: sum_k w~_k grad log p(x, z_k). In phi: sum_k
    w~_k grad log q(z_k | x).

    In theta as IWAE, unbiased. In phi it follows E_p(z|x) log q(z | x), the inclusive KL, and not
    the gradient of the value: biased for both, consistent for the first as K grows.
    `doubly_reparameterised` has the same mean by the path derivative of sum_k (w~_k - w~_k^2) log
    w_k, usually with less variance; without it, q's samples need not be smooth. References:
    Bornschein & Bengio 2015 (reweighted wake-sleep, the wake-phi update); Tucker et al. 2019.
    """

    num_samples: int
    doubly_reparameterised: bool = False
    noise: Noise = INDEPENDENT

    def __post_init__(self):
        require_count(self.num_samples, "RWS.num_samples")

    def __call__(self, model: Model, params: Params, x: ArrayLike, key: Key) -> Scalar:
        # a q that depends on theta too, as of a ladder, teaches phi alone
        of_q = params._replace(theta=stopped(params.theta))
        if self.doubly_reparameterised:
            q = reparameterised_posterior(self, model, of_q, x)
        else:
            q = posterior_of(model, of_q, x)
        zs = sample_posterior(q, key, self.num_samples, self.noise)
        path = log_weights(model, stopped(params), x, stopped(q), zs)
        w = normalised_weights(stopped(path))

        # in theta: sum_k w~_k log p(x, z_k), z_k held fixed
        log_joint = map_samples(lambda z: model.log_joint(params, x, z), stopped(zs))

        # in phi: sum_k (w~_k - w~_k^2) log w_k along its path,
        # or sum_k w~_k log q(z_k), z_k held fixed
        if self.doubly_reparameterised:
            wake = (w - w**2) * path
        else:
            wake = w * map_samples(q.log_prob, stopped(zs))
        return with_gradient_of(iwae_bound(path), jnp.sum(w * log_joint + wake))
