# %% [markdown]
# # Schedules, and an average of the parameters
#
# After this page you can let the learning rate and the weight of the KL change along a run, see both
# in the history, and evaluate an average of the parameters in place of the last ones.

# %%
import textwrap

import jax
import numpy as np
import optax

import vaejax
from vaejax import plots

digits, pixels = vaejax.prepare_pixels(vaejax.load_dataset("digits"), "threshold")
model = vaejax.VAE(
    prior=vaejax.StandardNormal(6),
    likelihood=vaejax.Bernoulli(vaejax.MLP((8, 8), hidden=(64,))),
    encoder=vaejax.DiagNormal(vaejax.MLP(6, hidden=(64,), heads=2)),
)
key = jax.random.key(0)
start = model.init(key, pixels(digits.train.images[0], key))
NUM_STEPS = 1_000


def train(optimizer, estimator=vaejax.Pathwise(), num_steps=NUM_STEPS, **settings):
    """A run of this page."""
    return vaejax.fit(
        vaejax.minibatch(estimator, model),
        start,
        optimizer,
        digits.train.images,
        key,
        num_steps=num_steps,
        batch_size=50,
        transform=pixels,
        progress=False,
        **settings,
    )


# %% [markdown]
# ## The learning rate
#
# Any schedule of Optax goes where the rate goes. `optax.inject_hyperparams` keeps the rate in the
# optimiser's state, so that the history has it; without it the run is the same, and the history has
# no `learning_rate`.

# %%
schedule = optax.warmup_cosine_decay_schedule(
    init_value=0.0, peak_value=5e-3, warmup_steps=100, decay_steps=NUM_STEPS
)
run = train(optax.inject_hyperparams(optax.adam)(learning_rate=schedule))
rates = run.history["learning_rate"]
expected = np.array([schedule(step) for step in range(0, NUM_STEPS, 100)])
assert np.abs(rates[::100] - expected).max() < 1e-8

figure, [[axes]] = plots.figure_of(size=(6, 2.6))
axes.plot(rates, color=plots.BLUE)
plots.finish(axes, xlabel="step", ylabel="learning rate")
figure

# %% [markdown]
# From the command line it is `vaejax train --schedule cosine`.
#
# ## The weight of the KL
#
# A warm-up multiplies the KL by $\beta$, which rises from 0 to 1:
# $\mathbb{E}_q \log p(x \mid z) - \beta_t \, \mathrm{KL}(q \,\|\, p)$. `objective` in the history is
# that, what training maximises; `bound` stays the ELBO, with $\beta = 1$.

# %%
warm = train(optax.adam(5e-3), vaejax.Beta(vaejax.WarmUp(400)))
cold = train(optax.adam(5e-3))
beta = np.minimum(np.arange(NUM_STEPS) / 400, 1)
history = warm.history
weighted = history["reconstruction"] - beta * history["rate"]
assert np.abs(weighted - history["objective"]).max() < 1e-3

figure, [[axes]] = plots.figure_of(size=(6, 3))
for name, run, colour in (("warm-up", warm, plots.ORANGE), ("none", cold, plots.BLUE)):
    axes.plot(run.history["rate"], color=colour, lw=1, label=name)
plots.finish(axes, xlabel="step", ylabel="rate (nats per example)")
plots.legend(axes, "upper right")
figure

# %% [markdown]
# While the weight is low the code is cheap, and says more. `fit` holds the length of a schedule
# against that of the run: a warm-up that would not end is refused before anything compiles.

# %%
try:
    train(optax.adam(5e-3), vaejax.Beta(vaejax.WarmUp(400)), num_steps=300)
except ValueError as error:
    print(textwrap.fill(str(error), 80))

# %% [markdown]
# ## An average of the parameters
#
# The last parameters jump about the optimum with the noise of the gradient. An exponential average
# of them, $a_t = d\, a_{t-1} + (1 - d)\, \theta_t$, $a_0 = \theta_0$, does so less, and costs nothing
# but its memory. `vaejax.Averaged` goes around any optimiser, and changes nothing of what it does:

# %%
optimizer = optax.adam(5e-3)
plain, averaged = train(optimizer), train(vaejax.Averaged(optimizer, decay=0.99))
same = jax.tree.map(lambda a, b: bool((a == b).all()), plain.params, averaged.params)
assert all(jax.tree.leaves(same))

test = digits.test.images
bounds = {
    "the last parameters": averaged.params,
    "their average": vaejax.averaged_params(averaged),
}
for name, params in bounds.items():
    evaluation = vaejax.evaluate(model, params, test, key, num_samples=10, transform=pixels)
    mean, error = evaluation.elbo
    print(f"{name:<20} test ELBO {mean:.2f} ± {error:.2f} nats")

# %% [markdown]
# The two are of the same examples and the same noise, so the difference is known far better than
# either ± says, which is mostly how much harder one digit is than another.
#
# That the average is what its formula says, after one step:

# %%
steps = [start]
short = train(vaejax.Averaged(optimizer, decay=0.9), num_steps=1)
steps.append(short.params)
by_hand = jax.tree.map(lambda first, second: 0.9 * first + 0.1 * second, *steps)
pairs = zip(*map(jax.tree.leaves, (by_hand, vaejax.averaged_params(short))), strict=True)
largest = max(float(abs(a - b).max()) for a, b in pairs)
assert largest < 1e-6
print(f"largest difference from the formula {largest:.1e}")

# %% [markdown]
# The average is in the optimiser's state. So it is in every checkpoint, and a run that goes on has it
# to the bit. The validations of `fit`, and its patience, are of the parameters themselves;
# `vaejax.Validation(data, params_of=vaejax.averaged_params)` makes them those of the average, so that
# `run.best_params` is the best average. The command `vaejax train --average 0.99` does all of this.
#
# It looks back over about $1 / (1 - d)$ steps: 100 here. With $d = 0.999$ a run of 1,000 steps would
# still have $0.999^{1000} = 37\%$ of the start in it.
#
# ## Exercises
#
# 1. With the cosine schedule, whose rate ends at 0, what is left for the average to gain?
# 2. `vaejax.Cyclical(200)` in place of the warm-up: what does the rate do at each cycle?
