"""KL(q || p) in closed form, for the pairs that have one. The others are estimated, by `Pathwise`
and its kin.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd

from vaejax.base.checks import require_scalar
from vaejax.base.types import Scalar
from vaejax.distributions.base import Distribution, NotKnownError
from vaejax.distributions.bernoulli import BernoulliDensity, log1p_exp
from vaejax.distributions.discrete import OneHotCategoricalDensity
from vaejax.distributions.normal import LOG_2PI, DiagNormalDensity
from vaejax.distributions.numpyro import NumPyroDensity, as_distribution, student_t_entropy
from vaejax.distributions.quantiles import innermost
from vaejax.distributions.sphere import UniformOnSphereDensity, VonMisesFisherDensity


def kl_divergence(q: Distribution | npd.Distribution, p: Distribution | npd.Distribution) -> Scalar:
    """KL(q || p) = E_q[log q - log p] in closed form, nats; +inf where E_q log p is -inf.

    Raises NotKnownError for a pair without one, ValueError for one whose events have two shapes.

    >>> normal = vaejax.distributions.DiagNormalDensity
    >>> q, p = normal(jnp.ones(2), jnp.zeros(2)), normal(jnp.zeros(2), jnp.zeros(2))
    >>> print(f"{vaejax.kl_divergence(q, p):.2f} nats")  # |1 - 0|^2 / 2
    1.00 nats
    """
    q, p = as_distribution(q, "q"), as_distribution(p, "p")
    formula = FORMULAS.get((family_of(q), family_of(p)))
    if formula is None:
        raise NotKnownError(
            f"KL({q.name} || {p.name}) has no closed form here; use vaejax.Pathwise or"
            " vaejax.StickTheLanding, which estimate it"
        )
    return require_scalar(formula(q, p), f"KL({q.name} || {p.name})", "it is of one q and one p")


def family_of(p: Distribution) -> type:
    """What a density is looked up by: NumPyro's by the family of one coordinate."""
    return type(innermost(p.base)) if isinstance(p, NumPyroDensity) else type(p)


def _of_normals(q: Any, p: Any) -> Scalar:
    return jnp.sum(kl_per_dimension(_diag_normal(q), _diag_normal(p)))


def _diag_normal(p: Any) -> DiagNormalDensity:
    """N(loc, scale^2), or that of a log-normal's log; by log-scales, as a small scale's square is
    0.
    """
    if family_of(p) is DiagNormalDensity:
        return p
    normal = innermost(p.base)
    loc, log_scale = (
        jnp.broadcast_to(parameter, p.base.event_shape)
        for parameter in (normal.loc, jnp.log(normal.scale))
    )
    return DiagNormalDensity(loc, log_scale)


def _by_moments(q: Any, p: DiagNormalDensity) -> Scalar:
    """-H(q) - E_q log p, and E_q log p needs q's first two moments alone."""
    _require_same_event(q.base.event_shape, p.loc.shape)
    return -q.entropy() - expected_log_prob(p, q.mean(), q.variance())


def _of_student_t(q: Any, p: DiagNormalDensity) -> Scalar:
    """+inf where some df <= 2, since E z^2 is: NumPyro's moments there are inf, and NaN at 1."""
    _require_same_event(q.base.event_shape, p.loc.shape)
    student = innermost(q.base)
    finite = student.df > 2
    df = jnp.where(finite, student.df, 3.0)
    variance = jnp.broadcast_to(student.scale**2 * df / (df - 2), p.loc.shape)
    entropy = jnp.broadcast_to(student_t_entropy(df, student.scale), p.loc.shape)
    kl = -jnp.sum(entropy) - expected_log_prob(p, student.loc, variance)
    return jnp.where(jnp.all(finite), kl, jnp.inf)


def _of_bernoullis(q: BernoulliDensity, p: BernoulliDensity) -> Scalar:
    _require_same_event(q.logits.shape, p.logits.shape)
    ones = _bernoulli_kl_of_ones(q.logits, p.logits)
    return ones + _bernoulli_kl_of_ones(-q.logits, -p.logits)


def _of_one_hots(q: OneHotCategoricalDensity, p: OneHotCategoricalDensity) -> Scalar:
    _require_same_event(q.logits.shape, p.logits.shape)
    log_q, log_p = jax.nn.log_softmax(q.logits), jax.nn.log_softmax(p.logits)
    return jnp.sum(_mean_log_ratio(q.mean(), log_q, log_p))


