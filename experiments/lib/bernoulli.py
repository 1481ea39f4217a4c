"""E f(b), f(b) = mean_i (b_i - t)^2, of D Bernoulli variables with P(b_i = 1) = p: the model, and
what is exact of the gradient in their logits.
"""

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vaejax
from vaejax.estimators.binary_layers import logit
from vaejax.estimators.control_variates import double_control_variate_gradient, rebar_gradient
from vaejax.estimators.disarm import disarm_gradient

RELAX_NET = vaejax.MLP(1, (20,))
TEMPERATURE = 0.5  # of the relaxed gradient


@vaejax.component
class MeanSquare:
    """f(b) = mean_i (b_i - t)^2, whatever the example x."""

    t: float

    def __call__(self, x: Any, b: Any) -> jax.Array:
        return jnp.mean((b - self.t) ** 2)


def expectation(t: float, dim: int, held: bool = True) -> vaejax.Expectation:
    """The model whose ELBO is E f, q = Bernoulli(sigmoid(logits)), phi = {"logits": [dim]}."""
    return vaejax.Expectation(MeanSquare(t), vaejax.Bernoulli(vaejax.Free(dim, ("logits",))), held)


def exact_gradient(t: float, p: float, dim: int) -> float:
    """dE f / dl_i = p (1 - p) [(1 - t)^2 - t^2] / D, of one logit."""
    return p * (1 - p) * ((1 - t) ** 2 - t**2) / dim


def closed_forms(t: float, p: float, dim: int, k: int) -> dict[str, float]:
    """The traces of two estimators of K samples in any dimension D, by the moments of f and of the
    score s_i = b_i - p, g = E f s_i.

    plain-score-function    D (E[f^2 s_i^2] - g^2) / K
    score-function          D [E[(f - E f)^2 s_i^2] - (K-2)/(K-1) g^2 + Var f Var s_i / (K-1)] / K
    """
    v = p * (1 - p)
    f0, f1 = t**2 / dim, (1 - t) ** 2 / dim  # the part of f of one coordinate, at 0 and at 1
    mean, variance = p * f1 + (1 - p) * f0, v * (f1 - f0) ** 2  # of that part

    def with_score(c: float) -> float:
        """E[(f - c)^2 s_i^2]: b_i by its values, the others by mean and variance."""
        others = (dim - 1) * mean - c
        values = ((p, 1 - p, f1), (1 - p, -p, f0))  # (probability, score, part of f)
        return sum(
            weight * score**2 * ((part + others) ** 2 + (dim - 1) * variance)
            for weight, score, part in values
        )

    g = v * (f1 - f0)
    centred = with_score(dim * mean) - (k - 2) / (k - 1) * g**2 + dim * variance * v / (k - 1)
    return {
        "plain-score-function": dim * (with_score(0.0) - g**2) / k,
        "score-function": dim * centred / k,
    }


class Integrand(NamedTuple):
    """An estimator as a function of uniform numbers u [n, 1]; n; the number of Gauss-Legendre nodes
    that each cell between its jumps needs; and how many independent copies of it are averaged.
    """

    estimate: Callable[[jax.Array], jax.Array]
    num_uniforms: int
    nodes: int
    copies: int


def integrand(name: str, t: float, p: float, k: int, psi: Any) -> Integrand:
    """An estimator of K evaluations of f in one logit, by the library's formulas."""
    f: Any = partial(MeanSquare(t), None)
    l = jnp.asarray([math.log(p / (1 - p))])

    def samples(u):
        return (u < p).astype(u.dtype)

    def score_function(u):
        return f(samples(u)) * (samples(u[0]) - p)

    def double_control_variate(a, u):
        return double_control_variate_gradient(f, l, samples(u), a)

    def relaxed(u):
        return jax.grad(lambda l: f(jax.nn.sigmoid((l + logit(u[0])) / TEMPERATURE)))(l)

    def straight_through(u):
        return jax.grad(f)(samples(u[0])) * p * (1 - p)

    def disarm(u):
        return disarm_gradient(f(samples(1 - u[0])) - f(samples(u[0])), l, u[0])

    def controlled(estimator, u):
        control = estimator.control(psi, lambda z, t: f(jax.nn.sigmoid(z / t)), (jnp.zeros(()),))
        return rebar_gradient(f(samples(1 - u[0])), control, l, u[0])

    table = {
        "plain-score-function": Integrand(score_function, 1, 1, k),
        "score-function": Integrand(partial(double_control_variate, 0.0), k, 1, 1),
        "disarm": Integrand(disarm, 1, 1, k // 2),
        "double-control-variate": Integrand(partial(double_control_variate, psi), k, 1, 1),
        "rebar": Integrand(partial(controlled, vaejax.REBAR()), 1, 400, k // 2),
        "relax": Integrand(partial(controlled, vaejax.RELAX(RELAX_NET)), 1, 400, k // 2),
        "relaxed": Integrand(relaxed, 1, 60, k),
        "straight-through": Integrand(straight_through, 1, 1, k),
    }
    return table[name]


def exact_moments(name: str, t: float, p: float, k: int, psi: Any) -> tuple[float, float]:
    """Mean and variance of an estimator in one logit, by quadrature over its uniform numbers, cut
    at p and 1 - p where it may jump.
    """
    estimate, number, nodes_per_cell, copies = integrand(name, t, p, k, psi)
    jumps = [p, 1 - p] if nodes_per_cell > 1 or name == "disarm" else [p]
    cells = list(itertools.pairwise(np.unique([0, 1, *jumps])))
    nodes, weights = np.polynomial.legendre.leggauss(nodes_per_cell)
    u = np.concatenate([low + (high - low) * (nodes + 1) / 2 for low, high in cells])
    w = np.concatenate([(high - low) * weights / 2 for low, high in cells])
    us, ws = (
        np.stack(np.meshgrid(*[values] * number, indexing="ij"), axis=-1).reshape(-1, number)
        for values in (u, w)
    )
    g = np.asarray(jax.jit(jax.vmap(estimate))(jnp.asarray(us[:, :, None])))[:, 0]
    products = np.prod(ws, axis=1)
    mean = float(products @ g)
    return mean, float(products @ (g - mean) ** 2) / copies
