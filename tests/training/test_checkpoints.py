"""Checkpoints come back bit for bit, or not at all and with the reason."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import vaejax
from tests.lib.cases import cases
from tests.lib.paths import contents
from tests.lib.trees import assert_same_bits
from vaejax.base.describe import digest_of
from vaejax.training.checkpoints import CheckpointError, CheckpointMismatchError, CheckpointStore

PARAMS = vaejax.Params(
    {"prior": (), "likelihood": {"kernel": jnp.arange(12.0).reshape(3, 4)}}, {"bias": jnp.ones(5)}
)
STATE = (PARAMS, optax.chain(optax.clip(1.0), optax.adam(1e-3)).init(PARAMS), ())


def state_at(step):
    return jax.tree.map(lambda leaf: leaf + step, STATE)


def history_at(step):
    return {"bound": np.arange(step, dtype=np.float32), "validation_step": np.zeros(0, np.int32)}


@pytest.fixture
def saved(tmp_path):
    """Steps 10, 20 and 30."""
    with CheckpointStore(tmp_path / "run", {"lr": 0.001}) as store:
        for step in (10, 20, 30):
            store.save(step, state_at(step), history_at(step))
    return tmp_path / "run"


def restore(directory, like=STATE, config=None):
    """What is restored, what is said of damage, and the steps that are left when the next save is
    near.
    """
    with (
        CheckpointStore(directory, {"lr": 0.001} if config is None else config) as store,
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        before = contents(directory)
        restored = store.restore(like)
        assert contents(directory) == before
        store.open()
        return (
            restored,
            [
                str(warning.message)
                for warning in caught
                if "checkpoint damaged" in str(warning.message)
            ],
            store.steps(),
        )


def test_round_trip(saved):
    (step, state, history), reported, _ = restore(saved)
    assert step == 30 and not reported
    assert_same_bits(state, state_at(30))
    assert_same_bits(history, {"bound": history_at(30)["bound"]})


def test_an_empty_directory_has_nothing_to_restore(tmp_path):
    assert restore(tmp_path)[0] is None


def test_only_the_newest_are_kept_and_the_trash_is_emptied(tmp_path):
    with CheckpointStore(tmp_path, max_to_keep=2) as store:
        for step in range(1, 8):
            store.save(step, STATE, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["6", "7"]


def test_saving_below_the_latest_step_is_an_error_not_a_silence(saved):
    with (
        CheckpointStore(saved, {"lr": 0.001}) as store,
        pytest.raises(CheckpointError, match="step 15 was not saved: .* already holds step 30"),
    ):
        store.save(15, STATE, {})


def damages(directory):
    """Every file of the step that matters, emptied, truncated, deleted, and with bits flipped."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.stat().st_size)
    for path in files:
        content = path.read_bytes()
        yield path, "emptied", b""
        yield path, "truncated", content[: len(content) // 2]
        yield path, "deleted", None
        for share in (0.3, 0.9):
            flipped = bytearray(content)
            flipped[int(share * len(content))] ^= 0x10
            yield path, f"bit at {share}", bytes(flipped)


def test_damage_is_noticed_and_the_step_before_restored(saved, tmp_path):
    """Each damage to the newest step gives it back intact, or the one before it with a report:
    never wrong numbers.
    """
    outcomes = {"intact": 0, "fell back": 0}
    for path, kind, content in damages(saved / "30"):
        if path.name.startswith(("commit_success", "_CHECKPOINT_METADATA")) and kind != "emptied":
            continue  # not read on a local disk
        copy = tmp_path / "damaged copy"
        shutil.copytree(saved, copy)
        target = copy / path.relative_to(saved)
        target.unlink() if content is None else target.write_bytes(content)
        (step, state, history), reported, steps = restore(copy)
        assert_same_bits(state, state_at(step))
        assert_same_bits(history["bound"], history_at(step)["bound"])
        assert (step, len(reported)) in ((30, 0), (20, 1)), (path, kind)
        if step == 20:
            assert (
                steps == [10, 20]
                and (copy / "damaged" / "30").exists()
                and "step 30" in reported[0]
            )
        outcomes["intact" if step == 30 else "fell back"] += 1
        shutil.rmtree(copy)
    assert outcomes["fell back"] >= 20, outcomes


def test_sound_files_of_other_numbers_are_damage_too(saved):
    """The state of step 20 in the place of that of step 30, which Orbax reads without a word."""
    shutil.rmtree(saved / "30" / "state")
    shutil.copytree(saved / "20" / "state", saved / "30" / "state")
    (step, state, _), reported, _ = restore(saved)
    assert step == 20 and "do not match their digest" in reported[0]
    assert_same_bits(state, state_at(20))


def test_a_record_that_was_edited_is_damage_too(saved):
    """A configuration of other numbers, in sound JSON."""
    files = (saved / "30" / "record").rglob("*")
    (path,) = [path for path in files if path.is_file() and b"0.001" in path.read_bytes()]
    path.write_bytes(path.read_bytes().replace(b"0.001", b"0.002"))
    (step, _, _), reported, _ = restore(saved)
    assert step == 20 and "its record does not match its digest" in reported[0]


@pytest.mark.parametrize("source, target", [("20", "40"), ("30", "25"), ("10", "30")])
def test_a_step_under_another_number_is_not_taken_for_it(saved, source, target):
    """A copy by hand: its numbers are whole, and of another step."""
    shutil.rmtree(saved / target, ignore_errors=True)
    shutil.copytree(saved / source, saved / target)
    if target == "25":
        shutil.rmtree(saved / "30")
    (step, state, _), reported, _ = restore(saved)
    assert step == {"40": 30, "25": 20, "30": 20}[target]
    assert_same_bits(state, state_at(step))
    assert f"its record is that of step {source}" in reported[0]


def test_when_all_are_damaged_one_error_lists_each(saved):
    """Each time again: a run that begins anew there would be one that nobody asked for."""
    for step in ("10", "20", "30"):
        for path in (saved / step / "record").rglob("metadata"):
            path.write_text("{")
    message = "no intact checkpoint.*another folder to begin anew.*step 30: .*step 20: .*step 10: "
    for _ in range(2):
        with pytest.raises(CheckpointError, match=message):
            restore(saved)


def test_after_a_fallback_the_run_can_save_again(saved):
    next((saved / "30" / "record").rglob("metadata")).write_text("{")
    with CheckpointStore(saved, {"lr": 0.001}) as store:
        with pytest.warns(UserWarning, match="checkpoint damaged, goes to"):
            assert store.restore(STATE)[0] == 20
        store.save(25, state_at(25), history_at(25))
    assert restore(saved)[0][0] == 25


WIDER = PARAMS._replace(phi={"bias": jnp.ones(6)})
RENAMED = PARAMS._replace(phi={"offset": jnp.ones(5)})
HALF = PARAMS._replace(phi={"bias": jnp.ones(5, jnp.bfloat16)})
OTHERS = {
    "wider": (
        (WIDER, *STATE[1:]),
        (
            r"another model: \['state'\]\[0\].phi\['bias'\]: saved \[\[5\], 'float32'\], now"
            r" \[\[6\], 'float32'\]"
        ),
    ),
    "renamed": (
        (RENAMED, *STATE[1:]),
        r"phi\['bias'\]: saved .*, now nothing; .*phi\['offset'\]: saved nothing, now",
    ),
    "dtype": ((HALF, *STATE[1:]), r"saved \[\[5\], 'float32'\], now \[\[5\], 'bfloat16'\]"),
    "optimiser": ((PARAMS, optax.sgd(1e-3).init(PARAMS), ()), "another model"),
}


@pytest.mark.parametrize("like, message", OTHERS.values(), ids=OTHERS)
def test_another_model_stops_and_names_the_leaf(saved, like, message):
    with pytest.raises(CheckpointMismatchError, match=message) as error:
        restore(saved, like)
    assert "\n" not in str(error.value)
    assert restore(saved)[0][0] == 30


def test_another_configuration_stops_and_names_the_field(saved):
    with pytest.raises(
        CheckpointMismatchError, match="another configuration: lr: saved 0.001, now 0.0003"
    ):
        restore(saved, config={"lr": 0.0003})


# What is no damage: nothing is moved, deleted, or taken for a step.


@pytest.mark.parametrize("child", ["notes.txt", "config.json", "default/_METADATA", None])
@pytest.mark.parametrize("name", ["0", "007", "30"])
def test_others_folders_are_neither_steps_nor_deleted(tmp_path, name, child):
    """Orbax would take any folder by the name of a number for a step, and delete the oldest."""
    folder = tmp_path / name
    folder.mkdir()
    if child is not None:
        (folder / child).parent.mkdir(exist_ok=True)
        (folder / child).write_text("mine")
    (tmp_path / "trash").mkdir()
    before = contents(tmp_path)
    with CheckpointStore(tmp_path, max_to_keep=1) as store:
        assert store.steps() == []
        for action in (
            store.open,
            partial(store.save, 40, STATE, {}),
            partial(store.restore, STATE),
        ):
            with pytest.raises(ValueError, match=f"holds a folder {name} that is not a checkpoint"):
                action()
    assert contents(tmp_path) == before


ERRORS = {
    "no memory": MemoryError("no memory"),
    "no permission": PermissionError(13, "Permission denied"),
    "a path of other letters": UnicodeEncodeError("ascii", "é", 0, 1, "ordinal not in range(128)"),
    "another Orbax": KeyError("a field that this version does not know"),
    "a disk": OSError(5, "Input/output error"),
}


@pytest.mark.parametrize("error", cases(ERRORS))
def test_an_error_that_is_no_damage_moves_nothing(saved, error):
    before = contents(saved)
    with (
        mock.patch.object(ocp.Checkpointer, "restore", side_effect=error),
        pytest.raises(
            CheckpointError, match="step 30 .* no damage is shown, so it stays"
        ) as raised,
    ):
        restore(saved)
    assert "\n" not in str(raised.value) and type(error).__name__ in str(raised.value)
    assert contents(saved) == before
    assert restore(saved)[0][0] == 30


def test_a_folder_that_could_not_be_saved_into_is_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match="the locale's encoding is not UTF-8; name another folder"):
        CheckpointStore(tmp_path / "\udcff")


