"""KL(q || p) in closed form, for the pairs that have one. The others are estimated, by `Pathwise`
and its kin.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd

from vaejax.base.types import Scalar
from vaejax.distributions.base import Distribution, NotKnownError
from vaejax.distributions.bernoulli import BernoulliDensity, log1p_exp
from vaejax.distributions.discrete import OneHotCategoricalDensity
from vaejax.distributions.normal import LOG_2PI, DiagNormalDensity
from vaejax.distributions.numpyro import NumPyroDensity, as_distribution
from vaejax.distributions.quantiles import innermost
from vaejax.distributions.sphere import UniformOnSphereDensity, VonMisesFisherDensity

# NumPyro has formulas for more pairs. Those that are not here are no KL of two densities (its
# `Delta`, a masked one), or not exact (Kumaraswamy to Beta is a series that is cut off).
_GAMMAS = (npd.Gamma, npd.Chi2)
_BETAS = (npd.Beta, npd.BetaProportion)
EXACT_PAIRS = {
    (npd.Normal, npd.Normal),
    (npd.MultivariateNormal, npd.MultivariateNormal),
    (npd.Dirichlet, npd.Dirichlet),
    (npd.CategoricalProbs, npd.CategoricalProbs),
    *itertools.product(_BETAS, _BETAS),
    *itertools.product((*_GAMMAS, npd.Weibull), _GAMMAS),
}

# To a diagonal normal: those whose entropy and first two moments NumPyro has in closed form.
WITH_MOMENTS = (
    npd.Normal,
    npd.Laplace,
    npd.Logistic,
    npd.StudentT,
    npd.MultivariateNormal,
    npd.LowRankMultivariateNormal,
)


def kl_divergence(q: Distribution | npd.Distribution, p: Distribution | npd.Distribution) -> Scalar:
    """KL(q || p) = E_q[log q - log p] in closed form, nats.

    Raises NotKnownError for a pair without one, ValueError for one whose events have two shapes.
    """
    q, p = as_distribution(q, "q"), as_distribution(p, "p")
    kl = _closed_form(q, p)
    if kl is None:
        raise NotKnownError(
            f"KL({q.name} || {p.name}) has no closed form here; use vaejax.Pathwise or"
            " vaejax.StickTheLanding, which estimate it"
        )
    return kl


def _closed_form(q: Distribution, p: Distribution) -> Scalar | None:
    match q, p:
        case DiagNormalDensity(), DiagNormalDensity():
            _require_same_event(q.loc.shape, p.loc.shape)
            return jnp.sum(kl_per_dimension(q, p))
        case NumPyroDensity(), DiagNormalDensity() if type(innermost(q.base)) in WITH_MOMENTS:
            # KL = -H(q) - E_q log p, and E_q log p needs q's first two moments alone.
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
            return _of_numpyro(q.base, p.base)
    return None


def _of_numpyro(q: npd.Distribution, p: npd.Distribution) -> Scalar | None:
    coordinates: Any = innermost(q), innermost(p)
    q_coordinate, p_coordinate = coordinates
    pair = type(q_coordinate), type(p_coordinate)
    if pair not in EXACT_PAIRS | {(npd.LogNormal, npd.LogNormal)}:
        return None
    _require_same_event(q.event_shape, p.event_shape)
    if pair == (npd.CategoricalProbs, npd.CategoricalProbs):
        _require_same_event(np.shape(q_coordinate.probs), np.shape(p_coordinate.probs))
    if pair in EXACT_PAIRS:
        return npd.kl_divergence(q, p)
    # exp is one to one, so KL is that of the two normals.
    kl = npd.kl_divergence(q_coordinate.base_dist, p_coordinate.base_dist)
    return jnp.sum(jnp.broadcast_to(kl, q.event_shape))


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


def kl_by_coordinate(q: Distribution, p: Distribution) -> jax.Array:
    """KL(q_j || p_j) of each coordinate [d], in closed form, nats, as `coordinate_log_probs` has
    them; NotKnownError for a pair without one.
    """
    match q, p:
        case DiagNormalDensity(), DiagNormalDensity():
            _require_same_event(q.loc.shape, p.loc.shape)
            return jnp.ravel(kl_per_dimension(q, p))
        case BernoulliDensity(), BernoulliDensity():
            pairs = (BernoulliDensity(jnp.ravel(density.logits)) for density in (q, p))
            return jax.vmap(kl_divergence)(*pairs)
        case OneHotCategoricalDensity(), OneHotCategoricalDensity():
            num_categories = q.logits.shape[-1]
            rows = (density.logits.reshape(-1, num_categories) for density in (q, p))
            return jax.vmap(kl_divergence)(*map(OneHotCategoricalDensity, rows))
    raise NotKnownError(f"KL({q.name} || {p.name}) is not known coordinate by coordinate")


def expected_log_prob(p: DiagNormalDensity, mean: jax.Array, variance: jax.Array) -> Scalar:
    """E log p(z) of any z with this mean and these variances: a normal density needs no more."""
    return -jnp.sum(
        0.5 * (variance + (mean - p.loc) ** 2) * jnp.exp(-2 * p.log_scale)
        + p.log_scale
        + 0.5 * LOG_2PI
    )
