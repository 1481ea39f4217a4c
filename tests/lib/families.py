"""NumPyro families as prior and encoder of one latent, with a rule of quadrature for each."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd

import vaejax
from tests.lib.conditionals import Outputs
from vaejax import supports


@vaejax.component
class First:
    """z -> w z_1 + b."""

    def init(self, key, example):
        return {"w": jnp.asarray(0.9), "b": jnp.asarray(-0.2)}

    def apply(self, params, z):
        return params["w"] * z[:1] + params["b"]


# Quadrature: z and |dz/dt| at t on a grid, on which all integrands fall off exponentially.

GRID = np.linspace(-14, 14, 701)


STEP = GRID[1] - GRID[0]


def on_positive(t):
    return np.exp(t)[:, None], np.exp(t)


def on_unit(t):
    z = 1 / (1 + np.exp(-t))
    return z[:, None], z * (1 - z)


def on_real(t):
    t = t / 3
    return np.sinh(t)[:, None] * 3, np.cosh(t)


def on_simplex(t):
    z, jacobian = on_unit(t)
    return np.concatenate([z, 1 - z], 1), jacobian


def on_circle(t):
    angle = (t + 14) / 28 * 2 * np.pi
    weights = np.full(len(t), 2 * np.pi / 28)
    weights[-1] = 0  # the first point again
    return np.stack([np.cos(angle), np.sin(angle)], 1), weights


class Family(NamedTuple):
    """A family of the net's outputs, the prior's member of it, and the set that both are on."""

    make: Callable[..., npd.Distribution]
    heads: int
    prior: Callable[[], npd.Distribution]
    nodes: Callable
    support: supports.Support
    shape: tuple[int, ...] = (1,)

    @property
    def model(self):
        encoder = vaejax.NumPyroConditional(Outputs(self.shape, self.heads), self.make)
        likelihood = vaejax.Gaussian(First(), 2.0)
        return vaejax.VAE(vaejax.NumPyroPrior(self.prior), likelihood, encoder)

    @property
    def params(self):
        """The raw heads start at 0.3, -0.2, 0.4."""
        heads = tuple(jnp.full(self.shape, raw) for raw in (0.3, -0.2, 0.4)[: self.heads])
        if self.shape == (2,):
            heads = tuple(head + jnp.asarray([0.5, 0.0]) for head in heads)
        phi = heads if self.heads > 1 else heads[0]
        return vaejax.Params({"prior": (), "likelihood": {"net": First().init(None, None)}}, phi)


def one(p):
    """p as the density of a vector of one number."""
    return lambda: p.expand((1,)).to_event(1)


def beta_prior():
    """Of vectors: NumPyro promotes ranks in the density of one that is expanded."""
    return npd.Beta(jnp.full(1, 2.0), jnp.full(1, 1.5)).to_event(1)


def gamma(a, b):
    return npd.Gamma(3 * jnp.exp(a), 3 * jnp.exp(b))


def beta(a, b):
    return npd.Beta(1.5 * jnp.exp(a), 1.5 * jnp.exp(b))


def log_normal(loc, log_scale):
    return npd.LogNormal(loc, jnp.exp(log_scale - 0.7))


def exponential(log_rate):
    return npd.Exponential(jnp.exp(log_rate))


def half_normal(log_scale):
    return npd.HalfNormal(jnp.exp(log_scale))


def weibull(a, b):
    return npd.Weibull(jnp.exp(a), 1.5 * jnp.exp(b))


def student_t(loc, log_scale, log_df):
    return npd.StudentT(6 * jnp.exp(log_df), loc, jnp.exp(log_scale))


def laplace(loc, log_scale):
    return npd.Laplace(loc, jnp.exp(log_scale))


def kumaraswamy(a, b):
    return npd.Kumaraswamy(1.5 * jnp.exp(a), 1.5 * jnp.exp(b))


def dirichlet(a):
    return npd.Dirichlet(1.5 * jnp.exp(a))


def projected_normal(a):
    return npd.ProjectedNormal(a)


POSITIVE, UNIT, REAL = supports.POSITIVE, supports.UNIT_INTERVAL, supports.REAL


FAMILIES = {
    "Gamma": Family(gamma, 2, one(npd.Gamma(2.0, 1.5)), on_positive, POSITIVE),
    "Beta": Family(beta, 2, beta_prior, on_unit, UNIT),
    "LogNormal": Family(log_normal, 2, one(npd.LogNormal(0.1, 0.7)), on_positive, POSITIVE),
    "Exponential": Family(exponential, 1, one(npd.Exponential(0.7)), on_positive, POSITIVE),
    "HalfNormal": Family(half_normal, 1, one(npd.HalfNormal(1.2)), on_positive, POSITIVE),
    "Weibull": Family(weibull, 2, one(npd.Weibull(1.0, 1.4)), on_positive, POSITIVE),
    "Weibull to Gamma": Family(weibull, 2, one(npd.Gamma(2.0, 1.5)), on_positive, POSITIVE),
    "StudentT": Family(student_t, 3, one(npd.StudentT(5.0, 0.0, 1.0)), on_real, REAL),
    "Laplace": Family(laplace, 2, one(npd.Laplace(0.0, 1.0)), on_real, REAL),
    "Beta to uniform": Family(beta, 2, one(npd.Uniform(0.0, 1.0)), on_unit, UNIT),
    "Kumaraswamy": Family(kumaraswamy, 2, one(npd.Kumaraswamy(2.0, 1.5)), on_unit, UNIT),
    "Kumaraswamy to Beta": Family(kumaraswamy, 2, beta_prior, on_unit, UNIT),
    "Dirichlet": Family(
        dirichlet,
        1,
        lambda: npd.Dirichlet(jnp.asarray([2.0, 1.5])),
        on_simplex,
        supports.SIMPLEX,
        (2,),
    ),
    "ProjectedNormal": Family(
        projected_normal,
        1,
        lambda: npd.ProjectedNormal(jnp.asarray([0.5, -0.3])),
        on_circle,
        supports.SPHERE,
        (2,),
    ),
}
