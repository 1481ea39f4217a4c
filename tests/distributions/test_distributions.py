"""Densities: normalised, equal to scipy in float64, sampled as they say, finite at the extremes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
from jax.test_util import check_grads
from scipy import special, stats

from tests.lib.cases import cases
from tests.lib.oracles import assert_distributed, assert_mean
from vaejax.distributions.base import is_reparameterised, sample_and_log_prob
from vaejax.distributions.bernoulli import (
    BernoulliDensity,
    ContinuousBernoulliDensity,
    _continuous_bernoulli_quantile,
    _log_expm1_over,
    log1p_exp,
)
from vaejax.distributions.discrete import OneHotCategoricalDensity, RelaxedCategoricalDensity
from vaejax.distributions.mixture import Mixture
from vaejax.distributions.normal import DiagNormalDensity
from vaejax.distributions.numpyro import NumPyroDensity
from vaejax.distributions.pixels import DiscretizedLogisticDensity, Levels
from vaejax.distributions.sphere import UniformOnSphereDensity, VonMisesFisherDensity

GENERATOR = np.random.default_rng(0)
LOC, LOG_SCALE, LOGITS = (GENERATOR.normal(size=3) for _ in range(3))
KEYS = jax.random.split(jax.random.key(0), 40_000)


def mixture():
    return Mixture(
        jnp.asarray([0.3, -1.0]),
        DiagNormalDensity(jnp.asarray([[-2.0], [1.0]]), jnp.asarray([[-0.5], [0.2]])),
    )


def mixture_cdf(x):
    weights = np.exp([0.3, -1.0]) / np.exp([0.3, -1.0]).sum()
    return weights[0] * stats.norm.cdf(x, -2, np.exp(-0.5)) + weights[1] * stats.norm.cdf(
        x, 1, np.exp(0.2)
    )


def test_diag_normal_equals_scipy(x64):
    q = DiagNormalDensity(jnp.asarray(LOC), jnp.asarray(LOG_SCALE))
    for z in GENERATOR.normal(size=(20, 3)):
        np.testing.assert_allclose(
            q.log_prob(z), stats.norm.logpdf(z, LOC, np.exp(LOG_SCALE)).sum(), rtol=1e-12
        )


def test_bernoulli_equals_scipy_and_sums_to_one(x64):
    p = BernoulliDensity(jnp.asarray(LOGITS))
    states = np.array(list(itertools.product([0.0, 1.0], repeat=3)))
    log_p = jax.vmap(p.log_prob)(states)
    np.testing.assert_allclose(
        log_p, stats.bernoulli.logpmf(states, 1 / (1 + np.exp(-LOGITS))).sum(1), rtol=1e-12
    )
    np.testing.assert_allclose(np.exp(log_p).sum(), 1, rtol=1e-14)


def test_continuous_densities_integrate_to_one(x64):
    grid = np.linspace(-15, 15, 20_001)
    for p in (DiagNormalDensity(jnp.asarray(LOC[:1]), jnp.asarray(LOG_SCALE[:1])), mixture()):
        density = np.exp(jax.vmap(p.log_prob)(grid[:, None]))
        np.testing.assert_allclose(np.trapezoid(density, grid), 1, rtol=1e-12)


def test_mixture_equals_its_sum(x64):
    x = GENERATOR.normal(size=20)
    weights = np.exp([0.3, -1.0]) / np.exp([0.3, -1.0]).sum()
    density = weights[0] * stats.norm.pdf(x, -2, np.exp(-0.5)) + weights[1] * stats.norm.pdf(
        x, 1, np.exp(0.2)
    )
    np.testing.assert_allclose(
        jax.vmap(mixture().log_prob)(x[:, None]), np.log(density), rtol=1e-12
    )
    np.testing.assert_allclose(mixture().mean, weights @ [[-2.0], [1.0]], rtol=1e-12)


def test_samplers_agree_with_their_densities():
    q = DiagNormalDensity(jnp.asarray(LOC), jnp.asarray(LOG_SCALE))
    for column, loc, log_scale in zip(
        np.asarray(jax.vmap(q.sample)(KEYS)).T, LOC, LOG_SCALE, strict=True
    ):
        assert_distributed(column, stats.norm(loc, np.exp(log_scale)).cdf)
    assert_distributed(jax.vmap(mixture().sample)(KEYS), mixture_cdf)
    draws = jax.vmap(BernoulliDensity(jnp.asarray(LOGITS)).sample)(KEYS)
    assert set(np.unique(draws)) == {0.0, 1.0}
    assert_mean(draws, 1 / (1 + np.exp(-LOGITS)), detectable=0.02)


def test_noise_is_not_shared_between_dimensions():
    draws = jax.vmap(DiagNormalDensity(jnp.zeros(2), jnp.zeros(2)).sample)(KEYS)
    assert_mean(draws[:, 0] * draws[:, 1], 0, detectable=0.04)


def test_derivatives(x64):
    z = jnp.asarray(GENERATOR.normal(size=3))
    check_grads(
        jax.jit(lambda *p: DiagNormalDensity(*p).log_prob(z)),
        (LOC, LOG_SCALE),
        order=2,
        modes=("fwd", "rev"),
    )
    check_grads(
        jax.jit(lambda logits: BernoulliDensity(logits).log_prob(jnp.asarray([0.0, 1.0, 1.0]))),
        (LOGITS,),
        order=2,
        modes=("fwd", "rev"),
    )
    check_grads(jax.jit(lambda z: mixture().log_prob(z)), (z[:1],), order=2, modes=("fwd", "rev"))
    assert jax.grad(jax.grad(log1p_exp))(0.0) == 0.25


@pytest.mark.parametrize("logit", [-1e4, -100.0, -1.0, 0.0, 1.0, 100.0, 1e4])
@pytest.mark.parametrize("x", [0.0, 1.0])
def test_bernoulli_at_extreme_logits(logit, x):
    value, gradient = jax.value_and_grad(lambda l: BernoulliDensity(l).log_prob(jnp.asarray([x])))(
        jnp.asarray([logit])
    )
    expected = -np.logaddexp(0.0, -logit if x else logit)
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(
        gradient, [x - 1 / (1 + np.exp(-np.float64(np.clip(logit, -700, 700))))], atol=1e-6
    )


def softmax(logits):
    return np.exp(logits - special.logsumexp(logits, axis=-1, keepdims=True))


# Continuous Bernoulli. Its log-partition function is a cumulant generating function: every
# derivative is a central moment.

CB_LOGITS = np.array(
    [0.0, 1e-9, -1e-9, 1e-4, 0.19, 0.21, -0.39, 0.399, 0.401, -0.41, 3.0, -20.0, 100.0]
)


def test_continuous_bernoulli_by_quadrature(x64):
    """Its integral, mean, and three derivatives of its log-partition function; the closed form of
    its constant away from 0.
    """
    nodes, weights = np.polynomial.legendre.leggauss(200)
    x, weights = (nodes + 1) / 2, weights / 2
    density = np.exp(
        jax.jit(
            jax.vmap(lambda l: jax.vmap(ContinuousBernoulliDensity(l[None]).log_prob)(x[:, None]))
        )(CB_LOGITS)
    )
    np.testing.assert_allclose(density @ weights, 1, rtol=1e-12)
    unnormalised = np.exp(np.outer(CB_LOGITS, x)) * weights
    p = unnormalised / unnormalised.sum(1, keepdims=True)
    mean = p @ x
    np.testing.assert_allclose(
        ContinuousBernoulliDensity(jnp.asarray(CB_LOGITS)).mean, mean, rtol=1e-12
    )
    moments = [(p * (x[None] - mean[:, None]) ** k).sum(1) for k in (2, 3)]
    derivative = jax.grad(jax.grad(_log_expm1_over))
    np.testing.assert_allclose(jax.jit(jax.vmap(derivative))(CB_LOGITS), moments[0], rtol=1e-10)
    np.testing.assert_allclose(
        jax.jit(jax.vmap(jax.grad(derivative)))(CB_LOGITS), moments[1], rtol=1e-8, atol=1e-11
    )
    steep = CB_LOGITS[-3:]
    np.testing.assert_allclose(
        _log_expm1_over(jnp.asarray(steep)), np.log(np.expm1(steep) / steep), rtol=1e-14
    )


def test_continuous_bernoulli_in_float32():
    """Close to float64: the log-partition function with two derivatives, and how a sample moves
    with the logit.
    """

    @jax.jit
    @jax.vmap
    def derivatives(l):
        first = jax.grad(_log_expm1_over)
        slopes = jax.vmap(jax.grad(_continuous_bernoulli_quantile, argnums=1), (0, None))(
            jnp.asarray([0.1, 0.5, 0.9], l.dtype), l
        )
        return _log_expm1_over(l), first(l), jax.grad(first)(l), slopes

    single = derivatives(jnp.asarray(CB_LOGITS, jnp.float32))
    with jax.enable_x64(True):
        double = derivatives(jnp.asarray(CB_LOGITS))
    for got, expected in zip(single, double, strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-6, atol=3e-6)


def continuous_bernoulli_cdf(x, l):
    return x + 0 * l if abs(l) < 1e-8 else np.expm1(l * x) / np.expm1(l)


def test_continuous_bernoulli_quantiles(x64):
    """The sampler is the inverse cdf, without a jump at l = 0, and moves as -(dF/dl) / (dF/dx)."""
    u = np.array([1e-6, 0.1, 0.4, 0.7, 0.999])
    logits = np.array([-30.0, -0.101, -0.099, -1e-3, 0.0, 1e-7, 0.05, 0.0999, 0.1001, 2.0, 30.0])
    x, slope = jax.jit(
        jax.vmap(
            jax.vmap(jax.value_and_grad(_continuous_bernoulli_quantile, argnums=1), (0, None)),
            (None, 0),
        )
    )(u, logits)
    np.testing.assert_allclose(
        [continuous_bernoulli_cdf(row, l) for row, l in zip(np.asarray(x), logits, strict=True)],
        [u] * 11,
        rtol=1e-7,
    )
    # E[x; x < a] - F(a) E x = dF/dl, by quadrature.
    nodes, weights = np.polynomial.legendre.leggauss(100)
    nodes, weights = (nodes + 1) / 2, weights / 2
    for row, slopes, l in zip(np.asarray(x), np.asarray(slope), logits, strict=True):
        constant = weights @ np.exp(l * nodes)
        mean = weights @ (nodes * np.exp(l * nodes)) / constant
        below = (
            row[:, None]
            * weights
            * (row[:, None] * nodes - mean)
            * np.exp(l * row[:, None] * nodes)
        ).sum(1)
        np.testing.assert_allclose(slopes, -below / np.exp(l * row), rtol=1e-5)


def test_continuous_bernoulli_samples():
    logits = np.array([0.0, 0.05, -0.3, 3.0, -20.0])
    q = ContinuousBernoulliDensity(jnp.asarray(logits, jnp.float32))
    draws, slopes = jax.jit(
        jax.vmap(
            lambda key: jax.jvp(
                lambda l: ContinuousBernoulliDensity(l).sample(key), (q.logits,), (jnp.ones(5),)
            )
        )
    )(KEYS)
    for column, l in zip(np.asarray(draws).T, logits, strict=True):
        assert_distributed(column, lambda x, l=l: continuous_bernoulli_cdf(x, l))
    variance = jax.vmap(jax.grad(jax.grad(_log_expm1_over)))(q.logits)  # d/dl E x
    assert_mean(slopes, variance, detectable=0.003)
    np.testing.assert_allclose(variance[0], 1 / 12, rtol=1e-6)


# Categorical variables: one-hot, relaxed, levels.

ONE_HOT_LOGITS = GENERATOR.normal(size=(2, 3)) * 2
ONE_HOTS = np.array(list(itertools.product(np.eye(3), repeat=2)))


def test_one_hot_categorical(x64):
    p = OneHotCategoricalDensity(jnp.asarray(ONE_HOT_LOGITS))
    log_p = jax.jit(jax.vmap(p.log_prob))(ONE_HOTS)
    np.testing.assert_allclose(np.exp(log_p).sum(), 1, rtol=1e-14)
    of_numpyro = jax.jit(npd.Categorical(logits=jnp.asarray(ONE_HOT_LOGITS)).to_event(1).log_prob)
    np.testing.assert_allclose(log_p, of_numpyro(ONE_HOTS.argmax(-1)), rtol=1e-12)
    np.testing.assert_allclose(p.mean, np.tensordot(np.exp(log_p), ONE_HOTS, 1), rtol=1e-13)
    np.testing.assert_allclose(
        jax.jit(p.log_prob)(ONE_HOTS[4].astype(np.uint8)), log_p[4], rtol=1e-14
    )
    draws = np.asarray(jax.jit(jax.vmap(p.sample))(KEYS))
    assert (draws.sum(-1) == 1).all() and set(np.unique(draws)) == {0, 1}
    joint = draws[:, 0, :, None] * draws[:, 1, None]
    assert_mean(joint, np.exp(log_p).reshape(3, 3), detectable=0.02)


@pytest.mark.parametrize("temperature", [0.6, 1.7])
def test_relaxed_categorical_integrates_to_one(x64, temperature):
    """Over the simplex in the coordinates y of x = softmax(y_1, y_2, 0), where dx_1 dx_2 = x_1 x_2
    x_3 dy and the tails are exponential.
    """
    q = RelaxedCategoricalDensity(jnp.asarray(temperature), jnp.asarray([0.5, -1.0, 0.3]))
    axis = np.linspace(-50, 50, 401) / temperature
    x = softmax(np.array(list(itertools.product(axis, axis, [0.0]))))
    density = np.exp(jax.jit(jax.vmap(q.log_prob))(x)) * x.prod(1)
    np.testing.assert_allclose(density.sum() * (axis[1] - axis[0]) ** 2, 1, rtol=1e-9)


def test_relaxed_categorical_of_two_is_numpyros_relaxed_bernoulli(x64):
    logits, x = np.array([[0.4, -0.9], [2.0, 3.0]]), np.array([[1e-6, 0.2], [0.5, 0.97]])

    @jax.jit
    def both(temperature, column):
        q = RelaxedCategoricalDensity(temperature, jnp.asarray(logits))
        p = npd.RelaxedBernoulliLogits(temperature, logits[:, 0] - logits[:, 1]).to_event(1)
        return q.log_prob(jnp.stack([column, 1 - column], -1)), p.log_prob(column)

    for temperature, column in itertools.product((0.3, 1.0, 2.5), x.T):
        np.testing.assert_allclose(*both(temperature, column), rtol=1e-10)


def test_relaxed_categorical_samples():
    """The greatest coordinate has the probabilities softmax(logits); of two categories logit x_1 =
    (l + logistic noise) / T.
    """
    temperature, logits = 0.7, np.array([[0.5, -1.0, 0.3]])
    q = RelaxedCategoricalDensity(jnp.float32(temperature), jnp.asarray(logits, jnp.float32))
    draws = np.asarray(jax.jit(jax.vmap(q.sample))(KEYS))[:, 0]
    np.testing.assert_allclose(draws.sum(-1), 1, rtol=1e-6)
    assert_mean(np.eye(3)[draws.argmax(-1)], softmax(logits)[0], detectable=0.02)
    np.testing.assert_allclose(q.mean, softmax(logits), rtol=1e-6)

    def first(l, key):
        return RelaxedCategoricalDensity(jnp.float32(temperature), jnp.stack([l, 0.0])).sample(key)[
            0
        ]

    draws, slopes = jax.jit(jax.vmap(jax.value_and_grad(first), (None, 0)))(0.8, KEYS)
    assert_distributed(draws, lambda x: special.expit(temperature * special.logit(x) - 0.8))
    # d/dl E x_1 by quadrature over the uniform variable behind the logistic noise.
    nodes, weights = np.polynomial.legendre.leggauss(200)
    x = special.expit((0.8 + special.logit((nodes + 1) / 2)) / temperature)
    assert_mean(slopes, weights / 2 @ (x * (1 - x)) / temperature, detectable=0.005)


def test_levels(x64):
    logits = GENERATOR.normal(size=(2, 5))
    p = Levels(jnp.asarray(logits))
    k = np.array(list(itertools.product(range(5), repeat=2)))
    log_p = jax.jit(jax.vmap(p.log_prob))(k / 4)
    np.testing.assert_allclose(
        log_p,
        jax.jit(npd.Categorical(logits=jnp.asarray(logits)).to_event(1).log_prob)(k),
        rtol=1e-12,
    )
    np.testing.assert_allclose(np.exp(log_p).sum(), 1, rtol=1e-14)
    np.testing.assert_allclose(p.mean, np.exp(log_p) @ (k / 4), rtol=1e-13)
    draws = np.asarray(jax.jit(jax.vmap(p.sample))(KEYS))
    np.testing.assert_array_equal(np.unique(draws), np.arange(5) / 4)
    pairs = np.rint(draws * 4).astype(int) @ [5, 1]
    assert_mean(np.eye(25)[pairs], np.exp(log_p), detectable=0.02)


def test_levels_of_bytes_in_float32():
    """k / 255 in single precision finds its own level again, for every k, and so do its neighbours:
    pixels are scaled in several ways.
    """
    p = Levels(jnp.broadcast_to(jnp.arange(256.0), (256, 256)))
    log_p = jax.nn.log_softmax(jnp.arange(256.0))
    pixels = np.arange(256, dtype=np.float32) / 255
    for x in (pixels, np.nextafter(pixels, np.float32(0)), np.nextafter(pixels, np.float32(2))):
        np.testing.assert_allclose(p.log_prob(x), log_p.sum(), rtol=1e-6)


# The discretised logistic.


def logistic_levels(weights, loc, scale, num_levels):
    """Masses of the levels as differences of scipy's cdf, or of its survival function above the
    location, where the cdf cancels.
    """
    edges = (np.arange(num_levels + 1) - 0.5) / (num_levels - 1)
    edges[0], edges[-1] = -np.inf, np.inf
    below, above = (f(edges[:, None], loc, scale) for f in (stats.logistic.cdf, stats.logistic.sf))
    masses = np.where(edges[:-1, None] > loc, above[:-1] - above[1:], below[1:] - below[:-1])
    return masses @ weights


@pytest.mark.parametrize("num_levels", [2, 3, 256])
def test_discretized_logistic(x64, num_levels):
    """Sums to one over all levels; scipy's masses; the mean by enumeration. Scales from far
    narrower to far wider than a level.
    """
    k = np.arange(num_levels) / (num_levels - 1)

    @jax.jit
    def all_levels(logits, loc, log_scale):
        q = DiscretizedLogisticDensity(logits[None], loc[None], log_scale[None], num_levels)
        return jax.vmap(q.log_prob)(k[:, None]), q.mean[0]

    for logits in ([0.0, 0.0, 0.0], [0.3, -1.0, 2.0]):
        for log_scale in (-7.0, -2.0, 7.0):
            loc, log_scales = np.array([0.2, 0.71, 1.4]), np.array([log_scale, log_scale, -1.0])
            log_p, mean = all_levels(np.array(logits), loc, log_scales)
            expected = logistic_levels(
                softmax(np.array(logits)), loc, np.exp(log_scales), num_levels
            )
            np.testing.assert_allclose(np.exp(log_p).sum(), 1, rtol=1e-12)
            np.testing.assert_allclose(
                np.exp(log_p), expected, rtol=1e-10 if log_scale < 0 else 2e-9
            )  # there scipy's own differences cancel
            np.testing.assert_allclose(mean, np.exp(log_p) @ k, rtol=1e-12)


def test_discretized_logistic_where_the_mass_underflows(x64):
    """A level 400 scales away from the location: log of the mass is -400 and a constant, where a
    difference of cdfs is log 0.
    """
    q = DiscretizedLogisticDensity(
        jnp.zeros((1, 1)), jnp.full((1, 1), 0.1), jnp.log(jnp.full((1, 1), 1e-3))
    )
    a, b = (127 - 0.5) / 255, (127 + 0.5) / 255
    np.testing.assert_allclose(
        jax.jit(q.log_prob)(np.array([127 / 255])),
        -(a - 0.1) / 1e-3 + np.log(-np.expm1((a - b) / 1e-3)),
        rtol=1e-12,
    )


def test_discretized_logistic_samples():
    logits, loc, log_scale = np.array([0.3, -1.0]), np.array([0.2, 1.1]), np.array([-1.5, -2.5])
    q = DiscretizedLogisticDensity(
        *(jnp.asarray(np.stack([array, array]), jnp.float32) for array in (logits, loc, log_scale)),
        6,
    )
    draws = np.asarray(jax.jit(jax.vmap(q.sample))(KEYS))
    k = np.rint(draws * 5).astype(int)
    np.testing.assert_allclose(draws, k / 5, rtol=1e-6)
    p = logistic_levels(softmax(logits), loc, np.exp(log_scale), 6)
    assert_mean(
        np.eye(6)[k[:, 0]][:, :, None] * np.eye(6)[k[:, 1]][:, None],
        np.outer(p, p),
        detectable=0.02,
    )


@pytest.mark.parametrize(
    "family",
    [
        lambda shape: Levels(jnp.zeros((*shape, 256))),
        lambda s: DiscretizedLogisticDensity(*jnp.zeros((3, *s, 1))),
    ],
)
def test_bytes_do_not_pass_for_levels(family):
    with pytest.raises(
        ValueError,
        match=r"takes pixels k / 255 in \[0, 1\], and got whole numbers; divide them by 255",
    ):
        family((2,)).log_prob(np.array([0, 255], np.uint8))


# What all of them share.

UNIT = np.array([0.6, 0.0, 0.8])
FAMILIES = {  # name: (how it is made of arrays, the arrays, the shape of its event)
    "DiagNormal": (DiagNormalDensity, (LOC, LOG_SCALE), (3,)),
    "Bernoulli": (BernoulliDensity, (LOGITS,), (3,)),
    "ContinuousBernoulli": (ContinuousBernoulliDensity, (LOGITS,), (3,)),
    "OneHotCategorical": (OneHotCategoricalDensity, (ONE_HOT_LOGITS,), (2, 3)),
    "RelaxedOneHotCategorical": (
        RelaxedCategoricalDensity,
        (np.float64(0.7), ONE_HOT_LOGITS),
        (2, 3),
    ),
    "Levels": (Levels, (ONE_HOT_LOGITS,), (2,)),
    "DiscretizedLogistic": (
        DiscretizedLogisticDensity,
        (LOGITS[:, None], LOC[:, None], LOG_SCALE[:, None]),
        (3,),
    ),
    "VonMisesFisher": (VonMisesFisherDensity, (UNIT, np.float64(2.0)), (3,)),
    "UniformOnSphere": (UniformOnSphereDensity, (LOC,), (3,)),
    "Laplace": (lambda loc: NumPyroDensity(npd.Laplace(loc, 1.0).to_event(1)), (LOC,), (3,)),
    "MultivariateNormal": (
        lambda loc: NumPyroDensity(npd.MultivariateNormal(loc, scale_tril=2 * jnp.eye(3))),
        (LOC,),
        (3,),
    ),
    "LowRankMultivariateNormal": (
        lambda l: NumPyroDensity(npd.LowRankMultivariateNormal(l, jnp.ones((3, 1)), jnp.ones(3))),
        (LOC,),
        (3,),
    ),
    "RelaxedBernoulliLogits": (
        lambda l: NumPyroDensity(npd.RelaxedBernoulliLogits(jnp.asarray(0.5), l).to_event(1)),
        (LOGITS,),
        (3,),
    ),
    "Poisson": (lambda l: NumPyroDensity(npd.Poisson(jnp.exp(l)).to_event(1)), (LOGITS,), (3,)),
}
each_family = pytest.mark.parametrize("name", FAMILIES)


def make(name):
    family, arrays, shape = FAMILIES[name]
    return family, [jnp.asarray(array, jnp.float32) for array in arrays], shape


@pytest.mark.parametrize(
    "name", [name for name in FAMILIES if name not in ("Laplace", "RelaxedBernoulliLogits")]
)
def test_transformations(name):
    """Made under vmap, as a VampPrior makes them, then mapped over; inside jit; stopped. Each
    equals one after another.

    A sample of a reparameterised family has a derivative in its parameters, and of another none.
    """
    family, arrays, shape = make(name)
    several = [
        jnp.stack([array, array if name == "VonMisesFisher" else -array]) for array in arrays
    ]
    if name == "RelaxedOneHotCategorical":
        several[0] = jnp.abs(several[0])

    @jax.jit
    def everything(several, keys):
        made = jax.vmap(family)(*several)

        def draw(several):
            return jax.vmap(sample_and_log_prob)(jax.vmap(family)(*several), keys)

        (draws, log_probs), (moves, _) = jax.jvp(draw, (several,), (several,))
        one = [array[1] for array in several]
        live = jax.grad(lambda one: family(*one).log_prob(draws[1]))(one)
        stopped = jax.grad(lambda one: jax.lax.stop_gradient(family(*one)).log_prob(draws[1]))(one)
        mixed = Mixture(jnp.zeros(2), made)
        both = jnp.stack(
            [family(*[array[i] for array in several]).log_prob(draws[1]) for i in range(2)]
        )
        return draws, log_probs, live, stopped, moves, both, mixed.log_prob(draws[1])

    draws, log_probs, live, stopped, moves, both, mixed = everything(several, KEYS[:2])
    assert draws.shape == (2, *shape) and log_probs.shape == (2,)
    np.testing.assert_allclose(log_probs[1], both[1], rtol=1e-5)
    np.testing.assert_allclose(mixed, special.logsumexp(both) - np.log(2), rtol=1e-5)

    def moved(tree):
        return any(
            leaf.dtype != jax.dtypes.float0 and (leaf != 0).any() for leaf in jax.tree.leaves(tree)
        )

    assert not moved(stopped)
    assert moved(live) == (name != "UniformOnSphere")
    assert moved(moves) == (is_reparameterised(family(*arrays)) and name != "UniformOnSphere")


@each_family
def test_a_wrong_shape_never_passes(name):
    family, arrays, shape = make(name)
    for wrong in (
        (5, *shape),
        (1, *shape),
        (*shape, 1),
        shape[:-1],
        (1,) * len(shape),
        (shape[0] + 1, *shape[1:]),
    ):
        with pytest.raises(
            ValueError,
            match=(
                rf"{name}.log_prob got a value of shape .* one event has shape .*; .* one example:"
                r" use jax.vmap"
            ),
        ):
            family(*arrays).log_prob(jnp.zeros(wrong))


EXTREMES = [-1e4, -30.0, 0.0, 1e-6, 30.0, 1e4]


EXTREME = {
    "ContinuousBernoulli": (
        lambda l, s: ContinuousBernoulliDensity(l[None]),
        [[0.0], [0.5], [1.0]],
    ),
    "OneHotCategorical": (
        lambda l, s: OneHotCategoricalDensity(jnp.stack([l, 0.0 * l])),
        [[0.0, 1.0], [1.0, 0.0]],
    ),
    "RelaxedOneHotCategorical": (
        lambda l, s: RelaxedCategoricalDensity(jnp.exp(s / 7), jnp.stack([l, 0.0 * l])),
        [[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]],
    ),
    "Levels": (lambda l, s: Levels(jnp.stack([l, 0.0 * l, -l])[None]), [[0.0], [0.5], [1.0]]),
    "DiscretizedLogistic": (
        lambda l, s: DiscretizedLogisticDensity(
            jnp.stack([l, -l])[None], jnp.stack([l, -l])[None], jnp.stack([s, -s])[None]
        ),
        [[0.0], [0.2], [1.0]],
    ),
}


@pytest.mark.parametrize("case", cases(EXTREME, slow=("DiscretizedLogistic",)))
def test_finite_at_extreme_parameters(case):
    """In float32: values, gradients in the parameters and in x, and gradients through a sample, at
    boundary data too.
    """
    family, xs = case

    def log_prob(l, s, x):
        return family(l, s).log_prob(x)

    def of_sample(l, s, key):
        z, log_q = sample_and_log_prob(family(l, s), key)
        return log_q + jnp.sum(z)

    l, s = (
        jnp.asarray(array)
        for array in zip(*itertools.product(EXTREMES, [-7.0, 0.0, 7.0]), strict=True)
    )
    given = jax.jit(
        jax.vmap(
            jax.vmap(jax.value_and_grad(log_prob, argnums=(0, 1, 2)), (0, 0, None)), (None, None, 0)
        )
    )
    sampled = jax.jit(
        jax.vmap(
            jax.vmap(jax.value_and_grad(of_sample, argnums=(0, 1)), (0, 0, None)), (None, None, 0)
        )
    )
    for leaf in jax.tree.leaves((given(l, s, jnp.asarray(xs)), sampled(l, s, KEYS[:50]))):
        assert leaf.dtype == jnp.float32 and np.isfinite(leaf).all()


def test_relaxed_gradients_stay_finite_at_the_edge_of_the_simplex():
    """A coordinate that underflows is held at a floor; at a high temperature its inverse must not
    overflow on the way back.
    """
    q = RelaxedCategoricalDensity(jnp.float32(100.0), jnp.zeros((1, 2)))
    assert np.isfinite(jax.jit(jax.grad(q.log_prob))(jnp.asarray([[0.0, 1.0]]))).all()


def test_integer_data_are_taken_as_numbers():
    p = BernoulliDensity(jnp.asarray([0.5, -2.0]))
    assert p.log_prob(np.array([1, 0], np.uint8)) == p.log_prob(jnp.asarray([1.0, 0.0]))


def test_counts_take_integers():
    p = NumPyroDensity(npd.Poisson(jnp.asarray([0.5, 2.0])).to_event(1))
    np.testing.assert_allclose(
        p.log_prob(np.array([1, 3], np.uint8)),
        stats.poisson([0.5, 2.0]).logpmf([1, 3]).sum(),
        rtol=1e-6,
    )


def test_event_says_what_numpyro_says():
    base = npd.MultivariateNormal(
        jnp.asarray([1.0, 2.0]), scale_tril=jnp.asarray([[1.0, 0.0], [0.5, 2.0]])
    )
    q = NumPyroDensity(base)
    np.testing.assert_array_equal(q.sample(KEYS[0]), base.sample(KEYS[0]))
    np.testing.assert_array_equal(q.mean, base.mean)
    np.testing.assert_array_equal(q.variance, [1.0, 4.25])
    assert q.entropy() == base.entropy()
    with pytest.raises(ValueError, match=r"Normal has batch_shape \(3,\),.* add .to_event\(1\)"):
        NumPyroDensity(npd.Normal(jnp.zeros(3), 1.0)).log_prob(jnp.zeros(()))


def test_which_are_reparameterised():
    """A mixture is not: its gradient in the logits would be missing."""
    rough = {"Bernoulli", "OneHotCategorical", "Levels", "DiscretizedLogistic", "Poisson"}
    for name in FAMILIES:
        family, arrays, _ = make(name)
        assert is_reparameterised(family(*arrays)) == (name not in rough), name
    assert not is_reparameterised(mixture())
    assert is_reparameterised(npd.Normal(0.0, 1.0)) and not is_reparameterised(npd.Bernoulli(0.5))


def test_sample_and_log_prob():
    """One after the other, or by the method that a distribution has for it."""
    q = DiagNormalDensity(jnp.zeros(2), jnp.ones(2))
    z, log_prob = sample_and_log_prob(q, KEYS[0])
    assert log_prob == q.log_prob(z) and (z == q.sample(KEYS[0])).all()

    class Both:
        def sample_and_log_prob(self, key):
            return 1.0, 2.0

    assert sample_and_log_prob(Both(), KEYS[0]) == (1.0, 2.0)
