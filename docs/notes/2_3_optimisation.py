# %% [markdown]
# # 2.3 Stochastic gradients of the ELBO
#
# After this page you know why the gradient in $\theta$ is easy, why the one in $\phi$ is not, and
# what the first way out of it, the score function, costs.
#
# The objective of a data set of independent examples is the sum of their ELBOs,
#
# $$\mathcal L_{\theta,\phi}(\mathcal D) = \sum_{x \in \mathcal D} \mathcal L_{\theta,\phi}(x),$$
#
# and it is maximised by stochastic gradient ascent: a random minibatch in place of the data, a
# random $z \sim q_\phi(z|x)$ in place of the expectation. In the library the first is an objective,
# `vaejax.minibatch(estimator, model)`, which `vaejax.fit` maximises; the second is its *estimator*,
# such as `vaejax.Pathwise()`, a function of one example **whose value is a bound and whose gradient
# is the estimate**: `jax.grad` of it is all there is. This page and
# [the next](2_4_reparameterisation.md)
# look at that gradient. Here is the model of [2.2](2_2_elbo.md) again, one latent number and one
# observed number, whose ELBO and its gradient are sums over a grid.

# %%
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import vaejax
from vaejax.plots import BLUE, INK, ORANGE, figure_of, finish, legend, ticks_at


@vaejax.component
class Line:
    """z -> w z + b: anything with `init` and `apply` is a net."""

    def init(self, key, z):
        return {"w": jnp.ones(()), "b": jnp.zeros(())}

    def apply(self, params, z):
        return params["w"] * z + params["b"]


def copies(dim):
    """`dim` independent copies of the model: p(x|z) = N(1.3 z + 0.2, 0.8^2), q(z|x) = N(0.4, 0.6^2)
    and x = 1.1 in each. As (model, params, x).
    """
    model = vaejax.VAE(
        prior=vaejax.StandardNormal(dim),
        likelihood=vaejax.Gaussian(Line(), scale=0.8),
        encoder=vaejax.DiagNormal(vaejax.Free(dim), max_log_scale=None),
    )
    line = {"w": jnp.asarray(1.3), "b": jnp.asarray(0.2)}
    phi = {"loc": jnp.full(dim, 0.4), "log_scale": jnp.full(dim, jnp.log(0.6))}
    theta = {"prior": (), "likelihood": {"net": line}}
    return model, vaejax.Params(theta, phi), jnp.full(dim, 1.1)


model, _, _ = copies(1)
grid = np.linspace(-10, 10, 4_001)


def mean_under_q(params, x, function):
    """E_q function(z), of one number or of a tree of them, by a sum over the grid."""
    z = jnp.asarray(grid)[:, None]
    q = jnp.exp(jax.vmap(model.posterior(params, x).log_prob)(z)) * (grid[1] - grid[0])
    return jax.tree.map(lambda values: jnp.tensordot(q, values, 1), jax.vmap(function)(z))


def log_weight(params, x, z):
    """log w = log p(x, z) - log q(z|x)."""
    return model.log_joint(params, x, z) - model.posterior(params, x).log_prob(z)


def exact_elbo(params, x):
    return mean_under_q(params, x, partial(log_weight, params, x))


# %% [markdown]
# ## The gradient in the model's parameters
#
# $q$ does not depend on $\theta$, so the gradient goes inside of the expectation:
#
# $$\nabla_\theta\, \mathbb E_{q_\phi(z|x)}\big[\log p_\theta(x, z) - \log q_\phi(z|x)\big]
# = \mathbb E_{q_\phi(z|x)}\big[\nabla_\theta \log p_\theta(x, z)\big].$$
#
# One sample $z \sim q$ and `jax.grad(model.log_joint)(params, x, z)` is an unbiased estimate.
#
# ## The gradient in the encoder's parameters
#
# $q_\phi$ *is* what is averaged over, so for $\phi$ the same exchange is wrong:
#
# $$\nabla_\phi\, \mathbb E_{q_\phi(z|x)}\big[f_\phi(z)\big] \ne
# \mathbb E_{q_\phi(z|x)}\big[\nabla_\phi f_\phi(z)\big].$$
#
# For $f = \log p(x, z) - \log q_\phi(z|x)$ the right-hand side is $-\mathbb E_q[\nabla_\phi \log
# q_\phi(z|x)]$, and that is zero whatever the model is: probabilities add up to one. The table has
# both sides, for $\theta$ and for $\phi$.

