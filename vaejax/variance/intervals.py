"""What the moments of a gradient say, with intervals."""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import jax
import numpy as np

from vaejax.base.checks import Reals, require_in, unknown_name
from vaejax.base.types import Params, PyTree
from vaejax.evaluation.pareto import pareto_k
from vaejax.variance.groups import Groups, parts
from vaejax.variance.moments import By, Moments, tree_sum


class Spread(NamedTuple):
    """The variance of a gradient over one group of parameters.

    trace            the sum of their variances
    low, high        its interval, of log(trace) at 95 %; (0, inf) where `kurtosis` is infinite
    kurtosis         E|g - m|^4 / (E|g - m|^2)^2, of one parameter the ordinary one; inf where no
                     fourth moment can be told from the draws,
                     nan where the moments are by examples, which do not show it
    snr_squared      |E g|^2 / trace, unbiased up to the ratio, so that it may be below 0
    floor            what |mean|^2 / trace would show of a gradient of mean zero
    """

    trace: float
    low: float
    high: float
    kurtosis: float
    snr_squared: float
    floor: float


def gradient_spread(moments: Moments, groups: Groups | None = None) -> dict[str, Spread]:
    """A `Spread` for each group of the moments. `groups` are those that they were measured with."""
    groups = parts(moments.mean) if groups is None else groups
    return {name: _spread(moments, name, select) for name, select in groups.items()}


def _spread(moments: Moments, name: str, select: Callable[[Params], PyTree]) -> Spread:
    n, squares = moments.num_draws, _squares(moments, name)
    trace = tree_sum(select(moments.variance))
    norm = tree_sum(jax.tree.map(np.square, select(moments.mean)))
    if not math.isfinite(trace):
        return Spread(trace, math.nan, math.nan, math.nan, math.nan, 1 / n)
    if trace == 0:
        return Spread(0.0, 0.0, 0.0, math.nan, math.inf if norm > 0 else math.nan, 1 / n)
    # The variance of a variance is a fourth moment: it exists where the tail of |g|^2 falls faster
    # than its square.
    with np.errstate(divide="ignore"):
        finite = pareto_k(np.log(np.abs(squares))) < 0.5
    half = 1.96 * _error_of_mean(squares, moments.by) / trace
    half = min(half, 700.0)  # more, where the trace is rounding, would overflow
    low, high = (trace * math.exp(-half), trace * math.exp(half)) if finite else (0.0, math.inf)
    # Var |g - m|^2 = (kurtosis - 1) trace^2
    kurtosis = 1 + float(squares.std(ddof=1) / trace) ** 2 if moments.by == "draws" else math.nan
    kurtosis = kurtosis if finite else math.inf
    # |E g|^2 = E |mean|^2 - trace / n
    snr_squared = (norm - trace / n) / trace
    return Spread(trace, low, high, kurtosis, snr_squared, 1 / n)


def _error_of_mean(series: np.ndarray, by: By) -> float:
    """The standard error of the mean of numbers that are independent, or, by examples, share a draw
    with each neighbour.
    """
    centred = series - series.mean()
    covariance = np.mean(centred**2) + (
        2 * np.mean(centred * np.roll(centred, 1)) if by == "examples" else 0
    )
    return math.sqrt(max(covariance, 0) / (len(series) - 1))


class Ratio(NamedTuple):
    """trace(a) / trace(b), with an interval at 95 % from draws of common random numbers."""

    ratio: float
    low: float
    high: float


def variance_ratio(a: Moments, b: Moments, group: str) -> Ratio:
    """How many times the variance of b is that of a, over a group: from moments that were measured
    with one key.

    The draws are paired, so that what both estimators have in common cancels from the interval, log
    ratio +- 1.96 standard errors of mean(A_i / mean A - B_i / mean B), A_i and B_i the squares of
    draw i. Against an estimator without variance it is 0 or inf, between two of them NaN, and NaN
    where a gradient is.
    """
    if (a.num_draws, a.by) != (b.num_draws, b.by):
        raise ValueError(
            f"{a.num_draws} draws, by={a.by!r}, against {b.num_draws}, by={b.by!r}; measure both"
            " alike, with one key, so that draws are pairs"
        )
    squares_a, squares_b = _squares(a, group), _squares(b, group)
    mean_a, mean_b = (max(float(squares.mean()), 0.0) for squares in (squares_a, squares_b))
    if not (0 < mean_a < math.inf and 0 < mean_b < math.inf):
        return Ratio(*[_ratio_of_limits(mean_a, mean_b)] * 3)
    # A_i / mean A - B_i / mean B
    series = squares_a / mean_a - squares_b / mean_b
    half = min(1.96 * _error_of_mean(series, a.by), 700.0)  # as above
    ratio = mean_a / mean_b
    return Ratio(ratio, ratio * math.exp(-half), ratio * math.exp(half))


