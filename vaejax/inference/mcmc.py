"""Samples of p(z | x) by Markov chains, which need only ratios of p(x, z): NUTS, by BlackJAX."""

from functools import partial
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Bool

from vaejax.base.checks import require_count, require_key, require_kind
from vaejax.base.types import Key, Params, PyTree
from vaejax.models.base import Model, check_example, prior_of
from vaejax.models.latents import require_real_latents


class Chains(NamedTuple):
    """`samples` of z, each leaf [chains, n, ...], and which of them ended in a divergence.

    BlackJAX's diagnostics are jitted here: operation by operation they are a hundred programs.
    """

    samples: PyTree
    divergent: Bool[Array, "chains n"]

    def r_hat(self) -> PyTree:
        """Split R-hat of each coordinate: near 1 where the halves of all chains agree. A mode that
        no chain has found it cannot see. Reference: Gelman et al. 2013, section 11.4.
        """
        from blackjax.diagnostics import potential_scale_reduction

        halves = jax.tree.map(_halves, self.samples)
        return jax.tree.map(jax.jit(potential_scale_reduction), halves)

    def effective_sample_size(self) -> PyTree:
        """How many independent draws the mean of each coordinate is worth."""
        from blackjax.diagnostics import effective_sample_size

        return jax.tree.map(jax.jit(effective_sample_size), self.samples)


def _halves(leaf: Array) -> Array:
    """[2 chains, n // 2, ...]: each half as a chain of its own."""
    chains, n, *event = leaf.shape
    return leaf[:, : n // 2 * 2].reshape(2 * chains, n // 2, *event)


def nuts(
    model: Model,
    params: Params,
    x: PyTree,
    key: Key,
    num_chains: int = 4,
    num_warmup: int = 500,
    num_samples: int = 1_000,
) -> Chains:
    """Samples of p(z | x) of one example by NUTS, each chain from a draw of the prior, and adapted
    on its own in `num_warmup` steps. Needs latents in R^d, and `pip install 'vaejax[experiments]'`.

    Reference: Hoffman & Gelman 2014; the adaptation is that of Stan.
    """
    require_kind(model, Model, "the model")
    require_key(key)
    require_count(num_chains, "num_chains")
    require_count(num_warmup, "num_warmup")
    require_count(num_samples, "num_samples")
    require_real_latents(model.latent_support, "NUTS")
    check_example(model, x)
    try:
        import blackjax
    except ImportError:
        raise ImportError("NUTS needs BlackJAX: pip install 'vaejax[experiments]'") from None
    log_density = partial(model.log_joint, params, x)

    def chain(start, key):
        warmup_key, sample_key = jax.random.split(key)
        adaptation: Any = blackjax.window_adaptation(blackjax.nuts, log_density)
        (state, parameters), _ = adaptation.run(warmup_key, start, num_warmup)
        transition: Any = blackjax.nuts(log_density, **parameters).step

        def step(state, key):
            state, info = transition(key, state)
            return state, (state.position, info.is_divergent)

        return jax.lax.scan(step, state, jax.random.split(sample_key, num_samples))[1]

    start_key, key = jax.random.split(key)
    prior = prior_of(model, params, x)
    starts = jax.vmap(prior.sample)(jax.random.split(start_key, num_chains))
    return Chains(*jax.vmap(chain)(starts, jax.random.split(key, num_chains)))
