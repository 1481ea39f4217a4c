"""A row at work: what takes time is kept on disk, goes on after a kill to the same bits, and stops
when the time is up.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

import vaejax
from experiments.lib.reproduction import by_names, settings_of
from experiments.lib.trained_row import Training
from vaejax.base.compare import differences, told
from vaejax.data.base import Dataset, Split
from vaejax.data.sources import as_data
from vaejax.evaluation.pieces import Pieces
from vaejax.runs.files import read_json, write_json
from vaejax.training.callbacks import TimeBudget
from vaejax.training.run import by_step
from vaejax.training.saving import open_saver

EVALUATION_SEED = 5_000  # of every row alike, so that all see the same binarised test images
POINTS = 20  # of a training's history, in the record


class OutOfTime(Exception):  # noqa: N818
    """The time is up: what is done is kept, and the same command goes on."""


class Work:
    """A row with a seed, in `folder`. The settings of what lies there must be the row's own."""

    def __init__(
        self,
        row: Any,
        seed: int,
        folder: Path,
        *,
        data_folder: str | None = None,
        shrink: int = 1,
        budget: TimeBudget | None = None,
    ):
        self.folder, self.shrink = folder, shrink
        self.training: dict[str, Any] = {}
        self._data_folder, self._budget = data_folder, budget
        self._of = {"row": settings_of(by_names(row)), "seed": seed, "shrink": shrink}
        path = folder / "row.json"
        if path.exists():
            saved = read_json(path, *self._of)
            lines = differences({**saved, "row": settings_of(saved["row"])}, self._of)
            if lines:
                raise ValueError(
                    f"{folder} is of other settings: {told(lines)}; name another --out"
                )
        write_json(path, self._of)

    def beside(self, part: Any, name: str) -> "Work":
        """The work on what several rows have in common, in a folder beside theirs; `part` is the
        value that holds its settings.
        """
        name = name if self.shrink == 1 else f"{name}-try"
        folder = self.folder.parent.parent / name
        folder.mkdir(parents=True, exist_ok=True)
        return Work(
            part,
            0,
            folder,
            data_folder=self._data_folder,
            shrink=self.shrink,
            budget=self._budget,
        )

    def steps(self, count: int) -> int:
        """So many steps, or the share of them that a try has."""
        return max(1, count // self.shrink)

    def dataset(self, name: str, valid: int | None = None) -> Dataset:
        """A data set by its name, `valid` of its training examples held out; in a try the first of
        each split alone.
        """
        dataset = vaejax.load_dataset(name, self._data_folder, valid=valid)
        return dataset._replace(
            train=self._fewer(dataset.train, 1_000),  # for the largest batches
            valid=self._fewer(dataset.valid, 200),
            test=self._fewer(dataset.test, 200),
        )

    def _fewer(self, split: Split, least: int) -> Split:
        count = len(split.images)
        count = min(count, max(least, count // self.shrink))
        labels = None if split.labels is None else split.labels[:count]
        return Split(split.images[:count], labels)

    def fit(
        self,
        name: str,
        objective: vaejax.Objective,
        params: vaejax.Params,
        optimizer: optax.GradientTransformation,
        data: Any,
        key,
        *,
        num_steps: int,
        batch_size: int,
        transform: Callable | None = None,
        validation: vaejax.Validation | None = None,
        checkpoint_every: int = 10_000,
    ) -> vaejax.Run:
        """`vaejax.fit`, with checkpoints in the row's folder, from the newest of which it goes on.

        `run.best_params` are those of the best validation, where there is one. Raises OutOfTime
        where the time is up.
        """
        self.require_time()
        run = vaejax.fit(
            objective,
            params,
            optimizer,
            data,
            key,
            num_steps=num_steps,
            batch_size=batch_size,
            transform=transform,
            validation=validation,
            checkpoints=self._checkpoints(name, checkpoint_every),
            callbacks=() if self._budget is None else (self._budget,),
            progress=sys.stderr.isatty(),
        )
        if self._budget is not None and self._budget.is_spent and run.step < num_steps:
            raise OutOfTime(f"{name} at step {run.step:,} of {num_steps:,}")
        size = len(jax.tree.leaves(data)[0])
        epochs = run.step * batch_size / size
        self.training[name] = {"steps": run.step, "epochs": epochs, **in_brief(run.history)}
        return run

    def leave(self, name: str, run: vaejax.Run, training: Training) -> None:
        """Saves a run that was trained elsewhere: `fit` of this training goes on from it."""
        saver = open_saver(
            self._checkpoints(name),
            training.key,
            training.batch_size,
            as_data(training.data),
            objective=training.objective,
            transform=training.transform,
            optimizer=training.optimizer,
        )
        with saver as open_one:
            assert open_one is not None
            newest = open_one.restored(run._replace(step=0))
            if newest.step < run.step:
                open_one.finish(run)

    def _checkpoints(self, name: str, every: int = 10_000) -> vaejax.Checkpoints:
        return vaejax.Checkpoints(self.folder / "fits" / name, every, resume=True, max_to_keep=2)

    def kept(self, name: str, function: Callable[[], Any]) -> Any:
        """function(), computed once: an array or a number, or a mapping of such by their names.

        It comes back as arrays of NumPy, the first time too.
        """
        pieces = Pieces(self.folder / f"{name}.jsonl", self._of | {"name": name})
        if 0 not in pieces.arrays:
            self.require_time()
            value = function()
            parts = value if isinstance(value, Mapping) else {"": value}
            arrays = {key: np.asarray(part) for key, part in parts.items()}
            pieces.add({0: arrays})
            pieces.arrays[0] = arrays
        arrays = pieces.arrays[0]
        return arrays[""] if [*arrays] == [""] else dict(arrays)

    def evaluation(
        self,
        model: vaejax.Model,
        params: vaejax.Params,
        images: Any,
        transform: Callable | None = None,
        *,
        num_samples: int = 5_000,
        batch_size: int = 20,
        chunk: int | None = None,
        name: str = "evaluation",
    ) -> dict[str, Any]:
        """`vaejax.evaluate` of the test images: {nll, nll_error, elbo, active_units, unreliable},
        nats per example, by importance samples. The nll and the ELBO of each image are kept for
        comparisons.

        `unreliable` is the share of the images whose weights have a Pareto k-hat above 0.7. Neither
        `batch_size` nor `chunk` changes more than rounding.
        """
        self.require_time()
        num_samples = max(25, num_samples // self.shrink)
        with jax.default_matmul_precision("highest"):
            evaluation = vaejax.evaluate(
                model,
                params,
                images,
                jax.random.key(EVALUATION_SEED),
                num_samples=num_samples,
                ladder=(num_samples,),
                transform=transform,
                batch_size=batch_size,
                chunk=chunk or (500 if jax.default_backend() == "cpu" else num_samples),
                path=self.folder / f"{name}.jsonl",
                progress=sys.stderr.isatty(),
            )
        self.examples("nll", -evaluation.by_example[f"iwae_{num_samples}"])
        self.examples("elbo", evaluation.by_example["elbo"])
        return {
            "nll": -evaluation.log_marginal.mean,
            "nll_error": evaluation.log_marginal.standard_error,
            "elbo": evaluation.elbo.mean,
            "active_units": evaluation.active_units,
            "unreliable": evaluation.unreliable,
        }

    def examples(self, name: str, values: Any) -> None:
        """Keeps a number for each test example, for the differences between rows."""
        np.savez(self.folder / f"{name}_by_example.npz", np.asarray(values, np.float32))

    def require_time(self) -> None:
        """Raises OutOfTime where the time is up."""
        if self._budget is not None and self._budget.is_over():
            raise OutOfTime("between two parts")


def in_brief(history: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """The means of what a training recorded, over `POINTS` stretches of equally many steps."""
    recorded = by_step(history)
    if np.array_equal(recorded["objective"], recorded["bound"]):
        del recorded["objective"]
    validations = {name: history[name] for name in ("validation_step", "validation_bound")}
    brief = {}
    for name, values in {**recorded, **validations}.items():
        stretches = np.array_split(values, min(POINTS, len(values))) if len(values) else []
        brief[name] = [float(f"{np.mean(part):.5g}") for part in stretches]
    return brief
