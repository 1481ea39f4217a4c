"""A small training, for tests of what `fit` does around it."""

import hashlib

import jax
import numpy as np
import optax

import vaejax
from vaejax.training.run import NO_HISTORY

XS = vaejax.load_dataset("digits").train.images
PIXELS = vaejax.Pixels(16)
MODEL = vaejax.VAE(
    vaejax.StandardNormal(2),
    vaejax.Bernoulli(vaejax.MLP((8, 8), (16,))),
    vaejax.DiagNormal(vaejax.MLP(2, (16,), heads=2)),
)
PARAMS = MODEL.init(jax.random.key(0), XS[0])
OBJECTIVE = vaejax.minibatch(vaejax.Pathwise(), MODEL)
KEY = jax.random.key(1)

# Of a history, where the objective knows the parts of its bound and the optimiser no rate.
NAMES = (*NO_HISTORY, "reconstruction", "rate")


def fit(num_steps=20, batch_size=32, **settings):
    """A small run; 20 steps of 32 pass the end of no epoch, of 100 they do."""
    defaults = {
        "objective": OBJECTIVE,
        "params": PARAMS,
        "optimizer": optax.adam(1e-3),
        "data": XS,
        "key": KEY,
        "transform": PIXELS,
        "progress": False,
    }
    return vaejax.fit(num_steps=num_steps, batch_size=batch_size, **(defaults | settings))


def checkpointed(folder, num_steps=20, *, resume=False, **settings):
    """20 steps over 13 batches an epoch, each saved: cuts before, at and after its end."""
    checkpoints = None
    if folder is not None:
        checkpoints = vaejax.Checkpoints(folder, every=1, resume=resume, max_to_keep=None)
    settings = {"validation": vaejax.Validation(XS[:30], every=4)} | settings
    optimizer = optax.adamw(optax.cosine_decay_schedule(1e-2, 20))
    return fit(num_steps, 100, optimizer=optimizer, checkpoints=checkpoints, **settings)


def state(run):
    return run.params, run.opt_state, run.history["bound"]


def digest(run):
    """Of every number of a run."""
    arrays = [
        *jax.tree.leaves((run.params, run.opt_state, run.best_params)),
        *(run.history[name] for name in sorted(run.history)),
    ]
    return hashlib.sha256(b"".join(np.asarray(array).tobytes() for array in arrays)).hexdigest()


class Counted(vaejax.Source):
    """Rows of an array, as a user's own source reads them; it notes how many it is asked for."""

    def __init__(self, array):
        self.array, self.asked = array, []

    def __len__(self):
        return len(self.array)

    def __getitem__(self, rows):
        self.asked.append(len(rows))
        return np.stack([self.array[row] for row in rows])


def advance(calls, run, count):
    """The run so many steps later, by one call."""
    return calls.complete(run, calls.begin(run.params, run.opt_state, run.step, count))
