r"""Conditional models: p(y | x) by a network, and p(x, z | y) with a latent, which says what a
network of y alone cannot.

    python experiments/conditional_models.py VAEJAX_DATA=DATA python
    experiments/conditional_models.py --data mnist --parts completion classes --latent-dim 20
    --hidden 300 \
        --num-steps 600 --eval-size 200 --eval-samples 50 --out runs/conditional_mnist

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

Measured by the first command on two cores of an Intel Xeon in 70 s, nats per test example; the
errors are over these, of one run:

    p(y | x)          one scale -0.486    a scale for each x -0.231    the density that made the toy
                      -0.194
                      classifier -0.281, accuracy 0.923 +- 0.015
    p(x | y)                      network           conditional VAE: bound     log p(x | y)
                                  gain
    lower half given the upper    -9.24 +- 0.24     -8.14 +- 0.19              -7.64 +- 0.18
                                  1.60 +- 0.12
    image given its class         -18.14 +- 0.35    -15.35 +- 0.27             -14.63 +- 0.25
                                  3.51 +- 0.22

By the second, 1.2 epochs of MNIST and 200 test examples in 61 s, gains of 19.89 +- 0.87 (-72.38 to
-52.49) and 56.58 +- 1.61 nats (-162.65 to -106.07).
"""

import dataclasses
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from common import command_line, record
from matplotlib.figure import Figure

import vaejax
from vaejax import plots
from vaejax.base.mapping import Transformed, estimate, map_dataset
from vaejax.data.base import Split
from vaejax.data.pixels import Policy

