"""What users hand over as data, as arrays; what is none is refused by the line to type instead."""

from collections.abc import Iterable, Iterator, ValuesView
from pathlib import PurePath
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaejax.base.types import PyTree
from vaejax.data.dtypes import native

FIRST_OF_PAIR = "vaejax.RandomAccess({0}, lambda item: np.asarray(item[0]))"

# What the full name of a type starts with, and what to write in place of such an object.
INSTEAD = {
    "pandas.": "x.to_numpy(np.float32)",
    "polars.": "x.to_numpy().astype(np.float32)",
    "pyarrow.": "x.to_pandas().to_numpy(np.float32)",
    "scipy.sparse.": "x.toarray()",
    "jax.experimental.sparse.": "x.todense()",
    "torch.utils.data.dataloader.": FIRST_OF_PAIR.format("loader.dataset"),
    "torch.utils.data.": FIRST_OF_PAIR.format("x"),
    "torchvision.": FIRST_OF_PAIR.format("x"),
    "tensorflow.python.data.": "np.stack(list(x.as_numpy_iterator()))",
    "datasets.": 'np.stack(x.with_format("numpy")["image"])',
    "PIL.": "np.asarray(x)[None]",
    "vaejax.data.base.Dataset": "x.train.images",
    "vaejax.data.base.Split": 'x.images, or {"x": x.images, "y": one-hot labels}',
}
TABLES = ("pandas.", "polars.", "pyarrow.", "scipy.sparse.")  # x[0] is a column, or else
ON_DISK = ("h5py.", "zarr.")  # they have a shape, and are read by slices and increasing rows
BY_NUMBER = ("grain.", "tensorflow_datasets.", "array_record.")  # one item for each number


def full_names(kind: type) -> list[str]:
    """Of a type and of its bases: that of a subclass of pandas' DataFrame has one of pandas'."""
    return [f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__]


def is_on_disk(data: Any) -> bool:
    """Whether it is an array of h5py's or Zarr's."""
    return any(name.startswith(ON_DISK) for name in full_names(type(data)))


def is_by_number(data: Any) -> bool:
    """Whether it is a random-access source of Grain's or TFDS's: its items are the examples."""
    kind = type(data)
    has_items = "__len__" in dir(kind) and "__getitem__" in dir(kind)
    return has_items and any(name.startswith(BY_NUMBER) for name in full_names(kind))


def as_arrays(data: PyTree, name: str) -> PyTree:
    """The same tree of arrays of NumPy or JAX. TypeError for what is none, ValueError for masks."""
    return jax.tree.map(lambda leaf: as_array(leaf, name), data, is_leaf=_is_whole)


def as_array(leaf: Any, name: str) -> np.ndarray | jax.Array:
    """One array, as it is, or made of what is evidently one: nested lists of numbers, a tensor of
    another library.
    """
    kind = type(leaf)
    if isinstance(leaf, jax.Array):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            raise TypeError(f"{name} has dtype {leaf.dtype}, random keys; give arrays of numbers")
        return leaf
    if isinstance(leaf, np.ma.MaskedArray):
        return _without_mask(leaf, name)
    if isinstance(leaf, np.ndarray | np.generic | bool | int | float | complex):
        return native(np.asarray(leaf))
    if isinstance(leaf, str | bytes | PurePath):
        raise TypeError(
            f"{name} is {leaf!r}, of type {kind.__name__} and not an array: load it first,"
            " by np.load or vaejax.load_dataset"
        )
    holds, remedy = f"{name} has a value of type {kind.__name__}", _instead(kind)
    if remedy is not None:
        raise TypeError(f"{holds}, which is not an array: give {remedy}")
    if isinstance(leaf, list):
        return _from_list(leaf, name)
    if any("__array__" in vars(base) for base in kind.__mro__):
        return _from_tensor(leaf, name)
    if isinstance(leaf, Iterator):
        raise TypeError(
            f"{holds}, which can be read only once and in one order: give np.stack(list(x)), or"
            " vaejax.RandomAccess(items) of what gives one example by its number"
        )
    by_number = "__getitem__" in dir(kind) or not isinstance(leaf, Iterable)
    remedy = "" if by_number else " np.stack(list(x)),"
    raise TypeError(
        f"{holds}, which is not an array: give arrays,{remedy} a vaejax.Source, or"
        " vaejax.RandomAccess(items) of what gives one example by its number"
    )


def require_items(items: Any) -> None:
    """Raises TypeError for what has no length, or does not give one example by its number."""
    kind = type(items)
    holds = f"RandomAccess got a value of type {kind.__name__}"
    if any(name.startswith(TABLES) for name in full_names(kind)):
        raise TypeError(f"{holds}, whose x[0] is not a row: give {_instead(kind)}")
    for method in ("__len__", "__getitem__"):
        if method not in dir(kind):
            raise TypeError(
                f"{holds}, which has no {method}: give what has a length and one item for each"
                " number, such as list(x)"
            )


def stacked(items: list[PyTree]) -> PyTree:
    """Items as arrays with a leading axis; ValueError unless all have one shape."""
    items = [jax.tree.map(_as_item, item) for item in items]
    forms = {str(jax.tree.map(np.shape, item)) for item in items}
    if len(forms) > 1:
        raise ValueError(
            f"items of {len(forms)} shapes, such as {' and '.join(sorted(forms)[:2])}; give all one"
            " shape, by RandomAccess(items, example)"
        )
    return jax.tree.map(lambda *leaves: np.stack(leaves), *items)


def _as_item(leaf: Any) -> np.ndarray | jax.Array:
    is_picture = any(name.startswith("PIL.") for name in full_names(type(leaf)))
    return np.asarray(leaf) if is_picture else as_array(leaf, "an item")


def _is_whole(node: Any) -> bool:
    """Whether it is looked at as one thing, though JAX may see arrays in it."""
    return isinstance(node, list | Iterator | ValuesView) or _instead(type(node)) is not None


def _instead(kind: type) -> str | None:
    names = full_names(kind)
    texts = [text for start, text in INSTEAD.items() if any(n.startswith(start) for n in names)]
    return texts[0] if texts else None


def _without_mask(array: np.ma.MaskedArray, name: str) -> np.ndarray:
    num_masked = int(np.ma.count_masked(array))
    if num_masked:
        raise ValueError(
            f"{name} is a masked array with {num_masked} of {array.size} numbers masked, which no"
            " density leaves out: give x.filled(number), or the rows without a mask,"
            " np.ma.compress_rows(x)"
        )
    return native(array.data)


def _from_list(items: list, name: str) -> np.ndarray:
    """Nested lists of numbers; of arrays one cannot know whether they are examples or parts."""
    if not all(
        isinstance(leaf, bool | int | float | np.generic) for leaf in jax.tree.leaves(items)
    ):
        raise TypeError(
            f"{name} is a list of {len(items)} of type {type(items[0]).__name__}: give"
            " np.stack(x) if each is an example, or a tuple if each is a part of all examples"
        )
    try:
        return np.asarray(items)
    except ValueError:
        raise ValueError(
            f"{name} is a list of rows of different lengths; give rows of one length"
        ) from None


def _from_tensor(tensor: Any, name: str) -> np.ndarray:
    try:
        return native(np.asarray(tensor))
    except Exception as error:  # whatever the other library raises, of a device of its own say
        reason = " ".join(str(error).split())[:80]
        raise TypeError(
            f"{name} has a value of type {type(tensor).__name__} that NumPy cannot read"
            f" ({reason}): give it as an array on the host, such as x.detach().cpu().numpy()"
        ) from None
