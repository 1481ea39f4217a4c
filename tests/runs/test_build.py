"""What a configuration is made into, against formulas."""

import dataclasses
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from vaejax.base.compare import differences
from vaejax.base.describe import description
from vaejax.data.pixels import Pixels, prepare_pixels
from vaejax.runs.build import build_model, build_objective, build_optimizer, initial_params
from vaejax.runs.config import TrainConfig
from vaejax.runs.continuation import fixed_fields

DIGITS = vaejax.load_dataset("digits")

RATE = 0.02
CONFIG = TrainConfig(learning_rate=RATE, num_steps=10, latent_dim=2, hidden=(3,))


def updates(config, gradients):
    """What the optimiser makes of these gradients of one number, in turn."""
    optimizer = build_optimizer(config)
    state, made = optimizer.init(jnp.zeros(())), []
    for gradient in gradients:
        update, state = optimizer.update(jnp.asarray(gradient), state)
        made.append(float(update))
    return np.array(made)


def test_the_rate_falls_along_a_cosine_over_the_whole_run():
    """Of a gradient that stands still Adam's step is the rate: rate (1 + cos(pi t / T)) / 2."""
    config = dataclasses.replace(CONFIG, schedule="cosine")
    expected = RATE * (1 + np.cos(np.pi * np.arange(10) / 10)) / 2
    np.testing.assert_allclose(updates(config, np.ones(10)), -expected, rtol=1e-4)
    constant = dataclasses.replace(CONFIG, schedule="constant")
    np.testing.assert_allclose(updates(constant, np.ones(10)), -RATE, rtol=1e-4)


def test_gradients_are_clipped_and_not_steps():
    """One that is a thousand times too long then moves nothing more than the others."""
    clipped = dataclasses.replace(CONFIG, clip_norm=1.0)
    np.testing.assert_allclose(updates(clipped, [1.0, 1e3, 1.0]), -RATE, rtol=1e-4)
    assert abs(updates(CONFIG, [1.0, 1e3, 1.0])[1]) < 0.8 * RATE


@pytest.mark.parametrize("net", ["mlp", "gated", "conv"])
def test_the_precision_is_of_both_nets_and_of_no_bound(net):
    """In bfloat16 the ELBO of a digit is within 0.3 nats of float32's, and not equal to it; the
    parameters are the same.
    """
    xs = DIGITS.test.images[:20] / np.float32(16)
    keys = jax.random.split(jax.random.key(1), 20)

    def bounds(precision):
        config = dataclasses.replace(CONFIG, net=net, hidden=(50,), precision=precision)
        model = build_model(config, xs[0])
        params = model.init(jax.random.key(0), xs[0])
        elbo = partial(vaejax.elbo, model)
        return model, params, jax.jit(jax.vmap(elbo, (None, 0, 0)))(params, xs, keys)

    (model, params, exact), (half, same, rounded) = bounds("float32"), bounds("bfloat16")
    assert half.likelihood.net == vaejax.HalfPrecision(model.likelihood.net)
    assert half.encoder.net == vaejax.HalfPrecision(model.encoder.net)
    chex.assert_trees_all_equal(params, same)
    assert rounded.dtype == jnp.float32
    assert 0 < np.abs(rounded - exact).max() < 0.3


def test_pseudo_inputs_are_training_examples():
    """Each another one, as the model sees it."""
    images = np.arange(1, 7, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    config = dataclasses.replace(CONFIG, prior="vamp:4")
    model = build_model(config, images[0])
    params = initial_params(config, model, images, Pixels(6, "none"), jax.random.key(0))
    pseudo_inputs = np.asarray(params.theta["prior"])
    np.testing.assert_allclose(pseudo_inputs, pseudo_inputs[:, :1, :1] * np.ones((1, 2, 2)))
    numbers = 6 * pseudo_inputs[:, 0, 0]
    np.testing.assert_allclose(numbers, np.round(numbers), atol=1e-5)
    assert len(set(np.round(numbers))) == 4 and numbers.min() > 0.5 and numbers.max() < 6.5


# What a flag that is fixed in a continuation changes: the parts of the run, or what `fit` keeps.
OTHER_VALUES = {
    "binarisation": "threshold",
    "clip_norm": 1.0,
    "encoder": "full-normal",
    "estimator": "antithetic",
    "hidden": (3,),
    "latent_dim": 3,
    "learning_rate": 0.1,
    "likelihood": "continuous-bernoulli",
    "maximum": 20.0,
    "average": 0.5,
    "net": "gated",
    "num_samples": 3,
    "precision": "bfloat16",
    "prior": "learned-normal",
    "schedule": "cosine",
    "skip_above": 1.0,
    "warm_up": 5,
}
OF_THE_SPLITS = {"label", "validation", "test", "split_seed"}  # known by the digests of the data
KEPT_BY_FIT = {"batch_size", "seed", "data"} | OF_THE_SPLITS


def test_the_flags_that_are_fixed_are_those_that_change_what_the_run_is():
    """The rule of the flags and the descriptions in the checkpoints are of one mind."""

    def described(config):
        model = build_model(config, np.zeros((8, 8), np.float32))
        parts = build_objective(config, model), build_optimizer(config)
        dataset = DIGITS._replace(maximum=config.maximum or DIGITS.maximum)
        return description([*parts, prepare_pixels(dataset, config.binarisation, seed=0)[1]])

    config = TrainConfig(num_samples=2)
    fixed = set(fixed_fields(config))
    assert fixed == {*OTHER_VALUES} | KEPT_BY_FIT
    for name, value in OTHER_VALUES.items():
        changed = dataclasses.replace(config, **{name: value})
        assert differences(described(config), described(changed)), name
    for name in {field.name for field in dataclasses.fields(config)} - fixed:
        other = 7 if isinstance(getattr(config, name), int) else None
        assert described(dataclasses.replace(config, **{name: other})) == described(config), name
