"""A function of one example over a data set or a batch, which are looked at before."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
from jax.core import Tracer
from jax.sharding import Mesh

from vaejax.base.checks import require_count, require_key
from vaejax.base.devices import example_keys, of_this_process, on_own_mesh, require_mesh
from vaejax.base.mapping import Transformed, map_rows
from vaejax.base.processes import processes_of
from vaejax.base.supports import Support
from vaejax.base.types import Key, Params, PyTree
from vaejax.data.base import Source
from vaejax.data.check import asked_of, check_leaves, check_values, shown_rows
from vaejax.data.dtypes import is_rounded, on_device, require_digits
from vaejax.data.foreign import as_arrays
from vaejax.data.shares import map_blocks
from vaejax.data.sources import as_source, block_size, blocks, first_example
from vaejax.data.transforms import Transform


def map_dataset(
    function: Callable,
    params: Params,
    xs: PyTree,
    key: Key,
    batch_size: int = 100,
    start: int = 0,
    mesh: Mesh | None = None,
) -> PyTree:
    """[function(params, x_i, key_i) for every i], stacked: `function` is of one example, and
    `batch_size` run at a time.

    `xs` may be a part of a data set that starts with its example number `start`. Where `function`
    shows its example to a model, however deep inside, xs outside the model's support are a
    ValueError before anything compiles; of an example that it changes first nothing is known.

    With a `mesh` the batches are shared out over its axis "data", to the same numbers but for
    rounding, as arrays of the host. Where its devices are those of all processes of a job, all of
    them call, and all have the result.
    """
    require_key(key)
    require_count(batch_size, "batch_size")
    require_count(start, "start", least=0)
    if mesh is not None:
        return map_source(function, params, as_source(xs), key, batch_size, start, mesh)
    if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(xs)):
        xs = as_arrays(xs, "data")
        example = jax.tree.map(lambda leaf: leaf[0], xs)
        check_asked(function, params, xs, example, key)
        xs = on_device(xs, "data")
    return map_rows(function, of_this_process(params), xs, key, batch_size, start)


def map_source(
    function: Callable,
    params: Params,
    source: Source,
    key: Key,
    batch_size: int = 100,
    start: int = 0,
    mesh: Mesh | None = None,
) -> PyTree:
    """`map_dataset` of a source, a block at a time: the results as arrays of the host."""
    require_key(key)
    require_count(batch_size, "batch_size")
    require_count(start, "start", least=0)
    require_mesh(mesh)
    params = of_this_process(params)
    with processes_of(mesh).together():
        source = as_source(source)
        example = jax.tree.map(lambda leaf: leaf[0], first_example(source))
        check_asked(function, params, source, example, key)
    return map_blocks(function, params, source, key, batch_size, mesh, start)


def map_batch(function: Callable[[PyTree, Key], Any], support: Any, xs: PyTree, key: Key) -> Any:
    """[function(x_m, key_m)], stacked; ValueError for a batch outside the support, unless its
    values are not known because it is traced, as in a training step.
    """
    require_key(key)
    check_values(xs, support)
    with on_own_mesh(xs):
        return jax.vmap(function)(xs, example_keys(key, xs))


def check_asked(
    function: Callable, params: Params, data: PyTree | Source, example: PyTree, key: Key
) -> None:
    """Raises ValueError for data whose digits the device has not, or outside the supports that a
    function asks of its example.
    """
    leaves, structure = jax.tree.flatten(jax.eval_shape(_all, params, example, key))
    wanted = _asked(function, structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
    if not wanted and not any(is_rounded(leaf.dtype) for leaf in jax.tree.leaves(example)):
        return  # nothing is asked of the data, and a source is not read for it
    _, transform = _split(function)
    by_name = len(jax.tree.leaves(example)) > 1
    source = as_source(data)
    for _, block in blocks(source, block_size(source)):
        require_digits(block, "data")
        if not wanted:
            continue
        seen = on_device(block, "data")
        if isinstance(transform, Transform):
            transform.check(seen, wanted[min(wanted)], "data")
            continue
        for rows, shown in shown_rows(seen, transform, "data"):
            check_leaves(rows, wanted, shown, by_name=by_name, batch=True)


def _split(function: Callable) -> tuple[Callable, Callable | None]:
    """What is asked of a model, and the transform that stands before it."""
    if isinstance(function, Transformed):
        return function.function, function.transform
    return function, None


def _all(*arguments: Any) -> tuple:
    return arguments


@lru_cache(maxsize=256)  # so that a call again, on the next part of a data set, traces nothing
def _asked(function: Callable, structure: Any, forms: tuple) -> dict[int, Support]:
    leaves = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in forms]
    params, example, key = structure.unflatten(leaves)
    function, transform = _split(function)
    if transform is not None:
        example = jax.eval_shape(transform, example, key)
    return asked_of(function, params, example, key)
