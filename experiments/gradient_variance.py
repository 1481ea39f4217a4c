"""Which gradient estimator has the least variance, and at what cost: on any model and data, along a
training run.

    python experiments/gradient_variance.py                         # the embedded digits
    python experiments/gradient_variance.py --estimators iwae:2 dreg:2 iwae:8 dreg:8 iwae:32 dreg:32 vimco:8 --out runs/importance_weighted
    python experiments/gradient_variance.py --run runs/vamp         # at the checkpoints that a run
                                                                    of train.py has kept
    python experiments/gradient_variance.py --resume                # goes on where it was cut off

A run is trained by one neutral estimator, `--trained-by`. At each of the stated steps every
estimator is measured at the same parameters, on the same minibatch, with the same keys. What is
measured is the sampling variance at a fixed minibatch; `vaejax.variance_sources` has the part that
comes from the choice of examples.

The folder gets variance.csv (one row for each seed, step, estimator and group of parameters),
result.json and the figures. Estimators of different bounds are not compared with each other: the
table names the bound, and marks the least variance, and the least variance times time, for each.
The ratio is to the first estimator of the bound, from paired draws. The bias is against a long run
of an unbiased estimator (`Pathwise`, or `DReG` for importance-weighted bounds): the largest |z| of
a parameter, and the p-value of that one.
"""

import csv
import dataclasses
import json
import math
import shutil
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tyro
from common import command_line, record
from matplotlib.figure import Figure
from tqdm.auto import tqdm
from train import (
    Setting,
    build_model,
    build_objective,
    build_optimizer,
    initial_params,
    named,
    saved_config,
    training_config,
)

import vaejax
from vaejax.data.check import check_data, support_of
from vaejax.training.fit import saved_runs
from vaejax.variance.cost import decoder_evaluations, gradient_cost
from vaejax.variance.groups import Groups, Part, heads, parts
from vaejax.variance.intervals import Spread
from vaejax.variance.moments import Moments

ELBO, IWAE = "ELBO", "IWAE"
ESTIMATORS = {
    "pathwise": (ELBO, lambda samples=1: vaejax.Pathwise(samples)),
    "antithetic": (ELBO, lambda samples=2: vaejax.Pathwise(samples, noise=vaejax.Antithetic())),
    "sobol": (ELBO, lambda samples=2: vaejax.Pathwise(samples, noise=vaejax.Sobol())),
    "analytic-kl": (ELBO, lambda samples=1: vaejax.AnalyticKL(samples)),
    "stick-the-landing": (ELBO, lambda samples=1: vaejax.StickTheLanding(samples)),
    "estimated-coefficient": (
        ELBO,
        lambda samples=1: vaejax.StickTheLanding(samples, coefficient="estimated"),
    ),
    "taylor": (ELBO, lambda samples=1: vaejax.TaylorControlVariate(samples)),
    "measure-valued": (ELBO, lambda samples=1: vaejax.MeasureValued(samples)),
    "score-function": (ELBO, lambda samples=2: vaejax.ScoreFunction(samples)),
    "iwae": (IWAE, lambda samples: vaejax.Pathwise(samples, vaejax.iwae_bound)),
    "stopped-iwae": (
        IWAE,
        lambda samples: vaejax.StickTheLanding(samples, vaejax.iwae_bound),
    ),  # biased
    "dreg": (IWAE, lambda samples: vaejax.DReG(samples)),
    "rws": (IWAE, lambda samples: vaejax.RWS(samples)),  # biased for this bound in phi
    "vimco": (IWAE, lambda samples: vaejax.VIMCO(samples)),
    "ovis": (IWAE, lambda samples: vaejax.OVIS(samples)),
}


