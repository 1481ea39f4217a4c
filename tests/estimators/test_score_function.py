"""Score-function estimators: exact means and variances by quadrature, and baselines that are
trained by the same gradient.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib.cases import cases
from tests.lib.oracles import LinearGaussian, assert_mean, exact_moments, gradient_vector
from vaejax.estimators.multi_sample import multi_sample_score
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


@pytest.mark.slow
def test_of_the_importance_weighted_bound_without_control(x64):
    estimator = partial(multi_sample_score, num_samples=2, control=jnp.zeros_like)
    value, mean, variance = exact_moments(estimator, POINT, 2, 60)
    np.testing.assert_allclose(
        [value, mean[0], variance[0]], [-1.5314735497, 0.1469185706, 24.8892732468], rtol=1e-9
    )


def test_the_optimal_constant(x64):
    """Of least variance in mu and rho together, in the limit; and unbiased however few samples it
    is from.
    """
    q = POINT.model.posterior(POINT.params, POINT.datum)
    of_mu, of_rho = 1 / POINT.s**2, 2.0  # E score^2
    expected = (of_mu * (A0 + 3 * A2) + of_rho * (A0 + 5 * A2)) / (of_mu + of_rho)
    found = jax.jit(
        lambda key: optimal_constant(POINT.model, POINT.params, POINT.datum, q, key, 100_000)
    )(jax.random.key(0))
    np.testing.assert_allclose(found, expected, rtol=0.02)
    estimator = vaejax.OptimalConstant(1, num_pilot=1)
    gradient = jax.jit(
        jax.vmap(jax.grad(lambda p, key: estimator(POINT.model, p, POINT.datum, key)), (None, 0))
    )
    gradients = jax.vmap(gradient_vector)(
        gradient(POINT.params, jax.random.split(jax.random.key(1), 200_000))
    )
    assert_mean(gradients, POINT.elbo_gradient, detectable=0.1)


@pytest.mark.parametrize(
    "baseline",
    [vaejax.MovingAverage(), vaejax.LearnedBaseline(vaejax.MLP(1, (3,)))],
    ids=["average", "net"],
)
def test_a_learned_baseline(baseline):
    """theta and phi get what the constant of its value would give them; psi the gradient of -(f -
    b)^2 / 2; the value is the bound.
    """
    estimator, key = vaejax.ScoreFunction(1, baseline), jax.random.key(2)
    psi = jax.tree.map(
        lambda leaf: leaf + 0.3,
        estimator.init(POINT.model, POINT.params, POINT.datum, jax.random.key(0)),
    )
    params = POINT.params._replace(psi=psi)
    b = baseline(psi, POINT.datum, jnp.zeros(1))
    plain = vaejax.ScoreFunction(1, vaejax.ConstantBaseline(float(b)))
    ours, theirs = (
        jax.value_and_grad(lambda p, e=e: e(POINT.model, p, POINT.datum, key))(params)
        for e in (estimator, plain)
    )
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6)
    np.testing.assert_allclose(gradient_vector(ours[1]), gradient_vector(theirs[1]), rtol=1e-5)
    f = vaejax.elbo(POINT.model, POINT.params, POINT.datum, key)
    expected = jax.grad(lambda psi: -0.5 * (f - baseline(psi, POINT.datum, jnp.zeros(1))) ** 2)(psi)
    for got, want in zip(jax.tree.leaves(ours[1].psi), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)


def test_one_weight_may_dominate():
    """Where one weight is all there is, the means of the others are far below it, and stay
    finite.
    """
    log_w = jnp.asarray([0.0, -200.0, -210.0])
    for estimator in (vaejax.VIMCO(3), vaejax.VIMCO(3, "arithmetic"), vaejax.OVIS(3)):
        assert np.isfinite(estimator.control(log_w)).all()


REFUSED = {
    "leave one out of one": (
        lambda: vaejax.ScoreFunction(1),
        r"ScoreFunction.num_samples = 1; .* at least 2 with LeaveOneOut",
    ),
    "no samples": (
        lambda: vaejax.ScoreFunction(0, vaejax.NoBaseline()),
        r"ScoreFunction.num_samples = 0; .* at least 1",
    ),
    "VIMCO of one": (
        lambda: vaejax.VIMCO(1),
        r"VIMCO.num_samples = 1; .* at least 2 which leaves one out",
    ),
    "unknown mean": (
        lambda: vaejax.VIMCO(2, "harmonic"),
        r'VIMCO.mean = .harmonic.; choose "geometric" or "arithmetic"',
    ),
    "no pilot": (lambda: vaejax.OptimalConstant(1, 0), "OptimalConstant.num_pilot = 0"),
    "coefficient": (
        lambda: vaejax.StickTheLanding(coefficient="best"),
        r'coefficient = .best.; give a number, or "estimated"',
    ),
}


@pytest.mark.parametrize("make, message", REFUSED.values(), ids=REFUSED)
def test_mistakes_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_baseline_of_two_numbers_is_refused():
    estimator = vaejax.ScoreFunction(1, vaejax.LearnedBaseline(vaejax.MLP(2)))
    params = POINT.params._replace(
        psi=estimator.init(POINT.model, POINT.params, POINT.datum, jax.random.key(0))
    )
    with pytest.raises(TypeError, match="LearnedBaseline wants a net of one output"):
        estimator(POINT.model, params, POINT.datum, jax.random.key(0))
