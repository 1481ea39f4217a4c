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
from jaxtyping import Array, Float, Int

from vaejax.base.checks import require_count, require_key
from vaejax.base.devices import of_this_process
from vaejax.base.mapping import Transformed, estimate, map_rows
from vaejax.base.types import Key, Params, PyTree, Scalar
from vaejax.base.values import component
from vaejax.bounds import sample_posterior
from vaejax.data.base import Source
from vaejax.data.shares import map_blocks
from vaejax.evaluation.latents import flattened
from vaejax.models.base import Model, posterior_of
from vaejax.models.given import checked_data


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
    xs: PyTree | Source | None = None,
    transform: Callable[[Any, Key], Any] | None = None,
    num_simulations: int = 1_000,
    num_draws: int = 63,
    num_bins: int = 16,
) -> Calibration:
    """Simulation-based calibration of q(z|x): z ~ p(z), x ~ p(x|z); the rank of z_j among draws of
    q(z_j | x) is uniform if q is exact.

    The p-value is of a chi-squared test over `num_bins` equal bins of the num_draws + 1 ranks; a q
    that is too narrow fills the ends, one too wide the middle. Ties are broken at random, so that
    discrete latents, and continuous ones that saturate, have uniform ranks too. Latents of a
    mapping stand in a row, by the order of their names, and one-hot vectors by their coordinates.
    Simulation i of a conditional model has the inputs of example i (mod n) of `xs`, after
    `transform`. Reference: Talts, Betancourt, Simpson, Vehtari & Gelman 2018; with ties, Modrak et
    al. 2023.
    """
    counts = {"num_simulations": num_simulations, "num_draws": num_draws, "num_bins": num_bins}
    for name, count in counts.items():
        require_count(count, name)
    if num_bins < 2 or (num_draws + 1) % num_bins:
        raise ValueError(
            f"num_bins = {num_bins}; it must be at least 2, and divide num_draws + 1 ="
            f" {num_draws + 1}"
        )
    rank = partial(_rank, model, num_draws)
    ranks = _simulated("calibration", rank, model, params, xs, key, num_simulations, transform)
    # chi^2 = sum_b (count_b - expected)^2 / expected, of each latent
    bins = ranks // ((num_draws + 1) // num_bins)
    table = np.stack([np.bincount(column, minlength=num_bins) for column in bins.T])
    expected = num_simulations / num_bins
    statistics = np.sum((table - expected) ** 2 / expected, axis=1)
    p_values = np.asarray(gammaincc((num_bins - 1) / 2, statistics / 2), np.float64)
    return Calibration(ranks, num_draws, p_values)


def _rank(
    model: Model, num_draws: int, params: Params, x: PyTree | None, key: Key
) -> Int[Array, " d"]:
    """The rank of each latent z_j among draws of q(z_j | x'), of a simulated (x', z) with the
    inputs of x.
    """
    z_key, x_key, q_key, ties_key = jax.random.split(key, 4)
    simulated, z = model.simulate(params, z_key, x_key, x)
    draws = sample_posterior(posterior_of(model, params, simulated), q_key, num_draws)
    values, drawn = flattened(z), jax.vmap(flattened)(draws)
    below, ties = (jnp.sum(side, axis=0) for side in (drawn < values[None], drawn == values[None]))
    # rank = number below + uniform on {0, ..., number of ties}
    return below + jax.random.randint(ties_key, ties.shape, 0, ties + 1)


def _simulated(
    owner: str,
    function: Callable[[Params, PyTree | None, Key], Any],
    model: Model,
    params: Params,
    xs: PyTree | Source | None,
    key: Key,
    count: int,
    transform: Callable | None,
) -> np.ndarray:
    """[function(params, x_i, key_i), i < count]: x_i is example i (mod n) where the model needs its
    inputs, else None.
    """
    require_key(key)
    if not model.inputs:
        params, counter = of_this_process(params), np.arange(count)
        return np.asarray(map_rows(_WithoutInputs(function), params, counter, key))
    if xs is None:
        raise ValueError(
            f"{owner} draws from the model, whose inputs {', '.join(model.inputs)} no density"
            " draws: give xs, examples that hold them"
        )
    _, params, source = checked_data(model, params, xs, transform)
    return map_blocks(Transformed(function, transform), params, Repeated(source, count), key)


@component
class _WithoutInputs:
    """A function of (params, x, key), at x = None in place of a number."""

    function: Callable

    def __call__(self, params: Params, number: Any, key: Key) -> Any:
        return self.function(params, None, key)


class Repeated(Source):
    """`count` examples of a source, from its first on, and from there again after its last."""

    def __init__(self, source: Source, count: int):
        self.source, self.count = source, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows: np.ndarray) -> PyTree:
        return self.source[rows % len(self.source)]


@dataclass(frozen=True)
class PredictiveCheck:
    """A statistic of the data [n] and of draws from the model [m]."""

    observed: np.ndarray
    drawn: np.ndarray

    @property
    def z_score(self) -> float:
        """(mean of the data's - mean of the draws') in standard errors of the difference.

        Of a statistic that never varies: 0 if it is the same on both, else infinite. NaN where it
        is NaN or infinite, and with fewer than two of either.
        """
        if min(len(self.observed), len(self.drawn)) < 2:
            return math.nan
        both = np.concatenate([self.observed, self.drawn])
        if np.isfinite(both).all() and np.ptp(self.observed) == np.ptp(self.drawn) == 0:
            difference = self.observed[0] - self.drawn[0]
            return math.copysign(math.inf, difference) if difference else 0.0
        (a, first), (b, second) = estimate(self.observed), estimate(self.drawn)
        return (a - b) / math.hypot(first, second)


def predictive_check(
    statistic: Callable[[Any], Float[Array, ""]],
    model: Model,
    params: Params,
    xs: PyTree | Source,
    key: Key,
    *,
    num_draws: int | None = None,
    transform: Callable[[Any, Key], Any] | None = None,
) -> PredictiveCheck:
    """`statistic(x)` of each example and of as many x ~ p(x), or `num_draws`: a model that has
    learned the data has it alike on both.

    Draw i of a conditional model has the inputs of example i (mod n), and the statistic is shown
    the whole example; of any other model it is shown what the likelihood is a density of.
    Reference: Gelman, Meng & Stern 1996, here with draws from the model as it stands, no posterior
    over its parameters.
    """
    require_key(key)
    if num_draws is not None:
        require_count(num_draws, "num_draws")
    _, params, source = checked_data(model, params, xs, transform)
    of_data = Transformed(partial(_statistic, statistic, model), transform)
    observed = map_blocks(of_data, params, source, key)
    of_draw = partial(_statistic_drawn, statistic, model)
    count, draw_key = num_draws or len(source), jax.random.fold_in(key, 1)
    drawn = _simulated(
        "predictive_check", of_draw, model, params, source, draw_key, count, transform
    )
    return PredictiveCheck(observed.astype(np.float64), drawn.astype(np.float64))


def _statistic(statistic, model: Model, params: Params, x: PyTree, key: Key) -> Scalar:
    return statistic(x if model.inputs else model.observation(x))


def _statistic_drawn(statistic, model: Model, params: Params, x: PyTree | None, key: Key) -> Scalar:
    drawn, _ = model.sample(params, key, x)
    return _statistic(statistic, model, params, drawn, key)
