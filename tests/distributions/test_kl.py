"""KL in closed form: against quadrature and enumeration; refused with a remedy where there is
none.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
from scipy import stats

from tests.lib.oracles import gauss_hermite
from vaejax.distributions.bernoulli import BernoulliDensity
from vaejax.distributions.discrete import OneHotCategoricalDensity
from vaejax.distributions.kl import expected_log_prob, kl_divergence, kl_per_dimension
from vaejax.distributions.normal import DiagNormalDensity
from vaejax.distributions.numpyro import NumPyroDensity
from vaejax.distributions.sphere import UniformOnSphereDensity, VonMisesFisherDensity

GENERATOR = np.random.default_rng(0)
LOC, LOG_SCALE = GENERATOR.normal(size=(2, 2))
TRIL = np.array([[0.7, 0.0], [-0.4, 1.1]])
FACTOR, VARIANCES = np.array([[0.5], [-0.8]]), np.array([0.3, 0.6])


kl = jax.jit(kl_divergence)


def diag_normal():
    return DiagNormalDensity(*jnp.asarray(np.random.default_rng(1).normal(size=(2, 2))))


def mean_under(q, p, zs, weights):
    """E_q[log q - log p] over nodes."""
    return weights @ jax.jit(lambda q, p: jax.vmap(lambda z: q.log_prob(z) - p.log_prob(z))(zs))(
        q, p
    )


def test_of_two_diagonal_normals(x64):
    q, p = DiagNormalDensity(jnp.asarray(LOC), jnp.asarray(LOG_SCALE)), diag_normal()
    noise, weights = gauss_hermite(30, 2)
    zs = q.loc[None] + jnp.exp(q.log_scale)[None] * noise
    np.testing.assert_allclose(kl(q, p), mean_under(q, p, zs, weights), rtol=1e-10)
    for j, kl_j in enumerate(kl_per_dimension(q, p)):
        np.testing.assert_allclose(
            kl_j, kl(*jax.tree.map(lambda leaf, j=j: leaf[j : j + 1], (q, p))), rtol=1e-14
        )
    np.testing.assert_allclose(
        -expected_log_prob(p, q.loc, jnp.exp(2 * q.log_scale)),
        -weights @ jax.vmap(p.log_prob)(zs),
        rtol=1e-10,
    )
    assert kl(q, q) == 0


def test_of_close_normals_nothing_cancels():
    """KL = e^2 to leading order where two log-scales differ by e: in float32, e = 1e-4."""
    q, p = (
        DiagNormalDensity(jnp.zeros(1), jnp.full(1, 1e-4)),
        DiagNormalDensity(jnp.zeros(1), jnp.zeros(1)),
    )
    np.testing.assert_allclose(kl(q, p), 1e-8, rtol=2e-3)


def test_of_correlated_normals_to_a_diagonal_one(x64):
    """Quadrature in the coordinates of the Cholesky factor; NumPyro's own formula says the same."""
    noise, weights = gauss_hermite(30, 2)
    covariance = FACTOR @ FACTOR.T + np.diag(VARIANCES)
    p = diag_normal()
    for base, tril in (
        (npd.MultivariateNormal(jnp.asarray(LOC), scale_tril=jnp.asarray(TRIL)), TRIL),
        (
            npd.LowRankMultivariateNormal(
                jnp.asarray(LOC), jnp.asarray(FACTOR), jnp.asarray(VARIANCES)
            ),
            np.linalg.cholesky(covariance),
        ),
    ):
        of_base = kl(NumPyroDensity(base), p)
        np.testing.assert_allclose(
            of_base,
            mean_under(NumPyroDensity(base), p, LOC[None] + noise @ tril.T, weights),
            rtol=1e-10,
        )
        full = [
            npd.MultivariateNormal(loc, scale_tril=L)
            for loc, L in ((LOC, tril), (np.asarray(p.loc), np.diag(np.exp(p.log_scale))))
        ]
        np.testing.assert_allclose(of_base, kl(*full), rtol=1e-10)


