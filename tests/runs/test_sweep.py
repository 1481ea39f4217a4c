"""A sweep trains each combination once, goes on where it stopped, and past what fails."""

import json
from pathlib import Path

import pytest

from tests.lib.cases import cases
from tests.lib.runs import files_in
from vaejax.__main__ import main
from vaejax.runs import sweep as sweeping
from vaejax.runs.sweep import SweepConfig, swept_runs

pytestmark = pytest.mark.usefixtures("without_pictures")

TINY = [
    *("--hidden", "4", "--num-steps", "4", "--batch-size", "20"),
    *("--validate-every", "2", "--eval-samples", "2"),
]


def run_sweep(*flags):
    return main(["sweep", *TINY, "--out", "s", *flags])


def test_every_combination_and_seed_is_a_run():
    over = ("prior=normal,vamp:50", "learning-rate=1e-3,3e-4", "hidden=200,400 400")
    runs = swept_runs(SweepConfig(seeds=(3, 4), over=over, out="s"))
    assert len(runs) == 16
    run = runs["prior=vamp:50,learning_rate=3e-4,hidden=400-400,seed=4"]
    assert (run.prior, run.learning_rate, run.hidden, run.seed) == ("vamp:50", 3e-4, (400, 400), 4)
    assert all(run.out == f"s/{name}" for name, run in runs.items())


BAD = {
    "no field": (["--over", "priors=normal"], "unknown field 'priors'; did you mean prior"),
    "no value": (["--over", "prior="], "give FIELD=VALUE,VALUE"),
    "no equals": (["--over", "prior"], "give FIELD=VALUE,VALUE"),
    "twice": (["--over", "prior=normal,normal"], "names a value twice"),
    "a field twice": (["--over", "prior=normal", "--over", "prior=flow"], "prior twice"),
    "the seed": (["--over", "seed=1,2"], "seeds are given by --seeds"),
    "the folder": (["--over", "out=a,b"], "it is one for all runs"),
    "an unknown prior": (["--over", "prior=normal,nothing"], "unknown prior 'nothing'"),
    "too many": (["--over", "prior=normal,vamp:5000"], "there are 1297"),
    "a rate": (["--over", "learning-rate=1e-3,-1"], "learning_rate = -1.0"),
    "an encoder": (["--over", "encoder=diag-normal,vmf"], "encoder=vmf"),
    "an estimator": (["--over", "estimator=pathwise,iwae"], "estimator 'iwae'"),
    "resume": (["--resume"], "a sweep goes on by itself"),
    "seeds twice": (["--seeds", "1", "1"], "has 1 twice"),
}


@pytest.mark.parametrize("case", cases(BAD))
def test_a_bad_combination_is_refused_before_the_first_run(case, elsewhere, capsys):
    flags, message = case
    assert run_sweep(*flags) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert list(elsewhere.iterdir()) == []


def test_a_sweep_goes_on_and_past_what_fails(elsewhere, capsys, monkeypatch):
    """The second of three fails, once: it is named, and trained by the same command again."""
    train, fails = sweeping.train, ["learning_rate=3e-4,seed=0"]

    def failing(config, *budget):
        if Path(config.out).name in fails:
            raise FloatingPointError("the bound is NaN")
        return train(config, *budget)

    monkeypatch.setattr(sweeping, "train", failing)
    flags = ["--over", "learning-rate=1e-3,3e-4,1e-4"]  # of one model, which is compiled once
    assert run_sweep(*flags) == 2
    out, err = capsys.readouterr()
    assert "error: 1 of 3 runs failed: learning_rate=3e-4,seed=0: the bound is NaN" in err
    assert out.count("finished") == 2 and not Path("s/learning_rate=3e-4,seed=0").exists()

    before = files_in(Path("s"))
    fails.clear()
    assert run_sweep(*flags) == 0
    after = files_in(Path("s"))
    assert {name: after[name] for name in before} == before  # finished runs stay as they are
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result == {"runs": 3, "trained": 1, "left": 0, "out": "s"}

    # One that was killed after a checkpoint goes on; one that has other settings is refused.
    run = Path("s/learning_rate=1e-3,seed=0")
    (run / "result.json").unlink()
    assert run_sweep(*flags, "--num-steps", "6") == 0
    assert run_sweep(*flags, "--batch-size", "30") == 2
    error = capsys.readouterr().err
    assert "batch_size: saved 20, now 30" in error and "learning_rate=1e-3,seed=0" in error


def test_a_sweep_stops_in_time_and_goes_on(elsewhere, capsys):
    """The minutes are those of all runs together: the second does not begin."""
    flags = ["--over", "latent-dim=1,2"]
    assert run_sweep(*flags, "--max-minutes", "1e-4") == 0
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1])["left"] == 2
    assert "2 of 2 runs are left; the same command goes on" in err
    assert "minutes are over at step" in err and not Path("s/latent_dim=2,seed=0").exists()
    assert run_sweep(*flags) == 0
    out, _ = capsys.readouterr()
    assert json.loads(out.splitlines()[-1]) == {"runs": 2, "trained": 2, "left": 0, "out": "s"}
