"""`fit`: maximise an objective by minibatch stochastic gradient ascent, many steps to one compiled
call.

The order of the data and all noise are functions of (key, step) alone. How many steps one call runs
is an argument of the compiled program, not a part of it: every cut of a run into calls gives the
same bits, a second run with the same shapes compiles nothing, and a call can be made as long as the
clock allows.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from tqdm.auto import tqdm

from vaejax.base.checks import require_count
from vaejax.base.mapping import Transformed, estimate, map_dataset
from vaejax.base.types import Key, Params, PyTree
from vaejax.data.check import check_data
from vaejax.objectives.base import Objective, require_objective
from vaejax.training.checkpoints import Checkpoints
from vaejax.training.interrupts import Signals
from vaejax.training.optimizers import ByStructure
from vaejax.training.trainer import (
    NO_HISTORY,
    NonFiniteError,
    Run,
    Trainer,
    arrays_of,
    copied,
    next_count,
    with_arrays,
)


def fit(
    objective: Objective,
    params: Params,
    optimizer: optax.GradientTransformation,
    data: PyTree,
    key: Key,
    *,
    num_steps: int,
    batch_size: int,
    transform: Callable[[PyTree, Key], PyTree] | None = None,
    validation: PyTree | None = None,
    validate_every: int = 1_000,
    patience: int | None = None,
    checkpoints: str | Path | None = None,
    checkpoint_every: int = 1_000,
    resume: bool = False,
    config: Mapping[str, Any] | None = None,
    mesh: Mesh | None = None,
    callback: Callable[[Run], None] | None = None,
    progress: bool = True,
) -> Run:
    """argmax_params E objective(params, batch, key), by `num_steps` steps of an Optax optimiser.
    Returns a `Run`.

    Args:
      objective: (params, xs, key) -> mean bound of a batch, nats:
        `vaejax.minibatch(partial(vaejax.Pathwise(), model))`. One that
        gives `Terms` is maximised in its objective and recorded in both; one with a schedule is
        called with `step=` too.
      data: arrays with a leading axis of examples. They go to the device once, in their own dtype.
      transform: `transform(x, key)` of one stored example, applied inside the step: scaling,
        binarisation.
      validation: held-out examples in the same form. Every `validate_every` steps the mean bound
        over all of them is
        recorded, each time with the same noise. Training stops after `patience` validations without
        a better one, counted from the end of the objective's schedule, if it has one.
      checkpoints: a directory to save to every `checkpoint_every` steps, at the end, and on Ctrl-C
        or SIGTERM, which then
        leave by KeyboardInterrupt or SystemExit(143). With `resume` the run goes on from the newest
        intact checkpoint, if there is one, to the same bits; `config` is stored in each and must
        then be equal.
      mesh: each batch is sharded over the mesh's axis "data"; parameters and data are replicated.
      callback: called with the run so far after each compiled call, about once a second. The arrays
        in it are valid until it
        returns, since the next call writes over them.

    Raises ValueError before anything compiles if the arguments do not fit each other,
    NonFiniteError if training breaks down.
    """
    counts = {
        "num_steps": num_steps,
        "batch_size": batch_size,
        "validate_every": validate_every,
        "checkpoint_every": checkpoint_every,
    }
    for name, count in counts.items():
        require_count(count, name)
    check_arguments(objective, data, validation, transform, batch_size, patience, mesh)
    settled = check_schedules(objective, num_steps)
    order_key, noise_key, validation_key = jax.random.split(key, 3)
    if mesh is not None:  # only the batch is placed by hand; the compiler places the rest
        mesh = Mesh(
            mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names)
        )
    trainer = Trainer(objective, ByStructure(optimizer), transform, mesh, batch_size)
    held_out = Transformed(objective.bound, transform)

    # Copied, since the compiled steps write over the arrays that they are given, and these are the
    # caller's.
    params = copied(params)
    run = Run(
        params,
        optimizer.init(params),
        0,
        NO_HISTORY,
        copied(params) if validation is not None else None,
    )
    replicated = NamedSharding(mesh, PartitionSpec()) if mesh is not None else None
    with (
        _open(checkpoints, config, key, batch_size, data) as store,
        Signals(active=store is not None) as signals,
    ):
        run = run if store is None else _restored(store, run, resume)
        run = with_arrays(run, jax.device_put(arrays_of(run), replicated))
        data, validation = jax.device_put((data, validation), replicated)
        with tqdm(
            total=num_steps, initial=run.step, unit="step", disable=not progress, dynamic_ncols=True
        ) as bar:
            steps_per_call = 1
            while (
                run.step < num_steps
                and not _out_of_patience(run.history, patience, settled)
                and not signals.received
            ):
                began = time.perf_counter()
                stops = [
                    num_steps,
                    *(
                        (run.step // every + 1) * every
                        for every in (validate_every, checkpoint_every)
                    ),
                ]
                count = min(min(stops) - run.step, steps_per_call)
                run = trainer.advance(run, data, order_key, noise_key, count)
                steps_per_call = next_count(count, time.perf_counter() - began)
                if validation is not None and run.step % validate_every == 0:
                    run = _validated(run, held_out, validation, validation_key)
                if store is not None and run.step % checkpoint_every == 0:
                    store.save(run.step, arrays_of(run), run.history)
                bar.set_postfix(bound=f"{run.history['bound'][-count:].mean():.2f}", refresh=False)
                bar.update(count)
                if callback is not None:
                    callback(run)
        if store is not None and run.step not in store.steps():
            store.save(run.step, arrays_of(run), run.history)
    signals.raise_received()
    return run


def check_arguments(objective, data, validation, transform, batch_size, patience, mesh) -> None:
    """Raises ValueError for arguments that do not fit each other."""
    require_objective(objective)
    support = objective.support
    check_data(data, support, transform)
    size = len(jax.tree.leaves(data)[0])
    if batch_size > size:
        raise ValueError(
            f"batch_size = {batch_size}, but the data have {size} examples; choose at most {size}"
        )
    if mesh is not None and "data" not in mesh.axis_names:
        raise ValueError(
            f'the mesh has axes {mesh.axis_names}; name the one to shard the batch over "data"'
        )
    if mesh is not None and batch_size % mesh.shape["data"]:
        raise ValueError(
            f"batch_size = {batch_size} does not divide over {mesh.shape['data']} devices; choose a"
            " multiple"
        )
    if patience is not None:
        require_count(patience, "patience")
        if validation is None:
            raise ValueError(
                f"patience = {patience} needs validation data to be out of patience with"
            )
    if validation is not None:
        check_data(validation, support, transform, name="validation")


def check_schedules(objective, num_steps: int) -> int:
    """The step from which every weight has been where its schedule leads. Raises ValueError if the
    run does not come so far.
    """
    for name, schedule in objective.schedules:
        schedule.check(num_steps, name)
    return max((schedule.length for _, schedule in objective.schedules), default=0)


def _validated(run: Run, held_out: Transformed, validation: PyTree, key: Key) -> Run:
    """The run with one more validation in its history, and its parameters kept if they are the best
    yet.
    """
    bound = estimate(map_dataset(held_out, run.params, validation, key)).mean
    if not np.isfinite(bound):
        raise NonFiniteError(f"step {run.step}: the validation bound is {bound}", run)
    previous = run.history["validation_bound"]
    best_params = copied(run.params) if bound > max(previous, default=-np.inf) else run.best_params
    steps = np.append(run.history["validation_step"], np.int32(run.step))
    history = run.history | {
        "validation_step": steps,
        "validation_bound": np.append(previous, bound),
    }
    return run._replace(history=history, best_params=best_params)


def _out_of_patience(history: dict[str, np.ndarray], patience: int | None, settled: int) -> bool:
    """Whether the last `patience` validations were no better; those before the step `settled` do
    not count.
    """
    bounds = history["validation_bound"][history["validation_step"] >= settled]
    return (
        patience is not None
        and len(bounds) > 0
        and len(bounds) - 1 - int(bounds.argmax()) >= patience
    )


def _open(directory, config, key: Key, batch_size: int, data: PyTree):
    """The checkpoints of this run; they hold what must be the same for it to be continued."""
    if directory is None:
        return nullcontext()
    digest = hashlib.sha256()
    for leaf in map(np.asarray, jax.tree.leaves(data)):
        digest.update(f"{leaf.shape} {leaf.dtype}".encode() + np.ascontiguousarray(leaf).tobytes())
    own = {
        "batch_size": batch_size,
        "key": jax.random.key_data(key).tolist(),
        "data": digest.hexdigest(),
    }
    return Checkpoints(directory, {**(config or {}), **own})


def _restored(store: Checkpoints, run: Run, resume: bool) -> Run:
    if not resume:
        if store.steps():
            raise ValueError(
                f"{store.directory} already holds step {store.steps()[-1]}: resume, or name another"
                " directory"
            )
        return run
    restored = store.restore(arrays_of(run))
    if restored is None:
        return run
    step, arrays, history = restored
    return with_arrays(run._replace(step=step, history=run.history | history), arrays)


def saved_runs(
    directory: str | Path,
    params: Params,
    optimizer: optax.GradientTransformation,
    *,
    validated: bool,
) -> dict[int, Run]:
    """{step: the run at that step}, of what `fit` has kept in `checkpoints=directory`; `validated`
    if it had a validation set.

    `params` and `optimizer` are like those that it started from. A damaged step raises
    CheckpointError, another model CheckpointMismatchError.
    """
    if not Path(directory).is_dir():
        raise ValueError(
            f"{directory} is no folder of checkpoints; name the one that fit was given"
        )
    like = Run(params, optimizer.init(params), 0, NO_HISTORY, params if validated else None)
    with Checkpoints(directory) as store:
        states = [(step, *store.read(step, arrays_of(like))) for step in store.steps()]
    return {
        step: with_arrays(like._replace(step=step, history=NO_HISTORY | history), arrays)
        for step, arrays, history in states
    }
