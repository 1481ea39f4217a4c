"""Score-function estimators: exact means and variances by quadrature, and baselines that are
trained by the same gradient.
"""

import jax
import numpy as np
import pytest

import vaejax
from tests.lib.cases import cases
from tests.lib.oracles import LinearGaussian, assert_mean, exact_moments, gradient_vector
from vaejax.estimators.score_function import optimal_constant

POINT = LinearGaussian()
# f = a0 + a1 noise + a2 noise^2
A0 = POINT.log_marginal + 0.5 * np.log(POINT.lam * POINT.s**2) - POINT.lam * POINT.d**2 / 2
A1, A2 = -POINT.lam * POINT.d * POINT.s, (1 - POINT.lam * POINT.s**2) / 2


def variances(c):
    """Of the (mu, rho) gradient of one sample with the constant baseline c."""
    a = A0 - c
    in_mu = (a**2 + 6 * a * A2 + 15 * A2**2 + 2 * A1**2) / POINT.s**2
    return [in_mu, 2 * a**2 + 20 * a * A2 + 74 * A2**2 + 10 * A1**2]


CONSTANTS = {"none": 0.0, "mean": A0 + A2, "best in mu": A0 + 3 * A2, "best in rho": A0 + 5 * A2}
FROZEN = {"none": (10.3441912879, 10.5466887517), "mean": (0.9466368273, 1.8486781250)}


@pytest.mark.parametrize("name", cases(list(CONSTANTS), slow=("best in mu", "best in rho")))
def test_a_constant_baseline(x64, name):
    c = CONSTANTS[name]
    baseline = vaejax.NoBaseline() if name == "none" else vaejax.ConstantBaseline(float(c))
    value, mean, variance = exact_moments(vaejax.ScoreFunction(1, baseline), POINT)
    np.testing.assert_allclose([value, *mean], [POINT.elbo, *POINT.elbo_gradient], rtol=1e-10)
    np.testing.assert_allclose(variance[:2], variances(c), rtol=1e-10)
    np.testing.assert_allclose(variance[:2], FROZEN.get(name, variances(c)), rtol=1e-9)


def test_leaving_one_out(x64):
    value, mean, variance = exact_moments(vaejax.ScoreFunction(2), POINT, 2, 40)
    np.testing.assert_allclose([value, *mean], [POINT.elbo, *POINT.elbo_gradient], rtol=1e-10)
    np.testing.assert_allclose(
        variance[:2], [(6 * A2**2 + 2 * A1**2) / POINT.s**2, 6 * A1**2 + 32 * A2**2], rtol=1e-10
    )
    np.testing.assert_allclose(variance[:2], [0.6786149089, 1.0706117187], rtol=1e-9)


def test_the_optimal_constant(x64):
    """Of least variance in mu and rho together, in the limit; and unbiased however few samples it
    is from.
    """
    q = POINT.model.posterior(POINT.params, POINT.datum)
    of_mu, of_rho = 1 / POINT.s**2, 2.0  # E score^2
    expected = (of_mu * (A0 + 3 * A2) + of_rho * (A0 + 5 * A2)) / (of_mu + of_rho)
    constant = jax.jit(
        lambda key: optimal_constant(POINT.model, POINT.params, POINT.datum, q, key, 100_000)
    )(jax.random.key(0))
    np.testing.assert_allclose(constant, expected, rtol=0.02)
    estimator = vaejax.OptimalConstant(2, num_pilot=1)
    gradient = jax.jit(
        jax.vmap(jax.grad(lambda p, key: estimator(POINT.model, p, POINT.datum, key)), (None, 0))
    )
    gradients = jax.vmap(gradient_vector)(
        gradient(POINT.params, jax.random.split(jax.random.key(1), 200_000))
    )
    assert_mean(gradients, POINT.elbo_gradient, detectable=0.1)


REFUSED = {
    "leave one out of one": (
        lambda: vaejax.ScoreFunction(1),
        r"ScoreFunction.num_samples = 1; .* at least 2.*, with LeaveOneOut",
    ),
    "no samples": (
        lambda: vaejax.ScoreFunction(0, vaejax.NoBaseline()),
        r"ScoreFunction.num_samples = 0; .* at least 1",
    ),
    "no pilot": (lambda: vaejax.OptimalConstant(1, 0), "OptimalConstant.num_pilot = 0"),
}


@pytest.mark.parametrize("make, message", REFUSED.values(), ids=REFUSED)
def test_mistakes_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
