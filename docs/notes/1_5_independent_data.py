# %% [markdown]
# # 1.5 Independent data
#
# After this page you know why the log-likelihood of a data set is a sum, what that sum converges
# to, how a fully observed model falls apart into easy pieces, and what it costs to call data
# independent that are not.

# %%
import jax
import jax.numpy as jnp
import numpy as np

import vaejax
from vaejax import DirectedGraph, Free, Node, Table, plots
from vaejax.plots import BLUE, GREY, ORANGE, PALE, figure_of, finish, legend

# %% [markdown]
# ## 1.5 A data set is a sum
#
# A data set $\mathcal{D} = \{x^{(1)}, \dots, x^{(N)}\}$ is *independent and identically
# distributed* (i.i.d.) if its members are draws of one distribution that know nothing of each
# other. Then probabilities multiply and logarithms add:
#
# $$\log p_\theta(\mathcal{D}) = \sum_{n=1}^N \log p_\theta(x^{(n)}).$$
#
# Our data are animals: each has a species $y$, one of three, and a length $\ell$ in metres that
# depends on it. Both are seen, so nothing is latent. Nature uses the same graph, with parameters
# that we choose.

# %%
length_given_species = vaejax.DiagNormal(
    Table(1, (3,), ("loc", "log_scale")),
    max_log_scale=None,  # the scales just as they are given
)
animals = DirectedGraph(
    (
        Node("y", vaejax.OneHotCategorical(Free(3, ("logits",)))),
        Node("length", length_given_species, "y"),
    )
)
nature = {
    "y": {"logits": jnp.log(jnp.array([0.5, 0.3, 0.2]))},
    "length": {
        "loc": jnp.array([[1.0], [1.8], [2.2]]),
        "log_scale": jnp.log(jnp.array([[0.10], [0.30], [0.15]])),
    },
}
N = 2_000
data = jax.vmap(animals(nature).sample)(jax.random.split(jax.random.key(0), N))
plots.graph(animals, observed=("y", "length"))

# %% [markdown]
# The formula in code: `log_prob` is of one example, `jax.vmap` maps it over all, and `jnp.sum` is
# the sum. (`vaejax.map_dataset` does the same a part at a time, for data that are too many for one
# call.)

# %%
log_p = jax.vmap(animals(nature).log_prob)(data)  # [N], nats per example
log_p_of_data = jnp.sum(log_p)

in_parts = vaejax.map_dataset(
    lambda params, x, key: animals(params).log_prob(x), nature, data, jax.random.key(0)
)
assert jnp.allclose(in_parts, log_p, atol=1e-5)
print(f"log p(D) = {log_p_of_data:.2f} nats, {log_p_of_data / N:.4f} for each example")

# %% [markdown]
# It has to be the logarithm. The product itself, $\prod_n p(x^{(n)})$, is a number that no computer
# holds, and nothing can be learned from a zero:

# %%
print(f"log p(D) of the first 500 examples     {log_p[:500].sum():9.2f}")
print(f"their product, in single precision     {jnp.prod(jnp.exp(log_p[:500])):9.2f}")
assert jnp.prod(jnp.exp(log_p[:500])) == 0

# %% [markdown]
# A sum has no order, and so the order of independent examples says nothing. And a data set is
# itself one draw from a large graph: $N$ copies of the small one, side by side, with the same
# parameters.

# %%
few = 4
copies = DirectedGraph(
    tuple(
        Node(f"{node.name}{n}", node.conditional, tuple(f"{name}{n}" for name in node.parents))
        for n in range(few)
        for node in animals.nodes
    )
)
shared = {f"{name}{n}": nature[name] for n in range(few) for name in nature}
value = {f"{name}{n}": data[name][n] for n in range(few) for name in data}
assert abs(copies(shared).log_prob(value) - log_p[:few].sum()) < 1e-5
print(f"log p of four examples: {copies(shared).log_prob(value):.4f} nats, as one large graph")
plots.graph(copies, observed=copies.order)

# %% [markdown]
# ### What the sum becomes
#
# By the law of large numbers the mean of $\log p_\theta(x^{(n)})$ goes to its expectation under
# nature. Here model and nature are one, and that expectation is minus the *entropy*,
#
# $$\frac{1}{N} \log p_\theta(\mathcal{D}) \;\to\; \mathbb{E}_{p^*}[\log p_\theta(x)] = -H[p^*]
#   \quad \text{if } p_\theta = p^*,$$
#
# which this graph has in closed form: the entropy of the species, and the mean of the entropies
# $\tfrac12 \log 2 \pi e + \log s_y$ of the normals. The mean strays from it by a standard error,
# the standard deviation over $\sqrt{N}$.

# %%
share, log_scale = jax.nn.softmax(nature["y"]["logits"]), nature["length"]["log_scale"][:, 0]
entropy_of_normal = 0.5 * jnp.log(2 * jnp.pi * jnp.e) + log_scale
entropy = jnp.sum(share * (entropy_of_normal - jnp.log(share)))

