"""What the latent space holds: how much of the KL is information about x, which latents are used, and whether q can be believed.

    mean_n KL(q(z|x_n) || p(z)) = I(x; z) + KL(q(z) || p(z)),    q(z) = (1/N) sum_n q(z | x_n)

I is the mutual information of x and z under q, at most log N for N examples, however much the code knows of x: a value near log N is a
limit of the sample and not of the model. Reference: Hoffman & Johnson 2016 ("ELBO surgery"); Chen et al. 2018 for the total correlation.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaincc
from jaxtyping import Array, Float

from vaejax.data import check_data, support_of
from vaejax.divergences import kl_per_dimension
from vaejax.elbo import prior_of, require_count, sample_posterior
from vaejax.evaluation import Estimate, Transformed, active_units, estimate, map_dataset
from vaejax.models import simulate
from vaejax.objectives import kl_decomposition, require_diagonal
from vaejax.types import Key, LatentVariableModel, Params, PyTree

COLLAPSED = 0.01  # nats: a latent whose mean KL is below says nothing
NEAR_LIMIT = 0.9  # of log N, from where the mutual information is the sample's


class PosteriorCollapseWarning(UserWarning):
    """The decoder does without the latents."""


@dataclass(frozen=True)
class LatentSpace:
    """What `latent_space` reports, nats per example.

    kl                  of each latent, mean_n KL(q(z_j | x_n) || p(z_j)) [d]; their sum is `rate`
    mutual_information  I(x; z) under q, of the N examples
    marginal_kl         KL(q(z) || p(z)), the rest of the rate: total correlation + dimension-wise KL
    limit               log N, which the mutual information cannot exceed
    active              latents whose posterior mean varies over the examples [d]
    """

    kl: np.ndarray
    rate: Estimate
    mutual_information: float
    total_correlation: float
    dimension_wise: float
    limit: float
    active: np.ndarray

    @property
    def marginal_kl(self) -> float:
        return self.total_correlation + self.dimension_wise

    @property
    def near_limit(self) -> bool:
        """Whether the mutual information is as high as so few examples let it be."""
        return self.mutual_information > NEAR_LIMIT * self.limit

    @property
    def collapsed(self) -> bool:
        """Whether no latent says anything."""
        return bool(np.all(self.kl < COLLAPSED))

    def __str__(self):
        near = " (near its limit: give more examples)" if self.near_limit else ""
        lines = [
            f"rate KL(q(z|x) || p(z))   {self.rate} nats",
            f"mutual information        {self.mutual_information:.2f} of at most log N = {self.limit:.2f}{near}",
            f"KL(q(z) || p(z))          {self.marginal_kl:.2f} = {self.total_correlation:.2f} total correlation "
            f"+ {self.dimension_wise:.2f} dimension-wise",
            f"active units              {int(self.active.sum())} of {len(self.kl)}",
        ]
        return "\n".join([*lines, "the posterior has collapsed"] if self.collapsed else lines)


def latent_space(
    model: LatentVariableModel,
    params: Params,
    xs: PyTree,
    key: Key,
    *,
    transform: Callable[[Any, Key], Any] | None = None,
    max_examples: int = 1_000,
) -> LatentSpace:
    """The KL of each latent, its parts, and the active units, over xs; the parts over `max_examples` of them: they take N^2 densities.

    Warns with `PosteriorCollapseWarning` where no latent has a KL of 0.01 nats. Needs diagonal normals for q and the prior.
    """
    check_data(xs, support_of(model), transform)
    require_count(max_examples, "max_examples")
    kl, means = map_dataset(Transformed(partial(_kl_and_mean, model), transform), params, xs, key)
    kl = np.asarray(kl, np.float64)
    size = len(kl)
    rows = np.asarray(jax.random.permutation(key, size))[:max_examples]
    some = jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], xs)
    if transform is not None:
        some = jax.jit(jax.vmap(transform))(some, jax.random.split(jax.random.fold_in(key, 1), len(rows)))
    parts = jax.jit(kl_decomposition, static_argnums=0)(model, params, some, jax.random.fold_in(key, 2))
    information, correlation, dimension_wise = map(float, parts)
    found = LatentSpace(
        kl.mean(axis=0), estimate(kl.sum(axis=1)), information, correlation, dimension_wise, math.log(len(rows)), active_units(means)
    )
    if found.collapsed:
        warnings.warn(
            f"the posterior has collapsed: the largest KL of a latent is {found.kl.max():.4f} nats, so q(z|x) is the prior and the decoder "
            "ignores z; try a warm-up of the KL (vaejax.WarmUp) or free bits (vaejax.FreeBits)",
            PosteriorCollapseWarning,
            stacklevel=2,
        )
    return found


def _kl_and_mean(model: LatentVariableModel, params: Params, x: PyTree, key: Key) -> tuple[jax.Array, jax.Array]:
    q, p = require_diagonal(latent_space, model.posterior(params, x), prior_of(model, params, x))
    return jnp.ravel(kl_per_dimension(q, p)), jnp.ravel(q.loc)


# Checks of the model against data of its own.


@dataclass(frozen=True)
class Calibration:
    """Ranks [n, d] of the z that x was drawn from among `num_draws` draws of q(z | x), and p-values [d] of their being uniform.

    `p_value` is the smallest, times the number of latents (Bonferroni): below 1e-6, say, q is not p(z | x).
    """

    ranks: np.ndarray
    num_draws: int
    p_values: np.ndarray

    @property
    def p_value(self) -> float:
        return float(min(1.0, self.p_values.min() * len(self.p_values)))

    def __str__(self):
        return f"calibration of q: p = {self.p_value:.2g} over {self.ranks.shape[1]} latents and {len(self.ranks)} simulated examples"


def calibration(
    model: LatentVariableModel, params: Params, key: Key, *, num_simulations: int = 1_000, num_draws: int = 63, num_bins: int = 16
) -> Calibration:
    """Simulation-based calibration of q(z|x): z ~ p(z), x ~ p(x|z); the rank of z_j among draws of q(z_j | x) is uniform if q is exact.

    The p-value is of a chi-squared test over `num_bins` equal bins of the num_draws + 1 ranks; a q that is too narrow fills the ends, one
    too wide the middle. Reference: Talts, Betancourt, Simpson, Vehtari & Gelman 2018.
    """
    for name, count in {"num_simulations": num_simulations, "num_draws": num_draws, "num_bins": num_bins}.items():
        require_count(count, name)
    if num_bins < 2 or (num_draws + 1) % num_bins:
        raise ValueError(f"num_bins = {num_bins}; it must be at least 2, and divide num_draws + 1 = {num_draws + 1}")
    function = partial(_rank, model, num_draws)
    ranks = np.asarray(map_dataset(function, params, np.arange(num_simulations), key)).reshape(num_simulations, -1)
    bins = ranks // ((num_draws + 1) // num_bins)
    counts = np.stack([np.bincount(column, minlength=num_bins) for column in bins.T])
    expected = num_simulations / num_bins
    statistics = np.sum((counts - expected) ** 2 / expected, axis=1)
    return Calibration(ranks, num_draws, np.asarray(gammaincc((num_bins - 1) / 2, statistics / 2), np.float64))


def _rank(model: LatentVariableModel, num_draws: int, params: Params, number, key: Key) -> jax.Array:
    z_key, x_key, q_key = jax.random.split(key, 3)
    x, z = simulate(model, params, z_key, x_key)
    draws = sample_posterior(model.posterior(params, x), q_key, num_draws)
    return jnp.sum(draws < z[None], axis=0)


@dataclass(frozen=True)
class PredictiveCheck:
    """A statistic of the data [n] and of draws from the model [m]."""

    observed: np.ndarray
    drawn: np.ndarray

    @property
    def z_score(self) -> float:
        """(mean of the data's - mean of the draws') in standard errors of the difference."""
        (a, first), (b, second) = estimate(self.observed), estimate(self.drawn)
        return (a - b) / math.hypot(first, second)


def predictive_check(
    statistic: Callable[[Any], Float[Array, ""]],
    model: LatentVariableModel,
    params: Params,
    xs: PyTree,
    key: Key,
    *,
    num_draws: int | None = None,
    transform: Callable[[Any, Key], Any] | None = None,
) -> PredictiveCheck:
    """`statistic(x)` of each example and of as many x ~ p(x), or `num_draws`: a model that has learned the data has it alike on both.

    Reference: Gelman, Meng & Stern 1996, here with draws from the model as it stands, no posterior over its parameters.
    """
    check_data(xs, support_of(model), transform)
    of_data = Transformed(partial(_statistic_of, statistic), transform)
    observed = map_dataset(of_data, params, xs, key)
    count = num_draws or len(jax.tree.leaves(xs)[0])
    drawn = map_dataset(partial(_statistic_drawn, statistic, model), params, np.arange(count), jax.random.fold_in(key, 1))
    return PredictiveCheck(np.asarray(observed, np.float64), np.asarray(drawn, np.float64))


def _statistic_of(statistic, params, x, key):
    return statistic(x)


def _statistic_drawn(statistic, model, params, number, key):
    x, _ = simulate(model, params, *jax.random.split(key))
    return statistic(x)
