"""Nets with noise: training draws them once for each example, and everything else takes them
without.
"""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

import vaejax
from tests.lib.houses import DROPOUT, PLAIN, model_of
from tests.lib.oracles import assert_mean
from tests.lib.recipes import recipes

KEY = jax.random.key(5)
BITS = (np.random.default_rng(0).normal(size=(40, 3)) > 0).astype(np.float32)

# Dropout of the two entries of an example, at 1/4, and their sum: of the four masks
# (1, 1), (1, 0), (0, 1), (0, 0) with probabilities 9/16, 3/16, 3/16, 1/16.
RATE = 0.25
MASKS = np.array([[1, 1], [1, 0], [0, 1], [0, 0]]) / (1 - RATE)
PROBABILITIES = np.array([9, 3, 3, 1]) / 16


class DroppedInNNX(nnx.Module):
    def __init__(self, rngs):
        self.dropout, self.weight = nnx.Dropout(RATE, rngs=rngs), nnx.Param(jnp.ones(2))

    def __call__(self, x):
        return self.dropout(x) * self.weight


class DroppedInEquinox(eqx.Module):
    dropout: eqx.nn.Dropout
    weight: jax.Array

    def __init__(self, *, key):
        self.dropout, self.weight = eqx.nn.Dropout(RATE), jnp.ones(2)

    def __call__(self, x, *, key=None):
        return self.dropout(x, key=key) * self.weight


def dropped_in_haiku(x, is_training):
    weight = hk.get_parameter("weight", (2,), init=jnp.ones)
    return weight * (hk.dropout(hk.next_rng_key(), RATE, x) if is_training else x)


class DroppedInLinen(nn.Module):
    @nn.compact
    def __call__(self, x, deterministic):
        weight = self.param("weight", nn.initializers.ones, (2,))
        return weight * nn.Dropout(RATE)(x, deterministic=deterministic)


DROPPED = {
    "NNX": vaejax.from_nnx(DroppedInNNX),
    "Equinox": vaejax.from_equinox(DroppedInEquinox),
    "Haiku": vaejax.from_haiku(dropped_in_haiku),
    "Linen": vaejax.from_linen(DroppedInLinen()),
}


@pytest.mark.parametrize("house", DROPPED)
def test_masks_are_drawn_as_the_library_draws_them(house):
    """Each with its probability; without a key there is none, and a key gives the same again."""
    net, x = DROPPED[house], jnp.asarray([1.0, 2.0])
    params = net.init(KEY, x)
    assert params.key is None
    np.testing.assert_array_equal(net.apply(params, x), x)

    @jax.jit
    @jax.vmap
    def outputs(key):
        return net.apply(vaejax.draw_nets(params, key)[0], x)

    keys = jax.random.split(KEY, 20_000)
    masked = np.asarray(outputs(keys))
    np.testing.assert_array_equal(masked, outputs(keys))
    is_mask = np.isclose(masked[:, None], MASKS * np.asarray(x), rtol=1e-5).all(-1)
    assert (is_mask.sum(1) == 1).all()
    assert_mean(is_mask.astype(float), PROBABILITIES, detectable=0.03)


class TwoLayers(nnx.Module):
    def __init__(self, rngs):
        self.first, self.second = (nnx.Dropout(0.5, rngs=rngs) for _ in range(2))

    def __call__(self, x):
        return jnp.stack([self.first(x), self.second(x)])


def test_two_layers_of_dropout_have_two_masks():
    net = vaejax.from_nnx(TwoLayers)
    first, second = net.apply(vaejax.Stochastic({}, KEY), jnp.ones(200)) > 0
    assert 60 < (first == second).sum() < 140  # of 200 fair coins, to 5 standard deviations


