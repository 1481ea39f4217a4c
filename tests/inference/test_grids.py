"""A density on a grid against closed forms of Gaussian models with one latent and with two."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.lib.correlated import (
    MIXED,
    kl_to_posterior,
    log_marginal,
    posterior_mean,
    posterior_precision,
    start,
)
from tests.lib.oracles import LinearGaussian
from vaejax.inference.grids import grid_points, on_grid

POINT = LinearGaussian()


def p_and_q(model, params, x, points):
    log_joint = jax.jit(jax.vmap(partial(model.log_joint, params, x)))(points)
    log_q = jax.jit(jax.vmap(model.posterior(params, x).log_prob))(points)
    return on_grid(points, log_joint), on_grid(points, log_q)


def test_two_latents(x64):
    """log p(x), the moments of p(z|x) and KL(q || p(z|x)): the sum over a grid converges faster
    than any power of its spacing.
    """
    x = jnp.asarray([0.7, -0.4])
    phi = {"loc": jnp.asarray([0.4, -0.5]), "log_scale": jnp.asarray([-0.6, -0.9])}
    params = start(x)._replace(phi=phi)
    p, q = p_and_q(MIXED, params, x, grid_points((-5, -5), (5, 5), 161))
    mean, covariance = posterior_mean(params, x), np.linalg.inv(posterior_precision(params))
    np.testing.assert_allclose(p.log_total, log_marginal(params, x), rtol=1e-9)
    np.testing.assert_allclose(p.mean(), mean, rtol=1e-9)
    np.testing.assert_allclose(p.deviation(), np.sqrt(np.diag(covariance)), rtol=1e-9)
    np.testing.assert_allclose(q.log_total, 0, atol=1e-9)
    np.testing.assert_allclose(q.kl(p), kl_to_posterior(params, x), rtol=1e-9)
    assert p.kl(p) == 0


def test_one_latent(x64):
    p, q = p_and_q(POINT.model, POINT.params, POINT.datum, grid_points([-6], [6], 201))
    np.testing.assert_allclose(p.log_total, POINT.log_marginal, rtol=1e-9)
    np.testing.assert_allclose(q.kl(p), POINT.kl_to_posterior, rtol=1e-9)
    np.testing.assert_allclose([*p.mean(), *p.deviation()], [POINT.posterior_mean, POINT.lam**-0.5])


def test_regions_have_their_mass():
    """Of a normal in two dimensions the region above exp(-r^2/2) of the highest density has the
    mass 1 - exp(-r^2/2).
    """
    points = grid_points((-6, -6), (6, 6), 301)
    density = on_grid(points, -0.5 * jnp.sum(points**2, axis=1))
    within = np.exp(-0.5 * np.sum(density.points**2, axis=1))
    near = np.abs(density.points).max(axis=1) < 3
    np.testing.assert_allclose(density.regions()[near], 1 - within[near], atol=0.004)
    first, second, table = density.picture(density.points[:, 0])
    np.testing.assert_array_equal(table, np.broadcast_to(first, (301, 301)))
    np.testing.assert_array_equal(density.picture(density.points[:, 1])[2][:, 0], second)


def test_a_point_without_mass_adds_nothing():
    """0 log 0 = 0: a uniform density on half of the cells of a finer one."""
    points = grid_points([0.0], [3.0], 4)
    half = on_grid(points, np.array([-np.inf, 0.0, 0.0, -np.inf]))
    with pytest.warns(UserWarning, match="outermost cells"):
        whole = on_grid(points, np.zeros(4))
    np.testing.assert_allclose(half.kl(whole), np.log(2))
    assert whole.kl(half) == np.inf


def test_a_grid_that_cannot_hold_the_density_is_said():
    narrow, coarse = grid_points([-1.0], [1.0], 51), grid_points([-50.0], [50.0], 11)
    with pytest.warns(UserWarning, match=r"\d\.\d% of the mass lies in the outermost .* wider"):
        on_grid(narrow, -0.5 * narrow[:, 0] ** 2)
    with pytest.warns(UserWarning, match=r"one cell of the grid has 100% of the mass"):
        on_grid(coarse, -0.5 * coarse[:, 0] ** 2)


def test_mistakes_are_named():
    points = grid_points([-1.0], [1.0], 5)
    with pytest.raises(ValueError, match=r"log_density has shape \(4,\) and points \(5, 1\)"):
        on_grid(points, jnp.zeros(4))
    for value in (np.nan, -np.inf, np.inf):
        with pytest.raises(ValueError, match="the logarithm of no density"):
            on_grid(points, np.full(5, value))
    here, there = (
        on_grid(grid_points([-5.0], [high], 50), np.linspace(-5, high, 50) ** 2 / -2)
        for high in (5.0, 6.0)
    )
    with pytest.raises(ValueError, match="different grids"):
        here.kl(there)
