r"""A discrete latent makes a mixture: exact where it is finite, an infinite mixture where it is
continuous, both at once on digits.

    python experiments/graphs/mixtures.py

In two dimensions, p(y) p(x | y) with y one of K states and Gaussian x is a Gaussian mixture, whose
marginal is a sum of K terms,

    log p(x) = log sum_k p(y = k) N(x; m_k, S_k),

so SGD on it does what EM does. A continuous z is a mixture of infinitely many: p(x) = int N(z; 0,
I) N(x; m(z), S(z)) dz, a VAE. Its log p(x) is estimated with many importance samples. With one
latent it is a thickened curve: it bends with the data, where each Gaussian of the finite mixture is
straight, but it has to cross from one piece of the data to the next.

On digits both stand in one graph, y -> z -> x, a VAE whose prior is a mixture of Gaussians, p(z) =
sum_y p(y) N(z; m_y, S_y), and whose encoder says which: q(z | x) q(y | z), y summed out exactly in
the bound (Jiang et al. 2017 and Dilokthanakul et al. 2016 have mixtures for the prior of a VAE). No
label is ever shown; the clusters are held against the labels afterwards: purity is the share of
examples whose label is the commonest of their cluster, NMI the normalised mutual information of
clusters and labels.

Expected: SGD from EM's start (k-means) reaches EM's log-likelihood; of the finite mixtures the
larger is the better; clusters find most of the digits, though nothing but the bound asks them to.
Measured by the command above, nats:

    mixture in the plane    training log p(x)    test log p(x)
    3 Gaussians             -1.4642              -1.503 +- 0.021    by EM and by SGD, to 1e-3
    6 Gaussians             -1.0643              -1.106 +- 0.027    by EM and by SGD, to 1e-3
    a VAE, one latent       -1.1426              -1.209 +- 0.026
    the truth               -0.9830              -1.019 +- 0.025

    digits, K = 20          test bound -17.96 +- 0.25, log p(x) -17.27 +- 0.24;
                            purity 0.810, NMI 0.678
    k-means of the pixels   purity 0.883, NMI 0.757

So these clusters are there, and they agree with the labels less than those of k-means on the grey
pixels do. The errors are over the examples, of one run.

Duration: 44 s on two cores of an Intel Xeon.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import vaejax
from experiments.lib import figures, flags, tables
from experiments.lib.data import Examples, require_labels
from experiments.lib.script import Report, joined, run_script
from experiments.lib.training import fitted
from vaejax import plots
from vaejax.base.fields import Count, Distinct, Plural
from vaejax.distributions.mixture import Mixture
from vaejax.runs.build import load_data


@dataclasses.dataclass(frozen=True)
class Config(flags.ImageSetting):
    """Mixtures of 2-D data and of digits."""

    parts: flags.Parts[Literal["plane", "digits"]] = ("plane", "digits")
    plane_examples: Plural = 1_000
    """Of the 2-D data, for training; there are as many for test."""
    component_counts: Distinct[Count] = (3, 6)
    """Numbers of components of the finite mixtures of the 2-D data."""
    plane_steps: Count = 2_000
    """Steps of each training on the 2-D data."""
    num_clusters: Plural = 20
    """Components of the prior of the digits' VAE."""
    latent_dim: flags.LatentDim = 8
    hidden: tuple[Count, ...] = (200,)
    eval_samples: flags.EvalSamples = 500
    out: str = "runs/mixtures"


# In the plane: a finite mixture, exact, and an infinite one.

SECOND_CENTRE = np.array([1.0, 0.5])  # of the second arc; that of the first is the origin
MIDDLE = np.array([0.5, 0.25])
NOISE = 0.1


def two_arcs(num_points: int, seed: int) -> np.ndarray:
    """[n, 2]: two half circles, one turned and moved, with noise of deviation 0.1."""
    generator = np.random.default_rng(seed)
    angle, upper = np.pi * generator.random(num_points), generator.random(num_points) < 0.5
    arc = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points = np.where(upper[:, None], arc, SECOND_CENTRE - arc)
    noise = generator.normal(size=points.shape)
    return (points - MIDDLE + NOISE * noise).astype(np.float32)


def log_density_of_arcs(points: np.ndarray, num_angles: int = 1_000) -> np.ndarray:
    """log p(x) of `two_arcs`: over both arcs and the angle, by the midpoint rule."""
    angle = np.pi * (np.arange(num_angles) + 0.5) / num_angles
    arc = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    centres = np.concatenate([arc, SECOND_CENTRE - arc]) - MIDDLE
    squares = ((points[:, None] - centres[None]) ** 2).sum(-1) / NOISE**2
    log_sum = np.logaddexp.reduce(-0.5 * squares, axis=1)
    return log_sum - np.log(len(centres)) - np.log(2 * np.pi * NOISE**2)