def test_each_net_has_a_key_of_its_own():
    """And what is left is another; nets that have a key keep it, as does a model of none."""
    params = vaejax.Params({"a": vaejax.Stochastic(1.0), "b": 2.0}, vaejax.Stochastic((3.0,)))
    drawn, rest = vaejax.draw_nets(params, KEY)
    keys = [drawn.theta["a"].key, drawn.phi.key, rest, KEY]
    assert len({tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in keys}) == 4
    again, same = vaejax.draw_nets(drawn, rest)
    assert same is rest and again.phi.key is drawn.phi.key
    plain = vaejax.Params({"b": 2.0}, ())
    assert vaejax.draw_nets(plain, KEY) == (plain, KEY)


# What is maximised: E_m bound(params, m; x), by the four masks of an encoder.

MODEL = vaejax.VAE(
    vaejax.StandardNormal(2),
    vaejax.Gaussian(vaejax.MLP(2, ()), 1.0),
    vaejax.Gaussian(DROPPED["NNX"], 0.5),
)
X = np.asarray([0.7, -1.1], np.float32)


@pytest.mark.parametrize(
    "estimator", [vaejax.AnalyticKL(), vaejax.StickTheLanding(2), vaejax.DReG(2)],
    ids=lambda estimator: type(estimator).__name__,
)  # fmt: skip
def test_the_gradient_is_that_of_the_mean_over_masks(estimator):
    """For each estimator: E over its noise and the masks, of the value and of the gradient, is the
    mean over the four masks of what it has at that mask as an ordinary model.
    """
    plain = vaejax.VAE(MODEL.prior, MODEL.likelihood, vaejax.Gaussian(Scaled(), 0.5))
    params = MODEL.init(KEY, X)

    def ordinary(params, mask, key):
        weight = params.phi["net"].params["weight"] * mask
        return estimator(plain, params._replace(phi={"net": weight}), X, key)

    def value_and_gradient(function, *arguments):
        value, gradient = jax.value_and_grad(function)(*arguments)
        return jnp.append(ravel_pytree(gradient)[0], value)

    objective = vaejax.objectives.base.Maximised(vaejax.per_example(estimator, MODEL))
    keys = jax.random.split(KEY, 40_000)
    draws = jax.jit(jax.vmap(lambda key: value_and_gradient(objective, params, X, key)))(keys)

    @jax.jit
    @jax.vmap
    def at_each_mask(key):
        masks = jnp.asarray(MASKS, jnp.float32)
        return jax.vmap(lambda mask: value_and_gradient(ordinary, params, mask, key))(masks)

    by_mask = at_each_mask(jax.random.split(jax.random.key(6), 40_000))
    expected = np.einsum("m,kmn->kn", PROBABILITIES, np.asarray(by_mask, np.float64))
    difference = np.asarray(draws, np.float64) - expected  # whose mean is 0, independent draws
    moves = difference.std(0) > 1e-6
    assert moves.sum() >= 8
    assert_mean(difference[:, moves], np.zeros(moves.sum()), detectable=0.2)


@vaejax.component
class Scaled:
    def init(self, key, example):
        return jnp.ones(2)

    def apply(self, params, example):
        return params * example


def test_examples_of_a_batch_have_masks_of_their_own():
    """A batch of one example twice has its two terms of two draws; a mean over keys of each."""
    params = MODEL.init(KEY, X)

    def first_mean(params, x, key):  # a plain function of one example
        return MODEL.posterior(params, x).mean()[0]

    objective = vaejax.minibatch(first_mean, support=vaejax.supports.REAL)
    xs = np.stack([X] * 64)
    value = objective(params, xs, KEY, 0).bound / (X[0] / (1 - RATE))
    assert 0.5 < value < 0.98  # the share of 64 masks that keep the entry, 3/4 in the mean
    assert objective.bound(params, X, KEY) == X[0]


