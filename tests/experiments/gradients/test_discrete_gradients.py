"""The exact answers of experiments/lib/bernoulli.py: means by quadrature are the gradient,
variances the closed forms; and a short run of discrete_gradients.py.
"""

import jax
import numpy as np
import pytest

from experiments.lib.bernoulli import closed_forms, exact_gradient, exact_moments
from tests.lib.scripts import run

T, P, K = 0.499, 0.7, 6
PSI = {
    "plain-score-function": (),
    "score-function": (),
    "disarm": (),
    "double-control-variate": 0.3,
    "rebar": {"eta": 0.7, "log_temperature": -0.5},
}


@pytest.mark.parametrize("name", PSI)
def test_unbiased_on_the_toy(name):
    """By enumeration, or, for REBAR, by quadrature over its uniform number."""
    with jax.enable_x64(True):
        mean, variance = exact_moments(name, T, P, K, PSI[name])
    rtol = 1e-6 if name == "rebar" else 1e-9
    np.testing.assert_allclose(mean, exact_gradient(T, P, 1), rtol=rtol)
    closed = closed_forms(T, P, 1, K)
    if name in closed:
        np.testing.assert_allclose(variance, closed[name], rtol=1e-9)


def test_the_biased_are_seen_to_be():
    with jax.enable_x64(True):
        for name in ("relaxed", "straight-through"):
            mean, _ = exact_moments(name, T, P, K, ())
            assert abs(mean / exact_gradient(T, P, 1) - 1) > 10


@pytest.mark.slow
def test_script(tmp_path):
    flags = "--parts vae --num-steps 4 --validate-every 2 --num-seeds 1 --hidden 8 --latent-dim 4"
    flags += " --vae-draws 10 --measured-examples 4 --estimators score-function rebar"
    result, printed = run("discrete_gradients", *flags.split(), folder=tmp_path)
    assert "rebar" in printed
    assert set(result["mean_squared_error"]["vae"]) == {"score-function", "rebar"}
    assert (tmp_path / "out" / "result.json").exists()
