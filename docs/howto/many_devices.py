# %% [markdown]
# # Many devices
#
# After this page you can train one model on several devices at once, or several seeds on a device
# each, and know what stays equal.
#
# A CPU serves for trying: one line makes two devices of it, before JAX does anything else. On a
# machine with several GPUs leave that line out.

# %%
import textwrap

import jax
import numpy as np
import optax

import vaejax

jax.config.update("jax_num_cpu_devices", 2)

data, pixels = vaejax.prepare_pixels(vaejax.load_dataset("digits"), "dynamic")
model = vaejax.VAE(
    prior=vaejax.StandardNormal(4),
    likelihood=vaejax.Bernoulli(vaejax.MLP((8, 8), hidden=(64,))),
    encoder=vaejax.DiagNormal(vaejax.MLP(4, hidden=(64,), heads=2)),
)
init_key, fit_key = jax.random.split(jax.random.key(0))
params = model.init(init_key, pixels(data.train.images[0], init_key))
objective = vaejax.minibatch(vaejax.AnalyticKL(), model)
optimizer, images = optax.adam(1e-3), data.train.images
settings = {"num_steps": 300, "batch_size": 100, "transform": pixels, "progress": False}

mesh = jax.make_mesh((2,), ("data",))
run = vaejax.fit(objective, params, optimizer, images, fit_key, mesh=mesh, **settings)
print(f"{len(jax.devices())} devices; the last bound is {run.history['bound'][-1]:.2f} nats")

# %% [markdown]
# ## What each line is for
#
# - `jax.make_mesh((2,), ("data",))` is JAX's own mesh. `fit` shards each batch over the axis named
#   `"data"`; parameters and stored data lie on every device. The batch size must be a multiple of
#   the number of devices, and is that of all of them together.
# - Nothing else changes: the model, the objective and the optimiser know of no device.
#
# ## What stays equal
#
# The order of the data and all noise are functions of (key, step), and not of the device. So a run
# on two devices is the run on one, but for rounding: the same examples, the same binarised pixels,
# the same $\varepsilon$.

# %%
alone = vaejax.fit(objective, params, optimizer, images, fit_key, **settings)
first = np.abs(run.history["bound"][:10] - alone.history["bound"][:10]).max()
later = np.abs(run.history["bound"] - alone.history["bound"]).max()
print(
    f"the bound differs by at most {first:.1e} nats in the first 10 steps, {later:.1e} in all 300"
)
assert first < 1e-3
assert later < 0.1

# %% [markdown]
# A run that was cut off on eight GPUs resumes on one: the mesh is not part of what
# [resuming](resume.md) compares.
#
# ## Several seeds, a device each
#
# `fit_seeds` trains the same model from several seeds in one call. On a CPU each device takes its
# share of the seeds; on a GPU all of them go into one program. Each seed is the run that `fit`
# alone gives with its key.

# %%
keys = jax.random.split(jax.random.key(1), 2)
starts = jax.vmap(model.init, (0, None))(keys, pixels(images[0], init_key))
seeds = vaejax.fit_seeds(objective, starts, optimizer, images, keys, **settings)
bounds = seeds.history["bound"][:, -50:].mean(axis=1)
print("bound of the last 50 steps, by seed:", ", ".join(f"{bound:.2f}" for bound in bounds), "nats")

start = jax.tree.map(lambda leaf: leaf[0], starts)
single = vaejax.fit(objective, start, optimizer, images, keys[0], **settings)
difference = np.abs(seeds.history["bound"][0] - single.history["bound"]).max()
print(f"seed 0 alone differs by at most {difference:.1e} nats")
assert difference < 0.1

# %% [markdown]
# ## What goes wrong, and what you are told
#
# A batch that the devices cannot share, before anything compiles:

# %%
try:
    vaejax.fit(objective, params, optimizer, images, fit_key, mesh=mesh, num_steps=1, batch_size=25)
except ValueError as error:
    print(textwrap.fill(str(error), 80))

# %% [markdown]
# The number of CPU devices is set once, before JAX's first computation; JAX says so in a
# `RuntimeError` if it is too late. From outside of the script the same is
# `JAX_NUM_CPU_DEVICES=2 python my_script.py`. Two devices on one CPU share its cores: this tries
# the code, and is no faster for a model of this size.
