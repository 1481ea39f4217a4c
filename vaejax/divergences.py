"""KL(q || p) in closed form, for the pairs that have one. The others are estimated, by `Pathwise` and its kin."""

import jax
import jax.numpy as jnp
import numpyro.distributions as npd

from vaejax.distributions import LOG_2PI, Bernoulli, DiagNormal, Event, OneHotCategorical, log1p_exp
from vaejax.sphere import UniformOnSphere, VonMisesFisher
from vaejax.types import Distribution, Scalar


def kl_divergence(q: Distribution, p: Distribution) -> Scalar:
    """KL(q || p) = E_q[log q - log p] in closed form, nats. Raises TypeError for a pair without one."""
    if isinstance(q, DiagNormal) and isinstance(p, DiagNormal):
        return jnp.sum(kl_per_dimension(q, p))
    if isinstance(q, Event) and isinstance(p, DiagNormal) and q.base.support in (npd.constraints.real_vector, _REALS):
        return -q.entropy() - expected_log_prob(p, q.mean, q.variance)
    if isinstance(q, Bernoulli) and isinstance(p, Bernoulli):
        return jnp.sum(q.mean * (q.logits - p.logits) - log1p_exp(q.logits) + log1p_exp(p.logits))
    if isinstance(q, OneHotCategorical) and isinstance(p, OneHotCategorical):
        return jnp.sum(q.mean * (jax.nn.log_softmax(q.logits) - jax.nn.log_softmax(p.logits)))
    if isinstance(q, VonMisesFisher) and isinstance(p, UniformOnSphere):
        return -q.entropy() + p.entropy()
    q_base, p_base = (d.base if isinstance(d, Event) else d for d in (q, p))
    if isinstance(q_base, npd.Distribution) and isinstance(p_base, npd.Distribution):
        try:
            return npd.kl_divergence(q_base, p_base)
        except NotImplementedError:
            pass
    raise TypeError(
        f"KL({type(q_base).__name__} || {type(p_base).__name__}) has no closed form here; "
        "use vaejax.Pathwise or vaejax.StickTheLanding, which estimate it"
    )


_REALS = npd.constraints.independent(npd.constraints.real, 1)


def kl_per_dimension(q: DiagNormal, p: DiagNormal) -> jax.Array:
    """KL(q_j || p_j) of each coordinate, nats; their sum is KL(q || p)."""
    log_ratio = q.log_scale - p.log_scale
    shift = (q.loc - p.loc) * jnp.exp(-p.log_scale)
    return 0.5 * (jnp.exp(2 * log_ratio) + shift**2 - 1) - log_ratio


def expected_log_prob(p: DiagNormal, mean: jax.Array, variance: jax.Array) -> Scalar:
    """E[log p(z)] for any z with this mean and these variances: a normal density asks for no more."""
    return -jnp.sum(0.5 * (variance + (mean - p.loc) ** 2) * jnp.exp(-2 * p.log_scale) + p.log_scale + 0.5 * LOG_2PI)