# %%
NAMES = ("bias", "weight", "loc of q", "log scale of q")


def numbers(tree):
    """The four derivatives, of a gradient in params."""
    return np.array([leaf.item() for leaf in jax.tree.leaves(tree)])


with jax.enable_x64(True):
    _, params, x = copies(1)
    exact = numbers(jax.grad(exact_elbo)(params, x))
    derivatives = partial(jax.grad(log_weight), params, x)
    exchanged = numbers(mean_under_q(params, x, derivatives))

print("derivative in      of the mean   mean of the derivatives")
for name, right, naive in zip(NAMES, exact, exchanged, strict=True):
    print(f"{name:<17}{right:>13.6f}{naive + 0.0:>19.6f}")
assert np.abs(exchanged[:2] - exact[:2]).max() < 1e-10  # theta: the same
assert np.abs(exchanged[2:]).max() < 1e-10  # phi: zero, always

# %% [markdown]
# An encoder trained by that "gradient" would never move. There are two ways out: write the
# expectation of the gradient as another expectation (here), or draw $z$ in another way, so that the
# distribution no longer depends on $\phi$ ([2.4](2_4_reparameterisation.md)).
#
# ## 2.9.1 The score function estimator
#
# From $\nabla_\phi q_\phi = q_\phi \nabla_\phi \log q_\phi$,
#
# $$\nabla_\phi\, \mathbb E_{q_\phi}\big[f(z)\big] = \int f(z)\, \nabla_\phi q_\phi(z|x)\, dz
# = \mathbb E_{q_\phi}\big[f(z)\, \nabla_\phi \log q_\phi(z|x)\big].$$
#
# It is also known as the likelihood ratio method, and as REINFORCE. It asks nothing of $f$, which
# may be a black box, and nothing of $z$, which may be discrete. And since the score has mean zero,
# any constant can be taken from $f$: a *baseline* $b$ changes the variance, not the mean,
#
# $$\mathbb E_q\big[(f(z) - b)\, \nabla_\phi \log q_\phi(z|x)\big]
# = \mathbb E_q\big[f(z)\, \nabla_\phi \log q_\phi(z|x)\big].$$

# %%
with jax.enable_x64(True):

    def score(z):
        return jax.grad(lambda params: model.posterior(params, x).log_prob(z))(params)

    def score_term(baseline, z):
        """(f(z) - b) times the score, of q's parameters alone."""
        f = log_weight(params, x, z) - baseline
        return jax.tree.map(lambda s: f * s, score(z))

    def squared_term(baseline, z):
        return jax.tree.map(jnp.square, score_term(baseline, z))

    deviations = {}
    for baseline in (0.0, float(exact_elbo(params, x)), 3.0):
        mean = numbers(mean_under_q(params, x, partial(score_term, baseline)))
        square = numbers(mean_under_q(params, x, partial(squared_term, baseline)))
        deviations[baseline] = np.sqrt(square - mean**2)[2:]
        assert np.abs(mean[2:] - exact[2:]).max() < 1e-10

print("baseline b    exact deviation of one sample's gradient, in loc and in log scale")
for baseline, (loc, log_scale) in deviations.items():
    print(f"{baseline:>9.3f}{loc:>14.3f}{log_scale:>9.3f}")

