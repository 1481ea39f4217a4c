"""Training a run: all that can be refused is refused before the folder is touched."""

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import Mesh
from matplotlib.figure import Figure

from vaejax import plots
from vaejax.base.describe import description
from vaejax.base.types import Key, Params
from vaejax.data.base import Dataset, random_rows
from vaejax.data.check import check_data
from vaejax.data.transforms import Transform
from vaejax.evaluation.evaluate import Evaluation, evaluate
from vaejax.evaluation.latents import posterior_means
from vaejax.models.vae import VAE
from vaejax.objectives.base import Objective, terms_of
from vaejax.plots.latents import require_labels
from vaejax.runs.build import (
    build_model,
    build_objective,
    build_optimizer,
    initial_params,
    load_data,
)
from vaejax.runs.command import environment, record
from vaejax.runs.config import TrainConfig, check_config
from vaejax.runs.continuation import require_same_run, saved_config, saved_fields
from vaejax.runs.files import write_json
from vaejax.runs.flags import parsed_flags
from vaejax.runs.folder import (
    digests_of,
    evaluated_params,
    evaluated_step,
    require_same_data,
)
from vaejax.runs.lock import claimed
from vaejax.runs.logs import logs_of
from vaejax.runs.pictures import drawn
from vaejax.runs.place import place_of, require_free, training_in
from vaejax.training.arguments import check_schedules
from vaejax.training.callbacks import Callback
from vaejax.training.fit import fit
from vaejax.training.run import Run
from vaejax.training.saving import Checkpoints
from vaejax.training.validation import Validation

DESCRIBED = ("model", "objective", "transform", "optimizer")  # whole, in config.json
MOST_POINTS = 5_000  # of the picture of the latent space


class Training(NamedTuple):
    """All that a training is made of, checked: what is left is to run it."""

    config: TrainConfig
    dataset: Dataset
    transform: Transform
    model: VAE
    objective: Objective
    optimizer: optax.GradientTransformation
    params: Params
    mesh: Mesh | None
    fit_key: Key
    evaluate_key: Key
    plot_key: Key


def train(config: TrainConfig) -> dict[str, Any]:
    """Trains, evaluates on the test set, draws, and returns what result.json holds.

    What is computed is on disk before what comes after it: checkpoints, result.json, pictures.
    """
    training = prepared_training(config)
    out = place_of(config.out)
    log, *others = logs_of(config, out)
    print(f"data: {training.dataset.source}", file=sys.stderr)
    with claimed(out):
        require_free(config)  # again, now that no other process can write there
        began = time.perf_counter()
        with training_in(out, resume=config.resume):
            run = fitted(training, out, (log, *others))
        seconds = time.perf_counter() - began

        print("evaluating on the test set ...", file=sys.stderr)
        params = evaluated_params(config, run)
        evaluation = evaluated(training, params, out)
        result = result_of(config, run, evaluation) | {
            "train_seconds": round(seconds, 2),
            "steps_per_second": log.steps_per_second(),
            "out": str(out),
        }
        data = _data_facts(training.dataset)
        record(out, config, **result, **data)
        result["pictures"] = drawn(figures_of(training, params, run), out)
        record(out, config, **result, **data)
    print(f"{evaluation} of {config.latent_dim}\npictures     {out}/*.png")
    return result


def prepared_training(config: TrainConfig) -> Training:
    """Everything of a training but its run; raises for all that can be refused."""
    check_config(config)
    require_free(config)
    dataset, transform = load_data(config)
    if config.resume:
        require_same_data(place_of(config.out), dataset)
    keys = jax.random.split(jax.random.key(config.seed), 4)
    model = build_model(config, dataset.train.images[0])
    objective, optimizer = build_objective(config, model), build_optimizer(config)
    _check_splits(config, model, dataset, transform)
    check_schedules(objective, config.num_steps)
    mesh = _mesh(config)
    params = initial_params(config, model, dataset.train.images, transform, keys[0])
    training = Training(
        config, dataset, transform, model, objective, optimizer, params, mesh, *keys[1:]
    )
    _trace(training)
    return training


def _check_splits(config: TrainConfig, model: VAE, dataset: Dataset, transform: Callable) -> None:
    splits = {"train": dataset.train, "valid": dataset.valid, "test": dataset.test}
    for name, split in splits.items():
        check_data(split.images, model.support, transform, name=f"{config.data} ({name})")


def _mesh(config: TrainConfig) -> Mesh | None:
    """The devices that each batch is sharded over; None for one."""
    if config.devices > jax.device_count() or config.batch_size % config.devices:
        raise ValueError(
            f"devices = {config.devices}: there are {jax.device_count()}, and batch_size ="
            f" {config.batch_size} must divide over them"
        )
    return jax.make_mesh((config.devices,), ("data",)) if config.devices > 1 else None


def _trace(training: Training) -> None:
    """Raises what the objective refuses: an estimator that is not for this encoder."""
    objective, params, key = training.objective, training.params, training.fit_key
    stored = training.dataset.train.images[: training.config.batch_size]
    keys = jax.random.split(key, len(stored))
    xs = jax.eval_shape(jax.vmap(training.transform), stored, keys)
    jax.eval_shape(partial(terms_of, objective), params, xs, key, 0)
    x = jax.eval_shape(training.transform, stored[0], key)
    jax.eval_shape(objective.bound, params, x, key)


