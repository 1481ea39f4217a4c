# %% [markdown]
# # Pictures of a model
#
# After this page you know every picture that `vaejax.plots` draws, what each shows, and what it
# cannot show. All are of one run on the digits.

# %%
import jax
import numpy as np
import optax

import vaejax
from vaejax import plots

digits, pixels = vaejax.prepare_pixels(vaejax.load_dataset("digits"), "dynamic")
likelihood = vaejax.Bernoulli(vaejax.MLP((8, 8), hidden=(128,)))
model = vaejax.VAE(
    prior=vaejax.StandardNormal(2),
    likelihood=likelihood,
    encoder=vaejax.DiagNormal(vaejax.MLP(2, hidden=(128,), heads=2)),
)
key = jax.random.key(0)


def train(model, num_steps=1_000):
    """A run of this page."""
    return vaejax.fit(
        vaejax.minibatch(vaejax.Pathwise(), model),
        model.init(key, pixels(digits.train.images[0], key)),
        optax.adam(2e-3),
        digits.train.images,
        key,
        num_steps=num_steps,
        batch_size=100,
        transform=pixels,
        validation=vaejax.Validation(digits.valid.images, every=250),
        progress=False,
    )


run = train(model)
params = run.params
stored, labels = digits.test.images, digits.test.labels
xs = jax.vmap(pixels)(stored, jax.random.split(key, len(stored)))

# %% [markdown]
# Every function returns a matplotlib `Figure`; `plots.save(figure, path)` writes it. They take any
# model: a graph, whose latents have names, and a conditional model, which is given the examples
# `xs` whose inputs it keeps.
#
# ## The training

# %%
plots.curves(run.history, "digits, 2 latents")

# %% [markdown]
# The training bound is smoothed, and noisy: each step sees other examples. That of validation is of
# the same examples and the same noise each time. Where the two part, the model learns by heart.
#
# ## What it draws, and what it gives back

# %%
plots.samples(model, params, key, rows=3, columns=10)

# %% [markdown]
# These are means of $p(x \mid z)$, not single draws, so grey is a pixel that may be black or white.

# %%
shown = xs[:10]
plots.reconstructions(model, params, shown, key, columns=10, originals=stored[:10] / digits.maximum)

# %% [markdown]
# Above, the grey image; in the middle, what the model saw of it at this draw of the binarisation;
# below, its mean after one sample of the code. The model was never shown the grey, and gives it back.
#
# ## The latent space

# %%
means = vaejax.posterior_means(model, params, stored, key, transform=pixels)
plots.latent(model, params, means, labels)

# %% [markdown]
# With more than two numbers, or on the sphere, or of bits, the first panel is a projection on the
# two directions of most variance, and the second shows decoded means, each in its place. A
# projection shows less than there is: classes that overlap in it may be apart.
#
# ## One latent at a time

# %%
plots.traverse(model, params, xs[3], key)

# %% [markdown]
# The rest stays at the posterior mean of the example `xs[3]`, and each number goes from its 5 % to
# its 95 % quantile under the prior. The rows are sorted: a latent that is not used changes nothing
# and comes last.
#
# ## From one example to another

# %%
first, second = (
    [np.flatnonzero(labels == digit)[0] for digit in row] for row in ([0, 1, 3], [6, 7, 4])
)
plots.interpolate(model, params, xs[np.array(first)], xs[np.array(second)], key)

# %% [markdown]
# The examples stand at the ends. On the sphere the path is a great circle; between latents that are
# discrete nothing lies, and the function says so.
#
# ## Priors

# %%
richer = vaejax.VAE(vaejax.MixtureOfGaussians(2, 10), likelihood, model.encoder)
other = train(richer)


def draws(model, params):
    """One z ~ q(z | x) of each test example."""
    posteriors = jax.vmap(lambda x, key: model.posterior(params, x).sample(key))
    return posteriors(xs, jax.random.split(key, len(xs)))


entries = {
    "standard normal": (model, params, draws(model, params)),
    "mixture of 10": (richer, other.params, draws(richer, other.params)),
}
plots.priors(entries, labels, key)

# %% [markdown]
# Above, the prior in grey and draws of $q(z \mid x)$ in colour; below, what the prior's draws
# decode to. Where there is grey and no colour, the prior draws what the decoder never saw.
#
# ## Runs side by side

# %%
histories = {"standard normal": run.history, "mixture of 10": other.history}
results = {
    name: vaejax.evaluate(m, p, stored, key, num_samples=50, transform=pixels).log_marginal
    for name, (m, p, _) in entries.items()
}
assert all(np.isfinite(result.mean) for result in results.values())
plots.compare(histories, results)

# %% [markdown]
# The bars are two standard errors over the test examples. Both runs were evaluated on the same ones,
# so they overlap more than the difference between the runs is uncertain.
#
# ## A graph

# %%
graph = vaejax.DirectedGraph(
    (
        vaejax.Node("y", vaejax.OneHotCategorical(vaejax.Free(10, ("logits",)))),
        vaejax.Node("z", vaejax.StandardNormal(2)),
        vaejax.Node("x", likelihood, ("z", "y")),
    )
)
plots.graph(graph, observed=("x",))

# %% [markdown]
# ## Exercises
#
# 1. Train with `vaejax.UniformOnSphere(3)` and `vaejax.VonMisesFisher`, and interpolate: are the
#    pictures in the middle better than on a straight path?
# 2. Train with 10 latents and traverse them. How many rows change anything? Compare with
#    `vaejax.latent_space(...).active`.
