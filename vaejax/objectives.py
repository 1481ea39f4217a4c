"""Objectives beside the bound: a weight on the KL, free bits, the parts of the KL, the best scale of a Gaussian.

Each gives `Terms(bound, objective)`, nats per example. What is maximised is `objective`; what is reported is `bound`, the plain
bound with every weight at 1, of the same samples. So runs under different objectives can be compared, and no weight can pass
for a better model.
"""

from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vaejax._values import by_value, value
from vaejax.conditionals import MAX_LOG_SCALE, Gaussian
from vaejax.distributions import DiagNormal, as_event, sample_and_log_prob
from vaejax.divergences import kl_per_dimension
from vaejax.elbo import (
    Minibatch,
    Objective,
    Terms,
    elbo,
    log_likelihood,
    map_samples,
    model_of,
    prior_of,
    require_count,
    sample_posterior,
)
from vaejax.estimators import AnalyticKL, reparameterised_posterior, require_factors
from vaejax.schedules import Schedule, Weight, at_step, require_numbers, require_weights, scheduled
from vaejax.types import Key, LatentVariableModel, Params, PyTree, Scalar


@value
class Beta:
    """mean_k [log p(x | z_k) + beta (log p(z_k) - log q(z_k | x))], z_k ~ q, of one example; the bound is the same at beta = 1.

    `weight` is beta: a number, or a schedule. `vaejax.minibatch(partial(vaejax.Beta(vaejax.WarmUp(5_000)), model))` for `fit`.
    Gradient: the total derivative, as `Pathwise`, which this is at beta = 1. Needs a reparameterised q.
    Reference: Higgins et al. 2017.
    """

    weight: Weight = 1.0
    num_samples: int = 1

    def __post_init__(self):
        require_weights(self, weight=self.weight)
        require_count(self.num_samples, "Beta.num_samples")

    @property
    def schedules(self) -> tuple[tuple[str, Schedule], ...]:
        return scheduled(beta=self.weight)

    def __call__(self, model: LatentVariableModel, params: Params, x: ArrayLike, key: Key, step: ArrayLike | None = None) -> Terms:
        require_factors(self, model)
        q = reparameterised_posterior(self, model, params, x)

        def one(key):
            z, log_q = sample_and_log_prob(q, key)
            return log_likelihood(model, params, x, z), prior_of(model, params, x).log_prob(z) - log_q

        log_p_x, log_ratio = map(jnp.mean, map_samples(one, jax.random.split(key, self.num_samples)))
        return Terms(log_p_x + log_ratio, log_p_x + at_step(self.weight, step) * log_ratio)


@value
class FreeBits:
    """mean_m log p(x_m | z_m) - sum_j max(nats, mean_m KL(q(z_j | x_m) || p(z_j))), of a batch; the bound has no max.

    A latent that tells less than `nats` on average pays for so many anyway, so nothing pushes it to tell less. The KL is in
    closed form: q and the prior are diagonal normals. `vaejax.fit(vaejax.FreeBits(model, 0.1), ...)`.
    Reference: Kingma et al. 2016, with groups of one latent.
    """

    model: LatentVariableModel
    nats: float
    num_samples: int = 1

    def __post_init__(self):
        require_factors(self, self.model)
        require_numbers(self, nats=self.nats)
        require_count(self.num_samples, "FreeBits.num_samples")

    @property
    def objective(self) -> Objective:
        """The bound of one example, for validation."""
        return by_value(partial(AnalyticKL(self.num_samples), self.model))

    def __call__(self, params: Params, xs: PyTree, key: Key) -> Terms:
        model = self.model

        def one(x, key):
            q, p = require_diagonal(self, model.posterior(params, x), prior_of(model, params, x))
            zs = sample_posterior(q, key, self.num_samples)
            log_p_x = map_samples(lambda z: log_likelihood(model, params, x, z), zs)
            return jnp.mean(log_p_x), kl_per_dimension(q, p)

        log_p_x, kl = jax.vmap(one)(xs, jax.random.split(key, len(jax.tree.leaves(xs)[0])))
        log_p_x, kl = jnp.mean(log_p_x), jnp.mean(kl, axis=0)
        return Terms(log_p_x - jnp.sum(kl), log_p_x - jnp.sum(jnp.maximum(kl, self.nats)))


def require_diagonal(owner: Any, q: Any, prior: Any) -> tuple[DiagNormal, DiagNormal]:
    """(q, prior), or a TypeError unless both are diagonal normals."""
    if isinstance(q, DiagNormal) and isinstance(prior, DiagNormal):
        return q, prior
    name = getattr(owner, "__name__", type(owner).__name__)
    of_q, of_prior = (type(getattr(d, "base", d)).__name__ for d in (q, prior))
    raise TypeError(
        f"{name} splits KL(q || p) over the latents, so q and the prior must be diagonal normals, not {of_q} and {of_prior}; "
        "use vaejax.DiagNormal with vaejax.StandardNormal or vaejax.LearnedNormal, or vaejax.Beta, which takes any"
    )


