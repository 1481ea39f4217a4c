"""Parameters to start from."""

from functools import partial

import jax


@partial(jax.jit, static_argnums=0)
def started(model, key, x):
    """`model.init(key, x)`, as one program for equal models where it would be fifty small ones."""
    return model.init(key, x)
