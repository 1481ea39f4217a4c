"""On which devices arrays lie: what their types say of it, and how they come to others."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.core import ShapedArray, Tracer
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding
from jax.typing import ArrayLike

from vaejax.base.checks import is_key, shortened
from vaejax.base.types import Key, PyTree


def is_explicit(x: ArrayLike) -> bool:
    """Whether x lies on a mesh with explicit axes, so that its type says over which it is split."""
    return AxisType.Explicit in jax.typeof(x).sharding.mesh.axis_types


def is_placed(x: ArrayLike) -> bool:
    """Whether the type of x says more than shape and dtype: its place on a mesh with explicit axes,
    or the axes over which it varies within `jax.shard_map`.
    """
    kind = jax.typeof(x)
    plain = ShapedArray(kind.shape, kind.dtype, kind.weak_type, sharding=kind.sharding)
    return kind != plain or is_explicit(x)


def on_automatic_axes(function: Callable[..., Any], *arguments: PyTree) -> Any:
    """function(*arguments), whose result is not split: where the arrays lie on a mesh with explicit
    axes, the compiler places what is computed within, since some of JAX's derivatives, such as that
    of a Cholesky factor, lose the places that their types would have to tell.
    """
    if not any(map(is_explicit, jax.tree.leaves(arguments))):
        return function(*arguments)
    with on_own_mesh(arguments):
        return jax.sharding.auto_axes(function, out_sharding=PartitionSpec())(*arguments)


def require_mesh(mesh: Mesh | None) -> None:
    """Raises ValueError, or TypeError, for what is no mesh with an axis "data"."""
    if mesh is None:
        return
    if not isinstance(mesh, Mesh):
        raise TypeError(
            f'mesh = {shortened(mesh)}; give one, such as jax.make_mesh((2,), ("data",))'
        )
    if "data" not in mesh.axis_names:
        raise ValueError(
            f'the mesh has axes {mesh.axis_names}; name the one to share examples over "data"'
        )


def automatic(mesh: Mesh) -> Mesh:
    """The same devices under axes whose arrays the compiler places."""
    types = (AxisType.Auto,) * len(mesh.axis_names)
    return Mesh(mesh.devices, mesh.axis_names, axis_types=types)


def placed(tree: PyTree, sharding: Sharding | None) -> PyTree:
    """The arrays on the devices of `sharding`; with None where they lie, but on automatic axes, so
    that any of their rows can be gathered.
    """

    def own_place(x):
        place = x.sharding if isinstance(x, jax.Array) and is_explicit(x) else None
        if isinstance(place, NamedSharding) and isinstance(place.mesh, Mesh):
            return NamedSharding(automatic(place.mesh), place.spec)
        return None

    return jax.tree.map(lambda x: put(x, sharding or own_place(x)), tree)


def put(x: ArrayLike, sharding: Sharding | None) -> jax.Array:
    """One array at its place, which may be on the devices of several processes: each process then
    has the whole array, and puts the parts that lie with it.
    """
    if isinstance(x, jax.Array) and _is_of_several(x):
        return x if sharding is None else jax.jit(lambda x: x, out_shardings=sharding)(x)
    if sharding is None or sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    if is_key(x):
        data = put(jax.random.key_data(x), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def put_parts(part: Callable[[Any], PyTree], shape: tuple[int, ...], sharding: Sharding) -> PyTree:
    """Arrays with leading axes of this shape at their place, of which each process makes those
    parts alone that lie with it: `part(index)` has all leaves, [*index, ...], and is asked once for
    each index.
    """

    def start_and_stop(index: Any) -> tuple[tuple[int, int], ...]:
        pairs = zip(index, shape, strict=False)  # the axes of a leaf beyond these lie whole
        return tuple(axis.indices(length)[:2] for axis, length in pairs)

    parts: dict[Any, PyTree] = {}
    for index in sharding.addressable_devices_indices_map(shape).values():
        place = start_and_stop(index)
        if place not in parts:
            parts[place] = part(index)
    leaves, structure = jax.tree.flatten(next(iter(parts.values())))
    parts = {place: jax.tree.leaves(tree) for place, tree in parts.items()}

    def on_devices(number: int, leaf: np.ndarray) -> jax.Array:
        whole = (*shape, *leaf.shape[len(shape) :])
        return jax.make_array_from_callback(
            whole, sharding, lambda index: parts[start_and_stop(index)][number]
        )

    return structure.unflatten([on_devices(*leaf) for leaf in enumerate(leaves)])


def _is_of_several(x: Any) -> bool:
    """Whether x lies on devices of several processes."""
    is_array = isinstance(x, jax.Array) and not isinstance(x, Tracer)
    return is_array and not x.is_fully_addressable


def fetched(tree: PyTree) -> PyTree:
    """The arrays on the host, whole. Of an array that lies in parts with several processes each
    gets the parts of the others, so all of them must ask for it.
    """

    def whole(x):
        if _is_of_several(x) and not x.is_fully_replicated:
            with under_mesh(None):
                return np.asarray(multihost_utils.process_allgather(x, tiled=True))
        return np.asarray(jax.device_get(x))

    return jax.tree.map(whole, tree)


def of_this_process(tree: PyTree) -> PyTree:
    """The arrays such that this process can compute with them alone: those that lie with several
    are `fetched`.
    """
    return jax.tree.map(lambda x: fetched(x) if _is_of_several(x) else x, tree)


def under_mesh(mesh: Mesh | None):
    """Within it this mesh is set, or none, whatever mesh the caller has set around: a program that
    places its arrays itself is compiled for no other.
    """
    return jax.set_mesh(mesh or Mesh(np.empty((), object), ()))


def on_own_mesh(arrays: PyTree) -> AbstractContextManager:
    """Within it the mesh with explicit axes on which arrays lie is set, which not every rule of JAX
    reads from their types.
    """
    for x in jax.tree.leaves(arrays):
        if is_explicit(x):
            return jax.sharding.use_abstract_mesh(jax.typeof(x).sharding.mesh)
    return nullcontext()


def on_every_device(tree: PyTree) -> PyTree:
    """The arrays whole on each device, where their types say that they are split."""
    return jax.tree.map(lambda x: _split_over(x, x, PartitionSpec()), tree)


def example_keys(key: Key, xs: PyTree) -> Key:
    """A key for each example of a batch, split over the devices as the examples are."""
    first = jax.tree.leaves(xs)[0]
    axes = jax.typeof(first).sharding.spec[0]
    return _split_over(jax.random.split(key, len(first)), first, PartitionSpec(axes))


@partial(jax.jit, static_argnames="axes", keep_unused=True)
def _split_over(x: jax.Array, like: jax.Array, axes: PartitionSpec) -> jax.Array:
    """x on the mesh of `like`, if that is one with explicit axes."""
    if not is_explicit(like):
        return x
    return jax.sharding.reshard(x, NamedSharding(jax.typeof(like).sharding.mesh, axes))
