"""Which gradient estimator has the least variance, and at what cost: on any model and data, along a training run.

    python experiments/gradient_variance.py                         # the embedded digits, some minutes on two CPU cores
    python experiments/gradient_variance.py --estimators iwae:8 dreg:8 rws:8 vimco:8 ovis:8 --out runs/importance_weighted
    python experiments/gradient_variance.py --resume --out runs/gradient_variance        # goes on where it was cut off

A run is trained by one neutral estimator, `--trained-by`. At each of the stated steps every estimator is measured at the same
parameters, on the same minibatch, with the same keys. What is measured is the sampling variance at a fixed minibatch;
`vaejax.variance_sources` has the part that comes from the choice of examples.

The folder gets variance.csv (one row for each seed, step, estimator and group of parameters), result.json and two figures. Estimators of
different bounds are not compared with each other: the table names the bound, and marks the least variance, and the least
variance times time, for each. Not yet measured at full length: nothing is claimed here.
"""

import csv
import dataclasses
import json
import math
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from common import command_line, environment
from matplotlib.figure import Figure
from train import Setting, build_model, build_objective, build_optimizer, initial_params, named, training_config

import vaejax
from vaejax.data import check_data, support_of
from vaejax.groups import heads, parts
from vaejax.variance import Spread

ELBO, IWAE = "ELBO", "IWAE"
ESTIMATORS = {
    "pathwise": (ELBO, lambda samples=1: vaejax.Pathwise(samples)),
    "antithetic": (ELBO, lambda samples=2: vaejax.Pathwise(samples, noise=vaejax.Antithetic())),
    "sobol": (ELBO, lambda samples=2: vaejax.Pathwise(samples, noise=vaejax.Sobol())),
    "analytic-kl": (ELBO, lambda samples=1: vaejax.AnalyticKL(samples)),
    "stick-the-landing": (ELBO, lambda samples=1: vaejax.StickTheLanding(samples)),
    "estimated-coefficient": (ELBO, lambda samples=1: vaejax.StickTheLanding(samples, coefficient="estimated")),
    "taylor": (ELBO, lambda samples=1: vaejax.TaylorControlVariate(samples)),
    "measure-valued": (ELBO, lambda samples=1: vaejax.MeasureValued(samples)),
    "score-function": (ELBO, lambda samples=2: vaejax.ScoreFunction(samples)),
    "iwae": (IWAE, lambda samples: vaejax.Pathwise(samples, vaejax.iwae_bound)),
    "dreg": (IWAE, lambda samples: vaejax.DReG(samples)),
    "rws": ("IWAE, wake phase in phi", lambda samples: vaejax.RWS(samples)),
    "vimco": (IWAE, lambda samples: vaejax.VIMCO(samples)),
    "ovis": (IWAE, lambda samples: vaejax.OVIS(samples)),
}


@dataclasses.dataclass(frozen=True)
class Config(Setting):
    """A model, a run, and the estimators to measure along it. Names with a colon take a number: dreg:8 has 8 samples."""

    latent_dim: int = 10
    """Dimensions of z."""
    prior: str = "normal"
    """As --prior of train.py."""
    estimators: tuple[str, ...] = ("pathwise", "analytic-kl", "stick-the-landing", "pathwise:2", "antithetic:2", "score-function:2")
    """Of pathwise, antithetic, sobol, analytic-kl, stick-the-landing, estimated-coefficient, taylor, measure-valued, score-function, iwae,
    dreg, rws, vimco, ovis."""
    trained_by: str = "pathwise"
    """As --estimator of train.py."""
    num_steps: int = 3_000
    at: tuple[float, ...] = (0.0, 0.01, 0.1, 0.5, 1.0)
    """The parts of the run after which to measure."""
    measured_examples: int = 20
    """The size of the fixed minibatch."""
    num_draws: int = 500
    num_seeds: int = 1
    out: str = "runs/gradient_variance"
    resume: bool = False
    """Keep the rows that --out has, of the same configuration."""


WHAT = ("seed", "step", "estimator", "bound", "group")
COLUMNS = (*WHAT, *Spread._fields, "value", "seconds_per_draw")
FREE_TO_CHANGE = {"resume", "out", "data_folder", "estimators", "num_seeds"}  # in a run that is resumed


def estimator_of(name: str) -> tuple[str, Any]:
    """The bound whose gradient it estimates, and the estimator."""
    estimator = named("estimator", name, {key: make for key, (_, make) in ESTIMATORS.items()})
    return ESTIMATORS[name.partition(":")[0]][0], estimator


