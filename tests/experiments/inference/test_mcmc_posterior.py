"""mcmc_posterior.py: the grid that it chooses is wide enough, and the experiment in short."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.inference import mcmc_posterior as experiment
from experiments.lib.grid import on_grids
from experiments.lib.script import run
from tests.lib.correlated import MIXED, kl_to_posterior, log_marginal, start
from vaejax.runs.config import check_config


def test_the_grid_is_wide_and_fine_enough():
    """log p(x) and KL(q || p(z|x)) of two data in closed form, one of them far from the prior."""
    xs = jnp.asarray([[0.7, -0.4], [3.0, -2.5]])
    phi = {"loc": jnp.asarray([0.4, -0.5]), "log_scale": jnp.asarray([-0.6, -0.9])}
    params = start(xs[0])._replace(phi=phi)
    for x, grid in zip(np.asarray(xs), on_grids({"q": (MIXED, params)}, xs, 150), strict=True):
        np.testing.assert_allclose(grid.p.log_total, log_marginal(params, x), rtol=1e-5)
        np.testing.assert_allclose(grid.q["q"].kl(grid.p), kl_to_posterior(params, x), rtol=1e-4)
        np.testing.assert_allclose(grid.q["q"].log_total, 0, atol=1e-5)


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
