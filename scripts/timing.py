"""What the benchmarks share: runs that take turns in one process, so that a machine's drift falls
on all alike.
"""

import time
from collections.abc import Callable, Mapping

import numpy as np


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def take_turns(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, np.ndarray]:
    """The seconds of each run, `repeats` times in turn, after one of each that is not counted,
    since it compiles.
    """
    for run in runs.values():
        run()
    turns = [{name: seconds(run) for name, run in runs.items()} for _ in range(repeats)]
    return {name: np.array([turn[name] for turn in turns]) for name in runs}
