"""The bounds of a trained model over a whole data set, and how far to trust them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from vaejax.base.asserts import assert_rank
from vaejax.base.checks import require_count, require_key
from vaejax.base.mapping import Estimate, Transformed, estimate
from vaejax.base.types import Key, Params, PyTree
from vaejax.base.values import component
from vaejax.bounds import sample_log_weight
from vaejax.data.base import Source
from vaejax.data.shares import MappedSource
from vaejax.data.transforms import countable_dimensions
from vaejax.evaluation.chunks import map_in_chunks
from vaejax.evaluation.latents import active_units, flattened, posterior_mean
from vaejax.evaluation.pareto import FEWEST_VALUES, pareto_k
from vaejax.models.base import Model, posterior_of
from vaejax.models.given import checked_data

RELIABLE = 0.7  # a Pareto k-hat up to which an importance-sampling estimate is to be trusted


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` reports, means over examples with standard errors; bounds in nats per
    example.

    elbo               E log w, from all the weights of an example
    iwae               {K: E log mean_K w}, from as many groups of K weights as there are
    log_marginal       the last of these, K = `num_samples`
    effective_samples  (sum w)^2 / sum w^2, of `num_samples`
    unreliable         the share of examples whose weights have no Pareto k-hat up to 0.7: it is
                       above, or NaN, since a weight is NaN or all are 0; NaN below 25 samples
    active_units       latents whose posterior mean varies over the examples; NaN where one is
                       not finite
    bits_per_dim       -log p(x) / (dimensions of x log 2) at `log_marginal`, for data of finitely
                       or countably many values; else None
    by_example         the arrays behind these: elbo, iwae_K, effective_samples, k_hat [n], and the
                       posterior means, mean [n, ...]
    """

    elbo: Estimate
    iwae: dict[int, Estimate]
    log_marginal: Estimate
    effective_samples: Estimate
    unreliable: float
    active_units: float
    bits_per_dim: Estimate | None
    num_samples: int
    by_example: dict[str, np.ndarray]

    def __str__(self):
        lines = [f"ELBO         {self.elbo} nats"]
        lines += [f"{f'IWAE-{count}':<12} {bound} nats" for count, bound in self.iwae.items()]
        lines.append(self._weights_line())
        if self.bits_per_dim is not None:
            mean, error = self.bits_per_dim
            lines.append(f"bits per dim {mean:.4f} ± {error:.4f}")
        return "\n".join([*lines, f"active units {self.active_units}"])

    def _weights_line(self) -> str:
        effective = f"{self.effective_samples.mean:.1f} of {self.num_samples} samples effective"
        if np.isnan(self.unreliable):
            return f"weights      {effective}"
        share = f"k-hat above {RELIABLE} or undefined for {self.unreliable:.1%} of the examples"
        return f"weights      {effective}, {share}"


def evaluate(
    model: Model,
    params: Params,
    xs: PyTree | Source,
    key: Key,
    *,
    num_samples: int = 500,
    ladder: tuple[int, ...] | None = None,
    transform: Callable[[Any, Key], Any] | None = None,
    batch_size: int = 100,
    chunk: int = 100,
    path: str | Path | None = None,
    mesh: Mesh | None = None,
    progress: bool = False,
) -> Evaluation:
    """The ELBO, the IWAE bounds up to K = `num_samples`, how far their weights can be trusted, and
    the active units, over all of xs.

    All from the same weights log w_k, k = 1..num_samples, of each example; sample k of example i
    has the key fold_in(fold_in(key, i), k), so neither `batch_size` (examples at a time) nor
    `chunk` (samples of each at a time) changes more than rounding, and memory grows with their
    product alone. xs are arrays or a `vaejax.Source`, read a batch at a time.

    Args:
      ladder: the K of the IWAE bounds; None takes 1, 10, 100, ... and `num_samples`.
      transform: `transform(x, key)` is what training applied to one stored example, such as a
        binarisation.
      path: a file that keeps what is done after each batch; the same call again, with any
        `batch_size` and `chunk`, computes what is not there, or is damaged. A file of other
        arguments raises a ValueError that names them.
      mesh: the batches are shared out over its axis "data", `batch_size` examples at a time on each
        device, to the same bits. Where its devices are those of all processes of a job, all of
        them call; each reads and computes its own batches, the first writes the file, and all have
        the result.

    References: Burda, Grosse & Salakhutdinov 2016 (the bounds); Vehtari, Simpson, Gelman, Yao &
    Gabry (k-hat).
    """
    require_key(key)
    counts = {"num_samples": num_samples, "batch_size": batch_size, "chunk": chunk}
    for name, count in counts.items():
        require_count(count, name)
    ladder = _ladder(num_samples, ladder)
    example, params, source = checked_data(model, params, xs, transform, mesh)
    dimensions = countable_dimensions(model.observation(example), model.support)
    weights = WeightsAndMean(model, num_samples, min(chunk, num_samples))
    by_example = map_in_chunks(
        MappedSource(Transformed(weights, transform), params, source, key),
        Summary(ladder),
        batch_size=batch_size,
        path=path,
        mesh=mesh,
        progress=progress,
        description="evaluating",
        # A file goes on with another chunk, as on a machine with more memory.
        same_as=Transformed(replace(weights, chunk=num_samples), transform),
    )
    iwae = {count: estimate(by_example[f"iwae_{count}"]) for count in ladder}
    log_marginal = by_example[f"iwae_{num_samples}"]
    bits = None if dimensions is None else estimate(-log_marginal / (np.log(2) * dimensions))
    return Evaluation(
        elbo=estimate(by_example["elbo"]),
        iwae=iwae,
        log_marginal=iwae[num_samples],
        effective_samples=estimate(by_example["effective_samples"]),
        unreliable=_unreliable(by_example["k_hat"], num_samples),
        active_units=_num_active(by_example["mean"]),
        bits_per_dim=bits,
        num_samples=num_samples,
        by_example=by_example,
    )


