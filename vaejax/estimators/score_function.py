"""Gradient estimators for any latents: they move the probability of a sample, never the sample, so
z may be discrete.

In the formulas f_k = log w_k, w~_k = w_k / sum_j w_j and score_k = grad log q_phi(z_k | x), z_k
held fixed.
"""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vaejax.base.asserts import assert_shape
from vaejax.base.checks import require_count
from vaejax.base.types import Key, Params, PyTree, Scalar
from vaejax.base.values import component
from vaejax.bounds import elbo_bound, stopped
from vaejax.distributions.base import Distribution
from vaejax.estimators.base import (
    ELBOInParts,
    fixed_samples,
    mean_reconstruction,
    require_samples,
    score_of,
    with_gradient_of,
)
from vaejax.estimators.baselines import Baseline, LeaveOneOut
from vaejax.models.base import Model, posterior_of


@component
class ScoreFunction(ELBOInParts):
    """Value: mean_k f_k. Gradient: mean_k [grad log p_theta(x, z_k) + (f_k - b_k) score_k].

    Unbiased for the gradient of the ELBO, whatever the `baseline`; usually with far more variance
    than `Pathwise` where that applies. A learned baseline has its parameters in `params.psi`:
    `params._replace(psi=estimator.init(model, params, x, key))`. References: Williams 1992
    (REINFORCE); `baselines` names those of each baseline.
    """

    num_samples: int = 2
    baseline: Baseline = LeaveOneOut()

    def __post_init__(self):
        require_samples(self, self.baseline.fewest_samples, f"with {type(self.baseline).__name__}")

    def init(self, model: Model, params: Params, x: ArrayLike, key: Key):
        """psi, the parameters of the baseline."""
        return self.baseline.init(key, x)

    def parts(
        self, model: Model, params: Params, x: PyTree, key: Key
    ) -> tuple[Scalar, Scalar | None]:
        q = posterior_of(model, params, x)
        log_joint, log_q, log_p_x = fixed_samples(model, params, x, q, key, self.num_samples)
        f = stopped(log_joint - log_q)
        b = self._baseline(params.psi, x, f)
        surrogate = jnp.mean(log_joint + (f - stopped(b)) * log_q)
        if self.baseline.learned:
            surrogate -= 0.5 * jnp.mean((f - b) ** 2)
        bound = with_gradient_of(jnp.mean(f), surrogate)
        return bound, mean_reconstruction(elbo_bound, log_p_x)

    def _baseline(self, psi: PyTree, x: ArrayLike, f: Float[Array, " k"]) -> jax.Array:
        """b_k, or one b for all samples; ValueError for what would be broadcast against them."""
        b = jnp.asarray(self.baseline(psi, x, f))
        if b.shape not in ((), f.shape):
            raise ValueError(
                f"{type(self.baseline).__name__} gave a baseline of shape {b.shape} for"
                f" {len(f)} samples; give one number, or one for each, {f.shape}"
            )
        return b


@component
class OptimalConstant(ELBOInParts):
    """Value and gradient as `ScoreFunction` with b = E[f |score|^2] / E[|score|^2], the constant of
    least variance.

    Over all of q's own parameters together; the expectations are from `num_pilot` samples of their
    own for each example, so that the estimate stays unbiased.
    """

    num_samples: int = 1
    num_pilot: int = 8

    def __post_init__(self):
        require_samples(self, 1, "")
        require_count(self.num_pilot, "OptimalConstant.num_pilot")

    def parts(
        self, model: Model, params: Params, x: PyTree, key: Key
    ) -> tuple[Scalar, Scalar | None]:
        key, pilot_key = jax.random.split(key)
        q = posterior_of(model, params, x)
        log_joint, log_q, log_p_x = fixed_samples(model, params, x, q, key, self.num_samples)
        f = stopped(log_joint - log_q)
        b = stopped(optimal_constant(model, params, x, q, pilot_key, self.num_pilot))
        bound = with_gradient_of(jnp.mean(f), jnp.mean(log_joint + (f - b) * log_q))
        return bound, mean_reconstruction(elbo_bound, log_p_x)


def optimal_constant(
    model: Model, params: Params, x: ArrayLike, q: Distribution, key: Key, num_samples: int
) -> Scalar:
    """E[f |score|^2] / E[|score|^2] from samples, the score that of q's own parameters; those of
    weight 0, f = -inf, are left out.
    """
    flat_q, unravel = ravel_pytree(q)

    def f_and_square(key):
        z = stopped(q.sample(key))
        log_w = model.log_joint(params, x, z) - q.log_prob(z)
        return log_w, jnp.sum(score_of(unravel, flat_q, z) ** 2)

    f, squares = jax.vmap(f_and_square)(jax.random.split(key, num_samples))
    assert_shape((f, squares), (num_samples,))
    counts = f > -jnp.inf
    f, squares = (jnp.where(counts, part, 0) for part in (f, squares))
    return jnp.sum(f * squares) / jnp.maximum(jnp.sum(squares), jnp.finfo(squares.dtype).tiny)