# The parts of the KL.


class KLDecomposition(NamedTuple):
    """mean_x KL(q(z|x) || p(z)) in three parts, nats, with q(z) = (1/N) sum_n q(z | x_n), the aggregated posterior.

    mutual_information   E log q(z|x) / q(z)            what the code tells of which example it is, at most log N
    total_correlation    E log q(z) / prod_j q(z_j)     how far its dimensions are from independent
    dimension_wise       E sum_j log q(z_j) / p(z_j)    how far each is from the prior
    """

    mutual_information: Scalar
    total_correlation: Scalar
    dimension_wise: Scalar


Weighting = Literal["stratified", "weighted"]


def aggregation_weights(batch_size: int, dataset_size: int, estimator: Weighting) -> Float[Array, "m m"]:
    """W with q(z_i) estimated by sum_j W_ij q(z_i | x_j): x_1..x_M are M of the N examples, and z_i ~ q(z | x_i).

    "stratified": 1/N for j = i, (N-1)/(N (M-1)) for the others. Unbiased for q(z_i) at a given z_i, and exact at M = N. Chen et al.
    2018, weigh one of the others less than the rest; this is the mean over which one: as unbiased, with less variance.
    "weighted": 1/(N M) for all. Too low, by a factor M or more, which is N at M = N. At M = N, then, the parts of the KL are off by
    constants, multiples of log N, and the gradient is right. Chen et al. 2018.
    """
    if batch_size > dataset_size:
        raise ValueError(f"dataset_size = {dataset_size}, but the batch has {batch_size} examples; give the size of the whole data set")
    if _require_estimator(estimator) == "weighted":
        return jnp.full((batch_size, batch_size), 1 / (dataset_size * batch_size))
    if batch_size == 1 < dataset_size:
        raise ValueError('the estimator "stratified" needs a batch of at least 2 examples; use a larger batch, or "weighted"')
    others = (dataset_size - 1) / (dataset_size * max(batch_size - 1, 1))
    return jnp.where(jnp.eye(batch_size, dtype=bool), 1 / dataset_size, others)


def _require_estimator(estimator: str) -> str:
    if estimator not in get_args(Weighting):
        raise ValueError(f'estimator = {estimator!r}; choose "stratified" or "weighted"')
    return estimator


def kl_decomposition(
    model: LatentVariableModel,
    params: Params,
    xs: PyTree,
    key: Key,
    dataset_size: int | None = None,
    estimator: Weighting = "stratified",
) -> KLDecomposition:
    """KL = mutual information + total correlation + dimension-wise KL, estimated from one sample of q for each example of a batch.

    The sum is the mean of log q(z|x) - log p(z) at the samples, to rounding. With xs all the data (`dataset_size` left out) q(z) is
    exact; of a batch it is estimated, see `aggregation_weights`, and its logarithm is biased. Memory grows as batch^2 x dim.
    Needs diagonal normals for q and the prior. Reference: Chen et al. 2018.
    """
    return _sampled(kl_decomposition, model, params, xs, key, dataset_size, estimator)[1]


def _sampled(owner, model, params, xs, key, dataset_size, estimator) -> tuple[Scalar, KLDecomposition]:
    """The mean of log p(x|z) and the parts of the KL, from the samples that the one-sample bound of the batch has at this key."""
    size = len(jax.tree.leaves(xs)[0])
    prior = model.p_z(params)

    def one(x, key):
        q, _ = require_diagonal(owner, model.posterior(params, x), prior)
        z = sample_posterior(q, key, 1)[0]
        return model.p_x_given_z(params, z).log_prob(x), prior.log_prob(z), jax.tree.map(jnp.ravel, q), jnp.ravel(z)

    log_p_x, log_p_z, qs, zs = jax.vmap(one)(xs, jax.random.split(key, size))
    log_weights = jnp.log(aggregation_weights(size, dataset_size or size, estimator))
    coordinates = jax.vmap(DiagNormal.log_prob)  # a diagonal normal is one of scalars, mapped
    log_q = jax.vmap(lambda z: jax.vmap(lambda q: coordinates(q, z))(qs))(zs)  # [i, j, dim]: log q(z_i | x_j) by coordinate
    own = jnp.sum(jax.vmap(coordinates)(qs, zs), axis=1)
    joint = logsumexp(log_weights + jnp.sum(log_q, axis=2), axis=1)
    marginals = jnp.sum(logsumexp(log_weights[:, :, None] + log_q, axis=1), axis=1)
    parts = own - joint, joint - marginals, marginals - log_p_z
    return jnp.mean(log_p_x), KLDecomposition(*map(jnp.mean, parts))


