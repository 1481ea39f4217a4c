"""The parts of the KL: exact against scipy and closed forms, in float64."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp
from scipy import stats

import vaejax
from tests.lib.lines import (
    KEY,
    LINES,
    assert_close,
    correlated,
    params_of,
    samples,
    terms_and_gradient,
)
from tests.lib.oracles import assert_mean
from vaejax import TCVAE, kl_decomposition
from vaejax.objectives.total_correlation import aggregation_weights


def exact_parts(params, xs, zs):
    """The three parts with q(z) the mixture over xs, by scipy."""
    loc, scale = np.asarray(params.phi["a"]) * xs, np.exp(np.asarray(params.phi["log_scale"]))
    log_q = stats.norm.logpdf(np.asarray(zs)[:, None], loc[None], scale)
    own = np.einsum("iid->i", log_q)
    joint = np.log(np.exp(log_q.sum(2)).mean(1))
    marginals = np.log(np.exp(log_q).mean(1)).sum(1)
    return np.array(
        [own - joint, joint - marginals, marginals - stats.norm.logpdf(zs).sum(1)]
    ).mean(1)


def test_decomposition_of_all_the_data_is_exact(x64):
    """Stratified: the parts themselves. Weighted: q(z) and every q(z_j) are too low by N, which
    moves the parts by multiples of log N.
    """
    xs, params = correlated(), params_of()
    exact, log_size = exact_parts(params, xs, samples(params, xs, KEY)), np.log(len(xs))
    assert (exact > 0.1).all()
    np.testing.assert_allclose(
        jax.jit(partial(kl_decomposition, LINES))(params, xs, KEY), exact, rtol=1e-12
    )
    weighted = jax.jit(partial(kl_decomposition, LINES, estimator="weighted"))(params, xs, KEY)
    np.testing.assert_allclose(weighted, exact + log_size * np.array([1, 1, -2]), rtol=1e-12)


def chen(size, dataset_size):
    """The weights of Chen et al.'s stratified estimator for the first example of a batch: its own,
    one odd one, the others.
    """
    m = size - 1
    return np.array([1 / dataset_size, (dataset_size - m) / (dataset_size * m)] + [1 / m] * (m - 1))


@pytest.mark.parametrize("size", [2, 3, 6])
def test_aggregated_posterior_over_all_minibatches(x64, size):
    """The mean over all batches that hold example 0: q(z) itself, and it is the mean over the
    orders of the published weights.
    """
    density = np.random.default_rng(0).gamma(1.0, size=6)  # q(z | x_j) at a z of example 0
    batches = [(0, *others) for others in itertools.combinations(range(1, 6), size - 1)]
    stratified = np.asarray(aggregation_weights(size, 6, "stratified"))[0]
    np.testing.assert_allclose(
        np.mean([stratified @ density[list(rows)] for rows in batches]), density.mean(), rtol=1e-12
    )
    orders = [(0, *order) for order in itertools.permutations(batches[0][1:])]
    published = np.mean([chen(size, 6) @ density[list(rows)] for rows in orders])
    np.testing.assert_allclose(stratified @ density[list(batches[0])], published, rtol=1e-12)
    weighted = np.asarray(aggregation_weights(size, 6, "weighted"))[0]
    mean = np.mean([weighted @ density[list(rows)] for rows in batches])
    np.testing.assert_allclose(
        mean, (density[0] + (size - 1) * density[1:].mean()) / (6 * size), rtol=1e-12
    )
    assert mean <= density.mean() / size


@pytest.mark.slow
def test_decomposition_of_a_linear_encoder(x64):
    """q(z|x) = N(A x, V) on N(0, C): q(z) = N(0, V + A C A'), so all three parts are known. 1,000
    data of covariance exactly C, 40 keys.
    """
    covariance = np.array([[1.0, 0.8], [0.8, 1.0]])
    noise = np.random.default_rng(0).normal(size=(1000, 2))
    noise -= noise.mean(0)
    xs = (
        noise
        @ np.linalg.inv(np.linalg.cholesky(np.cov(noise.T, bias=True))).T
        @ np.linalg.cholesky(covariance).T
    )
    a, log_scale = np.array([1.5, 2.0]), np.log([0.8, 0.9])
    aggregated = np.diag(np.exp(2 * log_scale)) + a[:, None] * covariance * a[None]
    variances, log_det = np.diag(aggregated), np.linalg.slogdet(aggregated)[1]
    exact = [
        0.5 * log_det - log_scale.sum(),
        0.5 * (np.log(variances).sum() - log_det),
        0.5 * (variances - 1 - np.log(variances)).sum(),
    ]
    parts = jax.lax.map(
        partial(kl_decomposition, LINES, params_of(1.0, a, log_scale), jnp.asarray(xs)),
        jax.random.split(KEY, 40),
    )
    assert_mean(np.array(parts).T, exact, detectable=0.1)


@pytest.mark.parametrize("estimator", ["stratified", "weighted"])
def test_tcvae_is_the_weighted_sum_of_its_parts(x64, estimator):
    """Value and gradient against the formula written out, of a batch of 7 out of 10; with all
    weights at 1 the ELBO, to the last bit.
    """
    xs, params = correlated(), params_of()

    def written_out(params, xs, key):
        keys = jax.vmap(lambda key: jax.random.split(key, 1)[0])(jax.random.split(key, 7))
        loc, log_scale = params.phi["a"] * xs, params.phi["log_scale"]
        zs = loc + jnp.exp(log_scale) * jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys)
        log_q = jax.scipy.stats.norm.logpdf(zs[:, None], loc[None], jnp.exp(log_scale))
        log_w = np.log(
            np.where(np.eye(7) == 1, 1 / 10, 9 / 60)
            if estimator == "stratified"
            else np.full((7, 7), 1 / 70)
        )
        own, joint = jnp.einsum("iid->i", log_q), logsumexp(log_w + log_q.sum(2), axis=1)
        marginals = logsumexp(log_w[:, :, None] + log_q, axis=1).sum(1)
        net = params.theta["likelihood"]["net"]
        log_p_x = jax.scipy.stats.norm.logpdf(xs, net["w"] * zs + net["b"], 0.8).sum(1)
        parts = own - joint, joint - marginals, marginals - jax.scipy.stats.norm.logpdf(zs).sum(1)
        return jnp.mean(log_p_x - 0.5 * parts[0] - 6.0 * parts[1] - 2.0 * parts[2])

    weighted, plain = (
        TCVAE(LINES, 10, 0.5, 6.0, 2.0, estimator),
        TCVAE(LINES, 10, estimator=estimator),
    )

    @jax.jit  # one program, for it is the random numbers that take long to compile
    def both(params):
        with jax.numpy_rank_promotion("allow"):
            expected = jax.value_and_grad(written_out)(params, xs, KEY)
        actual = terms_and_gradient(weighted)(params, xs, KEY)
        bound = vaejax.minibatch(vaejax.Pathwise(), LINES)(params, xs, KEY, 0).bound
        return (
            expected,
            actual,
            bound,
            plain(params, xs, KEY, 0),
            kl_decomposition(LINES, params, xs, KEY, 10, estimator),
        )

    expected, (terms, gradient), bound, unweighted, parts = both(params)
    assert_close((terms.objective, gradient), expected)
    assert unweighted.bound == unweighted.objective
    np.testing.assert_allclose([terms.bound, unweighted.bound], bound, rtol=1e-12)
    np.testing.assert_allclose(
        sum(parts), exact_parts(params, xs, samples(params, xs, KEY)).sum(), rtol=1e-12
    )
