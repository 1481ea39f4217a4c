"""Trains a VAE, evaluates the run, draws from its model, and compares runs.

`vaejax train --help` lists the flags. The default run trains for 13 s on two cores of an Intel
Xeon.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tyro

from vaejax.base.version import __version__
from vaejax.runs.command import command_line
from vaejax.runs.config import Configuration, TrainConfig
from vaejax.runs.data_sets import DataConfig, list_data
from vaejax.runs.draw import SampleConfig, sample_run
from vaejax.runs.evaluate import evaluate_run
from vaejax.runs.flags import with_ranges
from vaejax.runs.parts import EvaluateConfig
from vaejax.runs.registry import TABLES
from vaejax.runs.sweep import SweepConfig, sweep
from vaejax.runs.table import TableConfig, table_of_runs
from vaejax.runs.train import parsed, train


@dataclass(frozen=True)
class NamesConfig(Configuration):
    """Lists the names of priors, encoders, likelihoods, nets and estimators."""


COMMANDS = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "sample": SampleConfig,
    "table": TableConfig,
    "sweep": SweepConfig,
    "data": DataConfig,
    "names": NamesConfig,
}


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """What a command line asks for."""
    commands = {name: with_ranges(kind) for name, kind in COMMANDS.items()}
    config = tyro.extras.subcommand_cli_from_dict(
        commands, prog="vaejax", description=__doc__, args=arguments
    )
    match config:
        case SweepConfig():
            return sweep(config)
        case TrainConfig():
            return train(parsed(arguments[1:], prog="vaejax train"))
        case EvaluateConfig():
            return evaluate_run(config)
        case SampleConfig():
            return sample_run(config)
        case TableConfig():
            return table_of_runs(config)
        case DataConfig():
            return list_data(config)
        case _:
            return list_names()


def list_names() -> dict[str, list[str]]:
    """Prints every table of names."""
    width = max(len(name) for table in TABLES.values() for name in table)
    for kind, table in TABLES.items():
        print(f"\n{kind}")
        for name, entry in table.items():
            print(f"  {name:<{width}}  {entry.description}")
    print()
    return {kind: list(table) for kind, table in TABLES.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of the command `vaejax`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if list(arguments) == ["--version"]:
        print(f"vaejax {__version__}")
        return 0
    return command_line(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
