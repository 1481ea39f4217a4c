"""Checks of a model against data of its own."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaincc
from jaxtyping import Array, Float

from vaejax.base.checks import require_count
from vaejax.base.mapping import Transformed, estimate, map_dataset
from vaejax.base.types import Key, Params, PyTree
from vaejax.bounds import sample_posterior
from vaejax.data.check import check_data
from vaejax.models.base import Model


@dataclass(frozen=True)
class Calibration:
    """Ranks [n, d] of the z that x was drawn from among `num_draws` draws of q(z | x), and p-values
    [d] of their being uniform.

    `p_value` is the smallest, times the number of latents (Bonferroni): below 1e-6, say, q is not
    p(z | x).
    """

    ranks: np.ndarray
    num_draws: int
    p_values: np.ndarray

    @property
    def p_value(self) -> float:
        return float(min(1.0, self.p_values.min() * len(self.p_values)))

    def __str__(self):
        return (
            f"calibration of q: p = {self.p_value:.2g} over {self.ranks.shape[1]} latents and"
            f" {len(self.ranks)} simulated examples"
        )


def calibration(
    model: Model,
    params: Params,
    key: Key,
    *,
    num_simulations: int = 1_000,
    num_draws: int = 63,
    num_bins: int = 16,
) -> Calibration:
    """Simulation-based calibration of q(z|x): z ~ p(z), x ~ p(x|z); the rank of z_j among draws of
    q(z_j | x) is uniform if q is exact.

    The p-value is of a chi-squared test over `num_bins` equal bins of the num_draws + 1 ranks; a q
    that is too narrow fills the ends, one too wide the middle. Reference: Talts, Betancourt,
    Simpson, Vehtari & Gelman 2018.
    """
    for name, count in {
        "num_simulations": num_simulations,
        "num_draws": num_draws,
        "num_bins": num_bins,
    }.items():
        require_count(count, name)
    if num_bins < 2 or (num_draws + 1) % num_bins:
        raise ValueError(
            f"num_bins = {num_bins}; it must be at least 2, and divide num_draws + 1 ="
            f" {num_draws + 1}"
        )
    function = partial(_rank, model, num_draws)
    ranks = np.asarray(map_dataset(function, params, np.arange(num_simulations), key)).reshape(
        num_simulations, -1
    )
    bins = ranks // ((num_draws + 1) // num_bins)
    counts = np.stack([np.bincount(column, minlength=num_bins) for column in bins.T])
    expected = num_simulations / num_bins
    statistics = np.sum((counts - expected) ** 2 / expected, axis=1)
    return Calibration(
        ranks, num_draws, np.asarray(gammaincc((num_bins - 1) / 2, statistics / 2), np.float64)
    )


def _rank(model: Model, num_draws: int, params: Params, number, key: Key) -> jax.Array:
    z_key, x_key, q_key = jax.random.split(key, 3)
    x, z = model.simulate(params, z_key, x_key)
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
    model: Model,
    params: Params,
    xs: PyTree,
    key: Key,
    *,
    num_draws: int | None = None,
    transform: Callable[[Any, Key], Any] | None = None,
) -> PredictiveCheck:
    """`statistic(x)` of each example and of as many x ~ p(x), or `num_draws`: a model that has
    learned the data has it alike on both.

    Reference: Gelman, Meng & Stern 1996, here with draws from the model as it stands, no posterior
    over its parameters.
    """
    check_data(xs, model.support, transform)
    of_data = Transformed(partial(_statistic_of, statistic), transform)
    observed = map_dataset(of_data, params, xs, key)
    count = num_draws or len(jax.tree.leaves(xs)[0])
    drawn = map_dataset(
        partial(_statistic_drawn, statistic, model),
        params,
        np.arange(count),
        jax.random.fold_in(key, 1),
    )
    return PredictiveCheck(np.asarray(observed, np.float64), np.asarray(drawn, np.float64))


def _statistic_of(statistic, params, x, key):
    return statistic(x)


def _statistic_drawn(statistic, model, params, number, key):
    x, _ = model.sample(params, key)
    return statistic(x)
