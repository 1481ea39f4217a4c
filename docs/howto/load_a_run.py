# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Load a run
#
# After this page you can open a trained run by one line, evaluate it, look at its history and its
# checkpoints, and go on with its model.
#
# A small run comes first, made by the command; yours is in the folder that `--out` named.

# %%
import json
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import jax
import numpy as np

import vaejax
from vaejax import plots


def trained(flags, out):
    """What `vaejax train` prints last."""
    command = [sys.executable, "-m", "vaejax", "train", *flags.split(), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


place = Path(tempfile.mkdtemp())
flags = "--num-steps 600 --validate-every 200 --checkpoint-every 200 --hidden 64 --eval-samples 20"
result = trained(flags, place / "run")
names = sorted(path.name for path in (place / "run").iterdir())
print(textwrap.fill("files: " + ", ".join(names), 80))

# %% [markdown]
# ## One line
#
# `open_run` reads the configuration, loads the data, builds the model, and reads the parameters
# of the newest checkpoint. It refuses what does not belong together: data that
# have changed, a model that this version makes otherwise. Nothing in the folder changes.

# %%
run = vaejax.open_run(place / "run")
print("prior     ", run.model.prior)
print(textwrap.fill(f"data       {run.dataset.source}", 80))
print("step      ", run.step)
print("parameters", sum(leaf.size for leaf in jax.tree.leaves(run.params)))

# %% [markdown]
# ## The same numbers
#
# Training evaluated its test set with the third of four keys that its seed gives. With the same
# key, the ELBO is the same number.

# %%
key = jax.random.split(jax.random.key(run.config.seed), 4)[2]
images = run.dataset.test.images
evaluation = vaejax.evaluate(
    run.model, run.params, images, key, num_samples=20, transform=run.transform
)
assert abs(evaluation.elbo.mean - result["test_elbo"]) < 1e-3
print(f"ELBO {evaluation.elbo.mean:.3f} nats, and result.json says {result['test_elbo']:.3f}")

# %% [markdown]
# ## One example
#
# The transform makes an example of a stored image, here by drawing its pixels. The functions of
# the library take one example.

# %%
pixels_key, z_key = jax.random.split(jax.random.key(0))
x = run.transform(images[0], pixels_key)
q = run.model.posterior(run.params, x)
z = q.sample(z_key)
log_w = run.model.log_joint(run.params, x, z) - q.log_prob(z)
print(f"q(z|x) is around ({q.loc[0]:.2f}, {q.loc[1]:.2f})")
print(f"log p(x, z) - log q(z|x) = {log_w:.2f} nats at one z")

# %% [markdown]
# ## The history, and a picture
#
# `run.history` has the bound of each step and of each validation, over all that was trained,
# resumed or not. The other [pictures](pictures.md) take the model and its parameters:
# `plots.traverse(run.model, run.params, x, z_key)` shows what each latent does to `x`.

# %%
assert len(run.history["bound"]) == run.step
assert run.history["validation_step"].tolist() == [200, 400, 600]
plots.curves(run.history, run.dataset.name)

# %% [markdown]
# ## Checkpoints
#
# Those that were kept are runs too: `run.checkpoints[400]`. `run.params_at(400)` are the
# parameters of that step, `run.params_at("best")` those of the best validation; `open_run(folder,
# 400)` takes them from the start.

# %%
for step in sorted(run.checkpoints):
    params = run.params_at(step)
    found = vaejax.evaluate(
        run.model, params, images[:100], key, num_samples=10, transform=run.transform
    )
    print(f"step {step}: ELBO {found.elbo.mean:.2f} ± {found.elbo.standard_error:.2f} nats")

# %% [markdown]
# ## Data that have moved
#
# A run on your own data keeps their place and their digests. If the file lies elsewhere now, name
# its folder. Other contents are refused.

# %%
np.save(place / "table.npy", np.random.default_rng(0).normal(size=(200, 3)))
flags = "--likelihood gaussian --binarisation none --hidden 8 --num-steps 20 --eval-samples 5"
trained(f"{flags} --data {place / 'table.npy'}", place / "own")

(place / "moved").mkdir()
(place / "table.npy").rename(place / "moved" / "table.npy")
try:
    vaejax.open_run(place / "own")
except FileNotFoundError as error:
    print(textwrap.fill(str(error).replace(str(place), "..."), 80))
moved = vaejax.open_run(place / "own", data_folder=str(place / "moved"))
print(textwrap.fill(moved.dataset.source.replace(str(place), "..."), 80))
