r"""Conditional models: p(y | x) by a network, and p(x, z | y) with a latent, which says what a
network of y alone cannot.

    python experiments/graphs/conditional_models.py
    VAEJAX_DATA=DATA python experiments/graphs/conditional_models.py --data mnist \
        --parts completion classes --latent-dim 20 --hidden 300 --num-steps 600 \
        --eval-size 200 --eval-samples 50 --out runs/conditional_mnist

Regression and classification: a conditional whose parameters a network gives, and maximum
likelihood. `DiagNormal(MLP(1, heads=2))` is a mean and a scale that both move with x, on a toy
whose noise grows with x; `Gaussian(MLP(1), "learned")` has one scale for all x.
`OneHotCategorical(MLP(10))` is a classifier.

Completion and classes: a conditional VAE, log p(x | y) = log E_{p(z|y)} p(x | z, y) with a learned
prior p(z | y), the bound being E_q log p(x | z, y) - KL(q(z | x, y) || p(z | y)) (Sohn, Lee & Yan
2015). In "completion" y is the upper half of an image and x the lower one, in "classes" y is a
label and x the image. The rival is a network from y to the pixels of x, p(x | y) = prod_i
Bernoulli(x_i; net(y)_i), trained alike. Both keep the parameters of the best validation.

Expected: given y the pixels are not independent, for a stroke is one thing, and a latent can say
so: nats more for each x, and samples that are whole digits where the network's mean is a blur of
them (Sohn et al. 2015).

Measured by the first command, nats per test example; the errors are over these, of one run:

    p(y | x)    one scale -0.486, a scale for each x -0.231, the density that made the toy -0.194
                classifier -0.281, accuracy 0.923 +- 0.015
    p(x | y)                      network           conditional VAE: bound    log p(x | y)
    lower half given the upper    -9.24 +- 0.24     -8.14 +- 0.19             -7.64 +- 0.18
    image given its class         -18.14 +- 0.35    -15.35 +- 0.27            -14.63 +- 0.25

with gains of 1.60 +- 0.12 and 3.51 +- 0.22. By the second, 1.2 epochs of MNIST and 200 test
examples, gains of 19.89 +- 0.87 (-72.38 to -52.49) and 56.58 +- 1.61 nats (-162.65 to -106.07).

Duration: 70 s on two cores of an Intel Xeon, the second command 61 s.
"""

import dataclasses
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import vaejax
from experiments.lib import tables
from experiments.lib.data import drawn, one_of_each_class, require_labels, seen
from experiments.lib.figures import image_rows
from experiments.lib.flags import EvalSamples, EvalSize, ImageSetting, ValidateEvery
from experiments.lib.script import Report, joined, run_script
from vaejax.base.fields import Count, Distinct, Plural
from vaejax.base.mapping import Transformed, estimate
from vaejax.base.supports import BINARY, ONE_HOT, REAL
from vaejax.data.base import Split
from vaejax.data.mapping import map_dataset
from vaejax.plots.look import BLUE, GREY, INK, figure_of, finish, legend
from vaejax.runs.build import load_data

Part = Literal["regression", "classification", "completion", "classes"]


@dataclasses.dataclass(frozen=True)
class Config(ImageSetting):
    """With --binarisation dynamic most of the nats are those of the coin that is tossed for each
    grey pixel, of which no latent knows.
    """

    parts: Distinct[Part] = ("regression", "classification", "completion", "classes")
    """Which parts to run."""
    latent_dim: Count = 8
    """Dimensions of z."""
    hidden: tuple[Count, ...] = (200,)
    num_steps: Count = 2_500
    validate_every: ValidateEvery = 200
    eval_samples: EvalSamples = 500
    eval_size: EvalSize = None
    regression_examples: Plural = 400
    """Examples of the regression."""
    out: str = "runs/conditional_models"


def log_conditional(
    conditional, target: str, given: str, params: vaejax.Params, example: dict, key
):
    """log p(target | given) of one example, nats: the objective of maximum likelihood."""
    return conditional(params.theta, example[given]).log_prob(example[target])


def fitted(
    config: Config,
    objective: vaejax.Objective,
    params: vaejax.Params,
    data: Any,
    key,
    transform=None,
    validation=None,
) -> vaejax.Params:
    """By Adam; the parameters of the best validation, if there is any."""
    run = vaejax.fit(
        objective,
        params,
        optax.adam(config.learning_rate),
        data,
        key,
        num_steps=config.num_steps,
        batch_size=config.batch_size,
        transform=transform,
        validation=validation and vaejax.Validation(validation, config.validate_every),
    )
    return run.params if run.best_params is None else run.best_params


# p(y | x) by a network.