def test_a_user_writes_a_net_with_noise():
    """The recipe: its gradient in training has noise, its evaluation none."""
    noisy = recipes(vaejax.Stochastic)["NoisyLinear"](0.5)
    model = vaejax.VAE(
        vaejax.StandardNormal(2), vaejax.Bernoulli(vaejax.MLP(3, (4,))),
        vaejax.Gaussian(noisy, 0.5),
    )  # fmt: skip
    params = model.init(KEY, BITS[0])
    objective = vaejax.minibatch(vaejax.AnalyticKL(), model)
    run = vaejax.fit(
        objective, params, optax.adam(1e-2), BITS, KEY, num_steps=20, batch_size=10, progress=False
    )
    assert (ravel_pytree(run.params.phi)[0] != ravel_pytree(params.phi)[0]).all()
    q = model.posterior(run.params, BITS[0])
    np.testing.assert_allclose(q.mean(), run.params.phi["net"].params @ BITS[0], rtol=1e-5)


def test_without_a_key_it_is_the_net_without_dropout():
    """Bounds, samples and validations of the same weights are to the bit those of the module
    without dropout.
    """
    with_dropout, without = model_of(DROPOUT, "NNX"), model_of(PLAIN, "NNX")
    params = without.init(KEY, BITS[0])
    theta = {**params.theta, "likelihood": vaejax.Stochastic(params.theta["likelihood"])}
    dropped = vaejax.Params(theta, vaejax.Stochastic(params.phi))
    for ask in (
        lambda model, params: vaejax.iwae(model, params, BITS[0], KEY, 5),
        lambda model, params: model.sample(params, KEY),
        lambda model, params: vaejax.minibatch(vaejax.Pathwise(), model).bound(
            params, BITS[0], KEY
        ),
    ):
        measured, expected = ask(with_dropout, dropped), ask(without, params)
        jax.tree.map(np.testing.assert_array_equal, measured, expected)
    objectives = [vaejax.minibatch(vaejax.Pathwise(), model) for model in (with_dropout, without)]
    bound = objectives[0](dropped, BITS, KEY, 0).bound
    assert bound != objectives[1](params, BITS, KEY, 0).bound


OBJECTIVES = {
    "free bits": lambda model: vaejax.FreeBits(model, 0.1),
    "variational Bayes": lambda model: vaejax.VariationalBayes(
        vaejax.minibatch(vaejax.Pathwise(), model), 40
    ),
    "Beta": lambda model: vaejax.minibatch(vaejax.Beta(2.0), model),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_draws(name):
    """Its value at one key is that of the net without dropout only if the net was not drawn."""
    model = model_of(DROPOUT, "Linen")
    objective = OBJECTIVES[name](model)
    params = model.init(KEY, BITS[0])
    if name == "variational Bayes":
        params = objective.start(params, log_scale=-40.0)
    values = [objective(params, BITS, key, 0).bound for key in jax.random.split(KEY, 3)]
    kept = jax.tree.map(lambda leaf: leaf, params)
    plain = model_of(PLAIN, "Linen")
    without = OBJECTIVES[name](plain)
    unwrapped = jax.tree.map(
        lambda node: node.params if isinstance(node, vaejax.Stochastic) else node,
        kept, is_leaf=lambda node: isinstance(node, vaejax.Stochastic),
    )  # fmt: skip
    others = [without(unwrapped, BITS, key, 0).bound for key in jax.random.split(KEY, 3)]
    assert np.isfinite(values).all() and not np.isclose(values, others, rtol=1e-4).any()


def test_what_shares_something_between_examples_refuses_dropout():
    model = model_of(DROPOUT, "Linen")
    params = model.init(KEY, BITS[0])
    with pytest.raises(TypeError, match="TCVAE is of a batch whose examples share something"):
        vaejax.TCVAE(model, 40)(params, BITS, KEY, 0)
    nets = DROPOUT["Linen"]
    model = vaejax.VAE(
        vaejax.StandardNormal(2),
        vaejax.Gaussian(nets(2, 3), "learned"),
        vaejax.DiagNormal(nets(3, 2, 2)),
    )
    objective = vaejax.optimal_scale(vaejax.minibatch(vaejax.Pathwise(), model))
    with pytest.raises(TypeError, match="optimal scale is of a batch whose examples share"):
        objective(model.init(KEY, BITS[0]), BITS, KEY, 0)
