"""Callbacks: when they are called, what ends a run, and that nothing is lost."""

import csv
import json
import struct
import sys

import numpy as np
import optax
import pytest

import vaejax
from tests.lib.training import XS, fit
from tests.lib.trees import assert_same_bits
from vaejax.training.logs import log_rows
from vaejax.training.run import NO_HISTORY, Run


class Told(vaejax.Callback):
    def __init__(self):
        self.events = []

    def start(self, run):
        self.events.append(("start", run.step))

    def __call__(self, run):
        self.events.append(("call", run.step))

    def finish(self):
        self.events.append("finish")


class Stops(vaejax.Callback):
    def __init__(self, step, error=vaejax.StopTraining):
        self._step, self._error = step, error

    def __call__(self, run):
        if run.step >= self._step:
            raise self._error


def test_it_is_called_from_the_start_to_the_end():
    told, validation = Told(), vaejax.Validation(XS[:30], every=4)
    fit(10, callbacks=(told,), validation=validation)
    first, *calls, last = told.events
    assert first == ("start", 0) and last == "finish"
    assert {("call", 4), ("call", 8), ("call", 10)} <= set(calls)


def test_one_that_stops_the_run_loses_nothing(tmp_path):
    """The run is returned and saved; the others are told; it goes on to the same bits."""
    checkpoints, told = vaejax.Checkpoints(tmp_path, every=4), Told()
    run = fit(12, callbacks=(Stops(8), told), checkpoints=checkpoints)
    assert run.step == 8 and told.events[-2:] == [("call", 8), "finish"]
    assert len(run.history["bound"]) == 8
    again = vaejax.Checkpoints(tmp_path, every=4, resume=True)
    assert_same_bits(fit(12, checkpoints=again).params, fit(12).params)


def test_one_that_raises_hands_the_run_back(tmp_path):
    """With what it raised; the others are told, and end."""
    told = Told()
    with pytest.raises(RuntimeError) as caught:
        fit(
            12,
            callbacks=(Stops(8, RuntimeError), told),
            checkpoints=vaejax.Checkpoints(tmp_path, every=4),
        )
    assert caught.value.run.step == 8 and told.events[-2:] == [("call", 8), "finish"]
    assert (tmp_path / "8").is_dir()


class CannotEnd(vaejax.Callback):
    def __call__(self, run):
        pass

    def finish(self):
        raise OSError("no room")


def test_one_that_cannot_end_loses_nothing(tmp_path):
    with pytest.raises(OSError, match="no room") as caught:
        fit(4, callbacks=(CannotEnd(),), checkpoints=vaejax.Checkpoints(tmp_path, every=4))
    assert caught.value.run.step == 4 and (tmp_path / "4").is_dir()


def test_what_is_no_callback_is_refused_before_anything_runs():
    with pytest.raises(
        TypeError, match="callbacks is a function; give a tuple of them: callbacks="
    ):
        fit(1, callbacks=print)
    with pytest.raises(TypeError, match=r"the callback is the class Told; write Told\(...\)"):
        fit(1, callbacks=(Told,))


def run_at(step, validations=()):
    numbers = np.arange(step, dtype=np.float32)
    history = NO_HISTORY | {"bound": numbers, "objective": numbers, "gradient_norm": -numbers}
    history["validation_step"] = np.array(validations, np.int32)
    history["validation_bound"] = np.array(validations, np.float64) / 2
    return Run((), (), step, history)


def test_rows_are_means_of_whole_periods():
    first = log_rows(run_at(25, (20,)), 10, 0, 0)
    assert [row["step"] for row in first] == [10, 20]
    assert first[0] == {"step": 10, "bound": 4.5, "objective": 4.5, "gradient_norm": -4.5}
    assert first[1]["validation_bound"] == 10.0
    later = log_rows(run_at(41, (20, 35)), 10, 25, 1)
    assert [row["step"] for row in later] == [30, 35, 40]
    assert later[1] == {"step": 35, "validation_bound": 17.5}


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_of_a_run_that_goes_on_has_each_row_once(tmp_path):
    """Cut after rows that no checkpoint has; in the end it is the table of a run without a cut."""
    settings = {"validation": vaejax.Validation(XS[:30], every=3)}
    log, folder = tmp_path / "logs/cut.csv", tmp_path / "checkpoints"

    def cut(run):
        if run.step >= 6:
            raise MemoryError

    with pytest.raises(MemoryError):
        fit(12, callbacks=(vaejax.CSVLog(log, 2), cut), **settings)
    assert [row["step"] for row in table(log)] == ["2", "3", "4", "6"]
    fit(4, checkpoints=vaejax.Checkpoints(folder, every=2), **settings)
    again = vaejax.Checkpoints(folder, every=2, resume=True)
    fit(12, callbacks=(vaejax.CSVLog(log, 2),), checkpoints=again, **settings)
    whole = tmp_path / "whole.csv"
    run = fit(12, callbacks=(vaejax.CSVLog(whole, 2),), **settings)
    assert log.read_text() == whole.read_text()
    assert [row["step"] for row in table(whole)] == ["2", "3", "4", "6", "8", "9", "10", "12"]
    means = [float(row["rate"]) for row in table(whole) if row["rate"]]
    np.testing.assert_allclose(means, run.history["rate"].reshape(-1, 2).mean(1), rtol=1e-6)


