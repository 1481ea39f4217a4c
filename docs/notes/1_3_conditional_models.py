# %% [markdown]
# # 1.3 Probabilistic and conditional models
#
# After this page you know what it means that $p_\theta(x) \approx p^*(x)$, how far apart the two
# are in nats, and that regression and classification are one thing: a conditional density whose
# parameters a net gives.

# %%
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax

import vaejax
from vaejax import Free
from vaejax.plots import BLUE, GREY, INK, ORANGE, figure_of, finish, legend

GREEN = "#3a9a5b"

# %% [markdown]
# ## 1.3 Probabilistic models
#
# Data are draws of a process that nobody knows, $x \sim p^*(x)$. A probabilistic model is a family
# of densities, $x \sim p_\theta(x)$, one for each value of the parameters $\theta$, and learning
# looks for the value at which
#
# $$p_\theta(x) \approx p^*(x).$$
#
# On this page we play nature ourselves, so that $p^*$ is known and the sign $\approx$ can be
# measured. Here it is a Gumbel density, lopsided, with a long tail to the right. In vaejax a family
# of densities is a value, and `family(params, given)` is the density at one $\theta$. Nothing is
# given here, so `given` is `None`.

# %%
nature = dist.Gumbel(0.0, 1.0)  # any distribution of NumPyro
x = np.asarray(nature.sample(jax.random.key(0), (1_000, 1)))

families = {
    "normal": vaejax.DiagNormal(Free(1)),
    "Laplace": vaejax.Laplace(Free(1)),
    "3 normals": vaejax.MixtureOfGaussians(1, num_components=3),
}


def log_likelihood(family, params, x, key):
    """log p(x) of one example, nats."""
    return family(params.theta, None).log_prob(x)


def maximise(log_p, theta, support, data, num_steps=500, rate=0.03):
    """The parameters at which the mean log-likelihood of the data is highest."""
    run = vaejax.fit(
        vaejax.minibatch(log_p, support=support),
        vaejax.Params(theta, ()),
        optax.adam(optax.cosine_decay_schedule(rate, num_steps)),
        data,
        jax.random.key(0),
        num_steps=num_steps,
        batch_size=min(1_000, len(jax.tree.leaves(data)[0])),
        progress=False,
    )
    return run.params.theta


theta = {
    name: maximise(
        partial(log_likelihood, family), family.init(jax.random.key(0), None), family.support, x
    )
    for name, family in families.items()
}

# %% [markdown]
# That was maximum likelihood, which section [1.6](1_6_maximum_likelihood.md) is about. For the
# normal it has a closed form, the mean and the standard deviation of the data, and we have reached
# it.

# %%
normal = families["normal"](theta["normal"], None)
assert abs(normal.loc[0] - x.mean()) < 1e-3 and abs(jnp.exp(normal.log_scale[0]) - x.std()) < 1e-3
print(f"mean {normal.loc[0]:.4f}, by hand {x.mean():.4f}")
print(f"scale {jnp.exp(normal.log_scale[0]):.4f}, by hand {x.std():.4f}")

# %% [markdown]
# How good is $\approx$? The distance that belongs to likelihood is the Kullback-Leibler divergence,
#
# $$\mathrm{KL}(p^* \,\|\, p_\theta)
#   = \int p^*(x)\, [\log p^*(x) - \log p_\theta(x)]\, dx \;\ge\; 0,$$
#
# zero only where the two are equal. It is the number of nats that $p_\theta$ loses to the truth on
# an average draw. In one dimension we can integrate: a sum over a fine grid.

# %%
grid = jnp.linspace(-4.0, 20.0, 4_001)
log_nature = nature.log_prob(grid)
weight = jnp.exp(log_nature) * (grid[1] - grid[0])  # p*(x) dx
assert abs(weight.sum() - 1) < 1e-5

log_p = {
    name: jax.vmap(family(theta[name], None).log_prob)(grid[:, None])
    for name, family in families.items()
}
kl = {name: float(jnp.sum(weight * (log_nature - values))) for name, values in log_p.items()}
assert 0 < kl["3 normals"] < kl["normal"] and kl["Laplace"] > 0
for name, nats in kl.items():
    print(f"KL(p* || {name + ')':10s} = {nats:.4f} nats")

# %%
figure, [[axes]] = figure_of(size=(6, 3.4))
axes.fill_between(grid, jnp.exp(log_nature), color=GREY, alpha=0.35, lw=0, label="p*(x)")
for (name, values), colour in zip(log_p.items(), (BLUE, GREEN, ORANGE), strict=True):
    axes.plot(grid, jnp.exp(values), color=colour, label=f"{name}: {kl[name]:.3f} nats away")
finish(axes, xlabel="x", ylabel="density", xlim=(-3.5, 7.5), ylim=(0, None))
legend(axes)
figure