# %% [markdown]
# The mean stays and the noise does not: a constant that is added to $\log p(x, z)$, which changes
# nothing of the problem, is paid for in variance. In a model of images $\log p(x, z)$ is often a
# hundred nats and more below zero. So nobody uses $b = 0$. With several samples each can take the
# mean of the others as its baseline, `vaejax.ScoreFunction(num_samples, vaejax.LeaveOneOut())`,
# which needs no tuning.
#
# ## Unbiased, seen
#
# `vaejax.gradient_moments` draws a gradient as often as you say, and keeps its moments. Each
# interval is the mean of 2,000 gradients of four samples each, with five standard errors on either
# side. All contain the exact derivative; what differs is their width. `Pathwise` is the subject of
# the [next page](2_4_reparameterisation.md).

# %%
groups = {
    "loc of q": vaejax.groups.Part(("phi", "loc")),
    "log scale of q": vaejax.groups.Part(("phi", "log_scale")),
}
estimators = {
    "score function, b = 0": vaejax.ScoreFunction(4, vaejax.NoBaseline()),
    "score function, leave one out": vaejax.ScoreFunction(4, vaejax.LeaveOneOut()),
    "pathwise": vaejax.Pathwise(4),
}
_, params, x = copies(1)
num_draws, at_once = 2_000, {"order": 2, "strategy": "vmap", "chunk": 1_000}
moments = {
    name: vaejax.gradient_moments(
        vaejax.per_example(estimator, model),
        params,
        x,
        jax.random.key(0),
        num_draws,
        groups=groups,
        **at_once,
    )
    for name, estimator in estimators.items()
}
means = {name: numbers(moment.mean)[2:] for name, moment in moments.items()}
errors = {
    name: np.sqrt(numbers(moment.variance)[2:] / num_draws) for name, moment in moments.items()
}
for name in estimators:
    assert (np.abs(means[name] - exact[2:]) < 5 * errors[name]).all()  # false alarm 6e-7 each

figure, [panels] = figure_of(columns=2, size=(7, 2.5), sharey=True)
for i, (axes, parameter) in enumerate(zip(panels, groups, strict=True)):
    for place, name in enumerate(estimators):
        bar, colour = 5 * errors[name][i], BLUE if name == "pathwise" else ORANGE
        axes.errorbar(means[name][i], -place, xerr=bar, fmt="o", ms=5, capsize=4, color=colour)
    axes.axvline(exact[2 + i], color=INK, lw=0.9)
    finish(axes, title=f"in the {parameter}", ylim=(-len(estimators) + 0.5, 0.5))
    axes.set_yticks([0, -1, -2], list(estimators))
figure

# %% [markdown]
# How much wider, as ratios of variances with 95 % intervals. All three saw the same random numbers,
# so what they have in common cancels (`vaejax.variance_ratio`).

# %%
print("variance, over that of pathwise")
for name in list(estimators)[:2]:
    for group in groups:
        ratio, low, high = vaejax.variance_ratio(moments[name], moments["pathwise"], group)
        print(f"{name:<32}{group:<16}{ratio:6.2f}   ({low:.2f} to {high:.2f})")
        assert high < 1 if name.endswith("leave one out") else low > 1

# %% [markdown]
# With a good baseline the score function *wins* here. One latent and a $q$ near the posterior are
# its best case, for then $f - b$ is small. Its trouble is the dimension.
#
# ## What it costs in many dimensions
#
# Take $d$ independent copies of the model, so that $f = f_1 + \dots + f_d$, and look at the
# derivative in the location of the first latent. With the best possible knowledge of the mean, $b =
# \mathbb E f$,
#
# $$\mathrm{Var}\big[(f - b)\, s_1\big] = \mathrm{Var}\big[(f_1 - \mathbb E f_1)\, s_1\big] +
# (d - 1)\, \mathrm{Var}[f_1]\, \mathbb E[s_1^2] :$$
#
# the score of one latent is multiplied by the noise of all the others. The pathwise derivative sees
# the first copy alone, and its variance is that of $d = 1$. Lines are exact, points are measured,
# from 100,000 draws: products of normals have such tails that fewer would say little, and
# `vaejax.gradient_spread` would say so by an interval from 0 to infinity.


