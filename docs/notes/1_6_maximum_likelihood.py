# %% [markdown]
# # 1.6 Maximum likelihood and minibatches
#
# After this page you have seen, with every minibatch of a small data set, that the scaled gradient
# of a minibatch is unbiased and what its variance is; you know what maximum likelihood minimises;
# and you can put a posterior on the parameters where one value is not enough.

# %%
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
from jax.flatten_util import ravel_pytree
from jax.scipy.special import logit

import vaejax
from vaejax import DirectedGraph, Node, Table
from vaejax.plots import BLUE, GREY, INK, ORANGE, figure_of, finish, legend

# %% [markdown]
# ## 1.6 Maximum likelihood
#
# The most common way to fit a model is to make the data likely:
#
# $$\hat\theta = \arg\max_\theta\, \log p_\theta(\mathcal{D})
#   = \arg\max_\theta \sum_{n=1}^N \log p_\theta(x^{(n)}).$$
#
# Each step of gradient ascent wants the gradient of all $N$ terms. If $N$ is large, that is a
# waste: a few terms say almost the same. A **minibatch** $\mathcal{M}$ is $M$ of the $N$ examples,
# drawn without replacement, and its sum is scaled up:
#
# $$\nabla_\theta \log p_\theta(\mathcal{D}) \;\approx\;
#   \frac{N}{M} \sum_{n \in \mathcal{M}} \nabla_\theta \log p_\theta(x^{(n)}).$$
#
# ### It is unbiased: a proof that runs
#
# On paper: there are $\binom{N}{M}$ minibatches, all equally likely, and example $n$ is in
# $\binom{N-1}{M-1}$ of them, the fraction $M/N$. So each term is in the expectation with the weight
# $\frac{N}{M} \cdot \frac{M}{N} = 1$, and the expectation is the full gradient.
#
# In code: take a small data set, and really go through *all* minibatches. The model is a net with
# two heads, a mean and a scale, as in [1.3.1](1_3_conditional_models.md), and the numbers are in
# double precision, so that equal means equal.

# %%
regression = vaejax.DiagNormal(vaejax.MLP(1, hidden=(5,), heads=2))
N = 8
supports = {"x": vaejax.supports.REAL, "y": vaejax.supports.REAL}


def log_conditional(params, example, key):
    """log p(y | x) of one example, nats."""
    return regression(params.theta, example["x"]).log_prob(example["y"])


# N/M times the sum over a batch of M, an estimate of log p(D)
scaled = vaejax.minibatch(log_conditional, support=supports, dataset_size=N)


@jax.jit
def gradient(params, xs):
    """Of the estimate by this batch, all parameters in a row."""

    def value(params):
        return scaled(params, xs, jax.random.key(0), 0).objective

    return ravel_pytree(jax.grad(value)(params))[0]


def batch(rows):
    """These rows of the data; of several sets of rows, as many batches."""
    return jax.tree.map(lambda leaf: leaf[rows], data)


with jax.enable_x64(True):
    x = jnp.linspace(-2, 2, N)[:, None]
    data = {"x": x, "y": jnp.sin(2 * x) + 0.3 * jax.random.normal(jax.random.key(1), x.shape)}
    theta = regression.init(jax.random.key(0), x[0])
    params = vaejax.Params(jax.tree.map(lambda leaf: leaf.astype(jnp.float64), theta), ())

    full = np.asarray(gradient(params, data))  # M = N: the gradient of log p(D)
    by_size = {}  # {M: the gradient of every minibatch of M, [C(N, M), number of parameters]}
    for M in range(1, N + 1):
        rows = np.array(list(itertools.combinations(range(N), M)))
        by_size[M] = np.asarray(jax.vmap(gradient, (None, 0))(params, batch(rows)))

size = np.linalg.norm(full)
print(f"{sum(map(len, by_size.values()))} minibatches, {full.size} parameters")
print(" M   minibatches   |mean of the gradients - full gradient| / |full gradient|")
for M, gradients in by_size.items():
    bias = np.linalg.norm(gradients.mean(0) - full) / size
    assert bias < 1e-13
    print(f"{M:2d} {len(gradients):10d} {bias:24.1e}")