@dataclasses.dataclass(frozen=True)
class Config(Setting):
    """A model, a run, and the estimators to measure along it. Names with a colon take a number:
    dreg:8 has 8 samples.
    """

    latent_dim: int = 10
    """Dimensions of z."""
    prior: str = "normal"
    """As --prior of train.py."""
    estimators: tuple[str, ...] = (
        "pathwise",
        "analytic-kl",
        "stick-the-landing",
        "pathwise:2",
        "antithetic:2",
        "score-function:2",
    )
    """Of pathwise, antithetic, sobol, analytic-kl, stick-the-landing, estimated-coefficient,
    taylor, measure-valued, score-function, iwae, stopped-iwae, dreg, rws, vimco, ovis.
    """
    run: str | None = None
    """Measure at the checkpoints of this run of train.py; model and data are then its own."""
    trained_by: str = "pathwise"
    """As --estimator of train.py."""
    num_steps: int = 3_000
    at: tuple[float, ...] = (0.0, 0.01, 0.1, 0.5, 1.0)
    """The parts of the run after which to measure."""
    measured_examples: int = 20
    """The size of the fixed minibatch."""
    num_draws: int = 500
    reference_draws: int = 2_000
    """For the mean that biases are held against."""
    num_seeds: int = 1
    out: str = "runs/gradient_variance"
    resume: bool = False
    """Keep the rows that --out has, of the same configuration."""


WHAT = ("seed", "step", "estimator", "bound", "group")
COSTS = ("forward", "backward", "seconds", "bytes")
COLUMNS = (
    *WHAT,
    *Spread._fields,
    "ratio",
    "ratio_low",
    "ratio_high",
    "mse",
    "largest_z",
    "p_value",
    "detectable",
    "value",
    *COSTS,
)
FREE_TO_CHANGE = {
    "resume",
    "out",
    "data_folder",
    "estimators",
    "num_seeds",
}  # in a run that is resumed


def estimator_of(name: str) -> tuple[str, Any]:
    """The bound, such as IWAE-8, and the estimator."""
    estimator = named("estimator", name, {key: make for key, (_, make) in ESTIMATORS.items()})
    bound = ESTIMATORS[name.partition(":")[0]][0]
    return f"{bound}-{estimator.num_samples}" if bound == IWAE else bound, estimator


class Subject(NamedTuple):
    """What the estimators are measured on: one seed's model, its minibatch, and the parameters at
    each step.
    """

    model: vaejax.VAE
    xs: jax.Array
    key: jax.Array
    points: Iterable[tuple[int, vaejax.Params]]


def subject(config: Config, seed: int, wanted: Callable[[int], bool]) -> Subject:
    """The training of one seed, or the run that `config.run` names; only steps that are wanted are
    trained to, or read.
    """
    if config.run is None:
        training = training_config(
            config,
            prior=config.prior,
            estimator=config.trained_by,
            num_steps=config.num_steps,
            seed=seed,
        )
    else:
        training = dataclasses.replace(saved_config(config.run), data_folder=config.data_folder)
    dataset, transform = vaejax.prepare_pixels(
        vaejax.load_dataset(training.data, training.data_folder),
        training.binarisation,
        seed=training.seed,
    )
    images = dataset.train.images
    model = build_model(training, images[0])
    check_data(images, support_of(model), transform, name=training.data)
    init_key, fit_key, rows_key, pixels_key, draw_key = jax.random.split(jax.random.key(seed), 5)
    rows = np.asarray(
        jax.random.choice(rows_key, len(images), (config.measured_examples,), replace=False)
    )
    xs = jax.jit(jax.vmap(transform))(images[rows], jax.random.split(pixels_key, len(rows)))
    start, optimizer = (
        initial_params(training, model, images, transform, init_key),
        build_optimizer(training),
    )

    def along_training() -> Iterator[tuple[int, vaejax.Params]]:
        settings = {"batch_size": config.batch_size, "transform": transform, "resume": True}
        folder = Path(config.out) / f"checkpoints-{seed}"
        for step in filter(wanted, sorted({round(part * config.num_steps) for part in config.at})):
            args = build_objective(training, model), start, optimizer, images, fit_key
            yield (
                step,
                (
                    vaejax.fit(*args, num_steps=step, checkpoints=folder, **settings).params
                    if step
                    else start
                ),
            )

    def along_run(folder: str) -> Iterator[tuple[int, vaejax.Params]]:
        runs = saved_runs(Path(folder) / "checkpoints", start, optimizer, validated=True)
        yield from ((step, run.params) for step, run in runs.items() if wanted(step))

    return Subject(
        model, xs, draw_key, along_training() if config.run is None else along_run(config.run)
    )


