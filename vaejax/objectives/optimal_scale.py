"""The best scale of a Gaussian likelihood."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from vaejax.base.checks import require_key
from vaejax.base.types import Key, Params, PyTree, Scalar, Terms
from vaejax.base.values import component
from vaejax.bounds import sample_posterior
from vaejax.data.mapping import map_batch
from vaejax.distributions.base import as_event
from vaejax.models.base import Model, posterior_of
from vaejax.models.conditionals.base import MAX_LOG_SCALE
from vaejax.models.conditionals.real import Gaussian
from vaejax.models.vae import VAE
from vaejax.networks.stochastic import require_no_noise
from vaejax.objectives.base import Around, Objective, require_objective, terms_of


def optimal_scale(objective: Objective) -> "OptimalScale":
    """The objective of a batch with the likelihood's shared scale at its best for that batch:
    sigma-VAE.

    sigma^2 = mean_{m,i} (x_mi - loc_i(z_m))^2, z_m ~ q(z | x_m), which maximises the bound in
    sigma, so that its derivative there is zero and sigma is held constant. `objective` is one of a
    batch, of a model with the likelihood Gaussian(net, "learned"):
    `vaejax.optimal_scale(vaejax.minibatch(vaejax.Pathwise(), model))`.

    The parameter log_scale gets the gradient that it has without this, by a term of value zero: so
    it follows the best scale, and the validations of `fit`, which are of the parameters as they
    stand, mean something. `with_optimal_scale` sets it to the closed form when training is done.
    Reference: Rybkin, Daniilidis & Levine 2021.
    """
    return OptimalScale(objective)


@component
class OptimalScale(Around):
    """What `optimal_scale` returns."""

    inner: Objective

    def __post_init__(self):
        require_objective(self.inner)
        require_learned_scale(self.model)

    def __call__(self, params: Params, xs: PyTree, key: Key, step: ArrayLike) -> Terms:
        model: Any = self.model
        require_no_noise("the optimal scale", params)
        best = jax.lax.stop_gradient(_best_log_scale(model, params, xs, key))
        terms = terms_of(self.inner, _with_log_scale(params, best), xs, key, step)
        # What the mean of log p(x|z) is of the learned scale; its value is taken off again.
        learned = params.theta["likelihood"]["log_scale"]
        size = math.prod(jax.tree.leaves(xs)[0].shape[1:])
        log_p_x = -size * (learned + 0.5 * jnp.exp(2 * (best - learned))) * self.scale
        nothing = log_p_x - jax.lax.stop_gradient(log_p_x)
        return terms._replace(objective=terms.objective + nothing)


def with_optimal_scale(model: Model, params: Params, xs: PyTree, key: Key) -> Params:
    """`params` with the likelihood's shared scale at its best for xs: sigma^2 = mean (x -
    loc(z))^2, z ~ q, one sample an example.

    The samples are those that `minibatch` of a one-sample bound draws at this key; there the
    bound's derivative in the scale is then zero. What is left is an ordinary, normalised density.
    Give training data: a scale fitted to test data is a leak.
    """
    require_key(key)
    require_learned_scale(model)
    return _with_log_scale(params, _best_log_scale(model, params, xs, key))


def require_learned_scale(model: Model | None) -> None:
    """Raises TypeError for a model without the one scale that has a closed form."""
    likelihood = model.likelihood if isinstance(model, VAE) else None
    if isinstance(likelihood, Gaussian) and likelihood.scale == "learned":
        return
    description = type(model).__name__ if likelihood is None else str(likelihood)
    raise TypeError(
        "the optimal scale is that of a VAE with the likelihood Gaussian(net, 'learned'); this one"
        f" has {description}"
    )


def _best_log_scale(model: Model, params: Params, xs: PyTree, key: Key) -> Scalar:
    """(1/2) log mean (x - loc(z))^2, kept where a density in float32 is finite: a perfect fit has
    no best scale.
    """

    def squared_error(x, key):
        z = sample_posterior(posterior_of(model, params, x), key, 1)[0]
        mean = model.p_x_given_z(params, z).mean()
        return jnp.mean((as_event("Gaussian", x, mean) - mean) ** 2)

    errors = map_batch(squared_error, model.support, xs, key)
    return jnp.clip(0.5 * jnp.log(jnp.mean(errors)), -MAX_LOG_SCALE, MAX_LOG_SCALE)


def _with_log_scale(params: Params, log_scale: jax.Array) -> Params:
    return params._replace(
        theta={**params.theta, "likelihood": {**params.theta["likelihood"], "log_scale": log_scale}}
    )