error = log_p.std() / np.sqrt(N)
assert abs(log_p.mean() + entropy) < 5 * error
print(f"mean of log p(x): {log_p.mean():.4f} ± {error:.4f} nats, expected {-entropy:.4f}")

# %%
counts = np.arange(1, N + 1)
running = np.cumsum(log_p) / counts
band = 2 * log_p.std() / np.sqrt(counts)
figure, [[axes]] = figure_of(size=(6, 3.2))
axes.fill_between(counts, -entropy - band, -entropy + band, color=PALE, label="± 2 standard errors")
axes.axhline(-entropy, color=GREY, ls=":", label="minus the entropy")
axes.plot(counts, running, color=BLUE, label="mean of log p(x) so far")
finish(axes, xscale="log", xlabel="examples", ylabel="nats per example", ylim=(-2.2, 0.8))
legend(axes, "lower right")
figure

# %% [markdown]
# This is why results are quoted as nats *per example* with a standard error over examples: the sum
# grows with $N$, the mean does not, and the error says what another test set might have given.
#
# ## Fully observed models fall apart
#
# In a graph whose every node is observed, each example's $\log p$ is a sum over nodes, and two sums
# can change places:
#
# $$\log p_\theta(\mathcal{D}) = \sum_n \sum_j \log p_{\theta_j}(x_j^{(n)} \mid Pa(x_j^{(n)}))
#   = \sum_j \Big[ \sum_n \log p_{\theta_j}(x_j^{(n)} \mid Pa(x_j^{(n)})) \Big].$$
#
# Each bracket has parameters of its own. So each conditional is learned alone, as if there were no
# others, and no inference is needed: the parents' values are there to be read. In code, `log_probs`
# has the brackets, and the gradient of one of them is zero in the parameters of the other.


# %%
def by_node(params):
    """{node: its part of log p(D)}."""
    log_probs = jax.vmap(animals(params).log_probs)(data)
    return {name: jnp.sum(values) for name, values in log_probs.items()}


gradient = jax.jacrev(by_node)(nature)  # {node: gradient of its part in all parameters}
print("the length of the gradient of    in the parameters of y    in those of length")
for name, parts in gradient.items():
    norms = [
        float(jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(parts[other]))))
        for other in ("y", "length")
    ]
    print(f"{name:32s} {norms[0]:22.2f} {norms[1]:21.2f}")
    assert (norms[0] == 0) == (name == "length") and (norms[1] == 0) == (name == "y")

# %% [markdown]
# The maximum of each bracket is known, too. The best probabilities of a table are the relative
# frequencies, the best normal for each species has the mean and the standard deviation of its
# members. We count, and check that nothing is left to climb: at the maximum the gradient is zero.

# %%
y, length = np.asarray(data["y"], np.float64), np.asarray(data["length"], np.float64)
size = y.sum(0)
mean = y.T @ length / size[:, None]
variance = y.T @ length**2 / size[:, None] - mean**2
best = {
    "y": {"logits": np.log(size / N)},
    "length": {"loc": mean, "log_scale": 0.5 * np.log(variance)},
}
best = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), best)

slope = jax.grad(lambda params: sum(by_node(params).values()) / N)(best)
assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(slope)) < 1e-4
gain = sum(by_node(best).values()) - log_p_of_data
assert gain > 0
print("species   share    mean    scale  (of nature: 0.5 0.3 0.2, 1.0 1.8 2.2, 0.1 0.3 0.15)")
for c in range(3):
    print(f"{c:7d} {size[c] / N:7.3f} {mean[c, 0]:7.3f} {variance[c, 0] ** 0.5:8.3f}")
print(f"log p(D) is {gain:.2f} nats higher than at the parameters that made the data")

# %% [markdown]
# The log-likelihood is higher than at the truth: the maximum follows the accidents of these 2,000
# animals. In expectation the gain is half a nat for each free number, of which there are eight; on
# new animals about as much is lost. With 2,000 examples this is nothing; with ten it would be
# everything.
#
# To the rest of the library such a graph is a model in which nothing is latent: `GraphModel` with
# an encoder of no nodes. All that is made for models, `fit`, `evaluate` and the bounds, then works
# on it, and the bound of [2.2](2_2_elbo.md) is no mere bound here, it is $\log p(x)$ itself.

# %%
model = vaejax.GraphModel(animals, DirectedGraph(()), observed=("y", "length"))
example = jax.tree.map(lambda leaf: leaf[0], data)
elbo = vaejax.elbo(model, vaejax.Params(best, {}), example, jax.random.key(0))
assert abs(elbo - animals(best).log_prob(example)) < 1e-6
print(f"log p(x) of the first animal, by the ELBO: {elbo:.4f} nats")

