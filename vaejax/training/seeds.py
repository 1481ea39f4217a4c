"""`fit_seeds`: the same training from several seeds at once, by the strategy that suits the
platform.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vaejax.base.checks import require_count, require_keys, unknown_name
from vaejax.base.devices import of_this_process, placed, under_mesh
from vaejax.base.trials import fastest, forms
from vaejax.base.types import Key, Params, PyTree
from vaejax.data.base import Source
from vaejax.data.sources import as_data
from vaejax.objectives.base import Objective
from vaejax.training.arguments import check_functions, check_params, data_for
from vaejax.training.callbacks import Callback, Callbacks
from vaejax.training.calls import Call, Calls, are_acceptable
from vaejax.training.feeds import Examples, Order, padded, steps_per_call
from vaejax.training.fit import progress_bar, show, warn_of_skipped
from vaejax.training.interrupts import Signals
from vaejax.training.optimizers import ByStructure, started, watched
from vaejax.training.run import NonFiniteError, Record, Run, copied, hand_back, recorded
from vaejax.training.trainer import Trainer, run_steps

SeedWay = Literal["vmap", "map", "cores"]
SeedStrategy = Literal["vmap", "map", "cores", "fastest"]
TRIED_STEPS = 100  # steps of each way that is tried
MOST_PLACES = 2**23  # of all seeds in one call: 32 MiB go to the devices with it


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
    callbacks: Sequence[Callback | Callable[[Run], Any]] = (),
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
        cores 1.4 times as fast as one seed after another (scripts/bench_seeds.py). "fastest": each
        of these is compiled and timed for some steps, which are not kept, and the fastest trains;
        the result is the same but for rounding. None: "fastest" on an accelerator, where it depends
        on the net (with "vmap" a convolution becomes one of many groups), else "cores" where there
        is more than one device, else "map".
      callbacks: as in `fit`; each is called with the run of all seeds.

    Raises ValueError before anything compiles if the arguments do not fit each other,
    NonFiniteError if a seed breaks down. Like `fit`, it hands back what it had, in the attribute
    `run` of whatever stops it.
    """
    require_keys(keys)
    require_count(num_steps, "num_steps")
    require_count(batch_size, "batch_size")
    check_functions(transform=transform)
    told = Callbacks(callbacks)
    check_params(params)
    data = as_data(data)
    if isinstance(data, Source):
        raise ValueError(
            f"fit_seeds keeps the data on the device, and {type(data).__name__} is a source on the"
            " host: give arrays, or run vaejax.fit for one seed after another"
        )
    data = data_for(objective, data, None, transform, num_steps, batch_size)
    strategy = strategy or default_strategy()
    if strategy not in get_args(SeedStrategy):
        raise ValueError(unknown_name("strategy", strategy, list(get_args(SeedStrategy))))
    num_seeds = len(keys)
    _require_seeds(params, num_seeds)

    by_structure = ByStructure(optimizer)
    params = copied(placed(of_this_process(params), None))
    opt_state = _states(by_structure, params, num_seeds)
    trainer = Trainer(objective, by_structure, transform, None, batch_size, watched(opt_state))
    if strategy == "fastest":
        strategy = _fastest_way(trainer, data, keys, params, opt_state, num_steps)
    seeds = CallsOfSeeds(trainer, strategy, data, keys)
    run = seeds.placed(params, opt_state)
    seeds.check(run.params, run.opt_state)
    try:
        with (
            progress_bar(num_steps, 0, progress, f"{num_seeds} seeds") as bar,
            Signals() as signals,
        ):
            told.start(seeds.stacked(run))
            while run.step < num_steps and not (signals.received or told.stopped):
                run = seeds.advance(run, num_steps)
                show(bar, run)
                if callbacks:
                    told(seeds.stacked(run))
            told.finish()
            signals.raise_received()
    except BaseException as error:
        hand_back(error, seeds.stacked(run))
        told.finish_after(error)
        raise
    warn_of_skipped(run.opt_state, run.step)
    return seeds.stacked(run)


def _fastest_way(
    trainer: Trainer, data: PyTree, keys: Key, params: Params, opt_state: PyTree, num_steps: int
) -> SeedWay:
    """By the first steps, whose results are not kept."""

    def trial(way: SeedWay) -> Callable[[int], Any]:
        seeds = CallsOfSeeds(trainer, way, data, keys)
        run = seeds.placed(params, opt_state)
        return lambda count: jax.block_until_ready(
            seeds.begin(run.params, run.opt_state, 0, count).params
        )

    num_seeds, num_devices = len(keys), jax.local_device_count()
    ways: list[SeedWay] = ["map", "vmap"] if num_seeds > 1 else ["map"]
    if num_seeds > 1 and num_devices > 1:
        ways.append("cores")
    most_places = trainer.batch_size * (num_seeds + num_devices)  # of a step, by "cores"
    most_steps = min(num_steps, TRIED_STEPS, steps_per_call(most_places, MOST_PLACES))
    return fastest(ways, trial, most_steps, (trainer, forms((params, opt_state, data))))


