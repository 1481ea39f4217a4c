"""Estimators for a diagonal normal q alone, by quadrature over their own random numbers."""

import jax
import jax.numpy as jnp
import numpy as np

import vaejax
from tests.lib.oracles import LinearGaussian, exact_moments
from vaejax.distributions.normal import DiagNormalDensity
from vaejax.estimators.gaussian import measure_valued_gradient

POINT = LinearGaussian()


def test_taylor_control_variate(x64):
    """A quadratic log p(x, z) has no variance left in mu; in rho that of 1 - lam s^2 noise^2."""
    value, mean, variance = exact_moments(vaejax.TaylorControlVariate(), POINT)
    np.testing.assert_allclose([value, *mean], [POINT.elbo, *POINT.elbo_gradient], rtol=1e-10)
    np.testing.assert_allclose(
        variance[:2], [0, 2 * POINT.lam**2 * POINT.s**4], rtol=1e-10, atol=1e-20
    )


def radial(power, num_nodes=200, end=14.0):
    """Nodes and weights for the density r^power exp(-r^2/2), normalised, on r > 0."""
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    r = end * (nodes + 1) / 2
    weights = weights * r**power * np.exp(-(r**2) / 2)
    return r, weights / weights.sum()


def test_measure_valued_by_quadrature(x64):
    """For the cost (z - k)^2 under N(1, 1): the exact gradients, and the variances (16/pi - 4) D^2
    and 4 D^2 + 4, D = 1 - k.
    """
    q = DiagNormalDensity(jnp.ones(1), jnp.zeros(1))
    (w, w_weights), (m, m_weights) = radial(1), radial(2)
    u, u_weights = np.polynomial.legendre.leggauss(8)
    u, u_weights = (u + 1) / 2, u_weights / 2
    for k in (-3.0, 0.0, 1.0):
        gradient = jax.vmap(
            lambda w, m, u, k=k: measure_valued_gradient(
                lambda z: jnp.sum((z - k) ** 2), q, jnp.zeros(1), w, m, u
            )
        )
        d_loc = np.asarray(gradient(w[:, None], m[:, None], np.ones((200, 1)))[0])[:, 0]
        mean = w_weights @ d_loc
        np.testing.assert_allclose(
            [mean, w_weights @ (d_loc - mean) ** 2],
            [2 * (1 - k), (16 / np.pi - 4) * (1 - k) ** 2],
            atol=1e-10,
        )
        both = np.array([(sign * r, v) for sign in (-1, 1) for r in m for v in u])
        weights = np.array([0.5 * a * b for _ in range(2) for a in m_weights for b in u_weights])
        d_scale = np.asarray(gradient(np.ones((len(both), 1)), both[:, :1], both[:, 1:])[1])[:, 0]
        mean = weights @ d_scale
        np.testing.assert_allclose(
            [mean, weights @ (d_scale - mean) ** 2], [2, 4 * (1 - k) ** 2 + 4], atol=1e-9
        )
