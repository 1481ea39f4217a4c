"""`fit`: maximise an objective by minibatch stochastic gradient ascent, many steps to one compiled
call.

The order of the data and all noise are functions of (key, step) alone. How many steps one call runs
is an argument of the compiled program, not a part of it: every cut of a run into calls gives the
same bits, a second run with the same shapes compiles nothing, and a call can be made as long as the
clock allows.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from tqdm.auto import tqdm

from vaejax.base.checks import require_count
from vaejax.base.mapping import Transformed
from vaejax.base.types import Key, Params, PyTree
from vaejax.data.base import Source
from vaejax.data.check import check_data
from vaejax.data.sources import as_data, as_source
from vaejax.objectives.base import Objective, Reported, require_objective
from vaejax.training.calls import advance, next_count
from vaejax.training.feeds import feed_of
from vaejax.training.interrupts import Signals
from vaejax.training.optimizers import ByStructure
from vaejax.training.run import NO_HISTORY, Run, arrays_of, copied, with_arrays
from vaejax.training.saving import Checkpoints, open_saver
from vaejax.training.trainer import Trainer
from vaejax.training.validation import Validation, Validator


def fit(
    objective: Objective,
    params: Params,
    optimizer: optax.GradientTransformation,
    data: PyTree | Source,
    key: Key,
    *,
    num_steps: int,
    batch_size: int,
    transform: Callable[[PyTree, Key], PyTree] | None = None,
    validation: Validation | None = None,
    checkpoints: Checkpoints | None = None,
    mesh: Mesh | None = None,
    callback: Callable[[Run], None] | None = None,
    progress: bool = True,
) -> Run:
    """argmax_params E objective(params, batch, key, step), by `num_steps` steps of an Optax
    optimiser. Returns a `Run`.

    Args:
      objective: such as `vaejax.minibatch(vaejax.Pathwise(), model)`. Its `Terms` are recorded,
        nats per example, and the second is maximised.
      data: arrays with a leading axis of examples, which go to the device once, in their own dtype;
        or a `vaejax.Source`, which is read on the host, the batches of one call at a time, to the
        same bits.
      transform: `transform(x, key)` of one stored example, applied inside the step: scaling,
        binarisation.
      validation: held-out examples, and how often and how patiently to look at them.
      checkpoints: where and how often to save the run, and whether to go on from there.
      mesh: each batch is sharded over the mesh's axis "data"; parameters and data are replicated.
      callback: called with the run so far after each compiled call, about once a second. The arrays
        in it are valid until it returns, since the next call writes over them.

    Raises ValueError before anything compiles if the arguments do not fit each other,
    NonFiniteError if training breaks down.
    """
    require_count(num_steps, "num_steps")
    require_count(batch_size, "batch_size")
    check_nouns(validation, checkpoints)
    check_mesh(mesh, batch_size)
    settled = check_schedules(objective, num_steps)
    data = as_data(data)
    held_out = {} if validation is None else {"validation": validation.data}
    check_examples(objective, {"data": data, **held_out}, transform, batch_size)

    order_key, noise_key, validation_key = jax.random.split(key, 3)
    mesh = None if mesh is None else _automatic(mesh)
    replicated = None if mesh is None else NamedSharding(mesh, PartitionSpec())
    trainer = Trainer(objective, ByStructure(optimizer), transform, mesh, batch_size)
    run = _start(params, optimizer, validated=validation is not None)
    parts = {"objective": objective, "transform": transform, "optimizer": optimizer}
    with (
        open_saver(checkpoints, key, batch_size, data, **parts) as saver,
        Signals(active=saver is not None) as signals,
    ):
        run = run if saver is None else saver.restored(run)
        run = with_arrays(run, jax.device_put(arrays_of(run), replicated))
        feed = feed_of(data, batch_size, replicated)
        validator = None
        if validation is not None:
            bound = Transformed(Reported(objective), transform)
            validator = Validator(validation, bound, validation_key, settled, replicated)
        periods = [noun.every for noun in (validation, checkpoints) if noun is not None]
        count = 1
        with progress_bar(num_steps, run.step, progress) as bar:
            while run.step < num_steps and not signals.received:
                if validator is not None and validator.is_out_of_patience(run):
                    break
                began = time.perf_counter()
                count = min(count, feed.most_steps, _steps_left(run.step, num_steps, periods))
                run = advance(trainer, run, feed, order_key, noise_key, count)
                show(bar, run, count)
                count = next_count(count, time.perf_counter() - began)
                if validator is not None and validator.is_due(run.step):
                    run = validator.validated(run)
                if saver is not None and saver.is_due(run.step):
                    saver.save(run)
                if callback is not None:
                    callback(run)
        if saver is not None:
            saver.finish(run)
    signals.raise_received()
    return run


def _start(params: Params, optimizer: optax.GradientTransformation, *, validated: bool) -> Run:
    """The run before its first step.

    The parameters are copied, since the compiled steps write over the arrays that they are given,
    and these are the caller's.
    """
    params = copied(params)
    best_params = copied(params) if validated else None
    return Run(params, optimizer.init(params), 0, NO_HISTORY, best_params)


def _automatic(mesh: Mesh) -> Mesh:
    """Only the batch is placed by hand; the compiler places the rest."""
    types = (AxisType.Auto,) * len(mesh.axis_names)
    return Mesh(mesh.devices, mesh.axis_names, axis_types=types)


def _steps_left(step: int, num_steps: int, periods: list[int]) -> int:
    """The number of steps from `step` to the next validation, checkpoint, or the end."""
    return min([num_steps - step, *(period - step % period for period in periods)])


def progress_bar(total: int, initial: int, progress: bool, description: str | None = None) -> tqdm:
    return tqdm(
        total=total,
        initial=initial,
        unit="step",
        desc=description,
        disable=not progress,
        dynamic_ncols=True,
    )


def show(bar: tqdm, run: Run, count: int) -> None:
    """Moves the bar on by the last `count` steps, beside their mean bound."""
    bar.set_postfix(bound=f"{run.history['bound'][-count:].mean():.2f}", refresh=False)
    bar.update(count)


def check_nouns(validation: Any, checkpoints: Any) -> None:
    """Raises TypeError for held-out data or a folder that are not in their nouns."""
    for name, given, noun, example in (
        ("validation", validation, Validation, "Validation(data, every=1_000, patience=None)"),
        ("checkpoints", checkpoints, Checkpoints, "Checkpoints(folder, every=1_000, resume=False)"),
    ):
        if given is not None and not isinstance(given, noun):
            raise TypeError(f"{name} is a {type(given).__name__}; write {name}=vaejax.{example}")


def check_examples(
    objective: Objective,
    examples: dict[str, PyTree | Source],
    transform: Callable | None,
    batch_size: int,
) -> None:
    """Raises ValueError for {"data": ..., "validation": ...} that do not fit the objective, or for
    data that do not fill a batch.
    """
    for name, part in examples.items():
        check_data(part, objective.support, transform, name)
    size = len(as_source(examples["data"]))
    if batch_size > size:
        raise ValueError(
            f"batch_size = {batch_size}, but the data have {size} examples; choose at most {size}"
        )


def check_mesh(mesh: Mesh | None, batch_size: int) -> None:
    """Raises ValueError for a mesh that the batch does not divide over."""
    if mesh is None:
        return
    if "data" not in mesh.axis_names:
        raise ValueError(
            f'the mesh has axes {mesh.axis_names}; name the one to shard the batch over "data"'
        )
    if batch_size % mesh.shape["data"]:
        raise ValueError(
            f"batch_size = {batch_size} does not divide over {mesh.shape['data']} devices; choose a"
            " multiple"
        )


def check_schedules(objective: Objective, num_steps: int) -> int:
    """The step from which every weight has been where its schedule leads. Raises ValueError if the
    run does not come so far, TypeError if the objective is none.
    """
    require_objective(objective)
    for name, schedule in objective.schedules:
        schedule.check(num_steps, name)
    return max((schedule.length for _, schedule in objective.schedules), default=0)
