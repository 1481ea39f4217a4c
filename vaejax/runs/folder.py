"""A run's folder: config.json, metrics.jsonl, checkpoints/, result.json and pictures."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from vaejax.base.checks import unknown_name
from vaejax.base.compare import differences, told
from vaejax.base.describe import description
from vaejax.base.types import Params
from vaejax.data.base import Dataset
from vaejax.data.sources import digest_of_data
from vaejax.data.transforms import Transform
from vaejax.models.vae import VAE
from vaejax.runs.config import TrainConfig
from vaejax.runs.continuation import RUN_RECORD, saved_config, saved_fields
from vaejax.runs.files import read_json
from vaejax.runs.place import expanded
from vaejax.training.averages import averaged_params
from vaejax.training.checkpoints import CheckpointMismatchError
from vaejax.training.run import Run
from vaejax.training.saving import saved_runs

Which = Literal["last", "best"]


@dataclass(frozen=True)
class OpenRun:
    """A run that was read from its folder: `vaejax.open_run`.

    params       those that the run itself evaluates, or those that were asked for
    step         of the newest checkpoint
    history      of the whole run: `bound`, `objective` [step], and the validations
    dataset      as it is stored; `transform` makes an example of a stored image
    checkpoints  {step: the run at that step}, of the checkpoints that were kept
    """

    folder: Path
    config: TrainConfig
    model: VAE
    params: Params
    dataset: Dataset
    transform: Transform
    checkpoints: Mapping[int, Run]

    def __repr__(self) -> str:
        """Without its arrays, which fill screens."""
        return f"OpenRun({str(self.folder)!r}, step={self.step}, model={self.model!r})"

    @property
    def step(self) -> int:
        return max(self.checkpoints)

    @property
    def history(self) -> dict[str, np.ndarray]:
        return self.checkpoints[self.step].history

    def params_at(self, point: Which | int) -> Params:
        """The parameters of the last step, of the best validation, or of a checkpoint's step."""
        if point == "last":
            return self.checkpoints[self.step].params
        if point == "best":
            best = best_params(self.checkpoints[self.step])
            if best is None:
                raise ValueError(f"{self.folder} has no validation yet, so no best; take the last")
            return best
        if isinstance(point, str):
            raise ValueError(unknown_name("parameters", point, list(get_args(Which))))
        if point not in self.checkpoints:
            steps = ", ".join(map(str, sorted(self.checkpoints)))
            raise ValueError(f"{self.folder} holds the steps {steps}, and not {point}")
        return self.checkpoints[point].params


def open_run(
    folder: str | Path, params: Which | int | None = None, *, data_folder: str | None = None
) -> OpenRun:
    """The run in a folder: its configuration, model, parameters, history and data.

    `open_run("runs/vamp").params` are the parameters that the run itself evaluates: those of the
    best validation where it had a patience, else the last. `params="best"`, `params="last"` or
    `params=4_000`, a step that was kept, takes others. `data_folder` says where the data lie now;
    else the configuration does. Nothing in the folder changes. Raises ValueError for a folder that
    holds no run or no checkpoint, for data that it was not trained on, and where this vaejax makes
    another model of the configuration than the run had.
    """
    # Here, since it brings all the names of models, which `import vaejax` need not wait for.
    from vaejax.runs.build import build_model, build_objective, build_optimizer, load_data

    folder = expanded(folder, "run")
    config = saved_config(folder)
    if data_folder is not None:
        config = replace(config, data_folder=data_folder)
    dataset, transform = load_data(config)
    images = dataset.train.images
    model = build_model(config, images[0])
    facts = read_json(folder / "config.json", *RUN_RECORD)
    require_same_data(folder, dataset)
    _require_described(folder, facts, {"model": model, "transform": transform})
    if not (folder / "checkpoints").is_dir():
        raise ValueError(f"{folder} holds no checkpoint; train it further with --resume")
    try:
        runs = saved_runs(
            folder / "checkpoints",
            build_objective(config, model),
            _zeros_like_params(model, transform, images[0]),
            build_optimizer(config),
            transform=transform,
            validated=True,
            data=images,
            config={name: part for name, part in saved_fields(config).items() if name != "data"},
        )
    except CheckpointMismatchError as error:
        if error.parts != ("data",):
            raise
        raise ValueError(_other_data(folder, facts, dataset, ["train"])) from None
    if not runs:
        raise ValueError(f"{folder} holds no checkpoint; train it further with --resume")
    evaluated = evaluated_params(config, runs[max(runs)])
    run = OpenRun(folder, config, model, evaluated, dataset, transform, runs)
    return run if params is None else replace(run, params=run.params_at(params))


def _zeros_like_params(model: VAE, transform: Transform, image: np.ndarray) -> Params:
    """Of the shapes that the model's `init` makes; by one program, where each shape would be
    one.
    """
    key = jax.eval_shape(jax.random.key, 0)
    shapes = jax.eval_shape(lambda key: model.init(key, transform(image, key)), key)
    return jax.jit(lambda: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes))()


def digests_of(dataset: Dataset) -> dict[str, str]:
    """{split: digest of its images}: a run's numbers are of all three."""
    splits = {"train": dataset.train, "valid": dataset.valid, "test": dataset.test}
    return {name: digest_of_data(split.images) for name, split in splits.items()}


def require_same_data(folder: Path, dataset: Dataset) -> None:
    """Raises ValueError where the run was trained, validated or tested on other images than these;
    the revision before said nothing of them.
    """
    facts = read_json(folder / "config.json", *RUN_RECORD)
    now = digests_of(dataset)
    saved = facts.get("images", now)
    other = [name for name in now if not isinstance(saved, dict) or saved.get(name) != now[name]]
    if other:
        raise ValueError(_other_data(folder, facts, dataset, other))


def _other_data(folder: Path, facts: Mapping, dataset: Dataset, splits: list[str]) -> str:
    return (
        f"{dataset.name} from {dataset.source}: the {' and '.join(splits)} images are not those of"
        f" {folder}, which were from {facts['data']}; say by --data-folder (data_folder=) where"
        " those lie"
    )


def _require_described(folder: Path, facts: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Raises ValueError where a part is not what config.json says of it; the revision before said
    nothing.
    """
    known = {name: part for name, part in parts.items() if name in facts}
    saved = {name: facts[name] for name in known}
    lines = differences(saved, {name: description(part) for name, part in known.items()})
    if lines:
        raise ValueError(
            f"{folder} is a run of another model than its configuration gives here:"
            f" {told(lines)}; use the vaejax that made it"
        )


def evaluated_params(config: TrainConfig, run: Run) -> Params:
    """Those that a run evaluates: of the best validation where it has a patience, else the last, or
    their average.
    """
    best = best_params(run) if config.patience else None
    if best is not None:
        return best
    return run.params if config.average is None else averaged_params(run)


def evaluated_step(config: TrainConfig, run: Run) -> int:
    """The step of the parameters that a run evaluates."""
    steps, bounds = run.history["validation_step"], run.history["validation_bound"]
    return int(steps[bounds.argmax()]) if config.patience and len(steps) else run.step


def best_params(run: Run) -> Params | None:
    """Those of the best validation; None before the first."""
    return run.best_params if len(run.history["validation_step"]) else None
