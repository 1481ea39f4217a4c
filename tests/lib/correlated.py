"""A model of two latents whose posterior is a correlated normal, N(m, Lam^-1)."""

import jax
import jax.numpy as jnp
import numpy as np

import vaejax

TAU = 0.5


@vaejax.component
class Mixing:
    """z -> W z."""

    def init(self, key, example):
        return jnp.asarray([[1.0, 0.8], [0.3, 1.2]])

    def apply(self, params, z):
        return params @ z


MIXED = vaejax.VAE(
    vaejax.StandardNormal(2),
    vaejax.Gaussian(Mixing(), TAU),
    vaejax.DiagNormal(vaejax.Free(2), max_log_scale=None),
)


def posterior_precision(params: vaejax.Params) -> np.ndarray:
    """Lam = I + W' W / tau^2."""
    w = np.asarray(params.theta["likelihood"]["net"])
    return np.eye(2) + w.T @ w / TAU**2


def posterior_mean(params: vaejax.Params, x: np.ndarray) -> np.ndarray:
    """m = Lam^-1 W' x / tau^2."""
    w = np.asarray(params.theta["likelihood"]["net"])
    return np.linalg.solve(posterior_precision(params), w.T @ x / TAU**2)


def start(x: jax.Array) -> vaejax.Params:
    return MIXED.init(jax.random.key(0), x)
