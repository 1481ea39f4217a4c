"""A run is the same bits, wherever it was cut and whichever process goes on."""

import hashlib
import json
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from tests.lib.paths import ROOT
from tests.lib.training import KEY, PARAMS, XS, checkpointed, digest, fit
from vaejax.training.checkpoints import CheckpointMismatchError, CheckpointStore
from vaejax.training.run import NO_HISTORY, Run, arrays_of, completed, with_arrays
from vaejax.training.saving import saved_runs

RESUME = """
import sys, json
sys.path.insert(0, sys.argv[1])
from tests.lib.training import checkpointed, digest
for cut in map(int, sys.argv[3:]):
    run = checkpointed(f"{sys.argv[2]}/{cut}", resume=True)
    print(json.dumps({"cut": cut, "digest": digest(run)}))
"""


@pytest.mark.parametrize(
    "cuts", [(1, 10, 19), pytest.param(range(1, 20), marks=pytest.mark.slow)], ids=["some", "every"]
)
def test_resumed_at_every_cut_in_a_new_process(tmp_path, cuts):
    whole = digest(checkpointed(tmp_path / "whole"))
    for cut in cuts:
        for step in range(1, cut + 1):
            shutil.copytree(tmp_path / "whole" / str(step), tmp_path / str(cut) / str(step))
    command = [sys.executable, "-c", RESUME, str(ROOT), str(tmp_path), *map(str, cuts)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    digests = {row["cut"]: row["digest"] for row in map(json.loads, done.stdout.splitlines())}
    assert digests == dict.fromkeys(cuts, whole)


def test_a_finished_run_resumes_to_itself_and_can_be_made_longer(tmp_path):
    short = checkpointed(tmp_path, 8)
    assert digest(checkpointed(tmp_path, 8, resume=True)) == digest(short)
    assert digest(checkpointed(tmp_path, 20, resume=True)) == digest(checkpointed(None, 20))


def test_checkpoints_of_before_go_on(tmp_path):
    """They have no `objective` in their history, which is the bound, and what they must agree in
    was written as here.
    """
    run = checkpointed(None, 8)
    config = {
        "batch_size": 100,
        "key": jax.random.key_data(KEY).tolist(),
        "data": hashlib.sha256(f"{XS.shape} {XS.dtype}".encode() + XS.tobytes()).hexdigest(),
    }
    old = {name: values for name, values in run.history.items() if name != "objective"}
    with CheckpointStore(tmp_path, config) as store:
        store.save(8, arrays_of(run), old)
    optimizer = optax.adamw(optax.cosine_decay_schedule(1e-2, 20))
    seen = saved_runs(tmp_path, PARAMS, optimizer, validated=True)[8]
    np.testing.assert_array_equal(seen.history["objective"], run.history["bound"])
    assert digest(checkpointed(tmp_path, 20, resume=True)) == digest(checkpointed(None, 20))


def test_a_history_is_restored_as_it_was():
    """What was maximised and the bound are two things, and what was not saved is empty."""
    bound, objective = np.arange(3, dtype=np.float32), 10 + np.arange(3, dtype=np.float32)
    history = completed({"bound": bound, "objective": objective})
    np.testing.assert_array_equal(history["objective"], objective)
    np.testing.assert_array_equal(completed({"bound": bound})["objective"], bound)
    assert history.keys() == NO_HISTORY.keys() and len(history["validation_step"]) == 0


def test_the_best_parameters_are_saved_beside_the_last(tmp_path):
    params, best = {"w": jnp.ones(2)}, {"w": jnp.full(2, 7.0)}
    run = Run(params, (), 3, NO_HISTORY | {"bound": np.zeros(3, np.float32)}, best)
    with CheckpointStore(tmp_path) as store:
        store.save(3, arrays_of(run), run.history)
        store.wait()
        step, arrays, _ = store.restore(arrays_of(run))
    restored = with_arrays(run, arrays)
    assert step == 3 and restored.best_params["w"].tolist() == [7.0, 7.0]
    assert restored.params["w"].tolist() == [1.0, 1.0]


def test_saved_runs_are_those_that_were_kept(tmp_path):
    steps = []
    checkpoints = vaejax.Checkpoints(tmp_path, every=5, max_to_keep=2)
    whole = fit(20, checkpoints=checkpoints, callback=lambda run: steps.append(run.step))
    runs = saved_runs(tmp_path, PARAMS, optax.adam(1e-3), validated=False)
    assert list(runs) == [15, 20] and digest(runs[20]) == digest(whole)
    assert len(runs[15].history["bound"]) == 15
    with pytest.raises(ValueError, match="is no folder of checkpoints"):
        saved_runs(tmp_path / "none", PARAMS, optax.adam(1e-3), validated=False)


def test_a_run_is_not_written_over(tmp_path):
    fit(3, checkpoints=vaejax.Checkpoints(tmp_path))
    with pytest.raises(
        ValueError, match="already holds step 3: resume, by .*resume=True.*, or name another folder"
    ):
        fit(3, checkpoints=vaejax.Checkpoints(tmp_path))


CHANGES = {
    "batch_size": ({"batch_size": 16}, "batch_size: saved 32, now 16"),
    "key": ({"key": jax.random.key(9)}, r"key: saved \[0, 1\], now \[0, 9\]"),
    "data": ({"data": XS[:100]}, "another configuration: data: saved"),
    "data of a source": ({"data": vaejax.Arrays(XS[:100])}, "another configuration: data: saved"),
    "config": ({"config": {"learning_rate": 0.1}}, "learning_rate: saved 0.001, now 0.1"),
    "optimizer": ({"optimizer": optax.sgd(0.1)}, "another model"),
}


@pytest.mark.parametrize("change, message", CHANGES.values(), ids=CHANGES)
def test_resuming_with_another_configuration_names_the_field(tmp_path, change, message):
    config = {"learning_rate": 0.001}
    fit(3, checkpoints=vaejax.Checkpoints(tmp_path, config=config))
    config = change.get("config", config)
    again = vaejax.Checkpoints(tmp_path, resume=True, config=config)
    changed = {name: value for name, value in change.items() if name != "config"}
    with pytest.raises(CheckpointMismatchError, match=message):
        fit(6, checkpoints=again, **changed)


@pytest.mark.parametrize("name", ["every", "max_to_keep"])
def test_mistakes_are_refused_when_it_is_made(tmp_path, name):
    with pytest.raises(ValueError, match=f"Checkpoints.{name} = 0; it must be a whole number"):
        vaejax.Checkpoints(tmp_path, **{name: 0})
