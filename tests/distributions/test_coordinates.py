"""What is known coordinate by coordinate: log-densities and KLs, whose sums are the whole's."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest

import vaejax
from vaejax.distributions.bernoulli import BernoulliDensity, ContinuousBernoulliDensity
from vaejax.distributions.discrete import OneHotCategoricalDensity
from vaejax.distributions.kl import kl_by_coordinate
from vaejax.distributions.normal import DiagNormalDensity
from vaejax.distributions.numpyro import NumPyroDensity, from_numpyro
from vaejax.models.joint import Joint

KEY = jax.random.key(0)
NUMBERS = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3)), jnp.float32)


def joint():
    normal, binary = vaejax.StandardNormal(2), vaejax.FactorialBernoulli(3)
    graph = vaejax.DirectedGraph((vaejax.Node("b", binary), vaejax.Node("a", normal)))
    return graph({"a": (), "b": NUMBERS[0]})


PRODUCTS = {
    "DiagNormal": (DiagNormalDensity(NUMBERS, NUMBERS[::-1]), 6),
    "Bernoulli": (BernoulliDensity(NUMBERS), 6),
    "ContinuousBernoulli": (ContinuousBernoulliDensity(NUMBERS), 6),
    "OneHotCategorical": (OneHotCategoricalDensity(NUMBERS), 2),
    "Gamma": (from_numpyro(npd.Gamma(jnp.exp(NUMBERS), 1.0)), 6),
    "expanded Laplace": (NumPyroDensity(npd.Laplace(0.0, 1.0).expand((4,)).to_event(1)), 4),
    "independent nodes": (joint(), 5),
    "at uniform numbers": (DiagNormalDensity(NUMBERS, NUMBERS).at_uniform(0.3 + 0 * NUMBERS), 6),
}


@pytest.mark.parametrize(("p", "size"), PRODUCTS.values(), ids=PRODUCTS)
def test_the_sum_over_coordinates_is_the_whole(p, size):
    value = p.sample(KEY)
    parts = p.coordinate_log_probs(value)
    assert parts.shape == (size,)
    np.testing.assert_allclose(jnp.sum(parts), p.log_prob(value), rtol=1e-5)


def test_each_number_belongs_to_its_coordinate():
    """Moving one coordinate of the value moves its log-density alone, in the order of the event."""
    for p in (PRODUCTS["DiagNormal"][0], PRODUCTS["Gamma"][0]):
        value = np.array(p.sample(KEY))
        before = p.coordinate_log_probs(value)
        value[1, 0] += 0.3
        moved = np.flatnonzero(before != p.coordinate_log_probs(value))
        assert moved.tolist() == [3]


def test_what_is_no_product_says_so():
    normal = npd.MultivariateNormal(jnp.zeros(2), jnp.eye(2))
    mixture = vaejax.MixtureOfGaussians(2, 3)
    for p in (NumPyroDensity(normal), mixture(mixture.init(KEY, None), lambda x: None)):
        with pytest.raises(vaejax.NotKnownError, match="is not a product of densities"):
            p.coordinate_log_probs(jnp.zeros(2))
    nodes = vaejax.Node("a", vaejax.StandardNormal(1)), vaejax.Node("b", line(), "a")
    graph = vaejax.DirectedGraph(nodes)
    p = graph(graph.init(KEY))
    assert isinstance(p, Joint)
    with pytest.raises(vaejax.NotKnownError, match="Joint is not a product"):
        p.coordinate_log_probs(p.sample(KEY))


def line():
    return vaejax.Gaussian(vaejax.MLP(1, ()), 1.0)


@pytest.mark.parametrize("name", ["DiagNormal", "Bernoulli", "OneHotCategorical"])
def test_the_sum_of_the_kls_is_the_kl(name):
    q, size = PRODUCTS[name]
    p = jax.tree.map(lambda leaf: 0.5 - leaf, q)
    parts = kl_by_coordinate(q, p)
    assert parts.shape == (size,) and np.all(np.asarray(parts) >= 0)
    np.testing.assert_allclose(jnp.sum(parts), vaejax.kl_divergence(q, p), rtol=1e-5)
    # Each is the mean of its log-ratio.
    keys = jax.random.split(KEY, 20_000)

    def log_ratios(key):
        z = q.sample(key)
        return q.coordinate_log_probs(z) - p.coordinate_log_probs(z)

    ratios = np.asarray(jax.vmap(log_ratios)(keys), np.float64)
    error = 4.9 * ratios.std(axis=0) / np.sqrt(len(ratios))
    assert np.all(np.abs(ratios.mean(axis=0) - parts) < error)


def test_kls_of_other_pairs_are_not_known():
    normal, binary = PRODUCTS["DiagNormal"][0], PRODUCTS["Bernoulli"][0]
    with pytest.raises(vaejax.NotKnownError, match="not known coordinate by coordinate"):
        kl_by_coordinate(normal, binary)
    with pytest.raises(ValueError, match="two shapes"):
        kl_by_coordinate(normal, DiagNormalDensity(NUMBERS[0], NUMBERS[0]))
