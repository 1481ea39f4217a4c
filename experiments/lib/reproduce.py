"""The command of a table: `python -m experiments.reproduce.iwae --row iwae-5`."""

import dataclasses
import importlib
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

from experiments.lib.records import record, report
from experiments.lib.reproduction import Row, Table
from experiments.lib.work import OutOfTime, Work
from vaejax.base.fields import Count, Positive, Seed
from vaejax.runs.command import command_line, environment
from vaejax.runs.config import Configuration, check_config, require_seeds
from vaejax.runs.files import read_json, write_json
from vaejax.runs.flags import parsed_flags
from vaejax.runs.lock import claimed
from vaejax.runs.place import place_of
from vaejax.training.callbacks import TimeBudget


@dataclasses.dataclass(frozen=True)
class Config(Configuration):
    """Which row of the table, and how far."""

    row: str | None = None
    """The row to compute; None lists them."""
    seed: Seed | None = None
    """The one seed to compute; None computes all of the row, and records the row."""
    data_folder: str | None = None
    """The folder that the data lie in."""
    together: bool = False
    """Train all seeds of the row in one program, as suits an accelerator."""
    max_minutes: Positive | None = None
    """Stop, saved, after this many minutes; the same command goes on."""
    shrink: Count = 1
    """Take this many times fewer steps, examples and samples, for a try, which is not recorded."""
    revision: str | None = None
    """Of the code, where the repository that it runs in does not say, or says another."""
    out: str = "runs/reproduce"
    """The folder of the work: a folder of it for each table, row and seed."""


def run_table(name: str) -> NoReturn:
    """Runs the table of experiments/reproduce/NAME.py with the flags of the command line."""
    # By its name, so that its rows are of one class, however the file was started.
    module = importlib.import_module(f"experiments.reproduce.{name}")
    sys.exit(
        command_line(
            lambda: reproduce(module.TABLE, parsed_flags(Config, description=module.__doc__))
        )
    )


def reproduce(table: Table, config: Config) -> dict[str, Any]:
    """Computes a row, one seed or all; with all, records it. Where the time is up, says where it
    stopped.
    """
    check_config(config)
    if config.row is None:
        print(report(table))
        return {row.name: row.num_seeds for row in table.rows}
    row, out = table[config.row], place_of(config.out)
    budget = None if config.max_minutes is None else TimeBudget(config.max_minutes)
    require_seeds(0, row.num_seeds)
    seeds = range(row.num_seeds) if config.seed is None else (config.seed,)
    if config.together:
        train_together(table, row, config)
    for seed in seeds:
        try:
            numbers = computed(table, row, seed, config, budget)
        except OutOfTime as stopped:
            place = f"{row.name}, seed {seed}: {stopped}"
            print(f"the time is up in {place}; the same command goes on", file=sys.stderr)
            return {"stopped": place}
        print(f"{row.name}, seed {seed}: {numbers}", file=sys.stderr)
    if config.seed is None and config.shrink == 1:
        record(table, row, out)
    return {"row": row.name, "out": str(folder_of(out, table, row))}


def folder_of(out: Path, table: Table, row: Row) -> Path:
    return out / table.name / row.name


def folder_of_seed(table: Table, row: Row, seed: int, config: Config) -> Path:
    name = str(seed) if config.shrink == 1 else f"{seed}-try"
    return folder_of(place_of(config.out), table, row) / name


def work_on(
    table: Table, row: Row, seed: int, config: Config, budget: TimeBudget | None = None
) -> Work:
    return Work(
        row,
        seed,
        folder_of_seed(table, row, seed, config),
        data_folder=config.data_folder,
        shrink=config.shrink,
        budget=budget,
    )


def computed(
    table: Table, row: Row, seed: int, config: Config, budget: TimeBudget | None
) -> dict[str, Any]:
    """The numbers of a row with a seed, from result.json in its folder where they are there."""
    folder = folder_of_seed(table, row, seed, config)
    with claimed(folder):
        work = work_on(table, row, seed, config, budget)
        if (folder / "result.json").exists():
            return read_json(folder / "result.json", "numbers")["numbers"]
        facts = environment()
        facts["git"] = config.revision or facts["git"]
        with timed(folder):
            numbers = row.compute(work, seed)
        which = ["--together"] if config.together else ["--seed", str(seed)]
        flags = ["--row", row.name, *which]
        command = shlex.join(["python", "-m", f"experiments.reproduce.{table.name}", *flags])
        result = {"numbers": numbers, "training": work.training, **timing(folder)}
        write_json(folder / "result.json", {**result, "command": command, **facts})
    return numbers


def train_together(table: Table, row: Row, config: Config) -> None:
    """Trains all seeds in one program, unless each has its result."""
    seeds = range(row.num_seeds)
    folders = [folder_of_seed(table, row, seed, config) for seed in seeds]
    if all((folder / "result.json").exists() for folder in folders):
        return
    with ExitStack() as stack:
        for folder in folders:
            stack.enter_context(claimed(folder))
        works = {seed: work_on(table, row, seed, config) for seed in seeds}
        with timed(*folders):
            row.train_together(works)


# How long each seed took, but for sessions that were killed.


@contextmanager
def timed(*folders: Path) -> Iterator[None]:
    """Adds the seconds of what is done here to those of the seeds that it is done for."""
    began = time.monotonic()
    try:
        yield
    finally:
        share = (time.monotonic() - began) / len(folders)
        for folder in folders:
            seconds = timing(folder)["seconds"] + share
            write_json(folder / "seconds.json", {"seconds": round(seconds, 1)})


def timing(folder: Path) -> dict[str, float]:
    path = folder / "seconds.json"
    return read_json(path, "seconds") if path.exists() else {"seconds": 0.0}
