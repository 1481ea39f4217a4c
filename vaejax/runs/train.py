"""Training a run: all that can be refused is refused before the folder is touched."""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import tyro
from jax.sharding import Mesh

from vaejax import plots
from vaejax.base.describe import description
from vaejax.base.types import Key, Params
from vaejax.data.base import Dataset, random_rows
from vaejax.data.check import check_data
from vaejax.data.pixels import Pixels
from vaejax.evaluation.evaluate import Evaluation, evaluate
from vaejax.evaluation.latents import posterior_means
from vaejax.models.vae import VAE
from vaejax.objectives.base import Objective, terms_of
from vaejax.runs.build import (
    build_model,
    build_objective,
    build_optimizer,
    initial_params,
    load_data,
)
from vaejax.runs.command import environment
from vaejax.runs.config import (
    TrainConfig,
    check_config,
    fixed_fields,
    require_same_run,
    saved_config,
)
from vaejax.runs.folder import (
    MetricsLog,
    evaluated_params,
    prepared_folder,
    require_free,
)
from vaejax.training.checkpoints import CheckpointError, CheckpointMismatchError
from vaejax.training.fit import check_schedules, fit
from vaejax.training.run import Run
from vaejax.training.saving import Checkpoints
from vaejax.training.validation import Validation

DESCRIBED = ("model", "objective", "transform", "optimizer")  # whole, in config.json


class Training(NamedTuple):
    """All that a training is made of, checked: what is left is to run it."""

    config: TrainConfig
    dataset: Dataset
    transform: Pixels
    model: VAE
    objective: Objective
    optimizer: optax.GradientTransformation
    params: Params
    mesh: Mesh | None
    fit_key: Key
    evaluate_key: Key
    plot_key: Key


def train(config: TrainConfig) -> dict[str, Any]:
    """Trains, evaluates on the test set, draws, and returns what result.json holds."""
    training = prepared_training(config)
    out = prepared_folder(config)
    print(f"{config.data}: {training.dataset.source}", file=sys.stderr)

    log, began = MetricsLog(out / "metrics.jsonl"), time.perf_counter()
    run = fitted(training, out, log)
    seconds = time.perf_counter() - began

    print("evaluating on the test set ...", file=sys.stderr)
    params = evaluated_params(config, run)
    evaluation = evaluate(
        training.model,
        params,
        training.dataset.test.images,
        training.evaluate_key,
        num_samples=config.eval_samples,
        transform=training.transform,
        batch_size=100,
    )
    draw(training, params, run, out)
    result = result_of(config, run, evaluation) | {
        "train_seconds": round(seconds, 2),
        "steps_per_second": log.steps_per_second(),
        "out": str(out),
    }
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"{evaluation} of {config.latent_dim}\npictures     {out}/*.png")
    return result


def prepared_training(config: TrainConfig) -> Training:
    """Everything of a training but its run; raises for all that can be refused."""
    check_config(config)
    require_free(config)
    dataset, transform = load_data(config)
    keys = jax.random.split(jax.random.key(config.seed), 4)
    model = build_model(config, dataset.train.images[0])
    objective, optimizer = build_objective(config, model), build_optimizer(config)
    _check_splits(config, model, dataset, transform)
    check_schedules(objective, config.num_steps)
    mesh = _mesh(config, len(dataset.train.images))
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


def _mesh(config: TrainConfig, size: int) -> Mesh | None:
    """The devices that each batch is sharded over; None for one."""
    if config.batch_size > size:
        raise ValueError(
            f"batch_size = {config.batch_size}, but {config.data} has {size} training examples"
        )
    if config.devices > jax.device_count() or config.batch_size % config.devices:
        raise ValueError(
            f"devices = {config.devices}: there are {jax.device_count()}, and batch_size ="
            f" {config.batch_size} must divide over them"
        )
    return jax.make_mesh((config.devices,), ("data",)) if config.devices > 1 else None


def _trace(training: Training) -> None:
    """Raises what the objective and the pictures refuse: an estimator that is not for this encoder,
    examples that are no images.
    """
    objective, params, key = training.objective, training.params, training.fit_key
    stored = training.dataset.train.images[: training.config.batch_size]
    keys = jax.random.split(key, len(stored))
    xs = jax.eval_shape(jax.vmap(training.transform), stored, keys)
    jax.eval_shape(partial(terms_of, objective), params, xs, key, 0)
    x = jax.eval_shape(training.transform, stored[0], key)
    jax.eval_shape(objective.bound, params, x, key)
    jax.eval_shape(partial(plots.prior_image, training.model), params, key)


def fitted(training: Training, out: Path, log: MetricsLog) -> Run:
    """The training itself. config.json is there before the first step, and is the old one again
    where the checkpoints turn out to be of other data.
    """
    config, path = training.config, out / "config.json"
    before = path.read_text() if path.exists() else None
    path.write_text(json.dumps(_facts(training), indent=2) + "\n")
    try:
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
                out / "checkpoints", config.checkpoint_every, config.resume, fixed_fields(config)
            ),
            mesh=training.mesh,
            callback=log,
        )
    except (CheckpointError, CheckpointMismatchError):
        if before is not None:
            path.write_text(before)
        raise


def _facts(training: Training) -> dict[str, Any]:
    """What config.json holds."""
    config = dataclasses.asdict(training.config)
    parts = {name: description(getattr(training, name)) for name in DESCRIBED}
    return {"config": config, "data": training.dataset.source, **parts, **environment()}


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
    }


def draw(training: Training, params: Params, run: Run, out: Path) -> None:
    """The four pictures of a run."""
    model, dataset, transform = training.model, training.dataset, training.transform
    keys = jax.random.split(training.plot_key, 5)
    sample_key, rows_key, pixels_key, reconstruct_key, latent_key = keys
    stored = dataset.test.images[random_rows(rows_key, len(dataset.test.images), 64)]
    xs = jax.jit(jax.vmap(transform))(stored, jax.random.split(pixels_key, len(stored)))
    images, labels = dataset.test.images[:5_000], dataset.test.labels
    means = posterior_means(model, params, images, latent_key, transform=transform)
    classes = None if labels is None else np.asarray(labels)[: len(images)]
    figures = {
        "curves": plots.curves(run.history, dataset.name),
        "samples": plots.samples(model, params, sample_key),
        "reconstructions": plots.reconstructions(model, params, xs, reconstruct_key),
        "latent": plots.latent(model, params, means, classes),
    }
    for name, figure in figures.items():
        plots.save(figure, out / f"{name}.png")


def parsed(arguments: Sequence[str] | None = None, prog: str | None = None) -> TrainConfig:
    """The configuration of a command line. With --resume, flags that are not given are the run's
    own.
    """
    config = tyro.cli(TrainConfig, args=arguments, prog=prog)
    if not config.resume:
        return config
    if config.overwrite:
        raise ValueError("--resume goes on with a run and --overwrite replaces it; give one")
    if not (Path(config.out) / "config.json").exists():
        raise ValueError(
            f"nothing to resume: {Path(config.out) / 'config.json'} does not exist; name the run's"
            " folder with --out, or leave out --resume"
        )
    own = {"resume": True, "overwrite": False, "out": config.out}
    saved = dataclasses.replace(saved_config(config.out), **own)
    config = tyro.cli(TrainConfig, args=arguments, prog=prog, default=saved)
    require_same_run(saved, config)
    return config
