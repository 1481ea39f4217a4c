"""What several processes tell each other, and how they part: one that is told of others."""

import json
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

import vaejax
from tests.lib.training import XS, fit
from vaejax.base import processes
from vaejax.base.devices import fetched, of_this_process
from vaejax.base.processes import ALL, ALONE, LostProcessError, OtherProcessError, Processes
from vaejax.training import calls
from vaejax.training import fit as fitting
from vaejax.training.saving import Checkpoints

MESH = Mesh(np.array(jax.devices()[:2]), "data")


@pytest.fixture
def of_several(monkeypatch):
    monkeypatch.setattr(fitting, "processes_of", lambda mesh: ALL)


def told_too(monkeypatch, *others):
    """As if the other processes told these."""

    def process_allgather(row):
        texts = [json.dumps(other).encode() for other in others]
        messages = [len(text).to_bytes(processes.LENGTH_BYTES) + text for text in texts]
        rows = [message[: len(row)].ljust(len(row), b"\0") for message in messages]
        return np.stack([row, *(np.frombuffer(other, np.uint8) for other in rows)])

    monkeypatch.setattr(processes.multihost_utils, "process_allgather", process_allgather)


def agreeing(monkeypatch, *answers):
    """As if others gave these where they agree, and were as well as this one elsewhere."""

    def told(self, mine):
        return [mine, *answers] if isinstance(mine, tuple) else [mine]

    monkeypatch.setattr(Processes, "told", told)


def test_one_process_asks_nobody():
    assert ALONE.told("x") == ["x"] and ALONE.is_first
    with ALONE.together(), ALONE.by_first(ALONE.together()):
        pass


def test_all_are_told(monkeypatch):
    told_too(monkeypatch, [9, None, False], None)
    assert ALL.told((7, 15, True)) == [[7, 15, True], [9, None, False], None]


@pytest.mark.parametrize("mine, other", [(3, "x" * 10_000), ("y" * 4_090, 0), ("z" * 4_085, "")])
def test_all_are_told_of_any_length(mine, other, monkeypatch):
    told_too(monkeypatch, other)
    assert ALL.told(mine) == [mine, other]


def test_the_least_count_any_signal_and_any_stop(monkeypatch):
    told_too(monkeypatch, [9, None, False], [3, 15, False])
    calls: Any = SimpleNamespace(count=7)
    signals: Any = SimpleNamespace(received=None)
    callbacks: Any = SimpleNamespace(stopped=False)
    fitting._agreed_to_stop(ALL, calls, signals, callbacks)
    assert (calls.count, signals.received, callbacks.stopped) == (3, 15, False)
    signals.received = 2  # Ctrl-C here, and a SIGTERM there: all leave by one of them
    told_too(monkeypatch, [9, 15, False])
    fitting._agreed_to_stop(ALL, calls, signals, callbacks)
    assert signals.received == 15
    told_too(monkeypatch, [9, None, True])
    fitting._agreed_to_stop(ALL, calls, signals, callbacks)
    assert (calls.count, signals.received, callbacks.stopped) == (3, 15, True)


def test_what_fails_in_one_fails_in_all(monkeypatch):
    told_too(monkeypatch, "OSError: the disk is full")
    message = "process 1 of 2 ended all: OSError: the disk is full"
    with pytest.raises(OtherProcessError, match=message), ALL.together():
        pass
    with pytest.raises(ValueError, match="mine"), ALL.together():
        raise ValueError("mine")
    told_too(monkeypatch, None)
    with ALL.together():
        pass
    with pytest.raises(ValueError, match="mine"), ALL.together():
        raise ValueError("mine")


def test_long_errors_fit_into_what_is_told(monkeypatch):
    told_too(monkeypatch, None)
    with pytest.raises(ValueError), ALL.together():
        raise ValueError("ÿ" * 100_000)


def test_training_that_agrees_gives_the_same_bits(monkeypatch, of_several):
    """Whatever the clocks of the others say: calls of 3 steps at most."""
    agreeing(monkeypatch, (3, None, False))
    run = fit(20, mesh=MESH)
    monkeypatch.undo()
    np.testing.assert_array_equal(run.history["bound"], fit(20, mesh=MESH).history["bound"])


def test_a_signal_to_another_process_ends_this_one_too(monkeypatch, of_several):
    agreeing(monkeypatch, (3, 15, False), (2, None, False))
    with pytest.raises(SystemExit) as stopped:
        fit(20, mesh=MESH)
    assert stopped.value.code == 143


def test_a_callback_of_another_process_stops_this_one_too(monkeypatch, of_several):
    agreeing(monkeypatch, (3, None, True))
    assert fit(20, mesh=MESH).step == 0


@pytest.mark.parametrize(
    "error",
    [
        jax.errors.JaxRuntimeError("INTERNAL: connection reset by peer\nand more"),
        ValueError("UNKNOWN: Gloo AllGather failed: connection reset by peer"),
    ],
    ids=["JAX", "where the result is read"],
)
def test_a_process_that_is_lost_is_said_and_the_checkpoint_serves(
    error, monkeypatch, of_several, tmp_path
):
    advance = calls.CallsOfFit.advance

    def breaking(self, run, due):
        if run.step >= 8:
            raise error
        return advance(self, run, due)

    monkeypatch.setattr(calls.CallsOfFit, "advance", breaking)
    agreeing(monkeypatch)
    remedy = r"process 0 of 1 waits .* resume=True: they go on from step 8 \(.* reset by peer\)"
    with pytest.raises(LostProcessError, match=remedy) as lost:
        fit(20, mesh=MESH, checkpoints=Checkpoints(tmp_path, every=4))
    assert vars(lost.value)["run"].step == 8
    with pytest.raises(LostProcessError, match="give checkpoints="):
        fit(20, mesh=MESH)
    monkeypatch.undo()
    resumed = fit(20, mesh=MESH, checkpoints=Checkpoints(tmp_path, every=4, resume=True))
    np.testing.assert_array_equal(resumed.history["bound"], fit(20, mesh=MESH).history["bound"])


def test_an_error_of_one_device_is_no_lost_process(monkeypatch, of_several):
    def full(self, run, due):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(calls.CallsOfFit, "advance", full)
    agreeing(monkeypatch)
    with pytest.raises(jax.errors.JaxRuntimeError, match="out of memory"):
        fit(2, mesh=MESH)


def test_arrays_are_fetched_whole():
    rule = vaejax.FullyShardedDataParallel(at_least=1)
    run = fit(1, mesh=MESH, sharding=rule)
    for leaf, host in zip(*map(jax.tree.leaves, (run.params, fetched(run.params))), strict=True):
        assert isinstance(host, np.ndarray) and host.shape == leaf.shape
        np.testing.assert_array_equal(host, np.asarray(leaf))
    assert fetched({"x": XS})["x"].dtype == XS.dtype
    assert of_this_process(run.params) == run.params  # they lie with it
    jax.eval_shape(of_this_process, run.params)
