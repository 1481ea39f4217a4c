"""Gradients of an importance-weighted bound as the number K of its samples grows: the constants of
their means and standard deviations, where p(z|x) and q(z|x) are normal.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Constants(NamedTuple):
    """As K grows, E g ~ limit + signal / K in each coordinate, and the standard deviation of g ~
    deviation K^exponent.
    """

    limit: np.ndarray
    signal: np.ndarray
    deviation: np.ndarray
    exponent: float

    def mean(self, k: Any) -> np.ndarray:
        return self.limit + self.signal / k

    def std(self, k: Any) -> np.ndarray:
        return self.deviation * k**self.exponent


class Posterior(NamedTuple):
    """p(z|x) = N(centre, variance I) of each datum, beside q(z|x) = N(loc, variance_of_q I); the
    means are [N, dim].
    """

    centre: np.ndarray
    loc: np.ndarray
    variance: float
    variance_of_q: float

    def expectation(self, power: int, f: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """E_q w^power f(z) [N, dim] for f of degree 3 or less: w^power q is a Gaussian but for its
        mass, and two points integrate f.
        """
        variance, variance_of_q = self.variance, self.variance_of_q
        v = power * variance_of_q + (1 - power) * variance
        if v <= 0:
            raise ValueError(f"the weights have no moment of order {power}")
        log_mass = (1 - power) * math.log(variance) + power * math.log(variance_of_q) - math.log(v)
        squares = power * (1 - power) * (self.centre - self.loc) ** 2 / (2 * v)
        mass = np.exp(np.sum(log_mass / 2 - squares, axis=1, keepdims=True))
        mean = (power * self.centre * variance_of_q + (1 - power) * self.loc * variance) / v
        sd = math.sqrt(variance * variance_of_q / v)
        return mass * (f(mean + sd) + f(mean - sd)) / 2

    def joint(self, z):
        """l(z) = d/dz log p(x, z)."""
        return (self.centre - z) / self.variance

    def score(self, z):
        """s(z) = (z - A x - b) / variance_of_q, the score of q in b."""
        return (z - self.loc) / self.variance_of_q

    def path(self, z):
        """h(z) = l(z) + s(z) = d/dz log w."""
        return self.joint(z) + self.score(z)


def of_mean(limit, signal, variance, exponent: float) -> Constants:
    """Those of a mean over data with independent noise, from each datum's [N, dim]."""
    size = len(variance)
    limit, signal, variance = (np.mean(part, axis=0) for part in (limit, signal, variance))
    return Constants(limit, signal, np.sqrt(variance / size), exponent)


def self_normalised(p: Posterior, f) -> Constants:
    """Of sum_k w~_k f(z_k): mean E_q w f - E_q w^2 f_0 / K, variance E_q w^2 f_0^2 / K, with f_0 =
    f - E_q w f.
    """
    limit = p.expectation(1, f)
    signal = -p.expectation(2, lambda z: f(z) - limit)
    return of_mean(limit, signal, p.expectation(2, lambda z: (f(z) - limit) ** 2), -0.5)


def doubly_reparameterised(p: Posterior) -> Constants:
    """Of sum_k w~_k^2 h(z_k): mean G / K with G = E_q w^2 h, variance Var_q(w^2 h - 2 G w) /
    K^3.
    """
    g = p.expectation(2, p.path)
    # E_q (w^2 h - 2 G w)^2 = E_q w^4 h^2 - 4 G E_q w^3 h + 4 G^2 E_q w^2
    square = (
        p.expectation(4, lambda z: p.path(z) ** 2)
        - 4 * g * p.expectation(3, p.path)
        + 4 * g**2 * p.expectation(2, np.ones_like)
    )
    return of_mean(np.zeros_like(g), g, square - g**2, -1.5)