def seconds_per_draw(objective, params, xs, key, repeats: int = 30) -> float:
    """The median time of one compiled gradient."""
    gradient = jax.jit(jax.grad(objective))
    jax.block_until_ready(gradient(params, xs, key))
    times = []
    for repeat in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(gradient(params, xs, jax.random.fold_in(key, repeat)))
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def measure(config: Config, seed: int, log: "Log") -> None:
    """One seed: train to each step, and measure every estimator that has no rows there yet."""
    training = training_config(config, prior=config.prior, estimator=config.trained_by, num_steps=config.num_steps, seed=seed)
    dataset, transform = vaejax.pixels(vaejax.load(config.data, config.data_folder), config.binarisation, seed=seed)
    images = dataset.train.images
    model = build_model(training, images[0])
    check_data(images, support_of(model), transform, name=config.data)
    init_key, fit_key, rows_key, pixels_key, draw_key = jax.random.split(jax.random.key(seed), 5)
    rows = np.asarray(jax.random.choice(rows_key, len(images), (config.measured_examples,), replace=False))
    xs = jax.jit(jax.vmap(transform))(images[rows], jax.random.split(pixels_key, len(rows)))
    start = initial_params(training, model, images, transform, init_key)
    neutral, optimizer = build_objective(training, model), build_optimizer(training)
    for step in sorted({round(part * config.num_steps) for part in config.at}):
        missing = [name for name in config.estimators if (seed, step, name) not in log.done]
        if not missing:
            continue
        params = start
        if step:  # data order and noise are functions of (key, step), so every run from the start passes through the same parameters
            run = vaejax.fit(neutral, start, optimizer, images, fit_key, num_steps=step, batch_size=config.batch_size, transform=transform)
            params = run.params
        try:
            groups = heads(model, params, xs[0])
        except ValueError:
            groups = parts(params)
        for name in missing:
            bound, estimator = estimator_of(name)
            objective = vaejax.minibatch(partial(estimator, model))
            moments = vaejax.gradient_moments(objective, params, xs, draw_key, config.num_draws, order=2, groups=groups)
            seconds = seconds_per_draw(objective, params, xs, draw_key)
            facts = {"seed": seed, "step": step, "estimator": name, "bound": bound}
            costs = {"value": moments.value.mean, "seconds_per_draw": seconds}
            log.add([facts | {"group": group} | spread._asdict() | costs for group, spread in vaejax.spread(moments, groups).items()])
            print(f"seed {seed}, step {step}, {name}: value {moments.value}, {1e3 * seconds:.2f} ms a draw", file=sys.stderr)


class Log:
    """variance.csv, a row at a time, so that a run that is cut off keeps what it has."""

    def __init__(self, path: Path, resume: bool):
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if resume and path.exists():
            with path.open() as file:
                self.rows = [{name: _number(cell) for name, cell in row.items()} for row in csv.DictReader(file)]
        with path.open("w", newline="") as file:
            csv.DictWriter(file, COLUMNS).writeheader()
            csv.DictWriter(file, COLUMNS).writerows(self.rows)
        self.done = {(row["seed"], row["step"], row["estimator"]) for row in self.rows}

    def add(self, rows: list[dict]) -> None:
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerows(rows)
        self.rows += rows


