"""Free bits: a latent, or a layer, that tells little pays for a little anyway."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from vaejax.base.checks import require_count, require_kind, require_numbers
from vaejax.base.mapping import map_samples
from vaejax.base.types import Key, Params, PyTree, Scalar, Terms
from vaejax.base.values import component
from vaejax.bounds import sample_posterior
from vaejax.data.mapping import map_batch
from vaejax.distributions.base import Distribution, NotKnownError
from vaejax.distributions.kl import kl_per_dimension
from vaejax.distributions.normal import DiagNormalDensity
from vaejax.estimators.base import require_reparameterised
from vaejax.estimators.by_node import KLByNode, require_named_latents, sampled_kl
from vaejax.estimators.pathwise import AnalyticKL
from vaejax.models.base import Model, posterior_of, prior_of
from vaejax.models.graph_model import GraphModel
from vaejax.networks.stochastic import draw_nets
from vaejax.objectives.base import Objective
from vaejax.objectives.schedules import Schedule, Weight, at_step, require_weights, scheduled


@component
class FreeBits(Objective):
    """mean_m log p(x_m | z_m) - sum_j max(nats, mean_m KL(q(z_j | x_m) || p(z_j))), of a batch; the
    bound has no max.

    A latent that tells less than `nats` on average pays for so many anyway, so nothing pushes it to
    tell less. The KL is in closed form: q and the prior are diagonal normals.
    `vaejax.fit(vaejax.FreeBits(model, 0.1), ...)`.
    Reference: Kingma et al. 2016, with groups of one latent.
    """

    model: Model
    nats: float
    num_samples: int = 1
    schedules = ()
    scale = 1

    def __post_init__(self):
        require_kind(self.model, Model, "FreeBits.model")
        require_numbers(self, nats=self.nats)
        require_count(self.num_samples, "FreeBits.num_samples")

    def __call__(self, params: Params, xs: PyTree, key: Key, step: ArrayLike) -> Terms:
        model = self.model

        def parts(x, key):
            drawn, key = draw_nets(params, key)
            prior = prior_of(model, drawn, x)
            q, p = require_diagonal("FreeBits", posterior_of(model, drawn, x), prior)
            zs = sample_posterior(q, key, self.num_samples)
            log_p_x = map_samples(lambda z: model.log_likelihood(drawn, x, z), zs)
            return jnp.mean(log_p_x), kl_per_dimension(q, p)

        log_p_x, kl = map_batch(parts, model.support, xs, key)
        log_p_x, kl = jnp.mean(log_p_x), jnp.mean(kl, axis=0)
        paid = jnp.sum(jnp.maximum(kl, self.nats))
        return Terms(log_p_x - jnp.sum(kl), log_p_x - paid, log_p_x)

    def bound(self, params: Params, x: PyTree, key: Key) -> Scalar:
        return AnalyticKL(self.num_samples)(self.model, params, x, key)


def require_diagonal(
    owner: str, q: Distribution, prior: Distribution
) -> tuple[DiagNormalDensity, DiagNormalDensity]:
    """(q, prior), or a NotKnownError unless both are diagonal normals."""
    if isinstance(q, DiagNormalDensity) and isinstance(prior, DiagNormalDensity):
        require_reparameterised(owner, q)
        return q, prior
    raise NotKnownError(
        f"{owner} splits KL(q || p) over the latents, so q and the prior must be diagonal normals,"
        f" not {q.name} and {prior.name}; use vaejax.DiagNormal with vaejax.StandardNormal or"
        " vaejax.LearnedNormal, or vaejax.Beta, which takes any"
    )


@component
class FreeBitsByNode(Objective):
    """mean_m log p(x_m | z_m) - beta sum_j max(nats, mean_m KL_j(x_m)), of a batch; the bound has
    beta = 1 and no max.

    A layer that tells less than `nats` on average pays for so many anyway, so nothing pushes it to
    tell less. beta, the `weight`, may be a schedule, such as a warm-up, and so may `nats`: those of
    `WarmUp(4_000, start=2.0, end=0.0)` keep every layer in use at the start, and end with the ELBO.
    `vaejax.fit(vaejax.FreeBitsByNode(model, 2.0, vaejax.WarmUp(2_000)), ...)`.
    References: Sønderby et al. 2016 (warm-up); Kingma et al. 2016 (free bits), with groups of one
    node.
    """

    model: GraphModel
    nats: Weight = 0.0
    weight: Weight = 1.0
    num_samples: int = 1
    scale = 1

    def __post_init__(self):
        require_named_latents(self.model)
        require_weights(self, nats=self.nats, weight=self.weight)
        require_count(self.num_samples, "FreeBitsByNode.num_samples")

    @property
    def schedules(self) -> tuple[tuple[str, Schedule], ...]:
        return scheduled(nats=self.nats, beta=self.weight)

    def __call__(self, params: Params, xs: PyTree, key: Key, step: ArrayLike) -> Terms:
        model = self.model

        def parts(x, key):
            drawn, key = draw_nets(params, key)
            return sampled_kl(self, model, drawn, x, key)

        terms = map_batch(parts, model.support, xs, key)
        log_p_x, kl = jax.tree.map(jnp.mean, terms)
        nothing = jnp.zeros(())
        free = at_step(self.nats, step)
        paid = sum((jnp.maximum(nats, free) for nats in kl.values()), start=nothing)
        bound = log_p_x - sum(kl.values(), start=nothing)
        return Terms(bound, log_p_x - at_step(self.weight, step) * paid, log_p_x, kl)

    def bound(self, params: Params, x: PyTree, key: Key) -> Scalar:
        return KLByNode(self.num_samples)(self.model, params, x, key)
