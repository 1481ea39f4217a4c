"""A sweep: a run for every seed and every combination of some fields, from one command."""

import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from vaejax.base.checks import unknown_name
from vaejax.base.fields import Distinct, Positive, Seed
from vaejax.runs.command import MISTAKES
from vaejax.runs.config import TrainConfig, check_config
from vaejax.runs.continuation import computed_fields, require_same_run, saved_config
from vaejax.runs.flags import parsed_flags
from vaejax.runs.place import is_run, place_of, require_free
from vaejax.runs.prepared import prepared_training
from vaejax.runs.table import RunSummary, tables_of
from vaejax.runs.train import train
from vaejax.training.callbacks import TimeBudget

NOT_SWEPT = ("out", "resume", "overwrite", "distributed", "seed", "data_folder")


class SweepError(ValueError):
    """Some runs of a sweep failed; the others are done."""


@dataclass(frozen=True)
class SweepConfig(TrainConfig):
    """Trains a run for every seed and every combination of --over, in a folder of its own each, and
    prints them side by side. Called again, it goes on: what is finished stays as it is.
    """

    out: str = "runs/sweep"
    """The folder of the runs' folders."""
    seeds: Distinct[Seed] = (0,)
    """Instead of --seed."""
    max_minutes: Positive | None = None
    """Stop, saved, after this many minutes of the whole sweep; the same command goes on."""
    over: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """FIELD=VALUE,VALUE,..., such as --over prior=normal,vamp:50 --over learning-rate=1e-3,3e-4;
    several numbers in a value are separated by spaces, --over "hidden=200,400 400".
    """

    def check_together(self) -> None:
        super().check_together()
        if self.distributed:
            raise ValueError(
                "a sweep runs in one process; leave out --distributed, or start its runs by vaejax"
                " train --distributed"
            )
        if self.resume or self.overwrite:
            raise ValueError(
                "a sweep goes on by itself, and overwrites nothing: leave out --resume and"
                " --overwrite, or name another --out"
            )


def sweep(config: SweepConfig) -> dict[str, Any]:
    """Trains what is not finished, prints the table, and returns how many runs there are.

    All combinations are checked before the first run starts. A run that fails is named at once and
    at the end, by a SweepError, and the others go on.
    """
    check_config(config)
    runs = swept_runs(config)
    todo = {name: run for name, run in runs.items() if not is_finished(run)}
    check_all(todo)
    budget = None if config.max_minutes is None else TimeBudget(config.max_minutes)
    failed = _train_each(todo, budget)
    made = [Path(run.out) for run in runs.values() if is_run(Path(run.out))]
    if made:
        print("\n" + tables_of([RunSummary(folder) for folder in made]))
    if failed:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        raise SweepError(f"{len(failed)} of {len(runs)} runs failed: {reasons}")
    left = sum(not is_finished(run) for run in runs.values())
    if left:
        print(f"{left} of {len(runs)} runs are left; the same command goes on", file=sys.stderr)
    trained = len(todo) - left
    return {"runs": len(runs), "trained": trained, "left": left, "out": str(place_of(config.out))}


def _train_each(runs: dict[str, TrainConfig], budget: TimeBudget | None) -> dict[str, str]:
    """Trains one run after another while there is time; {name of one that failed: the reason}."""
    failed: dict[str, str] = {}
    for number, (name, run) in enumerate(runs.items(), 1):
        if budget is not None and budget.is_over():
            break
        print(f"\n{name} ({number} of {len(runs)})", file=sys.stderr)
        try:
            train(continued(run), budget)
        except Exception as error:  # of one run: it may be of its numbers alone
            failed[name] = " ".join(str(error).split()) or type(error).__name__
            print(f"{name} failed: {failed[name]}", file=sys.stderr)
            if not isinstance(error, MISTAKES):
                sys.excepthook(type(error), error, error.__traceback__)
    return failed


def swept_runs(config: SweepConfig) -> dict[str, TrainConfig]:
    """{name: the configuration of a run}, of every combination and every seed."""
    names = [field.name for field in fields(TrainConfig)]
    base = TrainConfig(**{name: getattr(config, name) for name in names})
    runs: dict[str, TrainConfig] = {}
    for pairs in _combinations([_choices(text, names) for text in config.over]):
        flags = [flag for field, value in pairs for flag in _flag(field, value)]
        combined = parsed_flags(TrainConfig, flags, prog="vaejax sweep --over", default=base)
        for seed in config.seeds:
            name = _name_of([*pairs, ("seed", str(seed))])
            if name in runs:
                raise ValueError(f"--over gives two runs the name {name}; leave one of them out")
            runs[name] = replace(combined, seed=seed, out=str(Path(config.out) / name))
    return runs


def _combinations(choices: list[tuple[str, list[str]]]) -> Iterator[list[tuple[str, str]]]:
    """[(field, value)] of every combination of a value of each field."""
    swept = [field for field, _ in choices]
    twice = next((field for i, field in enumerate(swept) if field in swept[:i]), None)
    if twice is not None:
        raise ValueError(f"--over names {twice} twice; give all its values at once")
    for values in itertools.product(*(values for _, values in choices)):
        yield list(zip(swept, values, strict=True))


def _choices(text: str, known: list[str]) -> tuple[str, list[str]]:
    """(field, its values) of FIELD=VALUE,VALUE."""
    name, equals, values = text.partition("=")
    field = name.strip().removeprefix("--").replace("-", "_")
    listed = [value.strip() for value in values.split(",")]
    if not equals or "" in listed:
        raise ValueError(f"--over {text!r}; give FIELD=VALUE,VALUE, such as prior=normal,vamp:50")
    if field in NOT_SWEPT:
        instead = "seeds are given by --seeds" if field == "seed" else "it is one for all runs"
        raise ValueError(f"--over {text!r}: {field} is not swept over; {instead}")
    if field not in known:
        raise ValueError(unknown_name("field", field, known))
    if len(set(listed)) < len(listed):
        raise ValueError(f"--over {text!r} names a value twice; name each once")
    return field, listed


def _flag(field: str, value: str) -> list[str]:
    return [f"--{field.replace('_', '-')}", *value.split()]


def _name_of(pairs: Sequence[tuple[str, str]]) -> str:
    """The name of a run's folder: what it has of its own, in letters that every shell takes."""
    text = ",".join(f"{field}={value}" for field, value in pairs)
    return re.sub(r"[^\w.,=:+-]+", "-", text)


def is_finished(run: TrainConfig) -> bool:
    """Whether this very run lies in its folder, trained and evaluated."""
    folder = Path(run.out)
    if not is_run(folder):
        return False
    summary = RunSummary(folder)
    return summary.is_finished and computed_fields(summary.config) == computed_fields(run)


def check_all(runs: dict[str, TrainConfig]) -> None:
    """Raises for the first run that could not be trained: each combination is prepared with one
    seed, and each folder is looked at.
    """
    prepared = []
    for name, run in runs.items():
        try:
            check_config(run)
            here = continued(run)
            if here.resume:
                require_same_run(saved_config(Path(run.out)), here)
            require_free(here)
            combination = computed_fields(replace(run, seed=0))
            if combination not in prepared:
                prepared_training(here)
                prepared.append(combination)
        except MISTAKES as error:
            raise ValueError(f"{name}: {error}") from None


def continued(run: TrainConfig) -> TrainConfig:
    """The run, resumed where it has a checkpoint; one that was killed before starts anew."""
    folder = Path(run.out)
    if not is_run(folder):
        return run
    saved = any(path.name.isdigit() for path in folder.glob("checkpoints/*"))
    return replace(run, resume=saved, overwrite=not saved)
