"""Every conditional around a net whose parameters are its outputs, and its density by scipy."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
from scipy import special, stats

import vaejax
from vaejax import supports

BOUND = 7.0  # of log-scales


@vaejax.component
class Outputs:
    """A net whose parameters are its outputs."""

    shape: tuple[int, ...]
    heads: int = 1

    def init(self, key, example):
        outputs = tuple(jax.random.normal(key, (self.heads, *self.shape)))
        return outputs if self.heads > 1 else outputs[0]

    def apply(self, params, example):
        return params


def bounded(raw, limit=BOUND):
    return limit * np.tanh(raw / limit)


def normal(outputs, x):
    return stats.norm.logpdf(x, outputs[0], np.exp(bounded(outputs[1]))).sum()


def full_normal(outputs, x):
    loc, log_scale, *rows = outputs
    factor = np.diag(np.exp(bounded(log_scale))) @ (
        np.eye(len(loc)) + np.tril(bounded(np.array(rows), 30.0), -1)
    )
    return stats.multivariate_normal.logpdf(x, loc, factor @ factor.T)


def low_rank_normal(outputs, x):
    loc, log_scale, *columns = outputs
    scale, factor = np.diag(np.exp(bounded(log_scale))), bounded(np.array(columns).T, 30.0)
    return stats.multivariate_normal.logpdf(
        x, loc, scale @ (np.eye(len(loc)) + factor @ factor.T) @ scale
    )


def laplace(outputs, x):
    scale = np.exp(bounded(outputs[1]))
    return np.sum(
        -np.abs(x - outputs[0]) / scale - np.log(2 * scale)
    )  # scipy's is log of a density that underflows


def von_mises_fisher(natural, x):
    kappa = np.linalg.norm(natural)
    return stats.vonmises_fisher.logpdf(x, natural / kappa, bounded(kappa, 1e4))


def bernoulli(logits, x):
    return stats.bernoulli.logpmf(x, special.expit(logits)).sum()


def continuous_bernoulli(logits, x):
    return np.sum(x * logits - np.log(np.expm1(logits) / logits))


def categorical(logits, x):
    levels = np.round(x * (logits.shape[-1] - 1)).astype(int)
    return np.take_along_axis(special.log_softmax(logits, -1), levels[..., None], -1).sum()


def discretized_logistic(outputs, x, num_levels=256):
    logits, loc, log_scale = np.array(
        outputs if len(outputs) > 2 else (0 * outputs[0], *outputs)
    ).reshape(3, -1, *x.shape)
    edges = [
        np.where(x == 0, -np.inf, x - 0.5 / (num_levels - 1)),
        np.where(x == 1, np.inf, x + 0.5 / (num_levels - 1)),
    ]
    low, high = ((edge - loc - 0.5) / np.exp(bounded(log_scale - 2, 10.0)) for edge in edges)
    low, high = (
        np.where(low > 0, -high, low),
        np.where(low > 0, -low, high),
    )  # in the left tail a difference loses nothing
    return np.log(
        np.sum(special.softmax(logits, 0) * (special.expit(high) - special.expit(low)), 0)
    ).sum()


def poisson(raw, x):
    return stats.poisson.logpmf(x, np.exp(bounded(raw, 15.0))).sum()


def negative_binomial(outputs, x):
    mean, concentration = np.exp(bounded(outputs[0], 15.0)), np.exp(bounded(outputs[1]))
    return stats.nbinom.logpmf(x, concentration, concentration / (concentration + mean)).sum()


def one_hot(logits, x):
    return np.sum(x * special.log_softmax(logits, -1))


def relaxed_categorical(logits, y, temperature=0.5):
    """The Concrete density of x = exp(y), with respect to the logits of x: dx = prod_c x_c d
    logits.
    """
    n, x = logits.shape[-1], np.exp(y)
    weights = np.exp(logits)
    ratio = (
        np.prod(weights * x ** (-temperature - 1), -1) / np.sum(weights * x**-temperature, -1) ** n
    )
    density = special.gamma(n) * temperature ** (n - 1) * ratio * np.prod(x, -1)
    return np.sum(np.log(density))


def relaxed_bernoulli(logits, y, temperature=0.5):
    return relaxed_categorical(
        np.stack([logits, 0 * logits], -1), special.log_expit(np.stack([y, -y], -1)), temperature
    )


def gumbel(outputs, x):
    return stats.gumbel_r.logpdf(x, outputs[0], np.exp(outputs[1])).sum()


def gumbel_family(loc, log_scale):
    return npd.Gumbel(loc, jnp.exp(log_scale))


REALS = [np.array([0.3, -1.2]), np.zeros(2), np.array([40.0, -1e3])]


PIXELS = [np.array([0.0, 1.0]), np.array([3 / 255, 1.0]), np.array([128 / 255, 127 / 255])]


UNIT = [np.array([0.3, 0.8]), np.array([0.5, 1e-3])]


COUNTS = [np.array([0.0, 3.0]), np.array([255.0, 17.0])]


TRIANGLE = [np.array([[0.2, 0.5, 0.3], [0.9, 0.05, 0.05]])]


CORNERS = [np.eye(3)[[0, 2]], np.eye(3)[[1, 1]]]


SPHERE = [np.array([0.6, 0.0, -0.8]), np.array([0.0, 0.0, 1.0])]


@dataclass(frozen=True)
class Case:
    """A conditional, the heads that it asks of its net, its density by scipy, its support, and
    data.
    """

    make: Callable[[Any], Any]
    heads: int
    density: Callable
    support: supports.Support
    data: list[np.ndarray]
    shape: tuple[int, ...] = (2,)
    boundary: tuple[np.ndarray, ...] = ()

    @property
    def component(self):
        return self.make(Outputs(self.shape, self.heads))

    def params(self, outputs):
        return outputs


@dataclass(frozen=True)
class GaussianCase(Case):
    """Its parameters have the net's in them."""

    extra: tuple = ()

    def params(self, outputs):
        return {"net": outputs} | {name: jnp.asarray(value) for name, value in self.extra}


