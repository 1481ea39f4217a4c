"""Training a run: it is trained, evaluated, drawn, and each is on disk before the next begins."""

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from matplotlib.figure import Figure

from vaejax import plots
from vaejax.base.describe import description
from vaejax.base.devices import fetched
from vaejax.base.processes import Processes
from vaejax.base.types import Params
from vaejax.data.base import Dataset, random_rows
from vaejax.data.sources import Arrays
from vaejax.evaluation.evaluate import Evaluation, evaluate
from vaejax.evaluation.latents import posterior_means
from vaejax.plots.points import require_labels
from vaejax.runs.command import environment, record
from vaejax.runs.config import TrainConfig, check_config
from vaejax.runs.continuation import require_same_run, saved_config, saved_fields
from vaejax.runs.devices import joined
from vaejax.runs.files import write_json
from vaejax.runs.flags import parsed_flags
from vaejax.runs.folder import digests_of, evaluated_params, evaluated_step
from vaejax.runs.lock import claimed
from vaejax.runs.logs import logs_of
from vaejax.runs.pictures import drawn
from vaejax.runs.place import place_of, require_free, training_in
from vaejax.runs.prepared import Training, prepared_training
from vaejax.training.averages import averaged_params
from vaejax.training.callbacks import Callback, TimeBudget
from vaejax.training.fit import fit
from vaejax.training.optimizers import skipped_steps
from vaejax.training.run import Run, arrays_of, with_arrays
from vaejax.training.saving import Checkpoints
from vaejax.training.validation import Validation

DESCRIBED = ("model", "objective", "transform", "optimizer")  # whole, in config.json
MOST_POINTS = 5_000  # of the picture of the latent space


class OutOfTime(Exception):  # noqa: N818
    """The budget is spent: what is done is saved, and the run goes on by --resume."""


def train(config: TrainConfig, budget: TimeBudget | None = None) -> dict[str, Any]:
    """Trains, evaluates on the test set, draws, and returns what result.json holds.

    What is computed is on disk before what comes after it: checkpoints, result.json, pictures.
    Where the budget, or that of the configuration, is spent before the last step, says where the
    training stopped.
    """
    if budget is None and config.max_minutes is not None:
        budget = TimeBudget(config.max_minutes)
    check_config(config)
    processes = joined(config.distributed)
    try:
        return _trained(config, budget, processes)
    except OutOfTime as stopped:
        if processes.is_first:
            print(
                f"{stopped}; go on with vaejax train --resume --out {config.out}", file=sys.stderr
            )
        return {"stopped": str(stopped), "out": str(place_of(config.out))}


def _trained(
    config: TrainConfig, budget: TimeBudget | None, processes: Processes
) -> dict[str, Any]:
    with processes.together():
        training = prepared_training(config)
        out = place_of(config.out)
        log, *others = logs_of(config, out) if processes.is_first else (None,)
    if processes.is_first:
        print(f"data: {training.dataset.source}", file=sys.stderr)
    with processes.by_first(claimed(out)):
        with processes.together():
            if processes.is_first:
                require_free(config)  # again, now that no other process can write there
        began = time.perf_counter()
        with processes.by_first(training_in(out, resume=config.resume)):
            callbacks = () if log is None else (log, *others)
            run = fitted(training, out, callbacks, budget, processes)
        seconds = time.perf_counter() - began
        params = evaluated_params(config, run)
        evaluation = evaluated(training, params, out, processes)
        with processes.together():
            if log is None:
                return {"out": str(out)}
            times = {
                "train_seconds": round(seconds, 2),
                "steps_per_second": log.steps_per_second(),
            }
            return reported(training, run, params, evaluation, times)


def reported(
    training: Training,
    run: Run,
    params: Params,
    evaluation: Evaluation,
    times: dict[str, float | None],
) -> dict[str, Any]:
    """What the run found, on the test set; written, drawn and printed."""
    config = training.config
    out = place_of(config.out)
    result = result_of(config, run, evaluation) | times | {"out": str(out)}
    data = _data_facts(training.dataset)
    record(out, config, **result, **data)
    result["pictures"] = drawn(figures_of(training, params, run), out)
    record(out, config, **result, **data)
    print(f"{evaluation} of {config.latent_dim}\npictures     {out}/*.png")
    return result


def fitted(
    training: Training,
    out: Path,
    callbacks: Sequence[Callback],
    budget: TimeBudget | None,
    processes: Processes,
) -> Run:
    """The training itself. config.json is there before the first step; that of a run that is
    resumed is the old one until its checkpoints have turned out to be of this run. Raises OutOfTime
    where the budget is spent before the last step.

    Of several processes the first has the callbacks, and its clock counts.
    """
    config, images = training.config, training.dataset.train.images
    with processes.together():
        facts = _facts(training)

        def write_facts() -> None:
            write_json(out / "config.json", facts)

        told: list[Callback] = []
        if processes.is_first:
            budgets = [] if budget is None else [budget]
            told = [WhenStarted(write_facts), *callbacks, *budgets]
            if not config.resume:
                write_facts()
    run = fit(
        training.objective,
        training.params,
        training.optimizer,
        # of a source each process reads its own part of a batch
        Arrays(images) if processes.are_several else images,
        training.fit_key,
        num_steps=config.num_steps,
        batch_size=config.batch_size,
        transform=training.transform,
        validation=Validation(
            training.dataset.valid.images,
            config.validate_every,
            config.patience,
            None if config.average is None else averaged_params,
        ),
        checkpoints=Checkpoints(
            out / "checkpoints", config.checkpoint_every, config.resume, saved_fields(config)
        ),
        mesh=training.mesh,
        sharding=training.rule,
        callbacks=told,
        progress=processes.is_first,
    )
    if processes.are_several:  # what follows is for the first alone
        run = with_arrays(run, fetched(arrays_of(run)))
    is_spent = any(processes.told(budget is not None and budget.is_spent))
    if budget is not None and is_spent and run.step < config.num_steps:
        raise OutOfTime(
            f"{budget.minutes:g} minutes are over at step {run.step:,} of {config.num_steps:,}"
        )
    return run


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
        "skipped_steps": int(skipped_steps(run.opt_state) or 0),
        "evaluated_step": evaluated_step(config, run),
    }


def evaluated(training: Training, params: Params, out: Path, processes: Processes) -> Evaluation:
    """On the test set, by all devices of the training. An error says that the run is saved all the
    same.
    """
    config = training.config
    if processes.is_first:
        print("evaluating on the test set ...", file=sys.stderr)
    try:
        return evaluate(
            training.model,
            params,
            training.dataset.test.images,
            training.evaluate_key,
            num_samples=config.eval_samples,
            transform=training.transform,
            batch_size=100,
            mesh=training.mesh,
        )
    except Exception:
        if processes.is_first:
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
    own = {"resume": True, "overwrite": False, "distributed": False, "out": config.out}
    saved = dataclasses.replace(saved_config(saved_in.parent), **own)
    config = parsed_flags(TrainConfig, arguments, prog=prog, default=saved)
    require_same_run(saved, config)
    return config
