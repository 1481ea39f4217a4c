"""`vaejax train` as a user runs it: what it leaves, how it resumes, what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import vaejax
from tests.lib.cases import cases
from tests.lib.paths import ROOT
from tests.lib.runs import SMALL, files_in, made_run, train
from vaejax.__main__ import main
from vaejax.base.mapping import Estimate
from vaejax.runs.lock import claimed
from vaejax.training.checkpoints import CheckpointMismatchError
from vaejax.training.run import NO_HISTORY, Run

PICTURES = {"curves.png", "samples.png", "reconstructions.png", "latent.png"}

pytestmark = pytest.mark.usefixtures("elsewhere")


def last_line(text):
    return json.loads(text.strip().splitlines()[-1])


def result_in(folder):
    return json.loads((folder / "result.json").read_text())


def test_a_run_leaves_what_it_promises(tmp_path, capsys):
    assert train(*SMALL, "--out", "run") == 0
    printed = capsys.readouterr()
    result = last_line(printed.out)
    promised = "test_elbo test_log_marginal active_units train_seconds steps_per_second out"
    assert set(promised.split()) <= set(result)
    assert result["step"] == 60 and result["out"] == "run"
    assert result["test_log_marginal"] >= result["test_elbo"] - 1
    kept = result_in(tmp_path / "run")
    assert result == {name: kept[name] for name in result}
    config = json.loads((tmp_path / "run/config.json").read_text())
    same = ("config", "data", "examples", "images", "versions", "settings")
    assert {name: kept[name] for name in same} == {name: config[name] for name in same}
    assert "step/s" in printed.err and "bound=" in printed.err
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {"config.json", "metrics.jsonl", "checkpoints", "result.json"} | PICTURES
    assert config["config"]["batch_size"] == 50
    assert config["versions"]["jax"] == jax.__version__ and "seed 0" in config["data"]
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "validation_bound" in row] == [20, 40, 60]
    assert train(*SMALL, "--out", "run") == 2
    refusal = "run already holds a run: --resume it, --overwrite it, or name another --out"
    assert refusal in capsys.readouterr().err
    assert train(*SMALL, "--out", "run", "--overwrite") == 0
    assert last_line(capsys.readouterr().out)["test_elbo"] == result["test_elbo"]


VARIANTS = {
    "vamp, gated, iwae": "--prior vamp:10 --net gated --estimator iwae --num-samples 3",
    "laplace, conv, stl": (
        "--prior laplace --net conv --estimator stick-the-landing --latent-dim 3"
    ),
    "gaussian, analytic kl": (
        "--likelihood gaussian --binarisation none --estimator analytic-kl --schedule cosine"
    ),
    "mixture, iaf, grey": (
        "--prior mixture:3 --encoder iaf --likelihood continuous-bernoulli --binarisation none"
    ),
    "flow, low-rank, levels": (
        "--prior flow:2 --encoder low-rank:1 --likelihood discretized-logistic:17"
        " --binarisation none"
    ),
    "warm-up": "--warm-up 30 --prior learned-normal",
    "static, clipped, early": (
        "--binarisation static --clip-norm 1 --patience 5 --likelihood bernoulli"
    ),
    "two devices": "--devices 2",
}
SLOW = VARIANTS.keys() - {"vamp, gated, iwae"}  # what they do is tested elsewhere: only flags here


@pytest.mark.parametrize("flags", cases(VARIANTS, SLOW))
def test_flags_make_other_models(flags, capsys):
    assert train(*SMALL, *flags.split()) == 0
    result = last_line(capsys.readouterr().out)
    assert np.isfinite(result["test_elbo"]) and np.isfinite(result["test_log_marginal"])


REFUSED = {
    "data": ("--data mnits", "unknown data set 'mnits'; did you mean mnist"),
    "prior": ("--prior vapm:5", "unknown prior 'vapm:5'; did you mean vamp"),
    "no number": ("--prior vamp", "prior 'vamp': give a number, such as vamp:10"),
    "not a number": (
        "--prior vamp:many",
        "prior 'vamp:many': 'many' is not a whole number; give one, such as vamp:10",
    ),
    "a number too many": ("--prior normal:3", "prior 'normal:3': it takes no number"),
    "too many components": ("--prior vamp:5000", "there are 1297; choose fewer"),
    "estimator": ("--estimator pathwize", "unknown estimator 'pathwize'; did you mean pathwise"),
    "samples in the name": (
        "--estimator iwae:8",
        "here the number of samples has its own field; give estimator = 'iwae' and num_samples = 8",
    ),
    "likelihood": (
        "--likelihood gaussian:-1",
        "likelihood 'gaussian:-1': the number = -1.0; it must be positive and finite",
    ),
    "one support": ("--prior sphere", "use an encoder such as VonMisesFisher"),
    "warm-up": ("--warm-up 100 --estimator iwae", "only pathwise takes a warm-up"),
    "warm-up too long": ("--warm-up 100 --num-steps 60", "but num_steps = 60: the KL would never"),
    "no closed form": ("--prior mixture:3 --estimator analytic-kl", "has no closed form"),
    "half a pair": (
        "--estimator antithetic",
        "num_samples = 1; it must be a multiple of 2, at least 2",
    ),
    "grey": (
        "--binarisation none",
        "choose a binarisation, one of dynamic, static or threshold, or a likelihood of grey"
        " pixels",
    ),
    "batch": ("--batch-size 5000", "batch_size = 5000, but the data have 1297 training examples"),
    "samples": ("--num-samples 0", "num_samples = 0; it must be a whole number, at least 1"),
    "rate": ("--learning-rate -1", "learning_rate = -1.0; it must be positive and finite"),
    "patience": ("--patience 0", "patience = 0; it must be a whole number, at least 1"),
    "a patience in vain": ("--patience 2 --num-steps 60", "nothing would be validated"),
    "devices": ("--devices 3", "devices = 3"),
    "nothing to resume": ("--resume", "nothing to resume: runs/train/config.json does not exist"),
    "both": ("--resume --overwrite", "give one"),
}


@pytest.mark.parametrize("flags, message", REFUSED.values(), ids=REFUSED)
def test_mistakes_are_one_line_and_leave_no_files(flags, message, tmp_path, capsys):
    assert train(*flags.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


OVER_A_RUN = {
    f"{name} with {flag}": (*flags.split(), flag)
    for name, (flags, _) in REFUSED.items()
    for flag in ("--overwrite", "--resume")
    if name not in ("nothing to resume", "both")
}
FAST = {"warm-up too long with --overwrite", "prior with --resume", "devices with --resume"}


@pytest.mark.parametrize("flags", cases(OVER_A_RUN, slow=OVER_A_RUN.keys() - FAST))
def test_a_refused_command_changes_nothing_of_a_run(flags, tmp_path, capsys):
    made_run(tmp_path / "run")
    before = files_in(tmp_path)
    assert train("--out", "run", *flags) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("out", ["", "file", "file/x", "broken", "~nobody-of-this-name/x"])
@pytest.mark.parametrize(
    "command, flag", [("train", "--out"), ("evaluate", "--run"), ("sample", "--run")]
)
def test_a_folder_that_is_none_is_refused_in_a_line(command, flag, out, tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    before = files_in(tmp_path)
    assert main([command, f"{flag}={out}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {flag[2:]} = ") and error.count("\n") == 1
    assert files_in(tmp_path) == before


BREAKS = {
    "another run's checkpoints": CheckpointMismatchError("another data set"),
    "a full disk": OSError(28, "No space left on device"),
    "a fault": KeyError("fault"),
    "Ctrl-C": KeyboardInterrupt(),
}


@pytest.mark.parametrize("flag", ["--overwrite", "--resume", ""])
@pytest.mark.parametrize("error", cases(BREAKS, slow=BREAKS.keys() - {"a full disk"}))
def test_a_training_that_does_not_begin_changes_nothing(error, flag, tmp_path, monkeypatch):
    """Of a run that is there, or of a folder that is not."""
    if flag:
        made_run(tmp_path / "run")
    before = files_in(tmp_path)

    def failed(*given, checkpoints, **others):
        checkpoints.folder.mkdir(exist_ok=True)
        raise error

    monkeypatch.setattr("vaejax.runs.train.fit", failed)
    flags = [flag] if flag == "--resume" else [*SMALL, flag] if flag else SMALL
    if isinstance(error, KeyError):
        with pytest.raises(KeyError):
            train("--out", "run", *flags)
    else:
        assert train("--out", "run", *flags) in (2, 130)
    assert files_in(tmp_path) == before


def no_picture(*given, **others):
    raise RuntimeError("no\nink")


def trained_at_once(objective, params, *given, **others):
    return Run(params, (), 60, NO_HISTORY | {"bound": np.zeros(60)}, None)


def evaluated_at_once(*given, **others):
    """On one example, which has no standard error."""
    number = Estimate(-23.0, float("nan"))
    return SimpleNamespace(elbo=number, log_marginal=number, active_units=2)


def test_what_is_computed_is_written_whatever_can_be_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("vaejax.runs.train.fit", trained_at_once)
    monkeypatch.setattr("vaejax.runs.train.evaluate", evaluated_at_once)
    for name in ("samples", "reconstructions", "latent"):
        monkeypatch.setattr(f"vaejax.plots.{name}", no_picture)
    assert train(*SMALL, "--out", "run") == 0
    result = last_line(capsys.readouterr().out)
    kept = result_in(tmp_path / "run")
    assert result == {name: kept[name] for name in result} and result["test_elbo"] == -23.0
    assert result["test_elbo_standard_error"] is None
    errors = {"test_elbo_standard_error", "test_log_marginal_standard_error"}
    assert result["not_finite"] == dict.fromkeys(errors, "nan")
    assert result["pictures"] == {
        "curves": "curves.png",
        "samples": "samples.png is not drawn: no ink",
        "reconstructions": "reconstructions.png is not drawn: no ink",
        "latent": "latent.png is not drawn: no ink",
    }
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {"config.json", "result.json", "curves.png"}


def test_an_evaluation_that_fails_says_where_the_run_is(tmp_path, monkeypatch, capsys):
    def not_evaluated(*given, **others):
        raise ValueError("a bound is NaN")

    monkeypatch.setattr("vaejax.runs.train.fit", trained_at_once)
    monkeypatch.setattr("vaejax.runs.train.evaluate", not_evaluated)
    assert train(*SMALL, "--out", "run") == 2
    *_, said, error = capsys.readouterr().err.splitlines()
    assert said == "the trained run is saved: vaejax evaluate --run run"
    assert error == "error: a bound is NaN"
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.json"}


@pytest.mark.slow
def test_a_run_whose_evaluation_failed_is_gone_on_with(tmp_path, monkeypatch):
    """And a picture of the earlier state does not stay where there is none of this one."""
    assert train(*SMALL, "--out", "run") == 0
    with monkeypatch.context() as patch:
        patch.setattr("vaejax.runs.train.evaluate", no_picture)
        with pytest.raises(RuntimeError, match="no\nink"):
            train("--out", "run", "--resume", "--num-steps", "70")
    assert vaejax.open_run("run").step == 70 and result_in(tmp_path / "run")["step"] == 60
    monkeypatch.setattr("vaejax.plots.samples", no_picture)
    assert train("--out", "run", "--resume") == 0
    assert result_in(tmp_path / "run")["step"] == 70
    assert not (tmp_path / "run/samples.png").exists()


SHAPES = {"one number": (1,), "two channels": (6, 6, 2), "channels first": (3, 6, 6)}


@pytest.mark.slow
@pytest.mark.parametrize("shape", cases(SHAPES))
def test_data_that_are_no_images_are_trained_on_and_evaluated(shape, tmp_path, capsys):
    data = stored_set(tmp_path / "data", 0, shape)
    assert train(*SMALL, "--data", "mnist", *data, "--num-steps", "20", "--out", "run") == 0
    result = last_line(capsys.readouterr().out)
    assert np.isfinite(result["test_elbo"])
    assert "is not drawn: what the model explains has the shape" in result["pictures"]["samples"]
    assert main(["sample", "--run", "run"]) == 0
    assert "is not drawn" in last_line(capsys.readouterr().out)["picture"]
    assert (tmp_path / "run/draws.npz").exists()


def test_two_processes_in_one_folder(tmp_path, capsys):
    """The second is refused, and the first goes on."""
    with claimed(tmp_path / "run"):
        made_run(tmp_path / "run")
        before = files_in(tmp_path)
        for flags in ([*SMALL, "--overwrite"], ["--resume"]):
            assert train("--out", "run", *flags) == 2
            said = f"error: run is in use by process {os.getpid()} on"
            assert capsys.readouterr().err.splitlines()[-1].startswith(said)
            assert files_in(tmp_path) == before


def digests(folder):
    """Of every leaf of the newest checkpoint, as the checkpoint itself records them."""
    steps = [path for path in (folder / "checkpoints").iterdir() if path.name.isdigit()]
    newest = max(steps, key=lambda path: int(path.name))
    return newest.name, json.loads((newest / "record/metadata").read_text())["leaves"]


def bounds_in(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [line for line in lines if '"bound"' in line]


@pytest.mark.usefixtures("without_pictures")
def test_resume_takes_the_runs_own_flags_and_refuses_others(tmp_path, capsys):
    assert train(*SMALL, "--out", "whole") == 0
    assert train(*SMALL, "--out", "cut", "--num-steps", "35") == 0
    assert train("--out", "cut", "--resume", "--num-steps", "60") == 0
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert digests(cut) == digests(whole)
    assert result_in(cut)["test_elbo"] == result_in(whole)["test_elbo"]
    assert bounds_in(cut) == bounds_in(whole)
    capsys.readouterr()
    assert train("--out", "cut", "--resume", "--learning-rate", "0.1", "--latent-dim", "3") == 2
    message = "another configuration; latent_dim: saved 2, now 3; learning_rate: saved 0.001, now"
    assert message in capsys.readouterr().err


def stored_set(folder, seed, shape=(8, 8)):
    """A small data set called mnist, in a folder."""
    generator = np.random.default_rng(seed)
    folder.mkdir()
    images = {f"x_{part}": generator.integers(0, 256, (60, *shape)) for part in ("train", "valid")}
    images["x_test"] = images["x_valid"]
    arrays = {name: array.astype(np.uint8) for name, array in images.items()}
    np.savez(folder / "mnist.npz", **arrays)
    return ["--data-folder", str(folder)]


@pytest.mark.slow
def test_other_data_are_refused_and_the_folder_is_as_it_was(tmp_path, capsys):
    first, second = stored_set(tmp_path / "a", 0), stored_set(tmp_path / "b", 1)
    assert train(*SMALL, "--data", "mnist", *first, "--out", "run", "--num-steps", "20") == 0
    before = (tmp_path / "run/config.json").read_bytes()
    assert train("--resume", "--out", "run", "--num-steps", "40", *second) == 2
    assert "the train and valid and test images are not those of run" in capsys.readouterr().err
    assert (tmp_path / "run/config.json").read_bytes() == before


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize(
    "stop",
    cases({"Ctrl-C": (signal.SIGINT, 130), "SIGTERM": (signal.SIGTERM, 143)}, slow=("SIGTERM",)),
)
def test_interrupted_it_saves_and_resumes_to_the_same_bits(tmp_path, stop):
    """The script of the experiments, which is the same command."""
    number, status = stop
    far = [*SMALL, "--num-steps", "1000000", "--checkpoint-every", "1000000"]
    command = [sys.executable, str(ROOT / "experiments/train.py"), *far, "--out", "cut"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    metrics, deadline = tmp_path / "cut/metrics.jsonl", time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    began = time.monotonic()
    _, error = process.communicate(timeout=60)
    assert process.returncode == status, error[-2000:]
    assert time.monotonic() - began < 10
    step = int(digests(tmp_path / "cut")[0])
    assert step > 0 and not (tmp_path / "cut/result.json").exists()
    more = ["--num-steps", str(step + 30)]
    assert train("--out", "cut", "--resume", *more) == 0
    assert train(*far, "--out", "whole", *more) == 0
    cut, whole = (result_in(tmp_path / name)["test_elbo"] for name in ("cut", "whole"))
    assert cut == whole


@pytest.mark.usefixtures("without_pictures")
def test_the_best_parameters_are_evaluated_where_there_is_patience(tmp_path, capsys):
    """A learning rate at which the last validation is not the best."""
    rate = ["--learning-rate", "0.3", "--num-steps", "80", "--validate-every", "10"]
    assert train(*SMALL, *rate, "--patience", "100", "--out", "run") == 0
    run = vaejax.open_run("run")
    validations = run.history["validation_bound"]
    assert validations.argmax() < len(validations) - 1, "the last is the best: choose another rate"
    best, last = run.params_at("best"), run.params_at("last")
    assert all(map(np.array_equal, jax.tree.leaves(run.params), jax.tree.leaves(best)))
    assert not all(map(np.array_equal, jax.tree.leaves(best), jax.tree.leaves(last)))


@pytest.mark.usefixtures("without_pictures")
def test_a_run_out_of_time_is_saved_and_goes_on_to_the_same_bits(tmp_path, capsys):
    """It exits 0, says where it stopped, and has no result until it has ended."""
    assert train(*SMALL, "--max-minutes", "1e-9", "--out", "run") == 0
    printed, said = capsys.readouterr()
    assert "minutes are over at step 1 of 60; go on with vaejax train --resume --out run" in said
    assert last_line(printed)["stopped"].endswith("minutes are over at step 1 of 60")
    assert not (tmp_path / "run/result.json").exists()
    assert train("--out", "run", "--resume", "--max-minutes", "60") == 0
    assert train(*SMALL, "--out", "whole") == 0
    assert digests(tmp_path / "run") == digests(tmp_path / "whole")
    assert result_in(tmp_path / "run")["step"] == 60


@pytest.mark.usefixtures("without_pictures")
def test_what_is_replaced_stays_until_the_new_run_has_ended(tmp_path, capsys):
    assert train(*SMALL, "--num-steps", "20", "--out", "run") == 0
    assert train(*SMALL, "--overwrite", "--max-minutes", "1e-9", "--out", "run") == 0
    assert result_in(tmp_path / "run/replaced-1")["step"] == 20
    assert train("--out", "run", "--resume", "--max-minutes", "60") == 0
    assert not (tmp_path / "run/replaced-1").exists()


@pytest.mark.usefixtures("without_pictures")
def test_an_average_is_trained_validated_and_evaluated(tmp_path, capsys):
    flags = [*SMALL, "--average", "0.9", "--skip-above", "1e6"]
    assert train(*flags, "--out", "run") == 0
    run = vaejax.open_run("run")
    newest = run.checkpoints[60]
    average = vaejax.averaged_params(newest)
    assert all(map(np.array_equal, jax.tree.leaves(run.params), jax.tree.leaves(average)))
    assert result_in(tmp_path / "run")["skipped_steps"] == 0
    assert train(*SMALL, "--out", "plain") == 0
    plain = vaejax.open_run("plain")
    assert all(map(np.array_equal, jax.tree.leaves(newest.params), jax.tree.leaves(plain.params)))
    bounds = (single.history["validation_bound"] for single in (run, plain))
    assert not np.array_equal(*bounds)


@pytest.mark.usefixtures("without_pictures")
def test_steps_that_explode_are_skipped_and_said(tmp_path, capsys):
    with pytest.warns(UserWarning, match="60 of 60 steps were skipped"):
        assert train(*SMALL, "--skip-above", "1e-9", "--out", "run") == 0
    assert result_in(tmp_path / "run")["skipped_steps"] == 60
