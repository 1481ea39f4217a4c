"""The configuration that a run was made with, and what a continuation of it must share."""

import dataclasses
from pathlib import Path
from typing import Any

from vaejax.data.own import is_path
from vaejax.runs.config import TrainConfig, check_config
from vaejax.runs.files import read_json

RUN_RECORD = ("config", "data", "versions")  # of config.json, whatever the revision

# What may differ between a run and its continuation: how far and where it goes, not what it
# computes.
FREE_TO_CHANGE = {
    "resume",
    "overwrite",
    "log",
    "num_steps",
    "max_minutes",
    "out",
    "data_folder",
    "eval_samples",
    "devices",
    "sharding",
    "distributed",
    "patience",
    "checkpoint_every",
    "validate_every",
}

# Fields that came after runs had been saved, which are resumed as if they had had the defaults.
LATER = ("label", "validation", "test", "split_seed", "precision", "skip_above", "average")

# Fields that say where a run lies and how it is kept: two runs that differ in no other one
# compute the same.
KEPT = (
    "out",
    "log",
    "resume",
    "overwrite",
    "data_folder",
    "checkpoint_every",
    "devices",
    "sharding",
    "distributed",
    "max_minutes",
)


def computed_fields(config: TrainConfig) -> dict[str, Any]:
    """The fields that decide what a run finds."""
    values = dataclasses.asdict(config)
    return {name: value for name, value in values.items() if name not in KEPT}


def saved_config(folder: str | Path) -> TrainConfig:
    """The configuration of the run in a folder."""
    path = Path(folder) / "config.json"
    if not path.exists():
        raise ValueError(
            f"{folder} holds no config.json, so it is not a run; name the folder of one"
        )
    try:
        values = dict(read_json(path, *RUN_RECORD)["config"])
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder} is not a run ({error}); name the folder of one") from None
    unknown = values.keys() - {field.name for field in dataclasses.fields(TrainConfig)}
    if unknown:
        raise ValueError(
            f"{path} has the fields {', '.join(sorted(unknown))}, which this vaejax does not know;"
            " use the one that made it"
        )
    config = TrainConfig(**{name: _from_json(value) for name, value in values.items()})
    try:
        check_config(config)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    return config


def _from_json(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def fixed_fields(config: TrainConfig) -> dict[str, Any]:
    """The fields that a continuation must share.

    A cosine schedule depends on the length of the run, so then the length is one of them. Your own
    data are known by their digests, wherever they lie.
    """
    free = FREE_TO_CHANGE - ({"num_steps"} if config.schedule == "cosine" else set())
    free |= {"data"} if is_path(config.data) else set()
    values = dataclasses.asdict(config)
    return {name: value for name, value in values.items() if name not in free}


def saved_fields(config: TrainConfig) -> dict[str, Any]:
    """Those of `fixed_fields` that are saved with each checkpoint, and held against it."""
    defaults = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    fixed = fixed_fields(config)
    usual = {name for name in LATER if fixed[name] == defaults[name]}
    return {name: value for name, value in fixed.items() if name not in usual}


def require_same_run(saved: TrainConfig, config: TrainConfig) -> None:
    """Raises ValueError for a continuation that would compute something else."""
    before, now = fixed_fields(saved), fixed_fields(config)
    differences = [
        f"{name}: saved {before[name]!r}, now {now[name]!r}"
        for name in before
        if name in now and now[name] != before[name]
    ]
    if differences:
        raise ValueError(
            f"{config.out} was trained with another configuration; {'; '.join(differences)}"
        )
