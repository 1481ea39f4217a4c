"""What every experiment is: it stands on experiments/lib alone, and leaves its files or nothing."""

import ast
import dataclasses
import importlib
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments.lib import tables
from experiments.lib.figures import curve
from experiments.lib.flags import Script
from experiments.lib.script import Report, joined, run, tell
from tests.lib.paths import EXPERIMENTS
from tests.lib.runs import made_run
from tests.lib.scripts import attempt
from vaejax import plots
from vaejax.base.fields import Plural
from vaejax.base.mapping import Estimate
from vaejax.runs.lock import claimed

TOPICS = ("graphs", "inference", "gradients", "representation")


SCRIPTS = [path for topic in TOPICS for path in sorted((EXPERIMENTS / topic).glob("*.py"))]
COMMANDS = [EXPERIMENTS / "train.py", EXPERIMENTS / "evaluate.py"]
each_script = pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)


@dataclasses.dataclass(frozen=True)
class Config(Script):
    count: Plural = 2


def experiment(config: Config) -> Report:
    numbers = {"estimate": Estimate(1.0, 0.5), "array": np.arange(2), "number": np.float64(0.25)}
    return Report(numbers, "a table", {"picture": Figure})


def test_no_experiment_imports_another():
    """And lib imports none."""
    for path in EXPERIMENTS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("experiments"):
                assert node.module.startswith("experiments.lib"), (path, node.module)


@pytest.mark.parametrize("path", [*SCRIPTS, *COMMANDS], ids=lambda path: path.stem)
def test_the_docstring_has_the_command_and_its_duration(path):
    """A command of the script itself, and a last paragraph of one form."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert f"python {path.relative_to(EXPERIMENTS.parent)}" in docstring
    duration = r"Duration: \d+ s on (one core|two cores) of an? \w+"
    assert docstring.count("Duration: ") == 1
    assert re.match(duration, docstring.split("\n\n")[-1])


@pytest.mark.slow
@pytest.mark.parametrize("path", [*SCRIPTS, *COMMANDS], ids=lambda path: path.stem)
def test_help_begins_with_the_docstring(path, tmp_path):
    done = attempt(path.stem, "--help", folder=tmp_path)
    claim = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0]
    assert done.returncode == 0 and "Duration: " in done.stdout
    assert " ".join(claim.split()) in " ".join(done.stdout.split())


def returned(tree: ast.Module, kind: str) -> dict[str, ast.FunctionDef]:
    """The functions of a module whose annotation says that they return it."""
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    return {
        name: node
        for name, node in functions.items()
        if node.returns is not None and kind in ast.unparse(node.returns)
    }


def called_at_once(node: ast.AST):
    """The names of what is called, but for what a lambda would call."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield ast.unparse(child.func).rpartition(".")[2]
        if not isinstance(child, ast.Lambda):
            yield from called_at_once(child)


def test_no_figure_is_drawn_before_the_numbers_are_there():
    """What makes a Report calls none of the functions that make a Figure."""
    folders = (EXPERIMENTS / "lib", Path(plots.__file__).parent)
    shared = {
        name
        for folder in folders
        for path in folder.glob("*.py")
        for name in returned(ast.parse(path.read_text()), "Figure")
    }
    assert {"image_grid", "priors", "image_rows", "against_work", "figure_of"} <= shared
    reports = 0
    for topic in TOPICS:
        for path in (EXPERIMENTS / topic).glob("*.py"):
            tree = ast.parse(path.read_text())
            own = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            makers = shared - own | set(returned(tree, "Figure")) | {"Figure"}
            for name, function in returned(tree, "Report").items():
                assert makers.isdisjoint(called_at_once(function)), (path.name, name)
                reports += 1
    assert reports > len(TOPICS)


