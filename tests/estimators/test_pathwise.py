"""Estimators through the paths of samples: means and variances, exactly, against closed forms and
the numbers of the published tables, in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib.given_keys import key_of_normals
from tests.lib.oracles import (
    LinearGaussian,
    assert_mean,
    exact_moments,
    gauss_hermite,
    gradient_vector,
)
from vaejax.estimators.pathwise import best_coefficient

POINT = LinearGaussian()
ONE_SAMPLE = [vaejax.Pathwise(), vaejax.AnalyticKL(), vaejax.StickTheLanding()]


def variances(point):
    """Closed-form variance of the (mu, rho) gradient of one sample, by estimator."""
    lam, d, s = point.lam, point.d, point.s
    precision = point.w**2 / point.tau**2
    e = point.w * (point.x - point.b - point.w * point.mu) / point.tau**2
    excess = 1 - lam * s**2
    return {
        vaejax.Pathwise(): [lam**2 * s**2, lam**2 * d**2 * s**2 + 2 * lam**2 * s**4],
        vaejax.AnalyticKL(): [precision**2 * s**2, e**2 * s**2 + 2 * precision**2 * s**4],
        vaejax.StickTheLanding(): [excess**2 / s**2, lam**2 * d**2 * s**2 + 2 * excess**2],
    }


@pytest.mark.parametrize("estimator", ONE_SAMPLE, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize(
    "point", [POINT, LinearGaussian(w=-0.7, x=-2.0, mu=0.9, s=0.3)], ids=["frozen", "other"]
)
def test_value_gradient_and_variance(x64, estimator, point):
    value, mean, variance = exact_moments(estimator, point)
    np.testing.assert_allclose(value, point.elbo, rtol=1e-12)
    np.testing.assert_allclose(mean, point.elbo_gradient, rtol=1e-10)
    np.testing.assert_allclose(variance[:2], variances(point)[estimator], rtol=1e-10)


def test_variance_of_the_theta_gradient(x64):
    expected = (
        POINT.s**2 * (POINT.x - POINT.b - 2 * POINT.w * POINT.mu) ** 2 + 2 * POINT.w**2 * POINT.s**4
    ) / POINT.tau**4
    np.testing.assert_allclose(exact_moments(vaejax.Pathwise(), POINT)[2][2], expected, rtol=1e-10)
    np.testing.assert_allclose(expected, 1.0866796875, rtol=1e-10)


@pytest.mark.parametrize("estimator", ONE_SAMPLE, ids=lambda e: type(e).__name__)
def test_k_samples_divide_the_variance(x64, estimator):
    value, mean, variance = exact_moments(type(estimator)(2), POINT, num_samples=2, num_nodes=30)
    np.testing.assert_allclose(value, POINT.elbo, rtol=1e-12)
    np.testing.assert_allclose(mean, POINT.elbo_gradient, rtol=1e-10)
    np.testing.assert_allclose(variance[:2], np.array(variances(POINT)[estimator]) / 2, rtol=1e-10)


def test_stick_the_landing_has_no_variance_at_the_posterior(x64):
    _, mean, variance = exact_moments(vaejax.StickTheLanding(), POINT.at_posterior())
    np.testing.assert_allclose(mean[:2], 0, atol=1e-13)
    np.testing.assert_allclose(variance[:2], 0, atol=1e-24)


def test_stick_the_landing_wins_above_half_the_posterior_variance(x64):
    for share, wins in ((0.3, False), (0.7, True)):
        point = LinearGaussian(s=float(np.sqrt(share / POINT.lam)))
        stopped, total = (
            exact_moments(e, point)[2] for e in (vaejax.StickTheLanding(), vaejax.Pathwise())
        )
        assert (np.asarray(stopped[:2] < total[:2]) == wins).all()


def test_the_coefficient_of_the_score(x64):
    """At lam s^2 no variance is left in mu, and in rho lam^2 d^2 s^2; at 0 it is the total
    derivative.
    """
    best = exact_moments(vaejax.StickTheLanding(coefficient=POINT.lam * POINT.s**2), POINT)
    np.testing.assert_allclose(best[1], POINT.elbo_gradient, rtol=1e-10)
    np.testing.assert_allclose(best[2][:2], [0, 0.0497847656], rtol=1e-8, atol=1e-20)
    none, total = (
        exact_moments(estimator, POINT)
        for estimator in (vaejax.StickTheLanding(coefficient=0.0), vaejax.Pathwise())
    )
    for ours, theirs in zip(none, total, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def pilot_coefficient(noise):
    """-sum Cov(g, s) / sum E s^2 over (mu, rho) at these normal numbers, in closed form: the sample
    covariance, n - 1, and the mean square of the score, whose mean is known to be 0.
    """
    lam, d, s = POINT.lam, POINT.d, POINT.s
    # d log w / d (mu, rho) along the path, and d log q / d (mu, rho)
    slope = -lam * (d + s * noise)
    gradients = np.stack([slope, 1 + slope * s * noise])
    scores = np.stack([noise / s, noise**2 - 1])
    covariance = sum(np.cov(g, score)[0, 1] for g, score in zip(gradients, scores, strict=True))
    return -covariance / np.mean(scores**2, axis=1).sum()


def test_the_coefficient_is_that_of_its_pilot(x64):
    """At given noise of five samples."""
    q, noise = (
        POINT.model.posterior(POINT.params, POINT.datum),
        np.array([0.3, -1.1, 0.7, 1.9, -0.4]),
    )
    coefficient = jax.jit(
        lambda key: best_coefficient(POINT.model, POINT.params, POINT.datum, q, key, 5)
    )
    np.testing.assert_allclose(
        coefficient(key_of_normals(noise)), pilot_coefficient(noise), rtol=1e-9
    )


def test_the_pilot_has_noise_of_its_own(x64):
    """At any noise of the pilot the mean over the sample's own is the exact gradient: the sample
    has nothing of the pilot.
    """
    estimator = vaejax.StickTheLanding(coefficient="estimated", num_pilot=2)
    nodes, weights = gauss_hermite(20)
    pilot = np.array([-0.8, 1.7])

    def gradient(noise):
        # split in two: the sample's number and one that is not used, then the two of the pilot
        key = key_of_normals(jnp.concatenate([noise, jnp.zeros(1), jnp.asarray(pilot)]))
        return jax.grad(lambda p: estimator(POINT.model, p, POINT.datum, key))(POINT.params)

    gradients = jax.vmap(gradient_vector)(jax.jit(jax.vmap(gradient))(nodes))
    np.testing.assert_allclose(weights @ gradients, POINT.elbo_gradient, rtol=1e-9)


@pytest.mark.slow
def test_the_estimated_coefficient(x64):
    """It tends to lam s^2, and leaves the estimator unbiased however few samples it is from."""
    q = POINT.model.posterior(POINT.params, POINT.datum)
    coefficient = best_coefficient(
        POINT.model, POINT.params, POINT.datum, q, jax.random.key(0), 20_000
    )
    np.testing.assert_allclose(coefficient, POINT.lam * POINT.s**2, rtol=0.05)
    estimator = vaejax.StickTheLanding(coefficient="estimated", num_pilot=2)
    gradient = jax.jit(
        jax.vmap(jax.grad(lambda p, key: estimator(POINT.model, p, POINT.datum, key)), (None, 0))
    )
    gradients = jax.vmap(gradient_vector)(
        gradient(POINT.params, jax.random.split(jax.random.key(1), 200_000))
    )
    assert_mean(gradients, POINT.elbo_gradient, detectable=0.1)


@pytest.mark.slow
def test_jackknife_bound(x64):
    """E[K L_K - (K-1) L_(K-1)] exactly, and closer to log p(x) than either."""
    bound = vaejax.Pathwise(3, vaejax.jackknife_bound)
    three, two = (
        exact_moments(vaejax.Pathwise(k, vaejax.iwae_bound), POINT, k, 30)[0] for k in (3, 2)
    )
    value = exact_moments(bound, POINT, 3, 30)[0]
    np.testing.assert_allclose(value, 3 * three - 2 * two, rtol=1e-10)
    assert abs(value - POINT.log_marginal) < POINT.log_marginal - three
    with pytest.raises(ValueError, match="at least 2"):
        vaejax.jackknife_bound(jnp.zeros(1))


@pytest.mark.parametrize(
    "estimator", [*ONE_SAMPLE, vaejax.MeasureValued()], ids=lambda e: type(e).__name__
)
def test_real_keys_give_the_same_mean(estimator):
    """The quadrature replaces the random numbers; this does not."""
    gradient = jax.jit(
        jax.vmap(
            jax.value_and_grad(lambda p, key: estimator(POINT.model, p, POINT.datum, key)),
            (None, 0),
        )
    )
    values, gradients = gradient(POINT.params, jax.random.split(jax.random.key(0), 60_000))
    assert_mean(values, POINT.elbo, detectable=0.04)
    assert_mean(jax.vmap(gradient_vector)(gradients), POINT.elbo_gradient, detectable=0.07)


@vaejax.component
class PhiStoppedInThePrior(vaejax.VAE):
    """A VAE with the gradient of log p(z) in phi taken away."""

    def p_z(self, params, x=None):
        return super().p_z(params._replace(phi=jax.lax.stop_gradient(params.phi)), x)


def test_stopped_gradients_leave_a_vamp_prior_live():
    """Under a VampPrior phi is part of log p(z) too, and stick-the-landing must not stop it
    there.
    """
    point = POINT.at_posterior()
    model = vaejax.VAE(vaejax.VampPrior(1), point.model.likelihood, point.model.encoder)
    params = point.params._replace(theta={**point.params.theta, "prior": jnp.zeros((1, 1))})
    gradient = jax.jit(
        jax.grad(lambda p: vaejax.StickTheLanding()(model, p, point.datum, jax.random.key(1)))
    )(params)
    z = model.posterior(params, point.datum).sample(jax.random.split(jax.random.key(1), 1)[0])
    through_prior = jax.jit(jax.grad(lambda phi: model.p_z(params._replace(phi=phi)).log_prob(z)))(
        params.phi
    )
    assert np.abs(through_prior["log_scale"]) > 0.1
    stopped = PhiStoppedInThePrior(model.prior, model.likelihood, model.encoder)
    frozen = jax.jit(
        jax.grad(lambda p: vaejax.StickTheLanding()(stopped, p, point.datum, jax.random.key(1)))
    )(params)
    np.testing.assert_allclose(
        gradient.phi["log_scale"] - frozen.phi["log_scale"], through_prior["log_scale"], rtol=1e-4
    )


def test_analytic_kl_refuses_what_it_cannot_do():
    model = vaejax.VAE(vaejax.VampPrior(2), POINT.model.likelihood, POINT.model.encoder)
    params = model.init(jax.random.key(0), POINT.datum)
    with pytest.raises(TypeError, match=r"KL\(DiagNormal \|\| Mixture\).*use vaejax.Pathwise"):
        vaejax.AnalyticKL()(model, params, POINT.datum, jax.random.key(0))


@pytest.mark.parametrize("estimator", [vaejax.Pathwise, vaejax.AnalyticKL, vaejax.StickTheLanding])
@pytest.mark.parametrize("num_samples", [0, -1, 2.0])
def test_num_samples_is_a_count(estimator, num_samples):
    with pytest.raises(
        ValueError, match=f"{estimator.__name__}.num_samples = {num_samples}; .* at least 1"
    ):
        estimator(num_samples)


def test_a_coefficient_is_a_number_or_estimated():
    message = r'coefficient = .best.; it must be a finite number in float32, or "estimated"'
    with pytest.raises(ValueError, match=message):
        vaejax.StickTheLanding(coefficient="best")
    with pytest.raises(ValueError, match="num_pilot = 1; it must be a whole number, at least 2"):
        vaejax.StickTheLanding(coefficient="estimated", num_pilot=1)
