r"""A posterior over the decoder's weights: what it is worth on new images when the training images
are few, and what it is uncertain of.

    python experiments/inference/bayesian_decoder.py
    python experiments/inference/bayesian_decoder.py --data mnist --latent-dim 10 \
        --train-counts 100 1000 10000 --num-steps 10000 --out runs/bayes_mnist

q(theta) is a diagonal normal over all of the decoder's weights, trained by the minibatch bound with
its N/M scale (`vaejax.VariationalBayes`); the encoder's weights stay points. It is compared with
the point estimate of the same model, of maximum likelihood, on training sets of several sizes: the
test log p(x) by importance sampling, of the mixture (1/S) sum_s p(x | theta_s) over draws of
q(theta); and the standard deviation over q(theta) of a decoded pixel, the predictive uncertainty,
averaged over test images.

Expected: the uncertainty falls as the images grow in number, and the two come together (Kingma &
Welling 2014, full variational Bayes). Measured by the first command, nats per test example:

    images    point estimate      posterior           gain, paired       deviation of a pixel
    50        -25.26 +- 0.31      -30.41 +- 0.23      -5.15 +- 0.22      0.109
    250       -23.17 +- 0.24      -24.81 +- 0.23      -1.64 +- 0.12      0.077
    1,200     -22.78 +- 0.22      -23.44 +- 0.22      -0.66 +- 0.08      0.043

So both come true, and the posterior never pays in log p(x): with few images a diagonal q(theta)
gives up most of the decoder, since its weights cost more than they explain.

Duration: 91 s on two cores of an Intel Xeon.
"""

import dataclasses
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from matplotlib.figure import Figure

import vaejax
from experiments.lib import figures, flags, tables
from experiments.lib.data import Examples, drawn, seen
from experiments.lib.script import Report, run_script, tell
from experiments.lib.training import fitted
from vaejax import plots
from vaejax.base.checks import Integers
from vaejax.base.fields import Count, Distinct
from vaejax.data.check import check_data
from vaejax.runs.build import build_model, initial_params, load_data
from vaejax.runs.config import TrainSize, training_config


@dataclasses.dataclass(frozen=True)
class Config(flags.PlainSetting):
    """A VAE, and the sizes of its training sets."""

    latent_dim: Count = 4
    hidden: tuple[Count, ...] = (100,)
    train_counts: Distinct[Annotated[TrainSize, Integers(2)]] = (50, 250, 1_200)
    """Numbers of training images."""
    num_steps: Count = 10_000
    theta_draws: Count = 8
    """Draws of q(theta) that predictions are averaged over."""
    eval_samples: flags.EvalSamples = 100
    eval_size: flags.EvalSize = None
    out: str = "runs/bayesian_decoder"


def log_predictive(model: vaejax.VAE, num_samples: int, thetas: vaejax.Params, x, key):
    """log (1/S) sum_s p(x | theta_s), each by importance sampling."""
    log_p = jax.vmap(lambda params: vaejax.log_marginal(model, params, x, key, num_samples))(thetas)
    return logsumexp(log_p) - jnp.log(len(log_p))


