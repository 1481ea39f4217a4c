"""The recipes in the docstrings of the base classes: each is run as it is written there, and what
it makes is used as ours is, with every check.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import optax
import pytest
from jax.flatten_util import ravel_pytree

import vaejax
from tests.lib.oracles import assert_mean
from tests.lib.recipes import OWNERS, recipe

REAL, POSITIVE, BINARY = (vaejax.supports.REAL, vaejax.supports.POSITIVE, vaejax.supports.BINARY)
XS = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
BITS = (XS > 0).astype(np.float32)
KEY = jax.random.key(0)


@pytest.mark.parametrize("name", OWNERS)
def test_a_recipe_defines_what_it_says(name):
    assert issubclass(recipe(name), OWNERS[name])


def net(out, heads=1):
    return vaejax.MLP(out, (4,), heads=heads)


def plain_model():
    encoder, likelihood = vaejax.DiagNormal(net(2, 2)), vaejax.Bernoulli(net(3))
    return vaejax.VAE(vaejax.StandardNormal(2), likelihood, encoder)


def trained(objective, model, data, psi=None, num_steps=20):
    """20 steps of Adam; everything is finite, and the parameters have moved."""
    params = model.init(jax.random.key(1), data[0])
    if psi is not None:
        params = params._replace(psi=psi(params))
    run = vaejax.fit(
        objective,
        params,
        optax.adam(1e-2),
        data,
        KEY,
        num_steps=num_steps,
        batch_size=10,
        progress=False,
    )
    assert len(run.history["bound"]) == len(run.history["objective"]) == num_steps
    before, after = ravel_pytree(params)[0], ravel_pytree(run.params)[0]
    assert np.isfinite(after).all() and (before != after).any()
    return run


def used(model, data, wrong, estimator=None, psi=None):
    """Trained, evaluated, its gradient measured; data on another set are refused before it runs."""
    objective = vaejax.minibatch(estimator or vaejax.Pathwise(), model)
    run = trained(objective, model, data, psi)
    score = vaejax.evaluate(model, run.params, data[:6], KEY, num_samples=4)
    assert np.isfinite(score.elbo.mean)
    moments = vaejax.gradient_moments(objective, run.params, data[:4], KEY, 8)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(moments.mean))
    with pytest.raises(ValueError, match="data"):
        trained(objective, model, wrong)
    return run


NO_NUMBER = np.where(np.arange(40)[:, None] == 7, np.nan, XS)


# A distribution: as an encoder's density and as a prior's.


@vaejax.component
class OwnEncoder(vaejax.Conditional):
    """The density of what a net gives."""

    net: Any
    density: Callable
    support: Any

    def init(self, key, given):
        return self.net.init(key, given)

    def __call__(self, params, given):
        return self.density(self.net.apply(params, given))


def own_encoder():
    """The recipe's Gumbel, in a conditional."""
    return OwnEncoder(net(2), recipe("Distribution"), REAL)


def test_a_distribution():
    used(vaejax.VAE(vaejax.StandardNormal(2), vaejax.Bernoulli(net(3)), own_encoder()), BITS, XS)
    q = recipe("Distribution")(jnp.asarray([0.3, -1.0]))
    np.testing.assert_allclose(
        q.log_prob(jnp.zeros(2)), npd.Gumbel(q.loc, 1.0).log_prob(jnp.zeros(2)).sum(), rtol=1e-5
    )
    with pytest.raises(ValueError, match=r"Gumbel.log_prob got a value of shape \(5, 2\)"):
        q.log_prob(jnp.zeros((5, 2)))
    with pytest.raises(vaejax.NotKnownError, match="Gumbel has no closed form for its mean"):
        q.mean()


@pytest.mark.parametrize(
    "refused",
    [vaejax.AnalyticKL(), vaejax.Pathwise(2, noise=vaejax.Sobol()), vaejax.MeasureValued()],
    ids=lambda estimator: type(estimator).__name__,
)
def test_what_a_distribution_does_not_know_is_refused_in_a_sentence(refused):
    model = vaejax.VAE(vaejax.StandardNormal(2), vaejax.Bernoulli(net(3)), own_encoder())
    params = model.init(KEY, BITS[0])
    with pytest.raises(TypeError, match="Gumbel") as error:
        refused(model, params, BITS[0], KEY)
    assert "\n" not in str(error.value)


