"""The tail of a sample: the shape k of the generalised Pareto distribution that its largest values
follow.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

FEWEST_VALUES, FEWEST_IN_TAIL = 25, 5  # for a fit
# Of an excess over the threshold, beside a largest value of 1.
LEAST = 1e-307  # the fit divides by it
ROUNDING = 1e-3  # of logarithms in single precision


def pareto_k(log_values: ArrayLike) -> float:
    """k-hat of values that are at least 0, given by their logarithms: moments of order below 1/k
    exist. Fitted to how far the min(n/5, 3 sqrt n) largest lie above the largest of the others.

    The estimate is a posterior mean over a grid, drawn towards 0.5 by as much as ten values weigh.

    -inf  all of these are equal to the threshold, or many are and the others by a thousandth, as
          those of a constant are: there is no tail
    inf   all rests on few: fewer than five lie above it, or a quarter of them is too small beside
          the largest for float64, or a value is infinite
    nan   one is NaN, all are 0, or there are fewer than 25

    References: Zhang & Stephens 2009 for the fit; Vehtari, Simpson, Gelman, Yao & Gabry for its
    use.
    """
    logs = np.asarray(log_values, np.float64)
    if logs.ndim != 1:
        raise ValueError(
            f"pareto_k takes the logarithms of one sample, [n], and these have shape {logs.shape};"
            " give it one row at a time"
        )
    logs = np.sort(logs)  # NaN comes last
    if len(logs) < FEWEST_VALUES or np.isnan(logs[-1]) or logs[-1] == -math.inf:
        return math.nan
    if logs[-1] == math.inf:
        return math.inf
    count = min(len(logs) // 5, int(3 * math.sqrt(len(logs))))
    # A factor common to all values does not change the shape.
    logs = logs[-count - 1 :] - logs[-1]
    values = np.exp(logs)
    tail = values[1:] - values[0]
    if tail[-1] == 0:
        return -math.inf
    if -math.inf < _quartile(logs[1:]) < math.log(LEAST):
        return math.inf  # three quarters of the tail, at the most, are all there is
    if _quartile(tail) < LEAST:
        # A quarter lies on the threshold, where no density has so many: the others are the tail.
        if tail[-1] < ROUNDING:
            return -math.inf
        tail = tail[tail >= LEAST]
    return _shape(tail) if len(tail) >= FEWEST_IN_TAIL else math.inf


def _quartile(tail: np.ndarray) -> float:
    return tail[int(len(tail) / 4 + 0.5) - 1]


def _shape(tail: np.ndarray) -> float:
    """k of sorted values above 0, its quartile at least LEAST."""
    size = len(tail)
    grid_size = 30 + int(math.sqrt(size))
    # b = -k / scale on a grid
    steps = 1 - np.sqrt(grid_size / (np.arange(1, grid_size + 1) - 0.5))
    b = steps / (3 * _quartile(tail)) + 1 / tail[-1]
    # k(b) = mean log(1 - b x), the profile log-likelihood n (log(-b / k) - k - 1)
    k = np.mean(np.log1p(-b[:, None] * tail[None]), axis=1)
    inverse_scale = np.divide(-b, k, out=np.full_like(b, 1 / tail.mean()), where=b != 0)
    log_likelihood = size * (np.log(inverse_scale) - k - 1)
    weights = np.exp(log_likelihood - log_likelihood.max())
    posterior_mean = np.sum(b * weights) / np.sum(weights)
    k_hat = float(np.mean(np.log1p(-posterior_mean * tail)))
    return (size * k_hat + 10 * 0.5) / (size + 10)
