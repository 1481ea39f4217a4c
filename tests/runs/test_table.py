"""Runs side by side: what differs, what was found, and what is no run."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from vaejax.__main__ import main
from vaejax.runs.config import TrainConfig
from vaejax.runs.table import RunSummary, differing, markdown, mean_told, tables_of


def written(folder, elbo=None, **fields):
    """A run's folder; without an ELBO it was not evaluated."""
    config = dataclasses.asdict(TrainConfig(num_steps=100, out=str(folder), **fields))
    (folder / "checkpoints" / "40").mkdir(parents=True)
    facts = {"config": config, "data": "digits", "versions": {}, "images": {"test": "a"}}
    (folder / "config.json").write_text(json.dumps(facts))
    if elbo is not None:
        result = {"test_elbo": elbo, "test_elbo_standard_error": 0.25, "step": 100}
        result |= {"test_log_marginal": elbo + 1, "test_log_marginal_standard_error": 0.5}
        (folder / "result.json").write_text(json.dumps(result | {"active_units": 2}))
    return folder


@pytest.fixture
def runs(elsewhere):
    """Two configurations with two seeds each, of which one run has not ended."""
    for seed, elbo in enumerate((-20.0, -22.0)):
        written(elsewhere / f"a{seed}", elbo, seed=seed)
    written(elsewhere / "b0", -19.0, prior="vamp:50", learning_rate=3e-4)
    written(elsewhere / "b1", prior="vamp:50", learning_rate=3e-4, seed=1)
    return elsewhere


def test_the_table_says_what_differs_and_what_was_found(runs, capsys):
    (runs / "other").mkdir()
    assert main(["table", "a0", "a1", "b0", "b1", "other", "nowhere", "."]) == 0
    out, err = capsys.readouterr()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines()[:6]]
    header = ["run", "seed", "learning rate", "prior", "test ELBO", "test log p(x)"]
    assert rows[0] == [*header, "active units", "state"]
    first = ["a0", "0", "0.001", "normal", "-20.00 ± 0.25", "-19.00 ± 0.50", "2 of 2", "finished"]
    assert rows[2] == first
    assert rows[5] == ["b1", "1", "0.0003", "vamp:50", "", "", "", "not finished, step 40 of 100"]
    assert len({len(line) for line in out.splitlines()[:6]}) == 1
    # The mean of -20 and -22, and the standard error of two numbers that are 2 apart: 1.
    means = next(line for line in out.splitlines() if "-21.00 ± 1.00" in line)
    assert "-20.00 ± 1.00" in means
    assert json.loads(out.splitlines()[-1]) == {"runs": 4, "finished": 3, "left_out": 3}
    *others, above = err.splitlines()
    assert others == [f"{n} is left out: it holds no run" for n in ("other", "nowhere")]
    assert above == ". is left out: it is a folder of runs; name them, ./*"


def test_a_result_of_an_earlier_step_is_said(runs):
    (runs / "a0" / "checkpoints" / "140").mkdir()
    record = json.loads((runs / "a0" / "config.json").read_text())
    record["config"]["num_steps"] = 200
    (runs / "a0" / "config.json").write_text(json.dumps(record))
    state = "not finished, step 140 of 200; the result is of step 100"
    assert RunSummary(runs / "a0").state == state


def test_csv_has_the_numbers_in_full(runs):
    assert main(["table", "a0", "b1", "--csv", "t.csv"]) == 0
    rows = list(csv.DictReader((runs / "t.csv").open()))
    assert [row["run"] for row in rows] == ["a0", "b1"]
    assert float(rows[0]["test_elbo"]) == -20 and rows[1]["test_elbo"] == ""
    assert rows[1]["learning_rate"] == "0.0003" and rows[1]["step"] == "40"


def test_runs_of_other_images_do_not_compare(runs):
    record = json.loads((runs / "a1" / "config.json").read_text())
    record["images"] = {"test": "b"}
    (runs / "a1" / "config.json").write_text(json.dumps(record))
    text = tables_of([RunSummary(runs / name) for name in ("a0", "a1")])
    assert "not all of the same images" in text and "over seeds" not in text


def test_what_says_only_where_a_run_lies_is_no_difference(runs):
    written(runs / "c", -20.0, devices=2, checkpoint_every=7)
    assert differing([RunSummary(runs / name) for name in ("a0", "c")]) == []


def test_what_is_no_number_is_told(runs):
    path = runs / "a0" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"test_elbo": None}))
    assert "not finite" in tables_of([RunSummary(runs / "a0")])
    assert mean_told([1.0, None]) == "not finite"
    numbers = np.random.default_rng(0).normal(size=7)
    expected = f"{numbers.mean():.2f} ± {numbers.std(ddof=1) / 7**0.5:.2f}"
    assert mean_told(numbers.tolist()) == expected


def test_a_run_that_cannot_be_read_is_left_out_by_a_line(runs, capsys):
    """One of a newer vaejax, and one whose result is damaged."""
    record = json.loads((runs / "a1" / "config.json").read_text())
    record["config"]["new_field"] = 1
    (runs / "a1" / "config.json").write_text(json.dumps(record))
    (runs / "b0" / "result.json").write_text("[]")
    assert main(["table", "a0", "a1", "b0"]) == 0
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("a1 is left out: ") and "new_field" in first
    assert second.startswith("b0 is left out: ") and "lacks step" in second


def test_patience_ends_a_run_where_its_configuration_did(runs):
    folder = written(runs / "p", -20.0, patience=2, validate_every=10)
    path = folder / "result.json"
    result = json.loads(path.read_text()) | {"step": 60}
    for num_steps, finished in ((100, True), (50, False)):
        path.write_text(json.dumps(result | {"config": {"num_steps": num_steps}}))
        assert RunSummary(folder).is_finished == finished


def test_mistakes(runs, capsys):
    for arguments, message in {
        ("other",): "none of these folders holds a run",
        ("a0", "--csv", "a0"): "csv = a0 is a folder",
    }.items():
        assert main(["table", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_markdown_is_read_as_a_table():
    text = markdown(["a", "long"], [["x|y", 1]])
    assert text == "| a    | long |\n|------|------|\n| x\\|y | 1    |"
