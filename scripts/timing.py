"""What the benchmarks share: runs that take turns in one process, so that a machine's drift falls
on all alike.
"""

import time
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

Clock = Literal["wall", "cpu"]
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}  # "cpu" where others run too


def seconds(run: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    began = clock()
    run()
    return clock() - began


def take_turns(
    runs: Mapping[str, Callable[[], object]],
    repeats: int,
    clock: Clock = "wall",
) -> dict[str, np.ndarray]:
    """The seconds of each run, `repeats` times in turn, after one of each that is not counted,
    since it compiles.
    """
    for run in runs.values():
        run()
    turns = [
        {name: seconds(run, CLOCKS[clock]) for name, run in runs.items()} for _ in range(repeats)
    ]
    return {name: np.array([turn[name] for turn in turns]) for name in runs}