Part = Literal["regression", "classification", "completion", "classes"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Which conditional models to fit, and their sizes."""

    parts: tuple[Part, ...] = ("regression", "classification", "completion", "classes")
    data: str = "digits"
    data_folder: str | None = None
    """Where NAME.npz is; None: $VAEJAX_DATA."""
    binarisation: Policy = "threshold"
    """Under "dynamic" most of the nats are those of the coin that is tossed for each grey pixel, of
    which no latent knows.
    """
    latent_dim: int = 8
    hidden: tuple[int, ...] = (200,)
    num_steps: int = 2_500
    batch_size: int = 100
    learning_rate: float = 1e-3
    validate_every: int = 200
    eval_samples: int = 500
    """Importance samples per example for log p(x | y)."""
    eval_size: int | None = None
    """So many test examples; None takes all."""
    num_points: int = 400
    """Examples of the regression."""
    seed: int = 0
    out: str = "runs/conditional_models"
    """The folder for result.json and the pictures."""


def log_conditional(
    conditional, target: str, given: str, params: vaejax.Params, example: dict, key
):
    """log p(target | given) of one example, nats: the objective of maximum likelihood."""
    return conditional(params.theta, example[given]).log_prob(example[target])


def fitted(
    config: Config,
    objective,
    params: vaejax.Params,
    data: Any,
    key,
    transform=None,
    validation=None,
) -> vaejax.Params:
    """By Adam; the parameters of the best validation, if there is any."""
    run = vaejax.fit(
        vaejax.minibatch(objective),
        params,
        optax.adam(config.learning_rate),
        data,
        key,
        num_steps=config.num_steps,
        batch_size=config.batch_size,
        transform=transform,
        validation=validation,
        validate_every=config.validate_every,
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


def regression(config: Config, out: Path) -> list[dict]:
    """log p(y | x) of two networks on 10,000 fresh points, beside that of the density which made
    them.
    """
    settings = dataclasses.replace(
        config, learning_rate=5e-3, num_steps=min(config.num_steps, 2_000)
    )
    train, fresh = toy(config.num_points, config.seed), toy(10_000, config.seed + 1)
    conditionals = {
        "one scale": vaejax.Gaussian(vaejax.MLP(1, (20, 20)), "learned"),
        "a scale for each x": vaejax.DiagNormal(vaejax.MLP(1, (20, 20), heads=2)),
    }
    rows, bands = [], {}
    grid = np.linspace(-2, 2, 200, dtype=np.float32)[:, None]
    for name, conditional in conditionals.items():
        init_key, fit_key = jax.random.split(jax.random.key(config.seed))
        start = vaejax.Params(conditional.init(init_key, train["x"][0]), ())
        objective = partial(log_conditional, conditional, "y", "x")
        params = fitted(settings, objective, start, train, fit_key)
        rows.append(
            {
                "model": name,
                "log_likelihood": estimate(map_dataset(objective, params, fresh, fit_key)),
            }
        )
        of_grid = jax.vmap(partial(conditional, params.theta))(grid)
        bands[name] = np.asarray(of_grid.loc)[:, 0], np.exp(np.asarray(of_grid.log_scale))[:, 0]
    residual = (fresh["y"] - np.sin(2 * fresh["x"])) / noise_scale(fresh["x"])
    truth = -0.5 * residual**2 - np.log(noise_scale(fresh["x"])) - 0.5 * np.log(2 * np.pi)
    rows.append({"model": "the density that made them", "log_likelihood": estimate(truth[:, 0])})
    regression_figure(train, grid[:, 0], bands).savefig(out / "regression.png", dpi=150)
    return rows


def regression_figure(train: dict, grid: np.ndarray, bands: dict) -> Figure:
    """The data, and each model's mean with two standard deviations to either side."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    panels = figure.subplots(1, len(bands), sharey=True)
    mean, scale = np.sin(2 * grid), noise_scale(grid)
    for axes, (name, (loc, width)) in zip(panels, bands.items(), strict=True):
        axes.scatter(train["x"], train["y"], s=7, color=plots.GREY, linewidths=0, label="data")
        axes.fill_between(
            grid, loc - 2 * width, loc + 2 * width, color=plots.BLUE, alpha=0.2, linewidth=0
        )
        axes.plot(grid, loc, color=plots.BLUE, label="mean of p(y | x), ± 2 standard deviations")
        for sign in (-2, 0, 2):
            axes.plot(
                grid,
                mean + sign * scale,
                color=plots.INK,
                lw=0.9,
                ls=":",
                label="the same of the truth" if sign == 0 else None,
            )
        axes.set(title=name, xlabel="x", ylim=(-2.6, 3.2))
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("y")
    panels[0].legend(frameon=False, loc="upper left", fontsize=8)
    return figure


@vaejax.component
class Labelled:
    """{"image", "label"} as stored -> {"x": pixels, "y": label one-hot}."""

    pixels: vaejax.Pixels
    num_classes: int

    def __call__(self, stored, key):
        return {
            "x": self.pixels(stored["image"], key),
            "y": jax.nn.one_hot(stored["label"], self.num_classes),
        }


def labelled(split: Split, name: str) -> dict[str, np.ndarray]:
    if split.labels is None:
        raise ValueError(
            f"{name} has no labels, which the parts classification and classes need; choose --parts"
            " completion"
        )
    return {"image": split.images, "label": np.asarray(split.labels, np.int32)}


def classification(config: Config, dataset: vaejax.Dataset, transform: Labelled) -> list[dict]:
    """p(y | x) = softmax(net(x)): the test log-likelihood, nats, and the share of test images whose
    likeliest class is theirs.
    """
    train, valid, test = (
        labelled(split, config.data) for split in (dataset.train, dataset.valid, dataset.test)
    )
    test = {name: of[: config.eval_size] for name, of in test.items()}
    conditional = vaejax.OneHotCategorical(vaejax.MLP(transform.num_classes, config.hidden))
    init_key, fit_key, test_key = jax.random.split(jax.random.key(config.seed), 3)
    example = transform({name: of[0] for name, of in train.items()}, init_key)
    start = vaejax.Params(conditional.init(init_key, example["x"]), ())
    objective = partial(log_conditional, conditional, "y", "x")
    params = fitted(config, objective, start, train, fit_key, transform, valid)

    def right(params, example, key):
        return jnp.argmax(conditional(params.theta, example["x"]).mean) == jnp.argmax(example["y"])

    found = (
        map_dataset(Transformed(of_one, transform), params, test, test_key)
        for of_one in (objective, right)
    )
    log_likelihood, accuracy = map(estimate, found)
    return [{"model": "classifier", "log_likelihood": log_likelihood, "accuracy": accuracy}]


# p(x, z | y): a conditional VAE.


@vaejax.component
class Halves:
    """{"image"} as stored -> {"y": the upper half, "x": the lower half}; of an odd height the
    middle row is in x.
    """

    pixels: vaejax.Pixels

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


def compare(
    config: Config, train, valid, test, transform, key
) -> tuple[dict, vaejax.GraphModel, Any, tuple]:
    """The row of one task, the two models and their parameters.

    A row has, in nats per test example: the bound and log p(x | y) of the conditional VAE, log p(x
    | y) of the network, and the gain, of the same binarisations pair by pair.
    """
    init_key, fit_key, test_key = jax.random.split(key, 3)
    example = transform(jax.tree.map(lambda leaf: leaf[0], train), init_key)
    model = conditional_vae(example["x"].shape, config.latent_dim, config.hidden)
    network = vaejax.Bernoulli(vaejax.MLP(example["x"].shape, config.hidden))
    of_network = partial(log_conditional, network, "x", "y")
    starts = model.init(init_key, example), vaejax.Params(network.init(init_key, example["y"]), ())
    objectives = partial(vaejax.AnalyticKL(), model), of_network
    params = tuple(
        fitted(config, objective, start, train, fit_key, transform, valid)
        for objective, start in zip(objectives, starts, strict=True)
    )
    log_marginal = partial(vaejax.log_marginal, model, num_samples=config.eval_samples)
    bound, latent, plain = (
        np.asarray(map_dataset(Transformed(function, transform), of, test, test_key), np.float64)
        for function, of in (
            (partial(vaejax.elbo, model), params[0]),
            (log_marginal, params[0]),
            (of_network, params[1]),
        )
    )
    row = {
        "bound": estimate(bound),
        "log_marginal": estimate(latent),
        "network": estimate(plain),
        "gain": estimate(latent - plain),
    }
    return row, model, network, params


def sampled_mean(model: vaejax.GraphModel, params: vaejax.Params, y, key) -> jax.Array:
    """E[x | z, y] at one z ~ p(z | y)."""
    z = model.p_z(params, y).sample(key)
    return model.p_x_given_z(params, z, y).mean


def completion(config: Config, dataset: vaejax.Dataset, pixels: vaejax.Pixels, out: Path) -> dict:
    """x the lower half of an image, y the upper one."""
    train, valid, test = (
        {"image": split.images} for split in (dataset.train, dataset.valid, dataset.test)
    )
    key, show_key, draw_key = jax.random.split(jax.random.key(config.seed + 1), 3)
    transform = Halves(pixels)
    row, model, network, (of_vae, of_network) = compare(
        config, train, valid, {"image": test["image"][: config.eval_size]}, transform, key
    )
    shown = shown_rows(dataset.test, 10)
    halves = jax.vmap(transform)(
        {"image": test["image"][shown]}, jax.random.split(show_key, len(shown))
    )
    ys = halves["y"]
    means = jax.vmap(lambda y: network(of_network.theta, y).mean)(ys)
    keys = jax.random.split(draw_key, (6, len(shown)))
    completions = jax.vmap(jax.vmap(partial(sampled_mean, model, of_vae)), (None, 0))(ys, keys)
    blank = jnp.full_like(means, 0.25)
    lower = {"given": blank, "true": halves["x"], "network": means} | {
        f"sample {i + 1}": some for i, some in enumerate(completions)
    }
    images = {name: jnp.concatenate([ys, of], axis=1) for name, of in lower.items()}
    title = "from the upper half: the network's mean, and means at z from p(z | y)"
    labelled_grid(images, title).savefig(out / "completion.png", dpi=150)
    return {"task": "lower half given the upper", **row}


def shown_rows(split: Split, count: int) -> np.ndarray:
    """One example of each class, where there are labels; else the first ones."""
    return (
        np.arange(count)
        if split.labels is None
        else np.unique(split.labels, return_index=True)[1][:count]
    )


def classes(config: Config, dataset: vaejax.Dataset, transform: Labelled, out: Path) -> dict:
    """x an image, y its label."""
    train, valid, test = (
        labelled(split, config.data) for split in (dataset.train, dataset.valid, dataset.test)
    )
    key, draw_key = jax.random.split(jax.random.key(config.seed + 2))
    row, model, network, (of_vae, of_network) = compare(
        config,
        train,
        valid,
        {name: of[: config.eval_size] for name, of in test.items()},
        transform,
        key,
    )
    ys = jnp.eye(transform.num_classes)
    draws = jax.vmap(jax.vmap(partial(sampled_mean, model, of_vae), (None, 0)))(
        ys, jax.random.split(draw_key, (len(ys), 12))
    )
    means = jax.vmap(lambda y: network(of_network.theta, y).mean)(ys)
    images = {str(c): jnp.concatenate([means[c : c + 1], draws[c]]) for c in range(len(ys))}
    title = "each class: the network's mean, and right of the line means at z from p(z | y)"
    labelled_grid(images, title, line_after=1).savefig(out / "classes.png", dpi=150)
    return {"task": "image given its class", **row}


def labelled_grid(rows: dict[str, jax.Array], title: str, line_after: int | None = None) -> Figure:
    """Rows of images [n, h, w] in [0, 1], each with its name on the left, and a vertical line after
    so many columns.
    """
    images = np.concatenate([np.asarray(row) for row in rows.values()])
    columns = len(images) // len(rows)
    height, width = images.shape[1:]
    gap = max(1, height // 8)
    canvas = plots.tile(images, columns, gap=gap)
    margin = 0.5 + 0.1 * max(map(len, rows))
    figure = Figure(figsize=(0.62 * columns + margin, 0.62 * len(rows) + 0.4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(canvas, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    axes.set_yticks([i * (height + gap) + (height - 1) / 2 for i in range(len(rows))], list(rows))
    if line_after is not None:
        axes.axvline(line_after * (width + gap) - (gap + 1) / 2, color=plots.ORANGE, lw=1.5)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=11)
    return figure


def main(config: Config) -> dict:
    began, out = time.perf_counter(), Path(config.out)
    dataset, pixels = vaejax.prepare_pixels(
        vaejax.load_dataset(config.data, config.data_folder), config.binarisation, seed=config.seed
    )
    if {"classification", "classes"} & set(config.parts):
        labelled(dataset.train, config.data)  # refused before anything trains
    num_classes = 0 if dataset.train.labels is None else int(dataset.train.labels.max()) + 1
    out.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {}
    if "regression" in config.parts:
        result["regression"] = regression(config, out)
    if "classification" in config.parts:
        result["classification"] = classification(config, dataset, Labelled(pixels, num_classes))
    if "completion" in config.parts:
        result["completion"] = completion(config, dataset, pixels, out)
    if "classes" in config.parts:
        result["classes"] = classes(config, dataset, Labelled(pixels, num_classes), out)
    print(table(result))
    result |= {"data": dataset.source, "seconds": round(time.perf_counter() - began, 1)}
    record(out, config, **result)
    return result | {"out": str(out)}


def table(result: dict) -> str:
    """Everything in nats per test example, ± the standard error over them."""
    lines = []
    for row in [*result.get("regression", ()), *result.get("classification", ())]:
        accuracy = (
            f", accuracy {row['accuracy'].mean:.3f} ± {row['accuracy'].standard_error:.3f}"
            if "accuracy" in row
            else ""
        )
        lines.append(
            f"p(y | x), {row['model']}: log-likelihood {row['log_likelihood'].mean:.3f}{accuracy}"
        )
    rows = [result[part] for part in ("completion", "classes") if part in result]
    if rows:
        lines += [
            (
                "| p(x given y) | network | conditional VAE, bound | log p(x given y) | gain by the"
                " latent |"
            ),
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {row['task']} | {row['network']} | {row['bound']} | {row['log_marginal']} |"
            f" {row['gain']} |"
            for row in rows
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(command_line(lambda: main(tyro.cli(Config))))
