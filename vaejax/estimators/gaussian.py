"""Gradient estimators for a diagonal normal q alone: they know its derivatives in closed form."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from vaejax.base.checks import require_count
from vaejax.base.mapping import map_samples
from vaejax.base.types import Key, Params, Scalar
from vaejax.base.values import component
from vaejax.bounds import INDEPENDENT, sample_posterior, stopped
from vaejax.distributions.noise import Noise
from vaejax.distributions.normal import DiagNormalDensity
from vaejax.estimators.base import Estimator, log_weight_at, posterior_in, with_gradient_of
from vaejax.models.base import Model

REMEDY = (
    "use the encoder vaejax.DiagNormal, or the estimators vaejax.Pathwise or vaejax.ScoreFunction"
)


@component
class TaylorControlVariate(Estimator):
    """Value: mean_k log w_k. Gradient: that of `Pathwise`, less a linear approximation around q's
    mean, whose own mean is known.

    With g(z) = d log p(x, z)/dz, and g and H this and its derivative at loc: in loc g(z) - H (z -
    loc), in log_scale 1 + (g(z) - g)(z - loc), where the linear term would need the diagonal of H
    and is left out. Unbiased for the gradient of the ELBO, with no variance in loc where log p(x,
    z) is quadratic. Needs a diagonal normal q. Reference: Miller et al. 2017.
    """

    num_samples: int = 1
    noise: Noise = INDEPENDENT

    def __post_init__(self):
        require_count(self.num_samples, "TaylorControlVariate.num_samples")

    def __call__(self, model: Model, params: Params, x: ArrayLike, key: Key) -> Scalar:
        q = posterior_in(model, params, x, (DiagNormalDensity,), self, REMEDY)
        zs = sample_posterior(q, key, self.num_samples, self.noise)
        centre = stopped(q.loc)
        slope = jax.grad(lambda z: model.log_joint(stopped(params), x, z))
        at_centre, curve = jax.linearize(slope, centre)

        def one(z):
            step = stopped(z) - centre
            taylor = jnp.sum(stopped(curve(step)) * q.loc + stopped(at_centre * step) * q.log_scale)
            return model.log_joint(params, x, z) - q.log_prob(z), taylor

        log_w, taylor = map_samples(one, zs)
        return with_gradient_of(jnp.mean(log_w), jnp.mean(log_w - taylor))


@component
class MeasureValued(Estimator):
    """Value: mean_k log w_k. Gradient in q's parameters: differences of f = log w between samples
    of other densities, no derivative of f.

    In loc_j: [f(z_j <- loc + s W) - f(z_j <- loc - s W)] / (s sqrt(2 pi)), W ~ Rayleigh(1). In
    log_scale_j: f(z_j <- loc + s M) - f(z_j <- loc + s M U), M ~ a two-sided Maxwell and U uniform,
    so that M U is normal. Each pair shares its numbers. In theta: grad log p(x, z_k). Unbiased for
    the gradient of the ELBO. Needs a diagonal normal q; 4 evaluations of f for each latent and
    sample. References: Pflug 1989; Mohamed et al. 2020, where the coupled pairs are.
    """

    num_samples: int = 1

    def __post_init__(self):
        require_count(self.num_samples, "MeasureValued.num_samples")

    def __call__(self, model: Model, params: Params, x: ArrayLike, key: Key) -> Scalar:
        q = posterior_in(model, params, x, (DiagNormalDensity,), self, REMEDY)
        sample_key, radial_key, sign_key, uniform_key = jax.random.split(key, 4)
        zs = stopped(sample_posterior(q, sample_key, self.num_samples))
        shape, dtype = zs.shape, zs.dtype
        two_three = jax.random.normal(radial_key, (5, *shape), dtype)
        rayleigh, maxwell = (
            jnp.linalg.norm(part, axis=0) for part in (two_three[:2], two_three[2:])
        )
        maxwell = maxwell * jax.random.rademacher(sign_key, shape, dtype)
        uniform = jax.random.uniform(uniform_key, shape, dtype)
        log_weight, fixed_q = log_weight_at(model, params, x, q), stopped(q)
        gradients = jax.vmap(
            lambda *numbers: measure_valued_gradient(log_weight, fixed_q, *numbers)
        )(zs, rayleigh, maxwell, uniform)
        d_loc, d_log_scale = (jnp.mean(stopped(gradient), axis=0) for gradient in gradients)
        log_joint = map_samples(lambda z: model.log_joint(params, x, z), zs)
        log_q = map_samples(fixed_q.log_prob, zs)
        surrogate = jnp.mean(log_joint) + jnp.sum(d_loc * q.loc + d_log_scale * q.log_scale)
        return with_gradient_of(jnp.mean(log_joint - log_q), surrogate)


def measure_valued_gradient(
    f, q: DiagNormalDensity, z, rayleigh, maxwell, uniform
) -> tuple[jax.Array, jax.Array]:
    """The gradient of E_q f in (loc, log_scale) from one draw of the numbers that `MeasureValued`
    names, each of z's shape.
    """
    scale = jnp.exp(q.log_scale)
    index = jnp.arange(z.size).reshape(z.shape)

    def moved(j, noise):
        return f(jnp.where(index == j, q.loc + scale * noise, z))

    def one(j):
        return moved(j, rayleigh) - moved(j, -rayleigh), moved(j, maxwell) - moved(
            j, maxwell * uniform
        )

    d_loc, d_log_scale = jax.vmap(one)(index.ravel())
    return d_loc.reshape(z.shape) / (scale * math.sqrt(2 * math.pi)), d_log_scale.reshape(z.shape)
