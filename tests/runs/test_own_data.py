"""Runs on data of one's own: trained, resumed, evaluated, drawn from, from anywhere."""

import json
import shutil

import jax
import numpy as np
import pytest

import vaejax
from tests.lib.runs import SMALL, files_in, train, vaejax_here
from vaejax.__main__ import main
from vaejax.runs.config import TrainConfig
from vaejax.runs.continuation import fixed_fields, saved_config

TABLE = np.random.default_rng(0).normal(size=(400, 3)) @ [[1, 2, 0], [0, 1, -1], [0, 0, 0.3]]
REAL = ["--likelihood", "gaussian", "--binarisation", "none"]


def write_table(path):
    lines = ["a,b,c,kind", *(",".join([*map(str, row), "xy"[int(row[0] > 0)]]) for row in TABLE)]
    path.write_text("\n".join(lines))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table, and a run on it, from a working folder of its own."""
    folder = tmp_path_factory.mktemp("own")
    write_table(folder / "my.csv")
    flags = ["--data", "my.csv", "--label", "kind", "--validation", "50", *REAL, *SMALL]
    vaejax_here("train", *flags, "--out", "run", folder=folder)
    return folder


@pytest.fixture
def run(folder, elsewhere):
    """A copy of the run, in another working folder than it was made in."""
    shutil.copytree(folder / "run", elsewhere / "run")
    return elsewhere / "run"


def test_what_was_train_valid_and_test_is_recorded(folder):
    for name in ("config.json", "result.json"):
        record = json.loads((folder / "run" / name).read_text())
        assert record["examples"] == {"train": 310, "valid": 50, "test": 40}
        assert set(record["images"]) == {"train", "valid", "test"}
        assert record["config"]["data"] == str(folder / "my.csv")
        assert "valid and test drawn from train with seed 0" in record["data"]
        assert "0 is x, 1 is y" in record["data"] and "real numbers" in record["data"]
    result = json.loads((folder / "run" / "result.json").read_text())
    for name in ("samples", "reconstructions", "latent"):  # of numbers in a row, as lines
        assert result["pictures"][name] == f"{name}.png"


def test_it_opens_with_its_data_from_anywhere(run):
    opened = vaejax.open_run(run)
    assert opened.dataset.name == "my.csv" and opened.dataset.maximum is None
    assert opened.dataset.train.images.shape == (310, 3)
    key = jax.random.key(0)
    x = opened.transform(opened.dataset.test.images[0], key)
    assert np.isfinite(vaejax.elbo(opened.model, opened.params, x, key))


def test_it_is_resumed_evaluated_and_drawn_from(run, capsys):
    assert train("--resume", "--num-steps", "80", "--out", "run") == 0
    few = ["--eval-samples", "4", "--ais-size", "0", "--simulations", "10", "--eval-size", "30"]
    assert main(["evaluate", "--run", "run", *few]) == 0
    assert main(["sample", "--run", "run", "--num-samples", "5"]) == 0
    with np.load(run / "draws.npz") as draws:
        assert draws["x"].shape == (5, 3)
    assert (run / "draws.png").exists() and "not drawn" not in capsys.readouterr().err


def test_data_that_moved_or_changed_are_told(folder, run, capsys, monkeypatch):
    """The message says where they were, and --data-folder where they are; other contents never
    pass.
    """
    moved = run.parent / "data"
    moved.mkdir()
    original = folder / "my.csv"
    original.rename(moved / "my.csv")
    try:
        before = files_in(run)
        for command in (["train", "--resume", "--out", "run"], ["sample", "--run", "run"]):
            assert main(command) == 2
            assert "my.csv is not there" in (error := capsys.readouterr().err)
            assert "--data-folder" in error
        assert main(["sample", "--run", "run", "--data-folder", "data", "--num-samples", "2"]) == 0
        assert vaejax.open_run(run, data_folder="data").step == 60
        assert train("--resume", "--data", "data/my.csv", "--out", "run") == 0
        for name in ("draws.npz", "draws.png"):
            (run / name).unlink()
        text = (moved / "my.csv").read_text()
        (moved / "my.csv").write_text(text.replace("\n", "\n9,9,9,x\n", 1))
        assert main(["sample", "--run", "run"]) == 2
        assert "images are not those of run" in capsys.readouterr().err
        assert set(files_in(run)) == set(before)
    finally:
        write_table(original)


def test_own_data_are_known_by_their_digests():
    config = TrainConfig(data="a.csv")
    assert "data" not in fixed_fields(config) and "label" in fixed_fields(config)
    assert "data" in fixed_fields(TrainConfig())


def test_pixels_and_real_numbers_are_not_taken_for_each_other(folder, elsewhere, capsys):
    flags = ["--data", str(folder / "my.csv"), "--label", "kind", *SMALL, "--out", "new"]
    refusals = {
        (): "--binarisation none --likelihood gaussian",
        ("--binarisation", "none"): "choose one of real numbers, such as Gaussian",
        ("--maximum", "255"): "stored pixels are 0..maximum",
        ("--net", "conv", *REAL): "3",
        ("--label", "nothing"): "has the columns a, b, c, kind; name one",
        ("--validation", "1.5"): "validation = 1.5; give a fraction below 1, or a whole number",
        ("--validation", "390"): "would be held out",
    }
    for more, message in refusals.items():
        assert train(*flags, *more) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, (more, error)
    assert list(elsewhere.iterdir()) == []


def test_settings_of_numbers_are_the_runs_own(run, capsys):
    """Resumed in double precision, or with other random numbers, it would be another run."""
    before = files_in(run)
    settings = {
        "jax_enable_x64": jax.enable_x64(True),
        "jax_threefry_partitionable": jax.threefry_partitionable(False),
    }
    for name, setting in settings.items():
        with setting:
            assert train("--resume", "--num-steps", "80", "--out", "run") == 2
        assert name in capsys.readouterr().err
    assert files_in(run) == before


def test_numbers_of_numpy_are_those_of_the_command_line(run):
    config = TrainConfig(learning_rate=np.float32(1e-3), hidden=(np.int32(16),), seed=np.int64(0))
    assert config == TrainConfig(learning_rate=1e-3, hidden=(16,))
    assert TrainConfig(learning_rate=jax.numpy.float32(3e-4)).learning_rate == 3e-4
    assert saved_config(run).label == "kind"
