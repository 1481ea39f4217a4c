"""Families that saturate, under transforms: the density of their own samples, the supports of what
they become, and bounds that stay below log p(x).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
from numpyro.distributions import transforms

from tests.lib.cases import cases
from tests.lib.densities import KEYS
from tests.lib.oracles import Z
from vaejax.distributions.numpyro import from_numpyro

FEW = KEYS[:500]
BASES = {
    "Beta": (npd.Beta(0.05, 0.05), npd.Beta(0.3, 0.05)),
    "Gamma": (npd.Gamma(0.01, 1.0), npd.Gamma(0.3, 2.0)),
    "Kumaraswamy": (npd.Kumaraswamy(1.0, 0.05), npd.Kumaraswamy(0.3, 0.3)),
    "Pareto": (npd.Pareto(1.0, 0.05), npd.Pareto(1.0, 0.3)),
    "logit-normal": tuple(
        npd.TransformedDistribution(npd.Normal(0.0, scale), transforms.SigmoidTransform())
        for scale in (10.0, 30.0)
    ),
}
MAPS = {
    "x -> 2 x + 1": transforms.AffineTransform(1.0, 2.0),
    "x -> -2 x - 1": transforms.AffineTransform(-1.0, -2.0),
    "sigmoid": transforms.SigmoidTransform(),
    "softplus": transforms.SoftplusTransform(),
    "x -> x^2": transforms.PowerTransform(2.0),
    "x -> 1 / x": transforms.PowerTransform(-1.0),
    "logarithm": transforms.ExpTransform().inv,
}
ALL = [f"{base}: {step}" for base in BASES for step in MAPS]
QUICK = {"Beta: x -> 2 x + 1", "Gamma: x -> 1 / x", "Pareto: x -> x^2"}


@pytest.mark.parametrize("name", cases(ALL, slow={*ALL} - QUICK))
def test_no_bound_goes_beyond_log_p(name):
    """Without an observation log p = 0: E [log p(z) - log q(z)] <= 0, of each ordered pair. The
    affine map of Beta(.05, .05) gave inf, and so did 1 / x of Gamma(.01, 1).
    """
    base, step = name.split(": ")
    densities = [
        from_numpyro(npd.TransformedDistribution(member, MAPS[step])) for member in BASES[base]
    ]
    for q in densities:
        zs, log_q = jax.jit(jax.vmap(q.sample_and_log_prob))(FEW)
        assert np.isfinite(zs).all() and not np.isnan(log_q).any()
        assert (log_q > -np.inf).all()
        for p in densities:
            ratios = np.asarray(jax.jit(jax.vmap(p.log_prob))(zs) - log_q, np.float64)
            assert not np.isnan(ratios).any() and (ratios < np.inf).all()
            finite = ratios[ratios > -np.inf]  # one of -inf alone makes the mean that
            noise = Z * finite.std() / math.sqrt(len(finite))
            assert len(finite) < len(ratios) or finite.mean() <= noise + 1e-3


def both(family, *parameters):
    """A mixture of two equal components, and one of them."""
    weights = npd.Categorical(probs=jnp.float32([0.3, 0.7]))
    pair = (jnp.full(2, parameter) for parameter in parameters)
    return npd.MixtureSameFamily(weights, family(*pair)), family(*parameters)


def logit_normal(loc, scale):
    return npd.TransformedDistribution(npd.Normal(loc, scale), transforms.SigmoidTransform())


def in_events(a, b):
    return npd.Beta(jnp.stack([a, a], -1), jnp.stack([b, b], -1)).to_event(1)


MIXTURES = {
    "Beta": both(npd.Beta, 0.05, 0.05),
    "Gamma": both(npd.Gamma, 0.05, 1.0),
    "logit-normal": both(logit_normal, 0.0, 20.0),
    "vectors of Beta": both(in_events, 0.05, 0.05),
    "general": (
        npd.MixtureGeneral(npd.Categorical(logits=jnp.zeros(2)), [npd.Beta(0.05, 0.05)] * 2),
        npd.Beta(0.05, 0.05),
    ),
    "Poisson": both(npd.Poisson, 3.0),
}


@pytest.mark.parametrize("pair", cases(MIXTURES, slow={"logit-normal", "general", "Poisson"}))
def test_a_mixture_of_equals_is_one_of_them(pair):
    """Also of what is rounded: with a mixture of Beta(.05, .05) as q the bound to a Beta(.05, .05)
    was 0.77 nats where 0 is exact.
    """
    mixture, component = (from_numpyro(member) for member in pair)
    zs, log_q = jax.jit(jax.vmap(mixture.sample_and_log_prob))(FEW)
    np.testing.assert_allclose(jax.vmap(component.log_prob)(zs), log_q, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rising", [True, False])
def test_the_support_of_an_affine_map_is_that_of_its_values(rising):
    """Also where the scale is traced, whose sign NumPyro guesses, and after `jax.vmap`."""
    scale = 2.0 if rising else -2.0
    low, high = (1.0, 3.0) if rising else (-1.0, 1.0)

    def log_prob(scale, z):
        return from_numpyro(
            npd.TransformedDistribution(npd.Beta(2.0, 3.0), transforms.AffineTransform(1.0, scale))
        ).log_prob(z)

    inside, off = jnp.float32([low + 0.5, high - 0.5]), jnp.float32([low - 0.5, high + 0.5])
    scales = jnp.full(2, scale)
    for function in (jax.vmap(log_prob), jax.jit(jax.vmap(log_prob))):
        x = (inside - 1) / scale
        expected = npd.Beta(2.0, 3.0).log_prob(x) - math.log(2)
        np.testing.assert_allclose(function(scales, inside), expected, rtol=1e-5)
        assert np.isneginf(function(scales, off)).all()
        assert np.isfinite(jax.vmap(jax.grad(log_prob, 1))(scales, off)).all()


def test_the_density_of_a_fold_of_its_own_sample():
    """Which counts both points that it folds together: NumPyro's takes no intermediates."""
    p = from_numpyro(npd.FoldedDistribution(npd.Normal(0.5, 1.0)))
    z, log_prob = p.sample_and_log_prob(jax.random.key(0))
    assert log_prob == p.log_prob(z)
