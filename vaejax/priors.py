"""Priors p_theta(z). Each is a functional of q, the function x -> q_phi(z|x): most ignore it, a VampPrior is made of it.

`prior.init(key, x)` gives theta_prior, `prior(theta_prior, q)` a Distribution over one z.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from vaejax import distributions
from vaejax._values import value
from vaejax.types import Distribution, Key, PyTree

Encoder = Callable[[ArrayLike], Distribution]


@value
class StandardNormal:
    """p(z) = N(0, I) in `dim` dimensions. Nothing to learn."""

    dim: int

    def init(self, key: Key, x: ArrayLike) -> PyTree:
        return ()

    def __call__(self, params: PyTree, q: Encoder) -> Distribution:
        zeros = jnp.zeros(self.dim)
        return distributions.DiagNormal(zeros, zeros)


@value
class VampPrior:
    """p(z) = (1/C) sum_c q_phi(z | u_c), with C learned pseudo-inputs u_c in the space of the data.

    theta_prior is the array u of shape [C, *x.shape]. `init` scatters it around the one example that it is given; rows of the
    training set are the better start, and are as simple: `params.theta | {"prior": xs[:C]}`.
    Under `vmap` over a batch the pseudo-inputs are encoded once, since they do not depend on the example.
    Reference: Tomczak & Welling 2018, eq. 9.
    """

    num_components: int
    init_scale: float = 0.5

    def __post_init__(self):
        if self.num_components < 1:
            raise ValueError(f"VampPrior.num_components = {self.num_components}; a mixture needs at least 1")

    def init(self, key: Key, x: ArrayLike) -> PyTree:
        noise = jax.random.normal(key, (self.num_components, *jnp.shape(x)))
        return jnp.asarray(x, noise.dtype)[None] + self.init_scale * noise

    def __call__(self, params: PyTree, q: Encoder) -> Distribution:
        return distributions.Mixture(jnp.zeros(self.num_components), jax.vmap(q)(params))


@value
class NumPyroPrior:
    """p(z) = factory(), any NumPyro distribution with an empty batch shape: `lambda: dist.Laplace(0., 1.).expand([20]).to_event(1)`.

    A lambda equals only itself, so define it once: each new one is a new program to compile.
    """

    factory: Callable[[], Any]

    def init(self, key: Key, x: ArrayLike) -> PyTree:
        return ()

    def __call__(self, params: PyTree, q: Encoder) -> Distribution:
        p = self.factory()
        batch_shape = getattr(p, "batch_shape", ())
        if batch_shape != ():
            raise ValueError(
                f"NumPyroPrior: {type(p).__name__} has batch_shape {batch_shape}, so its log_prob is not one number; "
                f"add .to_event({len(batch_shape)})"
            )
        return p
