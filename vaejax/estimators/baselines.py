"""Baselines of the score function: what is taken from f = log w before it multiplies the score, so
that less is left to vary.

One that is learned takes part in the objective by -(f - b)^2 / 2, with the value taken off again,
so that the same `jax.grad` trains it. References: Williams 1992; Mnih & Gregor 2014 for the learned
ones.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vaejax.base.checks import require_kind, require_number, require_said
from vaejax.base.contracts import Declared
from vaejax.base.types import Key, PyTree
from vaejax.base.values import check_fields_of, component
from vaejax.bounds import mean_of_others
from vaejax.networks.base import Net, apply_net, init_net


class Baseline(Declared):
    """b_k, taken from f_k = log w_k before it multiplies the score of the sample k.

    It must not depend on the sample k itself. `init` gives its parameters psi, none by default; one
    that is `learned` is trained to predict f. Your own:

        @vaejax.component
        class Median(vaejax.Baseline):
            learned = False
            fewest_samples = 3

            def __call__(self, psi, x, log_w):
                others = ~jnp.eye(len(log_w), dtype=bool)
                return jnp.nanmedian(jnp.where(others, log_w[None], jnp.nan), axis=1)
    """

    learned: ClassVar[bool]
    fewest_samples: ClassVar[int]

    def __init_subclass__(cls, **keywords):
        super().__init_subclass__(**keywords)
        require_said(
            cls, Baseline, "learned", "True if it has parameters that predict f, else False"
        )
        require_said(cls, Baseline, "fewest_samples", "how many samples it needs, 1 of most")

    def init(self, key: Key, x: ArrayLike) -> PyTree:
        """psi."""
        return ()

    def __call__(self, psi: PyTree, x: ArrayLike, log_w: Float[Array, " k"]) -> Any:
        """b [K], or one number for all samples."""
        raise NotImplementedError(f"{type(self).__name__}.__call__")


check_fields_of(Baseline, lambda value, name: require_kind(value, Baseline, name))


@component
class NoBaseline(Baseline):
    """b = 0."""

    learned = False
    fewest_samples = 1

    def __call__(self, psi: PyTree, x: ArrayLike, log_w: Float[Array, " k"]):
        return 0.0


@component
class ConstantBaseline(Baseline):
    """b = c, a number that is given."""

    c: float

    learned = False
    fewest_samples = 1

    def __post_init__(self):
        require_number(self.c, "ConstantBaseline.c")

    def __call__(self, psi: PyTree, x: ArrayLike, log_w: Float[Array, " k"]):
        return self.c


@component
class LeaveOneOut(Baseline):
    """b_k = mean of f_j over j != k: with K >= 2 samples the others are a baseline that nobody has
    to learn.

    The estimator is then the unbiased sample covariance of f and the score. Reference: Kool, van
    Hoof & Welling 2019.
    """

    learned = False
    fewest_samples = 2

    def __call__(self, psi: PyTree, x: ArrayLike, log_w: Float[Array, " k"]) -> Float[Array, " k"]:
        return mean_of_others(log_w)


@component
class MovingAverage(Baseline):
    """b = psi, one learned number. Under `optax.sgd(1 - decay)` for psi it is the exponential
    moving average of f.
    """

    learned = True
    fewest_samples = 1

    def init(self, key: Key, x: ArrayLike) -> PyTree:
        return jnp.zeros(())

    def __call__(self, psi: PyTree, x: ArrayLike, log_w: Float[Array, " k"]) -> jax.Array:
        return psi


@component
class LearnedBaseline(Baseline):
    """b = net(x; psi), a net of one output: the baseline of NVIL. Reference: Mnih & Gregor 2014."""

    net: Net
    learned = True
    fewest_samples = 1

    def init(self, key: Key, x: ArrayLike) -> PyTree:
        return init_net(self.net, key, x)

    def __call__(self, psi: PyTree, x: ArrayLike, log_w: Float[Array, " k"]) -> jax.Array:
        b = apply_net(self.net, psi, x)
        if isinstance(b, tuple) or b.size != 1:
            raise TypeError("LearnedBaseline needs a net of one output, such as vaejax.MLP(1)")
        return b.reshape(())
