"""What the latent space holds: how much of the KL is information about x, which latents are used,
and whether q can be believed.

    mean_n KL(q(z|x_n) || p(z)) = I(x; z) + KL(q(z) || p(z)),    q(z) = (1/N) sum_n q(z | x_n)

I is the mutual information of x and z under q, at most log N for N examples, however much the code
knows of x: a value near log N is a limit of the sample and not of the model. Reference: Hoffman &
Johnson 2016 ("ELBO surgery"); Chen et al. 2018 for the total correlation.

Closed forms are taken where there are any, else samples of q; log q(z) is over the N examples
themselves, so nothing is asked of q and the prior but their densities.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from vaejax.base.checks import Reals, require_count, require_in, require_key
from vaejax.base.mapping import Estimate, Transformed, estimate
from vaejax.base.types import Key, Params, PyTree
from vaejax.data.base import Source
from vaejax.data.shares import map_blocks
from vaejax.data.sources import read
from vaejax.distributions.averages import mean_or_average
from vaejax.evaluation.features import finite_rows
from vaejax.evaluation.kl_parts import kl_of_example, kl_parts
from vaejax.models.base import Model, posterior_of, prior_of
from vaejax.models.given import checked_data

COLLAPSED = 0.01  # nats: a latent whose mean KL is below says nothing
NEAR_LIMIT = 0.9  # of log N, from where the mutual information is the sample's


def posterior_means(
    model: Model,
    params: Params,
    xs: PyTree | Source,
    key: Key,
    *,
    transform: Callable[[Any, Key], Any] | None = None,
    batch_size: int = 100,
    mesh: Mesh | None = None,
) -> Any:
    """E_q[z | x_i] for every example, [n, *z.shape], or {name: [n, ...]} where z is a mapping; the
    mean of 100 samples where a family has no closed form for it. `mesh` as in `vaejax.evaluate`.
    """
    require_key(key)
    _, params, source = checked_data(model, params, xs, transform, mesh)
    function = Transformed(partial(posterior_mean, model), transform)
    return map_blocks(function, params, source, key, batch_size, mesh)


def posterior_mean(model: Model, params: Params, x, key: Key) -> PyTree:
    """E_q[z | x], by the mean of 100 samples where it is not known."""
    return mean_or_average(posterior_of(model, params, x), key)


def flattened(tree: PyTree) -> Float[Array, " d"]:
    """All numbers of one z in a row; those of a mapping by the order of its names."""
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def active_units(means: np.ndarray, threshold: float = 0.01) -> np.ndarray:
    """Var_x(E_q[z_j | x]) > threshold for each latent j: the units that say something about x.

    Reference: Burda, Grosse & Salakhutdinov 2016, section 5.2.
    """
    require_in(threshold, "threshold", Reals(0))
    return finite_rows(means, "means").var(axis=0) > threshold


class PosteriorCollapseWarning(UserWarning):
    """The decoder does without the latents."""


@dataclass(frozen=True)
class LatentSpace:
    """What `latent_space` reports, nats per example; None where it is not known, or not defined.

    kl                  of each latent, mean_n KL(q(z_j | x_n) || p(z_j)) [d]; q and the prior are
                        products over the latents
    rate                mean_n KL(q(z | x_n) || p(z))
    mutual_information  I(x; z) under q, of the N examples; q has a density anywhere
    information         I(x; z_j) of each latent [d]; q is a product over the latents
    marginal_kl         KL(q(z) || p(z)), the rest of the rate; there is one prior for all examples
    total_correlation   KL(q(z) || prod_j q(z_j)); q is a product over the latents
    dimension_wise      sum_j KL(q(z_j) || p(z_j)), with which the total correlation makes up
                        `marginal_kl`; q and the prior are products
    limit               log N, which the mutual information cannot exceed
    active              numbers of z whose posterior mean varies over the examples

    A latent is a number, or a one-hot vector. In a conditional model I is that of z and the whole
    example, and the prior differs with the inputs, so `marginal_kl` is None.
    """

    kl: np.ndarray | None
    rate: Estimate
    mutual_information: float | None
    information: np.ndarray | None
    marginal_kl: float | None
    total_correlation: float | None
    dimension_wise: float | None
    limit: float
    active: np.ndarray

    @property
    def near_limit(self) -> bool:
        """Whether the mutual information is as high as so few examples let it be."""
        information = self.mutual_information
        return information is not None and information > NEAR_LIMIT * self.limit

    @property
    def largest_kl(self) -> float:
        """Of a latent where each has its own, else of all together."""
        return self.rate.mean if self.kl is None else float(self.kl.max())

    @property
    def collapsed(self) -> bool:
        """Whether no latent says anything."""
        return self.largest_kl < COLLAPSED

    def __str__(self):
        near = " (near its limit: give more examples)" if self.near_limit else ""
        parts = {"total correlation": self.total_correlation, "dimension-wise": self.dimension_wise}
        split = " + ".join(f"{nats:.2f} {name}" for name, nats in parts.items() if nats is not None)
        lines = [
            f"rate KL(q(z|x) || p(z))   {self.rate} nats",
            f"mutual information        {known_nats(self.mutual_information)} of at most log N ="
            f" {self.limit:.2f}{near}",
            f"KL(q(z) || p(z))          {known_nats(self.marginal_kl)}"
            + (f" = {split}" if self.dimension_wise is not None else f"; {split}" * bool(split)),
            f"active units              {int(self.active.sum())} of {len(self.active)}",
        ]
        return "\n".join([*lines, "the posterior has collapsed"] if self.collapsed else lines)


def known_nats(number: float | None, unit: str = "") -> str:
    return "not known" if number is None else f"{number:.2f}{unit}"


def latent_space(
    model: Model,
    params: Params,
    xs: PyTree | Source,
    key: Key,
    *,
    transform: Callable[[Any, Key], Any] | None = None,
    max_examples: int = 1_000,
    mesh: Mesh | None = None,
) -> LatentSpace:
    """The rate, the KL of each latent, their parts, and the active units, over xs; the parts over
    `max_examples` of them: they take N^2 densities.

    Warns with `PosteriorCollapseWarning` where no latent has a KL of 0.01 nats. Any q and any prior
    will do; see `LatentSpace` for what needs more. `mesh` as in `vaejax.evaluate`; the parts each
    process computes alone.
    """
    require_key(key)
    require_count(max_examples, "max_examples")
    _, params, source = checked_data(model, params, xs, transform, mesh)
    function = Transformed(partial(_of_example, model), transform)
    of_examples = map_blocks(function, params, source, key, mesh=mesh)
    rows = np.asarray(jax.random.permutation(key, len(source)))[:max_examples]
    examples = _transformed(read(source, rows), transform, jax.random.fold_in(key, 1))
    parts = kl_parts(model, params, examples, jax.random.fold_in(key, 2))
    kl, information = of_examples["kl"], parts.pop("information")
    space = LatentSpace(
        kl=None if kl is None else kl.astype(np.float64).mean(axis=0),
        rate=estimate(of_examples["rate"]),
        information=None if information is None else np.asarray(information, np.float64),
        **{name: None if nats is None else float(nats) for name, nats in parts.items()},
        limit=math.log(len(rows)),
        active=active_units(of_examples["mean"]),
    )
    if space.collapsed:
        _warn_of_collapse(space)
    return space


def _of_example(model: Model, params: Params, x: PyTree, key: Key) -> dict[str, Any]:
    """KL(q(z | x) || p(z)), that of each latent or None, and E_q z."""
    q, p = posterior_of(model, params, x), prior_of(model, params, x)
    rate, kl = kl_of_example(q, p, jax.random.fold_in(key, 1))
    return {"rate": rate, "kl": kl, "mean": flattened(mean_or_average(q, key))}


def _transformed(examples: PyTree, transform: Callable | None, key: Key) -> PyTree:
    """What the model sees of stored examples [n, ...]."""
    examples = jax.tree.map(jnp.asarray, examples)
    if transform is None:
        return examples
    size = len(jax.tree.leaves(examples)[0])
    return jax.jit(jax.vmap(transform))(examples, jax.random.split(key, size))


def _warn_of_collapse(space: LatentSpace) -> None:
    warnings.warn(
        f"the posterior has collapsed: the largest KL of a latent is {space.largest_kl:.4f} nats,"
        " so q(z|x) is the prior and the decoder ignores z; try a warm-up of the KL"
        " (vaejax.WarmUp) or free bits (vaejax.FreeBits)",
        PosteriorCollapseWarning,
        stacklevel=3,
    )
