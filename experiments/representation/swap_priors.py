r"""One model, several priors, several seeds: what a prior is worth, in a table and a figure.

    python experiments/representation/swap_priors.py
    python experiments/representation/swap_priors.py --data binarized_mnist --latent-dim 40 \
        --hidden 200 200 --priors normal mixture:50 vamp:200 flow:4 --num-seeds 2 \
        --num-steps 20000 --eval-size 2000 --out runs/swap_mnist

Encoder, likelihood and everything else stay as they are; only the prior is another value. Each row
of the table is the mean over the seeds, with its standard error over seeds, of quantities over the
test set; the gain is over the first prior, seed by seed. One figure shows the gains, the other the
first seed's latents and draws.

Expected: a VampPrior above a standard normal where there are many latents (Tomczak & Welling 2018).
Measured by the first command, on the embedded digits with eight latents, nats per test example:

    prior         test ELBO         test log p(x)     its gain, paired
    normal        -23.23 +- 0.03    -22.77 +- 0.02
    mixture:10    -22.90 +- 0.05    -22.51 +- 0.04    +0.26 +- 0.02
    vamp:50       -22.67 +- 0.02    -22.31 +- 0.01    +0.46 +- 0.02
    flow:4        -22.87 +- 0.02    -22.46 +- 0.01    +0.31 +- 0.03
    laplace       -23.49 +- 0.03    -22.80 +- 0.04    -0.03 +- 0.05

With two latents there is nothing to gain: the encoder fills a standard normal, and after 3,000
steps on the same digits the ELBO is -24.29 with it, -24.63 with vamp:50 and -24.72 with flow:4, in
training as on held-out images (one seed). By the second command, with the library of revision
949deab, in short runs (40 epochs), the error of the test examples being 0.6:

    prior         test ELBO         test log p(x)     active units of 40
    normal        -99.82 +- 0.04    -93.69 +- 0.04    14.5
    mixture:50    -98.26 +- 0.01    -92.41 +- 0.07    17.0
    vamp:200      -95.49 +- 0.14    -90.03 +- 0.19    18.5
    flow:4        -97.08 +- 0.19    -91.19 +- 0.08    39.5

Duration: 873 s on two cores of an Intel Xeon that had much other work, of which 110 s are its own;
the second command 1020 s.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import vaejax
from experiments.lib import figures, flags, tables
from experiments.lib.data import drawn, seen
from experiments.lib.script import Report, run_script, tell
from experiments.lib.training import fitted_seeds
from vaejax import plots
from vaejax.base.fields import Count
from vaejax.data.check import check_data
from vaejax.runs.build import (
    build_model,
    build_objective,
    build_optimizer,
    initial_params,
    load_data,
)
from vaejax.runs.config import TrainConfig, training_config


@dataclasses.dataclass(frozen=True)
class Config(flags.ModelSetting):
    """Priors to compare on one model."""

    priors: flags.Priors = ("normal", "mixture:10", "vamp:50", "flow:4", "laplace")
    num_seeds: flags.NumSeeds = 3
    latent_dim: Count = 8
    hidden: tuple[Count, ...] = (100,)
    num_steps: Count = 3_000
    eval_samples: flags.EvalSamples = 500
    eval_size: flags.EvalSize = None
    out: str = "runs/swap_priors"

    def with_prior(self, prior: str) -> TrainConfig:
        """The configuration of train.py with this prior."""
        return training_config(self, prior=prior)


def compare(
    config: Config, prior: str, dataset: vaejax.Dataset, transform
) -> tuple[dict, vaejax.VAE, vaejax.Params]:
    """The row of one prior, with the model and the parameters of its first seed."""
    training, images = config.with_prior(prior), dataset.train.images
    model = build_model(training, images[0])
    # The same keys for every prior.
    init_key, fit_key, evaluate_key = jax.random.split(jax.random.key(config.seed), 3)
    starts = [
        initial_params(training, model, images, transform, key)
        for key in jax.random.split(init_key, config.num_seeds)
    ]
    seeds = fitted_seeds(
        config,
        build_objective(training, model),
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts),
        images,
        jax.random.split(fit_key, config.num_seeds),
        transform,
        optimizer=build_optimizer(training),
    )
    test = dataset.test.images[: config.eval_size]  # `experiment` has shuffled them
    settings = {"num_samples": config.eval_samples, "transform": transform}
    evaluations = [
        vaejax.evaluate(model, params, test, evaluate_key, **settings) for params in seeds
    ]
    row = {
        "prior": prior,
        "elbo": [evaluation.elbo.mean for evaluation in evaluations],
        "log_marginal": [evaluation.log_marginal.mean for evaluation in evaluations],
        "standard_error_over_examples": evaluations[0].log_marginal.standard_error,
        "active_units": [evaluation.active_units for evaluation in evaluations],
    }
    tell(f"{prior}: test ELBO {vaejax.estimate(row['elbo'])}")
    return row, model, seeds[0]


def table(rows: list[dict]) -> str:
    """The gain is over the first prior, seed by seed: starts, batches and noise are equal."""
    shown = [
        row
        | {name: vaejax.estimate(row[name]) for name in ("elbo", "log_marginal", "gain")}
        | {"active": np.mean(row["active_units"])}
        for row in rows
    ]
    header = "prior | test ELBO | test log p(x) | its gain, paired | active units"
    line = "{prior} | {elbo} | {log_marginal} | {gain:+.2f} | {active:.1f}"
    return tables.table(header, line, shown)


def figure_of_gains(rows: list[dict], data: str) -> Figure:
    """The gain of each prior over the first in log p(x): blue where it is above twice its error."""
    first, *others = rows
    gains = {row["prior"]: vaejax.estimate(row["gain"]) for row in others}
    colours = [
        plots.BLUE if gain.mean > 2 * gain.standard_error else plots.GREY for gain in gains.values()
    ]
    drawing = figures.seeds_figure(
        {row["prior"]: row["gain"] for row in others}, colours, "{:+.2f}"
    )
    [axes] = drawing.axes
    axes.axhline(0, color=plots.INK, lw=0.8, ls=":")
    axes.set_ylabel(f"log p(x) above that of {first['prior']} (nats)")
    axes.set_title(f"{data}: points are seeds, bars the standard error of their mean", fontsize=10)
    return drawing


def posterior_draws(model: vaejax.VAE, params: vaejax.Params, xs, key) -> np.ndarray:
    """One draw of q(z | x) for every x."""
    draw = jax.vmap(lambda x, key: model.posterior(params, x).sample(key))
    return np.asarray(jax.jit(draw)(xs, jax.random.split(key, len(xs))))


def experiment(config: Config) -> Report:
    dataset, transform = load_data(config)
    for prior in config.priors:  # what any of them refuses comes before the first one trains
        images = dataset.train.images
        model = build_model(config.with_prior(prior), images[0])
        check_data(images, model.support, transform, name=config.data)
    order_key, pixels_key, draw_key, plot_key = jax.random.split(jax.random.key(config.seed + 1), 4)
    dataset = dataset._replace(test=drawn(dataset.test, len(dataset.test.images), order_key))
    shown, labels = (None if part is None else part[:1_000] for part in dataset.test)
    xs = seen(shown, transform, pixels_key)
    rows, entries = [], {}
    for prior in config.priors:
        row, model, params = compare(config, prior, dataset, transform)
        # the gain of each seed in log p(x) over the first prior
        first = (rows[0] if rows else row)["log_marginal"]
        rows.append(row | {"gain": np.subtract(row["log_marginal"], first).tolist()})
        entries[prior] = model, params, posterior_draws(model, params, xs, draw_key)
    heading = (
        f"nats per example, mean over {tables.seeds(config.num_seeds)} ± standard error over seeds;"
        f" log p(x) with K = {config.eval_samples}"
    )
    return Report(
        {"data": dataset.source, "rows": rows},
        f"{heading}\n{table(rows)}",
        {
            "gains": lambda: figure_of_gains(rows, config.data),
            "priors": lambda: plots.priors(entries, labels, plot_key),
        },
    )


if __name__ == "__main__":
    run_script(Config, experiment, all_cores=True)