def test_a_discrete_distribution_of_ones_own():
    """Refused by what differentiates samples; the score function is right, states or no states."""

    @vaejax.pytree
    class Coins(vaejax.Distribution):
        logits: jax.Array
        reparameterised = False

        def sample(self, key):
            return jax.random.bernoulli(key, jax.nn.sigmoid(self.logits)).astype(jnp.float32)

        def log_prob(self, value):
            value = vaejax.distributions.as_event("Coins", value, self.logits)
            return jnp.sum(value * self.logits - jax.nn.softplus(self.logits))

    encoder = OwnEncoder(net(2), Coins, BINARY)
    model = vaejax.VAE(vaejax.FactorialBernoulli(2), vaejax.Bernoulli(net(3)), encoder)
    ours = vaejax.VAE(
        vaejax.FactorialBernoulli(2), vaejax.Bernoulli(net(3)), vaejax.Bernoulli(net(2))
    )
    params = jax.tree.map(lambda leaf: 2 * leaf, model.init(KEY, BITS[0]))
    for estimator in (vaejax.Pathwise(), vaejax.StickTheLanding(), vaejax.DReG(2)):
        with pytest.raises(TypeError, match="those of Coins do not move smoothly"):
            estimator(model, params, BITS[0], KEY)
    with pytest.raises(TypeError, match="Coins"):
        vaejax.Enumerate()(model, params, BITS[0], KEY)
    exact = jax.jit(jax.grad(lambda p: vaejax.Enumerate()(ours, p, BITS[0], KEY)))(params)
    estimator = vaejax.ScoreFunction(4)
    gradient = jax.jit(
        jax.vmap(lambda key: jax.grad(lambda p: estimator(model, p, BITS[0], key))(params).phi)
    )
    draws = jax.tree.leaves(gradient(jax.random.split(KEY, 20_000)))
    for draw, expected in zip(draws, jax.tree.leaves(exact.phi), strict=True):
        moves = np.asarray(draw).std(0) > 1e-6
        assert_mean(np.asarray(draw)[:, moves], np.asarray(expected)[moves], detectable=0.1)


# Factors and a model.


def test_a_conditional_as_a_likelihood_and_as_an_encoder():
    exponential = recipe("Conditional")
    encoder = vaejax.DiagNormal(net(2, 2))
    model = vaejax.VAE(vaejax.StandardNormal(2), exponential(net(3)), encoder)
    used(model, np.abs(XS) + 0.1, XS)
    prior = vaejax.NumPyroPrior(positive_prior)
    model = vaejax.VAE(prior, vaejax.Bernoulli(net(3)), exponential(net(2)))
    used(model, BITS, XS)
    with pytest.raises(ValueError, match="Exponential an encoder of positive latents"):
        vaejax.VAE(vaejax.StandardNormal(2), vaejax.Bernoulli(net(3)), exponential(net(2)))


def positive_prior():
    return npd.Gamma(2.0, 1.5).expand((2,)).to_event(1)


def test_a_conditional_is_a_node_of_a_graph():
    exponential = recipe("Conditional")
    nodes = (
        vaejax.Node("z", vaejax.StandardNormal(2)),
        vaejax.Node("x", exponential(net(3)), "z"),
    )
    model = vaejax.GraphModel(vaejax.DirectedGraph(nodes), vaejax.DiagNormal(net(2, 2)))
    used(model, np.abs(XS) + 0.1, XS)


def test_a_prior():
    model = vaejax.VAE(recipe("Prior")(2), vaejax.Bernoulli(net(3)), vaejax.DiagNormal(net(2, 2)))
    run = used(model, BITS, XS)
    assert run.params.theta["prior"].shape == ()
    with pytest.raises(ValueError, match="ScaledNormal is a prior on real latents"):
        vaejax.VAE(recipe("Prior")(2), vaejax.Bernoulli(net(3)), vaejax.Bernoulli(net(2)))


def test_a_model():
    model = recipe("Model")(3)
    run = used(model, XS, NO_NUMBER)
    x, z = model.sample(run.params, KEY)
    assert x.shape == z.shape == model.reconstruct(run.params, XS[0], KEY).shape == (3,)
    for estimator in (vaejax.AnalyticKL(), vaejax.StickTheLanding(2), vaejax.DReG(2)):
        assert np.isfinite(jax.jit(estimator, static_argnums=0)(model, run.params, XS[0], KEY))
    refined = vaejax.Refined(model, 2)
    assert refined.support == model.support and refined.latent_support == model.latent_support


