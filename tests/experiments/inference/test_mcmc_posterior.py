"""NUTS and the grid of mcmc_posterior.py against the closed form of a linear-Gaussian model, and
the experiment in short.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from experiments.inference import mcmc_posterior as experiment
from experiments.lib.grid import moments, on_grid, square
from experiments.lib.script import run
from tests.lib.oracles import LinearGaussian, assert_mean
from vaejax.runs.config import check_config

POINT = LinearGaussian()


def test_nuts_reaches_the_closed_form(x64):
    """Mean and variance. The means of independent chains are independent, so their error needs no
    autocorrelation time.
    """
    starts = 3 * jax.random.normal(jax.random.key(0), (300, 1))
    log_density = partial(POINT.model.log_joint, POINT.params, POINT.datum)
    samples, divergent = jax.jit(
        lambda starts, key: experiment.nuts(log_density, starts, key, 150, 100)
    )(starts, jax.random.key(1))
    samples = np.asarray(samples)[..., 0]
    assert not divergent.any()
    assert_mean(samples.mean(axis=1), POINT.posterior_mean, detectable=0.1 * POINT.lam**-0.5)
    assert_mean(
        np.mean((samples - POINT.posterior_mean) ** 2, axis=1),
        1 / POINT.lam,
        detectable=0.1 / POINT.lam,
    )


def test_split_r_hat_sees_a_trend_within_the_chains():
    """Two chains that drift alike agree with each other, and not with their own halves: W = 0
    within, so R-hat is large.
    """
    noise = np.random.default_rng(0).normal(size=(2, 1_000, 1))
    assert experiment.split_r_hat(noise) < 1.05
    assert experiment.split_r_hat(noise + np.linspace(-5, 5, 1_000)[None, :, None]) > 1.5


@vaejax.component
class Plane:
    """z [2] -> (1.3 z_1, 0.6 z_2 - 0.4 z_1, 0.5 z_2), or with heads = 2, x -> (loc, log_scale) of a
    q that is not the posterior.
    """

    heads: int = 1

    def init(self, key, example):
        return ()

    def apply(self, params, z):
        if self.heads == 2:
            return jnp.stack([0.5 * z[0], z[1] + 0.3]), jnp.asarray([-0.7, -0.3])
        return jnp.stack([1.3 * z[0], 0.6 * z[1] - 0.4 * z[0], 0.5 * z[1]])


def test_the_grid_is_exact():
    """log p(x), the moments of p(z|x) and KL(q || p(z|x)) of a Gaussian model with two latents, in
    closed form.
    """
    model = vaejax.VAE(
        vaejax.StandardNormal(2),
        vaejax.Gaussian(Plane(), scale=0.7),
        vaejax.DiagNormal(Plane(2), max_log_scale=None),
    )
    x = np.array([0.8, -0.5, 0.4])
    params = model.init(jax.random.key(0), jnp.asarray(x))
    table = on_grid({"q": (model, params)}, jnp.asarray(x)[None], 150)[0]
    weights = np.array([[1.3, 0.0], [-0.4, 0.6], [0.0, 0.5]])
    precision = np.eye(2) + weights.T @ weights / 0.7**2
    mean = np.linalg.solve(precision, weights.T @ x / 0.7**2)
    covariance_x = weights @ weights.T + 0.7**2 * np.eye(3)
    log_marginal = -0.5 * (
        x @ np.linalg.solve(covariance_x, x) + np.linalg.slogdet(2 * np.pi * covariance_x)[1]
    )
    q_mean, q_variance = np.array([0.4, -0.2]), np.exp([-1.4, -0.6])
    d = q_mean - mean
    kl = 0.5 * (
        np.diag(precision) @ q_variance
        + d @ precision @ d
        - 2
        - np.log(q_variance).sum()
        - np.linalg.slogdet(precision)[1]
    )
    np.testing.assert_allclose(table.log_marginal, log_marginal, rtol=1e-5)
    np.testing.assert_allclose(table.kl("q"), kl, rtol=1e-4)
    np.testing.assert_allclose(table.mass["q"], 1, rtol=1e-5)
    of_grid = moments(table.points, table.log_p)
    np.testing.assert_allclose(
        of_grid, [mean, np.sqrt(np.diag(np.linalg.inv(precision)))], rtol=1e-4
    )


def test_levels_bound_regions_of_the_given_mass():
    """Of a normal in two dimensions the region above exp(-r^2/2) of the highest density has the
    mass 1 - exp(-r^2/2).
    """
    points = np.asarray(square((-6, -6), (6, 6), 301))
    log_p = -0.5 * np.sum(points**2, axis=1)
    log_p -= np.log(np.exp(log_p).sum())
    np.testing.assert_allclose(experiment.levels(log_p, (0.9, 0.5)), [0.1, 0.5], rtol=0.02)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="latent_dim = 3; the grid is over two latents"):
        check_config(experiment.Config(latent_dim=3))
    with pytest.raises(ValueError, match="eval_size = 4; .* num_shown = 5"):
        check_config(experiment.Config(eval_size=4))


@pytest.mark.slow
def test_in_short(tmp_path):
    """KL(q||p) >= 0, and the best diagonal normal of each example is nearer than the encoder's, by
    4.9 errors of a paired mean (1e-6).

    The means of NUTS are within 5.5 of their errors, which are themselves estimated, of the grid's.
    """
    flags = {
        "hidden": (16,),
        "num_steps": 300,
        "encoder_steps": 300,
        "learning_rate": 3e-3,
        "grid": 80,
        "encoders": ("diag-normal",),
    }
    settings = flags | {
        "eval_size": 60,
        "num_shown": 2,
        "num_chains": 4,
        "chain_warm_up": 200,
        "chain_samples": 500,
    }
    config = experiment.Config(**settings, refining_steps=50, out=str(tmp_path))
    result = run(config, experiment.experiment)
    amortised, refined = result["rows"]
    assert min(row["least_kl"] for row in (amortised, refined)) > 0
    assert min(row["least_mass"] for row in (amortised, refined)) > 0.999
    assert refined["gain"] > 4.9 * refined["error_of_gain"]
    for chains in result["nuts"]:
        assert max(chains["r_hat"]) < 1.05 and chains["divergences"] == 0
        assert np.abs(chains["off"]).max() < 5.5
    assert {path.name for path in tmp_path.iterdir()} == {"posterior.png", "result.json"}
