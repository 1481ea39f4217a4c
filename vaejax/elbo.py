"""The main idea: K log-weights of one example, and the bounds on log p(x) that are made of them. All in nats.

    log w_k = log p_theta(x, z_k) - log q_phi(z_k | x),    z_k ~ q_phi(z | x)
    ELBO    = E mean_k log w_k  =  log p(x) - KL(q(z|x) || p(z|x))
    IWAE-K  = E log mean_k w_k,  between the ELBO and log p(x)

Bounds are maximised. `minibatch` is the only place where a batch appears.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vaejax._values import by_value, value
from vaejax.distributions import sample_and_log_prob
from vaejax.models import GraphModel
from vaejax.noise import Independent, Noise
from vaejax.types import Bound, Distribution, Key, LatentVariableModel, Model, Params, PyTree, Scalar

INDEPENDENT = Independent()
stopped = jax.lax.stop_gradient


def log_weights(model: Model, params: Params, x: PyTree, q: Distribution, zs: PyTree) -> Float[Array, " k"]:
    """log w_k = log p_theta(x, z_k) - log q(z_k), nats, for K given samples `zs` along the leading axis."""
    return map_samples(lambda z: model.log_joint(params, x, z) - q.log_prob(z), zs)


def sample_log_weight(model: Model, params: Params, x: PyTree, q: Distribution, key: Key) -> Scalar:
    """log w of one sample of q, nats: all that a bound needs of q is the log-density of its own samples."""
    z, log_q = sample_and_log_prob(q, key)
    return model.log_joint(params, x, z) - log_q


def sample_log_weights(
    model: Model, params: Params, x: PyTree, q: Distribution, key: Key, num_samples: int, noise: Noise = INDEPENDENT
) -> Float[Array, " k"]:
    """log w_k of K samples of q, nats, independent or as `noise` has them."""
    require_count(num_samples, "num_samples")
    return map_samples(lambda source: sample_log_weight(model, params, x, *noise.at(q, source)), noise.sources(q, key, num_samples))


def map_samples(function: Callable, zs: PyTree) -> Any:
    """[function(z) for z in zs], stacked: `vmap`, but a single sample goes without the axis of length 1.

    Under a second `vmap`, over the batch, XLA keeps that axis in every matrix product: 16 % of a training step on a CPU.
    """
    if len(jax.tree.leaves(zs)[0]) > 1:
        return jax.vmap(function)(zs)
    return jax.tree.map(lambda leaf: leaf[None], function(jax.tree.map(lambda leaf: leaf[0], zs)))


def elbo_bound(log_w: Float[Array, " k"]) -> Scalar:
    """mean_k log w_k: an unbiased estimate of the ELBO."""
    return jnp.mean(log_w)


def iwae_bound(log_w: Float[Array, " k"]) -> Scalar:
    """log mean_k w_k. Reference: Burda, Grosse & Salakhutdinov 2016, eq. 8."""
    return logsumexp(log_w) - math.log(log_w.shape[0])


def jackknife_bound(log_w: Float[Array, " k"]) -> Scalar:
    """K L_K - (K-1) mean_j L_(K-1) without w_j, L_K the log of the mean of K weights: no 1/K term in its bias, and no lower bound.

    Reference: Nowozin 2018 (JVI-1).
    """
    k = log_w.shape[0]
    if k < 2:
        raise ValueError("jackknife_bound leaves one weight out, so it needs num_samples of at least 2")
    return k * iwae_bound(log_w) - (k - 1) * jnp.mean(log_mean_of_others(log_w))


def log_mean_of_others(log_w: Float[Array, " k"]) -> Float[Array, " k"]:
    """log of the mean of all weights but w_k, for every k. In log space: from 1 - w_k / sum w it would be log 0 where one dominates."""
    k = log_w.shape[0]
    others = jnp.where(jnp.eye(k, dtype=bool), -jnp.inf, log_w[None])
    return logsumexp(others, axis=1) - math.log(k - 1)


def renyi_bound(alpha: float) -> Bound:
    """(1/(1-alpha)) log mean_k w_k^(1-alpha): IWAE at alpha = 0, the ELBO in the limit 1. Reference: Li & Turner 2016, eq. 8.

    A lower bound on log p(x) in expectation for alpha >= 0.
    """
    if alpha == 1:
        return elbo_bound
    return iwae_bound if alpha == 0 else RenyiBound(alpha)


@value
class RenyiBound:
    """(1/(1-alpha)) log mean_k w_k^(1-alpha)."""

    alpha: float

    def __call__(self, log_w: Float[Array, " k"]) -> Scalar:
        return iwae_bound((1 - self.alpha) * log_w) / (1 - self.alpha)


def sample_posterior(q: Distribution, key: Key, num_samples: int, noise: Noise = INDEPENDENT) -> PyTree:
    """K samples of q along a leading axis, independent or as `noise` has them."""
    require_count(num_samples, "num_samples")

    def sample(source):
        at, key = noise.at(q, source)
        return at.sample(key)

    return map_samples(sample, noise.sources(q, key, num_samples))


def log_weight_at(model: Model, params: Params, x: PyTree, q: Distribution) -> Callable[[PyTree], Scalar]:
    """z -> log p(x, z) - log q(z), all parameters held fixed."""
    fixed_params, fixed_q = stopped((params, q))
    return lambda z: model.log_joint(fixed_params, x, z) - fixed_q.log_prob(z)


def score_of(unravel: Callable, flat: jax.Array, z: PyTree) -> jax.Array:
    """d log q(z) / d (q's own parameters), flat, of `ravel_pytree(q)`; z held fixed."""
    return jax.grad(lambda flat: unravel(flat).log_prob(stopped(z)))(flat)


def posterior_of(model: Model, params: Params, x: PyTree, families: tuple[type, ...], owner: object, remedy: str) -> Any:
    """q(z | x), or a TypeError where it is of none of the families."""
    q = model.posterior(params, x)
    if not isinstance(q, families):
        known = " or ".join(family.__name__ for family in families)
        raise TypeError(f"{type(owner).__name__} is for a q that is {known}, and this one is {type(q).__name__}; {remedy}")
    return q


def prior_of(model: LatentVariableModel, params: Params, x: PyTree) -> Distribution:
    """p(z), or p(z | u) of a model whose examples have inputs u."""
    return model.p_z(params, x) if isinstance(model, GraphModel) else model.p_z(params)


def log_likelihood(model: LatentVariableModel, params: Params, x: PyTree, z: PyTree) -> Scalar:
    """log p(x | z), or log p(x | z, u), nats."""
    if isinstance(model, GraphModel):
        return model.p_x_given_z(params, z, x).log_prob(model.observation(x))
    return model.p_x_given_z(params, z).log_prob(x)


def with_gradient_of(value: Scalar, surrogate: Scalar) -> Scalar:
    """A number with this value, and the gradient of `surrogate`."""
    return stopped(value) + surrogate - stopped(surrogate)


def elbo(model: Model, params: Params, x: PyTree, key: Key, num_samples: int = 1) -> Scalar:
    """mean_k [log p_theta(x, z_k) - log q_phi(z_k | x)], z_k ~ q: an unbiased estimate of the ELBO of one example, nats."""
    q = model.posterior(params, x)
    return elbo_bound(sample_log_weights(model, params, x, q, key, num_samples))


def iwae(model: Model, params: Params, x: PyTree, key: Key, num_samples: int) -> Scalar:
    """log mean_k w_k: the importance-weighted bound of one example, nats. All K samples in memory: see `log_marginal`."""
    q = model.posterior(params, x)
    return iwae_bound(sample_log_weights(model, params, x, q, key, num_samples))


def log_marginal(model: Model, params: Params, x: PyTree, key: Key, num_samples: int, chunk: int = 100) -> Scalar:
    """log mean_k w_k, the importance-sampled log p(x) of one example, nats, in memory that grows with `chunk` alone.

    Sample k has the key fold_in(key, k), so `chunk` changes the result by rounding only. Each chunk is computed again in the
    backward pass rather than kept, so that the gradient's memory does not grow either. Biased low by Var(w)/(2 K p(x)^2)
    to first order; it converges to log p(x).
    """
    require_count(num_samples, "num_samples")
    require_count(chunk, "chunk")
    chunk = min(chunk, num_samples)
    q = model.posterior(params, x)

    def log_weight(k):
        return sample_log_weight(model, params, x, q, jax.random.fold_in(key, k))

    @jax.checkpoint
    def add_chunk(total, start):
        ks = start + jnp.arange(chunk)
        log_w = jnp.where(ks < num_samples, jax.vmap(log_weight)(ks), -jnp.inf)
        return jnp.logaddexp(total, logsumexp(log_w)), None

    nothing = jnp.full_like(jax.eval_shape(log_weight, 0), -jnp.inf)
    total, _ = jax.lax.scan(add_chunk, nothing, jnp.arange(0, num_samples, chunk))
    return total - math.log(num_samples)


class Terms(NamedTuple):
    """What an objective gives that maximises something else than it reports: the bound on log p(x), in nats, and that something.

    A plain scalar stands for both.
    """

    bound: Scalar
    objective: Scalar


Objective = Callable[..., Scalar | Terms]


def minibatch(objective: Objective, dataset_size: int | None = None) -> "Minibatch":
    """(params, xs, key) -> (1/M) sum_m objective(params, x_m, key_m): the mean bound of a batch, nats per example.

    With `dataset_size=N` it is N/M times the sum over the batch instead, an unbiased estimate of the sum over the data set.
    `objective` is a function of one example: `minibatch(partial(vaejax.Pathwise(), model))`. If it gives `Terms`, so does this.
    """
    if dataset_size is not None:
        require_count(dataset_size, "dataset_size")
    return Minibatch(objective, dataset_size)


@value
class Minibatch:
    """What `minibatch` returns: a value, so that two made of equal parts share one compiled program."""

    objective: Objective
    dataset_size: int | None = None

    def __call__(self, params: Params, xs: PyTree, key: Key, step: ArrayLike | None = None) -> Any:
        size = len(jax.tree.leaves(xs)[0])
        objective = self.objective if step is None else partial(self.objective, step=step)
        values = jax.vmap(objective, (None, 0, 0))(params, xs, jax.random.split(key, size))
        return Terms(*map(self._mean, values)) if isinstance(values, Terms) else self._mean(values)

    def _mean(self, values: jax.Array) -> Scalar:
        if values.ndim != 1:
            raise ValueError(f"the objective gave shape {values.shape[1:]} for one example; it must give one number")
        return jnp.mean(values) * (self.dataset_size or 1)


@value
class Reported:
    """(params, x, key) -> the bound that an objective of one example reports. No schedule moves it, so any step will do."""

    objective: Objective

    def __call__(self, params: Params, x: PyTree, key: Key) -> Scalar:
        result = self.objective(params, x, key, **step_of(self.objective, 0))
        return result.bound if isinstance(result, Terms) else result


def of_one_example(objective: Any) -> Objective:
    """The function of one example that an objective of a batch shows as `objective`; itself, if it shows none."""
    while hasattr(objective, "objective"):
        objective = objective.objective
    return by_value(objective)


def model_of(objective: Any) -> Any:
    """The model that an objective was put together from, among the arguments of its innermost partial; None if there is none."""
    parts = getattr(of_one_example(objective), "args", ())
    return next((part for part in parts if hasattr(part, "log_joint")), None)


def schedules_of(objective: Any) -> tuple[tuple[str, Any], ...]:
    """(name, schedule) of each weight that moves with the step; if there is one, the objective is called with `step=`.

    An objective says so by an attribute `schedules`; a partial, or a mean over a batch, has those of what is inside.
    """
    if hasattr(objective, "schedules"):
        return objective.schedules
    inner = getattr(objective, "objective", getattr(objective, "func", None))
    return () if inner is None else schedules_of(inner)


def step_of(objective: Any, step: ArrayLike) -> dict[str, ArrayLike]:
    """The keyword `step`, for an objective with a schedule."""
    return {"step": step} if schedules_of(objective) else {}


def require_count(number: int, name: str) -> None:
    """Raises ValueError unless number >= 1."""
    if not isinstance(number, int) or number < 1:
        raise ValueError(f"{name} = {number!r}; it must be a whole number, at least 1")
