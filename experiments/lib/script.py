"""The head and the tail of a script: flags in; tables on standard output, result.json and pictures
out.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import jax
import numpy as np
from matplotlib.figure import Figure

from vaejax.base.mapping import Estimate
from vaejax.runs.command import command_line, record, use_all_cores
from vaejax.runs.config import Configuration, check_config
from vaejax.runs.files import read_json
from vaejax.runs.flags import parsed_flags
from vaejax.runs.lock import claimed
from vaejax.runs.pictures import drawn
from vaejax.runs.place import is_run, place_of

AnyConfig = TypeVar("AnyConfig", bound=Configuration)


class Report(NamedTuple):
    """What an experiment has found.

    `numbers` go to result.json, beside the configuration and all else that they depend on; `tables`
    are printed; each of the `figures` draws NAME.png, once the numbers are written. `summary` is
    the last line of output, as JSON; None makes it all numbers.
    """

    numbers: Any  # a dict, or, of a part of an experiment, whatever `plain` knows
    tables: str
    figures: dict[str, Callable[[], Figure]]
    summary: Any = None


def joined(parts: dict[str, Report]) -> Report:
    """The report of an experiment of several parts: the numbers of each under its name."""
    summaries = {
        name: part.numbers if part.summary is None else part.summary for name, part in parts.items()
    }
    return Report(
        {name: part.numbers for name, part in parts.items()},
        "\n\n".join(part.tables for part in parts.values()),
        {name: figure for part in parts.values() for name, figure in part.figures.items()},
        summaries,
    )


def run_script(
    config_type: type[AnyConfig], experiment: Callable[[AnyConfig], Report], all_cores: bool = False
) -> NoReturn:
    """Runs the experiment with the configuration of the command line, and exits.

    With `all_cores`, each core of the CPU is a device, so that `vaejax.fit_seeds` gives each a
    seed.
    """
    if all_cores:
        use_all_cores()
    sys.exit(command_line(lambda: run(parsed_flags(config_type), experiment)))


def run(config: AnyConfig, experiment: Callable[[AnyConfig], Report]) -> dict[str, Any]:
    """Runs the experiment, leaves its files in `config.out`, and returns its summary.

    What the configuration cannot be is refused before anything else. The numbers are written before
    the figures, each of which is one attempt. A folder that was made for what is refused is removed
    again.
    """
    check_config(config)
    out = place_of(config.out)  # pyright: ignore[reportAttributeAccessIssue]
    require_own(out)
    with claimed(out):
        began = time.perf_counter()
        report = experiment(config)
        seconds = round(time.perf_counter() - began, 1)
        numbers = {**plain(report.numbers), "seconds": seconds}
        record(out, config, **numbers)
        record(out, config, **numbers, pictures=drawn(report.figures, out))
    print(report.tables)
    print(f"{seconds} s, in {out}", file=sys.stderr)
    summary = report.numbers if report.summary is None else report.summary
    return {**plain(summary), "out": str(out)}


def require_own(out: Path) -> None:
    """Raises ValueError for the folder of a run, and for a result.json that no experiment has
    written.
    """
    if is_run(out):
        raise ValueError(f"{out} holds a run of train.py; name another folder")
    path = out / "result.json"
    try:
        if path.exists():
            read_json(path, "config", "versions", "seconds")
    except ValueError:
        raise ValueError(f"{path} is not an experiment's; name another folder") from None


def plain(value: Any) -> Any:
    """The same as what JSON knows: an `Estimate` as {"mean", "standard_error"}, arrays as lists."""
    if isinstance(value, Estimate):
        return value._asdict()
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic | jax.Array) else value
