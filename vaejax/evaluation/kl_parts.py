"""KL(q || p) of an example, in all and of each latent, and its parts over many examples.

log q(z) = log (1/N) sum_n q(z | x_n) is over the examples themselves. What a density does not know
is None.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaejax.base.mapping import map_samples
from vaejax.base.types import Key, Params, PyTree, Scalar
from vaejax.distributions.base import Distribution, NotKnownError
from vaejax.distributions.kl import kl_by_coordinate, kl_divergence
from vaejax.models.base import Model, posterior_of, prior_of

KL_SAMPLES = 16  # of an example, where its KL has no closed form
SAMPLES_AT_ONCE = 10  # of those that are held against all examples


def _if_known(function: Callable, *args: Any) -> Any:
    """What a density says, or None where it does not know it."""
    try:
        return function(*args)
    except NotKnownError:
        return None


def kl_of_example(
    q: Distribution, p: Distribution, key: Key
) -> tuple[Scalar, Float[Array, " d"] | None]:
    """KL(q || p), and that of each latent; by samples of q where it has no closed form."""
    by_coordinate = _if_known(kl_by_coordinate, q, p)
    if by_coordinate is not None:
        return jnp.sum(by_coordinate), by_coordinate
    log_ratios, by_coordinate = map_samples(
        partial(_log_ratios, q, p), jax.random.split(key, KL_SAMPLES)
    )
    kl = _if_known(kl_divergence, q, p)
    return (
        jnp.mean(log_ratios) if kl is None else kl,
        None if by_coordinate is None else jnp.mean(by_coordinate, axis=0),
    )


def _log_ratios(q: Distribution, p: Distribution, key: Key) -> tuple[Scalar, Any]:
    """log q(z) - log p(z) at a sample z of q, and of each latent or None."""
    z, log_q = q.sample_and_log_prob(key)
    of_q, of_p = (_if_known(density.coordinate_log_probs, z) for density in (q, p))
    by_coordinate = None if of_q is None or of_p is None else of_q - of_p
    return log_q - p.log_prob(z), by_coordinate


class _Draw(NamedTuple):
    """z ~ q(z | x), and the log-densities there, in all and of each latent where that is known."""

    z: PyTree
    log_q: Scalar
    log_q_by_coordinate: Float[Array, " d"] | None
    log_p: Scalar
    log_p_by_coordinate: Float[Array, " d"] | None


def _draw(model: Model, params: Params, x: PyTree, key: Key) -> _Draw:
    q, p = posterior_of(model, params, x), prior_of(model, params, x)
    z, log_q = q.sample_and_log_prob(key)
    of_q, of_p = (_if_known(density.coordinate_log_probs, z) for density in (q, p))
    return _Draw(z, log_q, of_q, p.log_prob(z), of_p)


@partial(jax.jit, static_argnums=0)
def kl_parts(model: Model, params: Params, xs: PyTree, key: Key) -> dict[str, Any]:
    """The parts of the KL, from one sample z_i of q(z | x_i) for each of N examples xs; None of
    those that are not known.
    """
    keys = jax.random.split(key, len(jax.tree.leaves(xs)[0]))
    draws = jax.vmap(partial(_draw, model, params))(xs, keys)
    log_q_z, by_coordinate = _aggregated(model, params, xs, draws.z)

    parts: dict[str, Any] = dict.fromkeys(
        ("mutual_information", "information", "marginal_kl", "total_correlation", "dimension_wise")
    )
    if log_q_z is None:
        return parts
    # E log q(z | x) - log q(z), and E log q(z) - log p(z)
    parts["mutual_information"] = jnp.mean(draws.log_q - log_q_z)
    if not model.inputs:
        parts["marginal_kl"] = jnp.mean(log_q_z - draws.log_p)
    if by_coordinate is None or draws.log_q_by_coordinate is None:
        return parts
    # sum_j log q(z_j)
    of_product = jnp.sum(by_coordinate, axis=1)
    parts["information"] = jnp.mean(draws.log_q_by_coordinate - by_coordinate, axis=0)
    parts["total_correlation"] = jnp.mean(log_q_z - of_product)
    if draws.log_p_by_coordinate is not None and not model.inputs:
        parts["dimension_wise"] = jnp.mean(of_product - draws.log_p)
    return parts


def _aggregated(
    model: Model, params: Params, xs: PyTree, zs: PyTree
) -> tuple[Float[Array, " n"] | None, Float[Array, "n d"] | None]:
    """log q(z_i) and log q(z_ij), with q(z) = (1/N) sum_n q(z | x_n) over the examples xs; None
    where q does not know them.

    The examples are an axis of `vmap`, over which the means are taken as they are made: memory does
    not grow with N^2.
    """

    def log_mean(log_q):
        # log (1/N) sum_n q_n = log mean_n (q_n / max q) + log max q
        highest = jax.lax.pmax(log_q, "example")
        highest = jnp.where(jnp.isfinite(highest), highest, 0)
        return jnp.log(jax.lax.pmean(jnp.exp(log_q - highest), "example")) + highest

    def under(x):
        q = posterior_of(model, params, x)

        def log_means(z):
            log_q, by_coordinate = _if_known(q.log_prob, z), _if_known(q.coordinate_log_probs, z)
            return jax.tree.map(log_mean, (log_q, by_coordinate))

        return jax.lax.map(log_means, zs, batch_size=SAMPLES_AT_ONCE)

    return jax.vmap(under, axis_name="example", out_axes=None)(xs)