# %% [markdown]
# That is rounding in the last digits: no bias, at any $M$. The factor $N/M$ is what
# `vaejax.minibatch(..., dataset_size=N)` multiplies by. Without `dataset_size` it is the *mean*
# over the batch, nats per example, and the two sides are
#
# $$\frac{1}{N} \log p_\theta(\mathcal{D}) \;\simeq\; \frac{1}{M} \log p_\theta(\mathcal{M})
#   = \frac{1}{M} \sum_{n \in \mathcal{M}} \log p_\theta(x^{(n)}),$$
#
# where $\simeq$ says that the right side is an unbiased estimate of the left one: the same
# direction, in a unit that does not grow with the data.
#
# ### Its variance
#
# What $M$ buys is a smaller variance. With $g_n$ the gradients of the single examples, $\bar g$
# their mean, and $S^2 = \frac{1}{N-1} \sum_n \| g_n - \bar g \|^2$, sampling theory says
#
# $$\mathbb{E}\, \left\| \frac{N}{M} \sum_{n \in \mathcal{M}} g_n - N \bar g
#   \right\|^2 = N^2 \Big(1 - \frac{M}{N}\Big) \frac{S^2}{M}.$$
#
# The factor $1 - M/N$ is there because no example is drawn twice: with $M = N$ nothing is left to
# chance. The library has both parts, $S^2$ as `variance_sources` and the formula as
# `minibatch_variance`; our list of all minibatches has the truth.

# %%
with jax.enable_x64(True):
    sources = vaejax.variance_sources(scaled, params, data, jax.random.key(0), num_draws=2)
    formula = {
        M: vaejax.tree_sum(vaejax.minibatch_variance(sources, M, dataset_size=N)) for M in by_size
    }

enumerated = {M: np.sum((g - full) ** 2, axis=1).mean() for M, g in by_size.items()}
print(" M   all minibatches    formula")
for M in by_size:
    assert abs(enumerated[M] - formula[M]) < 1e-9 * formula[1]
    print(f"{M:2d} {enumerated[M]:16.6f} {formula[M]:10.6f}")

# %%
figure, [[left, right]] = figure_of(columns=2, size=(7.2, 3.2))
steepest = np.argmax(np.abs(full))
for M, gradients in by_size.items():
    left.plot(np.full(len(gradients), M), gradients[:, steepest], ".", color=BLUE, alpha=0.3, ms=5)
    left.plot(M, gradients[:, steepest].mean(), "_", color=ORANGE, ms=18, mew=2)
left.axhline(full[steepest], color=INK, lw=0.8, ls=":")
finish(left, xlabel="M", title="one entry of the gradient", ylabel="each minibatch, and the mean")
sizes = np.array(list(by_size))
with_replacement = formula[1] / sizes
right.plot(sizes, np.sqrt(list(formula.values())) / size, color=BLUE, label="formula")
right.plot(sizes, np.sqrt(list(enumerated.values())) / size, "o", color=ORANGE, label="enumerated")
right.plot(
    sizes, np.sqrt(with_replacement) / size, color=GREY, ls=":", label="if drawn with return"
)
finish(right, xlabel="M", ylim=(0, None), title="error / |full gradient|")
legend(right, "upper right")
figure

# %% [markdown]
# As long as $M$ is far below $N$, four times the examples halve the error, as everywhere in
# statistics, and cost four times as much. While the parameters are far from good a rough direction
# is enough, and small minibatches win. That is *stochastic gradient descent*.
#
# ## 1.6.2 What maximum likelihood minimises
#
# Write $p_\mathcal{D}$ for the distribution of the data: the weight $1/N$ on each example. Then
#
# $$-\frac{1}{N} \log p_\theta(\mathcal{D}) = -\sum_x p_\mathcal{D}(x) \log p_\theta(x)
#   = H(p_\mathcal{D}) + \mathrm{KL}(p_\mathcal{D} \,\|\, p_\theta),$$
#
# and the entropy does not depend on $\theta$. To maximise the likelihood *is* to minimise the
# divergence from the data to the model.
#
# To see it we train a graph whose states can be counted: the garden of
# [1.4](1_4_directed_graphs.md), four binary nodes, so 16 states. Its parameters are to be learned
# from 500 days. Every node is observed, so $\log p_\theta(x)$ is one call.


# %%
def node(name, *parents):
    return Node(name, vaejax.Bernoulli(Table(1, (2,) * len(parents))), parents)


garden = DirectedGraph(
    (
        node("cloudy"),
        node("sprinkler", "cloudy"),
        node("rain", "cloudy"),
        node("wet", "sprinkler", "rain"),
    )
)
truth = {
    "cloudy": {"logits": logit(jnp.array([0.5]))},
    "sprinkler": {"logits": logit(jnp.array([[0.5], [0.1]]))},
    "rain": {"logits": logit(jnp.array([[0.2], [0.8]]))},
    "wet": {"logits": logit(jnp.array([[[0.05], [0.90]], [[0.90], [0.95]]]))},
}
days = jax.vmap(garden(truth).sample)(jax.random.split(jax.random.key(4), 500))
days = jax.tree.map(np.asarray, days)