def _squares(moments: Moments, group: str) -> np.ndarray:
    if group not in moments.squares:
        raise ValueError(unknown_name("group", group, list(moments.squares)))
    return moments.squares[group]


def _ratio_of_limits(a: float, b: float) -> float:
    """a / b of which one is 0, infinite or NaN."""
    if b == 0:
        return math.inf if a > 0 else math.nan
    return a / b


class Bias(NamedTuple):
    """A mean gradient against a reference.

    largest_z        the largest |z| of a parameter
    p_value          that of it, for all parameters together
    detectable       the least bias of one parameter that would be found 99 times in 100
    squared          |E g - reference|^2, without the noise of the means, so that it may be below 0;
                     with a `Spread`'s trace it is the mean squared error of one gradient
    """

    largest_z: float
    p_value: float
    detectable: float
    squared: float


def gradient_bias(
    moments: Moments,
    reference: Params,
    standard_error: Params | None = None,
    false_alarm: float = 1e-6,
    select: Callable[[Params], PyTree] | None = None,
) -> Bias:
    """The mean of the draws against an exact gradient, or one of this `standard_error`, parameter
    by parameter.

    `p_value` is that of the largest |z|, times the number of parameters (Bonferroni, which for the
    smallest is Holm). `select` takes a group; None takes theta and phi, for psi is no parameter of
    the bound. ValueError where a number is NaN or infinite.
    """
    require_in(false_alarm, "false_alarm", Reals(0, 1, is_open=True))
    select = select or (lambda params: params[:2])
    trees = {"mean": moments.mean, "variance": moments.variance, "reference": reference}
    if standard_error is not None:
        trees["standard_error"] = standard_error
    numbers = _alike({name: _flat(select(tree), name) for name, tree in trees.items()})
    mean, expected = numbers["mean"], numbers["reference"]
    difference = mean - expected
    # Var (mean - reference) = Var g / n + e^2
    variance = numbers["variance"] / moments.num_draws
    variance = variance + np.square(numbers.get("standard_error", 0.0))
    error = np.sqrt(variance)
    z = _z_scores(difference, error, expected)
    largest = float(z.max())
    # Bonferroni: n P(|Z| > largest)
    p_value = min(1.0, z.size * math.erfc(largest / math.sqrt(2)))
    # A bias of so many standard errors passes the threshold 99 times in 100.
    needed = -NormalDist().inv_cdf(false_alarm / z.size / 2) + NormalDist().inv_cdf(0.99)
    squared = float(np.sum(difference**2 - variance, dtype=np.float64))
    return Bias(largest, p_value, float(needed * error.max()), squared)


def _alike(numbers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if len({len(part) for part in numbers.values()}) > 1:
        counts = ", ".join(f"{name} {len(part)}" for name, part in numbers.items())
        raise ValueError(f"the trees have not equally many numbers: {counts}")
    return numbers


def _z_scores(difference: np.ndarray, error: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """|difference| / error. Where there is no noise that single precision would show, a difference
    is there, so that z is infinite, or is not.
    """
    is_exact = error <= 1e-7 * (1 + np.abs(expected))
    difference = np.abs(difference)
    is_there = difference > 1e-5 * (1 + np.abs(expected))
    z = difference / np.where(is_exact, 1, error)
    return np.where(is_exact, np.where(is_there, np.inf, 0.0), z)


def _flat(tree: PyTree, name: str) -> np.ndarray:
    """All its numbers in a row; ValueError where one is NaN or infinite."""
    numbers = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    if not np.isfinite(numbers).all():
        raise ValueError(
            f"gradient_bias: the {name} has NaN or infinity, so its bias is not defined;"
            " jax.debug_nans shows where it arises"
        )
    return numbers