def test_the_log_of_another_run_is_refused_before_anything_runs(tmp_path):
    path = tmp_path / "mine.csv"
    fit(2, callbacks=(vaejax.CSVLog(path, 1),))
    before = path.read_text()
    with pytest.raises(ValueError, match="mine.csv holds the log of another run; name another"):
        fit(2, callbacks=(vaejax.CSVLog(path, 1),))
    assert path.read_text() == before
    fit(3, callbacks=(vaejax.CSVLog(path, 1, overwrite=True),))
    assert len(table(path)) == 3


def records(data):
    """Those of a file of TFRecords: the length and its checksum, the record and its checksum."""
    start = 0
    while start < len(data):
        (length,) = struct.unpack("<Q", data[start : start + 8])
        yield data[start + 12 : start + 12 + length]
        start += 16 + length


def scalars(folder):
    """{name: {step: value}} of what TensorBoard would show: a START hides what lies before it."""
    from tensorboardX.proto.event_pb2 import Event

    series = {}
    for path in sorted(folder.glob("events*"), key=lambda path: path.stat().st_mtime):
        for record in records(path.read_bytes()):
            event = Event.FromString(record)
            if event.HasField("session_log"):
                series = {name: {step: value for step, value in steps.items() if step < event.step}
                         for name, steps in series.items()}  # fmt: skip
            for value in event.summary.value:
                series.setdefault(value.tag, {})[event.step] = value.simple_value
    return series


def test_tensorboard_has_the_rows(tmp_path):
    pytest.importorskip("tensorboardX")
    folder, checkpoints = tmp_path / "board", tmp_path / "checkpoints"
    fit(5, callbacks=(vaejax.TensorBoard(folder, 1),), checkpoints=vaejax.Checkpoints(checkpoints))
    again = vaejax.Checkpoints(checkpoints, resume=True)
    run = fit(8, callbacks=(vaejax.TensorBoard(folder, 1),), checkpoints=again)
    logged = scalars(folder)
    assert sorted(logged["bound"]) == list(range(1, 9))
    np.testing.assert_allclose(list(logged["bound"].values()), run.history["bound"], rtol=1e-6)
    assert {"reconstruction", "rate", "gradient_norm"} <= logged.keys()
    with pytest.raises(ValueError, match="board holds the log of another run"):
        fit(2, callbacks=(vaejax.TensorBoard(folder, 1),))


def test_the_schedule_is_shown_where_the_state_does_not_have_it(tmp_path):
    schedule = optax.linear_schedule(1e-3, 0.0, 4)
    path = tmp_path / "rates.csv"
    log = vaejax.CSVLog(path, 2, learning_rate=schedule)
    fit(4, optimizer=optax.adam(schedule), callbacks=(log,))
    rates = [float(row["learning_rate"]) for row in table(path)]
    np.testing.assert_allclose(rates, [0.875e-3, 0.375e-3], rtol=1e-6)


@pytest.mark.parametrize("log, package", [("TensorBoard", "tensorboardX"), ("WandB", "wandb")])
def test_without_its_package_a_log_names_the_extra(log, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    arguments = ("folder",) if log == "TensorBoard" else ()
    with pytest.raises(ImportError, match=rf"needs {package}: pip install 'vaejax\[logging\]'"):
        getattr(vaejax, log)(*arguments)


class FakeWandB:
    """What `wandb` is asked for, recorded."""

    def __init__(self):
        self.settings, self.rows, self.ended = [], [], 0

    def init(self, **settings):
        self.settings.append(settings)
        return self

    def log(self, numbers, step):
        self.rows.append((step, numbers))

    def finish(self):
        self.ended += 1


def test_weights_and_biases_gets_each_row_once(tmp_path, monkeypatch):
    service = FakeWandB()
    monkeypatch.setitem(sys.modules, "wandb", service)
    fit(3, callbacks=(vaejax.WandB(1, id="a", mode="offline"),),
        checkpoints=vaejax.Checkpoints(tmp_path))  # fmt: skip
    again = vaejax.Checkpoints(tmp_path, resume=True)
    run = fit(5, callbacks=(vaejax.WandB(1, id="a", mode="offline"),), checkpoints=again)
    assert [step for step, _ in service.rows] == [1, 2, 3, 4, 5] and service.ended == 2
    assert service.settings == 2 * [{"id": "a", "mode": "offline", "resume": "allow"}]
    bounds = [numbers["bound"] for _, numbers in service.rows]
    np.testing.assert_allclose(bounds, run.history["bound"], rtol=1e-6)
    assert json.dumps(service.rows)  # plain numbers


def test_a_budget_of_time_ends_the_run_which_goes_on(tmp_path):
    """After any number of calls, to the bits of a run that was not stopped."""
    whole = fit(12)
    saved = vaejax.Checkpoints(tmp_path, every=5, resume=True)
    generous, spent = vaejax.TimeBudget(60), vaejax.TimeBudget(1e-9)
    stopped = fit(12, callbacks=(generous, spent), checkpoints=saved)
    assert 0 < stopped.step < 12
    assert spent.is_spent and spent.is_over()
    assert not (generous.is_spent or generous.is_over())
    assert_same_bits(fit(12, callbacks=(generous,), checkpoints=saved), whole)
    with pytest.raises(ValueError, match=r"TimeBudget\.minutes = 0"):
        vaejax.TimeBudget(0)