def measure(config: Config, seed: int, log: "Log", bar: tqdm) -> None:
    """One seed: at each step, every estimator that has no rows there yet."""

    def missing(step: int) -> list[str]:
        return [name for name in config.estimators if (seed, step, name) not in log.done]

    model, xs, key, points = subject(config, seed, lambda step: bool(missing(step)))
    reference_key, draw_key = jax.random.split(key)
    for step, params in points:
        groups = {
            "theta": Part(("theta",)),
            "phi": Part(("phi",)),
            **groups_of(model, params, xs[0]),
        }
        todo = missing(step)
        moments_of = partial(vaejax.gradient_moments, params=params, x=xs, order=2, groups=groups)
        for bound in dict.fromkeys(estimator_of(name)[0] for name in todo):
            names = [name for name in config.estimators if estimator_of(name)[0] == bound]
            samples = estimator_of(names[0])[1].num_samples
            unbiased = vaejax.Pathwise() if bound == ELBO else vaejax.DReG(samples)
            long = moments_of(
                vaejax.minibatch(partial(unbiased, model)),
                key=reference_key,
                num_draws=config.reference_draws,
                by="draws",
            )
            first = None
            for name in names:
                if first is not None and name not in todo:
                    continue
                estimator = estimator_of(name)[1]
                objective = vaejax.minibatch(partial(estimator, model))
                moments = moments_of(
                    objective, key=draw_key, num_draws=config.num_draws, by="draws"
                )
                first = first or moments
                if name not in todo:
                    continue
                facts = {
                    "seed": seed,
                    "step": step,
                    "estimator": name,
                    "bound": bound,
                    "value": moments.value.mean,
                }
                facts |= decoder_evaluations(estimator, model, params, xs[0], key)._asdict()
                facts |= gradient_cost(objective, params, xs, key)._asdict()
                log.add([facts | row for row in rows_of(moments, first, long, groups)])
                bar.set_postfix_str(f"seed {seed}, step {step}, {name}")
                bar.update()


def groups_of(model: vaejax.VAE, params: vaejax.Params, x: jax.Array) -> Groups:
    try:
        return heads(model, params, x)
    except ValueError:  # an encoder that does not end in one layer of two heads
        return parts(params)


def rows_of(
    moments: Moments, first: Moments, long: Moments, groups: Groups
) -> Iterator[dict[str, Any]]:
    """What was measured of each group: its spread, the ratio to the first estimator's, and the bias
    against a long run.
    """
    error = jax.tree.map(lambda variance: np.sqrt(variance / long.num_draws), long.variance)
    for name, spread in vaejax.gradient_spread(moments, groups).items():
        select = groups[name]
        varies = spread.trace > 0 and vaejax.tree_sum(select(first.variance)) > 0
        ratio = vaejax.variance_ratio(moments, first, name) if varies else (math.nan,) * 3
        bias = vaejax.gradient_bias(moments, long.mean, error, select=select)
        noise = (
            spread.trace / moments.num_draws
            + vaejax.tree_sum(select(long.variance)) / long.num_draws
        )
        off = vaejax.tree_sum(
            jax.tree.map(lambda a, b: (a - b) ** 2, select(moments.mean), select(long.mean))
        )
        of_bias = {"mse": spread.trace + max(off - noise, 0.0), **bias._asdict()}
        yield {
            "group": name,
            **spread._asdict(),
            **dict(zip(("ratio", "ratio_low", "ratio_high"), ratio, strict=True)),
            **of_bias,
        }


class Log:
    """variance.csv, a row at a time, so that a run that is cut off keeps what it has."""

    def __init__(self, path: Path, resume: bool):
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if resume and path.exists():
            with path.open() as file:
                self.rows = [
                    {name: _number(cell) for name, cell in row.items()}
                    for row in csv.DictReader(file)
                ]
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


def means(rows: list[dict], step: int, group: str) -> dict[str, dict[str, Any]]:
    """For each estimator the means over the seeds of what was measured of a group at a step."""
    found = {}
    for name in dict.fromkeys(row["estimator"] for row in rows if row["step"] == step):
        of_one = [
            row
            for row in rows
            if (row["estimator"], row["step"], row["group"]) == (name, step, group)
        ]
        numbers = [column for column in COLUMNS if column not in WHAT]
        found[name] = {"bound": of_one[0]["bound"]} | {
            column: statistics.mean(row[column] for row in of_one) for column in numbers
        }
        found[name]["work"] = found[name]["trace"] * found[name]["seconds"]
    return found


