"""What every model has."""

from typing import Any

from vaejax.base.supports import BINARY, ONE_HOT, REAL, SIMPLEX, SPHERE, UNIT_INTERVAL
from vaejax.base.types import Conditional, Key, LatentVariableModel, Params, Prior

ENCODERS = {
    REAL: "DiagNormal, FullNormal, LowRankNormal, Laplace, RealNVP or InverseAutoregressive",
    BINARY: "Bernoulli",
    ONE_HOT: "OneHotCategorical",
    UNIT_INTERVAL: "RelaxedBernoulli or ContinuousBernoulli",
    SIMPLEX: "RelaxedCategorical",
    SPHERE: "VonMisesFisher",
}


def require_same_support(prior: Prior, encoder: Conditional) -> None:
    """Raises ValueError for a prior and an encoder whose latents live on different sets: KL(q || p)
    is then infinite or undefined.
    """
    of_prior, of_encoder = getattr(prior, "support", None), getattr(encoder, "support", None)
    if of_prior is None or of_encoder is None or of_prior == of_encoder:
        return
    remedy = (
        f"; for this prior use an encoder such as {ENCODERS[of_prior]}"
        if of_prior in ENCODERS
        else ""
    )
    raise ValueError(
        f"{type(prior).__name__} is a prior on {of_prior.name} latents ({of_prior.description}) and"
        f" {type(encoder).__name__} an encoder of {of_encoder.name} ones"
        f" ({of_encoder.description}), so KL(q || p) is infinite or not defined{remedy}"
    )


def simulate(model: LatentVariableModel, params: Params, z_key: Key, x_key: Key) -> tuple[Any, Any]:
    """(x, z) ~ p_theta(x, z), ancestrally: z from the prior, then x from the likelihood."""
    z = model.p_z(params).sample(z_key)
    return model.p_x_given_z(params, z).sample(x_key), z