def noise_scale(x):
    """Of the toy: from 0.05 at x = -2 to 0.65 at x = 2."""
    return 0.05 + 0.15 * (x + 2)


def toy(num_points: int, seed: int) -> dict[str, np.ndarray]:
    """y = sin 2x + noise_scale(x) e, x uniform on (-2, 2) and e standard normal, each [n, 1]."""
    generator = np.random.default_rng(seed)
    x = generator.uniform(-2, 2, (num_points, 1))
    y = np.sin(2 * x) + noise_scale(x) * generator.normal(size=x.shape)
    return {"x": x.astype(np.float32), "y": y.astype(np.float32)}


def log_density_of_toy(x, y) -> np.ndarray:
    """log p(y | x), nats, of the density that made the toy."""
    residual = (y - np.sin(2 * x)) / noise_scale(x)
    return -0.5 * residual**2 - np.log(noise_scale(x)) - 0.5 * np.log(2 * np.pi)


CONDITIONALS = {
    "one scale": vaejax.Gaussian(vaejax.MLP(1, (20, 20)), "learned"),
    "a scale for each x": vaejax.DiagNormal(vaejax.MLP(1, (20, 20), heads=2)),
}


def regression(config: Config) -> Report:
    """log p(y | x) of two networks on 10,000 fresh points of the toy, beside that of its own
    density.
    """
    settings = dataclasses.replace(
        config, learning_rate=5e-3, num_steps=min(config.num_steps, 2_000)
    )
    train, fresh = toy(config.regression_examples, config.seed), toy(10_000, config.seed + 1)
    rows, bands = [], {}
    grid = np.linspace(-2, 2, 200, dtype=np.float32)[:, None]
    for name, conditional in CONDITIONALS.items():
        init_key, fit_key = jax.random.split(jax.random.key(config.seed))
        start = vaejax.Params(conditional.init(init_key, train["x"][0]), ())
        log_p = partial(log_conditional, conditional, "y", "x")
        objective = vaejax.minibatch(log_p, support={"x": REAL, "y": REAL})
        params = fitted(settings, objective, start, train, fit_key)
        values = map_dataset(log_p, params, fresh, fit_key)
        rows.append({"model": name, "log_likelihood": estimate(values)})
        at_grid = jax.vmap(partial(conditional, params.theta))(grid)
        bands[name] = np.asarray(at_grid.loc)[:, 0], np.exp(np.asarray(at_grid.log_scale))[:, 0]
    truth = estimate(log_density_of_toy(**fresh)[:, 0])
    rows.append({"model": "the density that made them", "log_likelihood": truth})
    figures = {"regression": lambda: regression_figure(train, grid[:, 0], bands)}
    return Report(rows, list_of(rows), figures)


def list_of(rows: list[dict]) -> str:
    """A line for each p(y | x), nats per test example, ± the standard error over them."""
    lines = []
    for row in rows:
        line = f"p(y | x), {row['model']}: log-likelihood {row['log_likelihood'].mean:.3f}"
        lines.append(line + (f", accuracy {row['accuracy']:.3f}" if "accuracy" in row else ""))
    return "\n".join(lines)


def regression_figure(train: dict, grid: np.ndarray, bands: dict) -> Figure:
    """The data, and each model's mean with two standard deviations to either side."""
    figure, [panels] = figure_of(columns=len(bands), size=(10, 3.8), sharey=True)
    mean, scale = np.sin(2 * grid), noise_scale(grid)
    for axes, (name, (loc, width)) in zip(panels, bands.items(), strict=True):
        axes.scatter(train["x"], train["y"], s=7, color=GREY, linewidths=0, label="data")
        low, high = loc - 2 * width, loc + 2 * width
        axes.fill_between(grid, low, high, color=BLUE, alpha=0.2, linewidth=0)
        axes.plot(grid, loc, color=BLUE, label="mean of p(y | x), ± 2 standard deviations")
        for sign in (-2, 0, 2):
            label = "the same of the truth" if sign == 0 else None
            axes.plot(grid, mean + sign * scale, color=INK, lw=0.9, ls=":", label=label)
        finish(axes, title=name, xlabel="x", ylim=(-2.6, 3.2))
    panels[0].set_ylabel("y")
    legend(panels[0], "upper left", fontsize=8)
    return figure


@vaejax.component
class Labelled:
    """{"image", "label"} as stored -> {"x": pixels, "y": label one-hot}."""

    pixels: vaejax.Transform
    num_classes: int

    def __call__(self, stored, key):
        y = jax.nn.one_hot(stored["label"], self.num_classes)
        return {"x": self.pixels(stored["image"], key), "y": y}


