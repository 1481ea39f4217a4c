"""Configurations: what they check, and those of runs on disk."""

import dataclasses
import json

import pytest

from vaejax.runs.config import Setting, TrainConfig, check_config, training_config
from vaejax.runs.continuation import (
    FREE_TO_CHANGE,
    LATER,
    fixed_fields,
    require_same_run,
    saved_config,
    saved_fields,
)

# config.json of a run of the revision before.
SAVED = {
    "config": {
        "data": "digits",
        "data_folder": None,
        "binarisation": "dynamic",
        "likelihood": "bernoulli",
        "encoder": "diag-normal",
        "net": "mlp",
        "hidden": [200, 100],
        "latent_dim": 2,
        "batch_size": 100,
        "learning_rate": 0.001,
        "warm_up": 0,
        "seed": 3,
        "prior": "vamp:5",
        "estimator": "iwae",
        "num_samples": 2,
        "num_steps": 10000,
        "schedule": "constant",
        "clip_norm": None,
        "validate_every": 500,
        "patience": None,
        "checkpoint_every": 2000,
        "eval_samples": 500,
        "devices": 1,
        "out": "runs/old",
        "resume": False,
        "overwrite": False,
    },
    "data": "the package",
    "versions": {},
}


def saved(folder, **changes):
    text = json.dumps(SAVED | {"config": SAVED["config"] | changes})
    (folder / "config.json").write_text(text)
    return folder


def test_a_run_of_the_revision_before_is_read(tmp_path):
    config = saved_config(saved(tmp_path))
    assert config == TrainConfig(
        hidden=(200, 100),
        seed=3,
        prior="vamp:5",
        estimator="iwae",
        num_samples=2,
        devices=1,
        out="runs/old",
    )


def test_what_is_no_run_and_what_is_unknown_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no config.json, so it is not a run"):
        saved_config(tmp_path)
    with pytest.raises(ValueError, match="has the fields colour, which this vaejax does not know"):
        saved_config(saved(tmp_path, colour="red"))


@pytest.mark.parametrize(
    "change",
    [
        {"latent_dim": "two"},
        {"latent_dim": 1.5},
        {"latent_dim": True},
        {"latent_dim": 0},
        {"hidden": "abc"},
        {"prior": 3},
        {"prior": None},
        {"data": ["digits"]},
        {"learning_rate": "x"},
        {"seed": None},
        {"out": 3},
    ],
    ids=str,
)
def test_a_saved_value_of_another_kind_is_named(change, tmp_path):
    with pytest.raises(ValueError, match=f"{next(iter(change))} = ") as raised:
        saved_config(saved(tmp_path, **change))
    assert "\n" not in str(raised.value)


def test_a_training_in_another_experiments_setting_has_all_of_it():
    setting = Setting(latent_dim=7, hidden=(3,), seed=5)
    config = training_config(setting, patience=9)
    for field in dataclasses.fields(Setting):
        assert getattr(config, field.name) == getattr(setting, field.name)
    assert config.patience == 9 and config.prior == TrainConfig().prior


def test_a_continuation_may_go_farther_and_elsewhere_and_nothing_else():
    config = TrainConfig()
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    assert names > FREE_TO_CHANGE
    require_same_run(config, dataclasses.replace(config, num_steps=1, out="x", patience=3))
    with pytest.raises(ValueError, match="another configuration; seed: saved 0, now 1"):
        require_same_run(config, dataclasses.replace(config, seed=1))
    cosine = dataclasses.replace(config, schedule="cosine")
    assert "num_steps" in fixed_fields(cosine) and "num_steps" not in fixed_fields(config)


def test_a_run_saved_before_a_field_was_there_had_its_default():
    config = TrainConfig()
    assert set(fixed_fields(config)) - set(saved_fields(config)) == set(LATER)
    labelled = dataclasses.replace(config, label="kind", split_seed=1)
    assert set(LATER) & set(saved_fields(labelled)) == {"label", "split_seed"}


@pytest.mark.parametrize(
    "change",
    [
        {"latent_dim": 0},
        {"batch_size": -1},
        {"patience": 0},
        {"learning_rate": float("inf")},
        {"learning_rate": 0.0},
        {"warm_up": -1},
        {"clip_norm": 0.0},
    ],
    ids=str,
)
def test_numbers_that_cannot_be_are_named(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))} = .*must be"):
        check_config(dataclasses.replace(TrainConfig(), **change))
