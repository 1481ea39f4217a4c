"""Images as a model sees them, and which of them."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import vaejax
from vaejax.data.base import Split, random_rows


def seen(images: Any, transform: Callable, key) -> jax.Array:
    """Stored examples as a model sees them, each transformed once."""
    count = len(jax.tree.leaves(images)[0])
    return jax.jit(jax.vmap(transform))(images, jax.random.split(key, count))


def drawn(split: Split, size: int | None, key) -> Split:
    """So many examples of a split, drawn at random; None takes all, as they stand."""
    if size is None:
        return split
    rows = random_rows(key, len(split.images), size)
    return Split(split.images[rows], None if split.labels is None else split.labels[rows])


def one_of_each_class(labels: np.ndarray | None, count: int) -> np.ndarray:
    """`count` rows: the first of each class, classes in order, then the others; the first ones
    where there are no labels.
    """
    if labels is None:
        return np.arange(count)
    first = np.unique(labels, return_index=True)[1]
    return np.concatenate([first, np.setdiff1d(np.arange(len(labels)), first)])[:count]


def require_labels(dataset: vaejax.Dataset, purpose: str) -> tuple[np.ndarray, np.ndarray]:
    """The labels of the training and of the test images; ValueError where there are none."""
    train, test = dataset.train.labels, dataset.test.labels
    if train is None or test is None:
        raise ValueError(
            f"{dataset.name} has no labels {purpose}; choose a set with classes, such as digits,"
            " mnist or fashion_mnist"
        )
    return np.asarray(train), np.asarray(test)
