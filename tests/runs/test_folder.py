"""A run on disk: opened again, and what may be written where."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

import vaejax
from tests.lib.paths import contents
from tests.lib.runs import SMALL, train
from vaejax.data.base import Split
from vaejax.runs import build, prepared
from vaejax.runs import train as training
from vaejax.runs.build import load_data
from vaejax.runs.config import TrainConfig
from vaejax.runs.continuation import saved_config
from vaejax.runs.folder import (
    evaluated_params,
    evaluated_step,
    require_same_data,
)
from vaejax.runs.logs import MetricsLog
from vaejax.training.run import NO_HISTORY, Run

FLAGS = ["--prior", "vamp:3", "--patience", "9"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of 60 steps, validated and saved at 20, 40 and 60."""
    folder = tmp_path_factory.mktemp("runs") / "vamp"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.config, "update", lambda *settings: None)  # no compilation cache
        patch.setattr("vaejax.runs.train.drawn", lambda figures, out: {})
        assert train(*SMALL, *FLAGS, "--out", str(folder)) == 0
    return folder


def same(first, second):
    return all(map(np.array_equal, jax.tree.leaves(first), jax.tree.leaves(second)))


def test_an_open_run_has_all_of_it(folder):
    run = vaejax.open_run(folder)
    assert run.config.prior == "vamp:3" and run.config.hidden == (16,)
    assert isinstance(run.model, vaejax.VAE) and run.model.prior == vaejax.VampPrior(3)
    assert run.step == 60 and sorted(run.checkpoints) == [20, 40, 60]
    assert len(run.history["bound"]) == 60 and len(run.history["validation_bound"]) == 3
    assert run.dataset.name == "digits" and len(run.dataset.test.images) == 300
    x = run.transform(run.dataset.test.images[0], jax.random.key(0))
    assert np.isfinite(vaejax.elbo(run.model, run.params, x, jax.random.key(1)))
    assert repr(run) == f"OpenRun({str(folder)!r}, step=60, model={run.model!r})"
    assert repr(run.checkpoints[60]).startswith("Run(step=60, history of bound, objective,")


def test_its_parameters_are_those_of_the_validation_that_its_history_says(folder):
    """The validation bound, computed anew, is that of the step with the name."""
    run = vaejax.open_run(folder)
    best = int(run.history["validation_bound"].argmax())
    assert same(run.params, run.params_at("best"))  # it had a patience
    assert same(run.params_at("best"), run.params_at([20, 40, 60][best]))
    assert same(run.params_at("last"), run.params_at(60))
    assert not same(run.params_at(20), run.params_at(40))
    assert same(vaejax.open_run(folder, "last").params, run.params_at("last"))
    assert same(vaejax.open_run(str(folder), params=20).params, run.params_at(20))


def test_config_json_holds_the_run_whole(folder):
    """Model, objective, transform and optimiser, also what no flag says."""
    facts = json.loads((folder / "config.json").read_text())
    assert facts["model"]["likelihood"]["net"]["activation"] == {"function": "jax.nn.relu"}
    assert facts["objective"]["example"] == {
        "class": "vaejax.objectives.base.PerExample",
        "estimator": facts["objective"]["example"]["estimator"],
        "model": facts["model"],
    }
    assert facts["objective"]["example"]["estimator"]["class"] == "vaejax.Pathwise"
    assert facts["transform"] == {"class": "vaejax.Pixels", "maximum": 16, "policy": "dynamic"}
    assert '"step_size": -0.001' in json.dumps(facts["optimizer"])


def test_another_model_than_the_run_had_is_not_opened(folder, tmp_path):
    """As where a default changes between two versions, here in config.json and in the library."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    path = copy / "config.json"
    facts = json.loads(path.read_text())
    facts["model"]["likelihood"]["net"]["activation"] = {"function": "jax.numpy.tanh"}
    path.write_text(json.dumps(facts))
    message = "model.likelihood.net.activation: saved jax.numpy.tanh, now jax.nn.relu; use the"
    with pytest.raises(ValueError, match=message):
        vaejax.open_run(copy)
    for name in ("model", "objective", "transform", "optimizer"):
        del facts[name]
    path.write_text(
        json.dumps(facts | {"config": facts["config"] | {"estimator": "stick-the-landing"}})
    )
    with pytest.raises(ValueError, match="estimator: saved pathwise, now stick-the-landing"):
        vaejax.open_run(copy)


def test_a_step_of_another_run_is_not_taken_for_one_of_this(folder, tmp_path):
    """The same in all but the seed."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    facts = json.loads((copy / "config.json").read_text())
    facts["config"]["seed"] = 1
    (copy / "config.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match="with another configuration: seed: saved 0, now 1"):
        vaejax.open_run(copy)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_other_data_than_the_run_had_are_refused(split, folder, monkeypatch, tmp_path):
    """By their digests: whatever lies under the name now, in the folder that is given or, where
    none is, in the run's own; opened, and gone on with.
    """
    folders = []

    def moved(setting):
        folders.append(setting.data_folder)
        dataset, pixels = load_data(setting)
        images = np.roll(getattr(dataset, split).images, 1, axis=0)
        return dataset._replace(**{split: Split(images)}, source="elsewhere"), pixels

    monkeypatch.setattr(build, "load_data", moved)
    monkeypatch.setattr(prepared, "load_data", moved)
    message = f"digits from elsewhere: the {split} images are not .* which were from the package"
    for place in (None, str(tmp_path)):
        with pytest.raises(ValueError, match=message):
            vaejax.open_run(folder, data_folder=place)
    assert folders == [None, str(tmp_path)]
    before = contents(folder)
    config = dataclasses.replace(saved_config(folder), out=str(folder), resume=True)
    with pytest.raises(ValueError, match=message):
        training.train(dataclasses.replace(config, num_steps=80))
    assert contents(folder) == before


@pytest.mark.parametrize("images", [None, "x", [], {}, {"test": 3}], ids=repr)
def test_digests_that_are_none_are_those_of_no_data(images, tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"config": {}, "data": "there", "versions": {}, "images": images})
    )
    with pytest.raises(ValueError, match="digits from .* are not those of .* were from there"):
        require_same_data(tmp_path, load_data(TrainConfig())[0])


