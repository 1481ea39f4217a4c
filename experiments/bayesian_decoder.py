r"""A posterior over the decoder's weights: what it is worth on new images when the training images
are few, and what it is uncertain of.

    python experiments/bayesian_decoder.py python experiments/bayesian_decoder.py --data mnist
    --latent-dim 10 --sizes 100 1000 10000 --num-steps 10000 --out runs/bayes_mnist

q(theta) is a diagonal normal over all of the decoder's weights, trained by the minibatch bound with
its N/M scale (`vaejax.VariationalBayes`); the encoder's weights stay points. It is compared with
the point estimate of the same model, of maximum likelihood, on training sets of several sizes: the
test log p(x) by importance sampling, of the mixture (1/S) sum_s p(x | theta_s) over draws of
q(theta); and the standard deviation over q(theta) of a decoded pixel, the predictive uncertainty,
averaged over test images.

Expected: the uncertainty falls as the images grow in number, and the two come together (Kingma &
Welling 2014, full variational Bayes). Measured by the first command on two cores of an Intel Xeon,
nothing compiled before, in 91 s, nats per test example:

    images    point estimate      posterior           gain, paired       deviation of a pixel
    50        -25.26 +- 0.31      -30.41 +- 0.23      -5.15 +- 0.22      0.109
    250       -23.17 +- 0.24      -24.81 +- 0.23      -1.64 +- 0.12      0.077
    1,200     -22.78 +- 0.22      -23.44 +- 0.22      -0.66 +- 0.08      0.043

So both come true, and the posterior never pays in log p(x): with few images a diagonal q(theta)
gives up most of the decoder, since its weights cost more than they explain.
"""

import dataclasses
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from common import command_line, record, some_rows
from jax.scipy.special import logsumexp
from matplotlib.figure import Figure
from train import Setting, build_model, initial_params, training_config

import vaejax
from vaejax import plots
from vaejax.base.mapping import Estimate, Transformed, estimate, map_dataset
from vaejax.data.check import check_data, support_of


@dataclasses.dataclass(frozen=True)
class Config(Setting):
    """A VAE, and the sizes of its training sets."""

    latent_dim: int = 4
    hidden: tuple[int, ...] = (100,)
    sizes: tuple[int, ...] = (50, 250, 1_200)
    """Numbers of training images."""
    prior_scale: float = 1.0
    """Of N(0, prior_scale^2) over each weight."""
    num_steps: int = 10_000
    num_thetas: int = 8
    """Draws of q(theta) that predictions are averaged over."""
    eval_samples: int = 100
    """Importance samples of z for each draw of theta."""
    eval_size: int | None = None
    """So many test examples; None takes all."""
    out: str = "runs/bayesian_decoder"
    """The folder for result.json, bayesian_decoder.png and uncertainty.png."""


def fitted(
    config: Config, objective: Any, params: vaejax.Params, images: np.ndarray, transform, key
) -> vaejax.Params:
    optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.num_steps))
    batch_size = min(config.batch_size, len(images))
    return vaejax.fit(
        objective,
        params,
        optimizer,
        images,
        key,
        num_steps=config.num_steps,
        batch_size=batch_size,
        transform=transform,
    ).params


def draws(
    bayes: vaejax.VariationalBayes, params: vaejax.Params, num_thetas: int, key
) -> vaejax.Params:
    """The model's parameters at draws of q(theta), stacked."""
    return jax.vmap(lambda key: bayes.draw(params, key))(jax.random.split(key, num_thetas))


def log_predictive(model: vaejax.VAE, num_samples: int, thetas: vaejax.Params, x, key):
    """log (1/S) sum_s p(x | theta_s), each by importance sampling."""
    log_p = jax.vmap(lambda params: vaejax.log_marginal(model, params, x, key, num_samples))(thetas)
    return logsumexp(log_p) - jnp.log(len(log_p))


def predicted(
    config: Config, model: vaejax.VAE, thetas: vaejax.Params, images: np.ndarray, transform, key
) -> np.ndarray:
    """log p(x) of each image under the mixture of the thetas."""
    function = Transformed(partial(log_predictive, model, config.eval_samples), transform)
    return np.asarray(map_dataset(function, thetas, images, key, batch_size=20), np.float64)


def compare(
    config: Config, size: int, dataset: vaejax.Dataset, transform
) -> tuple[dict, vaejax.VAE, vaejax.Params]:
    """Point and posterior on the first `size` images of a shuffled training set; and draws of
    theta.
    """
    keys = jax.random.split(jax.random.key(config.seed), 6)
    order_key, init_key, point_key, bayes_key, theta_key, test_key = keys
    rows = some_rows(order_key, len(dataset.train.images), size)
    images, test = dataset.train.images[rows], dataset.test.images[: config.eval_size]
    settings = training_config(config, num_steps=config.num_steps)
    model = build_model(settings, images[0])
    start = initial_params(settings, model, images, transform, init_key)
    bound = partial(vaejax.AnalyticKL(), model)
    began = time.perf_counter()
    point = fitted(config, vaejax.minibatch(bound), start, images, transform, point_key)
    bayes = vaejax.VariationalBayes(bound, size, config.prior_scale)
    posterior = fitted(config, bayes, bayes.start(start), images, transform, bayes_key)
    thetas = draws(bayes, posterior, config.num_thetas, theta_key)
    of_point = predicted(
        config, model, jax.tree.map(lambda leaf: leaf[None], point), test, transform, test_key
    )
    of_posterior = predicted(config, model, thetas, test, transform, test_key)
    row = {
        "size": size,
        "point": estimate(of_point),
        "posterior": estimate(of_posterior),
        "gain": estimate(of_posterior - of_point),
    }
    deviation = map_dataset(
        Transformed(partial(uncertainty, model), transform), thetas, test, test_key
    )[1]
    row |= {
        "deviation": float(jnp.mean(deviation)),
        "seconds": round(time.perf_counter() - began, 1),
    }
    return row, model, thetas