def finite_mixture(num_components: int) -> vaejax.DirectedGraph:
    """y -> x in the plane: linear in the one-hot y, so a mean and covariance for each."""
    component = vaejax.OneHotCategorical(vaejax.Free(num_components, ("logits",)))
    point = vaejax.FullNormal(vaejax.MLP(2, hidden=(), heads=4))
    return vaejax.DirectedGraph((vaejax.Node("y", component), vaejax.Node("x", point, "y")))


def log_density(graph: vaejax.DirectedGraph, params: vaejax.Params, x, key):
    """log p(x) = log sum_y p(y) p(x | y), exact, nats. Nothing is drawn, so the key is not used."""
    return graph(params.theta).log_marginal({"x": x})


def at_centres(params: dict, centres: np.ndarray, scale: float) -> dict:
    """The components at these centres [K, d], round, of one scale: the rows of a linear layer on
    one-hot y, whose bias is zero.
    """
    (dense,) = params["params"].values()
    dim = centres.shape[1]
    locations = jnp.zeros_like(dense["kernel"]).at[:, :dim].set(centres)
    rows = locations.at[:, dim : 2 * dim].set(np.log(scale))
    return {"params": {"Dense_0": {"kernel": rows, "bias": jnp.zeros_like(dense["bias"])}}}


def k_means(points: np.ndarray, count: int, seed: int) -> Any:
    """Scikit-learn's `KMeans`, the best of ten starts: `cluster_centers_` [count, d] and `predict`,
    the number of the nearest one.
    """
    from sklearn.cluster import KMeans

    starts: Any = 10  # scikit-learn's stubs know "auto" alone
    return KMeans(count, n_init=starts, random_state=seed).fit(points)


def by_sgd(
    config: Config, points: np.ndarray, centres: np.ndarray, key
) -> tuple[vaejax.DirectedGraph, vaejax.Params]:
    """The finite mixture by gradients of its exact log-density."""
    graph = finite_mixture(len(centres))
    theta = graph.init(key)
    theta["x"] = at_centres(theta["x"], centres, 0.3)
    objective = vaejax.minibatch(partial(log_density, graph), support=vaejax.supports.REAL)
    return graph, fitted(config, objective, vaejax.Params(theta, ()), points, key)


def by_em(points: np.ndarray, centres: np.ndarray):
    """The finite mixture by expectation maximisation, from the same centres."""
    from sklearn.mixture import GaussianMixture

    settings = {"tol": 1e-8, "max_iter": 10_000, "reg_covar": 1e-9, "random_state": 0}
    return GaussianMixture(len(centres), means_init=centres, **settings).fit(points.astype(float))


def infinite_mixture() -> vaejax.VAE:
    """p(x) = int N(z; 0, 1) N(x; m(z), diag S(z)) dz, x in the plane."""
    net = partial(vaejax.MLP, hidden=(64, 64), heads=2)
    likelihood, encoder = vaejax.DiagNormal(net(2)), vaejax.DiagNormal(net(1))
    return vaejax.VAE(vaejax.StandardNormal(1), likelihood, encoder)


def log_density_by_quantiles(
    model: vaejax.VAE, params: vaejax.Params, points, num_components: int = 2_000
) -> np.ndarray:
    """log p(x) of the infinite mixture by p(x | z) at so many quantiles z of the prior."""
    zs = jax.scipy.stats.norm.ppf((jnp.arange(num_components) + 0.5) / num_components)[:, None]
    components = jax.vmap(partial(model.p_x_given_z, params))(zs)
    log_prob = Mixture(jnp.zeros(num_components), components).log_prob
    return np.asarray(jax.jit(partial(jax.lax.map, log_prob, batch_size=100))(jnp.asarray(points)))


def plane(config: Config) -> Report:
    """Mean log p(x) on training and test points, nats, of finite mixtures by EM and by SGD, of an
    infinite one, and of the truth.
    """
    train, test = (two_arcs(config.plane_examples, config.seed + part) for part in (0, 1))
    settings = {"num_steps": config.plane_steps, "batch_size": 200, "learning_rate": 2e-2}
    steps = dataclasses.replace(config, **settings)
    sgd_key, init_key, fit_key, test_key = jax.random.split(jax.random.key(config.seed), 4)
    densities, shown = {}, {}
    for count in config.component_counts:
        centres = k_means(train, count, config.seed).cluster_centers_
        graph, params = by_sgd(steps, train, centres, sgd_key)
        density = partial(vaejax.map_dataset, partial(log_density, graph), params, key=test_key)
        densities[f"{count} Gaussians by EM"] = by_em(train, centres).score_samples
        densities[f"{count} Gaussians by SGD"] = shown[f"{count} Gaussians by SGD"] = density
    vae, name = infinite_mixture(), "infinitely many: a VAE"
    objective = vaejax.minibatch(vaejax.Pathwise(8, vaejax.iwae_bound), vae)
    steps = dataclasses.replace(steps, learning_rate=3e-3)
    params = fitted(steps, objective, vae.init(init_key, train[0]), train, fit_key)
    log_marginal = partial(vaejax.log_marginal, vae, num_samples=config.eval_samples)
    densities[name] = partial(vaejax.map_dataset, log_marginal, params, key=test_key)
    shown[name] = partial(log_density_by_quantiles, vae, params)
    densities["the truth"] = shown["the truth"] = log_density_of_arcs
    rows = [
        {"model": name, "train": vaejax.estimate(density(train))}
        | {"test": vaejax.estimate(density(test))}
        for name, density in densities.items()
    ]
    header = "mixture in the plane | log p(x), training | log p(x), test"
    table = tables.table(header, "{model} | {train:.4f} | {test:.3f}", rows)
    return Report(rows, table, {"plane": lambda: plane_figure(train, shown)})