def gaussian(log_scale, loc, x):
    return stats.norm.logpdf(x, loc, np.exp(log_scale)).sum()


CASES = {
    "DiagNormal": Case(vaejax.DiagNormal, 2, normal, supports.REAL, REALS),
    "FullNormal": Case(vaejax.FullNormal, 4, full_normal, supports.REAL, REALS),
    "LowRankNormal": Case(vaejax.LowRankNormal, 3, low_rank_normal, supports.REAL, REALS),
    "LowRankNormal, rank 2": Case(
        vaejax.LowRankNormal, 4, low_rank_normal, supports.REAL, [np.array([0.3, -1.2, 0.5])], (3,)
    ),
    "Gaussian": GaussianCase(
        partial(vaejax.Gaussian, scale=0.3), 1, partial(gaussian, np.log(0.3)), supports.REAL, REALS
    ),
    "Gaussian, learned": GaussianCase(
        partial(vaejax.Gaussian, scale="learned"),
        1,
        partial(gaussian, -0.7),
        supports.REAL,
        REALS,
        extra=(("log_scale", -0.7),),
    ),
    "Gaussian, per dimension": GaussianCase(
        partial(vaejax.Gaussian, scale="per-dimension"),
        1,
        partial(gaussian, np.array([-0.7, 1.1])),
        supports.REAL,
        REALS,
        extra=(("log_scale", (-0.7, 1.1)),),
    ),
    "Laplace": Case(vaejax.Laplace, 2, laplace, supports.REAL, REALS),
    "VonMisesFisher": Case(
        vaejax.VonMisesFisher, 1, von_mises_fisher, supports.SPHERE, SPHERE, (3,)
    ),
    "Bernoulli": Case(vaejax.Bernoulli, 1, bernoulli, supports.BINARY, [np.array([0.0, 1.0])]),
    "ContinuousBernoulli": Case(
        vaejax.ContinuousBernoulli,
        1,
        continuous_bernoulli,
        supports.UNIT_INTERVAL,
        [*UNIT, np.array([0.0, 1.0])],
    ),
    "Categorical": Case(vaejax.Categorical, 1, categorical, supports.levels(256), PIXELS, (2, 256)),
    "DiscretizedLogistic": Case(
        vaejax.DiscretizedLogistic, 2, discretized_logistic, supports.levels(256), PIXELS
    ),
    "DiscretizedLogistic, mixture": Case(
        vaejax.DiscretizedLogistic, 9, discretized_logistic, supports.levels(256), PIXELS
    ),
    "Poisson": Case(vaejax.Poisson, 1, poisson, supports.COUNTS, COUNTS),
    "NegativeBinomial": Case(
        vaejax.NegativeBinomial, 2, negative_binomial, supports.COUNTS, COUNTS
    ),
    "OneHotCategorical": Case(
        vaejax.OneHotCategorical, 1, one_hot, supports.ONE_HOT, CORNERS, (2, 3)
    ),
    "RelaxedBernoulli": Case(
        vaejax.RelaxedBernoulli,
        1,
        relaxed_bernoulli,
        supports.RELAXED_BINARY,
        [special.logit(x) for x in UNIT],
        boundary=(np.array([-1e4, 1e4]),),
    ),
    "RelaxedCategorical": Case(
        vaejax.RelaxedCategorical,
        1,
        relaxed_categorical,
        supports.RELAXED_ONE_HOT,
        [np.log(x) for x in TRIANGLE],
        (2, 3),
        boundary=tuple(1e4 * (x - 1) for x in CORNERS),
    ),
    "NumPyroConditional": Case(
        partial(vaejax.NumPyroConditional, family=gumbel_family),
        2,
        gumbel,
        supports.REAL,
        REALS[:2],
    ),
}


def stacked(outputs):
    """Outputs [heads, *shape] in the form that a net gives."""
    return tuple(outputs) if len(outputs) > 1 else outputs[0]