def _number(cell: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            pass
    return cell


def totals(rows: list[dict], step: int) -> dict[str, dict]:
    """For each estimator at a step, means over the seeds: the trace over phi's groups and over theta's, and the time."""
    found = {}
    for name in dict.fromkeys(row["estimator"] for row in rows):
        of_one = [row for row in rows if row["estimator"] == name and row["step"] == step]
        seeds = len({row["seed"] for row in of_one})
        sums = {part: sum(row["trace"] for row in of_one if row["group"].startswith(part)) / seeds for part in ("theta", "phi")}
        milliseconds = 1e3 * statistics.mean(row["seconds_per_draw"] for row in of_one)
        value = statistics.mean(row["value"] for row in of_one)
        found[name] = {"bound": of_one[0]["bound"], **sums, "milliseconds": milliseconds, "value": value}
    return found


def table(rows: list[dict], step: int) -> str:
    """The last step: ** marks the least variance in phi of each bound, and the least of variance times time."""
    found = totals(rows, step)
    lines = ["| estimator | bound | value | trace, theta | trace, phi | ms a draw | trace in phi x ms |", "|---|---|---|---|---|---|---|"]
    best = {}
    for name, one in found.items():
        for criterion, number in (("trace", one["phi"]), ("work", one["phi"] * one["milliseconds"])):
            least = best.get((one["bound"], criterion))
            best[one["bound"], criterion] = (number, name) if least is None or number < least[0] else least

    def cell(name: str, bound: str, criterion: str, number: float) -> str:
        return f"**{number:.3g}**" if best[bound, criterion][1] == name else f"{number:.3g}"

    for name, one in found.items():
        trace = cell(name, one["bound"], "trace", one["phi"])
        work = cell(name, one["bound"], "work", one["phi"] * one["milliseconds"])
        numbers = f"{one['value']:.2f} | {one['theta']:.3g} | {trace} | {one['milliseconds']:.2f} | {work}"
        lines.append(f"| {name} | {one['bound']} | {numbers} |")
    return "\n".join(lines)


def along_training(rows: list[dict]) -> Figure:
    """The trace over phi and over theta against the step, for each estimator; those that share a line share their gradient there."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    steps = sorted({row["step"] for row in rows})
    names = list(dict.fromkeys(row["estimator"] for row in rows))
    for axes, part in zip(figure.subplots(1, 2), ("phi", "theta"), strict=True):
        for i, name in enumerate(names):
            traces = [totals(rows, step)[name][part] for step in steps]
            share = (len(names) - i) / len(names)  # later lines are thinner, so that what they cover is seen
            style = {"marker": "osD^vP*X"[i % 8], "ms": 4 + 2 * share, "lw": 1 + 2 * share}
            axes.plot([max(step, 1) for step in steps], traces, color=f"C{i}", label=name, **style)
        axes.set(xscale="log", yscale="log", xlabel="step (the start is drawn at 1)", title=f"gradient in {part}")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("trace of the covariance")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure


def against_work(rows: list[dict], step: int) -> Figure:
    """The trace over phi against the time of a draw. Along a dotted line the two trade one for one, as when a draw is repeated."""
    figure = Figure(figsize=(7.6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    found = totals(rows, step)
    times, traces = (np.array([one[name] for one in found.values()]) for name in ("milliseconds", "phi"))
    for i, (name, time_of_one, trace) in enumerate(zip(found, times, traces, strict=True)):
        axes.scatter(time_of_one, trace, color=f"C{i}", marker="osD^vP*X"[i % 8], s=40, zorder=3, label=name)
    axes.set(yscale="log", xlabel="milliseconds a draw", ylabel="trace of the covariance in phi", title=f"after {step} steps")
    axes.set(xlim=(0, 1.35 * times.max()), ylim=(traces.min() / 2, traces.max() * 2))
    grid = np.linspace(0.02, 1.35, 200) * times.max()
    for product in np.geomspace((times * traces).min() / 4, (times * traces).max() * 4, 9):
        axes.plot(grid, product / grid, color="#95a5a6", lw=0.6, ls=":", zorder=1)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False)
    return figure


def main(config: Config) -> dict:
    for name in config.estimators:  # all names are looked up before anything trains
        estimator_of(name)
    if not all(0 <= part <= 1 and math.isfinite(part) for part in config.at):
        raise ValueError(f"at = {config.at}; each is a part of the run, from 0 to 1")
    out = Path(config.out)
    manifest = json.loads(json.dumps({name: value for name, value in dataclasses.asdict(config).items() if name not in FREE_TO_CHANGE}))
    saved = out / "config.json"
    if config.resume and saved.exists() and json.loads(saved.read_text()) != manifest:
        raise ValueError(f"{out} holds rows of another configuration; name another --out, or leave out --resume")
    out.mkdir(parents=True, exist_ok=True)
    saved.write_text(json.dumps(manifest, indent=2) + "\n")
    log = Log(out / "variance.csv", config.resume)
    for seed in range(config.seed, config.seed + config.num_seeds):
        measure(config, seed, log)
    last = max(row["step"] for row in log.rows)
    along_training(log.rows).savefig(out / "along_training.png", dpi=150)
    against_work(log.rows, last).savefig(out / "against_work.png", dpi=150)
    print(table(log.rows, last))
    summary = {"at_step": last, "estimators": totals(log.rows, last), "out": str(out)}
    (out / "result.json").write_text(json.dumps(summary | {"config": dataclasses.asdict(config), **environment()}, indent=2) + "\n")
    return summary


if __name__ == "__main__":
    sys.exit(command_line(lambda: main(tyro.cli(Config))))
