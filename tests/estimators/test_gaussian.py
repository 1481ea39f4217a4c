"""Estimators for a diagonal normal q alone, by quadrature over their own random numbers."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy import stats

import vaejax
from tests.lib.oracles import (
    LinearGaussian,
    assert_distributed,
    assert_mean,
    exact_moments,
    gauss_hermite,
)
from vaejax.distributions.normal import DiagNormalDensity
from vaejax.estimators.gaussian import measure_valued_gradient, measure_valued_noise

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


def test_measure_valued_noise_has_its_laws():
    """Rayleigh, a Maxwell of either sign, uniform: each of its own."""
    keys = list(jax.random.split(jax.random.key(0), 3))
    rayleigh, maxwell, uniform = measure_valued_noise(keys, jnp.zeros(40_000))
    assert_distributed(rayleigh, stats.rayleigh.cdf)
    assert_distributed(maxwell, lambda m: (1 + np.sign(m) * stats.maxwell.cdf(np.abs(m))) / 2)
    assert_distributed(uniform, stats.uniform.cdf)
    centred = np.asarray(uniform) - 0.5
    assert_mean(np.stack([rayleigh * centred, maxwell * centred], axis=1), 0, detectable=0.05)


def test_both_are_unbiased_of_two_latents_that_interact():
    """log p(x, z) is not quadratic and mixes the latents, and the scales differ: the mean gradient
    is that of the total derivative, exact by quadrature.
    """
    x, params = jnp.asarray([0.7]), vaejax.Params((), (jnp.asarray([0.3, -0.6]), jnp.log(SCALES)))
    noise, weights = gauss_hermite(24, 2)

    def exact(params):
        q = Curved().posterior(params, x)
        zs = q.loc[None] + jnp.exp(q.log_scale)[None] * noise
        return weights @ vaejax.log_weights(Curved(), params, x, q, zs)

    expected = ravel_pytree(jax.jit(jax.grad(exact))(params))[0]
    keys = jax.random.split(jax.random.key(1), 15_000)
    for estimator in (vaejax.TaylorControlVariate(2), vaejax.MeasureValued(2)):
        gradient = jax.jit(
            jax.vmap(jax.grad(lambda p, k, e=estimator: e(Curved(), p, x, k)), (None, 0))
        )
        draws = jax.vmap(lambda tree: ravel_pytree(tree)[0])(gradient(params, keys))
        assert_mean(draws, expected, detectable=0.3)


SCALES = jnp.asarray([0.5, 1.2])


@vaejax.component
class Curved(vaejax.Model):
    """x ~ N(sin(z_1 z_2), 0.7^2), z ~ N(0, I)."""

    support = latent_support = vaejax.supports.REAL

    def p_z(self, params, x=None):
        return vaejax.distributions.standard_normal(jnp.zeros(2))

    def p_x_given_z(self, params, z, x=None):
        return DiagNormalDensity(jnp.sin(z[:1] * z[1:]), jnp.log(jnp.full(1, 0.7)))

    def posterior(self, params, x):
        return DiagNormalDensity(*params.phi)
