"""The parts of the KL, and an objective that weighs them."""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vaejax.base.asserts import assert_shape
from vaejax.base.checks import require_count, require_key, require_kind
from vaejax.base.devices import on_every_device
from vaejax.base.floats import log_sum_exp
from vaejax.base.types import Key, Params, PyTree, Scalar, Terms
from vaejax.base.values import component
from vaejax.bounds import elbo, sample_posterior
from vaejax.data.mapping import map_batch
from vaejax.distributions.normal import DiagNormalDensity
from vaejax.models.base import Model, posterior_of, prior_of
from vaejax.networks.stochastic import require_no_noise
from vaejax.objectives.base import Objective
from vaejax.objectives.free_bits import require_diagonal
from vaejax.objectives.schedules import Schedule, Weight, at_step, require_weights, scheduled


class KLDecomposition(NamedTuple):
    """mean_x KL(q(z|x) || p(z)) in three parts, nats, with q(z) = (1/N) sum_n q(z | x_n), the
    aggregated posterior.

    mutual_information   E log q(z|x) / q(z): which example it is, as far as z tells; <= log N
    total_correlation    E log q(z) / prod_j q(z_j): how far the dimensions are from independent
    dimension_wise       E sum_j log q(z_j) / p(z_j): how far each dimension is from the prior
    """

    mutual_information: Scalar
    total_correlation: Scalar
    dimension_wise: Scalar


Weighting = Literal["stratified", "weighted"]


def aggregation_weights(
    batch_size: int, dataset_size: int, estimator: Weighting
) -> Float[Array, "m m"]:
    """W with q(z_i) estimated by sum_j W_ij q(z_i | x_j): x_1..x_M are M of the N examples, and z_i
    ~ q(z | x_i).

    "stratified": 1/N for j = i, (N-1)/(N (M-1)) for the others. Unbiased for q(z_i) at a given z_i,
    and exact at M = N. Chen et al. 2018 give one of the others, drawn at random, less weight than
    the rest; this is the mean over that draw: as unbiased, with less variance.

    "weighted": 1/(N M) for all. Too low, by a factor of M or more. At M = N the parts of the KL are
    off by constants, multiples of log N, and the gradient is right. Reference: Chen et al. 2018.
    """
    if batch_size > dataset_size:
        raise ValueError(
            f"dataset_size = {dataset_size}, but the batch has {batch_size} examples; give the size"
            " of the whole data set"
        )
    if _require_estimator(estimator) == "weighted":
        return jnp.full((batch_size, batch_size), 1 / (dataset_size * batch_size))
    if batch_size == 1 < dataset_size:
        raise ValueError(
            'the estimator "stratified" needs a batch of at least 2 examples; use a larger batch,'
            ' or "weighted"'
        )
    others = (dataset_size - 1) / (dataset_size * max(batch_size - 1, 1))
    return jnp.where(jnp.eye(batch_size, dtype=bool), 1 / dataset_size, others)


def _require_estimator(estimator: str) -> str:
    if estimator not in get_args(Weighting):
        raise ValueError(f'estimator = {estimator!r}; choose "stratified" or "weighted"')
    return estimator


def kl_decomposition(
    model: Model,
    params: Params,
    xs: PyTree,
    key: Key,
    dataset_size: int | None = None,
    estimator: Weighting = "stratified",
) -> KLDecomposition:
    """KL = mutual information + total correlation + dimension-wise KL, estimated from one sample of
    q for each example of a batch.

    The sum is the mean of log q(z|x) - log p(z) at the samples, to rounding. With xs all the data
    (`dataset_size` left out) q(z) is exact; of a batch it is estimated, see `aggregation_weights`,
    and its logarithm is biased. Memory grows as batch^2 x dim. Needs diagonal normals for q and the
    prior. Reference: Chen et al. 2018.
    """
    require_key(key)
    if dataset_size is not None:
        require_count(dataset_size, "dataset_size")
    size = dataset_size or len(jax.tree.leaves(xs)[0])
    return sampled_parts("kl_decomposition", model, params, xs, key, size, estimator)[1]


def sampled_parts(
    owner: str,
    model: Model,
    params: Params,
    xs: PyTree,
    key: Key,
    dataset_size: int,
    estimator: Weighting,
) -> tuple[Scalar, KLDecomposition]:
    """The mean of log p(x|z) and the parts of the KL, from the samples that the one-sample bound of
    the batch has at this key.
    """
    samples = _sampled(owner, model, params, xs, key)
    weights = aggregation_weights(len(samples.zs), dataset_size, estimator)
    parts = _decomposed(samples, jnp.log(weights))
    return jnp.mean(samples.log_p_x), KLDecomposition(*map(jnp.mean, parts))


