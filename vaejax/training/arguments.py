"""What `fit` is given, looked at before anything compiles."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from vaejax.base.checks import shortened
from vaejax.base.devices import require_mesh
from vaejax.base.types import Params, PyTree
from vaejax.data.base import Source
from vaejax.data.check import check_data
from vaejax.data.sources import as_data, as_source
from vaejax.objectives.base import Objective, require_objective
from vaejax.training.saving import Checkpoints
from vaejax.training.validation import Validation


def check_nouns(validation: Any, checkpoints: Any) -> None:
    """Raises TypeError for held-out data or a folder that are not in their nouns."""
    for name, given, noun, example in (
        ("validation", validation, Validation, "Validation(data, every=1_000, patience=None)"),
        ("checkpoints", checkpoints, Checkpoints, "Checkpoints(folder, every=1_000, resume=False)"),
    ):
        if given is not None and not isinstance(given, noun):
            kind = type(given).__name__
            raise TypeError(f"{name} is of type {kind}; write {name}=vaejax.{example}")


def check_functions(**functions: Callable | None) -> None:
    """Raises TypeError for what is given as a function and cannot be called."""
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise TypeError(f"{name} = {shortened(function)} cannot be called; give a function")


def check_params(params: Params) -> None:
    """Raises TypeError for parameters that are no real floats: others have no gradient, or, where
    they are complex, one that Optax follows in a wrong direction.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            name = f"params{jax.tree_util.keystr(path)}"
            raise TypeError(
                f"{name} is of dtype {dtype}, and training changes real floats only: give it as"
                " one, a complex number as two, or leave it out of the parameters"
            )


def data_for(
    objective: Objective,
    data: PyTree | Source,
    validation: Validation | None,
    transform: Callable | None,
    num_steps: int,
    batch_size: int,
) -> PyTree | Source:
    """The data as training reads them: arrays, or a Source. Raises ValueError for a run that ends
    before the schedules of the objective do, for data, or held-out ones, that do not fit it, and
    for data that do not fill a batch.
    """
    check_schedules(objective, num_steps)
    data = as_data(data)
    size = len(as_source(data))
    check_data(data, objective.support, transform, "data")
    if validation is not None:
        check_data(validation.data, objective.support, transform, "validation")
    if batch_size > size:
        raise ValueError(
            f"batch_size = {batch_size}, but the data have {size} examples; choose at most {size}"
        )
    return data


def check_mesh(mesh: Mesh | None, batch_size: int) -> None:
    """Raises ValueError for a mesh that the batch does not divide over."""
    require_mesh(mesh)
    if mesh is not None and batch_size % mesh.shape["data"]:
        raise ValueError(
            f"batch_size = {batch_size} does not divide over {mesh.shape['data']} devices; choose a"
            " multiple"
        )


def check_schedules(objective: Objective, num_steps: int) -> None:
    """Raises ValueError if a run ends before every weight is where its schedule leads, TypeError if
    the objective is none.
    """
    require_objective(objective)
    for name, schedule in objective.schedules:
        schedule.check(num_steps, name)
