"""Which of several ways to compute the same is the fastest here, by trying each."""

import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from vaejax.base.types import PyTree

Choice = TypeVar("Choice", bound=str)

TRIAL_SECONDS = 0.1  # that a way is timed for, twice, after its first step
NO_MEMORY = "RESOURCE_EXHAUSTED"  # how JAX's error begins where a device has not enough of it


_CHOSEN: dict[Hashable, Any] = {}  # {(what is computed, the ways): the fastest of these}


def fastest(
    ways: Sequence[Choice],
    trial: Callable[[Choice], Callable[[int], Any]],
    most_steps: int,
    computed: Hashable,
) -> Choice:
    """The way whose steps take the least time; `trial(way)(count)` computes so many of them, up to
    `most_steps`, and waits for them. The first of each is not counted, since it compiles.

    A way that needs more memory than the device has is passed over. Where there is one alone, it is
    not tried. The choice is made once in a process for each `computed`, which says what is, so
    that the same call again gives the same bits.
    """
    if len(ways) == 1:
        return ways[0]
    question = computed, tuple(ways)
    if question not in _CHOSEN:
        _CHOSEN[question] = _tried(ways, trial, most_steps)
    return _CHOSEN[question]


def _tried(
    ways: Sequence[Choice], trial: Callable[[Choice], Callable[[int], Any]], most_steps: int
) -> Choice:
    times, failed = {}, None
    for way in ways:
        try:
            times[way] = seconds_of_a_step(trial(way), most_steps)
        except jax.errors.JaxRuntimeError as error:
            if not str(error).startswith(NO_MEMORY):
                raise
            failed = error
    if failed is not None and not times:
        raise failed
    return min(times, key=lambda way: times[way])


def seconds_of_a_step(compute: Callable[[int], Any], most_steps: int) -> float:
    """Of as many steps as fill the time of a trial: the shorter of two tries."""
    compute(1)
    count = max(1, min(most_steps, int(TRIAL_SECONDS / _seconds(compute, 1))))
    return min(_seconds(compute, count) for _ in range(2)) / count


def forms(tree: PyTree) -> Hashable:
    """The shapes and dtypes of its arrays: what a program is compiled for."""
    return tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in jax.tree.leaves(tree))


def _seconds(compute: Callable[[int], Any], count: int) -> float:
    began = time.perf_counter()
    compute(count)
    return time.perf_counter() - began
