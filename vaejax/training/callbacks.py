"""What is told of a training as it goes: the contract of a callback, and several as one."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from vaejax.base.checks import require_no_class, require_positive, shortened
from vaejax.training.run import Run, for_callback


class StopTraining(Exception):  # noqa: N818
    """Raised by a callback: the run ends here, and is saved and returned as it is."""


class Callback:
    """Called with the run so far after each compiled call, about once a second, and after each
    validation. Your own:

        class Printed(vaejax.Callback):
            def __call__(self, run):
                print(run.step, run.history["bound"][-100:].mean())
                if run.history["bound"][-1] > -20:
                    raise vaejax.StopTraining

    `run.params` are the parameters at this step, `run.history` all that is known so far (see
    `vaejax.Run`), in arrays of its own. How many steps lie between two calls is for the clock to
    say; what is to be a function of the steps alone derives from `vaejax.Log`. An error of any
    other kind is raised by `fit`, with the run in its attribute `run`.
    """

    def start(self, run: Run) -> None:
        """Before the first step; `run.step` is above 0 in a run that goes on."""

    def __call__(self, run: Run) -> None:
        raise NotImplementedError(f"{type(self).__name__}.__call__")

    def finish(self) -> None:
        """After the last call, whatever it was that ended the run."""


class TimeBudget(Callback):
    """Ends a run when so many minutes have passed since this was made, by `StopTraining`.

    Several runs can share one. `is_spent` says whether it has ended one; with checkpoints the same
    call then goes on to the same bits, with a new budget. The clock is asked about once a second.
    """

    def __init__(self, minutes: float):
        require_positive(minutes, "TimeBudget.minutes")
        self.minutes = float(minutes)
        self.is_spent = False
        self._end = time.monotonic() + 60 * self.minutes

    def is_over(self) -> bool:
        """Whether the minutes have passed."""
        return time.monotonic() >= self._end

    def __call__(self, run: Run) -> None:
        if self.is_over():
            self.is_spent = True
            raise StopTraining


class FunctionCallback(Callback):
    """A plain function of the run."""

    def __init__(self, function: Callable[[Run], Any]):
        self._function = function

    def __call__(self, run: Run) -> None:
        self._function(run)


def as_callback(function: Any) -> Callback:
    """A callback as it is, and a function of the run as one."""
    require_no_class(function, "the callback")
    if isinstance(function, Callback):
        return function
    if callable(function):
        return FunctionCallback(function)
    raise TypeError(
        f"callbacks has {shortened(function)}, which cannot be called; give a function of the run,"
        " or a vaejax.Callback"
    )


class Callbacks:
    """Several at once. Each is told, also where one of them stops the run or raises."""

    def __init__(self, callbacks: Sequence[Callback | Callable[[Run], Any]]):
        if callable(callbacks):
            raise TypeError("callbacks is a function; give a tuple of them: callbacks=(callback,)")
        self._callbacks = [as_callback(callback) for callback in callbacks]
        self._finished = False
        self.stopped = False

    def __len__(self) -> int:
        return len(self._callbacks)

    def start(self, run: Run) -> None:
        for callback in self._callbacks:
            callback.start(for_callback(run))

    def __call__(self, run: Run) -> None:
        self._each(lambda callback: callback(for_callback(run)))

    def finish(self) -> None:
        if not self._finished:
            self._finished = True
            self._each(lambda callback: callback.finish())

    def finish_after(self, error: BaseException) -> None:
        """The end of a run that an error ends, which stays the one that is raised."""
        try:
            self.finish()
        except Exception as second:
            error.add_note(f"and a callback could not end: {type(second).__name__}: {second}")

    def _each(self, tell: Callable[[Callback], None]) -> None:
        """The first error is raised when all have been told."""
        errors = []
        for callback in self._callbacks:
            try:
                tell(callback)
            except StopTraining:
                self.stopped = True
            except BaseException as error:
                errors.append(error)
        if errors:
            raise errors[0]
