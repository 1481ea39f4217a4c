"""Training several seeds: each strategy of `vaejax.fit_seeds` against `vaejax.fit`, one seed after
another.

    python scripts/bench_seeds.py                  # two minutes on two cores; nothing else may run
    python scripts/bench_seeds.py --workload W4    # with convolutions

Measured on two cores of an Intel Xeon, medians of 5 turns, four seeds of an MLP 784-200-200-50,
batch 100: map 1.00, vmap 1.07, cores 1.43 times the speed of one after another.
"""

from functools import partial
from typing import Literal, get_args

import jax
import numpy as np
import optax
import tyro
from timing import take_turns
from workloads import WORKLOADS, binary_images, objective_of

import vaejax
from vaejax.training.seeds import SeedWay


def main(
    workload: Literal["W1", "W2", "W3", "W4"] = "W2",
    num_seeds: int = 4,
    num_steps: int | None = None,
    repeats: int = 5,
) -> None:
    """Prints the median ratio of speeds over `repeats` turns.

    Args:
      num_steps: of each seed; None takes 2/5 of the workload's own.
    """
    work = WORKLOADS[workload]
    xs, objective, optimizer = binary_images(10_000), objective_of(work), optax.adam(1e-3)
    keys = jax.random.split(jax.random.key(0), num_seeds)
    starts = jax.jit(jax.vmap(objective.model.init, (0, None)))(keys, xs[0])
    settings = {
        "num_steps": num_steps or 2 * work.num_steps // 5,
        "batch_size": work.batch_size,
        "progress": False,
    }

    def together(strategy: SeedWay) -> None:
        jax.block_until_ready(
            vaejax.fit_seeds(
                objective, starts, optimizer, xs, keys, strategy=strategy, **settings
            ).params
        )

    def alone() -> None:
        for s in range(num_seeds):
            params = jax.tree.map(lambda leaf, s=s: leaf[s], starts)
            jax.block_until_ready(
                vaejax.fit(objective, params, optimizer, xs, keys[s], **settings).params
            )

    runs = {"alone": alone} | {
        strategy: partial(together, strategy) for strategy in get_args(SeedWay)
    }
    times = take_turns(runs, repeats)
    for strategy in get_args(SeedWay):
        print(f"{strategy}: {np.median(times['alone'] / times[strategy]):.2f} of one after another")


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 2)
    tyro.cli(main)
