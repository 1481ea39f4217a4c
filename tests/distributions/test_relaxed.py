"""Relaxed discrete variables: quadrature, NumPyro, samples, and temperatures at which their points
saturate.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import optax
import pytest
from scipy import special, stats

import vaejax
from tests.lib.cases import cases
from tests.lib.densities import KEYS
from tests.lib.oracles import assert_distributed, assert_mean
from vaejax.distributions.relaxed import RelaxedBernoulliDensity, RelaxedCategoricalDensity


@pytest.mark.parametrize("temperature", [0.6, 1.7])
def test_relaxed_categorical_integrates_to_one(x64, temperature):
    """Over the two logits, where the tails are exponential."""
    q = RelaxedCategoricalDensity(jnp.asarray(temperature), jnp.asarray([0.5, -1.0, 0.3]))
    axis = np.linspace(-50, 50, 401) / temperature
    y = special.log_softmax(np.array(list(itertools.product(axis, axis, [0.0]))), axis=1)
    density = np.exp(jax.jit(jax.vmap(q.log_prob))(y))
    np.testing.assert_allclose(density.sum() * (axis[1] - axis[0]) ** 2, 1, rtol=1e-9)


def test_relaxed_densities_are_numpyros_at_the_point(x64):
    """NumPyro's is of x in (0, 1), ours of logit x: dx = x (1 - x) d logit x."""
    logits, x = np.array([[0.4, -0.9], [2.0, 3.0]]), np.array([[1e-6, 0.2], [0.5, 0.97]])

    @jax.jit
    def densities(temperature, column):
        y = jnp.log(jnp.stack([column, 1 - column], -1))
        differences = jnp.asarray(logits[:, 0] - logits[:, 1])
        ours = RelaxedCategoricalDensity(temperature, jnp.asarray(logits)).log_prob(y)
        binary = RelaxedBernoulliDensity(temperature, differences).log_prob(y[:, 0] - y[:, 1])
        theirs = npd.RelaxedBernoulliLogits(temperature, differences).to_event(1)
        return ours, binary, theirs.log_prob(column) + jnp.sum(y)

    for temperature, column in itertools.product((0.3, 1.0, 2.5), x.T):
        ours, binary, theirs = densities(temperature, column)
        np.testing.assert_allclose([ours, binary], [theirs, theirs], rtol=1e-10)


def test_relaxed_samples():
    """The greatest coordinate has the probabilities softmax(logits); the logit of x_1 of two is (l
    + logistic noise) / T.
    """
    temperature, logits = 0.7, np.array([[0.5, -1.0, 0.3]])
    q = RelaxedCategoricalDensity(jnp.float32(temperature), jnp.asarray(logits, jnp.float32))
    draws = np.asarray(jax.jit(jax.vmap(q.sample))(KEYS))[:, 0]
    np.testing.assert_allclose(np.exp(draws).sum(-1), 1, rtol=1e-6)
    assert_mean(np.eye(3)[draws.argmax(-1)], special.softmax(logits, axis=-1)[0], detectable=0.02)

    def point(l, key):
        y = RelaxedCategoricalDensity(jnp.float32(temperature), jnp.stack([l, 0.0])).sample(key)
        return jnp.exp(y[0])

    def binary_point(l, key):
        return jax.nn.sigmoid(
            RelaxedBernoulliDensity(jnp.float32(temperature), l[None]).sample(key)
        )[0]

    # d/dl E x_1 by quadrature over the uniform variable behind the logistic noise.
    nodes, weights = np.polynomial.legendre.leggauss(200)
    x = special.expit((0.8 + special.logit((nodes + 1) / 2)) / temperature)
    slope = weights / 2 @ (x * (1 - x)) / temperature
    for first in (point, binary_point):
        gradient = jax.jit(jax.vmap(jax.value_and_grad(first), (None, 0)))
        draws, slopes = gradient(jnp.float32(0.8), KEYS)
        assert_distributed(draws, lambda x: special.expit(temperature * special.logit(x) - 0.8))
        assert_mean(slopes, slope, detectable=0.005)


def kl_of_logistics(logit, prior_logit):
    """KL(Logistic(logit, 1) || Logistic(prior_logit, 1)), by quadrature. A KL does not depend on
    the coordinates, so it is that of the relaxed variables at any temperature.
    """
    t = np.linspace(-60, 60, 200_001)
    p, q = stats.logistic(prior_logit), stats.logistic(logit)
    shifted = t + logit
    return np.trapezoid(q.pdf(shifted) * (q.logpdf(shifted) - p.logpdf(shifted)), t)


@jax.jit
@partial(jax.vmap, in_axes=(None, None, 0))
def log_ratios(q, p, key):
    z, log_q = q.sample_and_log_prob(key)
    return log_q - p.log_prob(z)


