"""A model of binary images, and data for it."""

import jax
import jax.numpy as jnp
import numpy as np

import vaejax


def binary_model():
    """(model, params, xs [23, 3, 2])."""
    model = vaejax.VAE(
        vaejax.StandardNormal(2),
        vaejax.Bernoulli(vaejax.MLP((3, 2), (4,))),
        vaejax.DiagNormal(vaejax.MLP(2, (4,), heads=2)),
    )
    params = model.init(jax.random.key(0), jnp.zeros((3, 2)))
    return model, params, np.random.default_rng(0).integers(2, size=(23, 3, 2))