# What estimates and what is maximised.


def test_an_estimator():
    model = plain_model()
    own, params = recipe("Estimator")(), model.init(KEY, BITS[0])
    np.testing.assert_allclose(
        own(model, params, BITS[0], jax.random.split(KEY, 1)[0]),
        vaejax.elbo(model, params, BITS[0], KEY),
        rtol=1e-5,
    )
    used(model, BITS, XS, own)
    assert own.terms(model, params, BITS[0], KEY, 0).bound == own(model, params, BITS[0], KEY)


def test_a_baseline():
    own = recipe("Baseline")()
    b = own((), None, jnp.asarray([1.0, 2.0, 5.0, 9.0]))
    np.testing.assert_array_equal(b, [5.0, 5.0, 2.0, 2.0])
    model = vaejax.VAE(
        vaejax.FactorialBernoulli(2), vaejax.Bernoulli(net(3)), vaejax.Bernoulli(net(2))
    )
    used(model, BITS, XS, vaejax.ScoreFunction(4, baseline=own))
    with pytest.raises(ValueError, match="num_samples"):
        vaejax.ScoreFunction(2, baseline=own)


def test_a_noise():
    own = recipe("Noise")()
    model = plain_model()
    used(model, BITS, XS, vaejax.Pathwise(4, noise=own))
    q = vaejax.distributions.standard_normal(jnp.zeros(2))
    zs = jax.jit(jax.vmap(lambda source: own.at(q, source)[0].sample(own.at(q, source)[1])))(
        own.sources(q, KEY, 4)
    )
    np.testing.assert_array_equal(zs[::2], zs[1::2])
    assert (zs[0] != zs[2]).all()


def test_an_objective():
    model = plain_model()
    own = recipe("Objective")(vaejax.minibatch(vaejax.Beta(vaejax.WarmUp(10)), model))
    assert own.support == model.support and own.schedules == own.inner.schedules
    run = trained(own, model, BITS)
    assert np.isfinite(run.history["objective"]).all()
    with pytest.raises(ValueError, match="warmed up over 10 steps, but num_steps = 5"):
        trained(own, model, BITS, num_steps=5)
    with pytest.raises(ValueError, match="data"):
        trained(own, model, XS)
    params = model.init(KEY, BITS[0])
    half, whole = (
        vaejax.gradient_moments(objective, params, BITS[:4], KEY, 4, step=20).mean
        for objective in (own, own.inner)
    )
    np.testing.assert_allclose(
        2 * ravel_pytree(half)[0], ravel_pytree(whole)[0], rtol=1e-3, atol=1e-4
    )


def test_a_schedule():
    late = recipe("Schedule")
    model = plain_model()
    objective = vaejax.minibatch(vaejax.Beta(late(15)), model)
    run = trained(objective, model, BITS)
    bound, objective_values = run.history["bound"], run.history["objective"]
    assert (bound[:15] != objective_values[:15]).all()
    np.testing.assert_allclose(bound[15:], objective_values[15:], rtol=1e-5)
    with pytest.raises(ValueError, match=r"moves over 15 steps, but num_steps = 10: train for at"):
        trained(objective, model, BITS, num_steps=10)


# Data from elsewhere.


def test_a_source(tmp_path):
    paths = [tmp_path / f"{i}.npy" for i in range(len(BITS))]
    for path, x in zip(paths, BITS, strict=True):
        np.save(path, x)
    source = recipe("Source")(paths)
    model = plain_model()
    objective = vaejax.minibatch(vaejax.Pathwise(), model)
    params = model.init(jax.random.key(1), BITS[0])
    runs = [
        vaejax.fit(
            objective,
            params,
            optax.adam(1e-2),
            data,
            KEY,
            num_steps=20,
            batch_size=10,
            progress=False,
        )
        for data in (source, BITS)
    ]
    jax.tree.map(np.testing.assert_array_equal, runs[0].params, runs[1].params)
    scores = [
        vaejax.evaluate(model, runs[0].params, data, KEY, num_samples=4) for data in (source, BITS)
    ]
    np.testing.assert_allclose(scores[0].elbo.mean, scores[1].elbo.mean, rtol=1e-6)
    np.save(paths[3], XS[3])
    with pytest.raises(ValueError, match="data"):
        vaejax.fit(
            objective,
            params,
            optax.adam(1e-2),
            source,
            KEY,
            num_steps=20,
            batch_size=10,
            progress=False,
        )
