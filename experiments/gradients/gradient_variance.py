r"""Which gradient estimator has the least variance, and at what cost: on any model and data, along
a training run.

    python experiments/gradients/gradient_variance.py  # the embedded digits
    python experiments/gradients/gradient_variance.py \
        --estimators iwae:2 dreg:2 iwae:8 dreg:8 iwae:32 dreg:32 vimco:8 \
        --out runs/importance_weighted
    python experiments/gradients/gradient_variance.py --run runs/vamp  # at its checkpoints
    python experiments/gradients/gradient_variance.py --resume  # goes on where it was cut off

A run is trained by one neutral estimator, `--trained-by`. At each of the stated steps every
estimator is measured at the same parameters, on the same minibatch, with the same keys. What is
measured is the sampling variance at a fixed minibatch; `vaejax.variance_sources` has the part that
comes from the choice of examples.

The folder gets variance.csv (one row for each seed, step, estimator and group of parameters; the
last column is a digest, so that --resume keeps no row that was changed), result.json and the
figures. Estimators of different bounds are not compared with each other: the
table names the bound, and marks the least variance, and the least variance times time, for each.
The ratio is to the first estimator of the bound, from paired draws. The bias is against a long run
of an unbiased estimator (pathwise, or dreg for importance-weighted bounds): the largest |z| of a
parameter, and the p-value of that one.

Duration: 180 s on two cores of an Intel Xeon that had other work.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm.auto import tqdm

import vaejax
from experiments.lib import variances
from experiments.lib.csv_log import CsvLog
from experiments.lib.flags import MeasuredAt, MeasuredExamples, NumDraws, NumSeeds, Script
from experiments.lib.script import Report, run_script
from experiments.lib.variances import RATIO
from vaejax.base.compare import differences, told
from vaejax.base.describe import description
from vaejax.base.fields import Count, Distinct, Plural
from vaejax.data.check import check_data
from vaejax.runs.build import (
    build_model,
    build_objective,
    build_optimizer,
    initial_params,
    load_data,
)
from vaejax.runs.config import (
    EstimatorName,
    PriorName,
    Setting,
    TrainConfig,
    check_config,
    require_examples,
    require_seeds,
    training_config,
)
from vaejax.runs.continuation import saved_config
from vaejax.runs.files import json_text, read_json, write_json
from vaejax.runs.folder import open_run
from vaejax.runs.named_estimators import bound_of_estimator, named_estimator
from vaejax.runs.place import place_of
from vaejax.variance.cost import decoder_evaluations, gradient_cost
from vaejax.variance.groups import Groups, Part, heads, parts
from vaejax.variance.moments import Moments


@dataclasses.dataclass(frozen=True)
class Config(Setting, Script):
    """A model, a run, and the estimators to measure along it."""

    latent_dim: Count = 10
    prior: PriorName = "normal"
    """As --prior of train.py."""
    estimators: Distinct[EstimatorName] = (
        "pathwise",
        "analytic-kl",
        "stick-the-landing",
        "pathwise:2",
        "antithetic:2",
        "score-function:2",
    )
    """As --estimator of train.py, with its number of samples: dreg:8 has 8."""
    run: str | None = None
    """Measure at the checkpoints of this run of train.py; model and data are then its own."""
    trained_by: str = "pathwise"
    """As --estimator of train.py."""
    num_steps: Count = 3_000
    measured_at: MeasuredAt = (0.0, 0.01, 0.1, 0.5, 1.0)
    measured_examples: MeasuredExamples = 20
    num_draws: NumDraws = 500
    reference_draws: Plural = 2_000
    """Gradients for the mean that biases are held against."""
    num_seeds: NumSeeds = 1
    out: str = "runs/gradient_variance"
    resume: bool = False
    """Keep the rows that --out has, of the same configuration."""

    def resumes(self) -> bool:
        return self.resume

    def own_files(self) -> tuple[str, ...]:
        return ("variance.csv", "checkpoints-*", "config.json")

    def check_together(self) -> None:
        if self.resume and self.overwrite:
            raise ValueError("--resume goes on with a result and --overwrite replaces it; give one")
        require_seeds(self.seed, self.num_seeds)
        for name in self.estimators:
            named_estimator(name)
        check_config(self.training(self.seed))
        if self.run is not None and self.num_seeds != 1:
            raise ValueError(
                f"num_seeds = {self.num_seeds}, but --run {self.run} is one run; leave out"
                " --num-seeds"
            )

    def training(self, seed: int) -> TrainConfig:
        """The configuration of train.py, for a training of its own."""
        changes = {"prior": self.prior, "estimator": self.trained_by, "seed": seed}
        return training_config(self, **changes)

    @property
    def seeds(self) -> range:
        return range(self.seed, self.seed + self.num_seeds)


# Where the estimators are measured.


class Points(NamedTuple):
    """A model, its fixed minibatch, the key of the draws, and the parameters at each step."""

    model: vaejax.VAE
    xs: jax.Array
    key: jax.Array
    by_step: Iterable[tuple[int, vaejax.Params]]


def points_of_training(config: Config, seed: int, wanted: Callable[[int], bool]) -> Points:
    """Of a training of its own, which goes to the wanted steps alone."""
    training = config.training(seed)
    dataset, transform = load_data(training)
    require_examples(config, dataset)
    images = dataset.train.images
    model = build_model(training, images[0])
    check_data(images, model.support, transform, name=training.data)
    init_key, fit_key, *keys = jax.random.split(jax.random.key(seed), 5)
    start = initial_params(training, model, images, transform, init_key)

    def trained(step: int) -> vaejax.Params:
        if step == 0:
            return start
        folder = Path(config.out) / f"checkpoints-{seed}"
        return vaejax.fit(
            build_objective(training, model),
            start,
            build_optimizer(training),
            images,
            fit_key,
            num_steps=step,
            batch_size=config.batch_size,
            transform=transform,
            checkpoints=vaejax.Checkpoints(folder, resume=True),
        ).params

    steps = sorted({round(part * config.num_steps) for part in config.measured_at})
    by_step = ((step, trained(step)) for step in steps if wanted(step))
    return points(config, model, images, transform, keys, by_step)


def points_of_run(config: Config, folder: str, wanted: Callable[[int], bool]) -> Points:
    """Of the checkpoints that a run has kept."""
    run = open_run(folder, data_folder=config.data_folder)
    require_examples(config, run.dataset)
    images, keys = run.dataset.train.images, jax.random.split(jax.random.key(config.seed), 5)[2:]
    by_step = ((step, point.params) for step, point in run.checkpoints.items() if wanted(step))
    return points(config, run.model, images, run.transform, keys, by_step)


def points(config: Config, model, images, transform, keys, by_step) -> Points:
    """With a minibatch that is drawn by the first two of three keys."""
    rows_key, pixels_key, draw_key = keys
    shape = (config.measured_examples,)
    rows = np.asarray(jax.random.choice(rows_key, len(images), shape, replace=False))
    xs = jax.jit(jax.vmap(transform))(images[rows], jax.random.split(pixels_key, len(rows)))
    return Points(model, xs, draw_key, by_step)


def groups_of_params(model: vaejax.VAE, params: vaejax.Params, x: jax.Array) -> Groups:
    both = {"theta": Part(("theta",)), "phi": Part(("phi",))}
    try:
        return both | dict(heads(model, params, x))
    except ValueError:  # an encoder that does not end in one layer of two heads
        return both | dict(parts(params))


# The measurement.


def subject_of(config: Config, seed: int, wanted: Callable[[int], bool]) -> Points:
    """What is measured of one seed, at the wanted steps. Nothing is trained yet."""
    if config.run is None:
        return points_of_training(config, seed, wanted)
    return points_of_run(config, config.run, wanted)


def measure(config: Config, seed: int, log: CsvLog, bar: tqdm) -> None:
    """One seed: at each step, every estimator that has no rows there yet."""
    done = {(row["seed"], row["step"], row["estimator"]) for row in log.rows}

    def missing(step: int) -> list[str]:
        return [name for name in config.estimators if (seed, step, name) not in done]

    subject = subject_of(config, seed, lambda step: bool(missing(step)))
    for step, params in subject.by_step:
        names = missing(step)
        for bound in dict.fromkeys(bound_of_estimator(name) for name in names):
            for name, rows in measure_bound(config, subject, params, bound, names):
                log.add([{"seed": seed, "step": step, **row} for row in rows])
                bar.set_postfix_str(f"seed {seed}, step {step}, {name}")
                bar.update()


def measure_bound(
    config: Config, subject: Points, params: vaejax.Params, bound: str, missing: list[str]
) -> Iterator[tuple[str, list[dict]]]:
    """(name, rows) of each missing estimator of one bound; the first of the bound is measured
    anyway, for the ratios.
    """
    model, xs, key, _ = subject
    reference_key, draw_key = jax.random.split(key)
    groups = groups_of_params(model, params, xs[0])
    settings = {"order": 2, "groups": groups, "by": "draws"}

    def moments(estimator: Any, key: jax.Array, num_draws: int) -> Moments:
        objective = vaejax.minibatch(estimator, model)
        return vaejax.gradient_moments(objective, params, xs, key, num_draws, **settings)

    first_name, *others = (name for name in config.estimators if bound_of_estimator(name) == bound)
    estimator: Any = named_estimator(first_name)
    unbiased = vaejax.Pathwise() if bound == "ELBO" else vaejax.DReG(estimator.num_samples)
    reference = moments(unbiased, reference_key, config.reference_draws)
    first = moments(estimator, draw_key, config.num_draws)
    for name in (first_name, *others):
        if name not in missing:
            continue
        estimator = named_estimator(name)
        drawn = first if name == first_name else moments(estimator, draw_key, config.num_draws)
        facts = {"estimator": name, "bound": bound, "value": drawn.value.mean}
        facts |= decoder_evaluations(estimator, model, params, xs[0], key)._asdict()
        objective = vaejax.minibatch(estimator, model)
        facts |= gradient_cost(objective, params, xs, key)._asdict()
        yield name, [facts | row for row in rows_of_groups(drawn, first, reference, groups)]


def rows_of_groups(
    moments: Moments, first: Moments, reference: Moments, groups: Groups
) -> Iterator[dict[str, Any]]:
    """What was measured of each group: its spread, the ratio to the first estimator's, and the bias
    against a long run.
    """
    size = reference.num_draws
    error = jax.tree.map(lambda variance: np.sqrt(variance / size), reference.variance)
    for name, spread in vaejax.gradient_spread(moments, groups).items():
        select = groups[name]
        varies = spread.trace > 0 and vaejax.tree_sum(select(first.variance)) > 0
        ratio = vaejax.variance_ratio(moments, first, name) if varies else (math.nan,) * 3
        bias = vaejax.gradient_bias(moments, reference.mean, error, select=select)
        squares = jax.tree.map(
            lambda a, b: (a - b) ** 2, select(moments.mean), select(reference.mean)
        )
        # |E g - E reference|^2 = |difference of the means|^2 - the noise of both
        noise = spread.trace / moments.num_draws
        noise += vaejax.tree_sum(select(reference.variance)) / size
        mse = spread.trace + max(vaejax.tree_sum(squares) - noise, 0.0)
        ratios = dict(zip(RATIO, ratio, strict=True))
        yield {"group": name, **spread._asdict(), **ratios, "mse": mse, **bias._asdict()}


# The script.

# With --resume.
FREE_TO_CHANGE = ("resume", "overwrite", "out", "data_folder", "estimators", "num_seeds")


def made_of(config: Config) -> dict[str, Any]:
    """All that the rows depend on; raises for data, a model or a run that there is not."""
    values = dataclasses.asdict(config)
    kept = {name: values[name] for name in values if name not in FREE_TO_CHANGE}
    model = subject_of(config, config.seed, lambda step: False).model
    trained = {} if config.run is None else {"run": dataclasses.asdict(saved_config(config.run))}
    whole = {"experiment": "gradient_variance", "config": kept, "model": description(model)}
    return json.loads(json_text(whole | trained))


def require_same(saved: Path, manifest: dict[str, Any]) -> None:
    """Raises ValueError where the rows beside this config.json are of another configuration."""
    lines = differences(read_json(saved, *manifest), manifest) if saved.exists() else []
    if lines:
        raise ValueError(
            f"{saved.parent} holds rows of another configuration: {told(lines)}; name another"
            " --out, or --overwrite them"
        )


def experiment(config: Config) -> Report:
    manifest, out = made_of(config), place_of(config.out)
    require_same(out / "config.json", manifest)
    write_json(out / "config.json", manifest)
    log = CsvLog(out / "variance.csv", variances.COLUMNS, config.resume, manifest)
    with tqdm(unit="estimator", dynamic_ncols=True) as bar:
        for seed in config.seeds:
            measure(config, seed, log, bar)
    last = max(row["step"] for row in log.rows)
    phi, theta = (variances.means(log.rows, last, group) for group in ("phi", "theta"))
    figures = {
        "along_training": lambda: variances.along_training(log.rows),
        "against_work": lambda: variances.against_work(log.rows, last),
    }
    if variances.families(variances.measured_names(log.rows, last)):
        figures["against_samples"] = lambda: variances.against_samples(log.rows, last)
    best = {name: variances.winners(phi, name) for name in ("mse", "work")}
    return Report(
        {"at_step": last, "phi": phi, "theta": theta, "out": config.out},
        variances.table(log.rows, last),
        figures,
        {"at_step": last, **{f"least_{name}_in_phi": names for name, names in best.items()}},
    )


if __name__ == "__main__":
    run_script(Config, experiment)
