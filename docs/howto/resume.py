# %% [markdown]
# # Stop a run, and resume it to the same bits
#
# After this page you can cut off a training at any moment and go on from its last checkpoint, and
# you know what is compared before it goes on.

# %%
import tempfile
import textwrap
from pathlib import Path

import jax
import numpy as np
import optax

import vaejax

data, pixels = vaejax.prepare_pixels(vaejax.load_dataset("digits"), "dynamic")
model = vaejax.VAE(
    prior=vaejax.StandardNormal(4),
    likelihood=vaejax.Bernoulli(vaejax.MLP((8, 8), hidden=(64,))),
    encoder=vaejax.DiagNormal(vaejax.MLP(4, hidden=(64,), heads=2)),
)
init_key, fit_key = jax.random.split(jax.random.key(0))
start = model.init(init_key, pixels(data.train.images[0], init_key))
objective = vaejax.minibatch(vaejax.StickTheLanding(), model)
folder = Path(tempfile.mkdtemp()) / "checkpoints"


def train(num_steps, folder=None, callbacks=(), learning_rate=1e-3):
    checkpoints = folder and vaejax.Checkpoints(folder, every=100, resume=True)
    return vaejax.fit(
        objective,
        start,
        optax.adam(learning_rate),
        data.train.images,
        fit_key,
        num_steps=num_steps,
        batch_size=100,
        transform=pixels,
        checkpoints=checkpoints,
        callbacks=callbacks,
        progress=False,
    )


def cut_off(run):
    """What Ctrl-C does, in the middle of the training."""
    if run.step >= 250:
        raise KeyboardInterrupt


try:
    train(500, folder, (cut_off,))
except KeyboardInterrupt as stopped:
    print(f"stopped at step {stopped.run.step}")

resumed = train(500, folder)
print(f"resumed to step {resumed.step}; the last bound is {resumed.history['bound'][-1]:.3f} nats")

# %% [markdown]
# ## What each line is for
#
# - `Checkpoints(folder, every=100, resume=True)` saves the run every 100 steps, at its end, and on
#   Ctrl-C or SIGTERM. With `resume` it goes on from the newest intact checkpoint, or starts where
#   there is none: the same call serves for both, so a script that the queue of a cluster kills is
#   started again as it is.
# - The run so far is in the exception, `stopped.run`, checkpoints or not.
# - `num_steps` is the total. To train longer, call it again with more.
#
# From the command line it is `vaejax train ... --out runs/mine`, and
# `vaejax train --resume --out runs/mine`.
#
# A queue that grants two hours needs no kill: `callbacks=(vaejax.TimeBudget(minutes=110),)` ends the
# run in time, saved, and so does `vaejax train --max-minutes 110`, whose exit status is 0. In
# `vaejax sweep` the minutes are those of all runs together.
#
# ## The exact check
#
# Data order and noise are functions of (key, step) alone. So the run that was cut is the run that
# was not, bit for bit, its history too:

# %%
uncut = train(500)
pairs = zip(jax.tree.leaves(uncut.params), jax.tree.leaves(resumed.params), strict=True)
assert all(np.array_equal(a, b) for a, b in pairs)
assert np.array_equal(uncut.history["bound"], resumed.history["bound"])
print("every parameter and every bound of the history is the same")

# %% [markdown]
# ## What goes wrong, and what you are told
#
# A run is not continued as another one. The objective, the optimiser, the data, the key, the batch
# size and the transform are compared with what is stored:

# %%
try:
    train(600, folder, learning_rate=3e-3)
except ValueError as error:
    print(textwrap.fill(str(error).replace(str(folder), "checkpoints"), 80))

# %% [markdown]
# Free are the number of steps, the validation, the callbacks and the [mesh](many_devices.md). A
# damaged checkpoint is noticed, moved aside with a message, and the one before it used. To look at
# a run of the command line afterwards: [load a run](load_a_run.md).
