"""The training that tables on the static MNIST share: warm-up, a cosine, the best by validation."""

from collections.abc import Callable
from typing import Any

import vaejax
from experiments.lib.training import cosine_adam
from experiments.lib.work import Work
from vaejax.data.base import Dataset
from vaejax.training.run import Run


def fit_validated(
    work: Work,
    row: Any,
    model: vaejax.Model,
    params: vaejax.Params,
    dataset: Dataset,
    transform: Callable,
    key,
) -> Run:
    """The ELBO with a warm-up of the KL, by Adam along a cosine, as the row's settings say:
    `num_steps`, `warm_up`, `validate_every`, `batch_size`, `learning_rate`. `run.best_params` are
    those of the best validation.
    """
    steps = work.steps(row.num_steps)
    return work.fit(
        "model",
        vaejax.minibatch(vaejax.Beta(vaejax.WarmUp(work.steps(row.warm_up))), model),
        params,
        cosine_adam(row.learning_rate, steps),
        dataset.train.images,
        key,
        num_steps=steps,
        batch_size=row.batch_size,
        transform=transform,
        validation=vaejax.Validation(dataset.valid.images, work.steps(row.validate_every)),
        checkpoint_every=25_000,
    )