# %% [markdown]
# A model is wrong in the way its family is: the normal is symmetric, and so it gives mass to
# numbers far on the left, where nature has almost none. A richer family comes closer. Most of this
# book is about one way to make families rich: latent variables and nets.
#
# ## 1.3.1 Conditional models
#
# Often we want to know one thing from another, and model
#
# $$p_\theta(y \mid x) \approx p^*(y \mid x).$$
#
# The input $x$ is given; no effort is spent on its own distribution. A **conditional** of vaejax is
# such a family: a net reads $x$ and gives the parameters of a density of $y$. The kind of $y$
# decides which density. Real numbers: a normal, and we call it regression. One of a few classes: a
# categorical, and we call it classification. Nothing else differs.
#
# ### Regression
#
# Nature draws $y = \sin 2x + s(x)\, \varepsilon$ with noise whose scale $s$ grows with $x$. Two
# models: a net for the mean and one number for the scale, and a net with two heads, a mean and a
# scale that both depend on $x$.


# %%
def noise_scale(x):
    return 0.05 + 0.15 * (x + 2)


def true_density(x):
    """p*(y | x)."""
    return vaejax.distributions.DiagNormalDensity(jnp.sin(2 * x), jnp.log(noise_scale(x)))


def draw(size, seed):
    x_key, y_key = jax.random.split(jax.random.key(seed))
    x = jax.random.uniform(x_key, (size, 1), minval=-2, maxval=2)
    y = jax.vmap(lambda x, key: true_density(x).sample(key))(x, jax.random.split(y_key, size))
    return {"x": np.asarray(x), "y": np.asarray(y)}


data, fresh = draw(400, seed=0), draw(10_000, seed=1)

conditionals = {
    "one scale": vaejax.Gaussian(vaejax.MLP(1, hidden=(20, 20)), scale="learned"),
    "a scale for each x": vaejax.DiagNormal(vaejax.MLP(1, hidden=(20, 20), heads=2)),
}


def log_conditional(conditional, params, example, key):
    """log p(y | x) of one example, nats."""
    return conditional(params.theta, example["x"]).log_prob(example["y"])


supports = {"x": vaejax.supports.REAL, "y": vaejax.supports.REAL}
fitted = {
    name: maximise(
        partial(log_conditional, conditional),
        conditional.init(jax.random.key(0), data["x"][0]),
        supports,
        data,
        num_steps=800,
        rate=0.01,
    )
    for name, conditional in conditionals.items()
}

# %% [markdown]
# On fresh data we compare the mean of $\log p_\theta(y \mid x)$ with that of the truth. Their
# difference estimates the divergence from $p^*(y \mid x)$, averaged over $x$, and that is known in
# closed form here, for both are normal: `vaejax.kl_divergence`. The two agree within five standard
# errors.


# %%
def log_densities(density_at):
    """log p(y | x) of the fresh examples, [n]."""
    return jax.vmap(lambda x, y: density_at(x).log_prob(y))(fresh["x"], fresh["y"])


def divergences(density_at):
    """KL(p*(y | x) || p(y | x)) at the fresh x, [n], nats."""
    return jax.vmap(lambda x: vaejax.kl_divergence(true_density(x), density_at(x)))(fresh["x"])


log_true = log_densities(true_density)
print("model                 log p(y | x)    lost to p*    KL, closed form")
for name, conditional in conditionals.items():
    density_at = partial(conditional, fitted[name])
    lost, closed_form = log_true - log_densities(density_at), divergences(density_at)
    error = jnp.std(lost - closed_form) / jnp.sqrt(len(lost))
    assert abs(jnp.mean(lost - closed_form)) < 5 * error
    means = log_densities(density_at).mean(), lost.mean(), closed_form.mean()
    print(f"{name:20s} {means[0]:11.3f} {means[1]:14.3f} {means[2]:15.3f}")
print(f"{'the truth':20s} {log_true.mean():11.3f}")

# %%
figure, panels = figure_of(columns=2, size=(7.2, 3.3), sharey=True)
grid = np.linspace(-2, 2, 200, dtype=np.float32)[:, None]
for axes, (name, conditional) in zip(panels[0], conditionals.items(), strict=True):
    density = jax.vmap(partial(conditional, fitted[name]))(grid)
    mean, scale = density.loc[:, 0], jnp.exp(density.log_scale[:, 0])
    axes.scatter(data["x"], data["y"], s=6, color=GREY, linewidths=0)
    band = {"color": BLUE, "alpha": 0.25, "linewidth": 0}
    axes.fill_between(grid[:, 0], mean - 2 * scale, mean + 2 * scale, **band)
    axes.plot(grid, mean, color=BLUE, label="mean ± 2 scales")
    axes.plot(grid, np.sin(2 * grid), color=INK, ls=":", label="true mean")
    finish(axes, title=name, xlabel="x", ylim=(-2.6, 2.6))
panels[0, 0].set_ylabel("y")
legend(panels[0, 0], "upper left")
figure

