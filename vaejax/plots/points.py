"""Points of a latent space: rows of numbers in a plane, coloured by class."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from matplotlib.axes import Axes

from vaejax.base.types import PyTree
from vaejax.evaluation.features import finite_rows
from vaejax.plots.look import BLUE, finish, legend

MOST_CLASSES = 10  # that a legend names, each in its own colour


def require_labels(labels: Any, size: int) -> np.ndarray | None:
    """[n] labels, of one-hot rows the number of each. Raises ValueError unless there is one for
    each of `size` examples, a finite number or a name.
    """
    if labels is None:
        return None
    labels = np.asarray(labels)
    if labels.shape[:1] != (size,):
        raise ValueError(f"{size} examples have labels of the shape {labels.shape}; give one each")
    if labels.dtype == object and all(isinstance(label, str) for label in labels.flat):
        labels = labels.astype(str)  # as tables of pandas have names
    if labels.dtype.kind not in "biufUS" or (labels.dtype.kind == "f" and np.isnan(labels).any()):
        raise ValueError("labels hold what is neither a number nor a name; give each example one")
    if labels.ndim == 1:
        return labels
    one_hot = labels.ndim == 2 and labels.dtype.kind in "biuf" and labels.shape[1] > 0
    if one_hot and np.all((labels == 0) | (labels == 1)) and np.all(labels.sum(1) == 1):
        return labels.argmax(1)
    raise ValueError(
        f"labels have the shape {labels.shape}; give [n], or one-hot rows [n, classes]"
    )


def rows_of(latents: PyTree) -> np.ndarray:
    """[n, d]: all latents of an example in a row. Raises ValueError for none, and for numbers that
    are not finite, since a picture would leave them out.
    """
    leaves = [finite_rows(leaf, "latents") for leaf in jax.tree.leaves(latents)]
    if not all(map(np.size, leaves)):
        shapes = ", ".join(str(leaf.shape) for leaf in leaves)
        raise ValueError(f"latents have the shape {shapes}; give at least one example, [n, d]")
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


def by_class(points: np.ndarray, labels: np.ndarray) -> Iterator[tuple[int, str, np.ndarray]]:
    """(its number, its name, its points) of every class."""
    for i, name in enumerate(np.unique(labels)):
        yield i, str(name), points[labels == name]


def principal_components(means: np.ndarray) -> tuple[np.ndarray, Sequence[str]]:
    directions, share = principal_directions(means)
    return (means - means.mean(0)) @ directions, [
        f"component {i + 1} ({100 * share[i]:.0f} % of the variance)" for i in range(2)
    ]


def principal_directions(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first two principal directions [d, 2], and the share of the variance along each
    direction.
    """
    centred = points - points.mean(0)
    rows = np.pad(centred, ((0, max(0, 2 - len(centred))), (0, 0)))  # one point has two too
    _, singular, directions = np.linalg.svd(rows, full_matrices=False)
    total = (singular**2).sum() or 1.0  # points that coincide vary in no direction
    return directions[:2].T, singular**2 / total


def shared_colours(labels: np.ndarray | None) -> str:
    """What a title adds where there are more classes than colours, and so no legend."""
    count = 0 if labels is None else len(np.unique(labels))
    return f", of {count} classes in {MOST_CLASSES} colours" if count > MOST_CLASSES else ""


def scatter(axes: Axes, points: np.ndarray, labels: np.ndarray | None) -> None:
    """Points [n, 1 or 2], those of a class in its colour."""
    size = 14 if len(points) <= 1_000 else 5
    if points.shape[1] == 1:
        points = np.column_stack([points, np.zeros(len(points))])
    if labels is None:
        axes.scatter(*points.T, s=size, color=BLUE, linewidths=0, alpha=0.5)
    else:
        _scatter_classes(axes, points, labels, size)
    axes.set_aspect("equal", "datalim")
    finish(axes)


def _scatter_classes(axes: Axes, points: np.ndarray, labels: np.ndarray, size: int) -> None:
    for i, name, chosen in by_class(points, labels):
        look = {"color": f"C{i % MOST_CLASSES}", "linewidths": 0, "alpha": 0.75}
        axes.scatter(*chosen.T, s=size, label=name, **look)
    if not shared_colours(labels):
        spacing = {"markerscale": 20 / size, "handletextpad": 0.1}
        legend(axes, "center left", bbox_to_anchor=(1, 0.5), **spacing)
