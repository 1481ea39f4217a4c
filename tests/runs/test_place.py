"""Where files may go, and what of an older run is replaced, and when."""

import dataclasses
import os

import pytest

from tests.lib.cases import cases
from tests.lib.runs import files_in, made_run
from vaejax.runs import place
from vaejax.runs.config import TrainConfig
from vaejax.runs.lock import InUseError, claimed
from vaejax.runs.place import is_run, place_of, require_free, training_in

pytestmark = pytest.mark.usefixtures("elsewhere")


# --out


@pytest.fixture
def places(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    return tmp_path


REFUSED = {
    "": "is empty; name a folder",
    "  ": "is empty; name a folder",
    "file": "file is a file; name a folder",
    "file/below/it": "file is a file; name a folder",
    "broken": "is a link to nothing",
    "broken/below": "is a link to nothing",
    "circle": "is a link to nothing",
    "n" * 300: "nothing can have this name",
    "a\0b": "nothing can have this name",
    "~nobody-of-this-name/x": "this home folder is not known",
    "/dev/null": "is a file",
    "b\udcff": r"b.udcff': the locale's encoding is not UTF-8; name another folder, or set",
}


@pytest.mark.parametrize("out, message", REFUSED.items(), ids=lambda text: repr(text)[:30])
def test_a_place_that_is_none_is_refused_in_a_line(out, message, places):
    before = files_in(places)
    with pytest.raises(ValueError, match=message) as raised:
        place_of(out)
    assert "\n" not in str(raised.value) and str(raised.value).startswith("out = ")
    assert files_in(places) == before


def test_a_working_folder_that_is_gone_is_said(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ValueError, match="out = x: the working folder is gone; go to another, or"):
        place_of("x")
    assert place_of(tmp_path / "x") == tmp_path / "x"


def test_a_place_that_is_one(places, monkeypatch):
    monkeypatch.setenv("HOME", str(places / "folder"))
    assert place_of("~/x") == places / "folder/x"
    for out in (".", "folder", "link", "new", "new/below/it", "./~"):
        assert str(place_of(out)) == os.path.normpath(out)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ValueError, match="cannot be written to; name another folder"):
        place_of("new")


# What may be replaced.

OTHERS = {
    "of another tool": {"config.json": '{"model_type": "bert"}', "weights.bin": "w"},
    "no JSON": {"config.json": "a: 1"},
    "no object": {"config.json": "[]"},
    "with our first key": {"config.json": '{"config": {"data": "mnist"}}'},
    "not ours at all": {"thesis.tex": "t"},
    "checkpoints alone": {"checkpoints": "c"},
}


@pytest.mark.parametrize("files", cases(OTHERS))
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_run_is_not_overwritten(files, overwrite, tmp_path):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    config = TrainConfig(out=str(tmp_path), overwrite=overwrite)
    with pytest.raises(ValueError, match="is not a run, and is not overwritten: it holds") as error:
        require_free(config)
    assert next(iter(files)) in str(error.value)


def test_a_run_is_free_to_be_replaced_where_that_was_asked_for(tmp_path):
    config = TrainConfig(out=str(tmp_path / "run"))
    require_free(config)
    made_run(tmp_path / "run")
    with pytest.raises(ValueError, match="already holds a run: --resume it, --overwrite it"):
        require_free(config)
    require_free(dataclasses.replace(config, resume=True))
    require_free(dataclasses.replace(config, overwrite=True))


@pytest.mark.parametrize("name", ["notes.txt", "0/state.txt", "best/weights"])
def test_what_lies_among_the_checkpoints_is_named(name, tmp_path):
    """Folders called by a number may be another's: ours hold a record."""
    path = made_run(tmp_path / "run") / "checkpoints" / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with pytest.raises(ValueError, match=f"{name.split('/')[0]}, which no run has written; move"):
        require_free(TrainConfig(out=str(tmp_path / "run"), overwrite=True))


def test_a_new_run_replaces_the_old_one_and_nothing_beside_it(tmp_path):
    out, elsewhere = made_run(tmp_path / "run"), tmp_path / "elsewhere"
    (out / "checkpoints").rename(elsewhere)
    (out / "checkpoints").symlink_to(elsewhere)
    (out / "thesis.txt").write_text("mine")
    (out / "replaced-1").mkdir()  # the user's own
    (out / "replaced-1/letter.txt").write_text("mine")
    with training_in(out, resume=False):
        assert not is_run(out) and is_run(out / "replaced-2")
        made_run(out, step=40)
    kept = {"thesis.txt", "replaced-1/letter.txt", "checkpoints/40/record/metadata"}
    files = files_in(out)
    assert kept <= set(files) and "replaced-2" not in files and "checkpoints/20" not in files
    assert files["result.json"][2] == b"result.json of step 40"
    assert (elsewhere / "20/record/metadata").read_text() == "20"


def test_a_run_that_is_being_evaluated_is_not_replaced(tmp_path):
    """Else the evaluation of the older one would come to lie in the new one's folder."""
    out = made_run(tmp_path / "run")
    before = files_in(out)
    with claimed(out, "evaluation"), pytest.raises(InUseError), training_in(out, resume=False):
        pytest.fail("a training")
    assert files_in(out) == before


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt(), SystemExit(143)])
def test_the_old_run_is_put_back_where_the_new_one_has_nothing_to_show(error, tmp_path):
    out = made_run(tmp_path / "run")
    (out / "thesis.txt").write_text("mine")
    before = files_in(out)
    with pytest.raises(type(error)), training_in(out, resume=False):
        (out / "config.json").write_text("{}")
        (out / "metrics.jsonl").touch()
        (out / "checkpoints").mkdir()
        raise error
    assert files_in(out) == before


def test_both_are_left_where_a_new_run_breaks_off(tmp_path, capsys):
    """The old one is removed when the new one, gone on with, has ended."""
    out = made_run(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt), training_in(out, resume=False):
        made_run(out, step=10)
        raise KeyboardInterrupt
    assert "the run that this one replaces is in" in capsys.readouterr().err
    assert (out / "replaced-1/checkpoints/20").is_dir() and (out / "checkpoints/10").is_dir()
    with pytest.raises(OSError), training_in(out, resume=True):
        raise OSError
    assert is_run(out / "replaced-1") and (out / "checkpoints/10").is_dir()
    with training_in(out, resume=True):
        pass
    assert not (out / "replaced-1").exists() and (out / "checkpoints/10").is_dir()


def test_nothing_of_a_run_is_lost_wherever_a_kill_comes(tmp_path, monkeypatch):
    """Killed at the k-th move: from then on nothing moves, and every byte is there."""
    rename = place.Path.rename
    for last in range(7):
        out, moved = made_run(tmp_path / f"run-{last}"), []
        before = sorted(facts[2] for facts in files_in(out).values() if facts[0] == "file")

        def killed(path, target, moved=moved, last=last):
            if len(moved) >= last:
                raise SystemExit(137)
            moved.append(path)
            return rename(path, target)

        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(place.Path, "rename", killed)
            with training_in(out, resume=False):
                raise SystemExit(137)
        after = sorted(facts[2] for facts in files_in(out).values() if facts[0] == "file")
        assert after == before
