"""Gradient estimators for binary latents with a control variate: q a Bernoulli, or for `REBAR` and
`RELAX` a graph of Bernoulli nodes too.

In the formulas f = log w, b are latents, l their logits, p = sigmoid(l), and a product of vectors
is by coordinates. In theta each takes grad log p_theta(x, b) at its own samples. The functions
..._gradient are the estimators in l as formulas: of f, l and the random numbers alone.
"""

import math
from collections.abc import Callable
from functools import partial
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
from vaejax.bounds import elbo_bound, stopped
from vaejax.distributions.bernoulli import BernoulliDensity
from vaejax.estimators.base import (
    ELBOInParts,
    log_weight_at,
    mean_reconstruction,
    posterior_in,
    require_samples,
    with_gradient_of,
)
from vaejax.estimators.binary_layers import (
    REMEDY,
    Latents,
    Layers,
    LayerSample,
    above_zero,
    as_psi,
    by_layer,
    layers_of,
    logit,
)
from vaejax.models.base import Model, posterior_of
from vaejax.models.node import Values
from vaejax.networks.base import Net, apply_net, init_net

Function = Callable[[Latents], Scalar]


def with_variance(bound: Scalar, square: Scalar) -> Scalar:
    """The bound, and for psi the gradient of -|g|^2 / 2: psi minimises the variance of g.

    The mean of the gradient g does not depend on psi, so the gradient of |g|^2 is an unbiased
    estimate of that of its total variance. Reference: Tucker et al. 2017; Grathwohl et al. 2018.
    """
    return with_gradient_of(bound, bound - 0.5 * square)


@component
class DoubleControlVariate(ELBOInParts):
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

    def parts(
        self, model: Model, params: Params, x: PyTree, key: Key
    ) -> tuple[Scalar, Scalar | None]:
        q = posterior_in(model, params, x, (BernoulliDensity,), self, REMEDY)
        bs = map_samples(q.sample, jax.random.split(key, self.num_samples))
        f = log_weight_at(model, params, x, q)
        a = _psi(self, params) if self.coefficient is None else self.coefficient
        gradient = double_control_variate_gradient(f, stopped(q.logits), bs, a)

        # `gradient` in q's logits, mean_k grad log p(x, b_k) elsewhere
        assert_equal_shape((gradient, q.logits))
        log_joint, log_p_x = map_samples(lambda b: model.log_densities(params, x, b), bs)
        surrogate = jnp.mean(log_joint) + jnp.sum(stopped(gradient) * q.logits)
        log_w = log_joint - map_samples(q.log_prob, bs)
        bound = with_gradient_of(jnp.mean(log_w), surrogate)
        reconstruction = mean_reconstruction(elbo_bound, log_p_x)
        return with_variance(bound, jnp.sum(gradient**2)), reconstruction


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


class RelaxedControl(ELBOInParts):
    """REBAR's estimator, for a control variate c that an estimator has.

    Its `control(psi, relaxed, shown)` is the function z -> c(z) of one layer, of `relaxed(z, T)`, f
    where b = sigmoid(z / T), and of what the layer depends on.
    """

    num_samples: int

    def control(
        self, psi: PyTree, relaxed: Callable[[Latents, Any], Scalar], shown: tuple[PyTree, ...]
    ) -> Function:
        """The function c of the relaxed sample z, given psi, log w of a relaxed sample at a
        temperature, and what the encoder was shown.
        """
        raise NotImplementedError(f"{type(self).__name__}.control")

    def init_control(self, shown: tuple[PyTree, ...], z: Latents, key: Key) -> PyTree:
        """psi of one layer, whose values are like z."""
        raise NotImplementedError(f"{type(self).__name__}.init_control")

    def __post_init__(self):
        require_count(self.num_samples, f"{type(self).__name__}.num_samples")

    def init(self, model: Model, params: Params, x: PyTree, key: Key) -> PyTree:
        """psi, and of a graph {layer: psi}."""
        layers = layers_of(posterior_of(model, params, x), self)
        psi, b = {}, layers.draw(key).b
        for t, name in enumerate(layers.names):
            layer_key = jax.random.fold_in(key, t)
            psi[name] = self.init_control(_shown(layers, name, x, b), b[name], layer_key)
        return as_psi(layers, psi)

    def parts(
        self, model: Model, params: Params, x: PyTree, key: Key
    ) -> tuple[Scalar, Scalar | None]:
        q = posterior_of(model, params, x)
        layers, fixed = layers_of(q, self), layers_of(stopped(q), self)
        log_weight = log_weight_at(model, params, x, q)
        psi = by_layer(fixed, _psi(self, params))

        def sample_terms(key):
            """f and log p(x | b), a term with the gradient in l, and the square of that."""
            draw = fixed.draw(key)
            log_joint, log_p_x = model.log_densities(params, x, fixed.latents(draw.b))
            f = stopped(log_joint) - stopped(q).log_prob(fixed.latents(draw.b))
            gradients = self._gradients(psi, log_weight, fixed, draw, x, f)
            squares = [jnp.sum(gradient**2) for gradient in gradients.values()]
            surrogate = log_joint + layers.surrogate(draw.b, gradients)
            return f, log_p_x, surrogate, jnp.sum(jnp.stack(squares))

        samples = map_samples(sample_terms, jax.random.split(key, self.num_samples))
        f, log_p_x, surrogate, square = samples
        bound = with_gradient_of(jnp.mean(f), jnp.mean(surrogate))
        reconstruction = mean_reconstruction(elbo_bound, log_p_x)
        return with_variance(bound, jnp.mean(square)), reconstruction

    def _gradients(
        self,
        psi: PyTree,
        log_weight: Callable[[PyTree], Scalar],
        layers: Layers,
        draw: LayerSample,
        x: PyTree,
        f: Scalar,
    ) -> Values:
        """{layer: the estimate of dE f / dl}, from one sample."""
        gradients = {}
        for name in layers.names:
            relaxed = partial(relaxed_at, log_weight, layers, draw, name)
            control = self.control(psi[name], relaxed, _shown(layers, name, x, draw.b))
            gradients[name] = rebar_gradient(f, control, draw.logits[name], draw.u[name])
        return gradients


