"""Densities on the unit sphere of R^d, with respect to its surface.

Both the constant of von Mises-Fisher and the gradient of its sampler are integrals over t = <loc, z>, whose density is proportional
to exp(kappa t) (1 - t^2)^((d-3)/2). In t = tanh u the integrand is analytic and falls off at both ends like exp(-(d-1)|u|), where the
trapezoidal rule converges geometrically: so there is no Bessel function here, and no recursion that could overflow.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vaejax._values import pytree
from vaejax.distributions import as_event
from vaejax.types import Key, Scalar

MAX_CONCENTRATION = 1e6  # up to which the nodes below reach


def log_area(dim: int) -> float:
    """log of the surface of the unit sphere in R^dim."""
    return math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)


@pytree
class UniformOnSphere:
    """-log area, nats: the uniform density on the unit sphere. The field only carries the shape: [d]."""

    like: Float[Array, " d"]

    @property
    def mean(self) -> jax.Array:
        return jnp.zeros_like(self.like)

    def entropy(self) -> float:
        return log_area(self.like.size)

    def sample(self, key: Key) -> jax.Array:
        return _normalised(jax.random.normal(key, self.like.shape, self.like.dtype))

    def log_prob(self, value: ArrayLike) -> Scalar:
        as_event("UniformOnSphere", value, self.like)
        return jnp.full((), -log_area(self.like.size), self.like.dtype)


@pytree
class VonMisesFisher:
    """log vMF(z; loc, kappa) = kappa <loc, z> - log C, nats, on the unit sphere of R^d, d >= 2.

    Its samples are reparameterised: exactly, by implicit differentiation of the cdf of <loc, z>, where Davidson et al. 2018
    correct the gradient of a rejection sampler. Reference: Mardia & Jupp 2000, section 9.3; the sampler is that of Wood 1994.
    """

    loc: Float[Array, " d"]
    concentration: Float[Array, ""]

    @property
    def mean(self) -> jax.Array:
        return self.loc * _moments(self.concentration, self.loc.size)[1]

    def entropy(self) -> Scalar:
        log_constant, mean_t = _moments(self.concentration, self.loc.size)
        return log_constant - self.concentration * (mean_t - 1)

    def sample(self, key: Key) -> jax.Array:
        t_key, tangent_key = jax.random.split(key)
        t = _sample_t(self.loc.size, t_key, self.concentration)
        noise = jax.random.normal(tangent_key, self.loc.shape, self.loc.dtype)
        tangent = _normalised(noise - jnp.vdot(noise, self.loc) * self.loc)
        return t * self.loc + jnp.sqrt((1 - t) * (1 + t)) * tangent

    def log_prob(self, value: ArrayLike) -> Scalar:
        value = as_event("VonMisesFisher", value, self.loc)
        return self.concentration * (jnp.vdot(self.loc, value) - 1) - _moments(self.concentration, self.loc.size)[0]


def _normalised(vector: jax.Array) -> jax.Array:
    return vector / jnp.linalg.norm(vector)


def _log_integrand(u: jax.Array, kappa: jax.Array, dim: int) -> jax.Array:
    """log of exp(kappa (t - 1)) (1 - t^2)^((d-3)/2) dt/du at t = tanh u."""
    log_cosh = jnp.abs(u) + jnp.log1p(jnp.exp(-2 * jnp.abs(u))) - math.log(2)
    return -2 * kappa * jax.nn.sigmoid(-2 * u) - (dim - 1) * log_cosh


def _reach(dim: int) -> float:
    """How far beyond its mode the integrand is 1e-17 of it."""
    return 40 / (dim - 1) + 9 / math.sqrt(2 * (dim - 1))


def _moments(kappa: jax.Array, dim: int) -> tuple[jax.Array, jax.Array]:
    """(log of the integral of exp(kappa (<loc, z> - 1)) over the sphere, E <loc, z>)."""
    step = 0.25 / math.sqrt(2 * (dim - 1))
    last = 0.5 * math.log(4 * MAX_CONCENTRATION / (dim - 1) + 1) + _reach(dim)
    u = jnp.asarray(np.arange(-_reach(dim), last, min(step, 0.12)), kappa.dtype)
    log_terms = _log_integrand(u, kappa, dim)
    spacing = min(step, 0.12)
    return logsumexp(log_terms) + math.log(spacing) + log_area(dim - 1), jnp.vdot(jax.nn.softmax(log_terms), jnp.tanh(u))


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _sample_t(dim: int, key: Key, kappa: jax.Array) -> jax.Array:
    """t = <loc, z> for z ~ vMF, by rejection. Reference: Wood 1994."""
    b = (dim - 1) / (2 * kappa + jnp.sqrt(4 * kappa**2 + (dim - 1) ** 2))
    t_0 = (1 - b) / (1 + b)

    def draw(state):
        key, _, _ = state
        key, beta_key, uniform_key = jax.random.split(key, 3)
        beta = jax.random.beta(beta_key, (dim - 1) / 2, (dim - 1) / 2, dtype=kappa.dtype)
        t = (1 - (1 + b) * beta) / (1 - (1 - b) * beta)
        log_ratio = kappa * (t - t_0) + (dim - 1) * (jnp.log1p(-t_0 * t) - jnp.log1p(-(t_0**2)))
        return key, t, jnp.log(jax.random.uniform(uniform_key, dtype=kappa.dtype)) <= log_ratio

    return jax.lax.while_loop(lambda state: ~state[2], draw, (key, t_0, jnp.zeros((), bool)))[1]


@_sample_t.defjvp
def _sample_t_jvp(dim, key, primals, tangents):
    (kappa,), (tangent,) = primals, tangents
    t = _sample_t(dim, key, kappa)
    return t, _dt_dkappa(t, kappa, dim) * tangent


def _dt_dkappa(t: jax.Array, kappa: jax.Array, dim: int) -> jax.Array:
    """-(dF/dkappa) / (dF/dt) for the cdf F(t; kappa): how a sample at a fixed quantile moves.

    dF/dkappa is the integral of (s - E s) p(s) up to t, or minus that from t on: the tail without the mode is taken.
    """
    mean_t = _moments(kappa, dim)[1]
    edge = jnp.finfo(t.dtype).epsneg
    u_t = jnp.arctanh(jnp.clip(t, -1 + edge, 1 - edge))
    away = jnp.where(t > mean_t, 1.0, -1.0).astype(t.dtype)
    nodes, weights = np.polynomial.legendre.leggauss(96)
    distance = jnp.asarray((nodes + 1) / 2 * _reach(dim), t.dtype)
    u = u_t + away * distance
    density = jnp.exp(_log_integrand(u, kappa, dim) - _log_integrand(u_t, kappa, dim))
    integral = jnp.vdot(jnp.asarray(weights / 2 * _reach(dim), t.dtype), (jnp.tanh(u) - mean_t) * density)
    return away * integral * (1 - t) * (1 + t)