# %% [markdown]
# ## When the examples are not independent
#
# Measure one animal once a day, and today's weight looks like yesterday's:
# $x_t = \rho\, x_{t-1} + \sqrt{1 - \rho^2}\, \varepsilon_t$. Each $x_t$ by itself is a standard
# normal. But the chain rule, which always holds, has conditionals in it:
#
# $$\log p(x_1, \dots, x_T) = \sum_t \log p(x_t \mid x_{t-1}) \;\ne\; \sum_t \log p(x_t).$$
#
# Whoever takes the right-hand sum loses the *mutual information* of neighbours,
# $-\tfrac12 \log (1 - \rho^2)$ nats a day.

# %%
rho = 0.9
today = vaejax.Gaussian(vaejax.MLP(1, hidden=()), scale=float(np.sqrt(1 - rho**2)))
line = {"Dense_0": {"kernel": jnp.array([[rho]]), "bias": jnp.zeros(1)}}
given_yesterday = {"net": {"params": line}}  # the mean is rho * x


def step(x, key):
    following = today(given_yesterday, x).sample(key)
    return following, following


def log_today(before, after):
    """log p(x_t | x_(t-1)), nats."""
    return today(given_yesterday, before).log_prob(after)


T = 20_001
first = jnp.zeros(1)
_, x = jax.lax.scan(step, first, jax.random.split(jax.random.key(2), T))
before, after = x[:-1], x[1:]
as_chain = jax.vmap(log_today)(before, after)
as_independent = jax.vmap(vaejax.distributions.standard_normal(first).log_prob)(after)

lost = (as_chain - as_independent).reshape(100, 200).mean(1)  # of 100 times 200 days
information, error = -0.5 * np.log(1 - rho**2), lost.std() / np.sqrt(len(lost))
assert abs(lost.mean() - information) < 5 * error
print(f"lost by calling the days independent: {lost.mean():.3f} ± {error:.3f} nats a day")
print(f"the mutual information of neighbours: {information:.3f}")

# %%
figure, [[axes]] = figure_of(size=(6, 2.4))
days = np.arange(120)
axes.plot(days, x[1000:1120], color=BLUE, label="the chain")
shuffled = np.random.default_rng(0).permutation(x[1000:1120])
axes.plot(days, shuffled, color=ORANGE, lw=0.8, alpha=0.8, label="its days in random order")
finish(axes, xlabel="day", ylabel="weight, in scales")
legend(axes, "upper left", ncols=2)
axes.set_ylim(-3.2, 4.2)
figure

# %% [markdown]
# Both lines have the same values, and to an i.i.d. model they are the same data. The remedy is to
# make the example larger, until examples are independent: a whole week, a whole animal, a pair of
# neighbours given the first. Everything in this book then holds with that as $x$.
#
# A fully observed graph of seven nodes, fitted by gradients and held against its counts, is
# [`maximum_likelihood.py`](https://github.com/vaejax/vaejax/blob/main/experiments/graphs/maximum_likelihood.py).
#
# ## Exercises
#
# **1.** Permute the data. Which of these change: $\log p(\mathcal{D})$, the running mean, its last
# value?
#
# **2.** How many examples do you need, so that the standard error of the mean log-likelihood of the
# animals is 0.01 nats?
#
# ??? example "Solution"
#     The variance of $\log p(x)$ over $0.01^2$.
#
#     ```python
#     print(f"{log_p.var() / 0.01**2:,.0f} examples")
#     ```
#
# **3.** "Half a nat for each free number": draw 200 data sets of 100 animals and average how much
# higher the maximum is than the truth. (Eight numbers: two free shares, three means, three scales.)
#
# ??? example "Solution"
#     For $N$ large, twice the gain is a chi-squared variable with eight degrees of freedom.
#
#     ```python
#     def gain_of(key):
#         x = jax.vmap(animals(nature).sample)(jax.random.split(key, 100))
#         size = x["y"].sum(0)
#         mean = x["y"].T @ x["length"] / size[:, None]
#         scale = jnp.sqrt(x["y"].T @ x["length"] ** 2 / size[:, None] - mean**2)
#         best = {
#             "y": {"logits": jnp.log(size)},
#             "length": {"loc": mean, "log_scale": jnp.log(scale)},
#         }
#         differences = lambda x: animals(best).log_prob(x) - animals(nature).log_prob(x)
#         return jnp.sum(jax.vmap(differences)(x))
#
#     gains = jax.jit(jax.vmap(gain_of))(jax.random.split(jax.random.key(3), 200))
#     print(f"{gains.mean():.2f} ± {gains.std() / 200**0.5:.2f} nats, expected about 4")
#     ```
#
# In the API: [`DirectedGraph`](../api/models.md), [`map_dataset`](../api/data.md).
# Next: [1.6 Maximum likelihood](1_6_maximum_likelihood.md).
