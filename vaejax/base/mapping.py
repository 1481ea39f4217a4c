"""A function of one example, mapped over samples or over a whole data set in bounded memory.

Example i has the key fold_in(key, i), so the batch size changes results by rounding only.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jax.typing import ArrayLike

from vaejax.base.checks import require_count
from vaejax.base.types import Key, Params, PyTree
from vaejax.base.values import component


def map_samples(function: Callable, zs: PyTree) -> Any:
    """[function(z) for z in zs], stacked: `vmap`, but a single sample goes without the axis of
    length 1.

    Under a second `vmap`, over the batch, XLA keeps that axis in every matrix product: 16 % of a
    training step on a CPU.
    """
    if len(jax.tree.leaves(zs)[0]) > 1:
        return jax.vmap(function)(zs)
    value = function(jax.tree.map(lambda leaf: leaf[0], zs))
    return jax.tree.map(lambda leaf: leaf[None], value)


@partial(jax.jit, static_argnames=("function", "batch_size"))
def map_rows(
    function, params: Params, xs: PyTree, key: Key, batch_size: int = 100, start: ArrayLike = 0
) -> PyTree:
    """[function(params, x_i, key_i) for every i], stacked, of arrays that were looked at before;
    `vaejax.map_dataset` looks first.

    `xs` may be a part of a data set that starts with its example number `start`.
    """
    require_count(batch_size, "batch_size")

    def at_row(i):
        x = jax.tree.map(lambda leaf: leaf[i], xs)
        return function(params, x, jax.random.fold_in(key, start + i))

    size = len(jax.tree.leaves(xs)[0])
    return jax.lax.map(at_row, jnp.arange(size), batch_size=min(batch_size, size))


@partial(jax.jit, static_argnames=("function", "batch_size", "mesh"))
def map_shares(
    function, params: Params, xs: PyTree, key: Key, batch_size: int, starts: jax.Array, mesh: Mesh
) -> PyTree:
    """`map_rows` on each device of the mesh's axis "data": of its own part of xs
    [devices * n, ...], which starts with the example number starts[device].
    """

    def share(params, xs, key, starts):
        return map_rows(function, params, xs, key, batch_size, starts[0])

    everywhere, split = PartitionSpec(), PartitionSpec("data")
    on_devices = jax.shard_map(
        share,
        mesh=mesh,
        in_specs=(everywhere, split, everywhere, split),
        out_specs=split,
        check_vma=False,
    )
    return on_devices(params, xs, key, starts)


@component
class Transformed:
    """`function(params, x, key)` of a stored example, which `transform(stored, key)` turns into x
    first (None leaves it).
    """

    function: Callable[[Params, Any, Key], Any]
    transform: Callable[[Any, Key], Any] | None

    def __call__(self, params: Params, stored, key: Key):
        transform_key, key = jax.random.split(key)
        x = stored if self.transform is None else self.transform(stored, transform_key)
        return self.function(params, x, key)


class Estimate(NamedTuple):
    """A mean over examples and its standard error, in float64: NaN where there is none, of one
    example or of infinite ones.
    """

    mean: float
    standard_error: float

    def __str__(self):
        return f"{self:.2f}"

    def __format__(self, spec: str) -> str:
        """Of both: `f"{gain:+.3f}"` is "+0.251 ± 0.030", the sign being the mean's."""
        if not spec:
            return str(self)
        if np.isnan(self.standard_error):
            return f"{self.mean:{spec}} (no standard error)"
        return f"{self.mean:{spec}} ± {self.standard_error:{spec.lstrip('+')}}"


def estimate(values) -> Estimate:
    """The mean over the leading axis and its standard error.

    >>> print(estimate([1.0, 2.0, 3.0]))
    2.00 ± 0.58
    """
    values = np.asarray(values, np.float64)
    with np.errstate(invalid="ignore"):  # the deviation of what is infinite is NaN
        deviation = values.std(ddof=1) if len(values) > 1 else np.nan
    return Estimate(float(values.mean()), float(deviation / np.sqrt(len(values))))
