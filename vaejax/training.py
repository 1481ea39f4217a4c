"""`fit`: maximise an objective by minibatch stochastic gradient ascent, many steps to one compiled call.

The order of the data and all noise are functions of (key, step) alone. How many steps one call runs is an argument of the
compiled program, not a part of it: every cut of a run into calls gives the same bits, a second run with the same shapes
compiles nothing, and a call can be made as long as the clock allows.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from tqdm.auto import tqdm

from vaejax._values import ByStructure, value
from vaejax.checkpoints import Checkpoints
from vaejax.data import batch_rows, check_data, support_of
from vaejax.elbo import Objective, Reported, Terms, model_of, of_one_example, require_count, schedules_of, step_of
from vaejax.evaluation import Transformed, estimate, map_dataset
from vaejax.interrupts import Signals
from vaejax.types import Key, Params, PyTree

STEPS_PER_CALL = 1_000  # at most; the array of rows is made for so many, so another number is another program
SECONDS_PER_CALL = 1.0  # what the number of steps in a call aims at: how soon the progress bar and Ctrl-C are answered


class Run(NamedTuple):
    """What `fit` returns. `best_params` are those of the best validation, None where there was none.

    `history` holds host arrays: `bound` [step], the value on each minibatch before its update, nats per example; `objective`
    [step], what was maximised, where that is something else (`Terms`); `validation_step` and `validation_bound` [v].
    """

    params: Params
    opt_state: PyTree
    step: int
    history: dict[str, np.ndarray]
    best_params: Params | None = None


NO_HISTORY = {
    "bound": np.zeros(0, np.float32),
    "validation_step": np.zeros(0, np.int32),
    "validation_bound": np.zeros(0, np.float64),
}


class NonFiniteError(FloatingPointError):
    """A bound or a gradient was NaN or infinite. `run` is the run before that step."""

    def __init__(self, message: str, run: Run):
        super().__init__(message)
        self.run = run


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
    """argmax_params E objective(params, batch, key), by `num_steps` steps of an Optax optimiser. Returns a `Run`.

    Args:
      objective: (params, xs, key) -> mean bound of a batch, nats: `vaejax.minibatch(partial(vaejax.Pathwise(), model))`. One that
        gives `Terms` is maximised in its objective and recorded in both; one with a schedule is called with `step=` too.
      data: arrays with a leading axis of examples. They go to the device once, in their own dtype.
      transform: `transform(x, key)` of one stored example, applied inside the step: scaling, binarisation.
      validation: held-out examples in the same form. Every `validate_every` steps the mean bound over all of them is
        recorded, each time with the same noise. Training stops after `patience` validations without a better one, counted
        from the end of the objective's schedule, if it has one.
      checkpoints: a directory to save to every `checkpoint_every` steps, at the end, and on Ctrl-C or SIGTERM, which then
        leave by KeyboardInterrupt or SystemExit(143). With `resume` the run goes on from the newest intact checkpoint, if
        there is one, to the same bits; `config` is stored in each and must then be equal.
      mesh: each batch is sharded over the mesh's axis "data"; parameters and data are replicated.
      callback: called with the run so far after each compiled call, about once a second. The arrays in it are valid until it
        returns, since the next call writes over them.

    Raises ValueError before anything compiles if the arguments do not fit each other, NonFiniteError if training breaks down.
    """
    counts = {"num_steps": num_steps, "batch_size": batch_size, "validate_every": validate_every, "checkpoint_every": checkpoint_every}
    for name, count in counts.items():
        require_count(count, name)
    check_arguments(objective, data, validation, transform, batch_size, patience, mesh)
    settled = check_schedules(objective, num_steps)
    order_key, noise_key, validation_key = jax.random.split(key, 3)
    if mesh is not None:  # only the batch is placed by hand; the compiler places the rest
        mesh = Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))
    trainer = Trainer(objective, ByStructure(optimizer), transform, mesh, batch_size)
    held_out = Transformed(Reported(of_one_example(objective)), transform)

    # Copied, since the compiled steps write over the arrays that they are given, and these are the caller's.
    params = copied(params)
    run = Run(params, optimizer.init(params), 0, NO_HISTORY, copied(params) if validation is not None else None)
    replicated = NamedSharding(mesh, PartitionSpec()) if mesh is not None else None
    with _open(checkpoints, config, key, batch_size, data) as store, Signals(active=store is not None) as signals:
        run = run if store is None else _restored(store, run, resume)
        run = _with_arrays(run, jax.device_put(_arrays(run), replicated))
        data, validation = jax.device_put((data, validation), replicated)
        with tqdm(total=num_steps, initial=run.step, unit="step", disable=not progress, dynamic_ncols=True) as bar:
            steps_per_call = 1
            while run.step < num_steps and not _out_of_patience(run.history, patience, settled) and not signals.received:
                began = time.perf_counter()
                stops = [num_steps, *((run.step // every + 1) * every for every in (validate_every, checkpoint_every))]
                count = min(min(stops) - run.step, steps_per_call)
                run = trainer.advance(run, data, order_key, noise_key, count)
                steps_per_call = next_count(count, time.perf_counter() - began)
                if validation is not None and run.step % validate_every == 0:
                    run = _validated(run, held_out, validation, validation_key)
                if store is not None and run.step % checkpoint_every == 0:
                    store.save(run.step, _arrays(run), run.history)
                bar.set_postfix(bound=f"{run.history['bound'][-count:].mean():.2f}", refresh=False)
                bar.update(count)
                if callback is not None:
                    callback(run)
        if store is not None and run.step not in store.steps():
            store.save(run.step, _arrays(run), run.history)
    signals.raise_received()
    return run


@value
class Trainer:
    """The compiled step and all that it is compiled for. `advance` runs `count` of them."""

    objective: Objective
    optimizer: ByStructure
    transform: Callable[[PyTree, Key], PyTree] | None
    mesh: Mesh | None
    batch_size: int

    def value(self, params: Params, data: PyTree, rows: jax.Array, noise_key: Key, step: jax.Array) -> Any:
        """The objective at one step: a bound, or Terms."""
        transform_key, objective_key = jax.random.split(jax.random.fold_in(noise_key, step))
        xs = jax.tree.map(lambda leaf: jnp.take(leaf, rows, axis=0), data)
        if self.transform is not None:
            xs = jax.vmap(self.transform)(xs, jax.random.split(transform_key, self.batch_size))
        if self.mesh is not None:
            xs = jax.lax.with_sharding_constraint(xs, NamedSharding(self.mesh, PartitionSpec("data")))
        return self.objective(params, xs, objective_key, **step_of(self.objective, step))

    def value_and_gradient(self, params: Params, *args) -> tuple[Any, Params]:
        """The objective at one step, and the gradient of what it maximises."""

        def maximised(params):
            value = self.value(params, *args)
            return value.objective if isinstance(value, Terms) else value, value

        (_, value), gradient = jax.value_and_grad(maximised, has_aux=True)(params)
        return value, gradient

    def rows(self, data: PyTree, order_key: Key, start: int, count: int) -> np.ndarray:
        """The examples of `count` steps from step `start`, in an array for as many steps as any call has."""
        rows = np.zeros((STEPS_PER_CALL, self.batch_size), np.int32)
        rows[:count] = batch_rows(order_key, len(jax.tree.leaves(data)[0]), self.batch_size, start, start + count)
        return rows

    def advance(self, run: Run, data: PyTree, order_key: Key, noise_key: Key, count: int) -> Run:
        rows = self.rows(data, order_key, run.step, count)
        before = copied((run.params, run.opt_state))
        params, opt_state, values, finite = run_steps(self, run.params, run.opt_state, data, rows, noise_key, run.step, count)
        values = jax.tree.map(lambda leaf: np.asarray(leaf)[:count], values)
        if not (finite and _first_non_finite(values) is None):
            params, opt_state = before
            raise self.diagnosis(run._replace(params=params, opt_state=opt_state), data, rows, noise_key, count)
        return run._replace(params=params, opt_state=opt_state, step=run.step + count, history=recorded(run.history, values))

    def diagnosis(self, run: Run, data: PyTree, rows: np.ndarray, noise_key: Key, count: int) -> NonFiniteError:
        """The error that names the first step at fault, found by running the call again one step at a time.

        So the check costs the training step nothing.
        """
        for i in range(count):
            value, gradient = _value_and_gradient(self, run.params, data, rows[i], noise_key, run.step)
            terms = value if isinstance(value, Terms) else Terms(value, value)
            fault = _first_non_finite(terms, "the ") or _first_non_finite(gradient, "the gradient of ")
            one = np.tile(rows[i], (len(rows), 1))
            params, opt_state, _, finite = run_steps(self, *copied((run.params, run.opt_state)), data, one, noise_key, run.step, 1)
            if fault is None and not finite:
                fault = _first_non_finite(params, "the update of ")
            if fault is not None:
                return NonFiniteError(f"step {run.step}: {fault} is not finite; rows of the batch: {rows[i].tolist()}", run)
            history = recorded(run.history, jax.tree.map(lambda leaf: np.asarray(leaf, np.float32)[None], value))
            run = run._replace(params=params, opt_state=opt_state, step=run.step + 1, history=history)
        return NonFiniteError(f"steps {run.step - count}..{run.step - 1}: not finite once, but finite when run again", run)


@partial(jax.jit, static_argnames="trainer", donate_argnames=("params", "opt_state"))
def run_steps(trainer: Trainer, params, opt_state, data, rows, noise_key, start, count):
    """`count` steps from step `start`, step i on the examples rows[i]: new parameters, optimiser state, values, all finite."""

    def step(i, carry):
        params, opt_state, values = carry
        value, gradient = trainer.value_and_gradient(params, data, rows[i], noise_key, start + i)
        # Optax minimises: this is the one minus sign.
        updates, opt_state = trainer.optimizer.update(jax.tree.map(jnp.negative, gradient), opt_state, params)
        values = jax.tree.map(lambda all_steps, one: all_steps.at[i].set(one.astype(all_steps.dtype)), values, value)
        return optax.apply_updates(params, updates), opt_state, values

    one = jax.eval_shape(trainer.value, params, data, rows[0], noise_key, start)  # whether it is a bound alone, or Terms
    carry = jax.lax.fori_loop(0, count, step, (params, opt_state, jax.tree.map(lambda _: jnp.zeros(rows.shape[0]), one)))
    return *carry, jax.tree.reduce(jnp.logical_and, jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), carry[0]), True)


@partial(jax.jit, static_argnames="trainer")
def _value_and_gradient(trainer: Trainer, *args):
    return trainer.value_and_gradient(*args)


def recorded(history: dict[str, np.ndarray], values: Any) -> dict[str, np.ndarray]:
    """The history with the values of more steps. Where a bound stands alone, it is also what was maximised."""
    bound, objective = values if isinstance(values, Terms) else (values, values)
    longer = {"bound": np.concatenate([history["bound"], bound])}
    if isinstance(values, Terms) or "objective" in history:
        longer["objective"] = np.concatenate([history.get("objective", history["bound"]), objective])
    return history | longer


def _first_non_finite(tree: PyTree, what: str = "") -> str | None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not np.isfinite(np.asarray(leaf)).all():
            return what + jax.tree_util.keystr(path).lstrip(".")
    return None


def check_arguments(objective, data, validation, transform, batch_size, patience, mesh) -> None:
    """Raises ValueError for arguments that do not fit each other."""
    support = support_of(model_of(objective))
    check_data(data, support, transform)
    size = len(jax.tree.leaves(data)[0])
    if batch_size > size:
        raise ValueError(f"batch_size = {batch_size}, but the data have {size} examples; choose at most {size}")
    if mesh is not None and "data" not in mesh.axis_names:
        raise ValueError(f'the mesh has axes {mesh.axis_names}; name the one to shard the batch over "data"')
    if mesh is not None and batch_size % mesh.shape["data"]:
        raise ValueError(f"batch_size = {batch_size} does not divide over {mesh.shape['data']} devices; choose a multiple")
    if patience is not None:
        require_count(patience, "patience")
        if validation is None:
            raise ValueError(f"patience = {patience} needs validation data to be out of patience with")
    if validation is not None:
        check_data(validation, support, transform, name="validation")
        if not hasattr(objective, "objective"):
            raise ValueError("validation maps the objective of one example over the held-out set: make it by vaejax.minibatch")


def check_schedules(objective, num_steps: int) -> int:
    """The step from which every weight has been where its schedule leads. Raises ValueError if the run does not come so far."""
    for name, schedule in schedules_of(objective):
        schedule.check(num_steps, name)
    return max((schedule.length for _, schedule in schedules_of(objective)), default=0)


def next_count(count: int, seconds: float) -> int:
    """For the next call; at most ten times as many, since the first call's time is the compiler's."""
    return min(STEPS_PER_CALL, 10 * count, max(1, int(count * SECONDS_PER_CALL / seconds)))


def _validated(run: Run, held_out: Transformed, validation: PyTree, key: Key) -> Run:
    """The run with one more validation in its history, and its parameters kept if they are the best yet."""
    bound = estimate(map_dataset(held_out, run.params, validation, key)).mean
    if not np.isfinite(bound):
        raise NonFiniteError(f"step {run.step}: the validation bound is {bound}", run)
    previous = run.history["validation_bound"]
    best_params = copied(run.params) if bound > max(previous, default=-np.inf) else run.best_params
    steps = np.append(run.history["validation_step"], np.int32(run.step))
    history = run.history | {"validation_step": steps, "validation_bound": np.append(previous, bound)}
    return run._replace(history=history, best_params=best_params)


def _out_of_patience(history: dict[str, np.ndarray], patience: int | None, settled: int) -> bool:
    """Whether the last `patience` validations were no better; those before the step `settled` do not count."""
    bounds = history["validation_bound"][history["validation_step"] >= settled]
    return patience is not None and len(bounds) > 0 and len(bounds) - 1 - int(bounds.argmax()) >= patience


def _open(directory, config, key: Key, batch_size: int, data: PyTree):
    """The checkpoints of this run; they hold what must be the same for it to be continued."""
    if directory is None:
        return nullcontext()
    digest = hashlib.sha256()
    for leaf in map(np.asarray, jax.tree.leaves(data)):
        digest.update(f"{leaf.shape} {leaf.dtype}".encode() + np.ascontiguousarray(leaf).tobytes())
    own = {"batch_size": batch_size, "key": jax.random.key_data(key).tolist(), "data": digest.hexdigest()}
    return Checkpoints(directory, {**(config or {}), **own})


def _restored(store: Checkpoints, run: Run, resume: bool) -> Run:
    if not resume:
        if store.steps():
            raise ValueError(f"{store.directory} already holds step {store.steps()[-1]}: resume, or name another directory")
        return run
    restored = store.restore(_arrays(run))
    if restored is None:
        return run
    step, arrays, history = restored
    return _with_arrays(run._replace(step=step, history=run.history | history), arrays)


def saved_runs(directory: str | Path, params: Params, optimizer: optax.GradientTransformation, *, validated: bool) -> dict[int, Run]:
    """{step: the run at that step}, of what `fit` has kept in `checkpoints=directory`; `validated` if it had a validation set.

    `params` and `optimizer` are like those that it started from. A damaged step raises CheckpointError, another model
    CheckpointMismatchError.
    """
    if not Path(directory).is_dir():
        raise ValueError(f"{directory} is no folder of checkpoints; name the one that fit was given")
    like = Run(params, optimizer.init(params), 0, NO_HISTORY, params if validated else None)
    with Checkpoints(directory) as store:
        states = [(step, *store.read(step, _arrays(like))) for step in store.steps()]
    return {step: _with_arrays(like._replace(step=step, history=NO_HISTORY | history), arrays) for step, arrays, history in states}


def _arrays(run: Run) -> tuple:
    return run.params, run.opt_state, run.best_params or ()


def _with_arrays(run: Run, arrays) -> Run:
    params, opt_state, best_params = arrays
    return run._replace(params=params, opt_state=opt_state, best_params=best_params or None)


def copied(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.array, tree)
