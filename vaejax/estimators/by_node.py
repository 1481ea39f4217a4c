"""The ELBO of a graph whose latent nodes are treated each in its own way: summed out, by the score
function, or by their paths.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from vaejax.base.asserts import assert_shape
from vaejax.base.checks import require_count
from vaejax.base.mapping import map_samples
from vaejax.base.types import Key, Params, PyTree, Scalar, Terms
from vaejax.base.values import component
from vaejax.bounds import stopped
from vaejax.distributions.base import Distribution
from vaejax.distributions.kl import kl_divergence
from vaejax.estimators.base import (
    ELBOInParts,
    mean_under,
    posterior_in,
    reparameterised_posterior,
    with_gradient_of,
)
from vaejax.estimators.baselines import LeaveOneOut
from vaejax.models.base import Model, posterior_of
from vaejax.models.elimination import num_states, take
from vaejax.models.graph_model import GraphModel
from vaejax.models.joint import Joint


@component
class ByNode(ELBOInParts):
    """Value: mean_k F_k, F = sum_c q(c) f(c, z_c), f = log w, over the combinations c of the nodes
    in `enumerate`, with z_c ~ q( . | c).

    Gradient: of F through q(c), f and the paths of the samples, plus sum_c q(c) (f - B_k) grad log
    q(b | Pa(b)) for each node b in `score`, b held fixed and B_k the mean F of the other samples (0
    of one). Unbiased for the gradient of the ELBO. A node under both headings, or under none and
    without a smooth path, is refused. References: Kingma et al. 2014 (a class that is summed out);
    Schulman et al. 2015 (graphs of both kinds).
    """

    enumerate: tuple[str, ...] = ()
    score: tuple[str, ...] = ()
    num_samples: int = 1

    def __post_init__(self):
        require_count(self.num_samples, "ByNode.num_samples")
        both = sorted(set(self.enumerate) & set(self.score))
        if both:
            raise ValueError(
                f"ByNode: {both[0]!r} is both enumerated and by the score function; choose one"
            )

    def parts(
        self, model: Model, params: Params, x: PyTree, key: Key
    ) -> tuple[Scalar, Scalar | None]:
        q = self._posterior(model, params, x)
        combinations = q.combinations(self.enumerate)
        num_combinations = num_states(combinations) if self.enumerate else 1

        def every_combination(key: Key):
            def log_terms(row: jax.Array):
                return self._log_terms(model, params, x, q, take(combinations, row), key)

            return map_samples(log_terms, jnp.arange(num_combinations))

        keys = jax.random.split(key, self.num_samples)
        log_q, log_score, f, log_p_x = map_samples(every_combination, keys)
        assert_shape((log_q, log_score, f), (self.num_samples, num_combinations))

        # F_k = sum_c q(c) f(c, z_kc)
        totals = mean_under(log_q, f)
        bound = jnp.mean(totals)
        if self.score:
            # sum_c q(c) (f - B_k) log q(b | Pa(b)), with B_k the mean F of the other samples
            baseline = LeaveOneOut()((), x, totals) if self.num_samples > 1 else jnp.zeros(1)
            score = mean_under(stopped(log_q), stopped(f - baseline[:, None]) * log_score)
            bound = with_gradient_of(bound, jnp.mean(totals + score))
        return bound, None if log_p_x is None else jnp.mean(mean_under(log_q, log_p_x))

    def _log_terms(
        self,
        model: Model,
        params: Params,
        x: PyTree,
        q: Joint,
        combination: dict[str, Any],
        key: Key,
    ) -> tuple[Scalar, Scalar, Scalar, Scalar | None]:
        """log q(c) of one combination c, log q of the nodes in `score`, f = log w, and log p(x | c,
        z).
        """
        values, log_q = self._completed(q, combination, key)
        log_joint, log_p_x = model.log_densities(params, x, values)
        f = log_joint - sum(log_q.values())
        return sum_over(log_q, self.enumerate), sum_over(log_q, self.score), f, log_p_x

    def _completed(
        self, q: Joint, combination: dict[str, Any], key: Key
    ) -> tuple[dict[str, Any], dict[str, Scalar]]:
        """A value for every node of q, and log q of each: those of the combination as they are,
        those in `score` held fixed, the others along their paths.
        """
        keys, log_q = q.keys(key), {}

        def draw(name: str, factor: Distribution) -> PyTree:
            if name in combination:
                value = combination[name]
                log_q[name] = factor.log_prob(value)
            elif name in self.score:
                value = stopped(factor.sample(keys[name]))
                log_q[name] = factor.log_prob(value)
            else:
                value, log_q[name] = factor.sample_and_log_prob(keys[name])
            return value

        return q.walk(draw), log_q

    def _posterior(self, model: Model, params: Params, x: ArrayLike) -> Joint:
        remedy = "use Enumerate, ScoreFunction or Pathwise"
        q = posterior_in(model, params, x, (Joint,), self, remedy)
        for name in (*self.enumerate, *self.score):
            q.graph[name]
        for name, (factor_name, moves) in q.outline().items():
            if name not in (*self.enumerate, *self.score) and not moves:
                raise TypeError(
                    f"ByNode: samples of the node {name!r} ({factor_name}) do not move smoothly"
                    " with its parameters; name it among `enumerate` or `score`"
                )
        return q


def sum_over(terms: dict[str, Scalar], names: tuple[str, ...]) -> Scalar:
    """The sum of the terms of these names, 0 of none."""
    return sum((terms[name] for name in names), start=jnp.zeros(()))


def kl_by_node(model: Any, params: Params, x: PyTree, key: Key) -> tuple[Scalar, dict[str, Scalar]]:
    """log p(x | z) and {latent node: KL_j} of one sample z ~ q(z | x), nats; the first less the sum
    of the others is the ELBO, unbiased.

    Summed over a data set, KL_j near zero says that layer j is not used.
    """
    require_named_latents(model)
    q: Any = posterior_of(model, params, x)
    z, of_q, shown = q.sample_and_factors(key)
    values, p = model.assignment(x, z), model.joint(params, x)
    of_p = replace(p, ready={**p.ready, **shown}).factors(values)

    # log p(x | z) = sum over the observed nodes of log p(v | Pa(v))
    log_p = {name: of_p[name].log_prob(values[name]) for name in model.observed}
    kl = {name: _node_kl(model, name, of_q[name], of_p[name], z[name]) for name in model.latents}
    return sum_over(log_p, model.observed), kl


def _node_kl(model: GraphModel, name: str, q: Distribution, p: Distribution, z: PyTree) -> Scalar:
    """KL(q || p), or its one-sample estimate at z."""
    encoder: Any = model.encoder
    parents = model.graph.drawn_parents(name)
    latent_parents = [parent for parent in parents if parent in model.latents]
    if not any(name in encoder.ancestors((parent,)) for parent in latent_parents):
        try:
            return kl_divergence(q, p)
        except TypeError:  # a pair without a closed form
            pass
    return q.log_prob(z) - p.log_prob(z)


def require_named_latents(model: Model) -> None:
    """Raises TypeError for a model whose latents have no names in q."""
    if not isinstance(model, GraphModel) or model.named_latents is None:
        raise TypeError(
            "a KL by node is of a GraphModel whose encoder is a DirectedGraph; this is a"
            f" {type(model).__name__}"
        )


@component
class KLByNode(ELBOInParts):
    """Value: mean_k [log p(x | z_k) - sum_j KL_j(z_k)], z_k ~ q. Gradient: its total derivative.

    `AnalyticKL` of a hierarchy: unbiased for the gradient of the ELBO, with the KL in closed form
    node by node, given the nodes above. The history of a training has each as `rate_NODE`.
    """

    num_samples: int = 1

    def __post_init__(self):
        require_count(self.num_samples, "KLByNode.num_samples")

    def parts(
        self, model: Model, params: Params, x: PyTree, key: Key
    ) -> tuple[Scalar, Scalar | None]:
        bound, _, log_p_x, _ = self.terms(model, params, x, key, 0)
        return bound, log_p_x

    def terms(self, model: Model, params: Params, x: PyTree, key: Key, step: ArrayLike) -> Terms:
        log_p_x, kl = sampled_kl(self, model, params, x, key)
        bound = log_p_x - sum(kl.values(), start=jnp.zeros(()))
        return Terms(bound, bound, log_p_x, kl)


def sampled_kl(
    owner: Any, model: Model, params: Params, x: PyTree, key: Key
) -> tuple[Scalar, dict[str, Scalar]]:
    """`kl_by_node`, averaged over the owner's samples; TypeError where q has no smooth path."""
    reparameterised_posterior(owner, model, params, x)
    keys = jax.random.split(key, owner.num_samples)
    return jax.tree.map(jnp.mean, map_samples(partial(kl_by_node, model, params, x), keys))