class Examples(NamedTuple):
    """Stored examples of the three splits, and what makes {"x", "y"} of one."""

    train: dict[str, np.ndarray]
    valid: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    transform: Any

    def first(self, key) -> dict[str, jax.Array]:
        """The first training example as a model sees it."""
        return self.transform(jax.tree.map(lambda leaf: leaf[0], self.train), key)


def labelled_examples(
    config: Config, dataset: vaejax.Dataset, pixels: vaejax.Transform
) -> Examples:
    """x an image, y its label."""
    labels, _ = require_labels(
        dataset, "for the parts classification and classes (--parts completion needs none)"
    )
    splits = dataset.train, dataset.valid, measured(config, dataset)
    train, valid, test = map(with_labels, splits)
    return Examples(train, valid, test, Labelled(pixels, int(labels.max()) + 1))


def measured(config: Config, dataset: vaejax.Dataset) -> Split:
    """The test examples of every part."""
    return drawn(dataset.test, config.eval_size, jax.random.key(config.seed))


def with_labels(split: Split) -> dict[str, np.ndarray]:
    return {"image": split.images, "label": np.asarray(split.labels, np.int32)}


def classification(config: Config, dataset: vaejax.Dataset, pixels: vaejax.Transform) -> Report:
    """p(y | x) = softmax(net(x)): the test log-likelihood, nats, and the share of test images whose
    likeliest class is theirs.
    """
    examples = labelled_examples(config, dataset, pixels)
    net = vaejax.MLP(examples.transform.num_classes, config.hidden)
    conditional = vaejax.OneHotCategorical(net)
    init_key, fit_key, test_key = jax.random.split(jax.random.key(config.seed), 3)
    start = vaejax.Params(conditional.init(init_key, examples.first(init_key)["x"]), ())
    log_p = partial(log_conditional, conditional, "y", "x")
    objective = vaejax.minibatch(log_p, support={"x": BINARY, "y": ONE_HOT})
    train, valid, test, transform = examples
    params = fitted(config, objective, start, train, fit_key, transform, valid)

    def right(params, example, key):
        likeliest = jnp.argmax(conditional(params.theta, example["x"]).mean())
        return likeliest == jnp.argmax(example["y"])

    log_likelihood, accuracy = (
        estimate(map_dataset(Transformed(quantity, transform), params, test, test_key))
        for quantity in (log_p, right)
    )
    row = {"model": "classifier", "log_likelihood": log_likelihood, "accuracy": accuracy}
    return Report([row], list_of([row]), {})


# p(x, z | y): a conditional VAE.


@vaejax.component
class Halves:
    """{"image"} as stored -> {"y": the upper half, "x": the lower half}; of an odd height the
    middle row is in x.
    """

    pixels: vaejax.Transform

    def __call__(self, stored, key):
        image = self.pixels(stored["image"], key)
        middle = image.shape[0] // 2
        return {"y": image[:middle], "x": image[middle:]}


def conditional_vae(
    shape: tuple[int, ...], latent_dim: int, hidden: tuple[int, ...]
) -> vaejax.GraphModel:
    """p(z | y) p(x | z, y) with q(z | x, y), all by networks; x of this shape."""
    net = partial(vaejax.MLP, hidden=hidden)
    graph = vaejax.DirectedGraph(
        (
            vaejax.Node("z", vaejax.DiagNormal(net(latent_dim, heads=2)), "y"),
            vaejax.Node("x", vaejax.Bernoulli(net(shape)), ("z", "y")),
        ),
        inputs=("y",),
    )
    return vaejax.GraphModel(graph, vaejax.DiagNormal(net(latent_dim, heads=2)))


class Comparison(NamedTuple):
    """A conditional VAE and a network on one task, trained.

    The row has, in nats per test example: the bound and log p(x | y) of the conditional VAE, log
    p(x | y) of the network, and the gain, of the same binarisations pair by pair.
    """

    row: dict[str, Any]
    model: vaejax.GraphModel
    network: vaejax.Bernoulli
    model_params: vaejax.Params
    network_params: vaejax.Params

    def samples(self, y, keys) -> jax.Array:
        """E[x | z, y] at z ~ p(z | y), for each key."""
        return jax.vmap(partial(sampled_mean, self.model, self.model_params, y))(keys)

    def network_mean(self, y) -> jax.Array:
        """E[x | y]"""
        return self.network(self.network_params.theta, y).mean()


def sampled_mean(model: vaejax.GraphModel, params: vaejax.Params, y, key) -> jax.Array:
    """E[x | z, y] at one z ~ p(z | y)."""
    z = model.p_z(params, y).sample(key)
    return model.p_x_given_z(params, z, y).mean()


