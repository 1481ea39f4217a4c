"""Logs of a training: rows of numbers, each a function of its step, to a file or a service.

A log of a run that goes on from a checkpoint has each row once: what came after the checkpoint is
taken off, and the rows before it are there.
"""

import csv
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from vaejax.base.checks import require_count
from vaejax.base.files import nameable, whole
from vaejax.training.callbacks import Callback
from vaejax.training.run import NO_HISTORY, Run, by_step, num_validations

LogRow = dict[str, float]


def log_rows(run: Run, every: int, after: int, validations: int) -> list[LogRow]:
    """{"step": s, "bound": ..., ...} of every `every`-th step beyond `after`, the means over the
    `every` steps up to it, with the validation of the step if it has one beyond the first so many;
    the others have a row of their own. In the order of the steps. Of several seeds there is a
    `bound_0`, a `bound_1`, ...
    """
    rows: dict[int, LogRow] = {}
    numbers = by_seed(by_step(run.history))
    for end in range((after // every + 1) * every, run.step + 1, every):
        means = {name: float(values[end - every : end].mean()) for name, values in numbers.items()}
        rows[end] = {"step": end, **means}
    steps, bounds = run.history["validation_step"], run.history["validation_bound"]
    for step, bound in list(zip(steps.tolist(), bounds.tolist(), strict=True))[validations:]:
        rows.setdefault(step, {"step": step})["validation_bound"] = bound
    return [rows[step] for step in sorted(rows)]


def by_seed(numbers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """An array over steps [n] of each name; of [seeds, n] one for each seed, with its number."""
    several = {name: values for name, values in numbers.items() if values.ndim == 2}
    rows = {f"{name}_{s}": row for name, values in several.items() for s, row in enumerate(values)}
    return {name: values for name, values in numbers.items() if name not in several} | rows


class Log(Callback):
    """Rows of numbers: the means of every `every` steps, and each validation, nats per example;
    their names are those of `Run.history`. Your own says what becomes of them:

        class Printed(vaejax.Log):
            def write(self, rows):
                for row in rows:
                    print(row)  # {"step": 100, "bound": -31.2, ..., "validation_bound": -30.8}

    `learning_rate`, a number or a schedule, is shown where the optimiser's state does not have it.
    """

    def __init__(self, every: int = 100, learning_rate: Any = None):
        require_count(every, "every")
        self.every, self.learning_rate = every, learning_rate
        self._step = self._validations = 0

    def start(self, run: Run) -> None:
        """Of a run that goes on, the rows so far are written anew."""
        self._step = self._validations = 0

    def __call__(self, run: Run) -> None:
        rows = self.rows(run)
        self._step, self._validations = run.step, num_validations(run)
        if rows:
            self.write(rows)

    def rows(self, run: Run) -> list[LogRow]:
        """Those that were not written yet."""
        if self.learning_rate is not None and "learning_rate" not in run.history:
            steps = np.arange(run.step)
            rate = self.learning_rate(steps) if callable(self.learning_rate) else self.learning_rate
            rates = np.broadcast_to(np.asarray(rate), steps.shape)
            run = run._replace(history=run.history | {"learning_rate": rates})
        run = run._replace(history=NO_HISTORY | run.history)
        return log_rows(run, self.every, self._step, self._validations)

    def write(self, rows: list[LogRow]) -> None:
        """What becomes of the rows since the last call, in the order of their steps."""
        raise NotImplementedError(f"{type(self).__name__}.write")


class CSVLog(Log):
    """A table with a row for every `every` steps and for each validation:

    `vaejax.fit(..., callbacks=(vaejax.CSVLog("runs/mine.csv"),))`. The table of a run that goes on
    is written anew; one that is there when a run begins is refused, by a ValueError, unless
    `overwrite`.
    """

    def __init__(
        self,
        path: str | Path,
        every: int = 100,
        overwrite: bool = False,
        learning_rate: Any = None,
    ):
        super().__init__(every, learning_rate)
        self.path, self._overwrite = nameable(path, "path"), overwrite
        self._rows: list[LogRow] = []
        self._names: list[str] = []

    def start(self, run: Run) -> None:
        super().start(run)
        if run.step == 0:
            _require_free(self.path, self.path.exists(), self._overwrite)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._rows, self._names = [], []

    def write(self, rows: list[LogRow]) -> None:
        """A name that first appears later is another column, so that the table is written anew."""
        self._rows += rows
        names = list(dict.fromkeys(name for row in self._rows for name in row))
        if names == self._names:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, names, lineterminator="\n").writerows(rows)
            return
        self._names = names
        with whole(self.path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self._rows)


def _require_free(path: Path, is_taken: bool, overwrite: bool) -> None:
    """Raises ValueError where the log of another run lies."""
    if is_taken and not overwrite:
        raise ValueError(
            f"{path} holds the log of another run; name another place, or give overwrite=True"
        )


class TensorBoard(Log):
    """Scalars for TensorBoard in a folder; `tensorboard --logdir FOLDER` shows them. What it holds
    of another run is refused as by `CSVLog`.

    Needs the extra `logging`, as an ImportError says.
    """

    def __init__(
        self,
        folder: str | Path,
        every: int = 100,
        overwrite: bool = False,
        learning_rate: Any = None,
    ):
        super().__init__(every, learning_rate)
        self.folder, self._overwrite = nameable(folder, "folder"), overwrite
        self._writer_class = _imported("tensorboardX").SummaryWriter
        self._writer: Any = None

    def start(self, run: Run) -> None:
        super().start(run)
        is_taken = any(self.folder.glob("events.out.tfevents.*"))
        if run.step == 0:
            _require_free(self.folder, is_taken, self._overwrite)
        # What is there is hidden from step 0 on; of a run that goes on it is written anew.
        purge_step = 0 if is_taken else None
        self._writer = self._writer_class(str(self.folder), purge_step=purge_step)

    def write(self, rows: list[LogRow]) -> None:
        for row in rows:
            for name, number in row.items():
                if name != "step":
                    self._writer.add_scalar(name, number, int(row["step"]))
        self._writer.flush()

    def finish(self) -> None:
        if self._writer is not None:
            self._writer.close()


class WandB(Log):
    """A run of Weights & Biases: `settings` are those of `wandb.init`, such as project="vae",
    id="first" and mode="offline".

    With an `id` a run that goes on continues that one; it keeps the rows that it has, for Weights &
    Biases takes no step twice. Needs the extra `logging`, as an ImportError says.
    """

    def __init__(self, every: int = 100, learning_rate: Any = None, **settings: Any):
        super().__init__(every, learning_rate)
        self._wandb, self._settings = _imported("wandb"), settings
        self._run: Any = None

    def start(self, run: Run) -> None:
        super().start(run)
        resume = {"resume": "allow"} if "id" in self._settings else {}
        self._run = self._wandb.init(**resume | self._settings)
        if resume:  # the earlier part of the run has logged these
            self._step, self._validations = run.step, num_validations(run)

    def write(self, rows: list[LogRow]) -> None:
        for row in rows:
            numbers = {name: number for name, number in row.items() if name != "step"}
            self._run.log(numbers, step=int(row["step"]))

    def finish(self) -> None:
        if self._run is not None:
            self._run.finish()


def _imported(module: str) -> Any:
    """A package of the extra `logging`; an ImportError that names it where it is missing."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"this log needs {module}: pip install 'vaejax[logging]'") from error