def log_likelihood(params, x, key):
    """log p(x) of one day, nats."""
    return garden(params.theta).log_prob(x)


path = []  # (step, theta) along the training
run = vaejax.fit(
    vaejax.minibatch(log_likelihood, support=garden.support),
    vaejax.Params(garden.init(jax.random.key(0)), ()),
    optax.sgd(optax.cosine_decay_schedule(2.0, 1_000)),
    days,
    jax.random.key(0),
    num_steps=1_000,
    batch_size=20,
    validation=vaejax.Validation(days, every=10),  # so that the callback sees each tenth step
    callbacks=(lambda run: path.append((run.step, run.params.theta)),),
    progress=False,
)

# %% [markdown]
# Along the path we compute both sides. One is a mean over the 500 days. The other is a sum over
# the 16 states, $p_\mathcal{D}$ being their frequencies.

# %%
states = garden(truth).states()  # {node: [16, 1]}
log_p = jax.jit(lambda theta, xs: jax.vmap(garden(theta).log_prob)(xs))
names = list(states)
is_state = np.all(
    [days[name][:, None] == np.asarray(states[name])[None] for name in names], axis=(0, 3)
)
frequency = is_state.mean(0)  # p_D of each state
seen = frequency > 0
entropy = -np.sum(frequency[seen] * np.log(frequency[seen]))

steps = np.array([step for step, _ in path])
loss = -np.array([log_p(theta, days) for _, theta in path], np.float64).mean(1)
on_states = np.array([log_p(theta, states) for _, theta in path], np.float64)[:, seen]
kl = np.sum(frequency[seen] * (np.log(frequency[seen]) - on_states), axis=1)

assert np.abs(loss - entropy - kl).max() < 1e-6
print(f"H(data) = {entropy:.4f} nats")
print(f"-log p(D)/N - KL is that along the whole path, to {np.abs(loss - entropy - kl).max():.0e}")

# %%
figure, [[axes]] = figure_of(size=(6, 3.2))
axes.plot(steps, loss, color=ORANGE, label="−log p(D) / N")
axes.plot(steps, kl, color=BLUE, label="KL(data ‖ model)")
axes.plot(steps, loss - kl, color=INK, ls="--", label="their difference: H(data)")
finish(axes, xlabel="step of SGD", ylabel="nats", xscale="log", ylim=(0, None))
legend(axes, "center left", bbox_to_anchor=(0.02, 0.35))
figure

# %% [markdown]
# And where does it end? For tables the maximum is known, the relative frequencies, and SGD has
# found what counting finds:

# %%
wet = days["wet"][:, 0]
print("p(wet | sprinkler, rain)    counted    learned     truth")
for s, r in itertools.product(range(2), repeat=2):
    chosen = (days["sprinkler"][:, 0] == s) & (days["rain"][:, 0] == r)
    counted = wet[chosen].mean()
    learned, true = (
        float(jax.nn.sigmoid(theta["wet"]["logits"][s, r, 0]))
        for theta in (run.params.theta, truth)
    )
    assert abs(counted - learned) < 0.02
    print(f"              {s}          {r} {counted:10.3f} {learned:10.3f} {true:9.3f}")

# %% [markdown]
# ## 1.6.3 Bayesian inference
#
# Maximum likelihood gives one $\hat\theta$ and does not say how sure it is. If $\theta$ is a random
# variable with a prior, the data update it by Bayes' rule,
#
# $$p(\theta \mid \mathcal{D}) = \frac{p(\theta) \prod_n p(x^{(n)} \mid \theta)}{p(\mathcal{D})},
#   \qquad p(\mathcal{D}) = \int p(\theta) \prod_n p(x^{(n)} \mid \theta)\, d\theta,$$
#
# its mode $\arg\max_\theta\, [\log p(\theta) + \log p(\mathcal{D} \mid \theta)]$ is the *maximum a
# posteriori* (MAP), and predictions average over what is still possible,
#
# $$p(x \mid \mathcal{D}) = \int p(x \mid \theta)\, p(\theta \mid \mathcal{D})\, d\theta.$$
#
# As a graph, $\theta$ is one more node, above the data. A coin whose probability of heads has a
# Beta(2, 2) prior is thrown ten times, eight times heads. The ten throws are one node, and the net
# of its conditional only copies $\theta$, ten times, as a logit.


# %%
@vaejax.component
class Copied:
    """logit(theta), so many times: a net without parameters."""

    times: int

    def init(self, key, theta):
        return ()

    def apply(self, params, theta):
        return jnp.full(self.times, logit(theta[0]))


