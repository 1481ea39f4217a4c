# %% [markdown]
# # 1.1 Why generative models
#
# After this page you can write Bayes' rule as three lines of code, build a classifier from a
# generative model, and name four things that it can do and a discriminative one cannot.
#
# A **discriminative** model learns $p(y \mid x)$: given an image, which digit is it? It answers
# this question and no other. A **generative** model learns the joint distribution,
#
# $$p(x, y) = p(y)\, p(x \mid y),$$
#
# a small theory of how the data come about: first a digit is chosen, then it is drawn. Whoever has
# the joint can answer the discriminative question too, by turning the second factor around.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.special import logit

import vaejax
from vaejax import DirectedGraph, Free, Node, Table, plots
from vaejax.plots import BLUE, GREY, INK, ORANGE, figure_of, finish, legend

# %% [markdown]
# ## Bayes' rule
#
# $$p(y \mid x) = \frac{p(x \mid y)\, p(y)}{p(x)}, \qquad p(x) = \sum_y p(x \mid y)\, p(y).$$
#
# Take a medical test. One person in a hundred is ill. The test is positive for 90 % of the ill, and
# for 5 % of the healthy. A directed graph holds the two factors: `Free` is a parameter of its own,
# `Table` is a row of parameters for each state of the parent.

# %%
graph = DirectedGraph(
    (
        Node("ill", vaejax.Bernoulli(Free(1, ("logits",)))),
        Node("positive", vaejax.Bernoulli(Table(1, (2,))), "ill"),
    )
)
params = {
    "ill": {"logits": logit(jnp.array([0.01]))},
    "positive": {"logits": logit(jnp.array([[0.05], [0.90]]))},  # healthy, ill
}
plots.graph(graph, observed=("positive",))

# %% [markdown]
# `graph(params)` is the joint distribution. Each symbol of Bayes' rule is one call on it, and each
# call gives a logarithm, in nats.

# %%
joint, yes = graph(params), jnp.ones(1)

log_prior = joint.factor("ill", {}).log_prob(yes)  # log p(y)
log_likelihood = joint.factor("positive", {"ill": yes}).log_prob(yes)  # log p(x | y)
log_evidence = joint.log_marginal({"positive": yes})  # log p(x), y summed out
posterior = jnp.exp(log_likelihood + log_prior - log_evidence)  # p(y | x)

assert abs(jnp.exp(log_evidence) - (0.90 * 0.01 + 0.05 * 0.99)) < 1e-7
assert abs(posterior - 2 / 13) < 1e-6
print(f"p(positive)       = {jnp.exp(log_evidence):.4f}")
print(f"p(ill | positive) = {posterior:.4f}, exactly 2/13")

# %% [markdown]
# Only two in thirteen of those who test positive are ill: the healthy are so many that their 5 %
# outnumber the 90 % of the ill. You rarely write the three lines yourself, for a joint conditions
# itself. It gives the states of `ill`, and the probability of each.

# %%
states, probabilities = joint.condition({"positive": yes}).marginal("ill")

assert abs(probabilities[1] - 2 / 13) < 1e-6
for state, probability in zip(states, probabilities, strict=True):
    print(f"p(ill = {state[0]:.0f} | positive) = {probability:.4f}")

# %% [markdown]
# A generative model keeps what belongs to the test apart from what belongs to the people who take
# it. In a clinic, where half of all visitors are ill, the test is the same and only $p(y)$ changes:
# we replace one entry of the parameters. A discriminative model of $p(y \mid x)$ would have to be
# trained again.


# %%
def after_positive(prior):
    """p(ill | positive) where a fraction `prior` of all people is ill."""
    moved = params | {"ill": {"logits": logit(prior)[None]}}
    return graph(moved).condition({"positive": yes}).marginal("ill")[1][1]


prior = jnp.linspace(0.001, 0.999, 500)
posterior = jax.vmap(after_positive)(prior)
assert jnp.allclose(posterior, 0.90 * prior / (0.90 * prior + 0.05 * (1 - prior)), atol=1e-5)

figure, [[axes]] = figure_of(size=(6, 3.4))
axes.plot(prior, posterior, color=BLUE, lw=2, label="p(ill | positive)")
axes.plot(prior, prior, color=GREY, ls=":", label="p(ill): no test at all")
axes.plot(0.01, 2 / 13, "o", color=ORANGE, label="one in a hundred: 2/13")
finish(axes, xlabel="p(ill), before the test", ylabel="probability")
legend(axes, "lower right")
figure