def plane_figure(points: np.ndarray, densities: dict[str, Callable]) -> Figure:
    """The log-densities, nats, all on one scale, and the data in the first panel."""
    size = 3.1 * len(densities) + 0.8, 2.6
    figure, [panels] = plots.figure_of(columns=len(densities), size=size, sharey=True)
    first, second = np.linspace(-2, 2, 140), np.linspace(-1.4, 1.4, 100)
    grid = np.stack(np.meshgrid(first, second), axis=-1).reshape(-1, 2).astype(np.float32)
    look = {"levels": np.linspace(-8, 0.5, 18), "cmap": "Blues"}
    filled: Any = None
    for axes, (name, density) in zip(panels, densities.items(), strict=True):
        values = np.clip(np.asarray(density(grid)).reshape(len(second), len(first)), -8, 0.5)
        filled = axes.contourf(first, second, values, **look)
        axes.set_title(name, fontsize=10)
        axes.set_aspect("equal")
    panels[0].scatter(*points[:300].T, s=3, color=plots.ORANGE, linewidths=0)
    bar = {"label": "log p(x), nats", "ticks": [-8, -6, -4, -2, 0], "shrink": 0.75, "pad": 0.01}
    figure.colorbar(filled, ax=list(panels), **bar)
    return figure


# Digits: a mixture of Gaussians for the prior of a VAE.


def mixture_vae(
    shape: tuple[int, ...], num_clusters: int, latent_dim: int, hidden: tuple[int, ...]
) -> vaejax.GraphModel:
    """y -> z -> x, q(z | x) q(y | z), y's logits linear in z: exact under one covariance."""
    y = vaejax.OneHotCategorical(vaejax.Free(num_clusters, ("logits",)))
    z = vaejax.DiagNormal(vaejax.MLP(latent_dim, hidden=(), heads=2))
    x = vaejax.Bernoulli(vaejax.MLP(shape, hidden))
    q_z = vaejax.DiagNormal(vaejax.MLP(latent_dim, hidden, heads=2))
    q_y = vaejax.OneHotCategorical(vaejax.MLP(num_clusters, hidden=()))
    graph = (vaejax.Node("y", y), vaejax.Node("z", z, "y"), vaejax.Node("x", x, "z"))
    encoder = (vaejax.Node("z", q_z, "x"), vaejax.Node("y", q_y, "z"))
    return vaejax.GraphModel(
        vaejax.DirectedGraph(graph), vaejax.DirectedGraph(encoder, inputs=("x",))
    )


def warm_started(
    config: Config, model: vaejax.GraphModel, images: np.ndarray, transform, key
) -> vaejax.Params:
    """The nets of a VAE with a standard normal prior, trained as long; k-means of its latents for
    the mixture, round and of one scale s.

    q(y | z) starts at their exact posterior, logits z . m_y / s^2 - |m_y|^2 / (2 s^2). Jiang et al.
    2017 start their mixture from trained nets too.
    """
    init_key, fit_key, mean_key = jax.random.split(key, 3)
    p, q = (cast(Any, graph) for graph in (model.graph, model.encoder))
    prior = vaejax.StandardNormal(config.latent_dim)
    vae = vaejax.VAE(prior, p["x"].conditional, q["z"].conditional)
    x = transform(images[0], init_key)
    objective = vaejax.minibatch(vaejax.AnalyticKL(), vae)
    params = fitted(config, objective, vae.init(init_key, x), images, fit_key, transform)
    means = vaejax.posterior_means(vae, params, images, mean_key, transform=transform)
    clusters = k_means(means, config.num_clusters, config.seed)
    centres = clusters.cluster_centers_
    variance = float(np.mean((means - centres[clusters.predict(means)]) ** 2))
    start = model.init(init_key, x)
    components = at_centres(start.theta["z"], centres, variance**0.5)
    logits = {"kernel": centres.T / variance, "bias": -0.5 * (centres**2).sum(1) / variance}
    q_y = {"params": {"Dense_0": jax.tree.map(jnp.asarray, logits)}}
    theta = start.theta | {"x": params.theta["likelihood"], "z": components}
    return vaejax.Params(theta, {"z": params.phi, "y": q_y})


