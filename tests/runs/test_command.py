"""The command `vaejax`, and what every command has."""

import dataclasses
import io
import json
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

import vaejax
from tests.lib.cases import cases
from tests.lib.paths import ROOT
from tests.lib.runs import SMALL, printed_by
from tests.lib.scripts import run_script
from vaejax.__main__ import main
from vaejax.runs import command
from vaejax.runs.command import command_line, environment, keep_programs, record
from vaejax.runs.draw import SampleConfig, arrays_path
from vaejax.runs.registry import TABLES
from vaejax.training.checkpoints import CheckpointError

pytestmark = pytest.mark.usefixtures("elsewhere")


def raised(error):
    def run():
        raise error

    return run


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a"),
        TypeError("a"),
        FileNotFoundError("a"),
        OSError(28, "No space left on device", "run/config.json"),
        ValueError("a\nb"),
        ImportError("a"),
        CheckpointError("a"),
        FloatingPointError("a"),
    ],
    ids=repr,
)
def test_mistakes_are_one_line_and_status_2(error, capsys):
    assert command_line(raised(error)) == 2
    printed = capsys.readouterr()
    assert printed.err == f"error: {' '.join(str(error).split())}\n" and printed.out == ""


def test_a_platform_that_is_not_here_is_a_line(capsys):
    error = RuntimeError("Unable to initialize backend 'cuda': no\ndevice")
    assert command_line(raised(error)) == 2
    line = "error: Unable to initialize backend 'cuda': no device (it is named by $JAX_PLATFORMS)\n"
    assert capsys.readouterr().err == line
    with pytest.raises(RuntimeError, match="another"):
        command_line(raised(RuntimeError("another")))


def test_faults_are_shown_whole_and_ctrl_c_is_130():
    with pytest.raises(KeyError):
        command_line(raised(KeyError("a")))
    assert command_line(raised(KeyboardInterrupt())) == 130


def test_the_last_line_is_the_result(capsys):
    assert command_line(lambda: {"step": 3}) == 0
    assert json.loads(capsys.readouterr().out) == {"step": 3}


def test_the_last_line_is_json_whatever_the_result(capsys):
    assert command_line(lambda: {"error": float("nan")}) == 0
    shown = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert shown == {"error": None, "not_finite": {"error": "nan"}}


def test_a_terminal_of_few_characters_ends_no_command(monkeypatch):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    monkeypatch.setattr(sys, "stderr", None)  # closed
    assert command_line(lambda: print("KL(q ‖ p) →") or print("a", file=sys.stderr) or {}) == 0
    assert shown.getvalue() == b"KL(q \\u2016 p) \\u2192\n{}\n"


