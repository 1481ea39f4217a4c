"""`fit_seeds`: the same training from several seeds at once, by the strategy that suits the
platform.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vaejax.base.checks import require_count, require_keys, unknown_name
from vaejax.base.devices import placed, under_mesh
from vaejax.base.types import Key, Params, PyTree
from vaejax.data.base import Source, batch_rows
from vaejax.data.sources import as_data
from vaejax.objectives.base import Objective
from vaejax.training.arguments import (
    check_examples,
    check_functions,
    check_params,
    check_schedules,
)
from vaejax.training.calls import are_acceptable, next_count
from vaejax.training.feeds import padded, steps_per_call
from vaejax.training.fit import progress_bar, show, warn_of_skipped
from vaejax.training.interrupts import Signals
from vaejax.training.optimizers import ByStructure, started, watched
from vaejax.training.run import NonFiniteError, Record, Run, copied, hand_back, recorded
from vaejax.training.trainer import Trainer, run_steps

SeedStrategy = Literal["vmap", "map", "cores"]


def fit_seeds(
    objective: Objective,
    params: Params,
    optimizer: optax.GradientTransformation,
    data: PyTree,
    keys: Key,
    *,
    num_steps: int,
    batch_size: int,
    transform: Callable[[PyTree, Key], PyTree] | None = None,
    strategy: SeedStrategy | None = None,
    progress: bool = True,
) -> Run:
    """[fit(objective, params[s], optimizer, data, keys[s]) for every seed s], stacked: a `Run`
    whose leaves have a leading axis of seeds.

    `params` come from `jax.vmap(model.init, (0, None))(keys, x)`; the rest is as in `fit`.
    `jax.tree.map(lambda leaf: leaf[s], run.params)` are the parameters of one seed.

    Args:
      strategy: "vmap": all seeds in one program, for accelerators. "map": one after another in one
        program, each with the same bits as
        `fit` gives it alone. "cores": "map" on each of the host's devices, which on a CPU are as
        many as `jax.config.update("jax_num_cpu_devices", n)` says before anything runs; on two
        cores 1.4 times as fast as one seed after another (scripts/bench_seeds.py). None: "vmap" on
        an accelerator, else "cores" where there is more than one device, else "map".

    Raises ValueError before anything compiles if the arguments do not fit each other,
    NonFiniteError if a seed breaks down. Like `fit`, it hands back what it had, in the attribute
    `run` of whatever stops it.
    """
    require_keys(keys)
    require_count(num_steps, "num_steps")
    require_count(batch_size, "batch_size")
    check_functions(transform=transform)
    check_params(params)
    data = as_data(data)
    if isinstance(data, Source):
        raise ValueError(
            f"fit_seeds keeps the data on the device, and {type(data).__name__} is a source on the"
            " host: give arrays, or run vaejax.fit for one seed after another"
        )
    check_schedules(objective, num_steps)
    check_examples(objective, {"data": data}, transform, batch_size)
    strategy = strategy or default_strategy()
    if strategy not in get_args(SeedStrategy):
        raise ValueError(unknown_name("strategy", strategy, list(get_args(SeedStrategy))))
    num_seeds = len(keys)
    _require_seeds(params, num_seeds)

    by_structure, params = ByStructure(optimizer), copied(placed(params, None))
    opt_state = _states(by_structure, params, num_seeds)
    trainer = Trainer(objective, by_structure, transform, None, batch_size, watched(opt_state))
    mesh, split, everywhere = _placement(strategy, num_seeds)
    width = 1 if mesh is None else mesh.size
    # A device that would have no seed repeats one.
    turns = np.arange(-(-num_seeds // width) * width) % num_seeds
    order_keys, noise_keys, _ = jnp.moveaxis(jax.vmap(partial(jax.random.split, num=3))(keys), 0, 1)
    seeds = jax.tree.map(lambda leaf: leaf[turns], (params, opt_state, noise_keys))
    params, opt_state, noise_keys = jax.device_put(seeds, split)
    size, data = len(jax.tree.leaves(data)[0]), placed(data, everywhere)

    most_steps = steps_per_call(len(turns) * batch_size)

    def rows_of_seed(seed, start: int, count: int) -> np.ndarray:
        rows = batch_rows(order_keys[seed], size, batch_size, start, start + count)
        return padded(rows, most_steps)

    nothing = np.zeros((0, num_seeds), np.float32)
    names = "bound", "objective", "gradient_norm"
    run = Run(params, opt_state, 0, dict.fromkeys(names, nothing))
    count = 1
    try:
        with (
            progress_bar(num_steps, 0, progress, f"{num_seeds} seeds") as bar,
            Signals() as signals,
        ):
            while run.step < num_steps and not signals.received:
                began = time.perf_counter()
                count = min(count, most_steps, num_steps - run.step)
                rows = np.stack([rows_of_seed(seed, run.step, count) for seed in turns])
                seeds = run.params, run.opt_state, rows, noise_keys
                with under_mesh(mesh):
                    params, opt_state, record, finite = _steps_of_seeds(
                        trainer, strategy, mesh, *seeds, data, run.step, count
                    )
                record = jax.tree.map(
                    lambda values, count=count: np.asarray(values)[:num_seeds, :count].T, record
                )
                _require_finite(run, record, opt_state, np.asarray(finite)[:num_seeds])
                run = Run(params, opt_state, run.step + count, recorded(run.history, record))
                show(bar, run, count)
                count = next_count(count, time.perf_counter() - began)
            signals.raise_received()
    except BaseException as error:
        hand_back(error, _stacked(run, num_seeds))
        raise
    warn_of_skipped(run.opt_state, run.step)
    return _stacked(run, num_seeds)


def _states(optimizer: ByStructure, params: PyTree, num_seeds: int) -> PyTree:
    """The states of the optimiser before the first step of each seed."""
    seeds = [jax.tree.map(lambda leaf, s=s: leaf[s], params) for s in range(num_seeds)]
    states = [started(optimizer, params) for params in seeds]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def _stacked(run: Run, num_seeds: int) -> Run:
    """The run with a leading axis of the seeds, each once, in its history too."""
    params, opt_state = jax.tree.map(lambda leaf: leaf[:num_seeds], (run.params, run.opt_state))
    return Run(
        params, opt_state, run.step, {name: values.T for name, values in run.history.items()}
    )


def _placement(
    strategy: SeedStrategy, num_seeds: int
) -> tuple[Mesh | None, NamedSharding | None, NamedSharding | None]:
    """A mesh of devices, and where on it lie what each seed has of its own and what all share."""
    if strategy != "cores":
        return None, None, None
    mesh = Mesh(np.array(jax.local_devices()[:num_seeds]), "seed")
    return mesh, NamedSharding(mesh, PartitionSpec("seed")), NamedSharding(mesh, PartitionSpec())


def _require_seeds(params: PyTree, num_seeds: int) -> None:
    """Raises ValueError unless every leaf has a leading axis of so many seeds."""
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(params)}
    if lengths != {(num_seeds,)}:
        raise ValueError(
            f"{num_seeds} keys, but params have leading axes {sorted(lengths)};"
            " jax.vmap(model.init, (0, None))(keys, x) makes them"
        )


def default_strategy() -> SeedStrategy:
    if jax.default_backend() != "cpu":
        return "vmap"
    return "cores" if jax.local_device_count() > 1 else "map"


@partial(jax.jit, static_argnames=("trainer", "strategy", "mesh"))
def _steps_of_seeds(
    trainer: Trainer,
    strategy: SeedStrategy,
    mesh: Mesh | None,
    params,
    opt_state,
    rows,
    noise_keys,
    data,
    start,
    count,
):
    """`run_steps` of every seed."""
    seeds = params, opt_state, rows, noise_keys

    def single(data, start, count, params, opt_state, rows, noise_key):
        return run_steps(trainer, params, opt_state, data, rows, noise_key, start, count)

    def in_turn(data, start, count, *seeds):
        return jax.lax.map(lambda seed: single(data, start, count, *seed), seeds)

    if strategy == "vmap":
        return jax.vmap(partial(single, data, start, count))(*seeds)
    if strategy == "map":
        return in_turn(data, start, count, *seeds)
    everywhere, split = PartitionSpec(), PartitionSpec("seed")
    on_devices = jax.shard_map(
        in_turn,
        mesh=mesh,
        in_specs=(everywhere,) * 3 + (split,) * 4,
        out_specs=split,
        check_vma=False,
    )
    return on_devices(data, start, count, *seeds)


def _require_finite(run: Run, record: Record, opt_state: PyTree, finite: np.ndarray) -> None:
    """Raises NonFiniteError that names the first seed at fault after `run`."""
    broken = ~finite
    if not are_acceptable(record, opt_state):
        numbers = np.stack([record.bound, record.objective])
        broken |= ~np.isfinite(numbers).all(axis=(0, 1))
    if broken.any():
        last = run.step + len(record.bound) - 1
        raise NonFiniteError(
            f"seed {int(broken.argmax())}: not finite within steps {run.step}..{last};"
            " `fit` with its key alone names the leaf",
            run,
        )
