"""Training several seeds: each strategy of `vaejax.fit_seeds` against `vaejax.fit`, one seed after
another.

    python scripts/bench_seeds.py        # two minutes on two cores; nothing else may run

Measured on two cores of an Intel Xeon, medians of 5 turns, four seeds of an MLP 784-200-200-50,
batch 100: map 1.00, vmap 1.07, cores 1.43 times the speed of one after another.
"""

from functools import partial
from typing import get_args

import jax
import numpy as np
import optax
import tyro
from timing import take_turns

import vaejax
from vaejax.training.seeds import SeedStrategy


def main(num_seeds: int = 4, num_steps: int = 400, repeats: int = 5) -> None:
    """Prints the median ratio of speeds over `repeats` turns."""
    xs = np.random.default_rng(0).integers(0, 2, (10_000, 784)).astype(np.uint8)
    likelihood = vaejax.Bernoulli(vaejax.MLP(784, (200, 200)))
    model = vaejax.VAE(
        vaejax.StandardNormal(50),
        likelihood,
        vaejax.DiagNormal(vaejax.MLP(50, (200, 200), heads=2)),
    )
    objective, optimizer = vaejax.minibatch(vaejax.Pathwise(), model), optax.adam(1e-3)
    keys = jax.random.split(jax.random.key(0), num_seeds)
    starts = jax.jit(jax.vmap(model.init, (0, None)))(keys, xs[0])
    settings = {"num_steps": num_steps, "batch_size": 100, "progress": False}

    def together(strategy: SeedStrategy) -> None:
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
        strategy: partial(together, strategy) for strategy in get_args(SeedStrategy)
    }
    times = take_turns(runs, repeats)
    for strategy in get_args(SeedStrategy):
        print(f"{strategy}: {np.median(times['alone'] / times[strategy]):.2f} of one after another")


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 2)
    tyro.cli(main)