def test_an_experiment_leaves_its_files_and_its_summary(tmp_path, capsys):
    out = tmp_path / "deep" / "out"
    summary = run(Config(str(out)), experiment)
    numbers = {"array": [0, 1], "number": 0.25}
    numbers |= {"estimate": {"mean": 1.0, "standard_error": 0.5}}
    assert summary == numbers | {"out": str(out)}
    stored = json.loads((out / "result.json").read_text())
    assert numbers.items() <= stored.items() and stored["config"]["count"] == 2
    assert stored["pictures"] == {"picture": "picture.png"}
    assert stored["config"] == {"out": str(out), "overwrite": False, "seed": 0, "count": 2}
    assert {"experiment", "versions", "git", "device", "platform", "seconds"} <= stored.keys()
    assert {path.name for path in out.iterdir()} == {"picture.png", "result.json"}
    assert capsys.readouterr().out == "a table\n"


def test_what_is_refused_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="count = 1; it must be a whole number, at least 2"):
        run(Config(str(tmp_path / "out"), count=1), experiment)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file; name a folder"):
        run(Config(str(tmp_path / "file")), experiment)


def test_what_another_has_written_is_not_written_over(tmp_path):
    """With --overwrite or without."""
    run_of_train = made_run(tmp_path / "run")
    for text in ('{"accuracy": 0.5}', "[]", "no JSON", '{"experiment": "mixtures"}'):
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other" / "result.json").write_text(text)
        for folder, overwrite in itertools.product((tmp_path / "other", run_of_train), (0, 1)):
            before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
            with pytest.raises(ValueError, match="holds no result of test_script, and is not over"):
                run(Config(str(folder), overwrite=bool(overwrite)), pytest_fails)
            assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def pytest_fails(config: Config) -> Report:
    """An experiment of this file that is not to begin."""
    pytest.fail("it has begun")


@each_script
def test_no_result_is_written_over_unless_that_is_asked_for(path, tmp_path):
    """Of any experiment."""
    module = importlib.import_module(f"experiments.{path.parent.name}.{path.stem}")
    result = tmp_path / "result.json"
    result.write_text(json.dumps({"experiment": path.stem, "seconds": 1.0}))
    before = result.read_text()
    with pytest.raises(ValueError, match=f"holds a result of {path.stem}: --overwrite it, or name"):
        run(module.Config(out=str(tmp_path)), module.experiment)
    assert result.read_text() == before and list(tmp_path.iterdir()) == [result]


def test_overwriting(tmp_path):
    """The new result takes the place of the old one and its pictures, the old one comes back where
    the new one fails, and what is not the experiment's stays.
    """
    config = Config(str(tmp_path / "out"))
    run(config, experiment)
    (tmp_path / "out" / "notes.txt").touch()
    left = {"notes.txt", "picture.png", "result.json"}
    again = dataclasses.replace(config, overwrite=True)

    def fails(config):
        assert not (tmp_path / "out" / "result.json").exists()
        raise FloatingPointError("NaN")

    before = (tmp_path / "out" / "result.json").read_text()
    with pytest.raises(FloatingPointError):
        run(again, fails)
    assert (tmp_path / "out" / "result.json").read_text() == before
    assert {path.name for path in (tmp_path / "out").iterdir()} == left
    run(again, lambda config: Report({"number": 2}, "", {"another": Figure}))
    assert json.loads((tmp_path / "out" / "result.json").read_text())["number"] == 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "notes.txt",
        "another.png",
        "result.json",
    }


def test_two_of_one_folder(tmp_path):
    """The second is refused before its work, not after."""
    with claimed(tmp_path), pytest.raises(ValueError, match="is in use by process"):
        run(Config(str(tmp_path)), pytest_fails)
    with pytest.raises(ValueError, match="is in use by process"):
        run(Config(str(tmp_path)), lambda config: run(config, pytest_fails))
    assert list(tmp_path.iterdir()) == []