# %%
def first_loc(params):
    return params.phi["loc"][0]


mean_of_f = sorted(deviations)[0]  # b = E f of one copy
with jax.enable_x64(True):
    _, params, x = copies(1)

    def squared_deviation(z):
        return (log_weight(params, x, z) - mean_of_f) ** 2

    noise = mean_under_q(params, x, squared_deviation)
    alone, per_copy = deviations[mean_of_f][0] ** 2, float(noise) / 0.6**2
    pathwise = float(((1 + 1.3**2 / 0.8**2) * 0.6) ** 2)  # of -lambda (z - m)

dims, measured = (1, 8, 64), {"score function, b = E f": [], "pathwise": []}
for dim in dims:
    many, params, x = copies(dim)
    baseline = vaejax.ConstantBaseline(dim * mean_of_f)
    for name, estimator in zip(
        measured, (vaejax.ScoreFunction(1, baseline), vaejax.Pathwise()), strict=True
    ):
        objective, group = vaejax.per_example(estimator, many), {"loc": first_loc}
        draws = vaejax.gradient_moments(
            objective, params, x, jax.random.key(1), 100_000, groups=group, **at_once
        )
        measured[name].append(vaejax.gradient_spread(draws, group)["loc"])

exact_curves = {
    "score function, b = E f": alone + (np.arange(1, 65) - 1) * per_copy,
    "pathwise": np.full(64, pathwise),
}
figure, [[axes]] = figure_of(size=(6.4, 3.4))
for (name, curve), colour in zip(exact_curves.items(), (ORANGE, BLUE), strict=True):
    axes.plot(np.arange(1, 65), curve, color=colour, label=name)
    trace, low, high = np.array([spread[:3] for spread in measured[name]]).T
    axes.errorbar(dims, trace, [trace - low, high - trace], fmt="o", ms=5, color=colour)
    # two and a half times the interval at 95 %: a false alarm of 1e-6
    assert (np.abs(np.log(trace / curve[np.array(dims) - 1])) < 2.5 * np.log(high / trace)).all()
finish(axes, xscale="log", yscale="log", xlabel="number of latents", ylabel="variance")
ticks_at(axes, dims)
legend(axes, "upper left")
figure

# %% [markdown]
# The score function is the estimator for what cannot be differentiated, a discrete latent or a
# black box. Where the model is differentiable and has many latents, the next page has something
# better.
#
# ## Exercises
#
# 1. Show that $\mathbb E_q[\nabla_\phi \log q_\phi(z|x)] = 0$ in one line. Where did you need that
#    the support of $q$ does not depend on $\phi$?
#
# 2. Which constant $b$ has the least variance for one parameter with the score $s$?
#
#     ??? example "Solution"
#         $\mathrm{Var}[(f - b)s] = \mathbb E[(f - b)^2 s^2] - (\mathbb E[f s])^2$ is a parabola in
#         $b$, least at $b = \mathbb E[f s^2] / \mathbb E[s^2]$. `vaejax.OptimalConstant` estimates
#         it, from samples of its own so that the gradient stays unbiased.
#
# 3. Add 100 to `f` in `score_term`. What happens to each of the deviations, and
#    what to those of `vaejax.ScoreFunction(4)` with `LeaveOneOut`?
#
# **At full scale:**
# [mc_gradient_review.py](https://github.com/vaejax/vaejax/blob/main/experiments/gradients/mc_gradient_review.py)
# and
# [gradient_variance.py](https://github.com/vaejax/vaejax/blob/main/experiments/gradients/gradient_variance.py).
#
# **In the API:** [`minibatch`](../api/objectives.md), [`fit`](../api/training.md),
# [`ScoreFunction`, `LeaveOneOut`](../api/estimators.md), [`gradient_moments`,
# `variance_ratio`](../api/variance.md). **Which to choose:** [estimators](../choose/estimator.md).
#
# Next: [2.4 The reparameterisation trick](2_4_reparameterisation.md).