def test_a_run_of_the_revision_before_is_held_against_its_checkpoints(
    folder, monkeypatch, tmp_path
):
    """Its config.json has no digests of the images."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    facts = json.loads((copy / "config.json").read_text())
    del facts["images"]
    (copy / "config.json").write_text(json.dumps(facts))
    assert vaejax.open_run(copy).step == 60
    dataset, pixels = load_data(saved_config(copy))
    other = dataset._replace(train=Split(dataset.train.images[::-1]))
    monkeypatch.setattr(build, "load_data", lambda setting: (other, pixels))
    with pytest.raises(ValueError, match="the train images are not those of"):
        vaejax.open_run(copy)


def test_a_damaged_step_is_left_out_and_opening_changes_nothing(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    for step, last in (("20", 60), ("60", 40)):
        (copy / "checkpoints" / step / "record" / "metadata").write_text("{")
        before = contents(copy)
        with pytest.warns(UserWarning, match=f"a checkpoint is left out: step {step}: "):
            run = vaejax.open_run(copy)
        assert run.step == last and contents(copy) == before


def test_a_row_of_the_metrics_is_a_mean_of_whole_steps(tmp_path):
    """Of three steps each, whatever the calls; a validation is a row of its own."""
    log, bound = MetricsLog(tmp_path / "metrics.jsonl", every=3), np.arange(8, dtype=np.float32)
    for step in (1, 4, 8):
        seen = {"validation_step": np.array([2]), "validation_bound": np.array([5.0])}
        log(Run(None, None, step, history_of(bound[:step], **(seen if step > 2 else {}))))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    means = [{"step": row["step"], "bound": row["bound"]} for row in rows if "bound" in row]
    assert means == [{"step": 3, "bound": 1.0}, {"step": 6, "bound": 4.0}]
    assert [row for row in rows if "bound" not in row] == [{"step": 2, "validation_bound": 5.0}]


def test_the_best_is_evaluated_where_there_is_a_patience_alone():
    history = NO_HISTORY | {"validation_step": np.array([2]), "validation_bound": np.array([5.0])}
    run = Run("last", None, 8, history, "best")
    for config, params, step in ((TrainConfig(patience=3), "best", 2), (TrainConfig(), "last", 8)):
        assert evaluated_params(config, run) == params and evaluated_step(config, run) == step
    assert evaluated_step(TrainConfig(patience=3), run._replace(history=NO_HISTORY)) == 8


def test_what_is_not_there_is_named(folder, tmp_path):
    run = vaejax.open_run(folder)
    with pytest.raises(ValueError, match="unknown parameters 'bets'; did you mean best"):
        run.params_at("bets")
    with pytest.raises(ValueError, match="holds the steps 20, 40, 60, and not 30"):
        run.params_at(30)
    with pytest.raises(ValueError, match=r"holds no config.json, so it is not a run"):
        vaejax.open_run(tmp_path)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(ValueError, match="holds no checkpoint; train it further with --resume"):
        vaejax.open_run(tmp_path)


def history_of(bound, **more):
    """A history whose steps have this bound."""
    names = "bound", "objective", "gradient_norm"
    return NO_HISTORY | dict.fromkeys(names, np.asarray(bound)) | more


def run_of(bound, step, value, best):
    steps = np.arange(1, len(bound) + 1, dtype=np.int32)
    history = NO_HISTORY | {"validation_step": steps, "validation_bound": np.array(bound)}
    return Run(value, (), step, history, best)


def test_before_the_first_validation_there_is_no_best():
    """The parameters that `fit` starts from are not the best of anything."""
    config = dataclasses.replace(TrainConfig(), patience=2)
    assert evaluated_params(config, run_of([], 5, "last", "start")) == "last"
    assert evaluated_params(config, run_of([-1.0], 5, "last", "best")) == "best"
    assert evaluated_params(TrainConfig(), run_of([-1.0], 5, "last", "best")) == "last"


def test_the_metrics_of_a_resumed_run_stay_until_they_are_written_whole(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.write_text("older\n")
    log, run = MetricsLog(path, every=2), Run((), (), 4, history_of(np.arange(4.0)))
    with monkeypatch.context() as patch, pytest.raises(OSError, match="killed"):
        patch.setattr("os.replace", raised_at_once)
        log(run)
    assert path.read_text() == "older\n"
    log = MetricsLog(path, every=2)
    for step in (2, 4):
        log(run._replace(step=step))
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [2, 4]


def raised_at_once(*given):
    raise OSError("killed")


def test_metrics_are_the_means_of_so_many_steps_and_each_validation_once(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", every=10)
    bound = np.arange(35, dtype=np.float32)
    for step, validations in ((4, 0), (25, 1), (35, 2)):
        history = history_of(
            bound[:step],
            validation_step=np.array([20, 30])[:validations],
            validation_bound=np.array([-1.0, -2.0])[:validations],
        )
        log(Run((), (), step, history, None))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    means = [(row["step"], row["bound"]) for row in rows if "bound" in row]
    assert means == [(10, 4.5), (20, 14.5), (30, 24.5)]
    validated = [row for row in rows if "validation_bound" in row]
    assert [(row["step"], row["validation_bound"]) for row in validated] == [(20, -1.0), (30, -2.0)]
