"""A run is the same bits, wherever it was cut and whichever process goes on."""

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import optax
import pytest

import vaejax
from tests.lib.cases import cases
from tests.lib.paths import ROOT, contents
from tests.lib.training import (
    KEY,
    MODEL,
    OBJECTIVE,
    PARAMS,
    PIXELS,
    XS,
    checkpointed,
    digest,
    fit,
)
from vaejax.base.describe import digest_of
from vaejax.training.checkpoints import CheckpointError, CheckpointMismatchError, CheckpointStore
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


def saved(folder, objective=OBJECTIVE, transform=PIXELS, optimizer=None, validated=False, **data):
    optimizer = optax.adam(1e-3) if optimizer is None else optimizer
    parts = {"transform": transform, "validated": validated, **data}
    return saved_runs(folder, objective, PARAMS, optimizer, **parts)


def as_before(folder):
    """The record of a step as the revision before wrote it."""
    path = folder / "record" / "metadata"
    record = json.loads(path.read_text()) | {"format": 1}
    for name in ("step", "of", "digest"):
        del record[name]
    path.write_text(json.dumps(record | {"digest": digest_of(record)}))
    (folder / "digests.json").unlink()


def test_checkpoints_of_before_go_on(tmp_path):
    """They have no `objective` in their history, which is the bound, and what they must agree in
    was written as here. What they did not keep is said, once.
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
    as_before(tmp_path / "8")
    optimizer = optax.adamw(optax.cosine_decay_schedule(1e-2, 20))
    with pytest.warns(UserWarning, match="kept no objective, transform: they could not be"):
        seen = saved(tmp_path, optimizer=optimizer, validated=True)[8]
    np.testing.assert_array_equal(seen.history["objective"], run.history["bound"])
    with pytest.raises(CheckpointMismatchError, match="another configuration: key: saved"):
        checkpointed(tmp_path, 20, resume=True, key=jax.random.key(9))
    with pytest.warns(UserWarning, match="earlier revision") as caught:
        resumed = checkpointed(tmp_path, 20, resume=True)
    assert digest(resumed) == digest(checkpointed(None, 20))
    said = [
        str(warning.message) for warning in caught if "earlier revision" in str(warning.message)
    ]
    assert len(said) == 1 and "kept no settings, objective, transform, optimizer" in said[0]


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
    whole = fit(20, checkpoints=checkpoints, callbacks=(lambda run: steps.append(run.step),))
    runs = saved(tmp_path)
    assert list(runs) == [15, 20] and digest(runs[20]) == digest(whole)
    assert len(runs[15].history["bound"]) == 15
    with pytest.raises(ValueError, match="is not a folder of checkpoints"):
        saved(tmp_path / "none")


def test_a_run_is_not_written_over(tmp_path):
    fit(3, checkpoints=vaejax.Checkpoints(tmp_path))
    with pytest.raises(
        ValueError, match="already holds step 3: resume, by .*resume=True.*, or name another folder"
    ):
        fit(3, checkpoints=vaejax.Checkpoints(tmp_path))


def objective_of(estimator=vaejax.Pathwise(), **parts):
    return {"objective": vaejax.minibatch(estimator, dataclasses.replace(MODEL, **parts))}


def net(**parts):
    return vaejax.MLP((8, 8), (16,), **parts)


def adam(*arguments, **settings):
    return {"optimizer": optax.adam(*arguments, **settings)}


CHANGES = {
    "batch_size": ({"batch_size": 16}, "batch_size: saved 32, now 16"),
    "key": ({"key": jax.random.key(9)}, r"key: saved \[0, 1\], now \[0, 9\]"),
    "data": ({"data": XS[:100]}, "by another run: data: saved"),
    "data of a source": ({"data": vaejax.Arrays(XS[:100])}, "by another run: data: saved"),
    "config": ({"config": {"learning_rate": 0.1}}, "learning_rate: saved 0.001, now 0.1"),
    "data in the config": ({"config": {"learning_rate": 0.001, "data": "other"}}, "data: saved no"),
    "optimizer": ({"optimizer": optax.sgd(0.1)}, "optimizer.init.*: saved optax"),
    "learning rate": (adam(1e-2), r"optimizer.*.step_size: saved -0.001, now -0.01"),
    "schedule": (adam(optax.constant_schedule(1e-3)), "optimizer.*now optax.scale_by_schedule"),
    "momentum": (adam(1e-3, b1=0.8), "optimizer.*.b1: saved 0.9, now 0.8"),
    "own schedule": (adam(lambda step: 1e-3), "optimizer"),
    "activation": (
        objective_of(likelihood=vaejax.Bernoulli(net(activation=nn.relu))),
        "objective.example.model.likelihood.net.activation: saved jax.numpy.tanh, now jax.nn.relu",
    ),
    "prior": (
        objective_of(prior=vaejax.NumPyroPrior(lambda: npd.Normal(0, 1).expand([2]).to_event(1))),
        "objective.example.model.prior: saved vaejax.StandardNormal, now vaejax.NumPyroPrior",
    ),
    "estimator": (
        objective_of(vaejax.StickTheLanding()),
        "objective.example.estimator: saved vaejax.Pathwise, now vaejax.StickTheLanding",
    ),
    "samples": (objective_of(vaejax.Pathwise(2)), "estimator.num_samples: saved 1, now 2"),
    "weight": (objective_of(vaejax.Beta(2.0)), "example.estimator: saved vaejax.Pathwise, now vae"),
    "scale": (
        {"objective": vaejax.minibatch(vaejax.Pathwise(), MODEL, dataset_size=9)},
        "objective.dataset_size: saved None, now 9",
    ),
    "transform": (
        {"transform": vaejax.Pixels(16, "threshold")},
        "transform.policy: saved dynamic, now threshold",
    ),
    "own transform": (
        {"transform": lambda x, key: (x > 7) * 1.0},
        "transform: saved vaejax.Pixels",
    ),
    "no transform": ({"transform": None, "data": (XS > 7) * 1.0}, "transform: saved .*, now None"),
}


@pytest.mark.parametrize("case", cases(CHANGES))
def test_resuming_as_another_run_names_the_difference(trained, case):
    """Before a step is run, and with nothing changed on disk."""
    change, message = case
    config = change.get("config", {"learning_rate": 0.001})
    again = vaejax.Checkpoints(trained, resume=True, config=config)
    changed = {name: value for name, value in change.items() if name != "config"}
    before = contents(trained)
    with pytest.raises(CheckpointMismatchError, match=message) as error:
        fit(6, checkpoints=again, **changed)
    assert "\n" not in str(error.value)
    assert contents(trained) == before


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of 3 steps."""
    folder = tmp_path_factory.mktemp("trained")
    fit(3, checkpoints=vaejax.Checkpoints(folder, config={"learning_rate": 0.001}))
    return folder


