"""What each node of a hierarchy says of the data."""

from collections.abc import Callable
from functools import partial
from typing import Any

from vaejax.base.checks import require_count, require_key
from vaejax.base.mapping import Estimate, Transformed, estimate
from vaejax.base.types import Key, Params, PyTree
from vaejax.data.base import Source
from vaejax.data.shares import map_blocks
from vaejax.estimators.by_node import kl_by_node, require_named_latents
from vaejax.models.base import Model
from vaejax.models.given import checked_data


def mean_kl_by_node(
    model: Model,
    params: Params,
    xs: PyTree | Source,
    key: Key,
    *,
    transform: Callable[[Any, Key], Any] | None = None,
    batch_size: int = 100,
) -> dict[str, Estimate]:
    """{latent node: the mean over examples of KL(q_j || p_j), given the nodes above}, nats, from
    one sample of q for each; `vaejax.kl_by_node` is that of one example.

    The sum over the nodes is the rate E_q log q(z | x) / p(z). A node near 0 is not used. The model
    is a `GraphModel` whose encoder is a `DirectedGraph`, else TypeError.
    """
    require_key(key)
    require_count(batch_size, "batch_size")
    require_named_latents(model)
    _, params, source = checked_data(model, params, xs, transform)
    function = Transformed(partial(_kl_alone, model), transform)
    kl = map_blocks(function, params, source, key, batch_size)
    return {name: estimate(nats) for name, nats in kl.items()}


def _kl_alone(model: Model, params: Params, x: PyTree, key: Key) -> dict[str, Any]:
    return kl_by_node(model, params, x, key)[1]
