"""What several processes on one mesh agree on, and how they part: one that is told of others."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

import vaejax
from tests.lib.training import XS, fit
from vaejax.training import calls, processes
from vaejax.training.processes import LostProcessError, agreed, fetched
from vaejax.training.saving import Checkpoints

MESH = Mesh(np.array(jax.devices()[:2]), "data")


@pytest.fixture
def of_several(monkeypatch):
    for module in (processes, calls):
        monkeypatch.setattr(module, "is_shared", lambda mesh: True)


def gathered_with(monkeypatch, *others):
    """As if the other processes gave these."""

    def process_allgather(mine):
        return np.stack([mine, *map(np.array, others)])

    monkeypatch.setattr(processes.multihost_utils, "process_allgather", process_allgather)


def test_one_process_asks_nobody():
    assert agreed(MESH, 7, 15, True) == (7, 15, True)
    assert agreed(None, 7, None, False) == (7, None, False)


def test_the_least_count_any_signal_and_any_stop(monkeypatch, of_several):
    gathered_with(monkeypatch, [-9, 0, False], [-3, 15, False])
    assert agreed(MESH, 7, None, False) == (3, 15, False)
    gathered_with(monkeypatch, [-9, 0, True])
    assert agreed(MESH, 7, None, False) == (7, None, True)


def test_training_that_agrees_gives_the_same_bits(monkeypatch, of_several):
    """Whatever the clocks of the others say: calls of 3 steps at most."""
    gathered_with(monkeypatch, [-3, 0, False])
    run = fit(20, mesh=MESH)
    monkeypatch.undo()
    np.testing.assert_array_equal(run.history["bound"], fit(20, mesh=MESH).history["bound"])


def test_a_signal_to_another_process_ends_this_one_too(monkeypatch, of_several, tmp_path):
    gathered_with(monkeypatch, [-3, 15, False])
    with pytest.raises(SystemExit) as stopped:
        fit(20, mesh=MESH)
    assert stopped.value.code == 143


def test_a_process_that_is_lost_is_said_and_the_checkpoint_serves(
    monkeypatch, of_several, tmp_path
):
    advance = calls.CallsOfFit.advance

    def breaking(self, run, due):
        if run.step >= 8:
            raise jax.errors.JaxRuntimeError("Gloo: connection reset by peer\nand more")
        return advance(self, run, due)

    monkeypatch.setattr(calls.CallsOfFit, "advance", breaking)
    remedy = r"process 0 of 1 waits .* resume=True: they go on from step 8 \(Gloo: .* peer\)"
    with pytest.raises(LostProcessError, match=remedy):
        fit(20, mesh=MESH, checkpoints=Checkpoints(tmp_path, every=4))
    with pytest.raises(LostProcessError, match="give checkpoints="):
        fit(20, mesh=MESH)
    monkeypatch.undo()
    resumed = fit(20, mesh=MESH, checkpoints=Checkpoints(tmp_path, every=4, resume=True))
    np.testing.assert_array_equal(resumed.history["bound"], fit(20, mesh=MESH).history["bound"])


def test_arrays_are_fetched_whole():
    rule = vaejax.FullyShardedDataParallel(at_least=1)
    run = fit(1, mesh=MESH, sharding=rule)
    for leaf, host in zip(*map(jax.tree.leaves, (run.params, fetched(run.params))), strict=True):
        assert isinstance(host, np.ndarray) and host.shape == leaf.shape
        np.testing.assert_array_equal(host, np.asarray(leaf))
    assert fetched({"x": XS})["x"].dtype == XS.dtype