# %% [markdown]
# ## A generative classifier
#
# The same two nodes make a classifier of digits. $y$ is one of ten classes, $x$ an image of 8 x 8
# binary pixels. The simplest $p(x \mid y)$ says that, given the class, the pixels are independent,
# each with a probability of its own:
#
# $$p(x, y) = p(y) \prod_i \mathrm{Bernoulli}(x_i;\, p_{y,i}).$$
#
# This is *naive Bayes*. Its best parameters need no gradient: they are relative frequencies, here
# with one imagined example of each kind added, so that no frequency is 0 or 1.

# %%
digits = vaejax.load_dataset("digits")


def binary_images(split):
    """The images [n, 8, 8] as zeros and ones."""
    keys = jax.random.split(jax.random.key(0), len(split.images))
    return np.asarray(jax.vmap(vaejax.Pixels(digits.maximum, "threshold"))(split.images, keys))


train, test = binary_images(digits.train), binary_images(digits.test)
one_hot = np.eye(10, dtype=np.float32)[digits.train.labels]

naive_bayes = DirectedGraph(
    (
        Node("y", vaejax.OneHotCategorical(Free(10, ("logits",)))),
        Node("x", vaejax.Bernoulli(Table((8, 8), (10,))), "y"),
    )
)


def counted(x, y):
    """Parameters from the frequencies among images x [n, 8, 8] with classes y [n, 10]."""
    size = y.sum(0)[:, None, None]
    ink = np.einsum("nc,nij->cij", y, x)
    log_odds = jnp.log(ink + 1) - jnp.log(size - ink + 1)
    return {"y": {"logits": jnp.log(y.sum(0) + 1)}, "x": {"logits": log_odds}}


fitted = counted(train, one_hot)


@jax.jit
def log_joints(params, xs):
    """log p(x, y) [n, 10] of each image with each class."""
    return jax.vmap(lambda x: naive_bayes(params).log_marginals({"x": x}, "y")[1])(xs)


def accuracy(scores):
    """The share of test images whose class has the highest of ten scores."""
    return float(np.mean(np.argmax(scores, axis=1) == digits.test.labels))


print(f"accuracy on {len(test)} test images: {accuracy(log_joints(fitted, test)):.3f}")

# %% [markdown]
# Now look at $\log p(y \mid x)$ of this model. The logarithm of a Bernoulli is linear in $x_i$, so
#
# $$\log p(y \mid x) = \sum_i x_i\, \ell_{y,i} + b_y - \log Z(x), \qquad
#   b_y = \log p(y) + \sum_i \log (1 - p_{y,i}),$$
#
# with $\ell = \log p/(1-p)$ the numbers in the table. That is logistic regression! The two models
# have the *same* family of $p(y \mid x)$ and differ in what they maximise: $\log p(x, y)$ here,
# $\log p(y \mid x)$ there.

# %%
weights = fitted["x"]["logits"].reshape(10, 64)
bias = jax.nn.log_softmax(fitted["y"]["logits"]) - jax.nn.softplus(weights).sum(1)
by_hand = jax.nn.log_softmax(test.reshape(-1, 64) @ weights.T + bias, axis=1)
by_bayes = jax.nn.log_softmax(log_joints(fitted, test), axis=1)

difference = jnp.max(jnp.abs(by_hand - by_bayes))
assert difference < 1e-3  # nats, in single precision
print(f"Bayes' rule against the linear formula: {difference:.1e} nats apart at most")

# %% [markdown]
# So which should you fit? Naive Bayes makes an assumption, and an assumption is worth examples as
# long as it is not too wrong. We train a logistic regression on $\log p(y \mid x)$, with a normal
# prior on its weights in place of the imagined examples, and give both the same few labels.

# %%
regression = vaejax.OneHotCategorical(vaejax.MLP(10, hidden=()))


def log_class(params, example, key):
    """log p(y | x) of one example, and what is maximised: with its share of the weights' prior."""
    log_p = regression(params.theta, example["x"]).log_prob(example["y"])
    log_prior = -0.5 * optax.tree.norm(params.theta, squared=True)
    return vaejax.Terms(log_p, log_p + log_prior * example["share"])


