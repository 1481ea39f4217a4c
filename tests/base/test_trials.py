"""The fastest of several ways is the one that was measured to be."""

import itertools
from unittest import mock

import jax
import pytest

from vaejax.base import trials

NUMBER = itertools.count()  # of what is computed: something else each time


def clock(monkeypatch, seconds):
    """Ways that take so many seconds for a step, ten for the first, which compiles; and what was
    asked of each.
    """
    now, asked = [0.0], {way: [] for way in seconds}
    monkeypatch.setattr(trials.time, "perf_counter", lambda: now[0])

    def trial(way):
        def compute(count):
            now[0] += seconds[way] * count + (0 if asked[way] else 10)
            asked[way].append(count)

        return compute

    return trial, asked


@pytest.mark.parametrize("quick", ["map", "vmap", "cores"])
def test_the_way_that_took_the_least_time(quick, monkeypatch):
    seconds = {"map": 0.004, "vmap": 0.003, "cores": 0.005} | {quick: 0.002}
    trial, asked = clock(monkeypatch, seconds)
    assert trials.fastest(list(seconds), trial, 30, next(NUMBER)) == quick
    assert asked[quick] == [1, 1, 30, 30]  # no more than it may


def test_a_long_step_is_taken_thrice(monkeypatch):
    trial, asked = clock(monkeypatch, {"map": 7.0, "vmap": 8.0})
    assert trials.fastest(["map", "vmap"], trial, 30, next(NUMBER)) == "map"
    assert asked["map"] == [1, 1, 1, 1]


def test_one_way_alone_is_not_tried():
    assert trials.fastest(["map"], mock.Mock(side_effect=AssertionError), 30, next(NUMBER)) == "map"


def test_what_needs_too_much_memory_is_passed_over(monkeypatch):
    def full(way, message="RESOURCE_EXHAUSTED: 300 GiB"):
        if way != "map":
            raise jax.errors.JaxRuntimeError(message)
        return lambda count: None

    monkeypatch.setattr(trials, "seconds_of_a_step", lambda compute, most_steps: 1.0)
    assert trials.fastest(["vmap", "map"], full, 30, next(NUMBER)) == "map"
    with pytest.raises(jax.errors.JaxRuntimeError, match="300 GiB"):
        trials.fastest(["vmap", "cores"], full, 30, next(NUMBER))
    with pytest.raises(jax.errors.JaxRuntimeError, match="a fault"):
        trials.fastest(
            ["vmap", "map"], lambda way: full(way, "INTERNAL: a fault"), 30, next(NUMBER)
        )


def test_what_was_chosen_once_stays(monkeypatch):
    """For the same, and the same ways; what is computed else is tried anew."""
    trial, _ = clock(monkeypatch, {"map": 0.003, "vmap": 0.002})
    question = "a program"
    assert trials.fastest(["map", "vmap"], trial, 30, question) == "vmap"
    slower, _ = clock(monkeypatch, {"map": 0.002, "vmap": 0.003})
    assert trials.fastest(["map", "vmap"], slower, 30, question) == "vmap"
    assert trials.fastest(["map", "vmap"], slower, 30, "another") == "map"
