"""What is given to be evaluated fits together: a model, its parameters and its data."""

from collections.abc import Callable

import jax

from vaejax.base.devices import of_this_process
from vaejax.base.types import Params, PyTree
from vaejax.data.base import Source
from vaejax.data.check import check_data
from vaejax.data.sources import as_source, first_example
from vaejax.models.base import Model
from vaejax.models.learned import require_params_of


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
        example = jax.eval_shape(transform, example, jax.eval_shape(jax.random.key, 0))
    require_params_of(model, params, example)
    return source, of_this_process(params), example