def fit_regression(x, y):
    data = {"x": x, "y": y, "share": np.full(len(x), 1 / len(x), np.float32)}
    real, support = vaejax.supports.REAL, regression.support
    return vaejax.fit(
        vaejax.minibatch(log_class, support={"x": real, "y": support, "share": real}),
        vaejax.Params(regression.init(jax.random.key(0), x[0]), ()),
        optax.adam(0.03),
        data,
        jax.random.key(0),
        num_steps=400,
        batch_size=20,
        progress=False,
    ).params.theta


def labelled_rows(number, seed):
    """`number` rows of the training set, equally many of each class."""
    order = np.random.default_rng(seed).permutation(len(train))
    classes = digits.train.labels[order]
    return np.concatenate([order[classes == c][: number // 10] for c in range(10)])


numbers, num_seeds = (20, 100, 1000), 4
accuracies = np.zeros((2, len(numbers), num_seeds))
for i, number in enumerate(numbers):
    for seed in range(num_seeds):
        rows = labelled_rows(number, seed)
        x, y = train[rows], one_hot[rows]
        theta = fit_regression(x, y)
        logits = jax.vmap(regression.logits, (None, 0))(theta, test)
        accuracies[:, i, seed] = accuracy(log_joints(counted(x, y), test)), accuracy(logits)

print("labels   naive Bayes    logistic regression   (mean of four draws)")
for number, generative, discriminative in zip(numbers, *accuracies.mean(2), strict=True):
    print(f"{number:6d}   {generative:8.3f}       {discriminative:8.3f}")
assert (accuracies[1, -1] > accuracies[0, -1]).all()  # in every draw of many labels

# %%
figure, [[axes]] = figure_of(size=(6, 3.6))
names = "naive Bayes: log p(x, y)", "logistic regression: log p(y | x)"
for name, colour, runs in zip(names, (BLUE, ORANGE), accuracies, strict=True):
    error = runs.std(1, ddof=1) / np.sqrt(num_seeds)
    axes.errorbar(numbers, runs.mean(1), error, color=colour, marker="o", capsize=3, label=name)
finish(axes, grid=True, xscale="log", xlabel="labelled images", ylabel="test accuracy")
axes.set_xticks(numbers, [f"{number:,}" for number in numbers])
axes.minorticks_off()
legend(axes, "lower right", title="mean ± standard error over four draws of the labels")
figure

# %% [markdown]
# With few labels the two are level, with many the discriminative model wins: pixels are *not*
# independent given the class, and only the generative one believes that they are. A deep generative
# model has no such handicap. How far it then leads, at equal sizes of the nets, is measured by
# [`generative_classifier.py`](https://github.com/vaejax/vaejax/blob/main/experiments/graphs/generative_classifier.py).
#
# ## What only the joint can do
#
# **Draw.** Ancestral sampling gives $y \sim p(y)$, then $x \sim p(x \mid y)$. The picture shows one
# draw for each class, and below it the mean of $p(x \mid y)$. The draws are bad digits, and you see
# at once which assumption is to blame.

# %%
keys = jax.random.split(jax.random.key(1), 10)
given = naive_bayes(fitted)
drawn = [given.complete({"y": y}, key)["x"] for y, key in zip(jnp.eye(10), keys, strict=True)]
means = [given.factor("x", {"y": y}).mean() for y in jnp.eye(10)]
plots.image_grid(np.stack(drawn + means), 10, "draws of p(x | y), and its mean")

# %% [markdown]
# **See only a part.** When pixels are missing, a generative model sums them out. Give the halves of
# the image a node each, and condition on the one that you have: the other factor sums to one and
# drops out. The classifier that was fitted to whole images reads halves without being told how.

# %%
halves = DirectedGraph(
    (
        Node("y", vaejax.OneHotCategorical(Free(10, ("logits",)))),
        Node("upper", vaejax.Bernoulli(Table((4, 8), (10,))), "y"),
        Node("lower", vaejax.Bernoulli(Table((4, 8), (10,))), "y"),
    )
)
logits = fitted["x"]["logits"]
of_halves = {
    "y": fitted["y"],
    "upper": {"logits": logits[:, :4]},
    "lower": {"logits": logits[:, 4:]},
}


def log_given(part, xs):
    """log p(part, y) [n, 10]: the rest of the image is summed out."""
    joint = halves(of_halves)
    return jax.vmap(lambda x: joint.log_marginals({part: x}, "y")[1])(xs)


upper, lower = log_given("upper", test[:, :4]), log_given("lower", test[:, 4:])
prior = jax.nn.log_softmax(fitted["y"]["logits"])
# p(x, y) = p(upper, y) p(lower, y) / p(y), since the halves are independent given y
assert jnp.allclose(upper + lower - prior, log_joints(fitted, test), atol=1e-3)
print(f"accuracy, whole image      {accuracy(log_joints(fitted, test)):.3f}")
print(f"accuracy, upper half only  {accuracy(upper):.3f}")
print(f"accuracy, lower half only  {accuracy(lower):.3f}")

# %% [markdown]
# **Learn from what has no label.** An example with a label contributes $\log p(x, y)$. One without
# contributes $\log p(x) = \log \sum_y p(x, y)$. Both are about the same parameters, so they are
# added; this is *semi-supervised* learning. Two clusters in the plane, three labels in each:


# %%
def clusters(size, generator):
    """Points x [n, 2] in two flat clusters, one above the other, and their classes y [n, 2]."""
    y = generator.integers(2, size=size)
    x = generator.normal(size=(size, 2)) * [1.6, 0.25] + np.stack([y, 1.2 * y], 1)
    return x.astype(np.float32), np.eye(2, dtype=np.float32)[y]


generator = np.random.default_rng(1)
x, y = clusters(300, generator)
labelled = np.zeros(300, bool)
for c in range(2):
    labelled[np.flatnonzero(y[:, c])[:3]] = True

two_normals = DirectedGraph(
    (
        Node("y", vaejax.OneHotCategorical(Free(2, ("logits",)))),
        Node("x", vaejax.DiagNormal(Table(2, (2,), ("loc", "log_scale"))), "y"),
    )
)


def log_likelihood(params, example, key):
    """log p(x, y) of an example with a label, log p(x) of one without, nats."""
    joint = two_normals(params.theta)
    with_label = joint.log_prob({"x": example["x"], "y": example["y"]})
    without = joint.log_marginal({"x": example["x"]})
    return jnp.where(example["labelled"], with_label, without)


supports = two_normals.support | {"labelled": vaejax.supports.BINARY}
objective = vaejax.minibatch(log_likelihood, support=supports)


def fit_clusters(rows, labelled=labelled, loc=np.zeros((2, 2))):
    """p(y = 1 | x), from these rows. The normals start at `loc`."""
    data = {"x": x[rows], "y": y[rows], "labelled": labelled[rows]}
    theta = two_normals.init(jax.random.key(0))
    theta["x"]["loc"] = jnp.asarray(loc, jnp.float32)
    theta = vaejax.fit(
        objective,
        vaejax.Params(theta, ()),
        optax.adam(0.05),
        data,
        jax.random.key(0),
        num_steps=600,
        batch_size=len(data["x"]),
        progress=False,
    ).params.theta
    return jax.vmap(lambda x: two_normals(theta).condition({"x": x}).marginal("y")[1][1])


every = np.ones(300, bool)
few, all_points = fit_clusters(labelled), fit_clusters(every)
new_x, new_y = clusters(2_000, generator)
share_few, share_all = (
    float(np.mean((probability(new_x) > 0.5) == new_y[:, 1])) for probability in (few, all_points)
)
assert share_all > 0.97 > share_few
print(f"accuracy on new points, six labels alone        {share_few:.3f}")
print(f"accuracy, six labels and 294 points without     {share_all:.3f}")

# %%
figure, panels = figure_of(columns=2, size=(7.2, 3.2), sharey=True)
first, second = np.linspace(-4.5, 5.5, 120), np.linspace(-1.2, 2.4, 80)
plane = np.stack(np.meshgrid(first, second), -1).reshape(-1, 2).astype(np.float32)
titles = "six labels alone", "and 294 points without a label"
for axes, probability, title in zip(panels[0], (few, all_points), titles, strict=True):
    values = np.asarray(probability(plane)).reshape(80, 120)
    axes.contourf(first, second, values, levels=np.linspace(0, 1, 11), cmap="PuOr", alpha=0.5)
    axes.contour(first, second, values, levels=[0.5], colors=INK)
    if probability is all_points:
        axes.scatter(*x[~labelled].T, s=5, color=GREY)
    for c, colour in enumerate((ORANGE, "#5e3c99")):
        axes.scatter(*x[labelled & (y[:, c] == 1)].T, s=50, color=colour, edgecolor=INK)
    finish(axes, title=title, xlabel="$x_1$", xlim=first[[0, -1]])
panels[0, 0].set_ylabel("$x_2$; colour is p(y | x)")
figure

# %% [markdown]
# Three points say little about the shape of a cluster: on the left all that lies far above counts
# as the lower class. The grey points say what the clusters look like, and the labels need only say
# which is which. With images and a deep model this is
# [`semi_supervised.py`](https://github.com/vaejax/vaejax/blob/main/experiments/graphs/semi_supervised.py).
#
# **Find a representation.** If the cause of the data is not known, it can be *invented*: a variable
# $z$ that no one observed, with $p(x, z) = p(z)\, p(x \mid z)$. What it comes to stand for is a
# representation of the data. Here is the same graph, fitted to the same points without a single
# label. How much does its $z$ tell about the class, which it has never seen? The mutual information
#
# $$I(z; y) = \sum_{z, y} p(z, y) \log_2 \frac{p(z, y)}{p(z)\, p(y)}$$
#
# is 0 bits if it tells nothing, and at most the entropy of the class, here 1 bit.

# %%
no_labels = np.zeros(300, bool)
invented = fit_clusters(every, no_labels, loc=x[:2])  # two that start equal would stay equal
z_given_x = np.asarray(invented(new_x), np.float64)
table = np.stack([1 - z_given_x, z_given_x]) @ new_y / len(new_y)  # p(z, y), [2, 2]
independent = table.sum(1, keepdims=True) * table.sum(0)
information = np.sum(table * np.log2(table / independent))
entropy = -np.sum(table.sum(0) * np.log2(table.sum(0)))
assert 0.8 < information < entropy
print(f"z tells {information:.2f} bits of the class, of {entropy:.2f}")

# %% [markdown]
# The two clusters were found, and only their names are missing: which is $z = 0$, chance decides.
# Such variables are section [1.7](1_7_latent_variables.md), codes of images and what they are worth
# to a classifier are [representations](3_beyond.md#representations), and at full scale
# [`representation.py`](https://github.com/vaejax/vaejax/blob/main/experiments/representation/representation.py).
#
# ## Exercises
#
# **1.** How common must the illness be, so that a positive test means even odds? Find it in the
# curve, then by hand, then check it with `after_positive`.
#
# ??? example "Solution"
#     $0.90\, p = 0.05\, (1 - p)$, so $p = 1/19$.
#
#     ```python
#     assert abs(after_positive(jnp.asarray(1 / 19)) - 1 / 2) < 1e-5
#     ```
#
# **2.** The test is taken twice, and its errors are independent given `ill`. What is the
# probability of `ill` after two positive results?
#
# ??? example "Solution"
#     A second child with the same table. The odds, 1 to 99, are multiplied by $0.90/0.05 = 18$ each
#     time: $18^2$ to 99, a probability of $36/47$.
#
#     ```python
#     second = Node("again", vaejax.Bernoulli(Table(1, (2,))), "ill")
#     twice = DirectedGraph((*graph.nodes, second))(params | {"again": params["positive"]})
#     _, probabilities = twice.condition({"positive": yes, "again": yes}).marginal("ill")
#     assert abs(probabilities[1] - 36 / 47) < 1e-5
#     ```
#
# **3.** $p(x)$ itself is useful: an image that no class explains has a low one. Compare $\log p(x)$
# of test images with that of images in which each pixel is ink with probability 1/2. How many nats
# apart are the averages?
#
# ??? example "Solution"
#     ```python
#     noise = np.random.default_rng(0).integers(2, size=test.shape).astype(np.float32)
#     log_p = [jax.nn.logsumexp(log_joints(fitted, xs), axis=1) for xs in (test, noise)]
#     print(f"log p(x): digits {log_p[0].mean():.1f}, noise {log_p[1].mean():.1f} nats")
#     ```
#
# In the API: [`DirectedGraph`, `Node` and the conditionals](../api/models.md),
# [`Free` and `Table`](../api/networks.md), [`fit`](../api/training.md).
# Next: [1.3 Conditional models](1_3_conditional_models.md).