@value
class TCVAE:
    """mean log p(x|z) - alpha MI - beta TC - gamma DW, of a batch; the bound is the same with all three at 1.

    The three are the parts of the KL, see `KLDecomposition`; each weight is a number or a schedule. `dataset_size` is the number of
    training examples, which the estimators of q(z) need. Needs diagonal normals for q and the prior.
    Reference: Chen et al. 2018, whose beta-TCVAE has alpha = gamma = 1.
    """

    model: LatentVariableModel
    dataset_size: int
    alpha: Weight = 1.0
    beta: Weight = 1.0
    gamma: Weight = 1.0
    estimator: Weighting = "stratified"

    def __post_init__(self):
        require_factors(self, self.model)
        require_count(self.dataset_size, "TCVAE.dataset_size")
        require_weights(self, alpha=self.alpha, beta=self.beta, gamma=self.gamma)
        _require_estimator(self.estimator)

    @property
    def schedules(self) -> tuple[tuple[str, Schedule], ...]:
        return scheduled(alpha=self.alpha, beta=self.beta, gamma=self.gamma)

    @property
    def objective(self) -> Objective:
        """The bound of one example, for validation."""
        return by_value(partial(elbo, self.model))

    def __call__(self, params: Params, xs: PyTree, key: Key, step: ArrayLike | None = None) -> Terms:
        log_p_x, parts = _sampled(self, self.model, params, xs, key, self.dataset_size, self.estimator)
        bound = log_p_x - sum(parts)
        weights = (at_step(weight, step) for weight in (self.alpha, self.beta, self.gamma))
        # As what is added to the bound, so that a weight of 1 adds exactly nothing.
        return Terms(bound, bound - sum((weight - 1) * part for weight, part in zip(weights, parts, strict=True)))


# The best scale of a Gaussian likelihood.


def optimal_scale(objective: Objective) -> "OptimalScale":
    """The objective of a batch with the likelihood's shared scale at its best for that batch: sigma-VAE.

    sigma^2 = mean_{m,i} (x_mi - loc_i(z_m))^2, z_m ~ q(z | x_m), which maximises the bound in sigma, so that its derivative there
    is zero and sigma is held constant. `objective` is one of a batch, of a model with the likelihood Gaussian(net, "learned"):
    `vaejax.optimal_scale(vaejax.minibatch(partial(vaejax.Pathwise(), model)))`.

    The parameter log_scale gets the gradient that it has without this, by a term of value zero: so it follows the best scale, and the
    validations of `fit`, which are of the parameters as they stand, mean something. `with_optimal_scale` sets it to the closed form
    when training is done. Reference: Rybkin, Daniilidis & Levine 2021.
    """
    return OptimalScale(objective)


@value
class OptimalScale:
    """What `optimal_scale` returns."""

    objective: Objective

    def __post_init__(self):
        if not hasattr(self.objective, "objective"):
            raise TypeError("optimal_scale wants an objective of a batch: make it by vaejax.minibatch")
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
        return result._replace(objective=result.objective + nothing) if isinstance(result, Terms) else result + nothing


def with_optimal_scale(model: LatentVariableModel, params: Params, xs: PyTree, key: Key) -> Params:
    """`params` with the likelihood's shared scale at its best for xs: sigma^2 = mean (x - loc(z))^2, z ~ q, one sample an example.

    The samples are those that `minibatch` of a one-sample bound draws at this key; there the bound's derivative in the scale is
    then zero. What is left is an ordinary, normalised density. Give training data: a scale fitted to test data is a leak.
    """
    _require_learned_scale(model)
    return _with_log_scale(params, _best_log_scale(model, params, xs, key))


def _require_learned_scale(model: Any) -> None:
    likelihood = getattr(model, "likelihood", None)
    if not (isinstance(likelihood, Gaussian) and likelihood.scale == "learned"):
        found = f"{type(likelihood).__name__}{'' if not isinstance(likelihood, Gaussian) else f' with scale={likelihood.scale!r}'}"
        raise TypeError(f"the optimal scale is that of a model with the likelihood Gaussian(net, 'learned'); this one has {found}")


def _best_log_scale(model: Any, params: Params, xs: PyTree, key: Key) -> Scalar:
    """(1/2) log mean (x - loc(z))^2, kept where a density in float32 is finite: a perfect fit has no best scale."""

    def squared_error(x, key):
        z = sample_posterior(model.posterior(params, x), key, 1)[0]
        mean = model.p_x_given_z(params, z).mean
        return jnp.mean((as_event("Gaussian", x, mean) - mean) ** 2)

    errors = jax.vmap(squared_error)(xs, jax.random.split(key, len(jax.tree.leaves(xs)[0])))
    return jnp.clip(0.5 * jnp.log(jnp.mean(errors)), -MAX_LOG_SCALE, MAX_LOG_SCALE)


def _with_log_scale(params: Params, log_scale: jax.Array) -> Params:
    return params._replace(theta={**params.theta, "likelihood": {**params.theta["likelihood"], "log_scale": log_scale}})
