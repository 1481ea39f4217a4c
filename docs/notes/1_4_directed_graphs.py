# %% [markdown]
# # 1.4 Neural networks and directed graphs
#
# After this page you can write any joint distribution as a product of conditionals, give each of
# them a table or a net, draw from it, and sum out exactly what has finitely many values.

# %%
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logit

import vaejax
from vaejax import DirectedGraph, Node, Table, plots
from vaejax.plots import BLUE, GREY, ORANGE, figure_of, finish

# %% [markdown]
# ## 1.4 Neural networks give the parameters
#
# A net is a flexible function, and a function can give the parameters of a distribution. For a
# class $y$ and an image $x$,
#
# $$\mathbf{p} = \mathrm{NeuralNet}_\theta(x), \qquad
#   p_\theta(y \mid x) = \mathrm{Categorical}(y;\, \mathbf{p}),$$
#
# with a softmax at the end of the net, so that $\mathbf{p}$ sums to one. In vaejax the two lines
# are the two parts of a *conditional*. The net gives logits, and the density applies the softmax.

# %%
net = vaejax.MLP(3, hidden=(16,))
conditional = vaejax.OneHotCategorical(net)

key, x = jax.random.key(0), jnp.array([0.3, -1.2])
theta = conditional.init(key, x)
p = jax.nn.softmax(net.apply(theta, x))  # p = NeuralNet(x)
for y in jnp.eye(3):  # log Categorical(y; p) = sum_c y_c log p_c
    assert abs(conditional(theta, x).log_prob(y) - jnp.sum(y * jnp.log(p))) < 1e-6
print("p(y | x) =", np.round(conditional(theta, x).mean(), 4))

# %% [markdown]
# A net is one choice of a function. Another is a table with a row for each state of what is given.
# The table can express everything and forgets nothing, but it has $2^n$ rows for $n$ binary
# parents:

# %%
print("parents        numbers in a table    in a net with 16 hidden units")
for n in (2, 5, 10, 20):
    parents, one = (jnp.zeros(1),) * n, jax.random.key(0)
    shapes = [
        jax.eval_shape(net.init, one, parents) for net in (Table(1, (2,) * n), vaejax.MLP(1, (16,)))
    ]
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(shape)) for shape in shapes]
    print(f"{n:7d} {sizes[0]:25,d} {sizes[1]:20,d}")

# %% [markdown]
# ## 1.4 Directed graphs
#
# A directed graphical model (section 1.5 of Kingma and Welling) is a product of conditionals,
#
# $$p_\theta(x_1, \dots, x_M) = \prod_{j=1}^M p_\theta(x_j \mid Pa(x_j)),$$
#
# where $Pa(x_j)$ are the parents of node $j$ and the arrows have no cycle. Each factor is as above:
# $\eta = \mathrm{NeuralNet}(Pa(x))$, and $p_\theta(x \mid Pa(x)) = p_\theta(x \mid \eta)$.
#
# The classic small one: clouds make rain likely and the sprinkler unlikely, and either makes the
# grass wet. Four binary nodes, each with a table.


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
plots.graph(garden, observed=("wet",))

# %%
tables = {  # the probability of 1, for each state of the parents
    "cloudy": jnp.array(0.5),
    "sprinkler": jnp.array([0.5, 0.1]),
    "rain": jnp.array([0.2, 0.8]),
    "wet": jnp.array([[0.01, 0.90], [0.90, 0.99]]),
}
params = {name: {"logits": logit(table)[..., None]} for name, table in tables.items()}
joint = garden(params)

# %% [markdown]
# `joint.log_probs` has the factors, and `joint.log_prob` their sum. Over all 16 states the
# probabilities add up to one, without any normalising constant: every factor is normalised by
# itself.

# %%
states = joint.states()  # {name: [16, 1]}
log_probs, log_prob = jax.vmap(joint.log_probs)(states), jax.vmap(joint.log_prob)(states)

assert jnp.allclose(log_prob, sum(log_probs.values()), atol=1e-6)
assert abs(jnp.exp(log_prob).sum() - 1) < 1e-6
state = {name: values[-1] for name, values in states.items()}
print("log p of the state", {name: int(value[0]) for name, value in state.items()})
for name, values in log_probs.items():
    print(f"  {name:10s} {values[-1]:8.4f}")
print(f"  {'sum':10s} {log_prob[-1]:8.4f} nats")

# %% [markdown]
# ### Marginals and Bayes' rule, exactly
#
# To know the probability of a part, sum over the rest. By hand, that is an array with one axis for
# each node, multiplied out and summed:

# %%
c, s, r, w = (np.stack([1 - np.asarray(t), np.asarray(t)], -1) for t in tables.values())
by_hand = np.einsum("c,cs,cr,srw->csrw", c, s, r, w)  # p(cloudy, sprinkler, rain, wet)


def probability(**values):
    """The same from the graph: every node that is not named is summed out."""
    return jnp.exp(joint.log_marginal({name: jnp.full(1, 1.0 * v) for name, v in values.items()}))