a, b = 2.0, 2.0
coin = DirectedGraph(
    (
        Node("theta", vaejax.NumPyroPrior(lambda: dist.Beta(a, b).expand([1]).to_event(1))),
        Node("throws", vaejax.Bernoulli(Copied(10)), "theta"),
    )
)
throws = jnp.array([1, 1, 0, 1, 1, 1, 1, 0, 1, 1.0])
heads, tails = 8, 2

# %% [markdown]
# `condition` gives $p(\theta \mid \mathcal{D})$ up to its constant as `log_joint`. With one
# number a grid does the integral, and the Beta prior has all answers in closed form to check.

# %%
given = coin(coin.init(jax.random.key(0))).condition({"throws": throws})
theta = (jnp.arange(2_000) + 0.5) / 2_000  # the midpoints of 2,000 intervals
log_joint = jax.vmap(lambda theta: given.log_joint({"theta": theta[None]}))(theta)
log_prior = jax.vmap(lambda theta: dist.Beta(a, b).log_prob(theta))(theta)
evidence = jnp.mean(jnp.exp(log_joint))  # p(D), the integral over (0, 1)
posterior = jnp.exp(log_joint) / evidence


def beta(a, b):
    return math.gamma(a) * math.gamma(b) / math.gamma(a + b)


results = {
    "p(D)": (evidence, beta(a + heads, b + tails) / beta(a, b)),
    "maximum likelihood": (theta[jnp.argmax(log_joint - log_prior)], heads / 10),
    "MAP": (theta[jnp.argmax(posterior)], (a + heads - 1) / (a + b + 10 - 2)),
    "p(next is heads)": (jnp.mean(theta * posterior), (a + heads) / (a + b + 10)),
}
for name, (by_grid, closed_form) in results.items():
    assert abs(by_grid - closed_form) < 5e-4
    print(f"{name:20s} {by_grid:.6f}   closed form {closed_form:.6f}")

# %%
figure, [[axes]] = figure_of(size=(6, 3.2))
axes.plot(theta, jnp.exp(log_prior), color=GREY, label="prior")
axes.plot(theta, posterior, color=BLUE, lw=2, label="posterior")
places = {"maximum likelihood": ORANGE, "MAP": BLUE, "p(next is heads)": INK}
for name, colour in places.items():
    axes.axvline(results[name][1], color=colour, ls=":", label=f"{name}: {results[name][1]:.3f}")
finish(axes, xlabel="theta, the probability of heads", ylabel="density", ylim=(0, None))
legend(axes, "upper left")
figure

# %% [markdown]
# The prediction 0.714 is nearer to one half than either point, since coins that are less extreme
# are possible still.
#
# ### A posterior over the weights of a net
#
# A net has too many weights for a grid. `VariationalBayes` learns an approximate posterior
# $q(\theta) = \mathcal{N}(\mu, \mathrm{diag}\, \sigma^2)$ over all of them, by maximising a bound
# on $\log p(\mathcal{D})$ from minibatches; how such bounds work is the subject of
# [2.2](2_2_elbo.md). To check it we take the smallest net of all, a line $y = w x + c$, for which
# the posterior is a known normal. With known noise $s$, prior $\mathcal{N}(0, I)$ and rows
# $(x_n, 1)$ in $X$, its precision is $\Lambda = I + X^\top X / s^2$ and its mean
# $\Lambda^{-1} X^\top y / s^2$; the best diagonal $q$ has the same mean, and the variances
# $1 / \Lambda_{ii}$.

# %%
noise = 0.5
line = vaejax.Gaussian(vaejax.MLP(1, hidden=()), scale=noise)
generator = np.random.default_rng(0)
x = generator.uniform(0, 2, (20, 1)).astype(np.float32)
points = {"x": x, "y": (0.8 * x - 0.5 + noise * generator.normal(size=x.shape)).astype(np.float32)}


def log_line(params, example, key):
    return line(params.theta, example["x"]).log_prob(example["y"])


bayes = vaejax.VariationalBayes(vaejax.minibatch(log_line, support=supports), dataset_size=20)
start = vaejax.Params(line.init(jax.random.key(0), x[0]), ())
run = vaejax.fit(
    bayes,
    bayes.start(start, log_scale=-2.0),
    optax.adam(optax.cosine_decay_schedule(0.02, 3_000)),
    points,
    jax.random.key(0),
    num_steps=3_000,
    batch_size=20,
    progress=False,
)


def weights(tree):
    """(w, c) of a tree like theta."""
    dense = tree["net"]["params"]["Dense_0"]
    return np.array([dense["kernel"].squeeze(), dense["bias"].squeeze()])


