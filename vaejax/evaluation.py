"""Quantities of a trained model over a whole data set: one function of one example, mapped in bounded memory.

Example i has the key fold_in(key, i), so the batch size changes results by rounding only.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from tqdm.auto import tqdm

from vaejax._values import value
from vaejax.data import check_data, support_of
from vaejax.elbo import require_count, sample_log_weight
from vaejax.pareto import pareto_k
from vaejax.supports import ONE_HOT, Support
from vaejax.types import Key, LatentVariableModel, Model, Params, PyTree


@partial(jax.jit, static_argnames=("function", "batch_size"))
def map_dataset(function, params: Params, xs: PyTree, key: Key, batch_size: int = 100, start: ArrayLike = 0) -> PyTree:
    """[function(params, x_i, key_i) for every i], stacked: `function` is of one example, and `batch_size` run at a time.

    `xs` may be a part of a data set that starts with its example number `start`.
    """

    def one(i):
        return function(params, jax.tree.map(lambda leaf: leaf[i], xs), jax.random.fold_in(key, start + i))

    size = len(jax.tree.leaves(xs)[0])
    return jax.lax.map(one, jnp.arange(size), batch_size=min(batch_size, size))


def map_in_chunks(
    function,
    summary: Callable[[Any], dict[str, np.ndarray]],
    params: Params,
    xs: PyTree,
    key: Key,
    *,
    batch_size: int = 100,
    path: str | Path | None = None,
    progress: bool = False,
    description: str = "examples",
) -> dict[str, np.ndarray]:
    """`summary(map_dataset(function, ...))` of one chunk after another, joined: what leaves the device is a chunk's, then its summary.

    A chunk is `batch_size` examples, the last one filled up with repetitions that are dropped, so one program serves all. With `path` the
    summaries so far lie in that .npz file after every chunk, and a later call with the same arguments goes on from there. Raises
    ValueError if the file belongs to other arguments.
    """
    size = len(jax.tree.leaves(xs)[0])
    batch_size = min(batch_size, size)
    xs = jax.tree.map(np.asarray, xs)
    wanted = fingerprint(function, summary, params, xs, key) if path is not None else ""
    done = {} if path is None else _saved(Path(path), wanted)
    begin = len(next(iter(done.values()))) if done else 0
    parts = [done] if done else []
    with tqdm(total=size, initial=begin, unit=" examples", desc=description, disable=not progress, dynamic_ncols=True) as bar:
        for start in range(begin, size, batch_size):
            rows = np.minimum(np.arange(start, start + batch_size), size - 1)
            part = map_dataset(function, params, jax.tree.map(lambda leaf, rows=rows: leaf[rows], xs), key, batch_size, start)
            count = min(batch_size, size - start)
            part = summary(jax.tree.map(lambda leaf, count=count: np.asarray(leaf)[:count], part))
            parts.append(part)
            if path is not None:
                _save(Path(path), _joined(parts), wanted)
            bar.update(count)
    return _joined(parts)


def fingerprint(function, summary, params: Params, xs: PyTree, key: Key) -> str:
    """Of all that the result depends on; a function by its name, since it lies elsewhere in memory in every process."""
    digest = hashlib.sha256(re.sub(" at 0x[0-9a-f]+", "", repr((function, summary))).encode())
    for leaf in map(np.asarray, jax.tree.leaves((params, xs, jax.random.key_data(key)))):
        digest.update(f"{leaf.shape} {leaf.dtype}".encode() + np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _save(path: Path, arrays: dict[str, np.ndarray], wanted: str) -> None:
    """In one move, so that a kill leaves the old file or the new one."""
    partial_file = path.with_name(path.name + ".partial")
    members: dict[str, Any] = {**arrays, "_of": np.array(json.dumps(wanted))}  # Any, since one of savez's own keywords takes a bool
    with partial_file.open("wb") as file:
        np.savez(file, **members)
    os.replace(partial_file, path)


def _saved(path: Path, wanted: str) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    if json.loads(str(arrays.pop("_of", "null"))) != wanted:
        raise ValueError(f"{path} holds the evaluation of another model, data set, key or setting; remove it, or name another file")
    return arrays


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


RELIABLE = 0.7  # a Pareto k-hat up to which an importance-sampling estimate is to be trusted


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` reports, means over examples with standard errors; bounds in nats per example.

    elbo               E log w, from all the weights of an example
    iwae               {K: E log mean_K w}, from as many groups of K weights as there are
    log_marginal       the last of these, K = `num_samples`
    effective_samples  (sum w)^2 / sum w^2, of `num_samples`
    unreliable         the share of examples whose weights have a Pareto k-hat above 0.7; NaN below 25 samples
    active_units       latents whose posterior mean varies over the examples
    bits_per_dim       -log p(x) / (dimensions of x log 2) at `log_marginal`, for data of finitely or countably many values; else None
    by_example         the arrays behind these: elbo, iwae_K, effective_samples, k_hat [n], and the posterior means, mean [n, ...]
    """

    elbo: Estimate
    iwae: dict[int, Estimate]
    log_marginal: Estimate
    effective_samples: Estimate
    unreliable: float
    active_units: int
    bits_per_dim: Estimate | None
    num_samples: int
    by_example: dict[str, np.ndarray]

    def __str__(self):
        lines = [f"ELBO         {self.elbo} nats"]
        lines += [f"{f'IWAE-{count}':<12} {of} nats" for count, of in self.iwae.items()]
        effective = f"{self.effective_samples.mean:.1f} of {self.num_samples} samples effective"
        tail = "" if np.isnan(self.unreliable) else f", k-hat above {RELIABLE} for {self.unreliable:.1%} of the examples"
        lines.append(f"weights      {effective}{tail}")
        if self.bits_per_dim is not None:
            lines.append(f"bits per dim {self.bits_per_dim.mean:.4f} ± {self.bits_per_dim.standard_error:.4f}")
        return "\n".join([*lines, f"active units {self.active_units}"])


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
    ladder: tuple[int, ...] | None = None,
    transform: Callable[[Any, Key], Any] | None = None,
    batch_size: int = 100,
    chunk: int = 100,
    path: str | Path | None = None,
    progress: bool = False,
) -> Evaluation:
    """The ELBO, the IWAE bounds up to K = `num_samples`, how far their weights can be trusted, and the active units, over all of xs.

    All from the same weights log w_k, k = 1..num_samples, of each example; sample k of example i has the key fold_in(fold_in(key, i), k),
    so neither `batch_size` (examples at a time) nor `chunk` (samples of each at a time) changes more than rounding, and memory grows
    with their product alone.

    Args:
      ladder: the K of the IWAE bounds; None takes 1, 10, 100, ... and `num_samples`.
      transform: `transform(x, key)` is what training applied to one stored example, such as a binarisation.
      path: an .npz file that keeps what is done after each batch; the same call again goes on from there.

    References: Burda, Grosse & Salakhutdinov 2016 (the bounds); Vehtari, Simpson, Gelman, Yao & Gabry (k-hat).
    """
    check_data(xs, support_of(model), transform)
    for name, count in {"num_samples": num_samples, "batch_size": batch_size, "chunk": chunk}.items():
        require_count(count, name)
    ladder = _ladder(num_samples, ladder)
    function = Transformed(WeightsAndMean(model, num_samples, min(chunk, num_samples)), transform)
    how: Any = {"batch_size": batch_size, "path": path, "progress": progress, "description": "evaluating"}
    found = map_in_chunks(function, Summary(ladder), params, xs, key, **how)
    iwae = {count: estimate(found[f"iwae_{count}"]) for count in ladder}
    return Evaluation(
        elbo=estimate(found["elbo"]),
        iwae=iwae,
        log_marginal=iwae[num_samples],
        effective_samples=estimate(found["effective_samples"]),
        unreliable=float(np.mean(found["k_hat"] > RELIABLE)) if np.isfinite(found["k_hat"]).any() else float("nan"),
        active_units=int(active_units(found["mean"]).sum()),
        bits_per_dim=_bits_per_dim(model, xs, found[f"iwae_{num_samples}"]),
        num_samples=num_samples,
        by_example=found,
    )


