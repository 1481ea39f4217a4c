"""von Mises-Fisher: scipy's Bessel functions, quadrature over the angle, calibrated samples, exact
gradients of the sampler.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, special, stats

from tests.lib.oracles import assert_distributed, assert_mean
from vaejax.distributions.sphere import (
    UniformOnSphereDensity,
    VonMisesFisherDensity,
    _du_dkappa,
    _normalised,
)

DIMS = (2, 3, 5, 20, 50)
KAPPAS = np.array([0.01, 0.3, 2.0, 30.0, 500.0, 1e4])
KEYS = jax.random.split(jax.random.key(1), 40_000)
NODES, WEIGHTS = np.polynomial.legendre.leggauss(300)


def direction(dim):
    """A unit vector that points along no axis."""
    vector = np.cos(np.arange(dim) + 1.0)
    return vector / np.linalg.norm(vector)


def mean_cosine(dim, kappa):
    """E <loc, z> = I_{d/2}(kappa) / I_{d/2-1}(kappa)."""
    return special.ive(dim / 2, kappa) / special.ive(dim / 2 - 1, kappa)


def angle_rule(dim, kappa, upto=np.pi):
    """Gauss-Legendre nodes in the angle from loc, with the density of the angle (times the
    weights), not normalised.
    """
    upto = min(upto, 14 * np.sqrt(dim / kappa), np.pi)
    angles = (NODES + 1) / 2 * upto
    return angles, WEIGHTS * upto / 2 * np.exp(kappa * (np.cos(angles) - 1)) * np.sin(angles) ** (
        dim - 2
    )


def angle_cdf(dim, kappa, angle):
    return angle_rule(dim, kappa, angle)[1].sum() / angle_rule(dim, kappa)[1].sum()


@jax.jit
def at(loc, kappa, z):
    """log-densities [z], entropy, mean."""
    q = VonMisesFisherDensity(loc, kappa)
    return jax.vmap(q.log_prob)(z), q.entropy(), q.mean()


over_kappas = jax.jit(jax.vmap(at, (None, 0, None)))


def test_equals_scipy(x64):
    for dim in DIMS:
        loc = direction(dim)
        z = np.stack([loc, -loc, np.eye(dim)[0], stats.uniform_direction(dim).rvs(random_state=0)])
        log_prob, entropy, mean = over_kappas(loc, KAPPAS, z)
        of_scipy = [stats.vonmises_fisher(loc, kappa) for kappa in KAPPAS]
        np.testing.assert_allclose(
            log_prob, [p.logpdf(z) for p in of_scipy], rtol=1e-10, atol=1e-10
        )
        np.testing.assert_allclose(entropy, [p.entropy() for p in of_scipy], rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(mean, mean_cosine(dim, KAPPAS)[:, None] * loc, rtol=1e-10)


def test_large_dimension_without_scipy(x64):
    """Where scipy's Bessel functions underflow: E <loc, z> by its continued fraction, which is also
    the derivative of log C.
    """
    dim, kappas = 784, np.array([0.5, 30.0, 1e4])
    ratio = 0.0
    for k in range(5_000, 0, -1):
        ratio = 1 / ((dim + 2 * (k - 1)) / kappas + ratio)
    log_prob_and_mean = jax.jit(
        jax.vmap(
            jax.value_and_grad(lambda kappa: at(jnp.eye(dim)[0], kappa, jnp.eye(dim)[:1])[0][0])
        )
    )
    np.testing.assert_allclose(log_prob_and_mean(kappas)[1], 1 - ratio, rtol=1e-10)
    np.testing.assert_allclose(
        over_kappas(np.eye(dim)[0], kappas, np.eye(dim)[:1])[2][:, 0], ratio, rtol=1e-10
    )


def test_integrates_to_one(x64):
    angles = np.linspace(0, 2 * np.pi, 4_000, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], 1)
    t, weights = np.polynomial.legendre.leggauss(150)
    around = np.exp(2j * np.pi * np.arange(10) / 10)[None] * np.sqrt((1 - t) * (1 + t))[:, None]
    ball = np.stack(
        [np.broadcast_to(t[:, None], around.shape), around.real, around.imag], -1
    ).reshape(-1, 3)
    kappas = np.array([1e-3, 1.0, 50.0, 200.0])
    np.testing.assert_allclose(
        np.exp(over_kappas(direction(2), kappas, circle)[0]).sum(1) * 2 * np.pi / 4_000,
        1,
        rtol=1e-12,
    )
    np.testing.assert_allclose(
        np.exp(over_kappas(np.eye(3)[0], kappas, ball)[0])
        @ np.repeat(weights * 2 * np.pi / 10, 10),
        1,
        rtol=1e-11,
    )


@pytest.mark.parametrize("dim", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_samples_follow_the_density(x64, dim):
    """The angle from loc against its cdf; the direction around loc uniform and independent of it;
    |z| = 1.
    """
    loc = direction(dim)
    basis = np.linalg.svd(loc[None])[2][1:]  # orthonormal, perpendicular to loc
    draw = jax.jit(
        jax.vmap(
            lambda kappa, key: VonMisesFisherDensity(jnp.asarray(loc), kappa).sample(key), (None, 0)
        )
    )
    for kappa in (0.01, 2.0, 1e4):
        z = np.asarray(draw(jnp.asarray(kappa), KEYS))
        np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-14)
        angles = np.arctan2(np.linalg.norm(z @ basis.T, axis=1), z @ loc)
        grid = np.linspace(0, min(np.pi, 14 * np.sqrt(dim / kappa)), 400)
        assert_distributed(
            angles,
            lambda a, k=kappa, g=grid: np.interp(a, g, [angle_cdf(dim, k, end) for end in g]),
        )
        around = z @ basis.T / np.linalg.norm(z @ basis.T, axis=1, keepdims=True)
        assert_mean(around, 0, detectable=0.04)
        assert_mean(
            around[:, :, None] * around[:, None], np.eye(dim - 1) / (dim - 1), detectable=0.03
        )
        assert_mean(around * (angles > np.median(angles))[:, None], 0, detectable=0.04)


def test_uniform_on_the_sphere(x64):
    for dim, area in ((2, 2 * np.pi), (3, 4 * np.pi), (4, 2 * np.pi**2)):
        p = UniformOnSphereDensity(jnp.zeros(dim))
        np.testing.assert_allclose(
            [p.log_prob(direction(dim)), -p.entropy()], -np.log(area), rtol=1e-14
        )
    z = np.asarray(jax.jit(jax.vmap(UniformOnSphereDensity(jnp.zeros(5)).sample))(KEYS))
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-14)
    assert_distributed(z @ direction(5), lambda t: stats.beta(2, 2).cdf((t + 1) / 2))
    assert_mean(z[:, :, None] * z[:, None], np.eye(5) / 5, detectable=0.02)
    np.testing.assert_allclose(
        at(direction(5), 1e-12, z[:1])[0],
        UniformOnSphereDensity(jnp.zeros(5)).log_prob(z[0]),
        rtol=1e-11,
    )


def quantile(dim, kappa, probability):
    """u = artanh <loc, z> at which the cdf of the angle is `probability`, by quadrature over the
    angle and root finding.
    """
    upto = min(np.pi, 14 * np.sqrt(dim / kappa))
    angle = optimize.brentq(
        lambda a: angle_cdf(dim, kappa, a) - probability, 0, upto, xtol=1e-15, rtol=1e-14
    )
    return -np.log(np.tan(angle / 2))


def test_a_sample_moves_as_its_quantile_does(x64):
    """d u / d kappa at a fixed quantile, against differences of the inverted cdf: fourth order, so
    exact to about 1e-9.
    """
    for dim in (2, 3, 20):
        cases = [
            (kappa, p) for kappa in (0.5, 8.0, 300.0, 1e4) for p in (1e-3, 0.2, 0.45, 0.7, 0.999)
        ]
        expected = []
        for kappa, p in cases:
            h = 1e-2 * kappa
            far, near = (
                quantile(dim, kappa + k * h, p) - quantile(dim, kappa - k * h, p) for k in (2, 1)
            )
            expected.append((8 * near - far) / (12 * h))
        kappas, us = np.array([(kappa, quantile(dim, kappa, p)) for kappa, p in cases]).T
        moves = jax.jit(jax.vmap(lambda u, kappa, dim=dim: _du_dkappa(u, kappa, dim)))(us, kappas)
        np.testing.assert_allclose(moves, expected, rtol=1e-6)


def test_pathwise_gradients_are_those_of_the_expectation(x64):
    """E z_0 = A cos a and E z_0^2 = A/kappa + (1 - d A/kappa) cos(a)^2 with loc_0 = cos a, A = E
    <loc, z>.
    """

    def z_0(kappa, angle, key):
        loc = jnp.zeros(dim).at[0].set(jnp.cos(angle)).at[1].set(jnp.sin(angle))
        first = VonMisesFisherDensity(loc, kappa).sample(key)[0]
        return jnp.stack([first, first**2])

    dim, kappa, angle = 4, 3.0, 0.7
    jacobian = jax.jit(jax.vmap(jax.jacrev(z_0, argnums=(0, 1)), (None, None, 0)))
    by_kappa, by_angle = jacobian(kappa, angle, KEYS)
    A = mean_cosine(dim, kappa)
    slope = 1 - A**2 - (dim - 1) / kappa * A  # dA/dkappa
    ratio_slope = slope / kappa - A / kappa**2
    cosine, sine = np.cos(angle), np.sin(angle)
    expected = (
        [slope * cosine, ratio_slope * (1 - dim * cosine**2)],
        [
            -A * sine,
            -2 * (1 - dim * A / kappa) * cosine * sine,
        ],
    )
    assert_mean(by_kappa, expected[0], detectable=0.015)
    assert_mean(by_angle, expected[1], detectable=0.05)


@pytest.mark.slow
def test_float32_samples_at_extreme_concentrations():
    """On the circle, where <loc, z> rounds to +-1 most often: samples are on it, and their
    log-densities and all gradients finite.
    """
    loc = jnp.asarray(direction(2), jnp.float32)

    def log_prob_of_sample(natural, key):
        length = jnp.linalg.norm(natural)
        q = VonMisesFisherDensity(natural / length, length)
        z = q.sample(key)
        return q.log_prob(z) + jnp.sum(z), z

    both = jax.jit(jax.vmap(jax.value_and_grad(log_prob_of_sample, has_aux=True), (None, 0)))
    for kappa in (1e-3, 1.0, 1e4):
        (log_prob, z), gradient = both(kappa * loc, KEYS)
        assert np.isfinite(log_prob).all() and np.isfinite(gradient).all()
        np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=2e-6)


def test_float32_densities_at_extreme_concentrations():
    """Close to scipy's in float64: nothing cancels where kappa is large, the point close to loc and
    the dimension high.
    """
    loc = direction(20)
    for kappa in (1e-3, 1.0, 1e4):
        scale = min(1.0, kappa**-0.5)
        z = loc[None] + scale * np.random.default_rng(0).normal(size=(20, 20))
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        log_prob, entropy, mean = at(
            loc.astype(np.float32), np.float32(kappa), z.astype(np.float32)
        )
        p = stats.vonmises_fisher(loc, kappa)
        np.testing.assert_allclose(log_prob, p.logpdf(z), rtol=2e-6, atol=1e-4)
        np.testing.assert_allclose(entropy, p.entropy(), rtol=2e-6, atol=1e-4)
        np.testing.assert_allclose(mean, mean_cosine(20, kappa) * loc, rtol=1e-5, atol=1e-6)


def test_a_zero_vector_does_not_become_nan():
    """In float32 one normal number in ten million is exactly 0; on the circle the tangent is one
    number.
    """
    assert (_normalised(jnp.zeros(2)) == 0).all() and np.isfinite(
        jax.jacrev(_normalised)(jnp.zeros(2))
    ).all()


@pytest.mark.parametrize("kind", ["rbg", "unsafe_rbg"])
def test_keys_of_other_kinds(kind):
    """Mapped over, they once made the rejection loop endless; the draws follow the density, here
    that of <loc, z> in three dimensions.
    """
    q = VonMisesFisherDensity(jnp.asarray([1.0, 0.0, 0.0]), jnp.asarray(2.0))
    first = jax.jit(jax.vmap(q.sample))(jax.random.split(jax.random.key(0, impl=kind), 40_000))[
        :, 0
    ]
    assert_distributed(first, lambda t: np.expm1(2 * (t + 1)) / np.expm1(4))


def test_no_number_ends_the_loop():
    """A broken net gives a sample that is no number, which training reports, and not a loop without
    end.
    """
    q = VonMisesFisherDensity(jnp.asarray([1.0, 0.0, 0.0]), jnp.asarray(jnp.nan))
    assert np.isnan(jax.jit(q.sample)(jax.random.key(0))).all()
