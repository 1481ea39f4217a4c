"""KL(q || p) in closed form, for the pairs that have one. The others are estimated, by `Pathwise`
and its kin.
"""

import jax
import jax.numpy as jnp
import numpyro.distributions as npd

from vaejax.base.types import Scalar
from vaejax.distributions.base import Distribution
from vaejax.distributions.bernoulli import BernoulliDensity, log1p_exp
from vaejax.distributions.discrete import OneHotCategoricalDensity
from vaejax.distributions.normal import LOG_2PI, DiagNormalDensity
from vaejax.distributions.numpyro import NumPyroDensity
from vaejax.distributions.sphere import UniformOnSphereDensity, VonMisesFisherDensity


def kl_divergence(q: Distribution, p: Distribution) -> Scalar:
    """KL(q || p) = E_q[log q - log p] in closed form, nats.

    Raises TypeError for a pair without one, ValueError for one whose events have different shapes.
    """
    try:
        kl = _closed_form(q, p)
    except NotImplementedError:  # NumPyro's word for a KL or an entropy that it has not
        kl = None
    if kl is None:
        raise TypeError(
            f"KL({q.name} || {p.name}) has no closed form here; use vaejax.Pathwise or"
            " vaejax.StickTheLanding, which estimate it"
        )
    return kl


def _closed_form(q: Distribution, p: Distribution) -> Scalar | None:
    match q, p:
        case DiagNormalDensity(), DiagNormalDensity():
            _require_same_event(q.loc.shape, p.loc.shape)
            return jnp.sum(kl_per_dimension(q, p))
        case NumPyroDensity(), DiagNormalDensity() if q.base.support == _REAL_VECTOR:
            # E_q log p needs q's first two moments alone.
            _require_same_event(q.base.event_shape, p.loc.shape)
            return -q.entropy() - expected_log_prob(p, q.mean(), q.variance())
        case BernoulliDensity(), BernoulliDensity():
            _require_same_event(q.logits.shape, p.logits.shape)
            ones = _bernoulli_kl_of_ones(q.logits, p.logits)
            return ones + _bernoulli_kl_of_ones(-q.logits, -p.logits)
        case OneHotCategoricalDensity(), OneHotCategoricalDensity():
            _require_same_event(q.logits.shape, p.logits.shape)
            log_ratio = jax.nn.log_softmax(q.logits) - jax.nn.log_softmax(p.logits)
            return jnp.sum(q.mean() * log_ratio)
        case VonMisesFisherDensity(), UniformOnSphereDensity():
            _require_same_event(q.loc.shape, p.like.shape)
            return p.entropy() - q.entropy()
        case NumPyroDensity(), NumPyroDensity():
            _require_same_event(q.base.event_shape, p.base.event_shape)
            return npd.kl_divergence(q.base, p.base)
    return None


_REAL_VECTOR = npd.constraints.independent(npd.constraints.real, 1)


def _bernoulli_kl_of_ones(q_logits: jax.Array, p_logits: jax.Array) -> Scalar:
    """sum q(1) log(q(1) / p(1)): nothing cancels, however large the logits."""
    return jnp.sum(jax.nn.sigmoid(q_logits) * (log1p_exp(-p_logits) - log1p_exp(-q_logits)))


def _require_same_event(q_shape: tuple[int, ...], p_shape: tuple[int, ...]) -> None:
    """Broadcasting would turn two shapes into one wrong number in silence."""
    if q_shape != p_shape:
        raise ValueError(
            f"KL(q || p) of events of two shapes, {q_shape} under q and {p_shape} under p; these"
            " functions take one example"
        )


def kl_per_dimension(q: DiagNormalDensity, p: DiagNormalDensity) -> jax.Array:
    """KL(q_j || p_j) of each coordinate, nats; their sum is KL(q || p)."""
    log_ratio = q.log_scale - p.log_scale
    shift = (q.loc - p.loc) * jnp.exp(-p.log_scale)
    return 0.5 * (jnp.expm1(2 * log_ratio) + shift**2) - log_ratio


def expected_log_prob(p: DiagNormalDensity, mean: jax.Array, variance: jax.Array) -> Scalar:
    """E[log p(z)] for any z with this mean and these variances: a normal density asks for no
    more.
    """
    return -jnp.sum(
        0.5 * (variance + (mean - p.loc) ** 2) * jnp.exp(-2 * p.log_scale)
        + p.log_scale
        + 0.5 * LOG_2PI
    )