def _ladder(num_samples: int, ladder: tuple[int, ...] | None) -> tuple[int, ...]:
    if ladder is None:
        ladder = tuple(10**power for power in range(len(str(num_samples))))
    for count in ladder:
        require_count(count, "ladder")
        if count > num_samples:
            raise ValueError(f"ladder has K = {count}, but num_samples = {num_samples}; raise num_samples to the largest K")
    return tuple(sorted({*ladder, num_samples}))


@value
class WeightsAndMean:
    """(params, x, key) -> (log w_k of K samples of q [K], E_q z flat), of one example; `chunk` samples at a time."""

    model: Model
    num_samples: int
    chunk: int

    def __call__(self, params: Params, x: PyTree, key: Key) -> tuple[jax.Array, jax.Array]:
        q = self.model.posterior(params, x)

        def log_weight(k):
            return sample_log_weight(self.model, params, x, q, jax.random.fold_in(key, k))

        log_w = jax.lax.map(log_weight, jnp.arange(self.num_samples), batch_size=self.chunk)
        mean = _posterior_mean(self.model, params, x, key)
        return log_w, jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(mean)])


@value
class Summary:
    """Log-weights [n, K] and means [n, d] -> what is kept of them, in float64."""

    ladder: tuple[int, ...]

    def __call__(self, part: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
        log_w, mean = part[0].astype(np.float64), part[1]
        highest = log_w.max(axis=1, keepdims=True)
        weights = np.exp(log_w - np.where(np.isfinite(highest), highest, 0))
        kept = {f"iwae_{count}": _grouped_bound(log_w, count) for count in self.ladder}
        kept["elbo"] = log_w.mean(axis=1)
        kept["effective_samples"] = weights.sum(axis=1) ** 2 / np.sum(weights**2, axis=1)
        kept["k_hat"] = np.array([pareto_k(of) for of in weights])
        return {**kept, "mean": mean}


def _grouped_bound(log_w: np.ndarray, count: int) -> np.ndarray:
    """The mean of log mean w over as many groups of `count` weights as there are, of each row."""
    groups = log_w[:, : log_w.shape[1] // count * count].reshape(len(log_w), -1, count)
    highest = groups.max(axis=2, keepdims=True)
    highest = np.where(np.isfinite(highest), highest, 0)
    with np.errstate(divide="ignore"):
        return (np.log(np.mean(np.exp(groups - highest), axis=2)) + highest[:, :, 0]).mean(axis=1)


def _bits_per_dim(model: Model, xs: PyTree, log_marginal: np.ndarray) -> Estimate | None:
    support, leaves = support_of(model), jax.tree.leaves(xs)
    if not isinstance(support, Support) or support.steps is None or support == ONE_HOT or len(leaves) > 1:
        return None
    return estimate(-log_marginal / (np.log(2) * np.asarray(leaves[0][0]).size))


def posterior_means(
    model: Model, params: Params, xs: ArrayLike, key: Key, *, transform: Callable[[Any, Key], Any] | None = None, batch_size: int = 100
) -> np.ndarray:
    """E_q[z | x_i] for every example, [n, *z.shape]; the mean of 100 samples where a family has no closed form for it."""
    function = Transformed(partial(_posterior_mean, model), transform)
    return np.asarray(map_dataset(function, params, xs, key, batch_size))


def _posterior_mean(model: Model, params: Params, x, key: Key):
    q = model.posterior(params, x)
    if hasattr(q, "mean"):
        return q.mean
    samples = jax.vmap(q.sample)(jax.random.split(key, MEAN_SAMPLES))
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), samples)


def active_units(means: np.ndarray, threshold: float = 0.01) -> np.ndarray:
    """Var_x(E_q[z_j | x]) > threshold for each latent j: the units that say something about x.

    Reference: Burda, Grosse & Salakhutdinov 2016, section 5.2.
    """
    return np.asarray(means, np.float64).var(axis=0) > threshold
