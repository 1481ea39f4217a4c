"""Categorical variables, one-hot and relaxed: enumeration, quadrature, NumPyro, samples."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
from scipy import special

from tests.lib.densities import KEYS
from tests.lib.oracles import assert_distributed, assert_mean
from vaejax.distributions.discrete import OneHotCategoricalDensity, RelaxedCategoricalDensity

GENERATOR = np.random.default_rng(0)


def softmax(logits):
    return np.exp(logits - special.logsumexp(logits, axis=-1, keepdims=True))


# Categorical variables: one-hot, relaxed, levels.

ONE_HOT_LOGITS = GENERATOR.normal(size=(2, 3)) * 2


ONE_HOTS = np.array(list(itertools.product(np.eye(3), repeat=2)))


def test_one_hot_categorical(x64):
    p = OneHotCategoricalDensity(jnp.asarray(ONE_HOT_LOGITS))
    log_p = jax.jit(jax.vmap(p.log_prob))(ONE_HOTS)
    np.testing.assert_allclose(np.exp(log_p).sum(), 1, rtol=1e-14)
    of_numpyro = jax.jit(npd.Categorical(logits=jnp.asarray(ONE_HOT_LOGITS)).to_event(1).log_prob)
    np.testing.assert_allclose(log_p, of_numpyro(ONE_HOTS.argmax(-1)), rtol=1e-12)
    np.testing.assert_allclose(p.mean(), np.tensordot(np.exp(log_p), ONE_HOTS, 1), rtol=1e-13)
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
    np.testing.assert_allclose(q.mean(), softmax(logits), rtol=1e-6)

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


def test_relaxed_gradients_stay_finite_at_the_edge_of_the_simplex():
    """A coordinate that underflows is held at a floor; at a high temperature its inverse must not
    overflow on the way back.
    """
    q = RelaxedCategoricalDensity(jnp.float32(100.0), jnp.zeros((1, 2)))
    assert np.isfinite(jax.jit(jax.grad(q.log_prob))(jnp.asarray([[0.0, 1.0]]))).all()
