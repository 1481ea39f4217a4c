"""What estimators share."""

from collections.abc import Callable
from typing import Any

import jax
from jax.typing import ArrayLike

from vaejax.base.mapping import map_samples
from vaejax.base.types import Distribution, Key, Model, Params, PyTree, Scalar
from vaejax.bounds import sample_posterior, stopped
from vaejax.distributions.base import is_reparameterised


def with_gradient_of(value: Scalar, surrogate: Scalar) -> Scalar:
    """A number with this value, and the gradient of `surrogate`."""
    return stopped(value) + surrogate - stopped(surrogate)


def log_weight_at(
    model: Model, params: Params, x: PyTree, q: Distribution
) -> Callable[[PyTree], Scalar]:
    """z -> log p(x, z) - log q(z), all parameters held fixed."""
    fixed_params, fixed_q = stopped((params, q))
    return lambda z: model.log_joint(fixed_params, x, z) - fixed_q.log_prob(z)


def score_of(unravel: Callable, flat: jax.Array, z: PyTree) -> jax.Array:
    """d log q(z) / d (q's own parameters), flat, of `ravel_pytree(q)`; z held fixed."""
    return jax.grad(lambda flat: unravel(flat).log_prob(stopped(z)))(flat)


def posterior_of(
    model: Model, params: Params, x: PyTree, families: tuple[type, ...], owner: object, remedy: str
) -> Any:
    """q(z | x), or a TypeError where it is of none of the families."""
    q = model.posterior(params, x)
    if not isinstance(q, families):
        known = " or ".join(family.__name__ for family in families)
        raise TypeError(
            f"{type(owner).__name__} is for a q that is {known}, and this one is"
            f" {type(q).__name__}; {remedy}"
        )
    return q


def reparameterised_posterior(
    estimator, model: Model, params: Params, x: ArrayLike
) -> Distribution:
    """q(z | x), or a TypeError where its samples are no smooth function of its parameters."""
    q = model.posterior(params, x)
    if not is_reparameterised(q):
        raise TypeError(
            f"{type(estimator).__name__} differentiates through samples of q, and those of"
            f" {type(q).__name__} do not move smoothly with its parameters; use ScoreFunction,"
            " OptimalConstant, VIMCO, OVIS or RWS, for a Bernoulli q also Enumerate, DisARM,"
            " REBAR, RELAX, DoubleControlVariate, Relaxed or StraightThrough, or the relaxed"
            " families RelaxedBernoulli and RelaxedCategorical; for a graph, ByNode, which takes"
            " each node its own way"
        )
    return q


def require_factors(owner, model: Model) -> None:
    """Raises TypeError for a model that does not show its two factors."""
    if not hasattr(model, "p_z"):
        raise TypeError(
            f"{type(owner).__name__} needs a model with p_z and p_x_given_z; {type(model).__name__}"
            " has no prior to show"
        )


def require_samples(owner, fewest: int, why: str) -> None:
    """Raises ValueError for a number of samples that is none, or too small."""
    number = owner.num_samples
    if not isinstance(number, int) or number < fewest:
        raise ValueError(
            f"{type(owner).__name__}.num_samples = {number!r}; it must be a whole number, at least"
            f" {fewest} {why}".rstrip()
        )


def fixed_samples(
    model: Model, params: Params, x: ArrayLike, q: Distribution, key: Key, num_samples: int
):
    """log p(x, z_k) and log q(z_k | x) of K samples that are held fixed."""
    zs = stopped(sample_posterior(q, key, num_samples))
    return map_samples(lambda z: model.log_joint(params, x, z), zs), map_samples(q.log_prob, zs)