def _to_uniform_on_sphere(q: VonMisesFisherDensity, p: UniformOnSphereDensity) -> Scalar:
    _require_same_event(q.loc.shape, p.like.shape)
    return p.entropy() - q.entropy()


def _of_categoricals(q: Any, p: Any) -> Scalar:
    _require_same_event(np.shape(innermost(q.base).probs), np.shape(innermost(p.base).probs))
    return _by_numpyro(q, p)


def _by_numpyro(q: Any, p: Any) -> Scalar:
    _require_same_event(q.base.event_shape, p.base.event_shape)
    return npd.kl_divergence(q.base, p.base)


# NumPyro has formulas for more pairs. Those that are not here are no KL of two densities (its
# `Delta`, a masked one), or not exact (Kumaraswamy to Beta is a series that is cut off).
_NORMALS = (DiagNormalDensity, npd.Normal)
_GAMMAS = (npd.Gamma, npd.Chi2)
_BETAS = (npd.Beta, npd.BetaProportion)
_EXACT_IN_NUMPYRO = (
    (npd.MultivariateNormal, npd.MultivariateNormal),
    (npd.Dirichlet, npd.Dirichlet),
    *itertools.product(_BETAS, _BETAS),
    *itertools.product((*_GAMMAS, npd.Weibull), _GAMMAS),
)
# Those whose entropy and first two moments NumPyro has in closed form, always finite.
_WITH_MOMENTS = (
    npd.Laplace,
    npd.Logistic,
    npd.MultivariateNormal,
    npd.LowRankMultivariateNormal,
)
FORMULAS: dict[tuple[type, type], Callable[[Any, Any], Scalar]] = {
    **{(q, p): _of_normals for q in _NORMALS for p in _NORMALS},
    **{(q, DiagNormalDensity): _by_moments for q in _WITH_MOMENTS},
    (npd.StudentT, DiagNormalDensity): _of_student_t,
    (BernoulliDensity, BernoulliDensity): _of_bernoullis,
    (OneHotCategoricalDensity, OneHotCategoricalDensity): _of_one_hots,
    (VonMisesFisherDensity, UniformOnSphereDensity): _to_uniform_on_sphere,
    (npd.LogNormal, npd.LogNormal): _of_normals,  # exp is one to one
    (npd.CategoricalProbs, npd.CategoricalProbs): _of_categoricals,
    **dict.fromkeys(_EXACT_IN_NUMPYRO, _by_numpyro),
}


def _bernoulli_kl_of_ones(q_logits: jax.Array, p_logits: jax.Array) -> Scalar:
    """sum q(1) log(q(1) / p(1)): nothing cancels, however large the logits."""
    log_q, log_p = -log1p_exp(-q_logits), -log1p_exp(-p_logits)
    return jnp.sum(_mean_log_ratio(jax.nn.sigmoid(q_logits), log_q, log_p))


def _mean_log_ratio(q: jax.Array, log_q: jax.Array, log_p: jax.Array) -> jax.Array:
    """q (log q - log p): 0 where q is 0, infinite where p alone is."""
    never = jnp.isneginf(log_q)
    alone = jnp.isneginf(log_p)
    log_ratio = jnp.where(never | alone, 0, log_q) - jnp.where(never | alone, 0, log_p)
    return jnp.where(alone & ~never, jnp.inf, q * log_ratio)


def _require_same_event(q_shape: tuple[int, ...], p_shape: tuple[int, ...]) -> None:
    """Broadcasting would turn two shapes into one wrong number in silence."""
    if q_shape != p_shape:
        raise ValueError(
            f"KL(q || p) of events of two shapes, {q_shape} under q and {p_shape} under p; give"
            " both one shape: a prior the latents of its encoder, one example in place of a batch"
        )


def kl_per_dimension(q: DiagNormalDensity, p: DiagNormalDensity) -> jax.Array:
    """KL(q_j || p_j) of each coordinate, nats; their sum is KL(q || p)."""
    _require_same_event(q.event.shape, p.event.shape)
    log_ratio = q.log_scale - p.log_scale
    shift = (q.loc - p.loc) * jnp.exp(-p.log_scale)
    return 0.5 * (jnp.expm1(2 * log_ratio) + shift**2) - log_ratio


def kl_by_coordinate(q: Distribution, p: Distribution) -> jax.Array:
    """KL(q_j || p_j) of each coordinate [d], in closed form, nats, as `coordinate_log_probs` has
    them; NotKnownError for a pair without one.
    """
    match q, p:
        case DiagNormalDensity(), DiagNormalDensity():
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
