"""What a configuration is made into, against formulas."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from vaejax.data.pixels import Pixels
from vaejax.runs.build import build_model, build_optimizer, initial_params
from vaejax.runs.config import TrainConfig

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
