"""A model of small images."""

import jax
import jax.numpy as jnp

import vaejax


def image_model(dim, out=(8, 8)):
    model = vaejax.VAE(
        vaejax.StandardNormal(dim),
        vaejax.Bernoulli(vaejax.MLP(out, (4,))),
        vaejax.DiagNormal(vaejax.MLP(dim, (4,), heads=2)),
    )
    return model, model.init(jax.random.key(0), jnp.zeros(out))
