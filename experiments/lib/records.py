"""What is kept of the computed rows: experiments/reproduce/results/TABLE/ROW.json, and the page
docs/reproduced.md, which is made of them.
"""

import importlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.lib.reproduction import Records, Row, Table, by_names, settings_of
from experiments.lib.tables import markdown
from experiments.lib.tables import seeds as seeds_in_words
from vaejax.base.mapping import estimate
from vaejax.runs.files import read_json, write_json, write_text

ROOT = Path(__file__).resolve().parents[2]
TABLES = ROOT / "experiments" / "reproduce"
RESULTS = TABLES / "results"
PAGE = ROOT / "docs" / "reproduced.md"
README = ROOT / "README.md"
BEGIN, END = "<!-- reproduced: begin -->", "<!-- reproduced: end -->"
SHORT = {  # the rows in the README, by table
    "iwae": ("vae-1", "iwae-5", "iwae-50", "dreg-5", "two-layers-iwae-5"),
    "importance_weights": ("miwae", "piwae", "ciwae"),
    "vamp": ("standard", "vamp-500"),
    "semi_supervised": ("m1-svm", "m2", "m1-m2"),
    "ladder": ("lvae-warm-up",),
    "binary": ("one-relax", "two-relax"),
    "conditional": ("ciwae-1", "ciwae-5"),
}

HEAD = """# The published tables, reproduced

What the papers print, and what vaejax finds with the same data, architecture, objective and
evaluation. Each row is a frozen configuration of a file in `experiments/reproduce/`;
`make reproduce TABLE=iwae ROW=iwae-5` trains and evaluates it again, and writes this page anew from
the files in `experiments/reproduce/results/`, which also hold the training's course, all versions
and settings.

*Ours* is the mean over the seeds, ± its standard error where there are several. *Difference* is
ours less the published: lower is better, but for an ELBO, which is better where it is higher. The
time is the clock's, some of it on a card that several rows shared. No number of a test set was used
for a choice.
"""


def record(table: Table, row: Row, out: Path) -> Path:
    """Writes the record of a row from what lies in the folder of the work, and the page anew.

    Raises ValueError where a seed is not computed, or its revision is not known.
    """
    folder = out / table.name / row.name
    seeds = {seed: _result(folder / str(seed)) for seed in range(row.num_seeds)}
    numbers = [result["numbers"] for result in seeds.values()]
    ours = {name: mean_and_error([part[name] for part in numbers]) for name in numbers[0]}
    value = ours[row.measure]["mean"]
    published = row.published.value
    path = RESULTS / table.name / f"{row.name}.json"
    before = read_json(path).get("versus", {}) if path.exists() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "table": table.name,
        "row": row.name,
        "published": by_names(row.published),
        "goal": None if row.reached is None else str(row.reached),
        "ours": ours,
        "difference": None if published is None else value - published,
        "is_reached": None if row.reached is None else row.reached.is_met(value, published),
        "versus": before | versus(table, row, out),
        "settings": settings_of(by_names(row)),
        "seeds": {str(seed): result for seed, result in seeds.items()},
    }
    write_json(path, content)
    write_pages()
    return path


def _result(folder: Path) -> dict[str, Any]:
    path = folder / "result.json"
    if not path.exists():
        raise ValueError(f"{folder} has no result yet; compute this seed first")
    result = read_json(path, "numbers", "seconds", "git")
    if result["git"] is None:
        raise ValueError(f"{path} does not say of which revision it is; say it by --revision")
    return result


def mean_and_error(values: list[float]) -> dict[str, Any]:
    """Over the seeds; of one seed there is no standard error."""
    error = np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "standard_error": error and float(error)}


def versus(table: Table, row: Row, out: Path) -> dict[str, Any]:
    """{other row: this row's number less the other's}, of the means over the seeds, example by
    example; the standard error is over the examples.
    """
    differences = {}
    for other in row.versus:
        pair = [_by_example(out / table.name / name, row.measure) for name in (row.name, other)]
        if all(len(part) for part in pair):
            difference = estimate(np.mean(pair[0], axis=0) - np.mean(pair[1], axis=0))
            differences[other] = {**difference._asdict(), "examples": pair[0].shape[1]}
    return differences


def _by_example(folder: Path, measure: str) -> np.ndarray:
    """[seeds, n], of the seeds that are whole."""
    paths = sorted(folder.glob(f"[0-9]*/{measure}_by_example.npz"))
    whole = [path for path in paths if path.parent.name.isdigit()]
    return np.array([np.load(path)["arr_0"] for path in whole], np.float64)


# The page.


def tables() -> Iterator[Table]:
    """Of every file of experiments/reproduce."""
    for path in sorted(TABLES.glob("*.py")):
        if path.stem != "__init__":
            yield importlib.import_module(f"experiments.reproduce.{path.stem}").TABLE


def records_of(table: Table) -> Records:
    """{row: its record}, of the rows that have one."""
    paths = {row.name: RESULTS / table.name / f"{row.name}.json" for row in table.rows}
    return {name: read_json(path) for name, path in paths.items() if path.exists()}