q_mean, q_scale = weights(run.params.theta["loc"]), np.exp(weights(run.params.theta["log_scale"]))
X = np.hstack([x, np.ones_like(x)])
precision = np.eye(2) + X.T @ X / noise**2
mean = np.linalg.solve(precision, X.T @ points["y"][:, 0]) / noise**2
scale = 1 / np.sqrt(np.diag(precision))
exact_scale = np.sqrt(np.diag(np.linalg.inv(precision)))

assert np.abs(q_mean - mean).max() < 0.03 and np.abs(q_scale / scale - 1).max() < 0.1
print("        mean of q    exact     scale of q    best diagonal    exact posterior")
for i, name in enumerate("wc"):
    print(
        f"{name} {q_mean[i]:13.3f} {mean[i]:9.3f} {q_scale[i]:13.3f} {scale[i]:14.3f}"
        f" {exact_scale[i]:16.3f}"
    )

# %%
grid = np.linspace(-2, 4, 100, dtype=np.float32)[:, None]
F = np.hstack([grid, np.ones_like(grid)])
keys = jax.random.split(jax.random.key(1), 60)
draws = jax.vmap(lambda key: bayes.draw(run.params, key).theta)(keys)
lines = jax.vmap(lambda theta: jax.vmap(lambda x: line(theta, x).mean()[0])(grid))(draws)
exact_band = 2 * np.sqrt(np.sum(F @ np.linalg.inv(precision) * F, axis=1))

figure, [[axes]] = figure_of(size=(6, 3.4))
axes.plot(grid, lines.T, color=BLUE, alpha=0.12, label=["lines drawn from q"] + 59 * [None])
for sign in (-1, 1):
    label = "exact posterior, ± 2 scales" if sign == 1 else None
    axes.plot(grid, F @ mean + sign * exact_band, color=INK, ls=":", label=label)
axes.scatter(points["x"], points["y"], color=ORANGE, s=14, zorder=3, label="data")
finish(axes, xlabel="x", ylabel="y", ylim=(-3.5, 4.5))
legend(axes, "upper left")
figure

# %% [markdown]
# The mean of $q$ is right, and the uncertainty grows away from the data, as it should. The scales
# are too small: exactly, $w$ and $c$ are correlated, since a line that is steeper must start lower,
# and a diagonal $q$ cannot say so. What a family of posteriors leaves out is section
# [2.5](2_5_posteriors.md). A posterior over all weights of a decoder, and what it is worth when
# images are few, is measured by
# [`bayesian_decoder.py`](https://github.com/vaejax/vaejax/blob/main/experiments/inference/bayesian_decoder.py);
# maximum likelihood on a graph of seven nodes, with wrong models beside the right one, is
# [`maximum_likelihood.py`](https://github.com/vaejax/vaejax/blob/main/experiments/graphs/maximum_likelihood.py).
#
# ## Exercises
#
# **1.** In training, `fit` cuts the batches of an epoch from one permutation, so that every example
# is used once. Show that the mean of the scaled gradients over such an epoch is *exactly* the full
# gradient. Why are its batches not independent, and does it matter for the bias of one of them?
#
# ??? example "Solution"
#     The batches partition the data, so their sums add up to the whole. One batch by itself is
#     still a uniformly drawn subset, so that it is unbiased; given the first, the second is not.
#
#     ```python
#     order = np.random.default_rng(0).permutation(N)
#     with jax.enable_x64(True):
#         halves = [gradient(params, batch(rows)) for rows in np.split(order, 2)]
#         mean_of_epoch = np.mean(halves, axis=0)
#     assert np.abs(mean_of_epoch - full).max() < 1e-12 * size
#     ```
#
# **2.** The loss at the end of the training is not zero. What is the smallest value that it can
# have, and what would a model with 16 free probabilities reach?
#
# ??? example "Solution"
#     $H(p_\mathcal{D})$: the divergence can fall to zero, and with 16 free probabilities it does.
#     It would also have learned the accidents of these 500 days.
#
# **3.** Throw the coin a hundred times, with 80 heads. How far apart are maximum likelihood, the
# MAP and the prediction now?
#
# ??? example "Solution"
#     0.800, $81/102 \approx 0.794$ and $82/104 \approx 0.788$: with many data the prior fades.
#
# In the API: [`minibatch` and `VariationalBayes`](../api/objectives.md),
# [`variance_sources`, `minibatch_variance`](../api/variance.md), [`fit`](../api/training.md).
# Next: [1.7 Latent variables](1_7_latent_variables.md).
