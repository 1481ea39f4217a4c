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

result.json gets a row for each seed, step, estimator and group of parameters. They are kept as they
are measured, in measured/, each with a digest, so that --resume measures no more than is missing or
was changed. Estimators of different bounds are not compared with each other: the table names the
bound, and marks the least mean squared error, and the least variance times time, for each.
The ratio is to the first estimator of the bound, from paired draws. The bias is against a long run
of an unbiased estimator (pathwise for the ELBO, dreg for the IWAE bound, for any other bound the
estimator itself): the largest |z| of a parameter, and the p-value of that one.

Duration: 180 s on two cores of an Intel Xeon that had other work.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm.auto import tqdm

import vaejax
from experiments.lib import variances
from experiments.lib.data import drawn, seen
from experiments.lib.flags import MeasuredAt, MeasuredExamples, NumDraws, NumSeeds, Script
from experiments.lib.gradients import measured_steps, params_at
from experiments.lib.script import Report, run_script
from experiments.lib.variances import Rows
from vaejax import Params
from vaejax.base.compare import differences, told
from vaejax.base.describe import description
from vaejax.base.fields import Count, Distinct, Plural
from vaejax.base.types import Key
from vaejax.data.check import check_data
from vaejax.evaluation.pieces import Pieces
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
        return ("measured", "checkpoints-*", "config.json")

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


# Where the estimators are measured.


class Subject(NamedTuple):
    """A model, its fixed minibatch, the key of the draws, the steps, and the parameters at each."""

    model: vaejax.VAE
    xs: jax.Array
    key: Key
    steps: list[int]
    params_at: Callable[[int], Params]


def subject_of(config: Config, seed: int) -> Subject:
    """What is measured of one seed. Nothing is trained yet."""
    return of_training(config, seed) if config.run is None else of_run(config, config.run)


def of_training(config: Config, seed: int) -> Subject:
    """A training of its own, which goes to the steps that are asked for alone."""
    training = config.training(seed)
    dataset, transform = load_data(training)
    require_examples(config, dataset)
    images = dataset.train.images
    model = build_model(training, images[0])
    check_data(images, model.support, transform, name=training.data)
    init_key, fit_key, *keys = jax.random.split(jax.random.key(seed), 5)

    def params_of(step: int) -> Params:
        return params_at(
            step,
            Path(config.out) / f"checkpoints-{seed}",
            build_objective(training, model),
            initial_params(training, model, images, transform, init_key),
            build_optimizer(training),
            images,
            fit_key,
            batch_size=config.batch_size,
            transform=transform,
        )

    xs = minibatch(config, dataset, transform, keys)
    steps = measured_steps(config.measured_at, config.num_steps)
    return Subject(model, xs, keys[2], steps, params_of)


def of_run(config: Config, folder: str) -> Subject:
    """The checkpoints that a run has kept."""
    run = open_run(folder, data_folder=config.data_folder)
    require_examples(config, run.dataset)
    keys = jax.random.split(jax.random.key(config.seed), 5)[2:]
    xs = minibatch(config, run.dataset, run.transform, keys)
    return Subject(
        run.model, xs, keys[2], [*run.checkpoints], lambda step: run.checkpoints[step].params
    )


def minibatch(config: Config, dataset: vaejax.Dataset, transform, keys) -> jax.Array:
    """Training examples, drawn by the first two of three keys."""
    chosen = drawn(dataset.train, config.measured_examples, keys[0])
    return seen(chosen.images, transform, keys[1])


# The measurement.


class Point:
    """What is measured at one step, each when it is first asked for: all estimators see the same
    parameters, minibatch and keys.
    """

    def __init__(self, config: Config, subject: Subject, step: int):
        self.config, self.subject, self.step = config, subject, step
        self.reference_key, self.draw_key = jax.random.split(subject.key)
        self.moments = cache(self._moments)
        self.reference = cache(self._reference)

    @cached_property
    def params(self) -> Params:
        return self.subject.params_at(self.step)

    @cached_property
    def groups(self) -> Groups:
        both = {"theta": Part(("theta",)), "phi": Part(("phi",))}
        try:
            return both | dict(heads(self.subject.model, self.params, self.subject.xs[0]))
        except ValueError:  # an encoder that does not end in one layer of two heads
            return both | dict(parts(self.params))

    def _moments(self, name: str) -> Moments:
        return self.drawn(named_estimator(name), self.draw_key, self.config.num_draws)

    def _reference(self, estimator: vaejax.Estimator) -> Moments:
        return self.drawn(estimator, self.reference_key, self.config.reference_draws)

    def drawn(self, estimator: vaejax.Estimator, key: Key, num_draws: int) -> Moments:
        objective = vaejax.minibatch(estimator, self.subject.model)
        settings = {"order": 2, "groups": self.groups, "by": "draws"}
        return vaejax.gradient_moments(
            objective, self.params, self.subject.xs, key, num_draws, **settings
        )

    def rows(self, name: str) -> Rows:
        """A row for each group of parameters."""
        model, xs, key, *_ = self.subject
        estimator, bound = named_estimator(name), bound_of_estimator(name)
        same = (other for other in self.config.estimators if bound_of_estimator(other) == bound)
        moments, first = self.moments(name), self.moments(next(same))
        objective = vaejax.minibatch(estimator, model)
        facts = {
            "estimator": name,
            "bound": bound,
            "value": moments.value.mean,
            **decoder_evaluations(estimator, model, self.params, xs[0], key)._asdict(),
            **gradient_cost(objective, self.params, xs, key)._asdict(),
        }
        groups = rows_of_groups(moments, first, self.reference(unbiased(name)), self.groups)
        return [facts | row for row in groups]


