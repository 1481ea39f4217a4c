"""The head and the tail of a script: flags in; tables on standard output, result.json and pictures
out.
"""

import dataclasses
import inspect
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments.lib.flags import Script
from vaejax.base.mapping import Estimate
from vaejax.runs.command import command_line, environment, use_all_cores
from vaejax.runs.config import check_config
from vaejax.runs.files import read_json, write_json
from vaejax.runs.flags import parsed_flags
from vaejax.runs.lock import claimed
from vaejax.runs.pictures import drawn
from vaejax.runs.place import Kind, files_of, holds_files, listed, place_of, replacing

AnyScript = TypeVar("AnyScript", bound=Script)
START = time.perf_counter()


class Report(NamedTuple):
    """What an experiment has found.

    `numbers` go to result.json, beside the configuration and all else that they depend on; `tables`
    are printed; each of the `figures` draws NAME.png, once the numbers are written. `summary` is
    the last line of output, as JSON; None makes it all numbers but "data", where the data lie.
    """

    numbers: Any  # a dict, or, of a part of an experiment, whatever `plain` knows
    tables: str
    figures: dict[str, Callable[[], Figure]]
    summary: Any = None


def joined(parts: dict[str, Report]) -> Report:
    """The report of an experiment of several parts: the numbers of each under its name."""
    summaries = {name: summary_of(part) for name, part in parts.items()}
    return Report(
        {name: part.numbers for name, part in parts.items()},
        "\n\n".join(part.tables for part in parts.values()),
        {name: figure for part in parts.values() for name, figure in part.figures.items()},
        summaries,
    )


def run_script(
    config_type: type[AnyScript], experiment: Callable[[AnyScript], Report], all_cores: bool = False
) -> NoReturn:
    """Runs the experiment with the configuration of the command line, and exits; --help begins with
    the docstring of the script.

    With `all_cores`, each core of the CPU is a device, so that `vaejax.fit_seeds` gives each a
    seed.
    """
    if all_cores:
        use_all_cores()
    sys.exit(command_line(lambda: run(parsed_flags(config_type), experiment)))


def run(config: AnyScript, experiment: Callable[[AnyScript], Report]) -> dict[str, Any]:
    """Runs the experiment, leaves its files in `config.out`, and returns its summary.

    What the configuration cannot be is refused before anything else, and so is a folder that holds
    a result, unless it may be replaced. The numbers are written before the figures, each of which
    is one attempt. A folder that was made for what is refused is removed again.
    """
    check_config(config)
    name = Path(inspect.getfile(experiment)).stem
    out = place_of(config.out)
    require_free(out, config, name)
    with claimed(out), replacing(out, kind_of(out, config, name), resume=config.resumes()):
        facts = {"experiment": name, "config": dataclasses.asdict(config), **environment()}
        began = time.perf_counter()
        report = experiment(config)
        seconds = round(time.perf_counter() - began, 1)
        result = {**plain(report.numbers), "seconds": seconds, **facts}
        write_json(out / RESULT, result)
        write_json(out / RESULT, {**result, "pictures": drawn(report.figures, out)})
    print(report.tables)
    print(f"{seconds} s, in {out}", file=sys.stderr)
    return {**plain(summary_of(report)), "out": str(out)}


def summary_of(report: Report) -> Any:
    """What its last line of output says."""
    if report.summary is not None or not isinstance(report.numbers, dict):
        return report.numbers if report.summary is None else report.summary
    return {name: number for name, number in report.numbers.items() if name != "data"}


def tell(text: str) -> None:
    """A line on standard error for who waits, with the seconds since the start."""
    print(f"{time.perf_counter() - START:.1f} s, {text}", file=sys.stderr)


# The folder.

RESULT = "result.json"


def saved_record(folder: Path, name: str) -> dict[str, Any] | None:
    """What `folder` holds of the experiment of this name: its result, or the config.json of what
    was cut off; None where it holds neither.
    """
    for path in (folder / RESULT, folder / "config.json"):
        with suppress(ValueError):
            if path.is_file() and (record := read_json(path, "experiment"))["experiment"] == name:
                return record
    return None


def require_free(out: Path, config: Script, name: str) -> None:
    """Raises ValueError rather than write over a result, or over what is none of this experiment's.

    An experiment that resumes holds what is there against its own configuration.
    """
    names = holds_files(out)
    if config.resumes() or not names:
        return
    if saved_record(out, name) is None:
        raise ValueError(
            f"{out} holds no result of {name}, and is not overwritten: it holds {listed(names)};"
            " name another --out"
        )
    if not config.overwrite:
        raise ValueError(
            f"{out} already holds a result of {name}: --overwrite it, or name another --out"
        )


def kind_of(out: Path, config: Script, name: str) -> Kind:
    """The result of this experiment that `out` may hold, and what shows it."""
    pictures = (saved_record(out, name) or {}).get("pictures", {})
    files = (*(f"{picture}.png" for picture in pictures), *config.own_files(), RESULT)
    return Kind(
        f"result of {name}",
        files,
        is_one=lambda folder: saved_record(folder, name) is not None,
        has_results=lambda folder: bool(files_of(folder, (*config.own_files(), RESULT))),
    )


def plain(value: Any) -> Any:
    """The same as what JSON knows: an `Estimate` as {"mean", "standard_error"}, arrays as lists."""
    if isinstance(value, Estimate):
        return value._asdict()
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic | jax.Array) else value