def test_a_reader_that_has_enough_is_no_mistake(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # which is another afterwards
    assert command_line(raised(BrokenPipeError(32, "Broken pipe"))) == 141
    assert capsys.readouterr().err == ""


VARIABLES = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")


@pytest.mark.parametrize("said", [(), VARIABLES[:1], VARIABLES[1:], VARIABLES], ids=str)
def test_settings_of_jax_that_the_user_has_made_stay(said, tmp_path, monkeypatch):
    updated = {}
    monkeypatch.setattr(jax.config, "update", updated.__setitem__)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name in said:
        monkeypatch.setenv(name, "")
    keep_programs()
    assert set(updated) == {name.lower() for name in VARIABLES} - {name.lower() for name in said}
    assert list(tmp_path.iterdir()) == []  # JAX makes it when it has a program


def test_without_a_place_for_programs_none_are_kept(tmp_path, monkeypatch):
    updated = {}
    monkeypatch.setattr(jax.config, "update", updated.__setitem__)
    monkeypatch.delenv(VARIABLES[0], raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # no home folder is known
    keep_programs()
    monkeypatch.setattr("os.path.expanduser", lambda path: path.replace("~", str(tmp_path)))
    monkeypatch.setattr("os.access", lambda *_: False)
    keep_programs()
    assert VARIABLES[0].lower() not in updated and not (tmp_path / "~").exists()


# The whole command, in environments that lack something.

BARE = {
    "ASCII and no HOME, TERM or git": {
        "PATH": "/nonexistent",
        "LC_ALL": "C",
        "PYTHONIOENCODING": "ascii",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "TERM": "dumb",
    },
    "a HOME that is none": {"HOME": "/proc/nothing", "PATH": "/usr/bin:/bin"},
    "a cache that is none": {"JAX_COMPILATION_CACHE_DIR": "/proc/nothing/cache"},
}
TINY = ["--num-steps", "20", "--eval-samples", "5"]
SHORT = "--eval-samples 20 --ais-size 2 --temperatures 3 --simulations 16 --eval-size 30"


AS_AN_UNKNOWN_USER = """
import pwd, sys

def unknown(*given):
    raise KeyError("no entry")

pwd.getpwuid = pwd.getpwnam = unknown
from vaejax.__main__ import main
sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("lacking", cases(BARE))
def test_every_command_runs_where_much_is_missing(lacking, tmp_path):
    for arguments in (
        ["train", *SMALL, *TINY, "--out", "run"],
        ["evaluate", "--run", "run", *SHORT.split(), "--sample-size", "0"],
        ["sample", "--run", "run"],
        ["train", "--help"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", AS_AN_UNKNOWN_USER, *arguments],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), **lacking},
            capture_output=True,
        )
        assert done.returncode == 0, (arguments, done.stderr[-2000:])
    assert [path.name for path in tmp_path.iterdir()] == ["run"]  # and no folder called "~"


def test_a_record_says_what_it_depends_on(tmp_path):
    @dataclasses.dataclass
    class Config:
        seed: int = 4

    record(tmp_path, Config(), found=1.5)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["config"] == {"seed": 4} and result["found"] == 1.5
    assert result["versions"]["jax"] == jax.__version__ and result["device"].startswith("8 x ")


def test_the_revision_is_of_a_checkout_alone(tmp_path, monkeypatch):
    assert command._revision(tmp_path) is None
    if (ROOT / ".git").exists() and shutil.which("git"):
        assert environment()["git"]
    (tmp_path / ".git").touch()
    assert command._revision(tmp_path) is None  # no repository after all
    monkeypatch.setenv("PATH", "")
    assert command._revision(tmp_path) is None  # and no git


def test_the_version_and_the_names(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vaejax {vaejax.__version__}\n"
    assert main(["names"]) == 0
    *shown, last = capsys.readouterr().out.splitlines()
    assert json.loads(last) == {kind: list(table) for kind, table in TABLES.items()}
    assert any(re.fullmatch(r"  vamp +a mixture of the posteriors .*", line) for line in shown)


@pytest.mark.parametrize(
    "subcommand, flags",
    {
        "train": ("--data", "--prior", "--binarisation", "--num-samples", "--resume", "--out"),
        "evaluate": ("--run", "--ais-size", "--eval-size", "--simulations"),
        "sample": ("--run", "--params", "--seed"),
    }.items(),
)
def test_help_reads_well(subcommand, flags, capsys):
    with pytest.raises(SystemExit) as stop:
        main([subcommand, "--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0 and all(flag in shown for flag in flags)


def test_help_says_the_ranges(capsys, monkeypatch):
    """Of numbers, of those in a list, and of those that may be None; and of nothing else."""
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for told in (
        "Dimensions of z. (at least 1; default: 2)",
        "Widths of the hidden layers (mlp and gated). (each at least 1; default: 200 200)",
        "Of the optimiser, at its start. (above 0; default: 0.001)",
        "(from 0 to 4294967295; default: 0)",
        "likewise. (a fraction below 1, or a count; default: None)",
        "--data STR digits, mnist,",
        "encoder and decoder. (default: mlp)",
    ):
        assert told in shown, told


def test_help_of_a_script_is_its_docstring():
    for script, measured, ranges in (
        ("graphs/maximum_likelihood.py", "Measured, nats per example, with H(p_D)", "2000"),
        ("train.py", "Measured with seed 0, Python 3.11", "10000"),
    ):
        shown = printed_by(partial(run_script, ROOT / "experiments" / script, "--help"), ROOT)
        assert measured in " ".join(shown.split())
        assert f"(at least 1; default: {ranges})" in shown


@pytest.mark.parametrize("arguments", [[], ["trian"], ["train", "--priro", "vamp:3"]], ids=str)
def test_a_command_that_is_not_there_has_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and "vaejax" in capsys.readouterr().err


@pytest.mark.usefixtures("without_pictures")
def test_draws_are_those_of_the_model(tmp_path, capsys):
    assert main(["train", *SMALL, "--out", "run"]) == 0
    assert main(["sample", "--run", "run", "--num-samples", "40"]) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed["step"] == 60 and (tmp_path / printed["picture"]).exists()
    with np.load(tmp_path / printed["arrays"]) as drawn:
        assert drawn["x"].shape == (40, 8, 8) and drawn["z"].shape == (40, 2)
        assert set(np.unique(drawn["x"])) == {0, 1} and 0.5 < drawn["z"].std() < 1.5
    assert main(["sample", "--run", "run", "--params", "last", "--out", "elsewhere/a.npz"]) == 0
    assert {path.name for path in (tmp_path / "elsewhere").iterdir()} == {"a.npz", "a.png"}


def test_draws_are_written_over_draws_alone(tmp_path):
    def path(out):
        return arrays_path(SampleConfig("run", out=out))

    for out in ("new/draws-0.5", "new/draws-0.5.npz"):
        assert path(out).name == "draws-0.5.npz"
    np.savez(tmp_path / "draws.npz", x=np.zeros(2), z=np.zeros(2))
    (tmp_path / "draws.png").touch()
    assert path("draws") == Path("draws.npz")
    np.savez(tmp_path / "table.npz", x=np.zeros(2), y=np.zeros(2))
    (tmp_path / "text.npz").write_text("text")
    (tmp_path / "photo.png").touch()
    for out in ("table", "text.npz", "photo"):
        with pytest.raises(ValueError, match="which are not draws of a run; name another file"):
            path(out)
    for out in ("x.png", "new/x.PDF", "x.npy"):
        with pytest.raises(ValueError, match=r"arrays in a .npz file.*; give x.npz"):
            path(out)
    for out in (".", "/", str(tmp_path)):
        with pytest.raises(ValueError, match="is a folder; name a file"):
            path(out)
