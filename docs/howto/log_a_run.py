# %% [markdown]
# # Follow and log a training
#
# After this page you can read what a run's history holds, write it to a table, to TensorBoard or to
# Weights & Biases as it grows, and stop a run by a rule of your own without losing any of it.

# %%
import csv
import tempfile
from pathlib import Path

import jax
import numpy as np
import optax

import vaejax
from vaejax import plots

digits, pixels = vaejax.prepare_pixels(vaejax.load_dataset("digits"), "dynamic")
model = vaejax.VAE(
    prior=vaejax.StandardNormal(4),
    likelihood=vaejax.Bernoulli(vaejax.MLP((8, 8), hidden=(64,))),
    encoder=vaejax.DiagNormal(vaejax.MLP(4, hidden=(64,), heads=2)),
)
key = jax.random.key(0)
start = model.init(key, pixels(digits.train.images[0], key))
folder = Path(tempfile.mkdtemp())


def train(num_steps, **settings):
    """A run of this page."""
    return vaejax.fit(
        vaejax.minibatch(vaejax.Pathwise(), model),
        start,
        optax.adam(1e-3),
        digits.train.images,
        key,
        num_steps=num_steps,
        batch_size=100,
        transform=pixels,
        progress=False,
        **settings,
    )


# %% [markdown]
# ## What the history holds
#
# `run.history` has an array for each quantity. The bound is the reconstruction less the rate, and
# it is the two parts that show what a model learns first:
#
# $$\underbrace{\mathbb{E}_q \log p(x \mid z)}_{\text{reconstruction}} -
# \underbrace{\mathbb{E}_q [\log q(z \mid x) - \log p(z)]}_{\text{rate}} = \text{ELBO}$$

# %%
table = vaejax.CSVLog(folder / "run.csv", every=100)
validation = vaejax.Validation(digits.valid.images, every=200)
run = train(600, validation=validation, callbacks=(table,))

history = run.history
parts = history["reconstruction"] - history["rate"]
assert np.abs(parts - history["bound"]).max() < 1e-4
for name, values in history.items():
    print(f"{name:<17} {len(values):>4} values, the last {values[-1]:.3f}")

# %% [markdown]
# `gradient_norm` is over all parameters and before any clipping. `learning_rate` joins where the
# optimiser's state has it, as that of `optax.inject_hyperparams` does: see
# [schedules and averages](schedules_and_averages.md). Where an objective does not know its parts,
# as the importance-weighted bound does not, `reconstruction` and `rate` are absent, not wrong. Of
# a hierarchy, `KLByNode` and `FreeBitsByNode` add the rate of each latent node, such as `rate_z1`.

# %%
figure, [[left, right]] = plots.figure_of(columns=2, size=(7, 3))
steps = np.arange(run.step)
left.plot(steps, history["reconstruction"], color=plots.BLUE, label="reconstruction")
left.plot(steps, history["bound"], color=plots.ORANGE, lw=1, label="bound")
plots.finish(left, xlabel="step", ylabel="nats per example")
plots.legend(left, "lower right")
right.plot(steps, history["rate"], color=plots.BLUE)
plots.finish(right, xlabel="step", ylabel="rate (nats per example)")
figure

# %% [markdown]
# At first the rate falls: the decoder learns the mean image, and a code that it does not yet read
# only costs. Then it pays to spend nats on the code, and the rate rises with the reconstruction.

# %%
rate = history["rate"]
assert rate[5:15].mean() < rate[0] < rate[-100:].mean()

# %% [markdown]
# ## A table
#
# `CSVLog(path, every=100)` above has written a row for each 100 steps, the means over them, with
# the validation in the row of its step. A row is a function of its step alone. So a run that goes on
# from a checkpoint has each row once, whatever the process before it had already written.

# %%
with (folder / "run.csv").open(newline="") as file:
    rows = list(csv.DictReader(file))
for row in rows:
    print(f"{row['step']:>4} {float(row['bound']):8.2f}   {row['validation_bound'][:7]}")
assert [int(row["step"]) for row in rows] == [100, 200, 300, 400, 500, 600]
assert abs(float(rows[0]["bound"]) - history["bound"][:100].mean()) < 1e-4

# %% [markdown]
# From the command line, `vaejax train --log csv tensorboard wandb` writes any of the three into the
# run's folder, beside `metrics.jsonl`, which is always there.
#
# ## TensorBoard, and Weights & Biases
#
# Both are in the extra `logging`: `pip install 'vaejax[logging]'`. They take the same rows.

# %%
board = vaejax.TensorBoard(folder / "board", every=100)  # tensorboard --logdir FOLDER
run = train(300, callbacks=(board,))
print(len(list((folder / "board").iterdir())), "file of events")

# %% [markdown]
# Weights & Biases takes what `wandb.init` takes. With an `id` a run that goes on continues the same
# one. With `mode="offline"` nothing leaves the machine until `wandb sync`:
#
# ```python
# vaejax.WandB(project="vae", id="first", mode="offline")
# ```
#
# ## Your own, in five lines
#
# A callback is a function of the run so far, or a `vaejax.Callback` where it has something to begin
# or to end. It is called on the host after each compiled call, about once a second, and after each
# validation. It has the parameters, `run.params`, and it ends a run by `vaejax.StopTraining`.

# %%
seen = []


class Enough(vaejax.Callback):
    def __call__(self, run):
        seen.append(run.step)
        if run.history["bound"][-50:].mean() > -30:
            raise vaejax.StopTraining


run = train(5_000, callbacks=(Enough(),))
assert run.step == seen[-1] < 5_000 and len(run.history["bound"]) == run.step
assert run.history["bound"][-50:].mean() > -30
print("stopped with a mean bound of", round(float(run.history["bound"][-50:].mean()), 2), "nats")

# %% [markdown]
# The run that was stopped is returned as it is, and saved where there are `Checkpoints`. An error of
# any other kind loses nothing either: the run is in its attribute `run`.

# %%


def broken(run):
    raise RuntimeError("the disk of the log is full")


try:
    train(200, callbacks=(broken,))
except RuntimeError as error:
    saved = error.run
print("the run is here, at step", saved.step)

# %% [markdown]
# Where rows at fixed steps are wanted rather than calls about once a second, derive from
# `vaejax.Log` and say what becomes of them:

# %%


class Printed(vaejax.Log):
    def write(self, rows):
        for row in rows:
            print(row["step"], f"rate {row['rate']:.2f} nats, gradient {row['gradient_norm']:.1f}")


run = train(300, callbacks=(Printed(every=100),))

# %% [markdown]
# ## Exercises
#
# 1. Write a callback that keeps the parameters of every call, and plot the samples of the model
#    along the training with `plots.samples`.
# 2. Stop a run when the gradient's norm has been below 5 for 100 steps. Is the bound flat then?
