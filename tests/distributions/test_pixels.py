"""Densities of pixel levels: enumeration, scipy's masses, samples, bytes refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
from scipy import special, stats

from tests.lib.densities import KEYS
from tests.lib.oracles import assert_mean
from vaejax.distributions.pixels import DiscretizedLogisticDensity, Levels

GENERATOR = np.random.default_rng(0)


def softmax(logits):
    return np.exp(logits - special.logsumexp(logits, axis=-1, keepdims=True))


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
    np.testing.assert_allclose(p.mean(), np.exp(log_p) @ (k / 4), rtol=1e-13)
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
        return jax.vmap(q.log_prob)(k[:, None]), q.mean()[0]

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
