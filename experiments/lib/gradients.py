"""Variances of gradients: a model of any expectation, and what was measured beside what is
exact.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

import vaejax
from vaejax.variance.intervals import Spread


@vaejax.component
class Expectation(vaejax.Model):
    """The model with log w = log p(x, z) - log q(z) = f(x, z), so that its ELBO is E_q f: q is a
    factor of the joint, and cancels.

    q is `held` fixed there, since its score has mean zero and would be noise. What an estimator
    differentiates is then E_q f alone, and the path derivative of log w, `StickTheLanding`, is that
    of f. An estimator that differentiates log w through a relaxed sample must see the two log q
    cancel: for it q is not held.
    """

    f: Callable[[Any, Any], Any]
    encoder: vaejax.Conditional
    held: bool = True
    support = vaejax.supports.REAL

    @property
    def latent_support(self) -> Any:
        return self.encoder.support

    def init(self, key, x) -> vaejax.Params:
        return vaejax.Params((), self.encoder.init(key, x))

    def posterior(self, params, x) -> Any:
        return self.encoder(params.phi, x)

    def log_joint(self, params, x, z):
        q = self.posterior(params, x)
        return self.f(x, z) + (jax.lax.stop_gradient(q) if self.held else q).log_prob(z)


def interval(spread: Spread, unit: float = 1.0) -> dict[str, float]:
    """A measured trace with its interval at 95 %, times `unit`."""
    return {"measured": spread.trace * unit, "low": spread.low * unit, "high": spread.high * unit}


def coverage(rows: Iterable[dict]) -> float:
    """The share of the rows whose interval covers the exact variance."""
    return float(np.mean([row["low"] <= row["exact"] <= row["high"] for row in rows]))


def worst_relative_error(rows: Iterable[dict]) -> float:
    """Of what was measured, against what is exact."""
    return max(abs(row["measured"] / row["exact"] - 1) for row in rows)
