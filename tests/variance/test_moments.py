"""Moments of gradients: the exact ones, of any objective at any step; and mistakes are refused."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib.gradient_moments import OBJECTIVE, POINT, XS, flat, measure
from tests.lib.oracles import LinearGaussian, Z, exact_moments, gradient_vector
from tests.lib.recipes import recipe

Halved = recipe("Objective")


def test_the_exact_moments():
    """50,000 draws against quadrature: means and variances within their errors, from the fourth
    moment.
    """
    moments = measure(OBJECTIVE, num_draws=50_000)
    with jax.enable_x64(True):
        _, mean, exact = map(np.asarray, exact_moments(vaejax.Pathwise(), LinearGaussian()))
    variances, fourth = gradient_vector(moments.variance), gradient_vector(moments.fourth)
    assert (np.abs(gradient_vector(moments.mean) - mean) < Z * np.sqrt(exact / 50_000)).all()
    error = np.sqrt((np.asarray(fourth) - np.asarray(variances) ** 2) / 50_000)
    assert (np.abs(variances - exact) < Z * error).all() and (error < 0.03 * exact).all()


REFUSED = {
    "one draw": ({"num_draws": 1}, "num_draws = 1; a variance needs at least 2"),
    "order": ({"num_draws": 10, "order": 3}, "order = 3; give 2 or 4"),
    "chunk": ({"num_draws": 10, "chunk": -1}, "chunk = -1"),
    "strategy": ({"num_draws": 10, "strategy": "pmap"}, "unknown strategy 'pmap'"),
    "a long scan": (
        {"num_draws": 10, "strategy": "scan", "chunk": 500},
        "chunk = 500, and a scan writes its chunk out .* at most 32",
    ),
    "by": ({"num_draws": 10, "by": "layers"}, "unknown by 'layers'"),
    "fourth by examples": ({"num_draws": 10, "by": "examples"}, "two moments; say order=2"),
    "no minibatch": (
        {"num_draws": 10, "order": 2, "by": "examples"},
        "is not possible: the objective is not a vaejax.minibatch",
    ),
}


@pytest.mark.parametrize("changes, message", REFUSED.values(), ids=REFUSED)
def test_mistakes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        measure(OBJECTIVE, **changes)


def test_a_plain_function_is_refused():
    plain: Any = lambda params, x, key: jnp.sum(x)  # noqa: E731
    with pytest.raises(
        TypeError, match=r"is not an objective: write vaejax.minibatch\(estimator, model"
    ):
        measure(plain, num_draws=10)


@pytest.mark.parametrize("by", ["draws", None])
def test_an_objective_is_measured_at_a_step(by):
    """beta = step/10: at step 5 the moments are those of beta = 0.5. A user's objective around it
    passes the step on: half the gradient, a quarter of the variance.
    """
    warm_up, half = (
        vaejax.minibatch(vaejax.Beta(weight), POINT.model) for weight in (vaejax.WarmUp(10), 0.5)
    )
    on_batch = partial(measure, x=XS, num_draws=20, order=2, by=by)
    moving, fixed = on_batch(warm_up, step=5), on_batch(half)
    assert moving.by == fixed.by == (by or "examples")
    np.testing.assert_allclose(flat(moving.mean), flat(fixed.mean), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(flat(moving.variance), flat(fixed.variance), rtol=1e-4)
    halved = on_batch(Halved(warm_up), by="draws", step=5)
    by_draws = on_batch(warm_up, by="draws", step=5)
    np.testing.assert_allclose(flat(halved.mean), flat(by_draws.mean) / 2, rtol=1e-5)
    np.testing.assert_allclose(flat(halved.variance), flat(by_draws.variance) / 4, rtol=1e-5)
    for objective in (warm_up, Halved(warm_up)):
        with pytest.raises(ValueError, match="beta of .* moves with the step .* such as step=0"):
            on_batch(objective)
