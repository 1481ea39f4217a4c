"""What `fit` is called with in tests of objectives: 60 examples of two numbers."""

import numpy as np
import optax

import vaejax
from tests.lib.lines import KEY, LINES, params_of

XS = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
PARAMS = params_of(dtype=np.float32)
OBJECTIVE = vaejax.minibatch(vaejax.Pathwise(), LINES)
STILL = optax.sgd(0.0)


def fit(
    num_steps,
    objective=OBJECTIVE,
    params=PARAMS,
    optimizer=optax.adam(1e-3),
    data=XS,
    batch_size=10,
    **settings,
):
    return vaejax.fit(
        objective,
        params,
        optimizer,
        data,
        KEY,
        num_steps=num_steps,
        batch_size=batch_size,
        progress=False,
        **settings,
    )


def beta_objective(weight, model=LINES):
    return vaejax.minibatch(vaejax.Beta(weight), model)