def page() -> str:
    """docs/reproduced.md: the tables of which a row is recorded."""
    return "\n".join([HEAD, *(section(table) for table in tables() if records_of(table))])


def write_pages() -> None:
    """docs/reproduced.md, and the short table of the README."""
    write_text(PAGE, page())
    write_text(README, with_short_table(README.read_text(encoding="utf-8")))


def with_short_table(readme: str) -> str:
    """The README with the recorded rows of `SHORT`, between the two marks."""
    start, end = readme.index(BEGIN) + len(BEGIN), readme.index(END)
    lines = []
    for table in tables():
        records = records_of(table)
        for name in SHORT.get(table.name, ()):
            if name in records:
                row, record = table[name], records[name]
                value = row.published.value
                published = "none" if value is None else f"{value:.2f}"
                ours = _number(record["ours"][row.measure])
                lines.append([table.title, f"`{name}`", row.published.unit, published, ours])
    header = ["paper", "row", "unit", "published", "here"]
    text = f"\n{markdown(header, lines)}\n" if lines else "\n"
    return readme[:start] + text + readme[end:]


def section(table: Table) -> str:
    """The rows, what they say together, and what was chosen otherwise than in the paper."""
    records = records_of(table)
    parts = [f"## {table.title}", table.note, report(table)]
    said = [*_differences(records), *table.claims(records)]
    parts.append("\n".join(f"- {line}" for line in said))
    notes = [f"- `{row.name}`: {row.note}" for row in table.rows if row.note]
    parts.append("\n".join(["Chosen otherwise than in the paper:\n", *notes]) if notes else "")
    seeds = [seed for record in records.values() for seed in record["seeds"].values()]
    trained = [f"- {_training(name, record)}" for name, record in records.items()]
    parts.append("\n".join(["How each row was trained:\n", *trained]))
    commands = dict.fromkeys(result["command"] for result in seeds)
    parts.append("\n".join(["Computed by\n", *(f"    {command}" for command in commands)]))
    sources = dict.fromkeys(row.published.source for row in table.rows)
    parts.append(f"Published: {'; '.join(sources)}.")
    return "\n\n".join(part for part in parts if part) + "\n"


def report(table: Table) -> str:
    """A line for each row, also of those that were not computed yet."""
    records = records_of(table)
    header = ["row", "published", "ours", "difference", "goal", "reached", *table.columns.values()]
    lines = []
    for row in table.rows:
        published = row.published
        number = "none" if published.value is None else f"{published.value:.2f} {published.unit}"
        cells = [f"`{row.name}`", number]
        record = records.get(row.name)
        rest = ["not computed"] if record is None else _cells(table, row, record)
        lines.append([*cells, *rest, *[""] * (len(header) - len(cells) - len(rest))])
    return markdown(header, lines)


def _cells(table: Table, row: Row, record: Any) -> list[str]:
    difference = record["difference"]
    return [
        _number(record["ours"][row.measure]),
        "" if difference is None else f"{difference:+.2f}",
        record["goal"] or "",
        _reached(record),
        *(_number(record["ours"].get(name)) for name in table.columns),
    ]


def _training(name: str, record: Any) -> str:
    """Such as "`vae-1`: 3 seeds of 2,517 epochs, 19 min each, on NVIDIA H200, revision 8e8681e"."""
    seeds = list(record["seeds"].values())
    minutes = np.mean([result["seconds"] for result in seeds]) / 60
    time = f"{minutes:.0f} min" if minutes >= 1 else f"{60 * minutes:.0f} s"
    epochs = " + ".join(f"{fit['epochs']:,.0f}" for fit in seeds[0]["training"].values())
    devices = dict.fromkeys(result["device"].removeprefix("1 x ") for result in seeds)
    revisions = dict.fromkeys(result["git"] for result in seeds)
    share = " each" if len(seeds) > 1 else ""
    place = f"on {' and '.join(devices)}, revision {' and '.join(revisions)}"
    return f"`{name}`: {seeds_in_words(len(seeds))} of {epochs} epochs, {time}{share}, {place}"


def _reached(record: Any) -> str:
    """What misses its goal may be lower than the published, and better, unless it is an ELBO."""
    if record["is_reached"] is None:
        return ""
    is_lower = record["difference"] is not None and record["difference"] < 0
    return "yes" if record["is_reached"] else "no, lower" if is_lower else "no"


def _number(estimated: Any) -> str:
    """mean ± standard error; a whole mean without digits that say nothing."""
    if estimated is None or estimated["mean"] is None:
        return ""
    mean, error = estimated["mean"], estimated["standard_error"]
    text = f"{mean:g}" if mean == round(mean) else f"{mean:.2f}"
    return text if error is None else f"{text} ± {error:.2f}"


def _differences(records: Records) -> list[str]:
    return [
        f"`{name}` less `{other}`, over the same {pair['examples']:,} examples:"
        f" {pair['mean']:+.3f} ± {pair['standard_error']:.3f}"
        for name, record in records.items()
        for other, pair in record["versus"].items()
    ]


if __name__ == "__main__":
    write_pages()