@pytest.mark.parametrize("temperature", [0.5, 0.01])
@pytest.mark.parametrize("logit", [8.0, 20.0, -20.0, 300.0])
def test_the_kl_is_exact_where_the_points_saturate(temperature, logit):
    """In float32, of single variables and of two categories, at any temperature. The error that is
    seen 99 % of the time is 0.15 nats, at a false-alarm rate of 1e-6.
    """
    exact = kl_of_logistics(logit, 0.0)
    binary = jnp.float32([logit]), jnp.float32([0.0])
    categories = jnp.float32([[logit, 0.0]]), jnp.float32([[0.0, 0.0]])
    families = (RelaxedBernoulliDensity, binary), (RelaxedCategoricalDensity, categories)
    for family, parameters in families:
        q, p = (family(jnp.float32(temperature), logits) for logits in parameters)
        assert_mean(log_ratios(q, p, KEYS), exact, detectable=0.15)


def test_a_decoder_that_ignores_its_latent_gains_nothing():
    """The ELBO is log p(x) - KL then, exactly: four latents of logit 8 against fair ones."""
    temperature, logits = 0.1, jnp.full(4, 8.0)
    model = vaejax.VAE(
        vaejax.FactorialBernoulli(4, temperature),
        vaejax.Bernoulli(Constant(3)),
        vaejax.RelaxedBernoulli(Constant(4), temperature),
    )
    params = vaejax.Params({"prior": jnp.zeros(4), "likelihood": jnp.zeros(3)}, logits)
    exact = -3 * np.log(2) - 4 * kl_of_logistics(8.0, 0.0)
    x = jnp.ones(3)
    for estimator in (vaejax.Pathwise(), vaejax.StickTheLanding(), vaejax.DReG(1)):
        bounds = jax.jit(jax.vmap(lambda key, e=estimator: e(model, params, x, key)))(KEYS)
        assert_mean(bounds, exact, detectable=0.2)


@vaejax.component
class Constant:
    """A net whose output are its parameters."""

    shape: int | tuple[int, ...]

    def init(self, key, example):
        return jnp.zeros(self.shape)

    def apply(self, params, example):
        return params


@vaejax.component
class Shown:
    """A net that adds what it is shown to its parameter."""

    def init(self, key, example):
        return jnp.zeros(jnp.shape(example))

    def apply(self, params, example):
        return params + example


RELAXED = {
    "pseudo-inputs": (vaejax.VampPrior(2), vaejax.RelaxedBernoulli(Constant(3), 0.4)),
    "binary": (vaejax.FactorialBernoulli(3, 0.4), vaejax.RelaxedBernoulli(Constant(3), 0.4)),
    "categories": (
        vaejax.FactorialCategorical(3, 2, 0.4),
        vaejax.RelaxedCategorical(Constant((3, 2)), 0.4),
    ),
}


@pytest.mark.parametrize("kind", RELAXED)
def test_nets_are_shown_the_point(kind):
    """In a VAE, in the graph that is the same model, and in one of its nodes clamped."""
    prior, encoder = RELAXED[kind]
    to_point = jnp.exp if kind == "categories" else jax.nn.sigmoid
    likelihood = vaejax.Gaussian(Shown(), 1.0)
    vae = vaejax.VAE(prior, likelihood, encoder)
    nodes = (vaejax.Node("z", prior), vaejax.Node("x", likelihood, "z"))
    graph = vaejax.GraphModel(vaejax.DirectedGraph(nodes), encoder)
    x = jnp.zeros((3, 2) if kind == "categories" else 3)
    for model in (vae, graph):
        params = model.init(jax.random.key(0), x)
        z = model.posterior(params, x).sample(jax.random.key(1))
        np.testing.assert_allclose(model.p_x_given_z(params, z).mean(), to_point(z), rtol=1e-6)
    expected = vae.log_joint(vae.init(jax.random.key(0), x), x, z)
    np.testing.assert_allclose(graph.log_joint(params, x, z), expected, rtol=1e-6)


TRAINED = {
    f"{kind}, {temperature}": (kind, temperature)
    for kind in ("binary", "categories")
    for temperature in (0.2, 0.05)
}


@pytest.mark.parametrize("case", cases(TRAINED, slow={"binary, 0.05", "categories, 0.2"}))
def test_training_does_not_go_beyond_zero(case):
    """No bound on the log-probability of binary data is above 0: this went to +599 at T = .2."""
    kind, temperature = case
    shape = {"binary": 4, "categories": (2, 3)}[kind]
    prior = {
        "binary": vaejax.FactorialBernoulli(4, temperature),
        "categories": vaejax.FactorialCategorical(2, 3, temperature),
    }[kind]
    family = {"binary": vaejax.RelaxedBernoulli, "categories": vaejax.RelaxedCategorical}[kind]
    model = vaejax.VAE(
        prior, vaejax.Bernoulli(vaejax.MLP(6)), family(vaejax.MLP(shape), temperature)
    )
    xs = np.random.default_rng(0).integers(0, 2, (64, 6)).astype(np.float32)
    run = vaejax.fit(
        vaejax.minibatch(vaejax.Pathwise(), model),
        model.init(jax.random.key(1), xs[0]),
        optax.adam(0.03),
        xs,
        jax.random.key(0),
        num_steps=600,
        batch_size=32,
        progress=False,
    )
    assert np.max(run.history["bound"]) < 0
