"""Data that a likelihood cannot have are refused on the host, before anything compiles."""

from collections.abc import Callable, Mapping

import jax
import numpy as np

from vaejax.base.supports import BINARY, COUNTS, REAL, Support
from vaejax.base.types import PyTree
from vaejax.data.pixels import Pixels


def check_data(
    data: PyTree,
    support: Support | Mapping[str, Support] = REAL,
    transform: Callable | None = None,
    name: str = "data",
) -> None:
    """Raises ValueError for data that a likelihood with this support cannot have: on the host,
    before anything compiles.
    """
    if isinstance(support, Mapping):
        if isinstance(data, Mapping) and transform is None:
            for part, of_part in support.items():
                if part in data:
                    check_data(data[part], of_part, None, f"{name}[{part!r}]")
        support = (
            REAL if isinstance(data, Mapping) or len(support) > 1 else next(iter(support.values()))
        )
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(data)]
    if not leaves or any(leaf.ndim == 0 or leaf.size == 0 for leaf in leaves):
        raise ValueError(
            f"{name} is empty: shapes {[leaf.shape for leaf in leaves]}; give arrays with a leading"
            " axis of examples"
        )
    if len({len(leaf) for leaf in leaves}) > 1:
        raise ValueError(
            f"{name} has arrays of different lengths, {[len(leaf) for leaf in leaves]}; give one"
            " row per example in each"
        )
    for leaf in leaves:
        if leaf.dtype.kind not in "biuf":
            raise ValueError(f"{name} has dtype {leaf.dtype}; give real numbers")
        if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
            row = int(np.argwhere(~np.isfinite(leaf))[0][0])
            raise ValueError(
                f"{name} has a NaN or infinity, first in row {row}; remove or repair such rows"
            )
    x = leaves[0]
    low, high = x.min(), x.max()
    if isinstance(transform, Pixels):
        if low < 0 or high > transform.maximum:
            raise ValueError(
                f"{name} has values in [{low}, {high}], outside 0..{transform.maximum:g}; give the"
                " maximum that is theirs"
            )
        if transform.policy == "none" and not support.contains(x, transform.maximum):
            remedy = {
                BINARY: (
                    "choose a binarisation, one of dynamic, static or threshold, or a likelihood of"
                    " grey pixels, such as ContinuousBernoulli or Gaussian"
                ),
            }.get(
                support,
                f"these are multiples of 1/{transform.maximum:g}: give the likelihood"
                f" num_levels={transform.maximum + 1:g}",
            )
            raise ValueError(
                f"{name} is grey and this likelihood is for {support.description}: {remedy}"
            )
    elif transform is None and not support.contains(x):
        maximum = 255 if high > 1 else 1
        remedy = {
            BINARY: (
                f"give transform=vaejax.Pixels({maximum}, policy) with policy dynamic or threshold,"
                " or binarise the data yourself"
            ),
            COUNTS: "round them, or choose a likelihood of real numbers, such as Gaussian",
        }.get(
            support,
            f'give transform=vaejax.Pixels({maximum}, "none"), which scales stored pixels, or scale'
            " the data yourself",
        )
        raise ValueError(
            f"{name} has values in [{low:g}, {high:g}], and this likelihood is for"
            f" {support.description}: {remedy}"
        )