def test_of_a_laplace_to_a_diagonal_normal(x64):
    """Quadrature on each side of the peak, where the integrand is a polynomial times exp(-|x|); a
    sum over the two coordinates.
    """
    x, weights = np.polynomial.laguerre.laggauss(20)
    p, expected = diag_normal(), 0.0
    q = NumPyroDensity(npd.Laplace(jnp.asarray(LOC), jnp.exp(jnp.asarray(LOG_SCALE))).to_event(1))
    for j in range(2):
        scale = np.exp(LOG_SCALE[j])
        for side in (-1, 1):
            zs = jnp.asarray(LOC[j] + side * scale * x)
            p_j = DiagNormalDensity(p.loc[j : j + 1], p.log_scale[j : j + 1])
            expected += weights / 2 @ (-x - np.log(2 * scale) - jax.vmap(p_j.log_prob)(zs[:, None]))
    np.testing.assert_allclose(kl(q, p), expected, rtol=1e-10)


def test_of_discrete_variables(x64):
    q_logits, p_logits = (jnp.asarray(GENERATOR.normal(size=(2, 3)) * 2) for _ in range(2))
    states = np.array(list(itertools.product([0.0, 1.0], repeat=3)))
    q, p = BernoulliDensity(q_logits[0]), BernoulliDensity(p_logits[0])
    np.testing.assert_allclose(
        kl(q, p), mean_under(q, p, states, np.exp(jax.vmap(q.log_prob)(states))), rtol=1e-12
    )
    one_hots = np.array(list(itertools.product(np.eye(3), repeat=2)))
    q, p = OneHotCategoricalDensity(q_logits), OneHotCategoricalDensity(p_logits)
    np.testing.assert_allclose(
        kl(q, p), mean_under(q, p, one_hots, np.exp(jax.vmap(q.log_prob)(one_hots))), rtol=1e-12
    )
    for family in (BernoulliDensity, OneHotCategoricalDensity):
        np.testing.assert_allclose(kl(family(q_logits), family(q_logits)), 0, atol=1e-15)


def test_of_discrete_variables_at_extreme_logits():
    """In float32, where mean (l_q - l_p) - log(1 + e^l_q) + ... would cancel."""
    value_and_grad = jax.jit(
        jax.value_and_grad(
            lambda q, p: kl_divergence(BernoulliDensity(q), BernoulliDensity(p)), argnums=(0, 1)
        )
    )
    for q, p, expected in (
        (1e4, 0.0, np.log(2)),
        (-1e4, 0.0, np.log(2)),
        (1e4, -1e4, 1e4),
        (-1e4, -1e4, 0),
        (20.0, 1e4, 1e4 * 2.0611537e-9),
    ):
        value, gradients = value_and_grad(jnp.full(1, q), jnp.full(1, p))
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-7)
        assert np.isfinite(gradients).all()
    logits = jnp.asarray([[1e4, -1e4, 0.0]])
    np.testing.assert_allclose(
        kl(OneHotCategoricalDensity(logits), OneHotCategoricalDensity(jnp.zeros((1, 3)))),
        np.log(3),
        rtol=1e-6,
    )


def test_of_von_mises_fisher_to_uniform(x64):
    """In three dimensions k (coth k - 1/k) + log(k / sinh k), 1.6390698026 at k = 7; in eight by
    scipy's entropy; small at small k.
    """
    of_sphere = jax.jit(
        lambda loc, kappa: kl_divergence(
            VonMisesFisherDensity(loc, kappa), UniformOnSphereDensity(jnp.zeros_like(loc))
        )
    )
    for k in (0.5, 7.0, 100.0):
        np.testing.assert_allclose(
            of_sphere(jnp.eye(3)[0], k), k / np.tanh(k) - 1 + np.log(k / np.sinh(k)), rtol=1e-10
        )
    np.testing.assert_allclose(of_sphere(jnp.eye(3)[0], 7.0), 1.6390698026, rtol=1e-10)
    np.testing.assert_allclose(of_sphere(jnp.eye(8)[0], 1e-3), 1e-6 / 16, rtol=1e-5)
    entropy = stats.vonmises_fisher(np.eye(8)[0], 20.0).entropy()
    np.testing.assert_allclose(
        of_sphere(jnp.eye(8)[0], 20.0), np.log(np.pi**4 / 3) - entropy, rtol=1e-10
    )


