"""How a configuration becomes data, a model, an objective, an optimiser and parameters."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vaejax.base.types import Key, Params
from vaejax.data.base import Dataset
from vaejax.data.check import check_data
from vaejax.data.load import load_dataset
from vaejax.data.pixels import prepare_pixels
from vaejax.data.transforms import Transform
from vaejax.models.base import Conditional, Factor
from vaejax.models.priors import VampPrior
from vaejax.models.vae import VAE
from vaejax.objectives.base import Objective, minibatch
from vaejax.objectives.beta import Beta
from vaejax.objectives.schedules import WarmUp
from vaejax.runs.config import DataSetting, Setting, TrainConfig, require_examples, training_config
from vaejax.runs.named_estimators import named_estimator
from vaejax.runs.names import named
from vaejax.runs.registry import ENCODERS, LIKELIHOODS, PRIORS
from vaejax.training.averages import Averaged
from vaejax.training.fit import fit
from vaejax.training.skipping import SkipSteps


def load_data(setting: DataSetting) -> tuple[Dataset, Transform]:
    """The data set of a setting, and what makes an example of a stored image.

    Raises ValueError where it has fewer examples than the setting asks for.
    """
    stored = load_dataset(
        setting.data,
        setting.data_folder,
        maximum=setting.maximum,
        valid=setting.validation,
        test=setting.test,
        seed=setting.split_seed,
        label=setting.label,
    )
    require_examples(setting, stored)
    return prepare_pixels(stored, setting.binarisation, seed=setting.seed)


def build_model(config: TrainConfig, x: np.ndarray) -> VAE:
    """The model of a configuration, for examples like x.

    Raises ValueError for parts that do not fit each other or x, by their shapes alone.
    """
    model = VAE(build_prior(config), build_likelihood(config, x.shape), build_encoder(config))
    key = jax.eval_shape(partial(jax.random.key, 0))
    jax.eval_shape(model.init, key, jax.ShapeDtypeStruct(x.shape, jnp.float32))
    return model


def build_prior(config: TrainConfig) -> Factor:
    return named("prior", config.prior, PRIORS, config)


def build_likelihood(setting: Setting, shape: tuple[int, ...]) -> Conditional:
    return named("likelihood", setting.likelihood, LIKELIHOODS, setting, shape)


def build_encoder(setting: Setting) -> Conditional:
    return named("encoder", setting.encoder, ENCODERS, setting)


def build_objective(config: TrainConfig, model: VAE) -> Objective:
    """The mean bound of a batch under the configuration's estimator."""
    estimator = named_estimator(config.estimator, config.num_samples)
    if config.warm_up:
        config.check_together()  # a warm-up is for pathwise alone
        estimator = Beta(WarmUp(config.warm_up), config.num_samples)
    return minibatch(estimator, model)


def learning_rate_of(config: TrainConfig) -> Any:
    """A number, or a schedule."""
    if config.schedule == "cosine":
        return optax.cosine_decay_schedule(config.learning_rate, config.num_steps)
    return config.learning_rate


def build_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """Adam, with the configuration's schedule, clipping, average and skipping."""
    optimizer: Any = optax.adam(learning_rate_of(config))
    if config.clip_norm is not None:
        optimizer = optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer)
    if config.average is not None:
        optimizer = Averaged(optimizer, config.average)
    if config.skip_above is not None:
        optimizer = SkipSteps(optimizer, config.skip_above)
    return optimizer


def initial_params(
    config: TrainConfig, model: VAE, images: np.ndarray, transform: Callable, key: Key
) -> Params:
    """`model.init`, with training examples as the pseudo-inputs of a VampPrior."""
    init_key, rows_key, pixels_key = jax.random.split(key, 3)
    x = jax.jit(transform)(images[0], pixels_key)
    params = _started(model, init_key, x)
    if isinstance(model.prior, VampPrior):
        count = model.prior.num_components
        rows = np.asarray(jax.random.choice(rows_key, len(images), (count,), replace=False))
        keys = jax.random.split(pixels_key, count)
        params.theta["prior"] = jax.jit(jax.vmap(transform))(images[rows], keys)
    return params


@partial(jax.jit, static_argnums=0)  # equal models, as of a sweep's seeds, are compiled once
def _started(model: VAE, key: Key, x: jax.Array) -> Params:
    return model.init(key, x)


def trained(
    setting: Setting, images: np.ndarray, transform: Callable, num_steps: int, **changes: Any
) -> tuple[VAE, Params]:
    """The model of a setting, and its parameters after so many steps on these images."""
    config = training_config(setting, num_steps=num_steps, **changes)
    model = build_model(config, images[0])
    check_data(images, model.support, transform, name=setting.data)
    init_key, fit_key = jax.random.split(jax.random.key(setting.seed))
    start = initial_params(config, model, images, transform, init_key)
    run = fit(
        build_objective(config, model),
        start,
        build_optimizer(config),
        images,
        fit_key,
        num_steps=num_steps,
        batch_size=setting.batch_size,
        transform=transform,
    )
    return model, run.params
