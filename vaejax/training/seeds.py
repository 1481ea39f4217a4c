"""`fit_seeds`: the same training from several seeds at once, by the strategy that suits the
platform.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import optax

from vaejax.base.checks import require_count, require_keys, unknown_name
from vaejax.base.devices import of_this_process, placed
from vaejax.base.trials import fastest, forms
from vaejax.base.types import Key, Params, PyTree
from vaejax.data.base import Source
from vaejax.data.sources import as_data
from vaejax.objectives.base import Objective
from vaejax.training.arguments import check_functions, check_params, data_for
from vaejax.training.callbacks import Callback, Callbacks
from vaejax.training.calls_of_seeds import MOST_PLACES, CallsOfSeeds, Seeds, SeedWay
from vaejax.training.feeds import steps_per_call
from vaejax.training.fit import progress_bar, show, warn_of_skipped
from vaejax.training.interrupts import Signals
from vaejax.training.optimizers import ByStructure, started, watched
from vaejax.training.run import Run, copied, hand_back
from vaejax.training.trainer import Trainer

SeedStrategy = Literal["vmap", "map", "cores", "fastest"]
TRIED_STEPS = 100  # steps of each way that is tried


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
    data = data_for(objective, _arrays(data), None, transform, num_steps, batch_size)
    strategy = _known(strategy or default_strategy())
    _require_seeds(params, len(keys))
    by_structure = ByStructure(optimizer)
    params = copied(placed(of_this_process(params), None))
    opt_state = _states(by_structure, params, len(keys))
    trainer = Trainer(objective, by_structure, transform, None, batch_size, watched(opt_state))
    calls = _calls_by(strategy, Seeds(trainer, data, keys, params, opt_state), num_steps)
    course = _Course(calls.first_run(), calls, told)
    calls.check(course.run.params, course.run.opt_state)
    try:
        course.complete(num_steps, progress)
    except BaseException as error:
        hand_back(error, calls.stacked(course.run))
        told.finish_after(error)
        raise
    warn_of_skipped(course.run.opt_state, course.run.step)
    return calls.stacked(course.run)


@dataclass
class _Course:
    """The run of all seeds on its way to the last step, as far as it has come, whatever stops
    it.
    """

    run: Run
    calls: CallsOfSeeds
    callbacks: Callbacks

    def complete(self, num_steps: int, progress: bool) -> None:
        """The steps, unless a signal or a callback ends the run before."""
        title = f"{self.calls.num_seeds} seeds"
        with progress_bar(num_steps, 0, progress, title) as bar, Signals() as signals:
            self.callbacks.start(self.calls.stacked(self.run))
            while self.run.step < num_steps and not (signals.received or self.callbacks.stopped):
                self.run = self.calls.advance(self.run, num_steps)
                show(bar, self.run)
                if len(self.callbacks):
                    self.callbacks(self.calls.stacked(self.run))
            self.callbacks.finish()
            signals.raise_received()


def _arrays(data: PyTree) -> PyTree:
    """The data, or a ValueError for what stays on the host."""
    data = as_data(data)
    if isinstance(data, Source):
        raise ValueError(
            f"fit_seeds keeps the data on the device, and {type(data).__name__} is a source on the"
            " host: give arrays, or run vaejax.fit for one seed after another"
        )
    return data


def default_strategy() -> SeedStrategy:
    if jax.default_backend() != "cpu":
        return "fastest"
    return "cores" if jax.local_device_count() > 1 else "map"


def _known(strategy: SeedStrategy) -> SeedStrategy:
    if strategy not in get_args(SeedStrategy):
        raise ValueError(unknown_name("strategy", strategy, list(get_args(SeedStrategy))))
    return strategy


def _require_seeds(params: PyTree, num_seeds: int) -> None:
    """Raises ValueError unless every leaf has a leading axis of so many seeds."""
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(params)}
    if lengths != {(num_seeds,)}:
        raise ValueError(
            f"{num_seeds} keys, but params have leading axes {sorted(lengths)};"
            " jax.vmap(model.init, (0, None))(keys, x) makes them"
        )


def _states(optimizer: ByStructure, params: PyTree, num_seeds: int) -> PyTree:
    """The states of the optimiser before the first step of each seed."""
    seeds = [jax.tree.map(lambda leaf, s=s: leaf[s], params) for s in range(num_seeds)]
    states = [started(optimizer, params) for params in seeds]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def _calls_by(strategy: SeedStrategy, seeds: Seeds, num_steps: int) -> CallsOfSeeds:
    if strategy == "fastest":
        strategy = _fastest_way(seeds, num_steps)
    return CallsOfSeeds(seeds, strategy)


def _fastest_way(seeds: Seeds, num_steps: int) -> SeedWay:
    """By the first steps, whose results are not kept."""

    def trial(way: SeedWay) -> Callable[[int], Any]:
        calls = CallsOfSeeds(seeds, way)
        run = calls.first_run()
        return lambda count: jax.block_until_ready(
            calls.begin(run.params, run.opt_state, 0, count).params
        )

    num_seeds, num_devices = len(seeds), jax.local_device_count()
    ways: list[SeedWay] = ["map", "vmap"] if num_seeds > 1 else ["map"]
    if num_seeds > 1 and num_devices > 1:
        ways.append("cores")
    most_places = seeds.trainer.batch_size * (num_seeds + num_devices)  # of a step, by "cores"
    most_steps = min(num_steps, TRIED_STEPS, steps_per_call(most_places, MOST_PLACES))
    computed = seeds.trainer, forms((seeds.params, seeds.opt_state, seeds.data))
    return fastest(ways, trial, most_steps, computed)
