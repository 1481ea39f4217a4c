"""The nets of Burda, Grosse & Salakhutdinov 2016, as their code has them: tanh, Glorot's uniform
weights, and an output that starts at the mean image.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vaejax.base.types import Key, PyTree


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
    last = max(path for path in flat if path[-1] == "bias")
    mean = np.clip(images.mean(axis=0, dtype=np.float64) / maximum, 0.001, 0.999).ravel()
    bias = jnp.asarray(np.log(mean / (1 - mean)), flat[last].dtype)
    return unflatten_dict({**flat, last: bias})
