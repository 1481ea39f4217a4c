"""Training from a file on disk against training from memory: the examples of W1 in a `np.memmap`,
read by `vaejax.fit` while its steps run.

    python scripts/bench_source.py                 # two minutes on two cores; nothing else may run
    python scripts/bench_source.py --clock cpu     # by the time of the processor, where others run

The two take turns in one process (scripts/timing.py), and what is reported is the median of the
ratios of neighbouring turns; 1 is as fast as from memory. By the time of the processor a ratio says
what reading costs, and not what of it is hidden behind the steps.
"""

import tempfile
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import tyro
from timing import Clock, take_turns
from workloads import WORKLOADS, binary_images, vaejax_run

from vaejax.runs.files import json_text


def main(
    workload: Literal["W1", "W2", "W3", "W4"] = "W1",
    repeats: int = 9,
    clock: Clock = "wall",
) -> None:
    """Prints the median ratio of speeds over `repeats` turns."""
    images, work = binary_images(), WORKLOADS[workload]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        np.save(path, images)
        runs = {
            "memory": vaejax_run(work, images),
            "disk": vaejax_run(work, np.load(path, mmap_mode="r")),
        }
        times = take_turns(runs, repeats, clock)
    ratios = times["memory"] / times["disk"]
    result = {
        "workload": workload,
        "clock": clock,
        "examples_per_second": work.num_steps * work.batch_size / np.median(times["disk"]),
        "disk / memory": np.median(ratios),
        "lowest and highest": [ratios.min(), ratios.max()],
    }
    print(f"{jax.devices()}, jax {jax.__version__}\n{json_text(result)}")


if __name__ == "__main__":
    tyro.cli(main)
