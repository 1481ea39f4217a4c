"""Gradient estimators for a diagonal normal q alone: they know its derivatives in closed form."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from vaejax.base.checks import require_count
from vaejax.base.mapping import map_samples
from vaejax.base.types import Key, Params, PyTree, Scalar
from vaejax.base.values import component
from vaejax.bounds import INDEPENDENT, elbo_bound, sample_posterior, stopped
from vaejax.distributions.noise import Noise
from vaejax.distributions.normal import DiagNormalDensity
from vaejax.estimators.base import (
    ELBOInParts,
    log_weight_at,
    mean_reconstruction,
    posterior_in,
    require_reparameterised,
    with_gradient_of,
)
from vaejax.models.base import Model

REMEDY = (
    "use the encoder vaejax.DiagNormal, or the estimators vaejax.Pathwise or vaejax.ScoreFunction"
)


@component
class TaylorControlVariate(ELBOInParts):
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

    def parts(
        self, model: Model, params: Params, x: PyTree, key: Key
    ) -> tuple[Scalar, Scalar | None]:
        q = posterior_in(model, params, x, (DiagNormalDensity,), self, REMEDY)
        require_reparameterised(type(self).__name__, q)
        zs = sample_posterior(q, key, self.num_samples, self.noise)

        # g = d log p(x, z)/dz at q's mean, and h -> H h there
        centre = stopped(q.loc)
        gradient = jax.grad(lambda z: model.log_joint(stopped(params), x, z))
        slope, curvature = jax.linearize(gradient, centre)

        def log_weight_and_control(z):
            # a term whose gradient is H (z - loc) in loc, and g (z - loc) in log_scale
            step = stopped(z) - centre
            in_loc, in_log_scale = stopped(curvature(step)), stopped(slope * step)
            control = jnp.sum(in_loc * q.loc + in_log_scale * q.log_scale)
            log_joint, log_p_x = model.log_densities(params, x, z)
            return log_joint - q.log_prob(z), control, log_p_x

        log_w, taylor, log_p_x = map_samples(log_weight_and_control, zs)
        bound = with_gradient_of(jnp.mean(log_w), jnp.mean(log_w - taylor))
        return bound, mean_reconstruction(elbo_bound, log_p_x)


@component
class MeasureValued(ELBOInParts):
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

    def parts(
        self, model: Model, params: Params, x: PyTree, key: Key
    ) -> tuple[Scalar, Scalar | None]:
        q = posterior_in(model, params, x, (DiagNormalDensity,), self, REMEDY)
        sample_key, *noise_keys = jax.random.split(key, 4)
        zs = stopped(sample_posterior(q, sample_key, self.num_samples))
        noise = measure_valued_noise(noise_keys, zs)

        # d E f / d (loc, log_scale), of each sample and averaged
        log_weight, fixed_q = log_weight_at(model, params, x, q), stopped(q)
        gradient = partial(measure_valued_gradient, log_weight, fixed_q)
        gradients = jax.vmap(gradient)(zs, *noise)
        d_loc, d_log_scale = (jnp.mean(stopped(part), axis=0) for part in gradients)

        # a term with these for its gradient in q, and grad log p(x, z_k) in theta
        log_joint, log_p_x = map_samples(lambda z: model.log_densities(params, x, z), zs)
        log_q = map_samples(fixed_q.log_prob, zs)
        surrogate = jnp.mean(log_joint) + jnp.sum(d_loc * q.loc + d_log_scale * q.log_scale)
        bound = with_gradient_of(jnp.mean(log_joint - log_q), surrogate)
        return bound, mean_reconstruction(elbo_bound, log_p_x)


def measure_valued_noise(keys: list[Key], zs: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """W ~ Rayleigh(1), M ~ a two-sided Maxwell and U ~ uniform, each of the shape of zs."""
    radial_key, sign_key, uniform_key = keys
    normals = jax.random.normal(radial_key, (5, *zs.shape), zs.dtype)
    rayleigh = jnp.linalg.norm(normals[:2], axis=0)  # the length of a normal vector of two
    maxwell = jnp.linalg.norm(normals[2:], axis=0)  # and of one of three
    sign = jax.random.rademacher(sign_key, zs.shape, zs.dtype)
    return rayleigh, maxwell * sign, jax.random.uniform(uniform_key, zs.shape, zs.dtype)


def measure_valued_gradient(
    f: Callable[[jax.Array], Scalar],
    q: DiagNormalDensity,
    z: jax.Array,
    rayleigh: jax.Array,
    maxwell: jax.Array,
    uniform: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The gradient of E_q f in (loc, log_scale) from one draw of the numbers that `MeasureValued`
    names, each of z's shape.
    """
    scale = jnp.exp(q.log_scale)
    index = jnp.arange(z.size).reshape(z.shape)

    def f_with(j, noise):
        """f(z_j <- loc + s noise)."""
        return f(jnp.where(index == j, q.loc + scale * noise, z))

    def differences(j):
        # f(z_j <- loc + s W) - f(z_j <- loc - s W),   f(z_j <- loc + s M) - f(z_j <- loc + s M U)
        in_loc = f_with(j, rayleigh) - f_with(j, -rayleigh)
        return in_loc, f_with(j, maxwell) - f_with(j, maxwell * uniform)

    d_loc, d_log_scale = jax.vmap(differences)(index.ravel())
    return d_loc.reshape(z.shape) / (scale * math.sqrt(2 * math.pi)), d_log_scale.reshape(z.shape)