def _unreliable(k_hat: np.ndarray, num_samples: int) -> float:
    """The share of examples whose weights are not to be trusted; NaN with too few for a fit."""
    if num_samples < FEWEST_VALUES:
        return math.nan
    return float(np.mean(~(k_hat <= RELIABLE)))  # of NaN nothing is known


def _num_active(means: np.ndarray) -> float:
    return int(active_units(means).sum()) if np.isfinite(means).all() else math.nan


def _ladder(num_samples: int, ladder: tuple[int, ...] | None) -> tuple[int, ...]:
    if ladder is None:
        ladder = tuple(10**power for power in range(len(str(num_samples))))
    for count in ladder:
        require_count(count, "ladder")
        if count > num_samples:
            raise ValueError(
                f"ladder has K = {count}, but num_samples = {num_samples}; raise num_samples to the"
                " largest K"
            )
    return tuple(sorted({*ladder, num_samples}))


@component
class WeightsAndMean:
    """(params, x, key) -> (log w_k of K samples of q [K], E_q z flat), of one example; `chunk`
    samples at a time.
    """

    model: Model
    num_samples: int
    chunk: int

    def __call__(
        self, params: Params, x: PyTree, key: Key
    ) -> tuple[Float[Array, " k"], Float[Array, " d"]]:
        q = posterior_of(self.model, params, x)

        def log_weight(k):
            return sample_log_weight(self.model, params, x, q, jax.random.fold_in(key, k))

        log_w = jax.lax.map(log_weight, jnp.arange(self.num_samples), batch_size=self.chunk)
        return log_w, flattened(posterior_mean(self.model, params, x, key))


@component
class Summary:
    """Log-weights [n, K] and means [n, d] -> what is kept of them, in float64."""

    ladder: tuple[int, ...]

    def __call__(self, part: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
        log_w, mean = part[0].astype(np.float64), part[1]
        assert_rank([log_w, mean], 2)
        # log 0 is -inf, and what is NaN stays NaN.
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            kept = {f"iwae_{count}": _grouped_bound(log_w, count) for count in self.ladder}
            kept["elbo"] = log_w.mean(axis=1)
            kept["effective_samples"] = _effective_samples(log_w)
        kept["k_hat"] = np.array([pareto_k(row) for row in log_w])
        return {**kept, "mean": mean}


def _finite_max(log_w: np.ndarray, axis: int) -> np.ndarray:
    """The largest along an axis, which stays with length 1; 0 where that is not finite."""
    highest = log_w.max(axis=axis, keepdims=True)
    return np.where(np.isfinite(highest), highest, 0)


def _effective_samples(log_w: np.ndarray) -> np.ndarray:
    """(sum w)^2 / sum w^2 of each row: 0 where all weights are 0, NaN where one is NaN or inf."""
    # w / max w: a constant factor does not change it
    weights = np.exp(log_w - _finite_max(log_w, axis=1))
    total, squares = weights.sum(axis=1), np.sum(weights**2, axis=1)
    return np.where(squares == 0, 0, total**2 / squares)


def _grouped_bound(log_w: np.ndarray, count: int) -> np.ndarray:
    """The mean of log mean w over as many groups of `count` weights as there are, of each row."""
    groups = log_w[:, : log_w.shape[1] // count * count].reshape(len(log_w), -1, count)
    highest = _finite_max(groups, axis=2)
    # log mean w = log mean (w / max w) + log max w
    bounds = np.log(np.mean(np.exp(groups - highest), axis=2)) + highest[:, :, 0]
    return bounds.mean(axis=1)