class CallsOfSeeds(Calls):
    """Those of `fit_seeds`, whose run has a leading axis of turns: the seeds, of which the last are
    repeated where a device would have none.
    """

    def __init__(self, trainer: Trainer, strategy: SeedWay, data: PyTree, keys: Key):
        super().__init__()
        self._trainer, self._strategy, self._num_seeds = trainer, strategy, len(keys)
        self._mesh, self._split, everywhere = _placement(strategy, len(keys))
        width = 1 if self._mesh is None else self._mesh.size
        self._turns = np.arange(-(-len(keys) // width) * width) % len(keys)
        order_keys, noise_keys, _ = jnp.moveaxis(
            jax.vmap(partial(jax.random.split, num=3))(keys), 0, 1
        )
        size = len(jax.tree.leaves(data)[0])
        self._orders = [Order(order_keys[turn], size, trainer.batch_size) for turn in self._turns]
        self._noise_keys = jax.device_put(noise_keys[self._turns], self._split)
        self._data = placed(data, everywhere)
        self._length = steps_per_call(trainer.batch_size * len(self._turns), MOST_PLACES)

    def placed(self, params: Params, opt_state: PyTree) -> Run:
        """The run before the first step, from those of each seed."""
        by_turn = jax.tree.map(lambda leaf: leaf[self._turns], (params, opt_state))
        params, opt_state = jax.device_put(by_turn, self._split)
        nothing = np.zeros((0, self._num_seeds), np.float32)
        names: list[str] = ["bound", "objective", "gradient_norm"]
        return Run(params, opt_state, 0, dict.fromkeys(names, nothing))

    def stacked(self, run: Run) -> Run:
        """The run with a leading axis of the seeds, each once, in its history too."""
        params, opt_state = jax.tree.map(
            lambda leaf: leaf[: self._num_seeds], (run.params, run.opt_state)
        )
        history = {name: values.T for name, values in run.history.items()}
        return Run(params, opt_state, run.step, history)

    def steps_from(self, step: int) -> int:
        return self._length

    def check(self, params: Params, opt_state: PyTree) -> None:
        shape = len(self._turns), self._length, self._trainer.batch_size
        self._steps(_steps_of_seeds.eval_shape, params, opt_state, np.zeros(shape, np.int32), 0, 1)

    def begin(self, params: Params, opt_state: PyTree, start: int, count: int) -> Call:
        by_turn = [order.rows(start, start + count) for order in self._orders]
        places = np.stack([padded(rows, self._length) for rows in by_turn])
        results = self._steps(_steps_of_seeds, params, opt_state, places, start, count)
        return Call(start, start + count, Examples(self._data, places), *results)

    def _steps(self, function: Callable, params, opt_state, places: np.ndarray, start, count):
        program = self._trainer, self._strategy, self._mesh
        seeds = params, opt_state, places, self._noise_keys
        with under_mesh(self._mesh):
            return function(*program, *seeds, self._data, start, count)

    def complete(self, run: Run, call: Call) -> Run:
        count, num_seeds = call.end - call.start, self._num_seeds
        record = jax.tree.map(lambda values: np.asarray(values)[:num_seeds, :count].T, call.record)
        _require_finite(run, record, call.opt_state, np.asarray(call.finite)[:num_seeds])
        return Run(call.params, call.opt_state, call.end, recorded(run.history, record))


def _states(optimizer: ByStructure, params: PyTree, num_seeds: int) -> PyTree:
    """The states of the optimiser before the first step of each seed."""
    seeds = [jax.tree.map(lambda leaf, s=s: leaf[s], params) for s in range(num_seeds)]
    states = [started(optimizer, params) for params in seeds]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def _placement(
    strategy: SeedWay, num_seeds: int
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
        return "fastest"
    return "cores" if jax.local_device_count() > 1 else "map"


@partial(jax.jit, static_argnames=("trainer", "strategy", "mesh"))
def _steps_of_seeds(
    trainer: Trainer,
    strategy: SeedWay,
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
            " `fit` with the key of this seed names the leaf",
            run,
        )
