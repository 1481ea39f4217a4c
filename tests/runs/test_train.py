"""`vaejax train` as a user runs it: what it leaves, how it resumes, what it refuses."""

import json
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import vaejax
from tests.lib.cases import cases
from tests.lib.paths import ROOT
from tests.lib.runs import SMALL, train

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
    assert result == result_in(tmp_path / "run")
    assert "step/s" in printed.err and "bound=" in printed.err
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {"config.json", "metrics.jsonl", "checkpoints", "result.json"} | PICTURES
    config = json.loads((tmp_path / "run/config.json").read_text())
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
        "prior 'vamp:many': 'many' is no whole number; give one, such as vamp:10",
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
    "warm-up": ("--warm-up 100 --estimator iwae", "a warm-up is for pathwise"),
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


def test_what_is_not_a_run_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.tex").touch()
    assert train(*SMALL, "--out", "thesis", "--overwrite") == 2
    assert "is not a run, and is not overwritten" in capsys.readouterr().err
    assert (tmp_path / "thesis/chapter.tex").exists()


def test_a_run_is_not_overwritten_by_one_that_is_refused(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text("{}")
    refused = ["--prior", "mixture:3", "--estimator", "analytic-kl"]
    assert train(*SMALL, *refused, "--out", "run", "--overwrite") == 2
    assert (tmp_path / "run/config.json").read_text() == "{}"


def digests(folder):
    """Of every leaf of the newest checkpoint, as the checkpoint itself records them."""
    steps = [path for path in (folder / "checkpoints").iterdir() if path.name.isdigit()]
    newest = max(steps, key=lambda path: int(path.name))
    return newest.name, json.loads((newest / "record/metadata").read_text())["leaves"]


def bounds_in(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [line for line in lines if '"bound"' in line]


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


def stored_set(folder, seed):
    """A small data set called mnist, in a folder."""
    generator = np.random.default_rng(seed)
    folder.mkdir()
    images = {f"x_{part}": generator.integers(0, 256, (60, 8, 8)) for part in ("train", "valid")}
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
    assert "saved with another configuration: data" in capsys.readouterr().err
    assert (tmp_path / "run/config.json").read_bytes() == before


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
