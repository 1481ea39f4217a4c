"""Gradients of E f(x), x ~ N(mu, sigma^2), by four estimators: their exact mean and variance, by
quadrature over the noises in double precision.
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaejax.distributions.normal import DiagNormalDensity
from vaejax.estimators.gaussian import measure_valued_gradient

SF, SF_BEST, PW, MVD = NAMES = (
    "plain-score-function",
    "optimal-constant",
    "pathwise",
    "measure-valued",
)
PARAMETERS = {"mu": "loc", "sigma": "log_scale"}


class Rule(NamedTuple):
    """E g(noise) = sum_i weights_i g(points_i)."""

    points: np.ndarray
    weights: np.ndarray


def moments(weights, g):
    """(mean, variance) of g, from its values at the points of these weights."""
    mean = jnp.sum(weights * g)
    return mean, jnp.sum(weights * (g - mean) ** 2)


@lru_cache
def rules(num_points: int = 400) -> dict[str, Rule]:
    """Gauss-Legendre on the density of each noise, cut where it is below 1e-31.

    Gauss-Hermite would spread its points over the tails: for exp(-10 x^2) it wants a thousand.
    """
    t, w = np.polynomial.legendre.leggauss(num_points)

    def rule(density, low, high):
        points = low + (high - low) * (t + 1) / 2
        return Rule(points, density(points) * w * (high - low) / 2)

    def normal(x):
        return np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)

    return {
        "normal": rule(normal, -12, 12),
        "rayleigh": rule(lambda r: r * np.exp(-(r**2) / 2), 0, 12),
        "maxwell": rule(lambda m: m**2 * normal(m), -12, 12),
        "uniform": rule(np.ones_like, 0, 1),
    }


class Exact(NamedTuple):
    """Of a gradient in one parameter, for each k; `baseline` is what is taken from f."""

    mean: np.ndarray
    variance: np.ndarray
    baseline: np.ndarray


Curves = dict[tuple[str, str], Exact]  # {(estimator, parameter): ...}


def exact(f: Callable, ks, mu: float = 1.0, sigma: float = 1.0) -> Curves:
    """Mean and variance of each estimator of grad E f(k, x), x ~ N(mu, sigma^2), by quadrature in
    double precision.
    """
    with jax.enable_x64(True):
        q = DiagNormalDensity(jnp.asarray(float(mu)), jnp.log(jnp.asarray(float(sigma))))
        at_ks = jax.jit(jax.vmap(partial(_exact, f), (0, None)))(jnp.asarray(ks, float), q)
        curves = jax.tree.map(np.asarray, at_ks)
    unit = {"mu": 1.0, "sigma": 1 / sigma}  # d/d sigma = d/d log sigma / sigma
    return {
        (name, parameter): Exact(mean * unit[parameter], variance * unit[parameter] ** 2, baseline)
        for (name, parameter), (mean, variance, baseline) in curves.items()
    }


def _exact(f: Callable, k, q: DiagNormalDensity) -> dict[tuple[str, str], tuple]:
    """{(estimator, parameter): (mean, variance, baseline)} at one k, in (loc, log_scale) of q."""
    f, zero = partial(f, k), jnp.zeros(())
    measure_valued = {"mu": _in_loc(f, q), "sigma": _in_log_scale(f, q)}
    normal = rules()["normal"]
    noise = jnp.asarray(normal.points)
    x = at_noise(q, noise)
    values = jax.vmap(f)(x)
    # grad log q(x), and grad f(loc + scale noise)
    scores = jax.vmap(lambda x: jax.grad(lambda q: q.log_prob(x))(q))(x)
    paths = jax.vmap(lambda noise: jax.grad(lambda q: f(at_noise(q, noise)))(q))(noise)
    moments_of = {}
    for parameter, field in PARAMETERS.items():
        score, path = getattr(scores, field), getattr(paths, field)
        # b = E f s^2 / E s^2
        best = jnp.sum(normal.weights * values * score**2) / jnp.sum(normal.weights * score**2)
        moments_of[SF, parameter] = *moments(normal.weights, values * score), zero
        moments_of[SF_BEST, parameter] = *moments(normal.weights, (values - best) * score), best
        moments_of[PW, parameter] = *moments(normal.weights, path), zero
        moments_of[MVD, parameter] = *measure_valued[parameter], zero
    return moments_of


def at_noise(q: DiagNormalDensity, noise):
    """x = loc + scale noise"""
    return q.loc + jnp.exp(q.log_scale) * noise


def _in_loc(f: Callable, q: DiagNormalDensity) -> tuple:
    """(mean, variance) of the measure-valued gradient in loc, over its Rayleigh noise."""
    rule, zero = rules()["rayleigh"], jnp.zeros(())
    gradient = jax.vmap(lambda r: measure_valued_gradient(f, q, q.loc, r, zero, zero)[0])
    return moments(rule.weights, gradient(jnp.asarray(rule.points)))


def _in_log_scale(f: Callable, q: DiagNormalDensity) -> tuple:
    """In log_scale, over the pairs of its Maxwell and its uniform noise."""
    maxwell, uniform, zero = rules()["maxwell"], rules()["uniform"], jnp.zeros(())
    points = jnp.meshgrid(jnp.asarray(maxwell.points), jnp.asarray(uniform.points), indexing="ij")
    weights = np.ravel(maxwell.weights[:, None] * uniform.weights[None])
    gradient = jax.vmap(lambda m, u: measure_valued_gradient(f, q, q.loc, zero, m, u)[1])
    return moments(weights, gradient(*map(jnp.ravel, points)))
