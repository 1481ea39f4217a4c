"""Quantities of a trained model over a whole data set: one function of one example, mapped in bounded memory.

Example i has the key fold_in(key, i), so the batch size changes results by rounding only.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from vaejax._values import value
from vaejax.data import check_data, support_of
from vaejax.elbo import elbo, log_marginal, require_count
from vaejax.types import Key, LatentVariableModel, Model, Params, PyTree


@partial(jax.jit, static_argnames=("function", "batch_size"))
def map_dataset(function, params: Params, xs: PyTree, key: Key, batch_size: int = 100) -> PyTree:
    """[function(params, x_i, key_i) for every i], stacked: `function` is of one example, and `batch_size` run at a time."""

    def one(i):
        return function(params, jax.tree.map(lambda leaf: leaf[i], xs), jax.random.fold_in(key, i))

    size = len(jax.tree.leaves(xs)[0])
    return jax.lax.map(one, jnp.arange(size), batch_size=min(batch_size, size))


MEAN_SAMPLES = 100


class Estimate(NamedTuple):
    """A mean over examples and its standard error, in float64."""

    mean: float
    standard_error: float

    def __str__(self):
        return f"{self.mean:.2f} ± {self.standard_error:.2f}"


def estimate(values) -> Estimate:
    """The mean over the leading axis and its standard error."""
    values = np.asarray(values, np.float64)
    spread = values.std(ddof=1) if len(values) > 1 else np.nan
    return Estimate(float(values.mean()), float(spread / np.sqrt(len(values))))


class Evaluation(NamedTuple):
    """What `evaluate` reports; the first two in nats per example."""

    elbo: Estimate
    log_marginal: Estimate
    active_units: int
    num_samples: int


@value
class Transformed:
    """`function(params, x, key)` of a stored example, which `transform(stored, key)` turns into x first (None leaves it)."""

    function: Callable[[Params, Any, Key], Any]
    transform: Callable[[Any, Key], Any] | None

    def __call__(self, params: Params, stored, key: Key):
        transform_key, key = jax.random.split(key)
        return self.function(params, stored if self.transform is None else self.transform(stored, transform_key), key)


def evaluate(
    model: LatentVariableModel,
    params: Params,
    xs: ArrayLike,
    key: Key,
    *,
    num_samples: int = 500,
    transform: Callable[[Any, Key], Any] | None = None,
    batch_size: int = 100,
) -> Evaluation:
    """The ELBO, log p(x) by K = `num_samples` importance samples (both nats per example) and the active units, over all of xs.

    `transform(x, key)` is what training applied to one stored example, such as a binarisation.
    """
    check_data(xs, support_of(model), transform)
    require_count(num_samples, "num_samples")
    bounds, marginals, means = (
        map_dataset(Transformed(partial(function, model), transform), params, xs, key, batch_size)
        for function in (elbo, partial(_log_marginal, num_samples), _posterior_mean)
    )
    return Evaluation(estimate(bounds), estimate(marginals), int(active_units(means).sum()), num_samples)


def posterior_means(
    model: Model, params: Params, xs: ArrayLike, key: Key, *, transform: Callable[[Any, Key], Any] | None = None, batch_size: int = 100
) -> np.ndarray:
    """E_q[z | x_i] for every example, [n, *z.shape]; the mean of 100 samples where a family has no closed form for it."""
    function = Transformed(partial(_posterior_mean, model), transform)
    return np.asarray(map_dataset(function, params, xs, key, batch_size))


def _log_marginal(num_samples: int, model: Model, params: Params, x, key: Key):
    return log_marginal(model, params, x, key, num_samples)


def _posterior_mean(model: Model, params: Params, x, key: Key):
    q = model.posterior(params, x)
    return q.mean if hasattr(q, "mean") else jnp.mean(jax.vmap(q.sample)(jax.random.split(key, MEAN_SAMPLES)), axis=0)


def active_units(means: np.ndarray, threshold: float = 0.01) -> np.ndarray:
    """Var_x(E_q[z_j | x]) > threshold for each latent j: the units that say something about x.

    Reference: Burda, Grosse & Salakhutdinov 2016, section 5.2.
    """
    return np.asarray(means, np.float64).var(axis=0) > threshold
