"""Rows that are one training and its evaluation. All seeds of such a row can be trained in one
program, which an accelerator does in little more time than one of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import vaejax
from experiments.lib.reproduction import Row
from vaejax.base.types import Key
from vaejax.training.run import Run

if TYPE_CHECKING:
    from experiments.lib.work import Work

NAME = "model"  # of the training, in the row's folder


class Training(NamedTuple):
    """What `vaejax.fit` is given."""

    objective: vaejax.Objective
    params: vaejax.Params
    optimizer: optax.GradientTransformation
    data: Any
    key: Key
    num_steps: int
    batch_size: int
    transform: Callable | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedRow(Row):
    """Write `training` and `evaluated`. The training has no validation: its last parameters are
    evaluated.
    """

    def training(self, work: Work, seed: int) -> Training:
        """Seeds differ in `params` and `key` alone."""
        raise NotImplementedError(f"{type(self).__name__}.training")

    def evaluated(self, work: Work, params: vaejax.Params) -> dict[str, Any]:
        """The numbers of the trained parameters."""
        raise NotImplementedError(f"{type(self).__name__}.evaluated")

    def compute(self, work, seed):
        run = work.fit(NAME, **self.training(work, seed)._asdict())
        return self.evaluated(work, run.params)

    def train_together(self, works: Mapping[int, Work]) -> None:
        """Trains all seeds at once by `vaejax.fit_seeds`, and leaves in the folder of each what
        `compute` then goes on from. What stops the training stops it there too.
        """
        trainings = [self.training(work, seed) for seed, work in works.items()]
        first = trainings[0]
        settings = {name: getattr(first, name) for name in ("num_steps", "batch_size", "transform")}
        params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(t.params for t in trainings))
        keys = jnp.stack([training.key for training in trainings])
        try:
            run = vaejax.fit_seeds(
                first.objective,
                params,
                first.optimizer,
                first.data,
                keys,
                progress=False,
                **settings,
            )
        except BaseException as error:
            _leave(trainings, works, vars(error).get("run"))
            raise
        _leave(trainings, works, run)


def _leave(trainings: list[Training], works: Mapping[int, Work], run: Run | None) -> None:
    """The run of each seed in its folder, where there is a step of it."""
    if run is None or run.step == 0:
        return
    for place, (training, work) in enumerate(zip(trainings, works.values(), strict=True)):
        params, opt_state, history = jax.tree.map(
            lambda leaf, place=place: leaf[place], (run.params, run.opt_state, run.history)
        )
        work.leave(NAME, Run(params, opt_state, run.step, history), training)