def test_what_is_free_to_change_changes_nothing(trained, tmp_path):
    """The length, the validation, the period of the checkpoints, the callback and the mesh; and
    what is typed anew is the same.
    """
    folder = shutil.copytree(trained, tmp_path / "copy")
    again = vaejax.Checkpoints(folder, every=2, resume=True, config={"learning_rate": 0.001})
    settings = {
        **objective_of(likelihood=vaejax.Bernoulli(net())),
        **adam(1e-3),
        "transform": vaejax.Pixels(16),
        "data": vaejax.Arrays(XS),
        "callbacks": (lambda run: None,),
        "mesh": jax.make_mesh((1,), ("data",)),
    }
    assert digest(fit(6, checkpoints=again, **settings)) == digest(fit(6))


def test_saved_runs_are_held_against_what_they_are_read_for(trained):
    """Its parameters do not come out as those of another model, however the shapes agree."""
    assert list(saved(trained, data=XS)) == [3]
    before = contents(trained)
    for name in ("activation", "estimator", "transform", "prior"):
        change, message = CHANGES[name]
        with pytest.raises(CheckpointMismatchError, match=message):
            saved(trained, **change)
    with pytest.raises(CheckpointMismatchError, match="data: saved") as error:
        saved(trained, data=XS[:100])
    assert error.value.parts == ("data",)
    assert contents(trained) == before


def test_a_damaged_step_is_left_out_of_the_saved_runs(tmp_path):
    """Whichever it is, with a warning, and without a change of the folder."""
    fit(20, checkpoints=vaejax.Checkpoints(tmp_path, every=5, max_to_keep=3))
    (tmp_path / "15" / "state" / "_METADATA").write_text("")
    before = contents(tmp_path)
    with pytest.warns(UserWarning, match="a checkpoint is left out: step 15: "):
        assert list(saved(tmp_path)) == [10, 20]
    (tmp_path / "20" / "record" / "metadata").write_text("")
    (tmp_path / "10" / "record" / "metadata").write_text("")
    with (
        pytest.warns(UserWarning, match="step 20: "),
        pytest.raises(CheckpointError, match="no intact .*step 10: "),
    ):
        saved(tmp_path)
    assert before.keys() == contents(tmp_path).keys()


@pytest.mark.parametrize("name", ["every", "max_to_keep"])
def test_mistakes_are_refused_when_it_is_made(tmp_path, name):
    with pytest.raises(ValueError, match=f"Checkpoints.{name} = 0; it must be a whole number"):
        vaejax.Checkpoints(tmp_path, **{name: 0})
