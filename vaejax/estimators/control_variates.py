"""Gradient estimators for binary latents, q a `distributions.BernoulliDensity`.

In the formulas f = log w, b are latents, l their logits, p = sigmoid(l), and a product of vectors
is by coordinates. In theta each takes grad log p_theta(x, b) at its own samples. The functions
..._gradient are the estimators in l as formulas: of f, l and the random numbers alone.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vaejax.base.asserts import assert_equal_shape, assert_shape
from vaejax.base.checks import require_count, require_number
from vaejax.base.mapping import map_samples
from vaejax.base.types import Key, Params, PyTree, Scalar
from vaejax.base.values import component
from vaejax.bounds import stopped
from vaejax.distributions.bernoulli import BernoulliDensity
from vaejax.distributions.noise import open_uniform
from vaejax.estimators.base import (
    Estimator,
    log_weight_at,
    posterior_in,
    require_samples,
    with_gradient_of,
)
from vaejax.models.base import Model, posterior_of
from vaejax.networks.base import Net, apply_net, init_net

Latents = Float[Array, "..."]
Function = Callable[[Latents], Scalar]

REMEDY = "use vaejax.ScoreFunction, which takes any, or vaejax.Pathwise where samples move smoothly"


def with_logit_gradient(
    model: Model, params: Params, x: ArrayLike, q: BernoulliDensity, bs: Latents, gradient: Latents
) -> Scalar:
    """Value: mean_k log w(b_k). Gradient: `gradient` in q's logits, mean_k grad log p(x, b_k)
    elsewhere.
    """
    assert_equal_shape((gradient, q.logits))
    log_joint = map_samples(lambda b: model.log_joint(params, x, b), bs)
    log_q = map_samples(q.log_prob, bs)
    surrogate = jnp.mean(log_joint) + jnp.sum(stopped(gradient) * q.logits)
    return with_gradient_of(jnp.mean(log_joint - log_q), surrogate)


def logit(u: jax.Array) -> jax.Array:
    """log u / (1 - u)."""
    return jnp.log(u) - jnp.log1p(-u)


@component
class DisARM(Estimator):
    """Value: mean_k log w_k, the K samples in antithetic pairs. Gradient in l: that of each pair
    (b, b'), averaged.

    (f(b) - f(b'))/2 (-1)^b' 1[b != b'] sigmoid(|l|), with b = 1[u < p], b' = 1[1 - u < p]. Unbiased
    for the gradient of the ELBO. For one latent never of more variance than `ScoreFunction` of two
    samples; for several it can be. Needs a Bernoulli q. References: Dong, Mnih & Tucker 2020; Yin,
    Ho, Yan, Qian & Zhou 2020.
    """

    num_samples: int = 2

    def __post_init__(self):
        require_samples(self, 2, "")
        if self.num_samples % 2:
            raise ValueError(
                f"DisARM.num_samples = {self.num_samples}, but its samples come in pairs; give an"
                " even number"
            )

    def __call__(self, model: Model, params: Params, x: ArrayLike, key: Key) -> Scalar:
        q = posterior_in(model, params, x, (BernoulliDensity,), self, REMEDY)
        us = open_uniform(key, (self.num_samples // 2, *q.logits.shape), q.logits.dtype)
        f = log_weight_at(model, params, x, q)
        pairs, gradients = jax.vmap(lambda u: disarm_gradient(f, stopped(q.logits), u))(us)
        bs = pairs.reshape(-1, *q.logits.shape)
        return with_logit_gradient(model, params, x, q, bs, jnp.mean(gradients, axis=0))


def disarm_gradient(f: Function, logits: Latents, u: Latents) -> tuple[Latents, Latents]:
    """The pair (b, b') of the uniform numbers u, and the estimate of dE f / dl from it."""
    p = jax.nn.sigmoid(logits)
    b, opposite = (u < p).astype(logits.dtype), (1 - u < p).astype(logits.dtype)
    # (f(b) - f(b'))/2 (-1)^b' 1[b != b'] sigmoid(|l|)
    difference = 0.5 * (f(b) - f(opposite))
    sign, differ = 1 - 2 * opposite, b != opposite
    gradient = difference * sign * differ * jax.nn.sigmoid(jnp.abs(logits))
    return jnp.stack([b, opposite]), gradient


class LearnsItsControl(Estimator):
    """What the estimators share whose control variate has parameters psi: psi minimises the
    variance.

    The mean of the gradient g does not depend on psi, so the gradient of |g|^2 is an unbiased
    estimate of that of its total variance. Reference: Tucker et al. 2017; Grathwohl et al. 2018.
    """

    def bound_with_variance(
        self,
        model: Model,
        params: Params,
        x: ArrayLike,
        q: BernoulliDensity,
        bs: Latents,
        gradient: Latents,
    ) -> Scalar:
        """`with_logit_gradient`, and for psi the gradient of -|g|^2 / 2, whose value is taken off
        again.
        """
        bound = with_logit_gradient(model, params, x, q, bs, gradient)
        return with_gradient_of(bound, bound - 0.5 * jnp.sum(gradient**2))


@component
class DoubleControlVariate(LearnsItsControl):
    """Value: mean_k log w_k. Gradient in l: that of `ScoreFunction` with leave-one-out, of f plus a
    linear function of b.

    mean_k [h_k - mean_(j != k) (f_j + a g_k (b_j - p))] (b_k - p) - a p (1 - p) mean_k g_k, where
    g_k = df/db at b_k and h_k = f_k + a (b_k - p) mean_(j != k) g_j. Unbiased for the gradient of
    the ELBO, for any a: psi, which is learned from 0 on, or the number `coefficient`. Needs a
    Bernoulli q, f defined between 0 and 1, and 2 or more samples. Reference: Titsias & Shi 2022.
    """

    num_samples: int = 2
    coefficient: float | None = None

    def __post_init__(self):
        require_samples(self, 2, "which leaves one out")
        if self.coefficient is not None:
            require_number(self.coefficient, "DoubleControlVariate.coefficient")

    def init(self, model: Model, params: Params, x: ArrayLike, key: Key) -> PyTree:
        """psi, the coefficient a."""
        return jnp.zeros(()) if self.coefficient is None else ()

    def __call__(self, model: Model, params: Params, x: ArrayLike, key: Key) -> Scalar:
        q = posterior_in(model, params, x, (BernoulliDensity,), self, REMEDY)
        bs = map_samples(q.sample, jax.random.split(key, self.num_samples))
        f = log_weight_at(model, params, x, q)
        a = _psi(self, params) if self.coefficient is None else self.coefficient
        gradient = double_control_variate_gradient(f, stopped(q.logits), bs, a)
        return self.bound_with_variance(model, params, x, q, bs, gradient)


def double_control_variate_gradient(
    f: Function, logits: Latents, bs: Float[Array, "k ..."], a: ArrayLike
) -> Latents:
    """The estimate of dE f / dl from K samples b of Bernoulli(sigmoid(l)); linear in a."""
    k, p = len(bs), jax.nn.sigmoid(logits)
    assert_shape(bs, (k, *logits.shape))

    # f_k, and by coordinates g_k = df/db at b_k and b_k - p
    values, slopes = jax.vmap(jax.value_and_grad(f))(bs)
    slopes, centred = slopes.reshape(k, -1), (bs - p[None]).reshape(k, -1)

    # linear[k, j] = g_j (b_k - p), and 1 where j != k
    linear = centred @ slopes.T
    others = 1 - jnp.eye(k, dtype=values.dtype)

    # h_k = f_k + a mean_(j != k) g_j (b_k - p)
    # baseline_k = mean_(j != k) [f_j + a g_k (b_j - p)]
    h = values + a * jnp.sum(others * linear, axis=1) / (k - 1)
    baseline = jnp.sum(others * (values[None] + a * linear.T), axis=1) / (k - 1)

    # mean_k (h_k - baseline_k) (b_k - p) - a p (1 - p) mean_k g_k
    score = jnp.mean((h - baseline)[:, None] * centred, axis=0).reshape(p.shape)
    mean_slope = jnp.mean(slopes, axis=0).reshape(p.shape)
    return score - a * p * (1 - p) * mean_slope


class RelaxedControl(LearnsItsControl):
    """REBAR's estimator, for a control variate c that an estimator has: its `control(psi, f)` is
    the function z -> c(z).
    """

    num_samples: int

    def control(self, psi: PyTree, f: Function) -> Function:
        raise NotImplementedError

    def __post_init__(self):
        require_count(self.num_samples, f"{type(self).__name__}.num_samples")

    def __call__(self, model: Model, params: Params, x: ArrayLike, key: Key) -> Scalar:
        q = posterior_in(model, params, x, (BernoulliDensity,), self, REMEDY)
        f = log_weight_at(model, params, x, q)
        control = self.control(_psi(self, params), f)
        us = open_uniform(key, (self.num_samples, 2, *q.logits.shape), q.logits.dtype)
        bs, gradients = jax.vmap(lambda u: rebar_gradient(f, control, stopped(q.logits), *u))(us)
        gradient = jnp.mean(gradients, axis=0)
        return self.bound_with_variance(model, params, x, q, bs, gradient)


@component
class REBAR(RelaxedControl):
    """Value: mean_k log w_k. Gradient in l: mean of (f(b) - c(z~)) (b - p) + dc(z)/dl - dc(z~)/dl,
    c(z) = eta f(sigmoid(z / T)).

    z = l + logistic noise, b = 1[z > 0], and z~ is z drawn again given b. Unbiased for the gradient
    of the ELBO for any eta and T: psi, which is learned. Needs a Bernoulli q and f defined between
    0 and 1; 3 evaluations of f for each sample. Reference: Tucker et al. 2017.
    """

    num_samples: int = 1

    def init(self, model: Model, params: Params, x: ArrayLike, key: Key) -> PyTree:
        """psi: eta and log T."""
        return {"eta": jnp.ones(()), "log_temperature": jnp.full((), math.log(0.5))}

    def control(self, psi: PyTree, f: Function) -> Function:
        return lambda z: psi["eta"] * f(jax.nn.sigmoid(z * jnp.exp(-psi["log_temperature"])))


@component
class RELAX(RelaxedControl):
    """As `REBAR`, with c(z) = eta f(sigmoid(z / T)) + net(z): what the relaxation does not foresee,
    the net learns.

    The net takes a latent and gives one number. Reference: Grathwohl et al. 2018.
    """

    net: Net
    num_samples: int = 1

    def init(self, model: Model, params: Params, x: ArrayLike, key: Key) -> PyTree:
        """psi: eta, log T and the net's parameters."""
        net_key, z_key = jax.random.split(key)
        z = posterior_of(model, params, x).sample(z_key)
        return REBAR().init(model, params, x, key) | {"net": init_net(self.net, net_key, z)}

    def control(self, psi: PyTree, f: Function) -> Function:
        relaxed = REBAR().control(psi, f)
        return lambda z: relaxed(z) + jnp.reshape(apply_net(self.net, psi["net"], z), ())


def rebar_gradient(
    f: Function, control: Function, logits: Latents, u: Latents, v: Latents
) -> tuple[Latents, Latents]:
    """b and the estimate of dE f / dl, from uniform numbers u for z and v for z~."""
    assert_equal_shape((logits, u, v))
    p = jax.nn.sigmoid(logits)
    b = (logits + logit(u) > 0).astype(logits.dtype)

    def control_at_z(logits):
        """c(z), z = l + logit(u)."""
        return control(logits + logit(u))

    def control_given_b(logits):
        """c(z~), z~ = l + logit(u~), u~ uniform where it gives b: written so that no probability is
        rounded to 0 or 1.
        """
        above = jnp.logaddexp(logits + jnp.log(v), 0) - jnp.log1p(-v)
        below = jnp.log(v) - jnp.logaddexp(jnp.log1p(-v) - logits, 0)
        return control(jnp.where(b == 1, above, below))

    # (f(b) - c(z~)) (b - p) + dc(z)/dl - dc(z~)/dl
    slope = jax.grad(control_at_z)(logits)
    value_given_b, slope_given_b = jax.value_and_grad(control_given_b)(logits)
    return b, (f(b) - value_given_b) * (b - p) + slope - slope_given_b


def _psi(estimator: Any, params: Params) -> PyTree:
    if isinstance(params.psi, tuple) and params.psi == ():
        raise ValueError(
            f"{type(estimator).__name__} learns its control:"
            " params._replace(psi=estimator.init(model, params, x, key)) first"
        )
    return params.psi
