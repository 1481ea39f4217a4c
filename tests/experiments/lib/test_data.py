"""Examples of an experiment: what a model sees of them, and a quantity of each."""

import jax
import jax.numpy as jnp
import numpy as np

import vaejax
from experiments.lib.data import Examples, seen_split
from experiments.lib.training import fitted, fitted_seeds
from tests.lib.correlated import MIXED, start
from vaejax.data.base import Split


def shifted(params, x, key):
    return x["a"] + params


def test_a_quantity_of_each_is_of_what_the_model_sees_in_float64():
    """Also of a tree of examples, and the first of them alone."""
    stored = {"a": np.arange(3, dtype=np.float32)}
    test = Examples(stored, lambda stored, key: {"a": 10 * stored["a"]})
    values = test.each(shifted, jnp.float32(1), jax.random.key(0), batch_size=2)
    np.testing.assert_array_equal(values, [1, 11, 21])
    assert values.dtype == np.float64 and len(test) == 3
    assert test.first(jax.random.key(0))["a"] == 0
    assert Examples(stored, None).first(jax.random.key(0))["a"].dtype == jnp.float32


def test_a_split_as_a_model_sees_it_keeps_its_labels():
    split = Split(np.uint8([[[0, 16]], [[16, 0]]]), np.array([3, 4]))
    seen = seen_split(split, vaejax.Pixels(16, "threshold"), jax.random.key(0))
    np.testing.assert_array_equal(seen.images, [[[0, 1]], [[1, 0]]])
    assert seen.labels is split.labels


class Steps:
    num_steps, batch_size, learning_rate = 5, 4, 1e-2


def test_each_seed_is_a_training_of_its_own():
    """To the same bits."""
    xs = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    objective = vaejax.minibatch(vaejax.Pathwise(), MIXED)
    starts = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 0.1]), start(jnp.asarray(xs[0])))
    keys = jax.random.split(jax.random.key(1), 2)
    seeds = fitted_seeds(Steps(), objective, starts, xs, keys, strategy="map")
    for i, params in enumerate(seeds):
        alone = jax.tree.map(lambda leaf, i=i: leaf[i], starts)
        expected = fitted(Steps(), objective, alone, xs, keys[i], progress=False)
        jax.tree.map(np.testing.assert_array_equal, params, expected)
