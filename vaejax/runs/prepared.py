"""All that a training is made of, checked before anything compiles or a file is touched."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import optax
from jax.sharding import Mesh

from vaejax.base.types import Key, Params
from vaejax.data.base import Dataset
from vaejax.data.check import check_data
from vaejax.data.transforms import Transform
from vaejax.models.vae import VAE
from vaejax.objectives.base import Objective, terms_of
from vaejax.runs.build import (
    build_model,
    build_objective,
    build_optimizer,
    initial_params,
    load_data,
)
from vaejax.runs.config import TrainConfig, check_config
from vaejax.runs.devices import mesh_of
from vaejax.runs.folder import require_same_data
from vaejax.runs.place import place_of, require_free
from vaejax.training.arguments import check_schedules
from vaejax.training.sharding import FullyShardedDataParallel, ShardingRule

SHARDING_RULES = {"replicated": None, "fully-sharded": FullyShardedDataParallel()}


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
    rule: ShardingRule | None
    fit_key: Key
    evaluate_key: Key
    plot_key: Key


def prepared_training(config: TrainConfig) -> Training:
    """Everything of a training but its run; raises for all that can be refused."""
    check_config(config)
    require_free(config)
    dataset, transform = load_data(config)
    if config.resume:
        require_same_data(place_of(config.out), dataset)
    params_key, *keys = jax.random.split(jax.random.key(config.seed), 4)
    model = build_model(config, dataset.train.images[0])
    objective, optimizer = build_objective(config, model), build_optimizer(config)
    _check_splits(config, model, dataset, transform)
    check_schedules(objective, config.num_steps)
    mesh, rule = _mesh(config), SHARDING_RULES[config.sharding]
    params = initial_params(config, model, dataset.train.images, transform, params_key)
    training = Training(
        config, dataset, transform, model, objective, optimizer, params, mesh, rule, *keys
    )
    _trace(training)
    return training


def _check_splits(config: TrainConfig, model: VAE, dataset: Dataset, transform: Callable) -> None:
    splits = {"train": dataset.train, "valid": dataset.valid, "test": dataset.test}
    for name, split in splits.items():
        check_data(split.images, model.support, transform, name=f"{config.data} ({name})")


def _mesh(config: TrainConfig) -> Mesh | None:
    """The devices that each batch is sharded over; None for one, unless a rule places arrays."""
    mesh = mesh_of(config.devices, config.distributed)
    if config.batch_size % mesh.size:
        raise ValueError(
            f"devices = {mesh.size}: batch_size = {config.batch_size} must divide over them"
        )
    is_one = mesh.size == 1 and config.sharding == "replicated"
    return None if is_one else mesh


def _trace(training: Training) -> None:
    """Raises what the objective refuses: an estimator that is not for this encoder."""
    objective, params, key = training.objective, training.params, training.fit_key
    stored = training.dataset.train.images[: training.config.batch_size]
    keys = jax.eval_shape(partial(jax.random.split, num=len(stored)), key)
    xs = jax.eval_shape(jax.vmap(training.transform), stored, keys)
    jax.eval_shape(partial(terms_of, objective), params, xs, key, 0)
    x = jax.eval_shape(training.transform, stored[0], key)
    jax.eval_shape(objective.bound, params, x, key)