def test_of_numpyro_pairs():
    q, p = npd.Normal(0.3, 0.5), npd.Normal(0.0, 1.0)
    expected = npd.kl_divergence(q, p)
    np.testing.assert_allclose(expected, 0.5 * (0.25 + 0.09 - 1) - np.log(0.5), rtol=1e-6)
    for pair in (
        (q, p),
        (NumPyroDensity(q), p),
        (q, NumPyroDensity(p)),
        (NumPyroDensity(q), NumPyroDensity(p)),
    ):
        assert kl_divergence(*pair) == expected


def test_of_log_normals_is_of_each_coordinate(x64):
    """That of the two normals, for each coordinate, also where one parameter stands for all."""
    log_scale = jnp.log(jnp.asarray([0.5]))
    normals = (
        DiagNormalDensity(jnp.asarray([0.3]), log_scale),
        DiagNormalDensity(*jnp.zeros((2, 1))),
    )
    q, p = (
        npd.LogNormal(loc, scale).expand((3,)).to_event(1)
        for loc, scale in ((0.3, 0.5), (0.0, 1.0))
    )
    np.testing.assert_allclose(kl_divergence(q, p), 3 * kl(*normals), rtol=1e-6)


def reals(family):
    return NumPyroDensity(family(jnp.zeros(2), 1.0).to_event(1))


@pytest.mark.parametrize(
    "q, p, name",
    [
        (npd.StudentT(3.0), npd.Normal(0.0, 1.0), r"StudentT \|\| Normal"),
        (
            reals(npd.Gumbel),
            DiagNormalDensity(jnp.zeros(2), jnp.zeros(2)),
            r"Gumbel \|\| DiagNormal",
        ),  # NumPyro has not its entropy
        (
            DiagNormalDensity(jnp.zeros(2), jnp.zeros(2)),
            reals(npd.Laplace),
            r"DiagNormal \|\| Laplace",
        ),
        (
            NumPyroDensity(npd.Gamma(jnp.ones(2), 1.0).to_event(1)),
            DiagNormalDensity(jnp.zeros(2), jnp.zeros(2)),
            r"Gamma \|\| DiagNormal",
        ),
        (
            UniformOnSphereDensity(jnp.zeros(3)),
            VonMisesFisherDensity(jnp.eye(3)[0], jnp.ones(())),
            r"UniformOnSphere \|\| VonMisesFisher",
        ),
    ],
)
def test_a_pair_without_one_is_refused(q, p, name):
    with pytest.raises(
        TypeError,
        match=(
            rf"KL\({name}\) has no closed form here; use vaejax.Pathwise or vaejax.StickTheLanding"
        ),
    ):
        kl_divergence(q, p)


@pytest.mark.parametrize(
    "q, p",
    [
        (
            DiagNormalDensity(jnp.zeros(3), jnp.zeros(3)),
            DiagNormalDensity(jnp.zeros(1), jnp.zeros(1)),
        ),
        (reals(npd.Laplace), DiagNormalDensity(jnp.zeros(1), jnp.zeros(1))),
        (BernoulliDensity(jnp.zeros(3)), BernoulliDensity(jnp.zeros(1))),
        (OneHotCategoricalDensity(jnp.zeros((2, 3))), OneHotCategoricalDensity(jnp.zeros((1, 3)))),
        (VonMisesFisherDensity(jnp.eye(3)[0], jnp.ones(())), UniformOnSphereDensity(jnp.zeros(4))),
        (reals(npd.Normal), npd.Normal(0.0, 1.0)),
    ],
)
def test_two_shapes_are_refused(q, p):
    with pytest.raises(
        ValueError,
        match=r"KL\(q \|\| p\) of events of two shapes, .*; give both one shape",
    ):
        kl_divergence(q, p)


def test_under_vmap_and_grad():
    """As `AnalyticKL` uses it: q made under vmap, one p."""
    p = DiagNormalDensity(jnp.ones(2), jnp.zeros(2))

    def to_p(loc):
        return kl_divergence(NumPyroDensity(npd.MultivariateNormal(loc, scale_tril=jnp.eye(2))), p)

    locs = jnp.asarray(GENERATOR.normal(size=(4, 2)), jnp.float32)
    np.testing.assert_allclose(
        jax.jit(jax.vmap(to_p))(locs), 0.5 * ((locs - 1) ** 2).sum(1), rtol=1e-5
    )
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(to_p)))(locs), locs - 1, rtol=1e-5)