def relaxed_at(
    f: Callable[[PyTree], Scalar],
    layers: Layers,
    draw: LayerSample,
    name: str,
    z: Latents,
    temperature: ArrayLike,
) -> Scalar:
    """f where the layers before this one are b, this one is sigmoid(z / T), and those after it are
    relaxed likewise, with the same uniform numbers as b.
    """

    def soft(z):
        return jax.nn.sigmoid(z / temperature)

    return f(layers.completed({**layers.before(name, draw.b), name: soft(z)}, draw.u, soft))


def _shown(layers: Layers, name: str, x: PyTree, b: Values) -> tuple[PyTree, ...]:
    """What a layer depends on: x, and the layers before it."""
    return (x, *layers.before(name, b).values())


@component
class REBAR(RelaxedControl):
    """Value: mean_k log w_k. Gradient in l: mean of (f(b) - c(z)) (b - p) + c'(z) v, c(z) =
    eta f(sigmoid(z / T)).

    z = l + logit(u), b = 1[z > 0], and v = (1 - p)/u where b = 1, else p/(1 - u): E[c(z) (b - p)] =
    E[c'(z) v] by parts. In a graph, layer by layer, c has the layers before as they are and those
    after relaxed too. Unbiased for the gradient of the ELBO for any eta and T: psi, which is
    learned. Needs Bernoulli latents and f defined between 0 and 1; in T layers T + 1 evaluations of
    f for each sample. Reference: Tucker et al. 2017, where c(z~) and dc(z)/dl - dc(z~)/dl stand for
    c(z) and c'(z) v, z~ drawn given b; this is it where z~ has the noise that makes it z.
    """

    num_samples: int = 1

    def init_control(self, shown: tuple[PyTree, ...], z: Latents, key: Key) -> PyTree:
        """eta and log T."""
        return {"eta": jnp.ones(()), "log_temperature": jnp.full((), math.log(0.5))}

    def control(
        self, psi: PyTree, relaxed: Callable[[Latents, Any], Scalar], shown: tuple[PyTree, ...]
    ) -> Function:
        return lambda z: psi["eta"] * relaxed(z, jnp.exp(psi["log_temperature"]))


@component
class RELAX(RelaxedControl):
    """As `REBAR`, with c(z) = eta f(sigmoid(z / T)) + net(x, z): what the relaxation does not
    foresee, the net learns.

    The net takes (x, z), in a graph (x, the layers before, z), and gives one number. Reference:
    Grathwohl et al. 2018.
    """

    net: Net
    num_samples: int = 1

    def init_control(self, shown: tuple[PyTree, ...], z: Latents, key: Key) -> PyTree:
        """eta, log T and the net's parameters."""
        net = init_net(self.net, key, (*shown, z))
        return REBAR().init_control(shown, z, key) | {"net": net}

    def control(
        self, psi: PyTree, relaxed: Callable[[Latents, Any], Scalar], shown: tuple[PyTree, ...]
    ) -> Function:
        rebar = REBAR().control(psi, relaxed, shown)
        return lambda z: rebar(z) + jnp.reshape(apply_net(self.net, psi["net"], (*shown, z)), ())


def rebar_gradient(f: Scalar, control: Function, logits: Latents, u: Latents) -> Latents:
    """The estimate of dE f / dl from f(b), b = 1[z > 0], and from c at z = l + logit(u)."""
    assert_equal_shape((logits, u))
    p, z = jax.nn.sigmoid(logits), logits + logit(u)
    b = above_zero(z)
    # (f(b) - c(z)) (b - p) + c'(z) v, with v = (1 - p)/u where b = 1, else p/(1 - u)
    value, slope = jax.value_and_grad(control)(z)
    v = jnp.where(b == 1, jax.nn.sigmoid(-logits) / u, p / (1 - u))
    return (f - value) * (b - p) + slope * v


def _psi(estimator: Any, params: Params) -> PyTree:
    if isinstance(params.psi, tuple) and params.psi == ():
        raise ValueError(
            f"{type(estimator).__name__} learns its control:"
            " params._replace(psi=estimator.init(model, params, x, key)) first"
        )
    return params.psi
