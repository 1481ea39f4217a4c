"""What objectives refuse, in one line with the remedy."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

import vaejax
from tests.lib.fits import beta_objective
from tests.lib.lines import BERNOULLI, KEY, LEARNED, LINES, lines_with
from tests.lib.oracles import Line
from vaejax import (
    TCVAE,
    Beta,
    Cyclical,
    FreeBits,
    WarmUp,
    kl_decomposition,
    optimal_scale,
    with_optimal_scale,
)
from vaejax.objectives.total_correlation import aggregation_weights


def traced(objective, model, shape=(2,)):
    """A call that traces the objective of one example, or of a batch, with this model."""

    def call():
        params = jax.eval_shape(model.init, KEY, jnp.zeros(2))
        return jax.eval_shape(partial(objective, model), params, jnp.zeros(shape), KEY)

    return call


VAMP = lines_with(0.8, vaejax.VampPrior(2))
FULL = vaejax.VAE(LINES.prior, LINES.likelihood, vaejax.FullNormal(vaejax.MLP(2, (), heads=4)))
BINARY = vaejax.VAE(
    vaejax.FactorialBernoulli(2), LINES.likelihood, vaejax.Bernoulli(vaejax.MLP(2, ()))
)
DIAGONAL = "must be diagonal normals, not"
REFUSED = {
    "free bits of a mixture": (
        traced(lambda model, *args: FreeBits(model, 0.1)(*args, 0), VAMP, (5, 2)),
        TypeError,
        (
            f"FreeBits splits .* {DIAGONAL} DiagNormal and Mixture; use vaejax.DiagNormal with .*"
            " or vaejax.Beta, which takes any"
        ),
    ),
    "total correlation of a mixture": (
        traced(lambda model, *args: TCVAE(model, 9)(*args, 0), VAMP, (5, 2)),
        TypeError,
        f"TCVAE splits .* {DIAGONAL} DiagNormal and Mixture",
    ),
    "parts of a full normal": (
        traced(kl_decomposition, FULL, (5, 2)),
        TypeError,
        f"kl_decomposition .* {DIAGONAL} MultivariateNormal and",
    ),
    "beta of a discrete code": (
        traced(Beta(2.0), BINARY),
        TypeError,
        "Beta differentiates through samples of q, and those of Bernoulli",
    ),
    "no model": (
        lambda: FreeBits(Line(), 0.1),
        TypeError,
        r"FreeBits.model is Line\(\), which does not derive from vaejax.Model",
    ),
    "no length": (
        lambda: Beta(lambda step: 1.0),
        TypeError,
        "Beta.weight = .* does not say how long it is.* use vaejax.WarmUp",
    ),
    "a negative weight": (
        lambda: Beta(-1.0),
        ValueError,
        "Beta.weight = -1.0; it must be a number, at least 0",
    ),
    "no number": (
        lambda: TCVAE(LINES, 9, beta="4"),
        ValueError,
        "TCVAE.beta = '4'; it must be a number",
    ),
    "NaN": (lambda: FreeBits(LINES, float("nan")), ValueError, "FreeBits.nats = nan"),
    "no samples": (
        lambda: Beta(1.0, 0),
        ValueError,
        "Beta.num_samples = 0; it must be a whole number, at least 1",
    ),
    "an endless ramp": (
        lambda: Cyclical(10, ramp=0.95),
        ValueError,
        "Cyclical.ramp = 0.95; .* leaves a step of 10 at end",
    ),
    "no ramp": (lambda: Cyclical(10, ramp=0.0), ValueError, "Cyclical.ramp = 0.0"),
    "no warm-up": (lambda: WarmUp(0), ValueError, "WarmUp.num_steps = 0"),
    "unknown estimator": (
        lambda: TCVAE(LINES, 9, estimator="mss"),
        ValueError,
        'choose "stratified" or "weighted"',
    ),
    "more than the data": (
        lambda: aggregation_weights(9, 8, "weighted"),
        ValueError,
        "dataset_size = 8, but the batch has 9 examples",
    ),
    "a batch of one": (
        lambda: aggregation_weights(1, 8, "stratified"),
        ValueError,
        "a batch of at least 2 examples",
    ),
    "no scale": (
        lambda: optimal_scale(beta_objective(1.0, BERNOULLI)),
        TypeError,
        r"Gaussian\(net, 'learned'\); this one has Bernoulli",
    ),
    "a fixed scale": (
        lambda: with_optimal_scale(LINES, None, None, KEY),
        TypeError,
        r"this one has Gaussian\(net=Line\(\), scale=0.8\)",
    ),
    "one example": (
        lambda: optimal_scale(partial(vaejax.Pathwise(), LEARNED)),
        TypeError,
        "is not an objective: write vaejax.minibatch",
    ),
}


@pytest.mark.parametrize("call, error, message", REFUSED.values(), ids=REFUSED)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)