def compare(config: Config, examples: Examples, key) -> Comparison:
    init_key, fit_key, test_key = jax.random.split(key, 3)
    train, valid, test, transform = examples
    example = examples.first(init_key)
    model = conditional_vae(example["x"].shape, config.latent_dim, config.hidden)
    network = vaejax.Bernoulli(vaejax.MLP(example["x"].shape, config.hidden))
    log_network = partial(log_conditional, network, "x", "y")
    objectives = {
        "model": vaejax.minibatch(vaejax.AnalyticKL(), model),
        "network": vaejax.minibatch(log_network, support={"x": BINARY, "y": REAL}),
    }
    starts = {
        "model": model.init(init_key, example),
        "network": vaejax.Params(network.init(init_key, example["y"]), ()),
    }
    params = {
        name: fitted(config, objectives[name], starts[name], train, fit_key, transform, valid)
        for name in objectives
    }
    log_marginal = partial(vaejax.log_marginal, model, num_samples=config.eval_samples)
    quantities = {
        "bound": (partial(vaejax.elbo, model), params["model"]),
        "log_marginal": (log_marginal, params["model"]),
        "network": (log_network, params["network"]),
    }
    values = {}
    for name, (quantity, quantity_params) in quantities.items():
        mapped = map_dataset(Transformed(quantity, transform), quantity_params, test, test_key)
        values[name] = np.asarray(mapped, np.float64)
    values["gain"] = values["log_marginal"] - values["network"]
    row = {name: estimate(numbers) for name, numbers in values.items()}
    return Comparison(row, model, network, params["model"], params["network"])


def completion(config: Config, dataset: vaejax.Dataset, pixels: vaejax.Transform) -> Report:
    """x the lower half of an image, y the upper one."""
    splits = dataset.train, dataset.valid, measured(config, dataset)
    train, valid, test = ({"image": split.images} for split in splits)
    key, show_key, draw_key = jax.random.split(jax.random.key(config.seed + 1), 3)
    transform = Halves(pixels)
    found = compare(config, Examples(train, valid, test, transform), key)
    shown = one_of_each_class(dataset.test.labels, 10)
    halves = seen({"image": dataset.test.images[shown]}, transform, show_key)
    keys = jax.random.split(draw_key, (6, len(shown)))
    means = jax.vmap(found.network_mean)(halves["y"])
    samples = jax.vmap(found.samples, (0, 1))(halves["y"], keys)
    lower = {"given": jnp.full_like(means, 0.25), "true": halves["x"], "network": means}
    lower |= {f"sample {i + 1}": samples[:, i] for i in range(len(keys))}
    images = {name: jnp.concatenate([halves["y"], half], axis=1) for name, half in lower.items()}
    title = "from the upper half: the network's mean, and means at z from p(z | y)"
    return report({"task": "lower half given the upper"} | found.row, "completion", images, title)


def classes(config: Config, dataset: vaejax.Dataset, pixels: vaejax.Transform) -> Report:
    """x an image, y its label."""
    examples = labelled_examples(config, dataset, pixels)
    key, draw_key = jax.random.split(jax.random.key(config.seed + 2))
    found = compare(config, examples, key)
    ys = jnp.eye(examples.transform.num_classes)
    draws = jax.vmap(found.samples)(ys, jax.random.split(draw_key, (len(ys), 12)))
    means = jax.vmap(found.network_mean)(ys)
    images = {str(c): jnp.concatenate([means[c : c + 1], draws[c]]) for c in range(len(ys))}
    title = "each class: the network's mean, and right of the line means at z from p(z | y)"
    return report({"task": "image given its class"} | found.row, "classes", images, title, 1)


def report(row: dict, name: str, images: dict, title: str, line_after: int | None = None) -> Report:
    header = "p(x given y) | network | conditional VAE, bound | log p(x given y) | gain"
    table = tables.table(header, "{task} | {network} | {bound} | {log_marginal} | {gain}", [row])
    return Report(row, table, {name: lambda: image_rows(images, title, line_after)})


def experiment(config: Config) -> Report:
    dataset, pixels = load_data(config)
    if {"classification", "classes"} & set(config.parts):  # refused before anything trains
        labelled_examples(config, dataset, pixels)
    parts = {
        "regression": lambda: regression(config),
        "classification": lambda: classification(config, dataset, pixels),
        "completion": lambda: completion(config, dataset, pixels),
        "classes": lambda: classes(config, dataset, pixels),
    }
    whole = joined({name: part() for name, part in parts.items() if name in config.parts})
    return whole._replace(numbers=whole.numbers | {"data": dataset.source})


if __name__ == "__main__":
    run_script(Config, experiment)
