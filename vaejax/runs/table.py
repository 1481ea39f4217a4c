"""Runs side by side: in what they differ, what each found, and the means over seeds."""

import csv
import io
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from vaejax.base.fields import Distinct
from vaejax.runs.config import Configuration, TrainConfig, check_config
from vaejax.runs.continuation import RUN_RECORD, computed_fields, saved_config
from vaejax.runs.files import read_json, write_text
from vaejax.runs.place import expanded, is_run, place_of

RESULTS = {"test_elbo": "test ELBO", "test_log_marginal": "test log p(x)"}  # nats, with errors

Row = dict[str, str]


@dataclass(frozen=True)
class TableConfig(Configuration):
    """Prints trained runs side by side: what differs in their configurations, and their results."""

    runs: tyro.conf.Positional[Distinct[str]]
    """Their folders, such as runs/*."""
    csv: str | None = None
    """Writes the table of runs into this file too, each number in full."""


class RunSummary:
    """What one run's folder says."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.config: TrainConfig = saved_config(folder)
        record = read_json(folder / "config.json", *RUN_RECORD)
        self.images: Mapping[str, str] = record.get("images", {})
        result = folder / "result.json"
        self.result: Mapping[str, Any] = read_json(result, "step") if result.exists() else {}

    @property
    def is_finished(self) -> bool:
        """Whether it has been evaluated where its configuration ends: at its last step, or where
        its patience did.
        """
        trained_for = self.result.get("config", {}).get("num_steps")
        stopped = self.config.patience is not None and trained_for == self.config.num_steps
        return bool(self.result) and (stopped or self.result["step"] >= self.config.num_steps)

    @property
    def step(self) -> int:
        """Of the newest checkpoint, or of the result."""
        saved = [path.name for path in self.folder.glob("checkpoints/*")]
        return max([0, self.result.get("step", 0), *(int(s) for s in saved if s.isdigit())])

    @property
    def state(self) -> str:
        if self.is_finished:
            return "finished"
        state = f"not finished, step {self.step:,} of {self.config.num_steps:,}"
        return f"{state}; the result is of step {self.result['step']:,}" if self.result else state


def table_of_runs(config: TableConfig) -> dict[str, Any]:
    """Prints the table of the runs in some folders, and returns what is in it."""
    check_config(config)
    folders = [expanded(name, "runs") for name in config.runs]
    target = None if config.csv is None else _file_of(config.csv)
    summaries = list(filter(None, map(summary_of, folders)))
    if not summaries:
        raise ValueError("none of these folders holds a run; name some, such as runs/*")
    print(tables_of(summaries))
    if target is not None:
        write_text(target, csv_of(summaries))
    return {
        "runs": len(summaries),
        "finished": sum(summary.is_finished for summary in summaries),
        "left_out": len(folders) - len(summaries),
    }


def summary_of(folder: Path) -> RunSummary | None:
    """What the run in a folder says; None, and a line of why, where it holds none."""
    try:
        if is_run(folder):
            return RunSummary(folder)
        reason = "it holds no run"
        if any(is_run(path) for path in folder.glob("*/")):
            reason = f"it is a folder of runs; name them, {folder}/*"
    except ValueError as error:  # of another vaejax, or damaged
        reason = str(error)
    print(f"{folder} is left out: {reason}", file=sys.stderr)
    return None


def _file_of(name: str) -> Path:
    path = expanded(name, "csv")
    if path.is_dir():
        raise ValueError(f"csv = {name} is a folder; name a file")
    place_of(path.parent, "csv")
    return path


def tables_of(summaries: Sequence[RunSummary]) -> str:
    """The tables in Markdown: of the runs, and of the means over seeds where there are some."""
    fields = differing(summaries)
    rows = [
        {"run": str(summary.folder)}
        | _shown(summary, fields)
        | _results(summary)
        | {"state": summary.state}
        for summary in summaries
    ]
    parts = [markdown_of(rows)]
    if len({str(summary.images) for summary in summaries}) > 1:
        parts.append("The runs are not all of the same images: their bounds do not compare.")
    means = over_seeds(summaries, fields)
    if means:
        parts.append(f"Mean ± standard error over seeds:\n\n{markdown_of(means)}")
    return "\n\n".join(parts)


def differing(summaries: Sequence[RunSummary]) -> list[str]:
    """The fields of the configuration in which the runs differ."""
    first, *others = (computed_fields(summary.config) for summary in summaries)
    return [name for name in first if any(other[name] != first[name] for other in others)]


def over_seeds(summaries: Sequence[RunSummary], fields: Sequence[str]) -> list[Row]:
    """For each configuration that finished with two seeds or more: the means, and the standard
    errors of these by how the seeds differ.
    """
    groups: dict[str, list[RunSummary]] = {}
    others = [name for name in fields if name != "seed"]
    for summary in summaries:
        if summary.is_finished:
            values = computed_fields(summary.config) | {"seed": None, "images": summary.images}
            groups.setdefault(str(values), []).append(summary)
    rows = []
    for group in groups.values():
        if len({summary.config.seed for summary in group}) < max(2, len(group)):
            continue
        row = _shown(group[0], others) | {"seeds": str(len(group))}
        for name, title in RESULTS.items():
            row[title] = mean_told([summary.result.get(name) for summary in group])
        rows.append(row)
    return rows


def mean_told(numbers: Sequence[float | None]) -> str:
    """Mean ± standard error of numbers; what is not finite leaves none."""
    values = np.array([math.nan if number is None else number for number in numbers])
    error = values.std(ddof=1) / math.sqrt(len(values))
    return f"{values.mean():.2f} ± {error:.2f}" if np.isfinite(values).all() else "not finite"


def _shown(summary: RunSummary, fields: Sequence[str]) -> Row:
    values = asdict(summary.config)
    return {name.replace("_", " "): _cell(values[name]) for name in fields}


def _cell(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _results(summary: RunSummary) -> Row:
    """The results with their standard errors over the test set; blank where there are none."""
    result, row = summary.result, {}
    for name, title in RESULTS.items():
        mean, error = result.get(name), result.get(f"{name}_standard_error")
        row[title] = "" if not result else "not finite"
        if mean is not None:
            row[title] = f"{mean:.2f}" + ("" if error is None else f" ± {error:.2f}")
    units = result.get("active_units")
    row["active units"] = "" if units is None else f"{units} of {summary.config.latent_dim}"
    return row


def markdown_of(rows: Sequence[Row]) -> str:
    """`markdown` of rows that have the names of their columns."""
    return markdown(rows[0], [row.values() for row in rows])


def markdown(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """| header |, a rule, and a line for each row of cells, in columns that stand beneath each
    other in a terminal too.
    """
    cells = [[str(cell).replace("|", "\\|") for cell in line] for line in (header, *rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = [
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |"
        for line in cells
    ]
    rule = f"|{'|'.join('-' * (width + 2) for width in widths)}|"
    return "\n".join([lines[0], rule, *lines[1:]])


def csv_of(summaries: Sequence[RunSummary]) -> str:
    """The runs with each field in which they differ, and each result in full."""
    fields, file = differing(summaries), io.StringIO()
    results = [f"{name}{end}" for name in RESULTS for end in ("", "_standard_error")]
    names = ["run", *fields, *results, "active_units", "step", "state"]
    writer = csv.DictWriter(file, names)
    writer.writeheader()
    for summary in summaries:
        values = asdict(summary.config)
        row = {name: _cell(values[name]) for name in fields}
        row |= {name: summary.result.get(name, "") for name in (*results, "active_units")}
        row |= {"run": summary.folder, "step": summary.step, "state": summary.state}
        writer.writerow(row)
    return file.getvalue()
