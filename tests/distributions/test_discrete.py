"""Categorical variables as one-hot vectors: enumeration, NumPyro, samples."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
from scipy import special

from tests.lib.densities import KEYS
from tests.lib.oracles import assert_mean
from vaejax.distributions.discrete import OneHotCategoricalDensity

GENERATOR = np.random.default_rng(0)


def softmax(logits):
    return np.exp(logits - special.logsumexp(logits, axis=-1, keepdims=True))


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