def test_numbers_are_written_whatever_can_be_drawn(tmp_path, capsys):
    bad = Figure()
    bad.text(0.5, 0.5, "$no end of mathematics")  # refused when it is saved
    bad.suptitle(r"$\\nothing$")

    def none() -> Figure:
        assert "ratio" in json.loads((tmp_path / "result.json").read_text())
        raise MemoryError("no room for a picture")

    numbers = {"ratio": np.float64("nan"), "error": Estimate(1.0, float("inf"))}
    figures = {"none": none, "bad": lambda: bad, "good": Figure}
    summary = run(Config(str(tmp_path)), lambda _: Report(numbers, "", figures))
    stored = json.loads((tmp_path / "result.json").read_text(), parse_constant=pytest.fail)
    assert stored["ratio"] is None and stored["error"] == {"mean": 1.0, "standard_error": None}
    assert stored["not_finite"] == {"ratio": "nan", "error.standard_error": "inf"}
    assert stored["pictures"]["none"] == "none.png is not drawn: no room for a picture"
    assert stored["pictures"]["bad"].startswith("bad.png is not drawn: ")
    assert stored["pictures"]["good"] == "good.png" and (tmp_path / "good.png").exists()
    assert "bad.png is not drawn" in capsys.readouterr().err and summary["ratio"] != 0


def test_parts_are_joined_under_their_names():
    first = Report({"a": 1}, "one", {"x": Figure}, {"s": 2})
    second = Report([3], "two", {"y": Figure})
    whole = joined({"first": first, "second": second})
    assert whole.numbers == {"first": {"a": 1}, "second": [3]}
    assert whole.summary == {"first": {"s": 2}, "second": [3]}
    assert whole.tables == "one\n\ntwo" and set(whole.figures) == {"x", "y"}


def test_where_the_data_lie_is_in_the_result_alone(tmp_path):
    numbers = {"data": "/somewhere", "rows": [1]}
    summary = run(Config(str(tmp_path)), lambda _: Report(numbers, "", {}))
    assert summary == {"rows": [1], "out": str(tmp_path)}
    assert json.loads((tmp_path / "result.json").read_text())["data"] == "/somewhere"


def test_what_is_told_is_no_output(capsys):
    tell("beta 1")
    printed = capsys.readouterr()
    assert printed.out == "" and re.fullmatch(r"\d+\.\d s, beta 1\n", printed.err)


def test_tables():
    assert tables.markdown(["a", "b"], [[1, "x"]]) == "| a | b |\n|---|---|\n| 1 | x |"
    row = {"gain": Estimate(0.5, 0.25), "accuracy": Estimate(0.5, 0.01)}
    table = tables.table("gain | accuracy", "{gain:+.1f} | {accuracy:.1%}", [row])
    assert table.endswith("| +0.5 ± 0.2 | 50.0% ± 1.0% |")


def test_rows():
    """Some of them, their columns, and a table that is as wide as one of them has values."""
    rows = [{"step": step, "name": name, "n": n} for n, (step, name) in enumerate(ROWS)]
    assert tables.where(rows, step=4) == rows[2:]
    assert tables.where(rows, step=4, name="a") == [rows[2]]
    assert tables.columns(rows, "n", "step") == [[0, 1, 2, 3], [0, 0, 4, 4]]
    wide = tables.wide("at", "{step}", "name", "{n}.", rows)
    assert wide.splitlines()[0] == "| at | a  | b  |" and wide.endswith("| 4  | 2. | 3. |")


ROWS = [(0, "a"), (0, "b"), (4, "a"), (4, "b")]


def test_a_curve_has_the_errors_that_its_rows_have():
    """Of an `Estimate` the standard error to each side, of an interval its ends, or none."""
    [[axes]] = plots.figure_of()[1]
    curve(axes, [{"x": 1, "y": Estimate(5.0, 0.5)}], "x", "y")
    curve(axes, [{"x": 1, "y": 5.0, "low": 4.0, "high": 7.0}], "x", "y")
    ends = [collection.get_paths()[0].vertices[:, 1] for collection in axes.collections]
    np.testing.assert_array_equal(ends, [[4.5, 5.5], [4.0, 7.0]])
    curve(axes, [{"x": 1, "y": 5.0}], "x", "y")
    assert len(axes.collections) == 2
    assert {tuple(line.get_ydata()) for line in axes.lines if line.get_marker() == "o"} == {(5.0,)}