# %% [markdown]
# Both have nearly the same mean. But a model of $p(y \mid x)$ also says how sure it is, and the
# left one is too unsure where $x$ is small and too sure where it is large. The likelihood charges
# for both.
#
# ### Classification
#
# $y$ is one of ten digits, as a one-hot vector, and $x$ an image of 8 x 8 pixels. The net gives ten
# logits:
#
# $$p_\theta(y \mid x)
#   = \mathrm{Categorical}\big(y;\, \mathrm{softmax}(\mathrm{net}_\theta(x))\big).$$

# %%
digits = vaejax.load_dataset("digits")
classifier = vaejax.OneHotCategorical(vaejax.MLP(10, hidden=(64,)))


def labelled(split):
    images = split.images.astype(np.float32) / digits.maximum
    return {"x": images, "y": np.eye(10, dtype=np.float32)[split.labels]}


train, test = labelled(digits.train), labelled(digits.test)
weights = maximise(
    partial(log_conditional, classifier),
    classifier.init(jax.random.key(0), train["x"][0]),
    {"x": vaejax.supports.REAL, "y": classifier.support},
    train,
    num_steps=200,
)
log_p = jax.vmap(lambda x, y: classifier(weights, x).log_prob(y))(test["x"], test["y"])
probability = jax.vmap(lambda x: classifier(weights, x).mean())(test["x"])
right = jnp.argmax(probability, 1) == jnp.argmax(test["y"], 1)

logits = jax.vmap(classifier.logits, (None, 0))(weights, test["x"])
by_hand = jnp.sum(test["y"] * jax.nn.log_softmax(logits), axis=1)
assert jnp.allclose(log_p, by_hand, atol=1e-5)
assert jnp.allclose(probability.sum(1), 1, atol=1e-6)
print(f"log p(y | x) of {len(log_p)} test images: {log_p.mean():.3f} nats")
print(f"the likeliest class is right for {100 * right.mean():.1f} % of them")

# %% [markdown]
# What is called *cross-entropy loss* elsewhere is minus this log-likelihood. And the output is not
# a class, it is a distribution: for the three test images of which the model is least sure, here is
# what it thinks.

# %%
unsure = np.argsort(probability.max(1))[:3]
figure, panels = figure_of(rows=2, columns=3, size=(6.4, 3.4), height_ratios=[1.1, 1])
for column, row in enumerate(unsure):
    image, bars = panels[:, column]
    image.imshow(test["x"][row], cmap="gray_r")
    image.axis("off")
    label = int(digits.test.labels[row])
    colours = [ORANGE if c == label else BLUE for c in range(10)]
    bars.bar(range(10), probability[row], color=colours)
    bars.set_xticks(range(10))
    finish(bars, ylim=(0, 1), xlabel=f"y; orange: its label, {label}")
panels[1, 0].set_ylabel("p(y | x)")
figure

# %% [markdown]
# Both kinds at full scale, and conditional models in the other direction, an image given its class
# or its upper half, are in
# [`conditional_models.py`](https://github.com/vaejax/vaejax/blob/main/experiments/graphs/conditional_models.py).
#
# ## Exercises
#
# **1.** Least squares is maximum likelihood, of which family? Show it with one line of code.
#
# ??? example "Solution"
#     Of a normal with a fixed scale: up to a constant, $\log p(y \mid x)$ is
#     $-\tfrac12 (y - \mathrm{net}(x))^2$.
#
#     ```python
#     fixed = vaejax.Gaussian(vaejax.MLP(1, hidden=(20, 20)), scale=1.0)
#     net = fixed.init(jax.random.key(0), data["x"][0])
#     x, y = data["x"][0], data["y"][0]
#     square = (y - fixed(net, x).mean()) ** 2
#     by_hand = -0.5 * square.sum() - 0.5 * jnp.log(2 * jnp.pi)
#     assert abs(fixed(net, x).log_prob(y) - by_hand) < 1e-6
#     ```
#
# **2.** Give the regression a Laplace density, `vaejax.Laplace(vaejax.MLP(1, hidden=(20, 20),
# heads=2))`. The noise is normal, so nothing can be gained. How much is lost?
#
# ??? example "Solution"
#     ```python
#     heavy = vaejax.Laplace(vaejax.MLP(1, hidden=(20, 20), heads=2))
#     start = heavy.init(jax.random.key(0), data["x"][0])
#     theta_heavy = maximise(partial(log_conditional, heavy), start, supports, data, 800, 0.01)
#     lost = log_true - log_densities(partial(heavy, theta_heavy))
#     print(f"lost to the truth: {lost.mean():.3f} nats")
#     ```
#
# **3.** Fit `vaejax.MixtureOfGaussians(1, num_components=1)` to the data of the first section.
# Before you run it: how many nats away will it be?
#
# In the API: [conditionals and priors](../api/models.md), [densities](../api/distributions.md).
# Next: [1.4 Directed graphs](1_4_directed_graphs.md).
