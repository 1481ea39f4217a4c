"""The best scale of a Gaussian likelihood."""

from typing import Any

import jax
import jax.numpy as jnp

from vaejax.base.types import Key, LatentVariableModel, Params, PyTree, Scalar, Terms
from vaejax.base.values import component
from vaejax.bounds import sample_posterior
from vaejax.distributions.base import as_event
from vaejax.models.conditionals.base import MAX_LOG_SCALE
from vaejax.models.conditionals.real import Gaussian
from vaejax.objectives.base import Minibatch, Objective, model_of


def optimal_scale(objective: Objective) -> "OptimalScale":
    """The objective of a batch with the likelihood's shared scale at its best for that batch:
    sigma-VAE.

    sigma^2 = mean_{m,i} (x_mi - loc_i(z_m))^2, z_m ~ q(z | x_m), which maximises the bound in
    sigma, so that its derivative there is zero and sigma is held constant. `objective` is one of a
    batch, of a model with the likelihood Gaussian(net, "learned"):
    `vaejax.optimal_scale(vaejax.minibatch(partial(vaejax.Pathwise(), model)))`.

    The parameter log_scale gets the gradient that it has without this, by a term of value zero: so
    it follows the best scale, and the validations of `fit`, which are of the parameters as they
    stand, mean something. `with_optimal_scale` sets it to the closed form when training is done.
    Reference: Rybkin, Daniilidis & Levine 2021.
    """
    return OptimalScale(objective)


@component
class OptimalScale:
    """What `optimal_scale` returns."""

    objective: Objective

    def __post_init__(self):
        if not hasattr(self.objective, "objective"):
            raise TypeError(
                "optimal_scale wants an objective of a batch: make it by vaejax.minibatch"
            )
        _require_learned_scale(model_of(self.objective))

    def __call__(self, params: Params, xs: PyTree, key: Key, **step) -> Any:
        best = jax.lax.stop_gradient(_best_log_scale(model_of(self.objective), params, xs, key))
        result = self.objective(_with_log_scale(params, best), xs, key, **step)
        # What the mean of log p(x|z) is of the learned scale; its value is taken off again.
        learned = params.theta["likelihood"]["log_scale"]
        log_p_x = -jax.tree.leaves(xs)[0][0].size * (learned + 0.5 * jnp.exp(2 * (best - learned)))
        if isinstance(self.objective, Minibatch):
            log_p_x *= self.objective.dataset_size or 1
        nothing = log_p_x - jax.lax.stop_gradient(log_p_x)
        return (
            result._replace(objective=result.objective + nothing)
            if isinstance(result, Terms)
            else result + nothing
        )


def with_optimal_scale(model: LatentVariableModel, params: Params, xs: PyTree, key: Key) -> Params:
    """`params` with the likelihood's shared scale at its best for xs: sigma^2 = mean (x -
    loc(z))^2, z ~ q, one sample an example.

    The samples are those that `minibatch` of a one-sample bound draws at this key; there the
    bound's derivative in the scale is then zero. What is left is an ordinary, normalised density.
    Give training data: a scale fitted to test data is a leak.
    """
    _require_learned_scale(model)
    return _with_log_scale(params, _best_log_scale(model, params, xs, key))


def _require_learned_scale(model: Any) -> None:
    likelihood = getattr(model, "likelihood", None)
    if not (isinstance(likelihood, Gaussian) and likelihood.scale == "learned"):
        found = f"{type(likelihood).__name__}{'' if not isinstance(likelihood, Gaussian) else f' with scale={likelihood.scale!r}'}"
        raise TypeError(
            "the optimal scale is that of a model with the likelihood Gaussian(net, 'learned');"
            f" this one has {found}"
        )


def _best_log_scale(model: Any, params: Params, xs: PyTree, key: Key) -> Scalar:
    """(1/2) log mean (x - loc(z))^2, kept where a density in float32 is finite: a perfect fit has
    no best scale.
    """

    def squared_error(x, key):
        z = sample_posterior(model.posterior(params, x), key, 1)[0]
        mean = model.p_x_given_z(params, z).mean
        return jnp.mean((as_event("Gaussian", x, mean) - mean) ** 2)

    errors = jax.vmap(squared_error)(xs, jax.random.split(key, len(jax.tree.leaves(xs)[0])))
    return jnp.clip(0.5 * jnp.log(jnp.mean(errors)), -MAX_LOG_SCALE, MAX_LOG_SCALE)


def _with_log_scale(params: Params, log_scale: jax.Array) -> Params:
    return params._replace(
        theta={**params.theta, "likelihood": {**params.theta["likelihood"], "log_scale": log_scale}}
    )
