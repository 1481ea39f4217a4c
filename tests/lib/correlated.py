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


def log_marginal(params: vaejax.Params, x: np.ndarray) -> float:
    """log N(x; 0, W W' + tau^2 I)."""
    w = np.asarray(params.theta["likelihood"]["net"])
    covariance = w @ w.T + TAU**2 * np.eye(2)
    log_det = np.linalg.slogdet(2 * np.pi * covariance)[1]
    return float(-0.5 * (x @ np.linalg.solve(covariance, x) + log_det))


def kl_to_posterior(params: vaejax.Params, x: np.ndarray) -> float:
    """KL(q || p(z | x)) of the diagonal normal q in phi."""
    precision, log_scale = posterior_precision(params), np.asarray(params.phi["log_scale"])
    d = np.asarray(params.phi["loc"]) - posterior_mean(params, x)
    log_dets = 2 * log_scale.sum() + np.linalg.slogdet(precision)[1]
    traces = np.diag(precision) @ np.exp(2 * log_scale) + d @ precision @ d
    return float(0.5 * (traces - 2 - log_dets))


def start(x: jax.Array) -> vaejax.Params:
    return MIXED.init(jax.random.key(0), x)
