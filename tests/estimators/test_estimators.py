"""Means and variances of the estimators, exactly: against closed forms and the numbers of the
published tables, in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib.oracles import LinearGaussian, assert_mean, exact_moments, gradient_vector
from vaejax.distributions.normal import DiagNormalDensity
from vaejax.estimators.gaussian import measure_valued_gradient
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


# Two samples of the frozen point: mean and variance of the gradient in mu.
AT_TWO_SAMPLES = {
    "IWAE": (vaejax.Pathwise(2, vaejax.iwae_bound), 0.1469185706, 1.9375918599),
    "DReG": (vaejax.DReG(2), 0.1469185706, 0.0288031386),
    "STL-IWAE": (vaejax.StickTheLanding(2, vaejax.iwae_bound), 0.3185591462, 0.1088374149),
    "RWS": (vaejax.RWS(2), 0.1716405756, 1.1279904056),
    "RWS-DReG": (vaejax.RWS(2, doubly_reparameterised=True), 0.1716405756, 0.0277107491),
    "VIMCO, geometric": (vaejax.VIMCO(2, "geometric"), 0.1469185706, 1.7266903756),
    "VIMCO, arithmetic": (vaejax.VIMCO(2, "arithmetic"), 0.1469185706, 1.7266903756),
    "OVIS, gamma 0": (vaejax.OVIS(2, gamma=0.0), 0.1469185706, 0.2258701799),
    "OVIS, gamma 1": (vaejax.OVIS(2, gamma=1.0), 0.3185591462, 0.4421592074),
}


@pytest.mark.parametrize(
    "estimator, expected_mean, expected_variance", AT_TWO_SAMPLES.values(), ids=AT_TWO_SAMPLES
)
def test_importance_weighted_gradients_at_two_samples(
    x64, estimator, expected_mean, expected_variance
):
    value, mean, variance = exact_moments(estimator, POINT, num_samples=2, num_nodes=60)
    np.testing.assert_allclose(value, -1.5314735497, rtol=1e-9)
    np.testing.assert_allclose(
        [mean[0], variance[0]], [expected_mean, expected_variance], rtol=1e-8
    )


@pytest.mark.slow
def test_importance_weighted_gradients_at_three_samples(x64):
    """Those that are unbiased have one mean, in every parameter; those of the wake phase another,
    which is the others' bias.
    """
    settings = {"num_samples": 3, "num_nodes": 28}
    iwae, dreg, stopped, ovis, biased_ovis, geometric, arithmetic, wake, doubly_wake = (
        exact_moments(estimator, POINT, **settings)[1]
        for estimator in (
            vaejax.Pathwise(3, vaejax.iwae_bound),
            vaejax.DReG(3),
            vaejax.StickTheLanding(3, vaejax.iwae_bound),
            vaejax.OVIS(3),
            vaejax.OVIS(3, gamma=1.0),
            vaejax.VIMCO(3),
            vaejax.VIMCO(3, "arithmetic"),
            vaejax.RWS(3),
            vaejax.RWS(3, doubly_reparameterised=True),
        )
    )
    for other in (dreg, ovis, geometric, arithmetic):
        np.testing.assert_allclose(other, iwae, atol=1e-8)
    np.testing.assert_allclose(doubly_wake[:2], wake[:2], atol=1e-8)
    for biased in (stopped, biased_ovis):
        np.testing.assert_allclose(biased[:2] - iwae[:2], wake[:2], atol=1e-8)
    assert (np.abs(wake[:2]) > 0.05).all()


@pytest.mark.parametrize(
    "alpha", [0.3, *(pytest.param(alpha, marks=pytest.mark.slow) for alpha in (0.0, 0.9, 1.0))]
)
def test_dreg_has_the_mean_of_the_renyi_bounds_gradient(x64, alpha):
    plain = exact_moments(vaejax.Pathwise(2, vaejax.renyi_bound(alpha)), POINT, 2, 40)
    doubly = exact_moments(vaejax.DReG(2, alpha), POINT, 2, 40)
    np.testing.assert_allclose(doubly[0], plain[0], rtol=1e-12)
    np.testing.assert_allclose(doubly[1], plain[1], atol=1e-8)
    assert (doubly[2][:2] < plain[2][:2]).all()


def test_at_one_sample_they_are_one_another(x64):
    dreg, stopped = (
        exact_moments(estimator, POINT) for estimator in (vaejax.DReG(1), vaejax.StickTheLanding())
    )
    for ours, theirs in zip(dreg, stopped, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    _, mean, variance = exact_moments(vaejax.RWS(1), POINT)
    np.testing.assert_allclose([mean[0], variance[0]], [0, 1 / POINT.s**2], atol=1e-12)
    np.testing.assert_allclose(
        exact_moments(vaejax.RWS(1, doubly_reparameterised=True), POINT)[2][:2], 0, atol=1e-24
    )


def test_stopping_adds_the_wake_gradient_sample_by_sample(x64):
    key = jax.random.key(3)

    def phi_gradient(estimator):
        return gradient_vector(
            jax.grad(lambda p: estimator(POINT.model, p, POINT.datum, key))(POINT.params)
        )[:2]

    stopped, total = (
        phi_gradient(family(5, vaejax.iwae_bound))
        for family in (vaejax.StickTheLanding, vaejax.Pathwise)
    )
    np.testing.assert_allclose(stopped, total + phi_gradient(vaejax.RWS(5)), rtol=1e-10)


def test_generalised_dreg_in_the_priors_parameters(x64):
    """Its mean is that of the plain gradient, in prior, likelihood and encoder."""
    point = LinearGaussian()
    model = vaejax.VAE(vaejax.LearnedNormal(1), point.model.likelihood, point.model.encoder)
    prior = {"loc": jnp.asarray([0.3]), "log_scale": jnp.asarray([-0.2])}
    params = point.params._replace(theta={**point.params.theta, "prior": prior})

    def flat(gradient):
        prior = gradient.theta["prior"]
        return jnp.concatenate([prior["loc"], prior["log_scale"], gradient_vector(gradient)])

    plain, generalised = (
        exact_moments(estimator, point, 2, 40, model=model, params=params, vector=flat)
        for estimator in (vaejax.Pathwise(2, vaejax.iwae_bound), vaejax.GeneralisedDReG(2))
    )
    np.testing.assert_allclose(generalised[0], plain[0], rtol=1e-12)
    np.testing.assert_allclose(generalised[1], plain[1], atol=1e-8)
    assert (generalised[2][2:4] < plain[2][2:4]).all()
    with pytest.raises(
        TypeError,
        match=(
            "GeneralisedDReG needs a prior that is a diagonal normal, not Mixture for z; use"
            " vaejax.DReG"
        ),
    ):
        vamp = vaejax.VAE(vaejax.VampPrior(2), model.likelihood, model.encoder)
        vaejax.GeneralisedDReG(2)(
            vamp, vamp.init(jax.random.key(0), point.datum), point.datum, jax.random.key(0)
        )


def test_generalised_dreg_at_the_posterior(x64):
    """There the weights are equal, and in the prior's location its variance is (1 - lam)^2 times
    that of DReG, in closed form.
    """
    point = POINT.at_posterior()
    model = vaejax.VAE(vaejax.LearnedNormal(1), point.model.likelihood, point.model.encoder)
    prior = {"loc": jnp.zeros(1), "log_scale": jnp.zeros(1)}
    params = point.params._replace(theta={**point.params.theta, "prior": prior})
    dreg, generalised = (
        exact_moments(
            estimator,
            point,
            2,
            20,
            model=model,
            params=params,
            vector=lambda gradient: gradient.theta["prior"]["loc"],
        )[2]
        for estimator in (vaejax.DReG(2), vaejax.GeneralisedDReG(2))
    )
    np.testing.assert_allclose(generalised / dreg, (1 - POINT.lam) ** 2, rtol=1e-8)


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


@pytest.mark.slow
def test_the_estimated_coefficient(x64):
    """It tends to lam s^2, and leaves the estimator unbiased however few samples it is from."""
    q = POINT.model.posterior(POINT.params, POINT.datum)
    found = best_coefficient(POINT.model, POINT.params, POINT.datum, q, jax.random.key(0), 20_000)
    np.testing.assert_allclose(found, POINT.lam * POINT.s**2, rtol=0.05)
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


def test_stopped_gradients_leave_a_vamp_prior_live():
    """Under a VampPrior phi is part of log p(z) too, and stick-the-landing must not stop it
    there.
    """
    point = POINT.at_posterior()
    model = vaejax.VAE(vaejax.VampPrior(1), point.model.likelihood, point.model.encoder)
    params = point.params._replace(theta={**point.params.theta, "prior": jnp.zeros((1, 1))})
    gradient = jax.grad(
        lambda p: vaejax.StickTheLanding()(model, p, point.datum, jax.random.key(1))
    )(params)
    z = model.posterior(params, point.datum).sample(jax.random.split(jax.random.key(1), 1)[0])
    through_prior = jax.grad(lambda phi: model.p_z(params._replace(phi=phi)).log_prob(z))(
        params.phi
    )
    assert np.abs(through_prior["log_scale"]) > 0.1
    frozen = jax.grad(
        lambda p: vaejax.StickTheLanding()(
            _with_prior_stopped(model), p, point.datum, jax.random.key(1)
        )
    )(params)
    np.testing.assert_allclose(
        gradient.phi["log_scale"] - frozen.phi["log_scale"], through_prior["log_scale"], rtol=1e-4
    )


def _with_prior_stopped(model):
    class Stopped:
        posterior = staticmethod(model.posterior)

        @staticmethod
        def log_joint(params, x, z):
            stopped = params._replace(phi=jax.lax.stop_gradient(params.phi))
            return model.p_z(stopped).log_prob(z) + model.p_x_given_z(params, z).log_prob(x)

    return Stopped()


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
