r"""One model, several priors, several seeds: what a prior is worth, in a table and a figure.

    python experiments/swap_priors.py                                                      # the
                                                                                           embedded
                                                                                           digits,
                                                                                           two
                                                                                           latents
    python experiments/swap_priors.py --data binarized_mnist --latent-dim 40 --priors normal
    mixture:50 vamp:200 flow:4 \
        --num-seeds 2 --num-steps 20000 --eval-size 2000 --out runs/swap_mnist

Encoder, likelihood and everything else stay as they are; only the prior is another value. Each row
of the table is the mean over the seeds, with its standard error over seeds, of quantities over the
test set; the figure shows the first seed. `result.json` has them all, and so has the last line on
standard output.

Expected: a VampPrior above a standard normal where there are many latents (Tomczak & Welling 2018).
Measured by the second command on two cores of an Intel Xeon, with the library of revision 949deab,
in 17 minutes (training 121, 155, 360 and 214 s), nats per test example:

    prior         test ELBO         test log p(x)     active units of 40
    normal        -99.82 +- 0.04    -93.69 +- 0.04    14.5
    mixture:50    -98.26 +- 0.01    -92.41 +- 0.07    17.0
    vamp:200      -95.49 +- 0.14    -90.03 +- 0.19    18.5
    flow:4        -97.08 +- 0.19    -91.19 +- 0.08    39.5

The runs are short (40 epochs), and the errors are over two seeds; of the 2,000 test examples it is
0.6.
"""

import dataclasses
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from common import command_line, record, some_rows, use_all_cores
from train import Config as TrainConfig
from train import (
    Setting,
    build_model,
    build_objective,
    build_optimizer,
    initial_params,
    training_config,
)

import vaejax
from vaejax import plots
from vaejax.data.base import Split
from vaejax.data.check import check_data, support_of


@dataclasses.dataclass(frozen=True)
class Config(Setting):
    """Priors to compare on one model. Names with a colon take a number: vamp:500."""

    priors: tuple[str, ...] = ("normal", "mixture:10", "vamp:50", "flow:4", "laplace")
    """As --prior of train.py."""
    num_seeds: int = 3
    num_steps: int = 5_000
    eval_samples: int = 500
    """Importance samples per example for log p(x)."""
    eval_size: int | None = None
    """So many test examples, drawn at random; None takes all."""
    out: str = "runs/swap_priors"
    """The folder for result.json and priors.png, made anew."""


def of_training(config: Config, prior: str) -> TrainConfig:
    """The configuration of train.py with this prior."""
    return training_config(config, prior=prior, num_steps=config.num_steps)


def compare(
    config: Config, prior: str, dataset: vaejax.Dataset, transform
) -> tuple[dict, vaejax.VAE, vaejax.Params]:
    """The row of one prior, with the model and the parameters of its first seed."""
    settings = of_training(config, prior)
    model = build_model(settings, dataset.train.images[0])
    check_data(dataset.train.images, support_of(model), transform, name=config.data)
    init_key, fit_key, evaluate_key = jax.random.split(
        jax.random.key(config.seed), 3
    )  # the same for every prior
    starts = [
        initial_params(settings, model, dataset.train.images, transform, key)
        for key in jax.random.split(init_key, config.num_seeds)
    ]
    began = time.perf_counter()
    run = vaejax.fit_seeds(
        build_objective(settings, model),
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts),
        build_optimizer(settings),
        dataset.train.images,
        jax.random.split(fit_key, config.num_seeds),
        num_steps=config.num_steps,
        batch_size=config.batch_size,
        transform=transform,
    )
    seconds = time.perf_counter() - began
    seeds = [jax.tree.map(lambda leaf, s=s: leaf[s], run.params) for s in range(config.num_seeds)]
    images = dataset.test.images[: config.eval_size]  # `main` has shuffled them
    evaluations = [
        vaejax.evaluate(
            model,
            params,
            images,
            evaluate_key,
            num_samples=config.eval_samples,
            transform=transform,
        )
        for params in seeds
    ]
    row = {
        "prior": prior,
        "elbo": [evaluation.elbo.mean for evaluation in evaluations],
        "log_marginal": [evaluation.log_marginal.mean for evaluation in evaluations],
        "standard_error_over_examples": evaluations[0].log_marginal.standard_error,
        "active_units": [evaluation.active_units for evaluation in evaluations],
        "train_seconds": round(seconds, 1),
    }
    return row, model, seeds[0]


def mean_and_error(values: list[float]) -> str:
    """Over seeds."""
    spread = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return f"{np.mean(values):.2f} ± {spread:.2f}"


def table(rows: list[dict]) -> str:
    header = ["| prior | test ELBO | test log p(x) | active units |", "|---|---|---|---|"]
    cells = [
        f"| {row['prior']} | {mean_and_error(row['elbo'])} | {mean_and_error(row['log_marginal'])}"
        f" | {np.mean(row['active_units']):.1f} |"
        for row in rows
    ]
    return "\n".join([*header, *cells])


def aggregated(model: vaejax.VAE, params: vaejax.Params, xs, key) -> np.ndarray:
    """One draw of q(z | x) for every x."""
    return np.asarray(
        jax.jit(jax.vmap(lambda x, key: model.posterior(params, x).sample(key)))(
            xs, jax.random.split(key, len(xs))
        )
    )


def shuffled(split: Split, key) -> Split:
    order = some_rows(key, len(split.images))
    return Split(split.images[order], None if split.labels is None else split.labels[order])


def main(config: Config) -> dict:
    dataset, transform = vaejax.prepare_pixels(
        vaejax.load_dataset(config.data, config.data_folder), config.binarisation, seed=config.seed
    )
    for prior in config.priors:  # all names are looked up before the first one trains
        build_model(of_training(config, prior), dataset.train.images[0])
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    order_key, pixels_key, draw_key, plot_key = jax.random.split(jax.random.key(config.seed + 1), 4)
    dataset = dataset._replace(test=shuffled(dataset.test, order_key))
    shown = dataset.test.images[:1_000]
    xs = jax.jit(jax.vmap(transform))(shown, jax.random.split(pixels_key, len(shown)))
    rows, entries = [], {}
    for prior in config.priors:
        row, model, params = compare(config, prior, dataset, transform)
        print(
            f"{prior}: test ELBO {mean_and_error(row['elbo'])}, {row['train_seconds']} s",
            file=sys.stderr,
        )
        rows.append(row)
        entries[prior] = model, params, aggregated(model, params, xs, draw_key)
    labels = None if dataset.test.labels is None else dataset.test.labels[: len(shown)]
    plots.priors(entries, labels, plot_key).savefig(out / "priors.png", dpi=150)
    print(
        f"nats per example, mean over {config.num_seeds} seeds ± standard error over seeds; log"
        f" p(x) with K = {config.eval_samples}"
    )
    print(table(rows))
    record(out, config, data=dataset.source, rows=rows)
    return {"rows": rows, "out": str(out)}


if __name__ == "__main__":
    use_all_cores()
    sys.exit(command_line(lambda: main(tyro.cli(Config))))
