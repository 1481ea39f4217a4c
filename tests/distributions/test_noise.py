"""Noise: each draw alone is one of q, and together they have the variances that theory gives."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
from scipy import stats

import vaejax
from tests.lib.cases import cases
from tests.lib.given_keys import key_of_normals
from tests.lib.oracles import (
    LinearGaussian,
    assert_distributed,
    assert_mean,
    gauss_hermite,
    gradient_vector,
)
from vaejax.distributions.bernoulli import ContinuousBernoulliDensity
from vaejax.distributions.coupling import Autoregressive
from vaejax.distributions.flows import Flow
from vaejax.distributions.normal import DiagNormalDensity, standard_normal
from vaejax.distributions.numpyro import CholeskyNormal, NumPyroDensity
from vaejax.distributions.sphere import VonMisesFisherDensity

POINT = LinearGaussian()
NOISES = {"antithetic": vaejax.Antithetic(), "sobol": vaejax.Sobol()}
of_each = pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)


@pytest.mark.parametrize("noise", cases(NOISES, slow={"sobol"}))
def test_every_coordinate_of_every_draw_is_uniform(noise):
    uniforms = jax.jit(jax.vmap(lambda key: noise.uniforms(key, 8, (2, 2), jnp.float32)))(
        jax.random.split(jax.random.key(0), 40_000)
    )
    assert uniforms.shape == (40_000, 8, 2, 2) and (uniforms > 0).all() and (uniforms < 1).all()
    for k, coordinate in ((0, (0, 0)), (7, (1, 0)), (5, (1, 1))):
        assert_distributed(uniforms[:, k, *coordinate], stats.uniform.cdf)


def test_antithetic_draws_are_pairs():
    u = vaejax.Antithetic().uniforms(jax.random.key(0), 6, (3,), jnp.float32)
    np.testing.assert_allclose(u[:3] + u[3:], 1, rtol=1e-6)
    with pytest.raises(
        ValueError,
        match="num_samples = 3, but antithetic noise comes in pairs; give an even number",
    ):
        vaejax.Pathwise(3, noise=vaejax.Antithetic())(
            POINT.model, POINT.params, POINT.datum, jax.random.key(0)
        )


def test_antithetic_pairs_by_quadrature(x64):
    """Variances of one pair, in mu and rho, for the total derivative and for stick-the-landing."""
    nodes, weights = gauss_hermite(20)  # further out a uniform number would round to 1
    lam, d, s = POINT.lam, POINT.d, POINT.s
    expected = {
        vaejax.Pathwise: [0, 2 * lam**2 * s**4],
        vaejax.StickTheLanding: [0, 8 * ((1 - lam * s**2) / 2) ** 2],
    }
    assert d != 0  # or the pair would change nothing in rho
    for family, variances in expected.items():
        estimator = family(2, noise=vaejax.Antithetic())
        gradient = jax.grad(lambda p, key: estimator(POINT.model, p, POINT.datum, key))
        drawn = jax.jit(jax.vmap(gradient, (None, 0)))(
            POINT.params, jax.jit(jax.vmap(key_of_normals))(nodes)
        )
        gradients = np.asarray(jax.vmap(gradient_vector)(drawn))[:, :2]
        mean = np.asarray(weights) @ gradients
        np.testing.assert_allclose(mean, POINT.elbo_gradient[:2], rtol=1e-7)
        np.testing.assert_allclose(
            np.asarray(weights) @ (gradients - mean) ** 2, variances, atol=1e-7
        )


@of_each
def test_coordinates_of_one_draw_are_independent(noise):
    """E (u_1 - 1/2) (u_2 - 1/2) = 0 of the first draw and of the last; of equal ones it is 1/12."""
    uniforms = jax.jit(jax.vmap(lambda key: noise.uniforms(key, 4, (2,), jnp.float32)))(
        jax.random.split(jax.random.key(3), 4_000)
    )
    centred = np.asarray(uniforms) - 0.5
    assert_mean(centred[:, [0, 3], 0] * centred[:, [0, 3], 1], 0, detectable=0.012)


def test_scrambled_points_stay_a_net(x64):
    """Of 64 points one lies in each of the 64 boxes of volume 1/64, whatever their sides; two
    coordinates, twenty scramblings.
    """
    uniforms = jax.jit(jax.vmap(lambda key: vaejax.Sobol().uniforms(key, 64, (2,), jnp.float64)))(
        jax.random.split(jax.random.key(0), 20)
    )
    assert len({float(u[0, 0]) for u in uniforms}) == 20
    for first in range(7):
        boxes = np.floor(np.asarray(uniforms) * np.array([2**first, 2 ** (6 - first)])).astype(int)
        for places in boxes:
            assert len(set(map(tuple, places))) == 64


@pytest.mark.slow
def test_quasi_monte_carlo_falls_faster_than_one_over_k():
    """The variance of the total gradient in mu and rho, at K = 4 and K = 64: sixteen times as many
    samples, over 100 times less.
    """

    def variance(k, noise):
        estimator = vaejax.Pathwise(k, noise=noise)
        gradient = jax.jit(
            jax.vmap(
                jax.grad(lambda p, key: estimator(POINT.model, p, POINT.datum, key)), (None, 0)
            )
        )
        return np.var(
            jax.vmap(gradient_vector)(
                gradient(POINT.params, jax.random.split(jax.random.key(0), 2_000))
            ),
            axis=0,
        )[:2]

    assert (variance(4, vaejax.Sobol()) > 100 * variance(64, vaejax.Sobol())).all()
    assert (variance(4, vaejax.Independent()) < 25 * variance(64, vaejax.Independent())).all()


@pytest.mark.slow
@of_each
def test_estimators_stay_unbiased(noise):
    for estimator in (
        vaejax.Pathwise(4, noise=noise),
        vaejax.AnalyticKL(4, noise=noise),
        vaejax.StickTheLanding(4, noise=noise),
    ):
        gradient = jax.jit(
            jax.vmap(
                jax.grad(lambda p, key: estimator(POINT.model, p, POINT.datum, key)), (None, 0)
            )
        )
        gradients = jax.vmap(gradient_vector)(
            gradient(POINT.params, jax.random.split(jax.random.key(1), 20_000))
        )
        assert_mean(np.asarray(gradients)[:, 1:], POINT.elbo_gradient[1:], detectable=0.1)
        np.testing.assert_allclose(np.mean(gradients, axis=0)[0], POINT.elbo_gradient[0], atol=0.02)


def cholesky_normal(loc):
    return CholeskyNormal(npd.MultivariateNormal(loc, scale_tril=jnp.asarray([[2.0]])))


FAMILIES = {
    "DiagNormal": (
        lambda loc: DiagNormalDensity(loc, jnp.asarray([-0.3])),
        stats.norm(0.4, np.exp(-0.3)).cdf,
    ),
    "Laplace": (
        lambda loc: NumPyroDensity(npd.Laplace(loc, 0.7).to_event(1)),
        stats.laplace(0.4, 0.7).cdf,
    ),
    "CholeskyNormal": (cholesky_normal, stats.norm(0.4, 2).cdf),
    "ContinuousBernoulli": (
        ContinuousBernoulliDensity,
        lambda x: np.expm1(0.4 * x) / np.expm1(0.4),
    ),
}


@pytest.mark.parametrize("family, cdf", FAMILIES.values(), ids=FAMILIES)
def test_a_uniform_number_stands_for_a_sample(x64, family, cdf):
    q, u = family(jnp.asarray([0.4])), jnp.linspace(0.01, 0.99, 25)
    samples = jax.vmap(lambda u: q.at_uniform(u[None]).sample(None))(u)
    np.testing.assert_allclose(cdf(np.asarray(samples)[:, 0]), u, rtol=1e-9)


@pytest.mark.slow
def test_a_flow_knows_the_density_of_the_sample_at_a_uniform_number(x64):
    """An inverse autoregressive flow, whose density is known nowhere else."""
    layers = (Autoregressive("forward", (8,)),) * 2
    params = tuple(
        layer.init(key, jnp.zeros(2), None)
        for layer, key in zip(layers, jax.random.split(jax.random.key(0)), strict=True)
    )
    flow = Flow(standard_normal(jnp.zeros(2)), params, None, layers)
    u = jnp.asarray([0.2, 0.9])
    z, log_prob = flow.at_uniform(u).sample_and_log_prob(None)
    map_of_uniforms = jax.jacfwd(lambda u: flow.at_uniform(u).sample(None))(u)
    np.testing.assert_allclose(log_prob, -np.linalg.slogdet(map_of_uniforms)[1], rtol=1e-10)
    np.testing.assert_allclose(z, flow.at_uniform(u).sample(None), rtol=1e-12)


def test_a_family_without_uniform_numbers_is_refused():
    q = VonMisesFisherDensity(jnp.asarray([1.0, 0.0]), jnp.asarray(2.0))
    with pytest.raises(
        TypeError,
        match=r"VonMisesFisher does not say which sample .* use vaejax.Independent\(\)",
    ):
        q.at_uniform(jnp.asarray([0.5, 0.5])).sample(None)
