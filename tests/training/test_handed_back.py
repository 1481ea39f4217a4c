"""Whatever stops a training hands back the run so far, and saves it where there are checkpoints."""

import os
import signal
import threading

import jax
import jax.numpy as jnp
import optax
import pytest

import vaejax
from tests.lib.optimizers import OBJECTIVE, PARAMS, XS, fit
from tests.lib.trees import assert_same_bits
from vaejax.training import feeds
from vaejax.training.calls import CallsOfFit
from vaejax.training.checkpoints import CheckpointError, CheckpointStore
from vaejax.training.interrupts import Signals
from vaejax.training.run import NonFiniteError

ADAM = optax.adam(1e-3)
LENGTH = 40  # the first two calls have 1 step each, the third at most 10
STOP = 2  # something happens after the call that comes so far


class OwnError(Exception):
    """A user's own."""


def raising(error):
    def callback(run):
        if run.step >= STOP:
            raise error

    return {"callbacks": (callback,)}


def signalling(number):
    def callback(run):
        if run.step >= STOP:
            os.kill(os.getpid(), number)

    return {"callbacks": (callback,)}


class Torn(vaejax.Source):
    """Rows of an array, which cannot be read once its wire is cut."""

    is_cut = False

    def __len__(self):
        return len(XS)

    def __getitem__(self, rows):
        if self.is_cut:
            raise OSError("the disk is gone")
        return XS[rows]

    def cut(self, run):
        self.is_cut = run.step >= STOP

    def cut_when_validated(self, run):
        self.is_cut = len(run.history["validation_step"]) > 0


def torn_data():
    source = Torn()
    return {"data": source, "callbacks": (source.cut,)}


def torn_validation():
    source = Torn()
    validation = vaejax.Validation(source, every=4)
    return {"validation": validation, "callbacks": (source.cut_when_validated,)}


def infinite(params, x, key):
    """NaN from where the parameters have moved by some steps."""
    moved = jnp.abs(params.phi["b"] - 0.2).max()
    return -jnp.sum((x - params.theta["w"] @ params.phi["b"]) ** 2) + jnp.log(6.5e-3 - moved) * 0


STOPS = {
    "a callback": (lambda: raising(OwnError("mine")), OwnError),
    "a callback's Ctrl-C": (lambda: raising(KeyboardInterrupt()), KeyboardInterrupt),
    "Ctrl-C": (lambda: signalling(signal.SIGINT), KeyboardInterrupt),
    "SIGTERM": (lambda: signalling(signal.SIGTERM), SystemExit),
    "a source": (torn_data, OSError),
    "a validation": (torn_validation, OSError),
    "not finite": (
        lambda: {"objective": vaejax.minibatch(infinite, support=vaejax.supports.REAL)},
        NonFiniteError,
    ),
}


@pytest.mark.parametrize("settings, kind", STOPS.values(), ids=STOPS)
def test_the_run_so_far_is_in_the_error_and_on_disk(tmp_path, monkeypatch, settings, kind):
    """It is the run that fit gives of so many steps, and it goes on to the same bits."""
    monkeypatch.setattr(feeds, "STRETCH_BYTES", 1)  # a source is read step by step
    whole = {name: value for name, value in settings().items() if name == "objective"}
    with pytest.raises(kind) as stopped:
        fit(ADAM, LENGTH, **settings(), checkpoints=vaejax.Checkpoints(tmp_path, every=100))
    run = stopped.value.run
    assert STOP <= run.step < LENGTH and f"up to step {run.step}" in stopped.value.__notes__[0]
    expected = fit(ADAM, run.step, **whole)
    assert_same_bits((run.params, run.opt_state), (expected.params, expected.opt_state))
    assert_same_bits(run.history["bound"], expected.history["bound"])
    with CheckpointStore(tmp_path) as store:
        assert store.steps() == [run.step]


