"""experiments/train.py as a user runs it: what it leaves, how it resumes, what it refuses."""

from tests.lib.paths import ROOT
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from tests.lib.cases import cases

import train

SMALL = (
    "--hidden 16 --num-steps 60 --batch-size 50 --validate-every 20 --checkpoint-every 20"
    " --eval-samples 20"
)
SMALL = SMALL.split()
PICTURES = {"curves.png", "samples.png", "reconstructions.png", "latent.png"}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        jax.config, "update", lambda *settings: None
    )  # no compilation cache for the tests after this one


def last_line(text):
    return json.loads(text.strip().splitlines()[-1])


def test_a_run_leaves_what_it_promises(tmp_path, capsys):
    assert train.main([*SMALL, "--out", "run"]) == 0
    printed = capsys.readouterr()
    result = last_line(printed.out)
    assert {
        "test_elbo",
        "test_log_marginal",
        "active_units",
        "train_seconds",
        "steps_per_second",
        "out",
    } <= set(result)
    assert (
        result["step"] == 60
        and result["out"] == "run"
        and result["test_log_marginal"] >= result["test_elbo"] - 1
    )
    assert result == json.loads((tmp_path / "run/result.json").read_text())
    assert "step/s" in printed.err and "bound=" in printed.err
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {"config.json", "metrics.jsonl", "checkpoints", "result.json"} | PICTURES
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert (
        config["config"]["batch_size"] == 50
        and config["versions"]["jax"] == jax.__version__
        and "seed 0" in config["data"]
    )
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "validation_bound" in row] == [20, 40, 60]
    assert train.main([*SMALL, "--out", "run"]) == 2
    assert (
        "run already holds a run: --resume it, --overwrite it, or name another --out"
        in capsys.readouterr().err
    )
    assert train.main([*SMALL, "--out", "run", "--overwrite"]) == 0
    assert last_line(capsys.readouterr().out)["test_elbo"] == result["test_elbo"]


VARIANTS = {
    "vamp, gated, iwae": [
        "--prior",
        "vamp:10",
        "--net",
        "gated",
        "--estimator",
        "iwae",
        "--num-samples",
        "3",
    ],
    "laplace, conv, stl": [
        "--prior",
        "laplace",
        "--net",
        "conv",
        "--estimator",
        "stick-the-landing",
        "--latent-dim",
        "3",
    ],
    "gaussian, analytic kl": [
        "--likelihood",
        "gaussian",
        "--binarisation",
        "none",
        "--estimator",
        "analytic-kl",
        "--schedule",
        "cosine",
    ],
    "mixture, iaf, grey": [
        "--prior",
        "mixture:3",
        "--encoder",
        "iaf",
        "--likelihood",
        "continuous-bernoulli",
        "--binarisation",
        "none",
    ],
    "flow, low-rank, levels": [
        "--prior",
        "flow:2",
        "--encoder",
        "low-rank:1",
        "--likelihood",
        "discretized-logistic:17",
        "--binarisation",
        "none",
    ],
    "warm-up": ["--warm-up", "30", "--prior", "learned-normal"],
    "static, clipped, early": [
        "--binarisation",
        "static",
        "--clip-norm",
        "1",
        "--patience",
        "5",
        "--likelihood",
        "bernoulli",
    ],
    "two devices": ["--devices", "2"],
}


SLOW = VARIANTS.keys() - {
    "vamp, gated, iwae"
}  # what they do is tested elsewhere; here only flags are new


@pytest.mark.parametrize("flags", cases(VARIANTS, SLOW))
def test_flags_make_other_models(flags, capsys):
    assert train.main([*SMALL, *flags]) == 0
    result = last_line(capsys.readouterr().out)
    assert np.isfinite(result["test_elbo"]) and np.isfinite(result["test_log_marginal"])


