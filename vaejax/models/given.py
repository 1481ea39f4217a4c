"""What is given to be evaluated fits together: a model, its parameters and its data."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vaejax.base.devices import of_this_process
from vaejax.base.types import Params, PyTree
from vaejax.data.base import Source
from vaejax.data.check import check_data
from vaejax.data.sources import as_source, first_example
from vaejax.models.base import Model, require_params


def checked_data(
    model: Model, params: Params, xs: PyTree | Source, transform: Callable | None = None
) -> tuple[Source, Params, PyTree]:
    """The data as a source, the parameters with this process, and the shapes of one example as the
    model sees it. Raises ValueError for data outside the model's support, and for parameters that
    are not those of this model, before anything compiles.
    """
    source = as_source(xs)
    check_data(source, model.support, transform)
    example = jax.tree.map(lambda leaf: leaf[0], first_example(source))
    if transform is not None:
        example = jax.eval_shape(transform, example, _some_key())
    require_params_of(model, params, example)
    return source, of_this_process(params), example


def require_params_of(model: Model, params: Params, example: PyTree) -> None:
    """Raises ValueError for theta and phi of other names or shapes than `model.init` makes them for
    an example of these shapes. Of another model whose parameters have these shapes nothing is seen.
    """
    require_params(model, params)
    try:
        wanted = jax.eval_shape(model.init, _some_key(), example)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError):
        return  # an `init` that reads the values of its example says nothing of shapes
    has, made = _shapes(params), _shapes(wanted)
    differing = [path for path in {**made, **has} if has.get(path) != made.get(path)]
    if differing:
        path = differing[0]
        raise ValueError(
            f"these are the parameters of another model: params{path} {_said(has.get(path))}, and"
            f" {type(model).__name__}.init {_made(made.get(path))}; give those that were trained"
            " with this model"
        )


def _some_key() -> Any:
    """The shape of a key: none is drawn, so nothing compiles."""
    return jax.eval_shape(jax.random.key, 0)


def _shapes(params: Params) -> dict[str, tuple[int, ...]]:
    """{path: shape} of theta and phi; psi belongs to an estimator."""
    leaves: Any = jax.tree_util.tree_leaves_with_path(params._replace(psi=()))
    return {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in leaves}


def _said(shape: tuple[int, ...] | None) -> str:
    return "is not there" if shape is None else f"has shape {shape}"


def _made(shape: tuple[int, ...] | None) -> str:
    return "makes no such part" if shape is None else f"makes it with shape {shape}"
