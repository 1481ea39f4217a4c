"""Steps that are left out: those whose gradient is not finite, or too long."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vaejax.base.checks import require_positive
from vaejax.base.types import Params, PyTree
from vaejax.base.values import component


class SkippedState(NamedTuple):
    """The state of the optimiser inside, and how many steps were skipped."""

    inner: PyTree
    total_skipped: jax.Array


@component
class SkipSteps:
    """The same optimiser, without the steps whose gradient g exploded:

        a step is skipped unless |g| <= above, the norm being over all parameters,

    and so is one whose bound or gradient is not finite. A skipped step changes neither the
    parameters nor the optimiser's state, and is counted; its bound and its gradient's norm stand in
    the history as they were. `vaejax.fit(..., vaejax.SkipSteps(optax.adam(1e-3), above=200.0))`
    warns of how many there were. To shorten long steps instead, `optax.clip_by_global_norm`.

    The gradient is that of what is maximised, such as the mean bound of a batch. Take a norm well
    above those in `history["gradient_norm"]`. Reference: Child 2021 (very deep VAEs).
    """

    optimizer: optax.GradientTransformation
    above: float

    def __post_init__(self):
        require_positive(self.above, "SkipSteps.above")

    def init(self, params: Params) -> SkippedState:
        return SkippedState(self.optimizer.init(params), jnp.zeros((), jnp.int32))

    def update(
        self, gradient: Params, state: SkippedState, params: Params, **asked: Any
    ) -> tuple[Params, SkippedState]:
        inner = optax.with_extra_args_support(self.optimizer)
        is_taken = optax.tree.norm(gradient) <= self.above  # not so where it is NaN
        updates, inner_state = inner.update(gradient, state.inner, params, **asked)

        def kept(new, old):
            return jax.tree.map(lambda new, old: jnp.where(is_taken, new, old), new, old)

        updates = kept(updates, jax.tree.map(jnp.zeros_like, updates))
        skipped = state.total_skipped + ~is_taken
        return updates, SkippedState(kept(inner_state, state.inner), skipped)