@pytest.mark.parametrize("place, step", [("save", 20), ("wait_until_finished", 10)])
def test_a_step_that_cannot_be_saved_is_said_in_a_line(place, step, tmp_path):
    """Where the disk is full, here or in the background."""
    error = ValueError("RESOURCE_EXHAUSTED: Failed writing\nat length")
    with CheckpointStore(tmp_path / "run") as store:
        store.save(10, STATE, {})
        store.wait()
        with (
            mock.patch.object(ocp.CheckpointManager, place, side_effect=error),
            pytest.raises(
                CheckpointError, match=f"step {step} could not be saved .*EXHAUSTED"
            ) as told,
        ):
            store.save(20, STATE, {})
        assert "\n" not in str(told.value)
    assert CheckpointStore(tmp_path / "run").steps() == [10]


def test_ctrl_c_while_it_is_read_moves_nothing(saved):
    before = contents(saved)
    with (
        mock.patch.object(ocp.Checkpointer, "restore", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        restore(saved)
    assert contents(saved) == before


def rewritten(folder, **changes):
    """The record of a step with other entries, and a digest that fits; None takes one away."""
    path = folder / "record" / "metadata"
    record = json.loads(path.read_text()) | changes
    record = {name: part for name, part in record.items() if part is not None and name != "digest"}
    path.write_text(json.dumps(record | {"digest": digest_of(record)}))


def test_a_newer_format_is_refused_in_a_sentence(saved):
    rewritten(saved / "30", format=3)
    (saved / "30" / "digests.json").unlink()
    before = contents(saved)
    with pytest.raises(CheckpointError, match="format 3, and this vaejax knows .* up to 2; use"):
        restore(saved)
    assert contents(saved) == before


def as_before(folder):
    """A step as the revision before saved it."""
    rewritten(folder, format=1, step=None, of=None)
    (folder / "digests.json").unlink()


def test_a_step_of_before_goes_on_and_its_damage_stays_where_it_is(saved):
    """It has no digests of its files, so only its record or its arrays can show damage."""
    for step in ("10", "20", "30"):
        as_before(saved / step)
    assert restore(saved)[0][0] == 30
    (saved / "30" / "state" / "_METADATA").unlink()
    before = contents(saved)
    with pytest.raises(CheckpointError, match="no damage is shown, so it stays"):
        restore(saved)
    assert contents(saved) == before
    shutil.rmtree(saved / "30")
    shutil.copytree(saved / "10", saved / "30")
    assert restore(saved)[0][0] == 20


@pytest.mark.parametrize("damage", [False, True])
def test_reading_changes_nothing(saved, damage):
    if damage:
        next((saved / "30" / "state" / "d").iterdir()).write_text("")
    before = contents(saved)
    with CheckpointStore(saved) as store:
        assert store.steps() == [10, 20, 30]
        assert_same_bits(store.read(20, STATE)[0], state_at(20))
        if damage:
            with pytest.raises(CheckpointError, match="step 30: "):
                store.read(30, STATE)
    assert contents(saved) == before
    assert not (saved.parent / "none").exists()
    with CheckpointStore(saved.parent / "none") as store:
        assert store.steps() == [] and store.restore(STATE) is None
    assert not (saved.parent / "none").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(saved):
    """Orbax would wait for minutes at the first save, and the training be lost."""
    with (
        mock.patch("os.access", return_value=False),
        CheckpointStore(saved) as store,
        pytest.raises(CheckpointError, match="cannot be written to; name another folder"),
    ):
        store.open()
    with pytest.raises(CheckpointError, match=r"cannot be made: .*digests.json is a file"):
        CheckpointStore(saved / "30" / "digests.json" / "checkpoints").open()


def test_what_is_moved_aside_stays(saved):
    """Also where a step of that number was moved before, or the folder is the user's."""
    (saved / "damaged" / "30").mkdir(parents=True)
    (saved / "damaged" / "30" / "notes.txt").write_text("mine")
    (saved / "30" / "record" / "metadata").write_text("{")
    assert restore(saved)[0][0] == 20
    assert (saved / "damaged" / "30" / "notes.txt").read_text() == "mine"
    assert (saved / "damaged" / "30-2" / "state").is_dir()


SAVER = """
import sys, numpy as np
from vaejax.training.checkpoints import CheckpointStore
with CheckpointStore(sys.argv[1]) as store:
    for step in range(1, 10_000):
        store.save(step, {"a": np.full(250_000, step, np.float32)}, {})
        if step > 1:
            print(step - 1, flush=True)  # Orbax waits for the save before this one: it is on disk
"""


@pytest.mark.parametrize(
    "delay", [0.11, *(pytest.param(other, marks=pytest.mark.slow) for other in (0.05, 0.23))]
)
def test_killed_in_the_middle_of_a_save(tmp_path, delay):
    """What was acknowledged is there, and the newest step is whole."""
    process = subprocess.Popen(
        [sys.executable, "-c", SAVER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    acknowledged = int(process.stdout.readline())
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    acknowledged = max([acknowledged, *map(int, process.stdout.read().split())])
    process.wait()
    restored, _, _ = (
        restore(tmp_path, {"a": np.zeros(250_000, np.float32)}, config={})
        if os.listdir(tmp_path)
        else (None, 0, 0)
    )
    step, state, _ = restored
    assert step >= acknowledged
    assert (state["a"] == step).all()
