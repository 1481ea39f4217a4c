"""Amortised, semi-amortised and per-datapoint inference as one switch: where q(z | x) starts, and how many gradient steps refine it.

An encoder gives q in one evaluation and is shared by all examples; gradient ascent on one example's ELBO finds the best q of the family
for it, at the price of many evaluations. What lies between the two is the amortisation gap.
"""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from vaejax._values import value
from vaejax.data import unknown
from vaejax.distributions import DiagNormal, standard_normal
from vaejax.elbo import posterior_of, require_count, stopped
from vaejax.estimators import StickTheLanding
from vaejax.types import Distribution, Key, LatentVariableModel, Params, PyTree, Scalar

Start = Literal["encoder", "standard"]


@value
class Refined:
    """The same model, with q(z | x) = what `num_steps` of Adam on this example's ELBO make of the `start`.

    start "encoder", no steps         amortised inference, the model itself
    start "encoder", some steps       semi-amortised
    start "standard", many steps      per-datapoint: N(0, I) is the start, and the encoder's parameters take no part

    The steps follow `StickTheLanding` of `num_samples`, whose noise vanishes at an exact posterior, with a rate that falls to zero along a
    cosine. Their noise is the same for every call, so q is a function of (params, x). Theta's gradient is that at the refined q, held
    fixed; with `through_steps` phi's goes through the steps. q is a `DiagNormal`.
    References: Hoffman et al. 2013 (per datapoint); Kim et al. 2018 (semi-amortised).
    """

    model: LatentVariableModel
    num_steps: int
    start: Start = "encoder"
    learning_rate: float = 0.05
    num_samples: int = 8
    through_steps: bool = False

    def __post_init__(self):
        if self.start not in get_args(Start):
            raise ValueError(unknown("Refined.start", self.start, list(get_args(Start))))
        if not isinstance(self.num_steps, int) or self.num_steps < 0:
            raise ValueError(f"Refined.num_steps = {self.num_steps!r}; it must be a whole number, at least 0")
        require_count(self.num_samples, "Refined.num_samples")
        if not self.learning_rate > 0:
            raise ValueError(f"Refined.learning_rate = {self.learning_rate}; it must be positive")

    @property
    def likelihood(self) -> Any:
        return getattr(self.model, "likelihood", None)

    def init(self, key: Key, x: ArrayLike) -> Params:
        return self.model.init(key, x)

    def log_joint(self, params: Params, x: ArrayLike, z: PyTree) -> Scalar:
        return self.model.log_joint(params, x, z)

    def p_z(self, params: Params) -> Distribution:
        return self.model.p_z(params)

    def p_x_given_z(self, params: Params, z: PyTree) -> Distribution:
        return self.model.p_x_given_z(params, z)

    def posterior(self, params: Params, x: ArrayLike) -> DiagNormal:
        """q(z | x), refined."""
        q = posterior_of(self.model, params, x, (DiagNormal,), self, "refine an encoder vaejax.DiagNormal")
        if self.start == "standard":
            q = standard_normal(q.loc)
        if self.num_steps == 0:
            return q
        refined = refine(self.model, params if self.through_steps else stopped(params), x, q, self)
        return refined if self.through_steps else stopped(refined)


def refine(model: LatentVariableModel, params: Params, x: ArrayLike, q: DiagNormal, settings: Refined) -> DiagNormal:
    """q after gradient ascent on E_q [log p(x, z) - log q(z)] over its own location and log-scale."""
    estimator = StickTheLanding(settings.num_samples)
    optimizer: Any = optax.adam(optax.cosine_decay_schedule(settings.learning_rate, settings.num_steps))

    def bound(q: DiagNormal, key: Key) -> Scalar:
        return estimator(_WithPosterior(model, q), params, x, key)

    def step(carry, i):
        q, state = carry
        gradient: Any = jax.grad(bound)(q, jax.random.fold_in(jax.random.key(0), i))
        updates, state = optimizer.update(jax.tree.map(jnp.negative, gradient), state)
        return (jax.tree.map(jnp.add, q, updates), state), None

    (q, _), _ = jax.lax.scan(step, (q, optimizer.init(q)), jnp.arange(settings.num_steps))
    return q


class _WithPosterior:
    """A model with this q, whatever its encoder says."""

    def __init__(self, model: LatentVariableModel, q: DiagNormal):
        self.init, self.log_joint, self.q = model.init, model.log_joint, q

    def posterior(self, params: Params, x: ArrayLike) -> DiagNormal:
        return self.q
