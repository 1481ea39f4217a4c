"""What the latent space holds: how much of the KL is information about x, which latents are used,
and whether q can be believed.

    mean_n KL(q(z|x_n) || p(z)) = I(x; z) + KL(q(z) || p(z)),    q(z) = (1/N) sum_n q(z | x_n)

I is the mutual information of x and z under q, at most log N for N examples, however much the code
knows of x: a value near log N is a limit of the sample and not of the model. Reference: Hoffman &
Johnson 2016 ("ELBO surgery"); Chen et al. 2018 for the total correlation.
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
from jaxtyping import Array, Float

from vaejax.base.checks import require_count
from vaejax.base.mapping import Estimate, Transformed, estimate
from vaejax.base.types import Key, Params, PyTree
from vaejax.data.base import Source
from vaejax.data.check import check_data
from vaejax.data.sources import as_source, map_blocks, read
from vaejax.distributions.base import NotKnownError
from vaejax.distributions.kl import kl_per_dimension
from vaejax.evaluation.features import finite_rows
from vaejax.models.base import Model, posterior_of, prior_of
from vaejax.objectives.free_bits import require_diagonal
from vaejax.objectives.total_correlation import kl_decomposition, require_one_prior

MEAN_SAMPLES = 100  # where E_q z has no closed form
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
) -> Any:
    """E_q[z | x_i] for every example, [n, *z.shape], or {name: [n, ...]} where z is a mapping; the
    mean of 100 samples where a family has no closed form for it.
    """
    source = as_source(xs)
    check_data(source, model.support, transform)
    function = Transformed(partial(posterior_mean, model), transform)
    return map_blocks(function, params, source, key, batch_size)


def posterior_mean(model: Model, params: Params, x, key: Key) -> PyTree:
    """E_q[z | x], by the mean of 100 samples where it is not known."""
    q = posterior_of(model, params, x)
    try:
        return q.mean()
    except NotKnownError:
        samples = jax.vmap(q.sample)(jax.random.split(key, MEAN_SAMPLES))
        return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), samples)


def flattened(tree: PyTree) -> Float[Array, " d"]:
    """All numbers of one z in a row; those of a mapping by the order of its names."""
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def active_units(means: np.ndarray, threshold: float = 0.01) -> np.ndarray:
    """Var_x(E_q[z_j | x]) > threshold for each latent j: the units that say something about x.

    Reference: Burda, Grosse & Salakhutdinov 2016, section 5.2.
    """
    if not 0 <= threshold < math.inf:
        raise ValueError(f"threshold = {threshold!r}; it must be a number, at least 0")
    return finite_rows(means, "means").var(axis=0) > threshold


class PosteriorCollapseWarning(UserWarning):
    """The decoder does without the latents."""


@dataclass(frozen=True)
class LatentSpace:
    """What `latent_space` reports, nats per example.

    kl                  of each latent, mean_n KL(q(z_j | x_n) || p(z_j)) [d]; their sum is `rate`
    mutual_information  I(x; z) under q, of the N examples
    marginal_kl         KL(q(z) || p(z)), the rest of the rate: total correlation + dimension-wise
                        KL
    limit               log N, which the mutual information cannot exceed
    active              latents whose posterior mean varies over the examples [d]
    """

    kl: np.ndarray
    rate: Estimate
    mutual_information: float
    total_correlation: float
    dimension_wise: float
    limit: float
    active: np.ndarray

    @property
    def marginal_kl(self) -> float:
        return self.total_correlation + self.dimension_wise

    @property
    def near_limit(self) -> bool:
        """Whether the mutual information is as high as so few examples let it be."""
        return self.mutual_information > NEAR_LIMIT * self.limit

    @property
    def collapsed(self) -> bool:
        """Whether no latent says anything."""
        return bool(np.all(self.kl < COLLAPSED))

    def __str__(self):
        near = " (near its limit: give more examples)" if self.near_limit else ""
        parts = (
            f"{self.total_correlation:.2f} total correlation + {self.dimension_wise:.2f}"
            " dimension-wise"
        )
        lines = [
            f"rate KL(q(z|x) || p(z))   {self.rate} nats",
            f"mutual information        {self.mutual_information:.2f} of at most log N ="
            f" {self.limit:.2f}{near}",
            f"KL(q(z) || p(z))          {self.marginal_kl:.2f} = {parts}",
            f"active units              {int(self.active.sum())} of {len(self.kl)}",
        ]
        return "\n".join([*lines, "the posterior has collapsed"] if self.collapsed else lines)


def latent_space(
    model: Model,
    params: Params,
    xs: PyTree | Source,
    key: Key,
    *,
    transform: Callable[[Any, Key], Any] | None = None,
    max_examples: int = 1_000,
) -> LatentSpace:
    """The KL of each latent, its parts, and the active units, over xs; the parts over
    `max_examples` of them: they take N^2 densities.

    Warns with `PosteriorCollapseWarning` where no latent has a KL of 0.01 nats. Needs diagonal
    normals for q and the prior, and one prior for all examples: no inputs.
    """
    require_count(max_examples, "max_examples")
    require_one_prior("latent_space", model)
    source = as_source(xs)
    check_data(source, model.support, transform)
    function = Transformed(partial(_kl_and_mean, model), transform)
    kl, means = map_blocks(function, params, source, key)
    kl = kl.astype(np.float64)
    rows = np.asarray(jax.random.permutation(key, len(source)))[:max_examples]
    examples = _transformed(read(source, rows), transform, jax.random.fold_in(key, 1))
    decomposition = jax.jit(kl_decomposition, static_argnums=0)
    parts = decomposition(model, params, examples, jax.random.fold_in(key, 2))
    space = LatentSpace(
        kl.mean(axis=0),
        estimate(kl.sum(axis=1)),
        *map(float, parts),
        limit=math.log(len(rows)),
        active=active_units(means),
    )
    if space.collapsed:
        _warn_of_collapse(space)
    return space


def _transformed(examples: PyTree, transform: Callable | None, key: Key) -> PyTree:
    """What the model sees of stored examples [n, ...]."""
    examples = jax.tree.map(jnp.asarray, examples)
    if transform is None:
        return examples
    size = len(jax.tree.leaves(examples)[0])
    return jax.jit(jax.vmap(transform))(examples, jax.random.split(key, size))


def _warn_of_collapse(space: LatentSpace) -> None:
    warnings.warn(
        f"the posterior has collapsed: the largest KL of a latent is {space.kl.max():.4f} nats,"
        " so q(z|x) is the prior and the decoder ignores z; try a warm-up of the KL"
        " (vaejax.WarmUp) or free bits (vaejax.FreeBits)",
        PosteriorCollapseWarning,
        stacklevel=3,
    )


def _kl_and_mean(
    model: Model, params: Params, x: PyTree, key: Key
) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
    """(KL(q(z_j | x) || p(z_j)), E_q z_j) of each latent j."""
    densities = posterior_of(model, params, x), prior_of(model, params, x)
    q, p = require_diagonal("latent_space", *densities)
    return jnp.ravel(kl_per_dimension(q, p)), jnp.ravel(q.loc)
