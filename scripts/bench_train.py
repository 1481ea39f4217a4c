"""Training speed: `vaejax.fit` against a hand-written JAX loop, NumPyro's and, where they are
installed, a plain PyTorch loop and Pythae's.

    python scripts/bench_train.py                    # all four workloads, about 10 minutes on two
                                                     cores
    python scripts/bench_train.py --workloads W2 W4 --repeats 9

The systems (scripts/workloads.py, scripts/peers.py) take turns in one process, each timed over a
whole run of the same number of steps from a warm start; what is reported is the median of the
ratios of neighbouring turns, for absolute speeds drift with the machine. Nothing else may run;
where it does, `--clock cpu` compares the time of the processor.
"""

import platform
from pathlib import Path

import jax
import numpy as np
import tyro
from peers import PEERS, systems_of, torch_version
from timing import Clock, take_turns
from workloads import WORKLOADS, binary_images

from vaejax.runs.files import json_text


def main(
    workloads: tuple[str, ...] = tuple(WORKLOADS), repeats: int = 7, clock: Clock = "wall"
) -> None:
    """Times the workloads and prints a table.

    Args:
      workloads: Which of W1 to W4.
      repeats: How many turns each system takes.
    """
    jax.config.update("jax_compilation_cache_dir", str(Path("~/.cache/vaejax/xla").expanduser()))
    data = binary_images()
    print(
        f"{platform.processor() or platform.machine()}, {jax.devices()}, jax {jax.__version__},"
        f" torch {torch_version()}"
    )
    titles = ["workload", "fit, examples/s", *(f"fit / {peer}" for peer in PEERS)]
    print(f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
    results = {}
    for name in workloads:
        workload = WORKLOADS[name]
        times = take_turns(systems_of(workload, data), repeats, clock)
        ratios = {
            system: float(np.median(np.divide(times[system], times["fit"]))) for system in times
        }
        speed = workload.num_steps * workload.batch_size / float(np.median(times["fit"]))
        results[name] = {
            "examples_per_second": speed,
            **{f"fit / {system}": ratio for system, ratio in ratios.items() if system != "fit"},
        }
        cells = [f"{ratios[peer]:.2f}" if peer in ratios else "-" for peer in PEERS]
        print(f"| {name} | {speed:,.0f} | {' | '.join(cells)} |", flush=True)
    print(json_text(results))


if __name__ == "__main__":
    tyro.cli(main)
