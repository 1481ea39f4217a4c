"""Images as a model sees them, and which of them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vaejax
from vaejax.base.mapping import Transformed
from vaejax.data.base import Split, random_rows
from vaejax.data.mapping import map_dataset


@dataclasses.dataclass(frozen=True)
class Examples:
    """Stored examples, and what makes of each what a model sees; None leaves it."""

    stored: Any
    transform: Any  # (stored, key) -> what a model sees

    def first(self, key) -> Any:
        """The first example as a model sees it."""
        stored = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), self.stored)
        return stored if self.transform is None else self.transform(stored, key)

    def each(self, quantity: Callable, params: Any, key, batch_size: int = 100) -> Any:
        """[quantity(params, x, key) of every example x], in float64."""
        function = Transformed(quantity, self.transform)
        values = map_dataset(function, params, self.stored, key, batch_size)
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), values)

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.stored)[0])


def seen(images: Any, transform: Callable, key) -> jax.Array:
    """Stored examples as a model sees them, each transformed once."""
    count = len(jax.tree.leaves(images)[0])
    return jax.jit(jax.vmap(transform))(images, jax.random.split(key, count))


def seen_split(split: Split, transform: Callable, key) -> Split:
    """A split as a model sees it."""
    return Split(np.asarray(seen(split.images, transform, key)), split.labels)


def drawn(split: Split, size: int | None, key) -> Split:
    """So many examples of a split, drawn at random; None takes all, as they stand."""
    if size is None:
        return split
    rows = random_rows(key, len(split.images), size)
    return Split(split.images[rows], None if split.labels is None else split.labels[rows])


def one_of_each_class(labels: np.ndarray | None, count: int) -> np.ndarray:
    """`count` rows: the first of each class, then the others; in order without labels."""
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
