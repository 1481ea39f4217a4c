# %% [markdown]
# # Compare three estimators
#
# After this page you can measure the variance, the bias and the price of any estimators on a model
# of yours, with intervals.

# %%
import jax
import optax

import vaejax

data, pixels = vaejax.prepare_pixels(vaejax.load_dataset("digits"), "threshold")
model = vaejax.VAE(
    prior=vaejax.StandardNormal(4),
    likelihood=vaejax.Bernoulli(vaejax.MLP((8, 8), hidden=(64,))),
    encoder=vaejax.DiagNormal(vaejax.MLP(4, hidden=(64,), heads=2)),
)
init_key, fit_key, draw_key = jax.random.split(jax.random.key(0), 3)
xs = jax.vmap(pixels)(data.train.images[:20], jax.random.split(init_key, 20))
run = vaejax.fit(
    vaejax.minibatch(vaejax.AnalyticKL(), model),
    model.init(init_key, xs[0]),
    optax.adam(2e-3),
    data.train.images,
    fit_key,
    num_steps=1_000,
    batch_size=100,
    transform=pixels,
    progress=False,
)

estimators = {
    "Pathwise": vaejax.Pathwise(),
    "StickTheLanding": vaejax.StickTheLanding(),
    "ScoreFunction": vaejax.ScoreFunction(2),
}
moments = {
    name: vaejax.gradient_moments(
        vaejax.minibatch(estimator, model), run.params, xs, draw_key, 400, order=2, by="draws"
    )
    for name, estimator in estimators.items()
}
print(f"{'variance in phi':<18}{'and its interval':>22}{'of Pathwise':>22}{'decoder':>10}")
for name, estimator in estimators.items():
    spread = vaejax.gradient_spread(moments[name])["phi"]
    ratio = vaejax.variance_ratio(moments[name], moments["Pathwise"], "phi")
    used = vaejax.decoder_evaluations(estimator, model, run.params, xs[0], draw_key)
    interval = f"{spread.trace:.2f} ({spread.low:.2f}-{spread.high:.2f})"
    relative = f"{ratio.ratio:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"
    print(f"{name:<18}{interval:>22}{relative:>22}{f'{used.forward} + {used.backward}':>10}")

# %% [markdown]
# ## What each line is for
#
# - `gradient_moments` draws the gradient 400 times, in memory that does not grow with the number.
#   What is measured is the noise at one fixed minibatch `xs`.
# - All have the same `draw_key`: common random numbers. So the *ratio* has a much narrower interval
#   than either variance.
# - `"phi"` is a group of parameters; the others are `"theta likelihood"` and, where the prior
#   learns, `"theta prior"`.
# - `decoder_evaluations` counts $p(x \mid z)$ in the program, forward and backward, for one
#   example. For time and memory there is `vaejax.gradient_cost`.
#
# ## The exact check
#
# All three have one mean. Each is held against `Pathwise`, parameter by parameter; p is the
# probability of so large a deviation by chance.

# %%
reference = moments["Pathwise"]
error = jax.tree.map(lambda variance: (variance / reference.num_draws) ** 0.5, reference.variance)
for name in ("StickTheLanding", "ScoreFunction"):
    bias = vaejax.gradient_bias(moments[name], reference.mean, error)
    print(
        f"{name:<18}largest deviation {bias.largest_z:.1f} standard errors, p = {bias.p_value:.2g}"
    )
    assert bias.p_value > 1e-6

# %% [markdown]
# Compare estimators of one bound only: the numbers of `Pathwise()` and of `DReG(8)` are of two
# different gradients. What to take, and why: [choose an estimator](../choose/estimator.md). Along a
# whole training, from the command line, with a table and figures:
#
#     python experiments/gradients/gradient_variance.py \
#         --estimators pathwise stick-the-landing score-function:2
#
# The script is in the repository, not in the package:
# [gradient_variance.py](https://github.com/vaejax/vaejax/blob/main/experiments/gradients/gradient_variance.py).
