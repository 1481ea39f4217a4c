"""Binarisation: what the model sees of a stored image."""

import jax
import numpy as np
import pytest

from tests.lib.images import GREY
from tests.lib.oracles import assert_mean
from vaejax.data.base import Dataset, Split
from vaejax.data.pixels import Pixels, prepare_pixels


def test_dynamic_binarisation_is_drawn_from_the_key():
    dataset, transform = prepare_pixels(GREY, "dynamic")
    assert dataset is GREY and transform.policy == "dynamic"
    keys = jax.random.split(jax.random.key(0), 40_000)
    draws = jax.vmap(transform, (None, 0))(GREY.train.images[0], keys)
    assert set(np.unique(draws)) == {0.0, 1.0}
    assert_mean(draws.reshape(-1, 4)[:, 1:3], np.array([64, 128]) / 255, detectable=0.02)
    assert (draws[:, 0, 0] == 0).all() and (draws[:, 1, 1] == 1).all()
    np.testing.assert_array_equal(
        transform(GREY.train.images[0], keys[0]), transform(GREY.train.images[0], keys[0])
    )


def test_static_binarisation_is_drawn_once():
    dataset, transform = prepare_pixels(GREY, "static", seed=3)
    assert (
        dataset.maximum == 1
        and set(np.unique(dataset.train.images)) == {0, 1}
        and "binarised once with seed 3" in dataset.source
    )
    np.testing.assert_array_equal(
        prepare_pixels(GREY, "static", seed=3)[0].test.images, dataset.test.images
    )
    assert (prepare_pixels(GREY, "static", seed=4)[0].test.images != dataset.test.images).any()
    first, second = (transform(dataset.train.images[0], jax.random.key(seed)) for seed in (0, 1))
    np.testing.assert_array_equal(first, second)


def test_what_is_drawn_once_is_as_bright_as_what_is_stored():
    """A pixel is 1 with probability stored / maximum, in each split."""
    images = np.broadcast_to(np.array([64, 191], np.uint8), (20_000, 2))
    split = Split(images)
    dataset, _ = prepare_pixels(Dataset("grey", split, split, split, 255, "here"), "static")
    for part in (dataset.train, dataset.valid, dataset.test):
        assert_mean(part.images, np.array([64, 191]) / 255, detectable=0.03)


def test_threshold_and_none():
    x = GREY.train.images[0]
    np.testing.assert_array_equal(
        prepare_pixels(GREY, "threshold")[1](x, jax.random.key(0)), [[0, 0], [1, 1]]
    )
    np.testing.assert_allclose(
        prepare_pixels(GREY, "none")[1](x, jax.random.key(0)), x / 255, rtol=1e-6
    )
    halves = Pixels(16, "threshold")(np.array([7, 8, 9], np.uint8), jax.random.key(0))
    np.testing.assert_array_equal(halves, [0, 0, 1])
    with pytest.raises(ValueError, match="unknown binarisation 'dinamic'; did you mean dynamic"):
        prepare_pixels(GREY, "dinamic")  # pyright: ignore[reportArgumentType]