rain_and_wet, wet = probability(rain=1, wet=1), probability(wet=1)
assert abs(wet - by_hand[:, :, :, 1].sum()) < 1e-6
assert abs(rain_and_wet - by_hand[:, :, 1, 1].sum()) < 1e-6

# Bayes' rule, and the same in one call
_, rain_given_wet = joint.condition({"wet": jnp.ones(1)}).marginal("rain")
assert abs(rain_given_wet[1] - rain_and_wet / wet) < 1e-6
print(f"p(wet)        = {wet:.4f}")
print(f"p(rain | wet) = {rain_given_wet[1]:.4f}")

# %% [markdown]
# Now somebody tells you that the sprinkler was on. It explains the wet grass, and rain becomes less
# likely than before, although nothing connects the two but their child. This is *explaining away*,
# and it is why posteriors of latent variables are hard: independent causes become dependent once
# their effect is seen.

# %%
with_sprinkler = joint.condition({"wet": jnp.ones(1), "sprinkler": jnp.ones(1)})
_, rain_given_both = with_sprinkler.marginal("rain")
assert abs(rain_given_both[1] - by_hand[:, 1, 1, 1].sum() / by_hand[:, 1, :, 1].sum()) < 1e-6
assert rain_given_both[1] < rain_given_wet[1]

rain = probability(rain=1), rain_given_wet[1], rain_given_both[1]
figure, [[axes]] = figure_of(size=(6, 2.2))
names = "p(rain)", "p(rain | wet)", "p(rain | wet, sprinkler on)"
axes.barh(names, rain, color=(GREY, BLUE, ORANGE))
for row, value in enumerate(rain):
    axes.text(value + 0.01, row, f"{value:.3f}", va="center")
axes.invert_yaxis()
finish(axes, xlim=(0, 1))
figure

# %% [markdown]
# ### Ancestral sampling
#
# To draw from the joint, draw every node after its parents. `joint.sample(key)` is one draw, and
# `jax.vmap` makes many. Frequencies come near the exact marginals, here within five standard
# errors.

# %%
size = 20_000
draws = jax.jit(jax.vmap(joint.sample))(jax.random.split(jax.random.key(1), size))
print("node         frequency    exact")
for name in garden.order:
    exact, frequency = probability(**{name: 1}), draws[name].mean()
    assert abs(frequency - exact) < 5 * np.sqrt(exact * (1 - exact) / size)
    print(f"{name:10s} {frequency:10.4f} {exact:10.4f}")

# %% [markdown]
# A graph with a cycle has no such order, and its product of conditionals is no distribution. It is
# refused:

# %%
try:
    DirectedGraph((node("hen", "egg"), node("egg", "hen")))
except ValueError as error:
    print(error)

# %% [markdown]
# ### Chains, and sums that do not explode
#
# The sum over the rest has $2^n$ terms, and enumeration ends at some twenty nodes. But a sum of
# products can be done a node at a time, as $ab + ac = a(b + c)$ saves a product. This is *variable
# elimination*, and `log_marginal` does it. On a hidden Markov model, a chain of hidden states
# $h_t$ each with an observation $x_t$, it is the forward algorithm.


# %%
def hidden_markov(length):
    """h_1 -> h_2 -> ..., each h_t -> x_t; states tend to stay, observations sometimes err."""
    chain = [node("h1"), *(node(f"h{t}", f"h{t - 1}") for t in range(2, length + 1))]
    graph = DirectedGraph((*chain, *(node(f"x{t}", f"h{t}") for t in range(1, length + 1))))
    first, stay, seen = (logit(jnp.array(p))[..., None] for p in (0.5, [0.1, 0.9], [0.2, 0.8]))
    kinds = {"h": stay, "x": seen}
    params = {name: {"logits": kinds[name[0]]} for name in graph.order} | {"h1": {"logits": first}}
    return graph(params)


short = hidden_markov(6)
xs = {f"x{t}": jnp.full(1, float(t % 3 == 0)) for t in range(1, 7)}
paths = list(itertools.product([0.0, 1.0], repeat=6))
terms = [
    short.log_prob(xs | {f"h{t}": jnp.full(1, h) for t, h in enumerate(path, 1)}) for path in paths
]
enumerated = jax.nn.logsumexp(jnp.stack(terms))
eliminated = short.log_marginal(xs)
assert abs(enumerated - eliminated) < 1e-5
print(f"log p(x), a sum over {len(paths)} paths       {enumerated:.5f}")
print(f"log p(x), a node at a time          {eliminated:.5f}")

long = hidden_markov(40)
xs = {f"x{t}": jnp.full(1, float(t % 3 == 0)) for t in range(1, 41)}
print(f"40 steps, of {2**40:.1e} paths        {long.log_marginal(xs):.5f} nats")