def uncertainty(model: vaejax.VAE, thetas: vaejax.Params, x, key) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation over theta of the image decoded from one draw of z."""
    z = model.posterior(jax.tree.map(lambda leaf: leaf[0], thetas), x).sample(key)
    means = jax.vmap(lambda params: model.p_x_given_z(params, z).mean)(thetas)
    return means.mean(axis=0), means.std(axis=0)


def figure_of(rows: list[dict], title: str) -> Figure:
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    sizes = [row["size"] for row in rows]
    for name, colour, label in (
        ("point", "#d9730d", "point estimate"),
        ("posterior", "#2c6fbb", "posterior over the weights"),
    ):
        means, errors = zip(*(row[name] for row in rows), strict=True)
        axes.errorbar(
            sizes,
            means,
            yerr=1.96 * np.array(errors),
            fmt="o-",
            color=colour,
            capsize=3,
            label=label,
        )
    axes.set(
        xscale="log",
        xlabel="training images",
        ylabel="test log p(x) (nats per example)",
        title=title,
        xticks=sizes,
        xticklabels=sizes,
    )
    axes.minorticks_off()
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def uncertainty_of(shown: dict[int, tuple], xs) -> Figure:
    """For the smallest and the largest training set: x, the mean decoded image, and its standard
    deviation over theta.
    """
    figure = Figure(figsize=(10, 1.35 + 1.1 * 2 * len(shown)), layout="constrained")
    panels = figure.subplots(1 + 2 * len(shown), 1)
    columns = len(xs)
    rows = [("x", np.asarray(xs), 1.0)]
    for size, (means, spreads) in shown.items():
        rows += [
            (f"mean,\n{size} images", np.asarray(means), 1.0),
            (f"deviation\nover weights,\n{size} images", np.asarray(spreads), 0.3),
        ]
    for axes, (label, images, top) in zip(panels, rows, strict=True):
        axes.imshow(
            plots.tile(images / top, columns),
            cmap="gray_r",
            vmin=0,
            vmax=1,
            interpolation="nearest",
        )
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
    figure.suptitle(
        "decoded images over draws of the decoder's weights (deviation: black is 0.3)", fontsize=11
    )
    return figure


def table(rows: list[dict]) -> str:
    columns = [
        "training images",
        "point estimate",
        "posterior over the weights",
        "gain, paired",
        "deviation of a pixel",
        "seconds",
    ]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in rows:
        lines.append(
            f"| {row['size']} | {row['point']} | {row['posterior']} | {row['gain']} |"
            f" {row['deviation']:.3f} | {row['seconds']} |"
        )
    return "\n".join(lines)


def main(config: Config) -> dict:
    dataset, transform = vaejax.prepare_pixels(
        vaejax.load_dataset(config.data, config.data_folder), config.binarisation, seed=config.seed
    )
    if not config.sizes or min(config.sizes) < 2 or max(config.sizes) > len(dataset.train.images):
        raise ValueError(
            f"sizes = {config.sizes}; give numbers from 2 to {len(dataset.train.images)}, the"
            f" training images of {config.data}"
        )
    check_data(
        dataset.train.images,
        support_of(build_model(training_config(config), dataset.train.images[0])),
        transform,
        name=config.data,
    )
    show_key, pixels_key = jax.random.split(jax.random.key(config.seed + 1))
    test = dataset.test.images[some_rows(show_key, len(dataset.test.images), 12)]
    xs = jax.vmap(transform)(test, jax.random.split(pixels_key, len(test)))
    rows, shown = [], {}
    for size in config.sizes:
        row, model, thetas = compare(config, size, dataset, transform)
        rows.append(row)
        print(
            f"{size} images: point {row['point']}, posterior {row['posterior']},"
            f" {row['seconds']} s",
            file=sys.stderr,
        )
        if size in (min(config.sizes), max(config.sizes)):
            shown[size] = jax.vmap(partial(uncertainty, model, thetas))(
                xs, jax.random.split(show_key, len(xs))
            )
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    figure_of(rows, config.data).savefig(out / "bayesian_decoder.png", dpi=150)
    uncertainty_of(shown, xs).savefig(out / "uncertainty.png", dpi=150)
    print(
        f"test log p(x), nats per example; {config.num_thetas} draws of theta,"
        f" {config.eval_samples} of z for each"
    )
    print(table(rows))
    rows = [
        {
            name: field._asdict() if isinstance(field, Estimate) else field
            for name, field in row.items()
        }
        for row in rows
    ]
    record(out, config, data=dataset.source, rows=rows)
    return {"rows": rows, "out": str(out)}


if __name__ == "__main__":
    sys.exit(command_line(lambda: main(tyro.cli(Config))))
