"""The tail of a sample: the shape k of the generalised Pareto distribution that its largest values
follow.
"""

import math

import numpy as np


def pareto_k(values: np.ndarray) -> float:
    """k-hat: moments of order below 1/k exist. Fitted to the min(n/5, 3 sqrt n) largest of
    `values`, which must be at least 0.

    The estimate is a posterior mean over a grid, drawn towards 0.5 by as much as ten values weigh;
    nan with fewer than 25 values. References: Zhang & Stephens 2009 for the fit; Vehtari, Simpson,
    Gelman, Yao & Gabry for its use.
    """
    values = np.sort(np.asarray(values, np.float64))
    count = int(min(0.2 * len(values), 3 * math.sqrt(len(values))))
    if count < 5:
        return math.nan
    threshold = values[-count - 1]
    tail = values[-count:] - threshold
    if tail[-1] <= 0:
        return -math.inf  # constant: no tail
    tail = tail[tail > 0]
    size = len(tail)
    grid_size = 30 + int(math.sqrt(size))
    quartile = tail[int(size / 4 + 0.5) - 1] if size >= 2 else tail[0]
    steps = 1 - np.sqrt(grid_size / (np.arange(1, grid_size + 1) - 0.5))
    b = steps / (3 * quartile) + 1 / tail[-1]
    k = np.mean(np.log1p(-b[:, None] * tail[None]), axis=1)
    log_likelihood = size * (np.log(-(b / k)) - k - 1)
    weights = np.exp(log_likelihood - log_likelihood.max())
    best = np.sum(b * weights) / np.sum(weights)
    k_hat = float(np.mean(np.log1p(-best * tail)))
    return (size * k_hat + 10 * 0.5) / (size + 10)
