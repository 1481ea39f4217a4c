"""An average of the parameters along a training, kept in the state of the optimiser."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vaejax.base.checks import Reals, require_in
from vaejax.base.types import Params, PyTree
from vaejax.base.values import component
from vaejax.training.optimizers import nodes_of
from vaejax.training.run import Run


class AveragedState(NamedTuple):
    """The state of the optimiser inside, and the average."""

    inner: PyTree
    average: Params


@component
class Averaged:
    """The same optimiser, and beside it an exponential average of the parameters:

        a_0 = params_0,    a_t = decay a_{t-1} + (1 - decay) params_t.

    `run = vaejax.fit(..., vaejax.Averaged(optax.adam(1e-3), 0.999))` trains as without it, and
    `vaejax.averaged_params(run)` is a. The average is part of the optimiser's state, so a run that
    goes on from a checkpoint has it to the bit. It looks back over about 1 / (1 - decay) steps; of
    a run that is not much longer, the start is still in it. Reference: Polyak & Juditsky 1992 (with
    equal weights).
    """

    optimizer: optax.GradientTransformation
    decay: float = 0.999

    def __post_init__(self):
        require_in(self.decay, "Averaged.decay", Reals(0, 1))

    def init(self, params: Params) -> AveragedState:
        return AveragedState(self.optimizer.init(params), params)

    def update(
        self, gradient: Params, state: AveragedState, params: Params, **asked: Any
    ) -> tuple[Params, AveragedState]:
        inner = optax.with_extra_args_support(self.optimizer)
        updates: Any
        updates, inner_state = inner.update(gradient, state.inner, params, **asked)
        following: Any = optax.apply_updates(params, updates)

        def moved(average, leaf):
            # As a step towards params_t: where the two are equal the average stays, to the bit.
            return average + jnp.asarray(1 - self.decay, average.dtype) * (leaf - average)

        return updates, AveragedState(inner_state, jax.tree.map(moved, state.average, following))


def averaged_params(run: Run) -> Params:
    """The average that an `Averaged` optimiser has kept, also of `fit_seeds`."""
    states = nodes_of(run.opt_state, AveragedState)
    if len(states) != 1:
        raise ValueError(
            f"the optimiser of this run keeps {len(states)} averages of the parameters; train with"
            " vaejax.Averaged(optimizer, decay)"
        )
    return states[0].average
