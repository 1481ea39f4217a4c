"""What is given to be evaluated fits together: a model, its parameters and its data."""

from collections.abc import Callable

import jax
from jax.sharding import Mesh

from vaejax.base.devices import of_this_process, require_mesh
from vaejax.base.processes import processes_of
from vaejax.base.types import Params, PyTree
from vaejax.data.base import Source
from vaejax.data.check import check_data
from vaejax.data.sources import as_source, first_example
from vaejax.models.base import Model
from vaejax.models.learned import require_params_of


def checked_data(
    model: Model,
    params: Params,
    xs: PyTree | Source,
    transform: Callable | None = None,
    mesh: Mesh | None = None,
) -> tuple[PyTree, Params, Source]:
    """The shapes of one example as the model sees it, the parameters with this process, and the
    data as a source.

    Raises ValueError for data outside the model's support, and for parameters that are not those of
    this model, before anything compiles: in all processes of a mesh, where it does in one.
    """
    require_mesh(mesh)
    with processes_of(mesh).together():
        source = as_source(xs)
        check_data(source, model.support, transform)
        example = jax.tree.map(lambda leaf: leaf[0], first_example(source))
        if transform is not None:
            example = jax.eval_shape(transform, example, jax.eval_shape(jax.random.key, 0))
        require_params_of(model, params, example)
    return example, of_this_process(params), source
