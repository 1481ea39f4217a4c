"""Small images, and a model of them."""

import jax
import jax.numpy as jnp
import numpy as np

import vaejax
from vaejax.data.base import Dataset, Split

PIXELS = np.full((4000, 2, 2), [[0, 64], [128, 255]], np.uint8)
SPLITS = [Split(PIXELS) for _ in range(3)]
GREY = Dataset("grey", *SPLITS, maximum=255, source="here")


def image_model(dim, out=(8, 8)):
    model = vaejax.VAE(
        vaejax.StandardNormal(dim),
        vaejax.Bernoulli(vaejax.MLP(out, (4,))),
        vaejax.DiagNormal(vaejax.MLP(dim, (4,), heads=2)),
    )
    return model, model.init(jax.random.key(0), jnp.zeros(out))