def test_without_checkpoints_ctrl_c_loses_nothing():
    with pytest.raises(KeyboardInterrupt) as stopped:
        fit(ADAM, LENGTH, **signalling(signal.SIGINT))
    run = stopped.value.run
    assert_same_bits(run.params, fit(ADAM, run.step).params)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_in_the_middle_of_a_call_loses_only_that_call(monkeypatch):
    """As a second Ctrl-C does: whatever the call was given is whole."""
    calls, complete = [], CallsOfFit.complete

    def interrupted(*args):
        calls.append(None)
        run = complete(*args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return run

    monkeypatch.setattr(CallsOfFit, "complete", interrupted)
    with pytest.raises(KeyboardInterrupt) as stopped:
        fit(ADAM, LENGTH)
    run = stopped.value.run
    assert run.step == 1
    assert_same_bits(run.params, fit(ADAM, run.step).params)


def test_a_second_failure_does_not_hide_the_first(tmp_path, monkeypatch):
    def save(self, *args):
        raise OSError("no space left")

    monkeypatch.setattr(CheckpointStore, "save", save)
    with pytest.raises(OwnError, match="mine") as stopped:
        fit(ADAM, 8, **raising(OwnError("mine")), checkpoints=vaejax.Checkpoints(tmp_path))
    assert stopped.value.run.step >= STOP
    assert "could not be saved: OSError: no space left" in stopped.value.__notes__[-1]


def test_a_save_that_fails_hands_back_the_run(tmp_path, monkeypatch):
    def save(self, *args):
        raise OSError("no space left")

    monkeypatch.setattr(CheckpointStore, "save", save)
    with pytest.raises(OSError, match="no space left") as stopped:
        fit(ADAM, 8, checkpoints=vaejax.Checkpoints(tmp_path, every=4))
    assert stopped.value.run.step == 4


def test_a_training_that_cannot_begin_leaves_no_folder(tmp_path):
    def no_bound(params, x, key):
        raise OwnError("at once")

    objective = vaejax.minibatch(no_bound, support=vaejax.supports.REAL)
    with pytest.raises(OwnError):
        fit(ADAM, 8, objective=objective, checkpoints=vaejax.Checkpoints(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


def test_a_validation_that_was_missed_is_made_when_the_run_goes_on(tmp_path):
    """So the bits are those of a run that never stopped."""

    checkpoints = vaejax.Checkpoints(tmp_path, every=100, resume=True)
    with pytest.raises(OSError, match="the disk is gone") as stopped:
        fit(ADAM, 12, **torn_validation(), checkpoints=checkpoints)
    run = stopped.value.run
    assert run.step == 8 and run.history["validation_step"].tolist() == [4]
    whole = {"validation": vaejax.Validation(XS, every=4)}
    resumed = fit(ADAM, 12, **whole, checkpoints=checkpoints)
    whole = fit(ADAM, 12, **whole)
    assert resumed.history["validation_step"].tolist() == [4, 8, 12]
    assert_same_bits(resumed.history["validation_bound"], whole.history["validation_bound"])
    assert_same_bits(
        (resumed.params, resumed.best_params, resumed.history["bound"]),
        (whole.params, whole.best_params, whole.history["bound"]),
    )


def test_what_the_callback_keeps_stays_valid():
    """No later step writes over it."""
    runs = []
    fit(ADAM, 6, callbacks=(runs.append,), validation=vaejax.Validation(XS, every=2))
    for run in runs:
        assert_same_bits(run.params, fit(ADAM, run.step).params)


def test_what_the_callback_does_to_the_history_changes_nothing():
    def spoils(run):
        run.history["bound"][:] = 7.0
        run.history.clear()

    assert_same_bits(
        fit(ADAM, 4, callbacks=(spoils,)).history["bound"], fit(ADAM, 4).history["bound"]
    )


@pytest.mark.parametrize("params", [jnp.zeros(3), jnp.zeros(()), {"w": jnp.zeros(2)}])
def test_parameters_of_any_form_are_validated_and_resumed(tmp_path, params):
    """An array among them, which has no truth of its own."""

    def bound(params, x, key):
        return -sum(jnp.sum((leaf - 1) ** 2) for leaf in jax.tree.leaves(params))

    objective = vaejax.minibatch(bound, support=vaejax.supports.REAL)

    def run(num_steps, **settings):
        validation = vaejax.Validation(XS, every=2)
        settings |= {"objective": objective, "params": params, "validation": validation}
        return fit(ADAM, num_steps, **settings)

    checkpoints = vaejax.Checkpoints(tmp_path, every=2, resume=True)
    run(2, checkpoints=checkpoints)
    resumed = run(4, checkpoints=checkpoints)
    assert_same_bits(resumed.best_params, run(4).params)


def test_a_folder_that_goes_while_a_step_is_saved_is_told_in_a_line(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path / "run")
    store.open()

    def wait_until_finished():
        raise ValueError('NOT_FOUND: Error opening "zarr" driver\nand more')

    with store:
        monkeypatch.setattr(store._manager, "wait_until_finished", wait_until_finished)
        with pytest.raises(CheckpointError, match="step 0 could not be saved in .*NOT_F") as error:
            store.wait()
        assert "\n" not in str(error.value)
        monkeypatch.undo()


def test_seeds_are_handed_back_too():
    """Of each its own run."""
    keys = jax.random.split(jax.random.key(0), 3)
    starts = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), PARAMS)
    settings = {"batch_size": 4, "progress": False, "strategy": "map"}

    whole = vaejax.fit_seeds(OBJECTIVE, starts, ADAM, XS, keys, num_steps=LENGTH, **settings)
    settings |= raising(OwnError("mine"))
    with pytest.raises(OwnError) as stopped:
        vaejax.fit_seeds(OBJECTIVE, starts, ADAM, XS, keys, num_steps=LENGTH, **settings)
    run = stopped.value.run
    assert STOP <= run.step < LENGTH and run.history["bound"].shape == (3, run.step)
    assert_same_bits(run.history["bound"], whole.history["bound"][:, : run.step])
    assert {len(leaf) for leaf in jax.tree.leaves(run.params)} == {3}


# The best parameters.


def test_there_are_no_best_parameters_before_the_first_validation(tmp_path):
    """In what the callback sees, in what is returned, and in what was saved."""
    seen = []
    checkpoints = vaejax.Checkpoints(tmp_path, every=1, max_to_keep=None)
    validation = vaejax.Validation(XS, every=3)
    fit(ADAM, 4, validation=validation, checkpoints=checkpoints, callbacks=(seen.append,))
    saved = vaejax.training.saving.saved_runs(
        tmp_path, OBJECTIVE, PARAMS, ADAM, transform=None, validated=True
    )
    for run in [*seen, *saved.values()]:
        assert (run.best_params is None) == (run.step < 3), run.step
    assert fit(ADAM, 2, validation=validation).best_params is None


# Signals.


def test_signals_that_are_ignored_stay_so():
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGINT)
        assert signals.received is None and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)


def test_outside_the_main_thread_there_are_none():
    runs = []
    thread = threading.Thread(target=lambda: runs.append(fit(ADAM, 2)))
    thread.start()
    thread.join()
    assert runs[0].step == 2