REFUSED = {
    "data": (["--data", "mnits"], "unknown data set 'mnits'; did you mean mnist"),
    "prior": (["--prior", "vapm:5"], "unknown prior 'vapm:5'; did you mean vamp"),
    "no number": (["--prior", "vamp"], "prior 'vamp': give a number, such as vamp:10"),
    "not a number": (
        ["--prior", "vamp:many"],
        "prior 'vamp:many': 'many' is no number; give one, such as vamp:10",
    ),
    "a number too many": (["--prior", "normal:3"], "prior 'normal:3': it takes no number"),
    "too many components": (["--prior", "vamp:5000"], "there are 1297; choose fewer"),
    "estimator": (
        ["--estimator", "pathwize"],
        "unknown estimator 'pathwize'; did you mean pathwise",
    ),
    "likelihood": (["--likelihood", "gaussian:-1"], "Gaussian.scale = -1; give a positive number"),
    "one support": (["--prior", "sphere"], "use an encoder such as VonMisesFisher"),
    "warm-up": (["--warm-up", "100", "--estimator", "iwae"], "a warm-up is for pathwise"),
    "grey": (
        ["--binarisation", "none"],
        (
            "choose a binarisation, one of dynamic, static or threshold, or a likelihood of grey"
            " pixels"
        ),
    ),
    "batch": (["--batch-size", "5000"], "batch_size = 5000, but digits has 1297 training examples"),
    "samples": (["--num-samples", "0"], "num_samples = 0; it must be at least 1"),
    "rate": (["--learning-rate", "-1"], "learning_rate = -1.0; it must be positive"),
    "devices": (["--devices", "3"], "devices = 3"),
    "nothing to resume": (["--resume"], "nothing to resume: runs/train/config.json does not exist"),
}


@pytest.mark.parametrize("flags, message", REFUSED.values(), ids=REFUSED)
def test_mistakes_are_one_line_and_leave_no_files(flags, message, tmp_path, capsys):
    assert train.main(flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_a_run_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.tex").touch()
    assert train.main([*SMALL, "--out", "thesis", "--overwrite"]) == 2
    assert "is not a run, and is not overwritten" in capsys.readouterr().err
    assert (tmp_path / "thesis/chapter.tex").exists()


def digests(folder):
    """Of every leaf of the newest checkpoint, as the checkpoint itself records them."""
    newest = max(
        (folder / "checkpoints").iterdir(),
        key=lambda path: int(path.name) if path.name.isdigit() else -1,
    )
    return newest.name, json.loads((newest / "record/metadata").read_text())["leaves"]


def test_resume_takes_the_runs_own_flags_and_refuses_others(tmp_path, capsys):
    assert train.main([*SMALL, "--out", "whole"]) == 0
    assert train.main([*SMALL, "--out", "cut", "--num-steps", "35"]) == 0
    assert train.main(["--out", "cut", "--resume", "--num-steps", "60"]) == 0
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")
    whole, cut = (
        json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "cut")
    )
    assert cut["test_elbo"] == whole["test_elbo"]
    metrics = [
        [
            row
            for row in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
            if '"bound"' in row
        ]
        for name in ("whole", "cut")
    ]
    assert metrics[0] == metrics[1]
    capsys.readouterr()
    assert (
        train.main(["--out", "cut", "--resume", "--learning-rate", "0.1", "--latent-dim", "3"]) == 2
    )
    assert (
        "another configuration; latent_dim: saved 2, now 3; learning_rate: saved 0.001, now 0.1"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "stop",
    cases({"Ctrl-C": (signal.SIGINT, 130), "SIGTERM": (signal.SIGTERM, 143)}, slow=("SIGTERM",)),
)
def test_interrupted_it_saves_and_resumes_to_the_same_bits(tmp_path, stop, capsys):
    number, status = stop
    command = [
        sys.executable,
        str(ROOT / "experiments/train.py"),
        *SMALL,
        "--num-steps",
        "1000000",
        "--checkpoint-every",
        "1000000",
    ]
    process = subprocess.Popen(
        [*command, "--out", "cut"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
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
    more = str(step + 30)
    assert train.main(["--out", "cut", "--resume", "--num-steps", more]) == 0
    assert (
        train.main([*SMALL, "--checkpoint-every", "1000000", "--out", "whole", "--num-steps", more])
        == 0
    )
    results = [
        json.loads((tmp_path / name / "result.json").read_text())["test_elbo"]
        for name in ("cut", "whole")
    ]
    assert results[0] == results[1]


def test_help_reads_well():
    shown = subprocess.run(
        [sys.executable, str(ROOT / "experiments/train.py"), "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for flag in ("--data", "--prior", "--binarisation", "--num-samples", "--resume", "--out"):
        assert flag in shown