def uncertainty(model: vaejax.VAE, thetas: vaejax.Params, x, key) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation over theta of the image decoded from one draw of z."""
    z = model.posterior(jax.tree.map(lambda leaf: leaf[0], thetas), x).sample(key)
    means = jax.vmap(lambda params: model.p_x_given_z(params, z).mean())(thetas)
    return means.mean(axis=0), means.std(axis=0)


def compare(
    config: Config, model: vaejax.VAE, size: int, dataset: vaejax.Dataset, transform
) -> tuple[dict, vaejax.Params]:
    """Point and posterior on the first `size` images of a shuffled training set: the row, and the
    parameters at draws of q(theta), stacked.
    """
    keys = jax.random.split(jax.random.key(config.seed), 7)
    order_key, init_key, point_key, bayes_key, theta_key, test_key, rows_key = keys
    images = drawn(dataset.train, size, order_key).images
    test = Examples(drawn(dataset.test, config.eval_size, rows_key).images, transform)
    start = initial_params(training_config(config), model, images, transform, init_key)
    bound = vaejax.minibatch(vaejax.AnalyticKL(), model)
    point = fitted(config, bound, start, images, point_key, transform)
    bayes = vaejax.VariationalBayes(bound, size)
    posterior = fitted(config, bayes, bayes.start(start), images, bayes_key, transform)
    theta_keys = jax.random.split(theta_key, config.theta_draws)
    thetas = jax.vmap(lambda key: bayes.draw(posterior, key))(theta_keys)
    log_p = partial(log_predictive, model, config.eval_samples)
    log_point, log_posterior = (
        test.each(log_p, params, test_key, batch_size=20)
        for params in (jax.tree.map(lambda leaf: leaf[None], point), thetas)
    )
    _, deviations = test.each(partial(uncertainty, model), thetas, test_key)
    row = {
        "size": size,
        "point": vaejax.estimate(log_point),
        "posterior": vaejax.estimate(log_posterior),
        "gain": vaejax.estimate(log_posterior - log_point),
        "deviation": float(deviations.mean()),
    }
    tell("{size} images: point {point}, posterior {posterior}".format(**row))
    return row, thetas


def figure_of_bounds(rows: list[dict], title: str) -> Figure:
    figure, [[axes]] = plots.figure_of(size=(6.4, 4))
    for name, label, colour in (
        ("point", "point estimate", plots.ORANGE),
        ("posterior", "posterior over the weights", plots.BLUE),
    ):
        figures.curve(axes, rows, "size", name, color=colour, label=label)
    plots.finish(axes, xscale="log", xlabel="training images", title=title)
    axes.set_ylabel("test log p(x) (nats per example)")
    plots.ticks_at(axes, [row["size"] for row in rows], str)
    plots.legend(axes, "lower right")
    return figure


def figure_of_images(shown: dict[int, tuple], xs) -> Figure:
    """For the smallest and the largest set: x, the mean image, its deviation over theta."""
    rows = {"x": xs}
    for size, (means, deviations) in shown.items():
        rows |= {f"mean, {size} images": means, f"deviation, {size} images": deviations / 0.3}
    title = "decoded images over draws of the decoder's weights (deviation: black is 0.3)"
    return figures.image_rows(rows, title)


def experiment(config: Config) -> Report:
    dataset, transform = load_data(config)
    images = dataset.train.images
    model = build_model(training_config(config), images[0])
    check_data(images, model.support, transform, name=config.data)
    show_key, pixels_key = jax.random.split(jax.random.key(config.seed + 1))
    xs = seen(drawn(dataset.test, 12, show_key).images, transform, pixels_key)
    rows, shown = [], {}
    for size in config.train_counts:
        row, thetas = compare(config, model, size, dataset, transform)
        rows.append(row)
        if size in (min(config.train_counts), max(config.train_counts)):
            decode = jax.vmap(partial(uncertainty, model, thetas))
            shown[size] = decode(xs, jax.random.split(show_key, len(xs)))
    header = "training images | point | posterior over the weights | gain, paired"
    line = "{size} | {point} | {posterior} | {gain} | {deviation:.3f}"
    table = tables.table(f"{header} | deviation of a pixel", line, rows)
    heading = (
        f"test log p(x), nats per example; {config.theta_draws} draws of theta,"
        f" {config.eval_samples} of z for each"
    )
    return Report(
        {"data": dataset.source, "rows": rows},
        f"{heading}\n{table}",
        {
            "bayesian_decoder": lambda: figure_of_bounds(rows, config.data),
            "uncertainty": lambda: figure_of_images(shown, xs),
        },
    )


if __name__ == "__main__":
    run_script(Config, experiment)
