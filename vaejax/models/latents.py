"""The set that the latents of a model live on: a prior and an encoder for one and the same, and
chains for R^d alone.
"""

from collections.abc import Mapping

from vaejax.base import supports
from vaejax.base.supports import REAL_VECTORS, Support, support_parts
from vaejax.models.base import Factor, Supports

SUITABLE_ENCODERS = {
    supports.REAL: (
        "DiagNormal, FullNormal, LowRankNormal, Laplace, RealNVP or InverseAutoregressive"
    ),
    supports.BINARY: "Bernoulli",
    supports.ONE_HOT: "OneHotCategorical",
    supports.POSITIVE: "NumPyroConditional of LogNormal or Gamma",
    supports.UNIT_INTERVAL: "NumPyroConditional of Beta or Kumaraswamy, or ContinuousBernoulli",
    supports.SIMPLEX: "NumPyroConditional of Dirichlet",
    supports.RELAXED_BINARY: "RelaxedBernoulli",
    supports.RELAXED_ONE_HOT: "RelaxedCategorical",
    supports.SPHERE: "VonMisesFisher",
}


def require_same_support(prior: Factor, encoder: Factor) -> None:
    """Raises ValueError for a prior and an encoder whose latents live on different sets: KL(q || p)
    is then infinite or undefined.
    """
    prior_support, encoder_support = prior.support, encoder.support
    for factor, support in ((prior, prior_support), (encoder, encoder_support)):
        if isinstance(support, Support) and support.moving:
            raise ValueError(
                f"the ends of the support of {type(factor).__name__} move with its parameters"
                f" ({support.description}), so KL(q || p) is infinite wherever the other density"
                " ends elsewhere; use a family on a fixed set for a latent"
            )
    if None in (prior_support, encoder_support):
        return
    if _without_ends(prior_support) == _without_ends(encoder_support):
        return
    known = isinstance(prior_support, Support) and prior_support in SUITABLE_ENCODERS
    remedy = (
        f"; for this prior use an encoder such as {SUITABLE_ENCODERS[prior_support]}"
        if known
        else ""
    )
    raise ValueError(
        f"{type(prior).__name__} is a prior on {_described(prior_support)} and"
        f" {type(encoder).__name__} an encoder of {_described(encoder_support)}, so KL(q || p) is"
        f" infinite or not defined{remedy}"
    )


def require_real_latents(latent_support: Supports, method: str) -> None:
    """Raises ValueError unless every part of z lives in R^d, where the chains of `method` move."""
    for name, support in support_parts(latent_support):
        if support is None:
            raise ValueError(
                f"{method} moves through R^d, but the model does not say where its latents {name}"
                " live; give it latent_support = vaejax.supports.REAL if they are any real numbers"
            )
        if support not in REAL_VECTORS:
            raise ValueError(
                f"{method} moves through R^d, but the latents {name} of this model are"
                f" {support.name} ({support.description}); vaejax.log_marginal takes any latents"
            )


def refuse_shown_prior(factor: Factor, name: str) -> None:
    """Raises TypeError for a factor that is shown the prior's one, where there is none to show."""
    if factor.is_shown_prior:
        raise no_prior_to_show(factor, name)


def no_prior_to_show(factor: Factor, name: str) -> TypeError:
    """The error for a factor that needs the prior's one, and the remedy."""
    kind = type(factor).__name__
    return TypeError(
        f"{name} is a {kind}, which is shown the prior's factor of its latent; it is for a node of"
        " an encoder that is a DirectedGraph, in a vaejax.GraphModel:"
        f" DirectedGraph((Node('z', {kind}(net), 'x'),), inputs=('x',))"
    )


def _without_ends(support: Supports) -> Supports:
    """The support, one number of no mass left out: a KL does not see whether 0 is in it."""
    return supports.POSITIVE if support == supports.NON_NEGATIVE else support


def _described(support: Supports) -> str:
    if isinstance(support, Mapping):
        return "; ".join(f"{name}: {_described(part)}" for name, part in support.items())
    return "any latents" if support is None else f"{support.name} latents ({support.description})"