def table(rows: list[dict], step: int) -> str:
    """phi at a step, bound by bound: ** marks the least mean squared error, and the least variance
    times time.
    """
    of_phi, of_theta = means(rows, step, "phi"), means(rows, step, "theta")
    columns = (
        "bound, estimator, trace in theta, trace in phi, ratio, MSE in phi, SNR^2 in phi, largest"
        " z, decoder evaluations, ms, phi x ms"
    )
    lines = [f"| {' | '.join(columns.split(', '))} |", "|---" * 11 + "|"]
    for bound in dict.fromkeys(one["bound"] for one in of_phi.values()):
        rivals = {name: one for name, one in of_phi.items() if one["bound"] == bound}
        best = {column: winners(rivals, column)[bound] for column in ("mse", "work")}

        def cell(name: str, column: str, scale: float, best=best) -> str:
            number = f"{of_phi[name][column] * scale:.3g}"
            return f"**{number}**" if best[column] == name else number

        for name, one in rivals.items():
            ratio = f"{one['ratio']:.3g} ({one['ratio_low']:.3g} to {one['ratio_high']:.3g})"
            numbers = [
                f"{of_theta[name]['trace']:.3g}",
                f"{one['trace']:.3g}",
                ratio,
                cell(name, "mse", 1),
                f"{one['snr_squared']:.3g}",
            ]
            evaluations = f"{one['forward']:.0f} + {one['backward']:.0f}"
            numbers += [
                f"{one['largest_z']:.1f}",
                evaluations,
                f"{1e3 * one['seconds']:.2f}",
                cell(name, "work", 1e3),
            ]
            lines.append(f"| {bound} | {name} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def style(i: int) -> dict[str, Any]:
    return {"color": f"C{i % 10}", "marker": "osD^vP*X"[i % 8]}


def along_training(rows: list[dict]) -> Figure:
    """The trace over phi and over theta against the step, for each estimator; those that share a
    line share their gradient there.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    steps = sorted({row["step"] for row in rows})
    names = list(dict.fromkeys(row["estimator"] for row in rows))
    for axes, group in zip(figure.subplots(1, 2), ("phi", "theta"), strict=True):
        at = {step: means(rows, step, group) for step in steps}
        for i, name in enumerate(names):
            share = (len(names) - i) / len(
                names
            )  # later lines are thinner, so that what they cover is seen
            there = [step for step in steps if name in at[step]]
            sizes = {"ms": 4 + 2 * share, "lw": 1 + 2 * share}
            axes.plot(
                [max(step, 1) for step in there],
                [at[step][name]["trace"] for step in there],
                label=name,
                **style(i),
                **sizes,
            )
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="step (the start is drawn at 1)",
            title=f"gradient in {group}",
        )
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("trace of the covariance")
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False
    )
    return figure


def against_work(rows: list[dict], step: int) -> Figure:
    """The trace over phi against the time of a draw. Along a dotted line the two trade one for one,
    as when a draw is repeated.
    """
    figure = Figure(figsize=(7.6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    found = means(rows, step, "phi")
    times, traces = (
        np.array([one[name] for one in found.values()]) for name in ("seconds", "trace")
    )
    times = 1e3 * times
    for i, (name, time_of_one, trace) in enumerate(zip(found, times, traces, strict=True)):
        axes.scatter(time_of_one, trace, s=40, zorder=3, label=name, **style(i))
    axes.set(
        yscale="log",
        xlabel="milliseconds a draw",
        ylabel="trace of the covariance in phi",
        title=f"after {step} steps",
    )
    axes.set(xlim=(0, 1.35 * times.max()), ylim=(traces.min() / 2, traces.max() * 2))
    grid = np.linspace(0.02, 1.35, 200) * times.max()
    for product in np.geomspace((times * traces).min() / 4, (times * traces).max() * 4, 9):
        axes.plot(grid, product / grid, color="#95a5a6", lw=0.6, ls=":", zorder=1)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False)
    return figure


def against_samples(rows: list[dict], step: int) -> Figure | None:
    """The signal to noise of phi and of theta against K, for what was measured at two or more K;
    None if nothing was.
    """
    families: dict[str, list[tuple[int, str]]] = {}
    for name in dict.fromkeys(row["estimator"] for row in rows if row["step"] == step):
        families.setdefault(name.partition(":")[0], []).append(
            (estimator_of(name)[1].num_samples, name)
        )
    families = {family: sorted(members) for family, members in families.items() if len(members) > 1}
    if not families:
        return None
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    for axes, group in zip(figure.subplots(1, 2, sharey=True), ("phi", "theta"), strict=True):
        found = means(rows, step, group)
        for i, (family, members) in enumerate(families.items()):
            numbers = [
                math.sqrt(max(found[name]["snr_squared"], 0)) or math.nan for _, name in members
            ]
            axes.plot([k for k, _ in members], numbers, label=family, **style(i))
        floor = math.sqrt(next(iter(found.values()))["floor"])
        axes.axhline(floor, color="#95a5a6", lw=0.8, ls=":")
        axes.annotate(
            "floor of the uncorrected ratio",
            (1, floor),
            (2, 3),
            textcoords="offset points",
            fontsize=8,
            color="#7f8c8d",
        )
        axes.set(
            xscale="log", yscale="log", xlabel="K", title=f"gradient in {group}, after {step} steps"
        )
        ks = sorted({k for members in families.values() for k, _ in members})
        axes.set_xticks(ks, [str(k) for k in ks])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("signal to noise ratio")
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False
    )
    return figure


def check(config: Config) -> None:
    """Raises ValueError for flags that cannot be, before anything trains."""
    for name in config.estimators:
        estimator_of(name)
    if not all(0 <= part <= 1 and math.isfinite(part) for part in config.at):
        raise ValueError(f"at = {config.at}; each is a part of the run, from 0 to 1")
    if config.run is not None and config.num_seeds != 1:
        raise ValueError(
            f"num_seeds = {config.num_seeds}, but --run {config.run} is one run; leave out"
            " --num-seeds"
        )


def main(config: Config) -> dict:
    check(config)
    out = Path(config.out)
    manifest = json.loads(
        json.dumps(
            {
                name: value
                for name, value in dataclasses.asdict(config).items()
                if name not in FREE_TO_CHANGE
            }
        )
    )
    saved = out / "config.json"
    if config.resume and saved.exists() and json.loads(saved.read_text()) != manifest:
        raise ValueError(
            f"{out} holds rows of another configuration; name another --out, or leave out --resume"
        )
    out.mkdir(parents=True, exist_ok=True)
    if not config.resume:  # rows and parameters of an earlier measurement
        for folder in out.glob("checkpoints-*"):
            shutil.rmtree(folder)
    saved.write_text(json.dumps(manifest, indent=2) + "\n")
    log = Log(out / "variance.csv", config.resume)
    with tqdm(unit="estimator", dynamic_ncols=True) as bar:
        for seed in range(config.seed, config.seed + config.num_seeds):
            measure(config, seed, log, bar)
    last = max(row["step"] for row in log.rows)
    figures = {
        "along_training": along_training(log.rows),
        "against_work": against_work(log.rows, last),
        "against_samples": against_samples(log.rows, last),
    }
    for name, figure in figures.items():
        if figure is not None:
            figure.savefig(out / f"{name}.png", dpi=150)
    print(table(log.rows, last))
    summary = {
        "at_step": last,
        "phi": means(log.rows, last, "phi"),
        "theta": means(log.rows, last, "theta"),
        "out": str(out),
    }
    record(out, config, **summary)
    best = {f"least_{column}_in_phi": winners(summary["phi"], column) for column in ("mse", "work")}
    return {"at_step": last, **best, "out": str(out)}


def winners(found: dict[str, dict[str, Any]], column: str) -> dict[str, str]:
    """The best estimator of each bound."""
    bounds = dict.fromkeys(one["bound"] for one in found.values())
    rivals = {
        bound: [name for name, one in found.items() if one["bound"] == bound] for bound in bounds
    }
    return {
        bound: min(names, key=lambda name: found[name][column]) for bound, names in rivals.items()
    }


if __name__ == "__main__":
    sys.exit(command_line(lambda: main(tyro.cli(Config))))