# %% [markdown]
# ## A graph of nets
#
# Nothing changes when the values are real and the conditionals are nets. Here is
# $z_1 \to z_2 \to x$, each a normal whose mean and scale come from a small net of its parent. The
# weights are drawn at random, and still the four distributions of $x$ look like nothing that has a
# name: flexibility comes from composing simple factors. Learning, from section 1.5 on, is to choose
# the weights.

# %%
deep = DirectedGraph(
    (
        Node("z1", vaejax.StandardNormal(1)),
        Node("z2", vaejax.DiagNormal(vaejax.MLP(2, (32,), heads=2)), "z1"),
        Node("x", vaejax.Gaussian(vaejax.MLP(2, (32,)), scale=0.1), "z2"),
    )
)


@jax.jit
def cloud(weights):
    """Draws of x [3000, 2]."""
    return jax.vmap(deep(weights).sample)(jax.random.split(jax.random.key(9), 3_000))["x"]


figure, [panels] = figure_of(columns=4, size=(7.2, 2.1))
for seed, axes in enumerate(panels):
    weights = jax.tree.map(lambda leaf: 3 * leaf, deep.init(jax.random.key(seed)))
    points = np.asarray(cloud(weights))
    axes.scatter(*points.T, s=1, color=BLUE, alpha=0.4, linewidths=0)
    low, high = np.quantile(points, [0.005, 0.995], axis=0)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xticks=[], yticks=[])
figure.suptitle("draws of x from four graphs of random nets", fontsize=11)
figure

# %% [markdown]
# Sums over real values are integrals, and with one number each a grid can do them. The density of
# the pair $z \to x$, both real, is normalised too:

# %%
pair = DirectedGraph(
    (
        Node("z", vaejax.StandardNormal(1)),
        Node("x", vaejax.DiagNormal(vaejax.MLP(1, (16,), heads=2)), "z"),
    )
)
of_pair = pair(pair.init(jax.random.key(0)))
axis = jnp.linspace(-9, 9, 361)
zs, xs = (grid.reshape(-1, 1) for grid in jnp.meshgrid(axis, axis))
density = jnp.exp(jax.vmap(lambda z, x: of_pair.log_prob({"z": z, "x": x}))(zs, xs))
integral = density.sum() * (axis[1] - axis[0]) ** 2
assert abs(integral - 1) < 1e-4
print(f"the integral of p(z, x) over a grid: {integral:.6f}")

# %% [markdown]
# ## Exercises
#
# **1.** In the garden, are `sprinkler` and `rain` independent? Are they once `cloudy` is known?
# Read it off the arrows, then compute both sides of $p(s, r \mid c) = p(s \mid c)\, p(r \mid c)$.
#
# ??? example "Solution"
#     Not independent, for both have the parent `cloudy`; given that, they are.
#
#     ```python
#     both, s, r = probability(sprinkler=1, rain=1), probability(sprinkler=1), probability(rain=1)
#     assert abs(both - s * r) > 0.05
#     c = probability(cloudy=1)
#     both = probability(sprinkler=1, rain=1, cloudy=1) / c
#     s, r = (probability(cloudy=1, **{name: 1}) / c for name in ("sprinkler", "rain"))
#     assert abs(both - s * r) < 1e-6
#     ```
#
# **2.** The arrows are not the causes: the same joint of `rain` and `wet` can be written with the
# arrow from `wet` to `rain`. Find its tables.
#
# ??? example "Solution"
#     The root has $p(\mathrm{wet})$, the child has $p(\mathrm{rain} \mid \mathrm{wet})$.
#
#     ```python
#     reversed_graph = DirectedGraph((node("wet"), node("rain", "wet")))
#     rows = [joint.condition({"wet": jnp.full(1, w)}).marginal("rain")[1][1] for w in (0.0, 1.0)]
#     backwards = reversed_graph(
#         {"wet": {"logits": logit(wet)[None]}, "rain": {"logits": logit(jnp.stack(rows))[:, None]}}
#     )
#     for rain, is_wet in itertools.product([0.0, 1.0], repeat=2):
#         value = {"rain": jnp.full(1, rain), "wet": jnp.full(1, is_wet)}
#         assert abs(backwards.log_prob(value) - joint.log_marginal(value)) < 1e-5
#     ```
#
# **3.** Smoothing: in the short chain, which of the six hidden states is the most uncertain, given
# all observations? (`short.condition(xs).marginal("h3")` is the answer for one of them.)
#
# At full scale, graphs whose factors are learned:
# [`maximum_likelihood.py`](https://github.com/vaejax/vaejax/blob/main/experiments/graphs/maximum_likelihood.py),
# and with hidden nodes
# [`mixtures.py`](https://github.com/vaejax/vaejax/blob/main/experiments/graphs/mixtures.py).
#
# In the API: [`DirectedGraph`, `Node`, the conditionals](../api/models.md), [`Table`, `Free`,
# `MLP`](../api/networks.md). Next: [1.5 Independent data](1_5_independent_data.md).
