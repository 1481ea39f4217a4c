"""The law of total variance: both sources against closed forms, and what they predict."""

import itertools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib.gradient_moments import MINIBATCH, OBJECTIVE, POINT, XS
from tests.lib.oracles import LinearGaussian, gradient_vector
from vaejax.objectives.base import Maximised
from vaejax.variance.sources import Sources


@vaejax.component
class RandomPair(vaejax.Around):
    """The objective of two examples of a batch, drawn by the key."""

    inner: vaejax.Objective

    def __call__(self, params, xs, key, step):
        pair_key, noise_key = jax.random.split(key)
        pairs = jnp.array(list(itertools.combinations(range(5), 2)))
        rows = pairs[jax.random.randint(pair_key, (), 0, len(pairs))]
        return self.inner(params, xs[rows], noise_key, step)


@pytest.mark.slow
def test_sources_of_a_minibatchs_variance():
    """Both parts against the closed forms of each example, and their sum against the variance of
    minibatches, all of them.
    """
    num_draws = 4_000
    sources = vaejax.variance_sources(OBJECTIVE, POINT.params, XS, jax.random.key(0), num_draws)
    points = [LinearGaussian(x=float(x[0])) for x in XS]
    means = np.array([point.elbo_gradient[:2] for point in points])
    exact = [
        [p.lam**2 * p.s**2, p.lam**2 * p.d**2 * p.s**2 + 2 * p.lam**2 * p.s**4] for p in points
    ]
    np.testing.assert_allclose(
        gradient_vector(sources.data)[:2], means.var(0, ddof=1), rtol=0.1, atol=0.1
    )
    np.testing.assert_allclose(
        gradient_vector(sources.sampling)[:2], np.mean(exact, axis=0), rtol=0.1
    )

    random_pair = RandomPair(MINIBATCH)
    direct = vaejax.gradient_moments(random_pair, POINT.params, XS, jax.random.key(1), 40_000)
    predicted = vaejax.minibatch_variance(sources, batch_size=2)
    np.testing.assert_allclose(
        gradient_vector(direct.variance), gradient_vector(predicted), rtol=0.1
    )


def test_sources_are_numpys():
    """Of three draws of each of five examples: the mean of their variances, and the variance of
    their means less a third of that, which is the means' own noise.
    """
    key = jax.random.key(0)
    sources = vaejax.variance_sources(OBJECTIVE, POINT.params, XS, key, 3)
    gradient = jax.grad(Maximised(OBJECTIVE))

    def draw(n, i):
        return gradient_vector(
            gradient(POINT.params, XS[n], jax.random.fold_in(jax.random.fold_in(key, n), i))
        )

    draws = np.array([[draw(n, i) for i in range(3)] for n in range(5)], np.float64)
    sampling = draws.var(axis=1, ddof=1).mean(axis=0)
    data = draws.mean(axis=1).var(axis=0, ddof=1) - sampling / 3
    np.testing.assert_allclose(gradient_vector(sources.sampling), sampling, rtol=1e-4)
    np.testing.assert_allclose(gradient_vector(sources.data), data, rtol=1e-4, atol=1e-4)
    for b, m in ((1, 1), (2, 3), (5, 2)):
        predicted = gradient_vector(vaejax.minibatch_variance(sources, b, m))
        expected = (1 - b / 5) * data / b + sampling / (b * m)
        np.testing.assert_allclose(predicted, expected, rtol=1e-4, atol=1e-4)


def test_the_prediction_for_another_batch_and_another_k():
    sources = vaejax.variance_sources(OBJECTIVE, POINT.params, XS, jax.random.key(0), 4_000)
    objective = vaejax.minibatch(vaejax.Pathwise(4), POINT.model)
    whole_batch = vaejax.gradient_moments(objective, POINT.params, XS, jax.random.key(1), 10_000)
    predicted = vaejax.minibatch_variance(sources, batch_size=5, num_repeats=4)
    np.testing.assert_allclose(
        gradient_vector(whole_batch.variance), gradient_vector(predicted), rtol=0.1
    )
    scaled = vaejax.minibatch_variance(sources, 5, 4, dataset_size=10)
    np.testing.assert_allclose(
        gradient_vector(scaled), 100 * np.asarray(gradient_vector(predicted)), rtol=1e-6
    )


def test_a_minibatch_is_taken_by_its_example():
    """Of `minibatch(...)` the sources are those of the one example that it is the mean of."""
    arguments = POINT.params, XS, jax.random.key(0), 3
    by_example, by_batch = (
        vaejax.variance_sources(objective, *arguments) for objective in (OBJECTIVE, MINIBATCH)
    )
    chex.assert_trees_all_equal(by_example, by_batch)
    plain: Any = lambda params, x, key: 0.0  # noqa: E731
    with pytest.raises(TypeError, match=r"is not an objective: write vaejax.minibatch"):
        vaejax.variance_sources(plain, *arguments)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"batch_size": 0}, "batch_size = 0; it must be a whole number"),
        ({"batch_size": 1.5}, "batch_size = 1.5; it must be a whole number"),
        ({"batch_size": 4}, "batch_size = 4, but the sources are of 3 examples"),
        ({"batch_size": 1, "num_repeats": 0}, "num_repeats = 0"),
        ({"batch_size": 1, "dataset_size": 0}, "dataset_size = 0; it must be a whole number"),
    ],
)
def test_counts_of_a_minibatch_are_checked(settings, message):
    sources = Sources(3, np.ones(2), np.ones(2))
    with pytest.raises(ValueError, match=message):
        vaejax.minibatch_variance(sources, **settings)
