"""Baselines of the score function: what is taken from f = log w before it multiplies the score, so
that less is left to vary.

`baseline.init(key, x)` gives its parameters psi, which go into `params.psi`; `baseline(psi, x,
log_w)` gives b_k, which must not depend on the sample k itself. One that is learned takes part in
the objective by -(f - b)^2 / 2, with the value taken off again, so that the same `jax.grad` trains
it. References: Williams 1992; Mnih & Gregor 2014 for the learned ones.
"""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vaejax.base.types import Key, Net, PyTree
from vaejax.base.values import component


class Baseline(Protocol):
    learned: bool
    fewest_samples: int

    def init(self, key: Key, x: ArrayLike) -> PyTree: ...
    def __call__(self, psi: PyTree, x: ArrayLike, log_w: Float[Array, " k"]) -> Any: ...


class WithoutParameters:
    learned = False
    fewest_samples = 1

    def init(self, key: Key, x: ArrayLike) -> PyTree:
        return ()


@component
class NoBaseline(WithoutParameters):
    """b = 0."""

    def __call__(self, psi: PyTree, x: ArrayLike, log_w: Float[Array, " k"]):
        return 0.0


@component
class ConstantBaseline(WithoutParameters):
    """b = c, a number that is given."""

    c: float

    def __call__(self, psi: PyTree, x: ArrayLike, log_w: Float[Array, " k"]):
        return self.c


@component
class LeaveOneOut(WithoutParameters):
    """b_k = mean of f_j over j != k: with K >= 2 samples the others are a baseline that nobody has
    to learn.

    The estimator is then the unbiased sample covariance of f and the score. Reference: Kool, van
    Hoof & Welling 2019.
    """

    fewest_samples = 2

    def __call__(self, psi: PyTree, x: ArrayLike, log_w: Float[Array, " k"]) -> Float[Array, " k"]:
        return (jnp.sum(log_w) - log_w) / (log_w.shape[0] - 1)


@component
class MovingAverage:
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
class LearnedBaseline:
    """b = net(x; psi), a net of one output: the baseline of NVIL. Reference: Mnih & Gregor 2014."""

    net: Net
    learned = True
    fewest_samples = 1

    def init(self, key: Key, x: ArrayLike) -> PyTree:
        return self.net.init(key, x)

    def __call__(self, psi: PyTree, x: ArrayLike, log_w: Float[Array, " k"]) -> jax.Array:
        b = self.net.apply(psi, x)
        if isinstance(b, tuple) or b.size != 1:
            raise TypeError("LearnedBaseline wants a net of one output, such as vaejax.MLP(1)")
        return b.reshape(())