def cluster(model: vaejax.GraphModel, params: vaejax.Params, x, key):
    """The likeliest y under q(y | z), z the mean of q(z | x). Nothing is drawn."""
    q: Any = model.posterior(params, x)
    return jnp.argmax(q.factor("y", {"z": q.factor("z", {}).mean()}).mean())


def agreement(clusters: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """How many clusters have an example; purity and NMI."""
    from sklearn.metrics import normalized_mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix

    counts: Any = contingency_matrix(labels, clusters)  # [labels, clusters]
    nmi = float(normalized_mutual_info_score(labels, clusters))
    purity = float(counts.max(axis=0).sum() / len(labels))
    return {"clusters": counts.shape[1], "purity": purity, "nmi": nmi}


def digits(
    config: Config, dataset: vaejax.Dataset, transform: vaejax.Transform, labels: np.ndarray
) -> Report:
    """Bound and log p(x), nats; the clusters and those of k-means, against the labels."""
    train, test = dataset.train.images, Examples(dataset.test.images, transform)
    start_key, fit_key, test_key, draw_key = jax.random.split(jax.random.key(config.seed), 4)
    model = mixture_vae(train.shape[1:], config.num_clusters, config.latent_dim, config.hidden)
    summed_out = vaejax.ByNode(enumerate=("y",))
    start = warm_started(config, model, train, transform, start_key)
    params = fitted(config, vaejax.minibatch(summed_out, model), start, train, fit_key, transform)
    log_marginal = partial(vaejax.log_marginal, model, num_samples=config.eval_samples)
    clusters = test.each(partial(cluster, model), params, test_key).astype(int)
    pixels, test_pixels = (
        part.reshape(len(part), -1) / dataset.unit for part in (train, test.stored)
    )
    of_pixels = k_means(pixels, config.num_clusters, config.seed).predict(test_pixels)
    row = {
        "bound": vaejax.estimate(test.each(partial(summed_out, model), params, test_key)),
        "log_marginal": vaejax.estimate(test.each(log_marginal, params, test_key)),
        "mixture": agreement(clusters, labels),
        "k_means": agreement(of_pixels, labels),
    }
    titles = {"mixture": "the mixture", "k_means": "k-means of the pixels"}
    clusterings = [{"clustering": title, **row[name]} for name, title in titles.items()]
    line = "{clustering} | {clusters} | {purity:.3f} | {nmi:.3f}"
    table = tables.table("digits: clusters of | number | purity | NMI", line, clusterings)
    bounds = "nats per test example: bound {bound}, log p(x) {log_marginal}".format(**row)
    figure = partial(clusters_figure, model, params, clusters, labels, draw_key)
    return Report(row, f"{bounds}\n{table}", {"clusters": figure})


def clusters_figure(
    model: vaejax.GraphModel, params: vaejax.Params, clusters: np.ndarray, labels: np.ndarray, key
) -> Figure:
    """Each cluster that has test examples, largest first: E[x | z] at draws of z ~ p(z | y)."""
    joint = model.joint(params)
    sizes = np.bincount(clusters, minlength=joint.factor("y", {}).mean().size)
    shown = [c for c in np.argsort(-sizes) if sizes[c]]

    def image(c, key):
        z = joint.factor("z", {"y": jax.nn.one_hot(c, len(sizes))}).sample(key)
        return joint.factor("x", {"z": z}).mean()

    keys = jax.random.split(key, (len(shown), 12))
    images = jax.vmap(jax.vmap(image, (None, 0)))(jnp.asarray(shown), keys)
    rows = {}
    for i, (c, row) in enumerate(zip(shown, images, strict=True)):
        counts = np.bincount(labels[clusters == c])
        share = f"{counts.max() / sizes[c]:.0%} a {counts.argmax()}"
        rows[f"{i + 1}: {sizes[c]} images, {share}"] = row
    title = "each cluster y, its test images, and means of p(x | z) at z from p(z | y)"
    return figures.image_rows(rows, title)


def experiment(config: Config) -> Report:
    dataset, transform = load_data(config)  # first, since it may be refused
    _, labels = require_labels(dataset, "to hold the clusters against")
    parts = {
        "plane": lambda: plane(config),
        "digits": lambda: digits(config, dataset, transform, labels),
    }
    return joined({name: parts[name]() for name in config.parts})


if __name__ == "__main__":
    run_script(Config, experiment)