class Samples(NamedTuple):
    """z_i ~ q(z | x_i), one for each example of a batch: log p(x_i | z_i), log p(z_i), and the
    densities and samples themselves, flat.
    """

    log_p_x: Float[Array, " b"]
    log_p_z: Float[Array, " b"]
    qs: DiagNormalDensity
    zs: Float[Array, "b d"]


def _sampled(owner: str, model: Model, params: Params, xs: PyTree, key: Key) -> Samples:
    require_one_prior(owner, model)
    prior = prior_of(model, params)

    def sample(x, key):
        q, _ = require_diagonal(owner, posterior_of(model, params, x), prior)
        z = sample_posterior(q, key, 1)[0]
        log_p_x = model.log_likelihood(params, x, z)
        return Samples(log_p_x, prior.log_prob(z), jax.tree.map(jnp.ravel, q), jnp.ravel(z))

    return map_batch(sample, model.support, xs, key)


def _decomposed(
    samples: Samples, log_weights: Float[Array, "b b"]
) -> tuple[Float[Array, " b"], Float[Array, " b"], Float[Array, " b"]]:
    """log q(z_i | x_i) - log p(z_i) of each example, in three parts, with the weights W of the
    examples in q(z).
    """
    log_q = _log_q_of_all(samples)

    # log q(z_i | x_i)
    own = jnp.sum(jax.vmap(_by_coordinate)(samples.qs, samples.zs), axis=1)

    # log q(z_i) = log sum_k W_ik q(z_i | x_k)
    joint = log_sum_exp(log_weights + jnp.sum(log_q, axis=2), axis=1)

    # sum_j log q(z_ij) = sum_j log sum_k W_ik q(z_ij | x_k)
    marginals = jnp.sum(log_sum_exp(log_weights[:, :, None] + log_q, axis=1), axis=1)

    return own - joint, joint - marginals, marginals - samples.log_p_z


def _log_q_of_all(samples: Samples) -> Float[Array, "b b d"]:
    """log q(z_ij | x_k), [i, k, j]."""
    batch_size, dim = samples.zs.shape
    qs = on_every_device(samples.qs)
    log_q = jax.vmap(lambda z: jax.vmap(lambda q: _by_coordinate(q, z))(qs))(samples.zs)
    assert_shape(log_q, (batch_size, batch_size, dim))
    return log_q


def _by_coordinate(q: DiagNormalDensity, z: Float[Array, " d"]) -> Float[Array, " d"]:
    """log q_j(z_j): a diagonal normal is one of scalars, mapped over its coordinates."""
    return jax.vmap(DiagNormalDensity.log_prob)(q, z)


def require_one_prior(owner: str, model: Model) -> None:
    """Raises TypeError for a conditional model, whose prior differs from example to example."""
    if model.inputs:
        raise TypeError(
            f"{owner} holds q(z) against one prior, and the prior of this model differs with its"
            f" inputs {', '.join(model.inputs)}; use a model without inputs"
        )


@component
class TCVAE(Objective):
    """mean log p(x|z) - alpha MI - beta TC - gamma DW, of a batch; the bound is the same with all
    three at 1.

    The three are the parts of the KL, see `KLDecomposition`; each weight is a number or a schedule.
    `dataset_size` is the number of training examples, which the estimators of q(z) need. Needs
    diagonal normals for q and the prior. Reference: Chen et al. 2018, whose beta-TCVAE has alpha =
    gamma = 1.
    """

    model: Model
    dataset_size: int
    alpha: Weight = 1.0
    beta: Weight = 1.0
    gamma: Weight = 1.0
    estimator: Weighting = "stratified"
    scale = 1

    def __post_init__(self):
        require_kind(self.model, Model, "TCVAE.model")
        require_count(self.dataset_size, "TCVAE.dataset_size")
        require_weights(self, alpha=self.alpha, beta=self.beta, gamma=self.gamma)
        _require_estimator(self.estimator)

    @property
    def schedules(self) -> tuple[tuple[str, Schedule], ...]:
        return scheduled(alpha=self.alpha, beta=self.beta, gamma=self.gamma)

    def __call__(self, params: Params, xs: PyTree, key: Key, step: ArrayLike) -> Terms:
        require_no_noise("TCVAE", params)
        log_p_x, parts = sampled_parts(
            "TCVAE", self.model, params, xs, key, self.dataset_size, self.estimator
        )
        bound = log_p_x - sum(parts)
        weights = (at_step(weight, step) for weight in (self.alpha, self.beta, self.gamma))
        # As what is added to the bound, so that a weight of 1 adds exactly nothing.
        added = sum((weight - 1) * part for weight, part in zip(weights, parts, strict=True))
        return Terms(bound, bound - added, log_p_x)

    def bound(self, params: Params, x: PyTree, key: Key) -> Scalar:
        return elbo(self.model, params, x, key)
