"""Bounds: equal to their closed forms, ordered, converging to log p(x)."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import vaejax
from tests.lib.oracles import (
    LinearGaussian,
    assert_mean,
    exact_moments,
    gauss_hermite,
    gradient_vector,
)
from vaejax.bounds import log_mean_of_others, sample_log_weight
from vaejax.distributions.normal import DiagNormalDensity

POINT = LinearGaussian()


def test_elbo_plus_kl_is_log_marginal(x64):
    for point in (POINT, LinearGaussian(w=-2.0, tau=0.4, x=0.5, mu=-0.3, s=1.2)):
        np.testing.assert_allclose(
            exact_moments(vaejax.elbo, point)[0] + point.kl_to_posterior,
            point.log_marginal,
            rtol=1e-12,
        )


def test_log_weights_are_constant_at_the_posterior(x64):
    exact = POINT.at_posterior()
    q = exact.model.posterior(exact.params, exact.datum)
    zs = jax.jit(jax.vmap(q.sample))(jax.random.split(jax.random.key(0), 1000))
    log_w = vaejax.log_weights(exact.model, exact.params, exact.datum, q, zs)
    np.testing.assert_allclose(log_w, exact.log_marginal, atol=1e-12)
    for bound in (vaejax.elbo_bound, vaejax.iwae_bound, vaejax.renyi_bound(0.5)):
        np.testing.assert_allclose(bound(log_w), exact.log_marginal, atol=1e-12)


def test_iwae_by_tensor_quadrature(x64):
    """E L_K - log p(x) in a Gaussian pair (posterior variance and mean 0.5, 0.3; q 0.8, 0.1),
    against frozen values.
    """
    for num_samples, expected in ((1, -0.1049981854), (2, -0.0378695820), (3, -0.0229817164)):
        noise, weights = gauss_hermite(40, num_samples)
        zs = 0.1 + np.sqrt(0.8) * noise
        log_w = stats.norm.logpdf(zs, 0.3, np.sqrt(0.5)) - stats.norm.logpdf(zs, 0.1, np.sqrt(0.8))
        np.testing.assert_allclose(
            weights @ jax.vmap(vaejax.iwae_bound)(jnp.asarray(log_w)), expected, rtol=1e-8
        )


def test_bounds_are_ordered(x64):
    """ELBO <= IWAE-2 <= IWAE-3 <= log p(x), in expectation."""
    bounds = [
        exact_moments(partial(vaejax.iwae, num_samples=k), POINT, k, num_nodes=20)[0]
        for k in (1, 2, 3)
    ]
    assert POINT.elbo - 1e-9 < bounds[0] < bounds[1] < bounds[2] < POINT.log_marginal


def test_renyi_bound(x64):
    """Large K tends to the closed form log p(x) + log E_q[(w/p(x))^(1-a)] / (1-a); a = 0 is IWAE
    and a = 1 the ELBO.
    """
    log_w = jnp.asarray(np.random.default_rng(0).normal(size=7))
    np.testing.assert_allclose(vaejax.renyi_bound(0)(log_w), vaejax.iwae_bound(log_w))
    np.testing.assert_allclose(vaejax.renyi_bound(1)(log_w), vaejax.elbo_bound(log_w))
    np.testing.assert_allclose(
        vaejax.renyi_bound(1 - 1e-7)(log_w), vaejax.elbo_bound(log_w), rtol=1e-6
    )
    assert vaejax.renyi_bound(0.5) == vaejax.renyi_bound(0.5)
    posterior, q, a = (0.5, 0.3), (0.8, 0.1), 0.5
    v = (
        a * q[0] + (1 - a) * posterior[0]
    )  # the moment of order 1 - a, with the roles of a and 1 - a exchanged
    log_moment = 0.5 * (a * math.log(posterior[0]) + (1 - a) * math.log(q[0]) - math.log(v)) - a * (
        1 - a
    ) * (posterior[1] - q[1]) ** 2 / (2 * v)
    noise, weights = gauss_hermite(60)
    zs = q[1] + np.sqrt(q[0]) * noise[:, 0]
    log_ratio = stats.norm.logpdf(zs, posterior[1], posterior[0] ** 0.5) - stats.norm.logpdf(
        zs, q[1], q[0] ** 0.5
    )
    np.testing.assert_allclose(np.log(weights @ np.exp((1 - a) * log_ratio)), log_moment, rtol=1e-9)
    draws = stats.norm.rvs(q[1], q[0] ** 0.5, size=400_000, random_state=1)
    log_ratio = stats.norm.logpdf(draws, posterior[1], posterior[0] ** 0.5) - stats.norm.logpdf(
        draws, q[1], q[0] ** 0.5
    )
    np.testing.assert_allclose(
        vaejax.renyi_bound(a)(jnp.asarray(log_ratio)), log_moment / (1 - a), atol=5e-3
    )


def test_log_marginal_converges(x64):
    """Biased low by (R - 1)/(2 K), R = E_q[(w/p(x))^2]: invisible at K = 100,000, where 300 keys
    give a standard error of 1e-4.
    """
    log_marginal = partial(
        vaejax.log_marginal, POINT.model, POINT.params, POINT.datum, num_samples=20_000, chunk=2_000
    )
    values = jax.lax.map(jax.jit(log_marginal), jax.random.split(jax.random.key(0), 300))
    assert_mean(values, POINT.log_marginal, detectable=2e-3)


def test_chunks_change_log_marginal_by_rounding_only(x64):
    values = [
        vaejax.log_marginal(
            POINT.model, POINT.params, POINT.datum, jax.random.key(0), num_samples=50, chunk=chunk
        )
        for chunk in (1, 7, 50, 1000)
    ]
    np.testing.assert_allclose(values, values[0], rtol=1e-14)


def test_log_marginal_needs_no_more_memory_for_more_samples():
    """Of value and gradient, from XLA's own analysis of the compiled program; the plain bound needs
    hundreds of times more.
    """
    decoder = vaejax.Bernoulli(vaejax.MLP(784, (200,)))
    model = vaejax.VAE(
        vaejax.StandardNormal(20), decoder, vaejax.DiagNormal(vaejax.MLP(20, (200,), heads=2))
    )
    params, xs = (
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(784)),
        jax.ShapeDtypeStruct((100, 784), jnp.float32),
    )

    def temporaries(bound):
        loss = jax.value_and_grad(
            lambda p, xs, key: jnp.mean(jax.vmap(bound, (None, None, 0, None))(model, p, xs, key))
        )
        return (
            jax.jit(loss)
            .lower(params, xs, jax.random.key(0))
            .compile()
            .memory_analysis()
            .temp_size_in_bytes
        )

    few = temporaries(partial(vaejax.log_marginal, num_samples=50, chunk=10))
    many = temporaries(partial(vaejax.log_marginal, num_samples=5_000, chunk=10))
    assert many < 1.1 * few
    assert temporaries(partial(vaejax.iwae, num_samples=500)) > 20 * few
    assert (
        temporaries(partial(vaejax.log_marginal, num_samples=5_000)) < 150 * 2**20
    )  # with the chunk that it has by itself


@pytest.mark.parametrize(
    "log_w", [[-1e5, -1e5 - 1], [-np.inf, -3.0], [-np.inf, -np.inf], [1e5, 0.0]]
)
def test_bounds_of_extreme_weights(log_w):
    value = vaejax.iwae_bound(jnp.asarray(log_w, jnp.float32))
    expected = np.logaddexp(*log_w) - math.log(2)
    np.testing.assert_allclose(value, expected, rtol=1e-6)


COUNTS = {
    "elbo": lambda n: vaejax.elbo(
        POINT.model, POINT.params, POINT.datum, jax.random.key(0), num_samples=n
    ),
    "iwae": lambda n: vaejax.iwae(
        POINT.model, POINT.params, POINT.datum, jax.random.key(0), num_samples=n
    ),
    "log_marginal": lambda n: vaejax.log_marginal(
        POINT.model, POINT.params, POINT.datum, jax.random.key(0), num_samples=n
    ),
    "chunk": lambda n: vaejax.log_marginal(
        POINT.model, POINT.params, POINT.datum, jax.random.key(0), num_samples=5, chunk=n
    ),
}


@pytest.mark.parametrize("call", COUNTS.values(), ids=COUNTS)
@pytest.mark.parametrize("count", [0, -1, 1.5])
def test_counts_are_checked(call, count):
    with pytest.raises(ValueError, match=f"= {count}; it must be a whole number, at least 1"):
        call(count)


# Planted bugs: the checks above must notice each. A test of the tests.


def planted(name):
    """DiagNormal with one classic mistake in it."""
    good = DiagNormalDensity

    def sample_with(scale, noise=lambda noise: noise):
        def sample(self, key):
            return self.loc + scale(self.log_scale) * noise(
                jax.random.normal(key, self.loc.shape, self.loc.dtype)
            )

        return "sample", sample

    def log_prob_with(change):
        plain = good.log_prob
        return "log_prob", lambda self, value: change(self, plain(self, value), value)

    return {
        "scale from a log-variance": lambda: sample_with(lambda s: jnp.exp(s / 2)),
        "scale from exp(2 s)": lambda: sample_with(lambda s: jnp.exp(2 * s)),
        "absolute noise": lambda: sample_with(jnp.exp, jnp.abs),
        "dropped constant": lambda: log_prob_with(lambda self, p, z: p + 0.5 * jnp.log(2 * jnp.pi)),
        "mean instead of sum": lambda: log_prob_with(lambda self, p, z: p / 2),
        "sign of log_scale": lambda: log_prob_with(
            lambda self, p, z: p + 2 * jnp.sum(self.log_scale)
        ),
        "variance 2": lambda: log_prob_with(
            lambda self, p, z: (
                p + 0.25 * jnp.sum((z - self.loc) ** 2 * jnp.exp(-2 * self.log_scale))
            )
        ),
    }[name]()


BUGS = (
    "scale from a log-variance",
    "scale from exp(2 s)",
    "absolute noise",
    "dropped constant",
    "mean instead of sum",
)


@pytest.mark.parametrize("bug", [*BUGS, "sign of log_scale", "variance 2"])
def test_planted_bugs_are_caught(x64, monkeypatch, bug):
    """In the exact value or gradient of the ELBO, each by a wide margin: no sampling, so no
    luck.
    """
    monkeypatch.setattr(DiagNormalDensity, *planted(bug))
    value, mean, _ = exact_moments(vaejax.elbo, POINT)
    error = max(abs(value - POINT.elbo), np.abs(mean - POINT.elbo_gradient).max())
    assert error > 0.01, f"not caught: {error}"


def test_gradients_by_keys_see_a_planted_bug(monkeypatch):
    """The sampled check has the power that it states: a log-variance taken for a log-scale is far
    outside.
    """
    monkeypatch.setattr(DiagNormalDensity, *planted("scale from a log-variance"))
    gradient = jax.grad(lambda p, key: vaejax.elbo(POINT.model, p, POINT.datum, key))
    gradients = jax.jit(jax.vmap(gradient, (None, 0)))(
        POINT.params, jax.random.split(jax.random.key(0), 20_000)
    )
    with pytest.raises(AssertionError, match="standard errors from"):
        assert_mean(jax.vmap(gradient_vector)(gradients), POINT.elbo_gradient, detectable=0.25)


# Formulas of a few weights, by NumPy.


def test_bounds_are_their_formulas(x64):
    """Of five weights: the mean of the others, the jackknife, and the Renyi bounds on both sides of
    the IWAE's.
    """
    log_w = np.random.default_rng(1).normal(size=5)
    w = np.exp(log_w)
    others = np.log([np.delete(w, k).mean() for k in range(5)])
    np.testing.assert_allclose(log_mean_of_others(jnp.asarray(log_w)), others, rtol=1e-12)
    jackknife = 5 * np.log(w.mean()) - 4 * others.mean()
    np.testing.assert_allclose(vaejax.jackknife_bound(jnp.asarray(log_w)), jackknife, rtol=1e-12)
    for alpha in (-1.0, 0.3, 2.0):
        expected = np.log(np.mean(w ** (1 - alpha))) / (1 - alpha)
        bound = vaejax.renyi_bound(alpha)(jnp.asarray(log_w))
        np.testing.assert_allclose(bound, expected, rtol=1e-12)


def test_log_marginal_is_of_the_samples_that_it_names(x64):
    """Sample k has the key fold_in(key, k), so that each counts once, whatever the chunk."""
    key, point = jax.random.key(4), (POINT.model, POINT.params, POINT.datum)
    q = POINT.model.posterior(*point[1:])
    log_w = [sample_log_weight(*point, q, jax.random.fold_in(key, k)) for k in range(7)]
    assert len(set(map(float, log_w))) == 7
    for chunk in (1, 3, 7, 10):
        bound = vaejax.log_marginal(*point, key, num_samples=7, chunk=chunk)
        np.testing.assert_allclose(bound, np.log(np.mean(np.exp(log_w))), rtol=1e-12)
