"""Densities on the unit sphere of R^d, with respect to its surface.

With t = <loc, z> = tanh u, the density of u under von Mises-Fisher is proportional to exp(kappa
tanh u) / cosh(u)^(d-1): analytic, with exponential tails, and of one width for every kappa once it
is centred at its mode. So its constant, its mean and the gradient of its sampler are short
trapezoidal sums, in a variable v in which the tails fall doubly exponentially; there is no Bessel
function here, and nothing overflows. Reference: Takahasi & Mori 1974 for the sums.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vaejax.base.types import Key, Scalar
from vaejax.base.values import pytree
from vaejax.distributions.base import Distribution, as_event, event_of


def log_area(dim: int) -> float:
    """log of the surface of the unit sphere in R^dim."""
    return math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)


@pytree
class UniformOnSphereDensity(Distribution):
    """-log area, nats: the uniform density on the unit sphere. The field only carries the shape:
    [d].
    """

    like: Float[Array, " d"]
    reparameterised = True

    @property
    def event(self) -> jax.ShapeDtypeStruct:
        return event_of(self, self.like)

    def mean(self) -> jax.Array:
        return jnp.zeros_like(self.like)

    def entropy(self) -> float:
        """-E log p = log area, nats."""
        return log_area(self.like.size)

    def sample(self, key: Key) -> jax.Array:
        return _normalised(jax.random.normal(key, self.like.shape, self.like.dtype))

    def log_prob(self, value: ArrayLike) -> Scalar:
        as_event("UniformOnSphere", value, self.like)
        return jnp.full((), -log_area(self.like.size), self.like.dtype)


@pytree
class VonMisesFisherDensity(Distribution):
    """log vMF(z; loc, kappa) = kappa <loc, z> - log C, nats, on the unit sphere of R^d, d >= 2.
    |loc| = 1 is the caller's.

    Its samples are reparameterised: exactly, by implicit differentiation of the cdf of <loc, z>,
    where Davidson et al. 2018 correct the gradient of a rejection sampler. Reference: Mardia & Jupp
    2000; the sampler is that of Wood 1994.
    """

    loc: Float[Array, " d"]
    concentration: Float[Array, ""]
    reparameterised = True

    @property
    def event(self) -> jax.ShapeDtypeStruct:
        return event_of(self, self.loc)

    def mean(self) -> jax.Array:
        return self.loc * (1 - _moments(self.concentration, self.loc.size)[1])

    def entropy(self) -> Scalar:
        """-E log p = log C - kappa E <loc, z>, nats."""
        log_constant, mean_gap = _moments(self.concentration, self.loc.size)
        return log_constant + self.concentration * mean_gap

    def sample(self, key: Key) -> jax.Array:
        u_key, tangent_key = jax.random.split(key)
        u = _sample_u(self.loc.size, u_key, self.concentration)
        tangent = jax.random.normal(tangent_key, self.loc.shape, self.loc.dtype)
        for _ in range(2):  # once leaves a rounding error that is large beside a short tangent
            tangent = _normalised(tangent - jnp.vdot(tangent, self.loc) * self.loc)
        return jnp.tanh(u) * self.loc + tangent / jnp.cosh(u)

    def log_prob(self, value: ArrayLike) -> Scalar:
        # 1 - <loc, z> = |z - loc|^2 / 2, which does not cancel where kappa is large and z close to
        # loc.
        chord = as_event("VonMisesFisher", value, self.loc) - self.loc
        return (
            -self.concentration * jnp.vdot(chord, chord) / 2
            - _moments(self.concentration, self.loc.size)[0]
        )


def _normalised(vector: jax.Array) -> jax.Array:
    """vector / |vector|, and 0 for 0, with a finite gradient: in float32 one normal number in ten
    million is exactly 0.
    """
    return vector * jax.lax.rsqrt(
        jnp.maximum(jnp.vdot(vector, vector), jnp.finfo(vector.dtype).eps ** 2)
    )


def _log_integrand(u: jax.Array, kappa: jax.Array, dim: int) -> jax.Array:
    """kappa (tanh u - 1) - (d-1) log cosh u: the log-density of u up to its constant."""
    return -kappa * _gap(u) - (dim - 1) * _log_cosh(u)


def _gap(u: jax.Array) -> jax.Array:
    """1 - tanh u, to full relative precision."""
    return 2 * jax.nn.sigmoid(-2 * u)


def _log_cosh(u: jax.Array) -> jax.Array:
    return jnp.abs(u) + jnp.log1p(jnp.exp(-2 * jnp.abs(u))) - math.log(2)


def _mode(kappa: jax.Array, dim: int) -> jax.Array:
    return 0.5 * jnp.arcsinh(2 * kappa / (dim - 1))


def _trapezoid(dtype, first: float, last: float) -> tuple[np.ndarray, float]:
    """Nodes v and their spacing, at which the sums below are exact to about 1e-14 in float64 and
    2e-7 in float32.
    """
    spacing = 0.05 if dtype == jnp.float64 else 0.12
    return np.arange(first, last + spacing, spacing), spacing


def _scale_and_reach(dim: int) -> tuple[float, float]:
    """The width of the density of u, and how far from the mode it is 1e-17 of the highest."""
    return 1 / math.sqrt(dim - 1), 40 / (dim - 1) + 9 / math.sqrt(2 * (dim - 1))


def _moments(kappa: jax.Array, dim: int) -> tuple[jax.Array, jax.Array]:
    """(log of the integral of exp(kappa (<loc, z> - 1)) over the sphere, E[1 - <loc, z>])."""
    scale, reach = _scale_and_reach(dim)
    end = math.asinh(reach / (2 * scale))
    v, spacing = _trapezoid(kappa.dtype, -end, end)
    # A shift of the nodes changes no sum, so its derivative is left out.
    u = jax.lax.stop_gradient(_mode(kappa, dim)) + jnp.asarray(2 * scale * np.sinh(v), kappa.dtype)
    log_terms = _log_integrand(u, kappa, dim) + jnp.asarray(
        np.log(2 * scale * np.cosh(v) * spacing), kappa.dtype
    )
    return logsumexp(log_terms) + log_area(dim - 1), jnp.vdot(jax.nn.softmax(log_terms), _gap(u))


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _sample_u(dim: int, key: Key, kappa: jax.Array) -> jax.Array:
    """u = artanh <loc, z> for z ~ vMF, by rejection: the u of a uniform z is moved to the mode.
    Reference: Wood 1994.

    It is Wood's proposal and his ratio, written in u, where neither cancels; its uniform z is a
    normal vector, not a beta variable.
    """
    mode = _mode(kappa, dim)
    if jax.random.key_impl(key) != "threefry2x32":
        # Under vmap other kinds draw for all examples from the first one's key, which stands still
        # once that one is done: an endless loop.
        key = jax.random.wrap_key_data(jax.random.bits(key, (2,), jnp.uint32), impl="threefry2x32")

    def draw(state):
        key, _, _ = state
        key, noise_key, uniform_key = jax.random.split(key, 3)
        vector = jax.random.normal(noise_key, (dim,), kappa.dtype)
        noise = jnp.arcsinh(vector[0] / jnp.linalg.norm(vector[1:]))
        log_ratio = (
            _log_integrand(mode + noise, kappa, dim)
            - _log_integrand(mode, kappa, dim)
            + (dim - 1) * _log_cosh(noise)
        )
        refused = jnp.log(jax.random.uniform(uniform_key, dtype=kappa.dtype)) > log_ratio
        return (
            key,
            mode + noise,
            ~refused,
        )  # what is not a number is accepted, or the loop would never end

    # The first draw starts the loop, so that its state varies over devices from the start.
    return jax.lax.while_loop(lambda state: ~state[2], draw, draw((key, mode, False)))[1]


@_sample_u.defjvp
def _sample_u_jvp(dim, key, primals, tangents):
    (kappa,), (tangent,) = primals, tangents
    u = _sample_u(dim, key, kappa)
    return u, _du_dkappa(u, kappa, dim) * tangent


def _du_dkappa(u: jax.Array, kappa: jax.Array, dim: int) -> jax.Array:
    """-(dF/dkappa) / (dF/du) for the cdf F(u; kappa): how a sample at a fixed quantile moves.

    dF/dkappa is the integral of (t - E t) p up to u, or minus that from u on: the tail without the
    mode is taken.
    """
    mean_gap = _moments(kappa, dim)[1]
    away = jnp.where(_gap(u) < mean_gap, 1, -1).astype(u.dtype)
    scale, reach = _scale_and_reach(dim)
    v, spacing = _trapezoid(u.dtype, -3.6, math.log(reach / scale))
    distance = scale * np.exp(v - np.exp(-v))
    weights = jnp.asarray(spacing * distance * (1 + np.exp(-v)), u.dtype)
    there = u + away * jnp.asarray(distance, u.dtype)
    density = jnp.exp(_log_integrand(there, kappa, dim) - _log_integrand(u, kappa, dim))
    return away * jnp.vdot(weights, (mean_gap - _gap(there)) * density)
