"""Several stochastic layers: the ELBO with the KL of each latent node apart, and an objective that keeps every layer in use.

    ELBO = E_q [log p(x | z) - sum_j KL_j],    KL_j = log q(z_j | Pa_q(z_j)) - log p(z_j | Pa_p(z_j)),

with z ~ q, and its expectation over z_j in closed form where there is one and neither factor hangs on what comes after z_j in the other.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from vaejax._values import by_value, value
from vaejax.divergences import kl_divergence
from vaejax.elbo import Objective, Terms, map_samples, require_count
from vaejax.estimators import reparameterised_posterior
from vaejax.graphs import DirectedGraph
from vaejax.models import GraphModel
from vaejax.schedules import Schedule, Weight, at_step, require_numbers, require_weights, scheduled
from vaejax.types import Distribution, Key, Params, PyTree, Scalar


def kl_by_node(model: GraphModel, params: Params, x: PyTree, key: Key) -> tuple[Scalar, dict[str, Scalar]]:
    """log p(x | z) and {latent node: KL_j} of one sample z ~ q(z | x), nats; the first less the sum of the others is the ELBO, unbiased.

    Summed over a data set, KL_j near zero says that layer j is not used.
    """
    require_graph_of_latents(model)
    q: Any = model.posterior(params, x)
    p = model.joint(params, x)
    values = model.assignment(x, q.sample(key))
    log_p_x = sum((p.factor(name, values).log_prob(values[name]) for name in model.observed), start=jnp.zeros(()))
    return log_p_x, {name: _kl(model, name, q.factor(name, values), p.factor(name, values), values[name]) for name in model.latents}


def _kl(model: GraphModel, name: str, q: Distribution, p: Distribution, z: PyTree) -> Scalar:
    """KL(q || p), or its one-sample estimate at z."""
    encoder: Any = model.encoder
    if not any(name in encoder.ancestors((parent,)) for parent in model.graph[name].parents if parent in model.latents):
        try:
            return kl_divergence(q, p)
        except TypeError:  # a pair without a closed form
            pass
    return q.log_prob(z) - p.log_prob(z)


def require_graph_of_latents(model: GraphModel) -> None:
    """Raises TypeError for a model whose latents have no names in q."""
    if not isinstance(getattr(model, "encoder", None), DirectedGraph) or not isinstance(model, GraphModel):
        raise TypeError(f"a KL by node is of a GraphModel whose encoder is a DirectedGraph; this is a {type(model).__name__}")


@value
class KLByNode:
    """Value: mean_k [log p(x | z_k) - sum_j KL_j(z_k)], z_k ~ q. Gradient: its total derivative.

    `AnalyticKL` of a hierarchy: unbiased for the gradient of the ELBO, with the KL in closed form node by node, given the nodes above.
    """

    num_samples: int = 1

    def __post_init__(self):
        require_count(self.num_samples, "KLByNode.num_samples")

    def __call__(self, model: GraphModel, params: Params, x: ArrayLike, key: Key) -> Scalar:
        log_p_x, kl = sampled_kl(self, model, params, x, key)
        return log_p_x - sum(kl.values(), start=jnp.zeros(()))


@value
class FreeBitsByNode:
    """mean_m log p(x_m | z_m) - beta sum_j max(nats, mean_m KL_j(x_m)), of a batch; the bound has beta = 1 and no max.

    A layer that tells less than `nats` on average pays for so many anyway, so nothing pushes it to tell less; beta, the `weight`, may be a
    schedule, such as a warm-up. `vaejax.fit(vaejax.FreeBitsByNode(model, 2.0, vaejax.WarmUp(2_000)), ...)`.
    References: Sønderby et al. 2016 (warm-up); Kingma et al. 2016 (free bits), with groups of one node.
    """

    model: GraphModel
    nats: float = 0.0
    weight: Weight = 1.0
    num_samples: int = 1

    def __post_init__(self):
        require_graph_of_latents(self.model)
        require_numbers(self, nats=self.nats)
        require_weights(self, weight=self.weight)
        require_count(self.num_samples, "FreeBitsByNode.num_samples")

    @property
    def objective(self) -> Objective:
        """The bound of one example, for validation."""
        return by_value(partial(KLByNode(self.num_samples), self.model))

    @property
    def schedules(self) -> tuple[tuple[str, Schedule], ...]:
        return scheduled(beta=self.weight)

    def __call__(self, params: Params, xs: PyTree, key: Key, step: ArrayLike | None = None) -> Terms:
        keys = jax.random.split(key, len(jax.tree.leaves(xs)[0]))
        of_each = jax.vmap(lambda x, key: sampled_kl(self, self.model, params, x, key))(xs, keys)
        log_p_x, kl = jax.tree.map(jnp.mean, of_each)
        paid = sum((jnp.maximum(of, self.nats) for of in kl.values()), start=jnp.zeros(()))
        return Terms(log_p_x - sum(kl.values(), start=jnp.zeros(())), log_p_x - at_step(self.weight, step) * paid)


def sampled_kl(owner, model: GraphModel, params: Params, x: PyTree, key: Key) -> tuple[Scalar, dict[str, Scalar]]:
    """`kl_by_node`, averaged over the owner's samples; TypeError where q has no smooth path."""
    reparameterised_posterior(owner, model, params, x)
    of_each = map_samples(partial(kl_by_node, model, params, x), jax.random.split(key, owner.num_samples))
    return jax.tree.map(jnp.mean, of_each)
