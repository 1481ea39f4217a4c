"""The nets of Burda, Grosse & Salakhutdinov 2016, as their code has them: tanh, Glorot's uniform
weights, and an output that starts at the mean image; and the rows of MNIST on such nets.
"""

import dataclasses
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

import vaejax
from experiments.lib.reproduction import Goal, Within
from experiments.lib.trained_row import TrainedRow, Training
from experiments.lib.training import cosine_adam
from experiments.lib.work import Work
from vaejax.base.types import Key, PyTree

SHAPE = (28, 28)
VALID = 400
NEAR, NOT_FAR = Within(0.5), Within(0.7)

normal = partial(vaejax.DiagNormal, max_log_scale=None)


def iwae(samples: int) -> vaejax.Estimator:
    return vaejax.Pathwise(samples, vaejax.iwae_bound)


def glorot_uniform(params: PyTree, key: Key, heads: int = 1) -> PyTree:
    """The parameters of a net of dense layers with weights of U(-a, a), a = sqrt(6 / (in + out)),
    and biases 0. The last layer's columns are those of `heads` layers side by side.
    """
    flat: dict[Any, Any] = flatten_dict(params)
    kernels = [path for path in sorted(flat) if path[-1] == "kernel"]
    redrawn = {path: jnp.zeros_like(leaf) for path, leaf in flat.items()}
    for path, layer_key in zip(kernels, jax.random.split(key, len(kernels)), strict=True):
        rows, columns = flat[path].shape
        width = columns // heads if path == kernels[-1] else columns
        limit = math.sqrt(6 / (rows + width))
        redrawn[path] = jax.random.uniform(layer_key, (rows, columns), minval=-limit, maxval=limit)
    return unflatten_dict(redrawn)


def with_mean_image(params: PyTree, images: np.ndarray, maximum: float) -> PyTree:
    """The decoder's parameters with the output bias logit(mean image), the mean within [.001,
    .999].
    """
    flat: dict[Any, Any] = flatten_dict(params)
    last = (*max(path for path in flat if path[-1] == "kernel")[:-1], "bias")  # norms have none
    mean = np.clip(images.mean(axis=0, dtype=np.float64) / maximum, 0.001, 0.999).ravel()
    bias = jnp.asarray(np.log(mean / (1 - mean)), flat[last].dtype)
    return unflatten_dict({**flat, last: bias})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mnist(TrainedRow):
    """A model of dynamically binarised MNIST under one estimator."""

    estimator: vaejax.Estimator
    num_steps: int
    batch_size: int = 100
    learning_rate: float = 1e-3
    reached: Goal | None = NEAR

    def model(self) -> vaejax.Model:
        raise NotImplementedError(f"{type(self).__name__}.model")

    def start(self, model: vaejax.Model, images: np.ndarray, key) -> vaejax.Params:
        """The parameters before the first step: Glorot's weights, and the mean image."""
        raise NotImplementedError(f"{type(self).__name__}.start")

    def data(self, work: Work) -> tuple[vaejax.Dataset, vaejax.Transform]:
        return vaejax.prepare_pixels(work.dataset("mnist", valid=VALID), "dynamic")

    def training(self, work, seed):
        dataset, transform = self.data(work)
        model, images = self.model(), dataset.train.images
        init_key, fit_key = jax.random.split(jax.random.key(seed))
        steps = work.steps(self.num_steps)
        return Training(
            vaejax.minibatch(self.estimator, model),
            self.start(model, images, init_key),
            cosine_adam(self.learning_rate, steps),
            images,
            fit_key,
            steps,
            self.batch_size,
            transform,
        )

    def evaluated(self, work, params):
        dataset, transform = self.data(work)
        return work.evaluation(self.model(), params, dataset.test.images, transform)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneLayer(Mnist):
    """x - 200 - 200 - z [50] - 200 - 200 - x."""

    def model(self):
        return vaejax.VAE(
            vaejax.StandardNormal(50),
            vaejax.Bernoulli(vaejax.MLP(SHAPE)),
            normal(vaejax.MLP(50, heads=2)),
        )

    def start(self, model, images, key):
        decoder_key, encoder_key, init_key = jax.random.split(key, 3)
        params = model.init(init_key, jnp.zeros(SHAPE))
        decoder = glorot_uniform(params.theta["likelihood"], decoder_key)
        theta = {**params.theta, "likelihood": with_mean_image(decoder, images, 255)}
        return params._replace(theta=theta, phi=glorot_uniform(params.phi, encoder_key, heads=2))