def unbiased(name: str) -> vaejax.Estimator:
    """An estimator whose mean is the gradient of the same bound, and noisy as little as may be."""
    estimator: Any = named_estimator(name)
    bound = bound_of_estimator(name)
    if bound == "ELBO":
        return vaejax.Pathwise()
    return vaejax.DReG(estimator.num_samples) if bound.startswith("IWAE-") else estimator


def rows_of_groups(
    moments: Moments, first: Moments, reference: Moments, groups: Groups
) -> Iterator[dict[str, Any]]:
    """What was measured of each group: its spread, the ratio to the first estimator's, and the bias
    against a long run.
    """
    size = reference.num_draws
    error = jax.tree.map(lambda variance: np.sqrt(variance / size), reference.variance)
    for name, spread in vaejax.gradient_spread(moments, groups).items():
        ratio = vaejax.variance_ratio(moments, first, name)
        bias = vaejax.gradient_bias(moments, reference.mean, error, select=groups[name])
        ratios = {"ratio": ratio.ratio, "ratio_low": ratio.low, "ratio_high": ratio.high}
        largest_z, p_value, detectable, squared = bias
        biases = {"largest_z": largest_z, "p_value": p_value, "detectable": detectable}
        mse = spread.trace + max(squared, 0.0)
        yield {"group": name, **spread._asdict(), **ratios, "mse": mse, **biases}


# The script.

# With --resume.
FREE_TO_CHANGE = ("resume", "overwrite", "out", "data_folder", "estimators", "num_seeds")


def made_of(config: Config) -> dict[str, Any]:
    """All that the rows depend on; raises for data, a model or a run that there is not."""
    values = dataclasses.asdict(config)
    kept = {name: values[name] for name in values if name not in FREE_TO_CHANGE}
    model = subject_of(config, config.seed).model
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


def measured(config: Config, out: Path, manifest: dict[str, Any]) -> Rows:
    """The rows of every seed, step and estimator; what `out` has already is not measured again."""
    rows: Rows = []
    folder = out / "measured"
    folder.mkdir(exist_ok=True)
    for seed in range(config.seed, config.seed + config.num_seeds):
        subject = subject_of(config, seed)
        files = {
            name: Pieces(
                folder / f"{seed}-{name.replace(':', '-')}.jsonl",
                {**manifest, "seed": seed, "estimator": name},
            )
            for name in config.estimators
        }
        for step in tqdm(subject.steps, f"seed {seed}", unit="step", dynamic_ncols=True):
            point = Point(config, subject, step)
            for name, pieces in files.items():
                measured = kept(pieces, step, partial(point.rows, name))
                rows += [{"seed": seed, "step": step, **row} for row in measured]
    return rows


def kept(pieces: Pieces, step: int, function: Callable[[], Rows]) -> Rows:
    """function(), computed once: an array on disk for each column."""
    if step not in pieces.arrays:
        rows = function()
        arrays = {column: np.array([row[column] for row in rows]) for column in rows[0]}
        pieces.add({step: arrays})
        pieces.arrays[step] = arrays
    columns = {name: array.tolist() for name, array in pieces.arrays[step].items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def experiment(config: Config) -> Report:
    manifest, out = made_of(config), place_of(config.out)
    require_same(out / "config.json", manifest)
    write_json(out / "config.json", manifest)
    rows = measured(config, out, manifest)
    last = max(row["step"] for row in rows)
    phi, theta = (variances.means(rows, last, group) for group in ("phi", "theta"))
    figures = {
        "along_training": lambda: variances.along_training(rows),
        "against_work": lambda: variances.against_work(rows, last),
    }
    if variances.families(config.estimators):
        figures["against_samples"] = lambda: variances.against_samples(rows, last)
    best = {name: variances.winners(phi, name) for name in ("mse", "work")}
    return Report(
        {"at_step": last, "phi": phi, "theta": theta, "rows": rows, "out": config.out},
        variances.table(rows, last),
        figures,
        {"at_step": last, **{f"least_{name}_in_phi": names for name, names in best.items()}},
    )


if __name__ == "__main__":
    run_script(Config, experiment)
