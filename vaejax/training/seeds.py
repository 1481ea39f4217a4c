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
from tqdm.auto import tqdm

from vaejax.base.checks import require_count, unknown_name
from vaejax.base.types import Key, Params, PyTree
from vaejax.objectives.base import Objective
from vaejax.training.fit import check_arguments, check_schedules
from vaejax.training.optimizers import ByStructure
from vaejax.training.trainer import Run, Trainer, next_count, recorded, run_steps

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
    FloatingPointError if a seed breaks down.
    """
    require_count(num_steps, "num_steps")
    require_count(batch_size, "batch_size")
    check_arguments(objective, data, None, transform, batch_size, None, None)
    check_schedules(objective, num_steps)
    strategy = strategy or default_strategy()
    if strategy not in get_args(SeedStrategy):
        raise ValueError(unknown_name("strategy", strategy, list(get_args(SeedStrategy))))
    num_seeds = len(keys)
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(params)}
    if lengths != {(num_seeds,)}:
        raise ValueError(
            f"{num_seeds} keys, but params have leading axes {sorted(lengths)};"
            " jax.vmap(model.init, (0, None))(keys, x) makes them"
        )

    trainer = Trainer(objective, ByStructure(optimizer), transform, None, batch_size)
    mesh = Mesh(np.array(jax.local_devices()[:num_seeds]), "seed") if strategy == "cores" else None
    split, everywhere = (
        None if mesh is None else NamedSharding(mesh, spec)
        for spec in (PartitionSpec("seed"), PartitionSpec())
    )
    width = 1 if mesh is None else mesh.size
    turns = (
        np.arange(-(-num_seeds // width) * width) % num_seeds
    )  # a device that would have no seed repeats one
    order_keys, noise_keys, _ = jnp.moveaxis(jax.vmap(partial(jax.random.split, num=3))(keys), 0, 1)
    params, noise_keys = jax.tree.map(lambda leaf: jnp.asarray(leaf)[turns], (params, noise_keys))
    params, opt_state, noise_keys = jax.device_put(
        (params, jax.vmap(optimizer.init)(params), noise_keys), split
    )
    data, count = jax.device_put(data, everywhere), 1
    run = Run(params, opt_state, 0, {"bound": np.zeros((0, num_seeds), np.float32)})
    with tqdm(
        total=num_steps,
        unit="step",
        desc=f"{num_seeds} seeds",
        disable=not progress,
        dynamic_ncols=True,
    ) as bar:
        while run.step < num_steps:
            began, count = time.perf_counter(), min(count, num_steps - run.step)
            rows = np.stack([trainer.rows(data, order_keys[s], run.step, count) for s in turns])
            seeds = run.params, run.opt_state, rows, noise_keys
            params, opt_state, values, finite = _steps_of_seeds(
                trainer, strategy, mesh, *seeds, data, run.step, count
            )
            values = jax.tree.map(
                lambda leaf, count=count: np.asarray(leaf)[:num_seeds, :count].T, values
            )
            _require_finite(values, np.asarray(finite)[:num_seeds], run.step, count)
            run = Run(params, opt_state, run.step + count, recorded(run.history, values))
            bar.set_postfix(bound=f"{run.history['bound'][-count:].mean():.2f}", refresh=False)
            bar.update(count)
            count = next_count(count, time.perf_counter() - began)
    params, opt_state = jax.tree.map(lambda leaf: leaf[:num_seeds], (run.params, run.opt_state))
    return Run(
        params, opt_state, run.step, {name: values.T for name, values in run.history.items()}
    )


def default_strategy() -> SeedStrategy:
    if jax.default_backend() != "cpu":
        return "vmap"
    return "cores" if jax.local_device_count() > 1 else "map"


@partial(
    jax.jit,
    static_argnames=("trainer", "strategy", "mesh"),
    donate_argnames=("params", "opt_state"),
)
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

    def one(data, start, count, params, opt_state, rows, noise_key):
        return run_steps(trainer, params, opt_state, data, rows, noise_key, start, count)

    def in_turn(data, start, count, *seeds):
        return jax.lax.map(lambda seed: one(data, start, count, *seed), seeds)

    if strategy == "vmap":
        return jax.vmap(partial(one, data, start, count))(*seeds)
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


def _require_finite(values: PyTree, finite: np.ndarray, start: int, count: int) -> None:
    """Raises FloatingPointError that names the first seed at fault."""
    broken = ~finite | ~np.all(
        [np.isfinite(leaf).all(axis=0) for leaf in jax.tree.leaves(values)], axis=0
    )
    if broken.any():
        raise FloatingPointError(
            f"seed {int(broken.argmax())}: not finite within steps {start}..{start + count - 1};"
            " `fit` with its key alone names the leaf"
        )