def fitted(training: Training, out: Path, callbacks: Sequence[Callback]) -> Run:
    """The training itself. config.json is there before the first step; that of a run that is
    resumed is the old one until its checkpoints have turned out to be of this run.
    """
    config, facts = training.config, _facts(training)

    def write_facts() -> None:
        write_json(out / "config.json", facts)

    if not config.resume:
        write_facts()
    return fit(
        training.objective,
        training.params,
        training.optimizer,
        training.dataset.train.images,
        training.fit_key,
        num_steps=config.num_steps,
        batch_size=config.batch_size,
        transform=training.transform,
        validation=Validation(
            training.dataset.valid.images, config.validate_every, config.patience
        ),
        checkpoints=Checkpoints(
            out / "checkpoints", config.checkpoint_every, config.resume, saved_fields(config)
        ),
        mesh=training.mesh,
        callbacks=(WhenStarted(write_facts), *callbacks),
    )


class WhenStarted(Callback):
    """Calls a function once, when it is certain that the run begins or goes on."""

    def __init__(self, function: Callable[[], None]):
        self._function = function

    def start(self, run: Run) -> None:
        self._function()

    def __call__(self, run: Run) -> None:
        pass


def _facts(training: Training) -> dict[str, Any]:
    """What config.json holds."""
    config = dataclasses.asdict(training.config)
    parts = {name: description(getattr(training, name)) for name in DESCRIBED}
    return {"config": config, **_data_facts(training.dataset), **parts, **environment()}


def _data_facts(dataset: Dataset) -> dict[str, Any]:
    """Where the data were and how they were split, and what each split holds."""
    splits = {"train": dataset.train, "valid": dataset.valid, "test": dataset.test}
    return {
        "data": dataset.source,
        "examples": {name: len(split.images) for name, split in splits.items()},
        "images": digests_of(dataset),
    }


def result_of(config: TrainConfig, run: Run, evaluation: Evaluation) -> dict[str, Any]:
    """What a run found."""
    validations = run.history["validation_bound"]
    return {
        "test_elbo": evaluation.elbo.mean,
        "test_elbo_standard_error": evaluation.elbo.standard_error,
        "test_log_marginal": evaluation.log_marginal.mean,
        "test_log_marginal_standard_error": evaluation.log_marginal.standard_error,
        "eval_samples": config.eval_samples,
        "active_units": evaluation.active_units,
        "latent_dim": config.latent_dim,
        "validation_bound": float(validations[-1]) if len(validations) else None,
        "step": run.step,
        "evaluated_step": evaluated_step(config, run),
    }


def evaluated(training: Training, params: Params, out: Path) -> Evaluation:
    """On the test set. An error says that the run is saved all the same."""
    config = training.config
    try:
        return evaluate(
            training.model,
            params,
            training.dataset.test.images,
            training.evaluate_key,
            num_samples=config.eval_samples,
            transform=training.transform,
            batch_size=100,
        )
    except Exception:
        print(f"the trained run is saved: vaejax evaluate --run {out}", file=sys.stderr)
        raise


def figures_of(training: Training, params: Params, run: Run) -> dict[str, Callable[[], Figure]]:
    """What draws each picture of a run."""
    model, dataset, transform = training.model, training.dataset, training.transform
    keys = jax.random.split(training.plot_key, 5)
    sample_key, rows_key, pixels_key, reconstruct_key, latent_key = keys

    def reconstructions() -> Figure:
        stored = dataset.test.images[random_rows(rows_key, len(dataset.test.images), 64)]
        xs = jax.jit(jax.vmap(transform))(stored, jax.random.split(pixels_key, len(stored)))
        originals = transform.originals(stored)
        return plots.reconstructions(model, params, xs, reconstruct_key, originals=originals)

    def latent() -> Figure:
        labels = dataset.test.labels
        require_labels(labels, len(dataset.test.images))
        images = dataset.test.images[:MOST_POINTS]
        means = posterior_means(model, params, images, latent_key, transform=transform)
        return plots.latent(model, params, means, None if labels is None else labels[:MOST_POINTS])

    return {
        "curves": lambda: plots.curves(run.history, dataset.name),
        "samples": lambda: plots.samples(model, params, sample_key),
        "reconstructions": reconstructions,
        "latent": latent,
    }


def parsed(
    arguments: Sequence[str] | None = None,
    prog: str | None = None,
    description: str | None = None,
) -> TrainConfig:
    """The configuration of a command line. With --resume, flags that are not given are the run's
    own.
    """
    config = parsed_flags(TrainConfig, arguments, prog=prog, description=description)
    if not config.resume:
        return config
    if config.overwrite:
        raise ValueError("--resume goes on with a run and --overwrite replaces it; give one")
    saved_in = place_of(config.out) / "config.json"
    if not saved_in.exists():
        raise ValueError(
            f"nothing to resume: {saved_in} does not exist; name the run's folder with --out, or"
            " leave out --resume"
        )
    own = {"resume": True, "overwrite": False, "out": config.out}
    saved = dataclasses.replace(saved_config(saved_in.parent), **own)
    config = parsed_flags(TrainConfig, arguments, prog=prog, default=saved)
    require_same_run(saved, config)
    return config
