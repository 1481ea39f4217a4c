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
from collections.abc import Callable
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm.auto import tqdm

import vaejax
from experiments.lib import flags, gradients, variances
from experiments.lib.data import drawn, seen
from experiments.lib.script import Report, run_script
from experiments.lib.variances import Rows
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
    TrainConfig,
    check_config,
    require_examples,
    require_seeds,
    training_config,
)
from vaejax.runs.continuation import saved_config
from vaejax.runs.files import json_text, read_json, write_json
from vaejax.runs.named_estimators import bound_of_estimator, named_estimator
from vaejax.runs.place import place_of
from vaejax.variance.groups import Groups, heads, parts
from vaejax.variance.moments import Moments


@dataclasses.dataclass(frozen=True)
class Config(flags.ModelSetting):
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
    measured_at: flags.MeasuredAt = (0.0, 0.01, 0.1, 0.5, 1.0)
    measured_examples: flags.MeasuredExamples = 20
    num_draws: flags.NumDraws = 500
    reference_draws: Plural = 2_000
    """Gradients for the mean that biases are held against."""
    num_seeds: flags.NumSeeds = 1
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


class Subject(NamedTuple):
    """A model, its fixed minibatch, the key of the draws, the steps, and the parameters at each."""

    model: vaejax.VAE
    xs: jax.Array
    key: Key
    steps: list[int]
    params_at: Callable[[int], vaejax.Params]


def subject_of(config: Config, seed: int) -> Subject:
    """What is measured of one seed. Nothing is trained before its parameters are asked for."""
    if config.run is not None:
        run = vaejax.open_run(config.run, data_folder=config.data_folder)
        model, dataset, transform, steps = run.model, run.dataset, run.transform, [*run.checkpoints]

        def params_at(step: int) -> vaejax.Params:
            return run.checkpoints[step].params
    else:
        training = config.training(seed)
        dataset, transform = load_data(training)
        images = dataset.train.images
        model = build_model(training, images[0])
        check_data(images, model.support, transform, name=training.data)
        steps = gradients.measured_steps(config.measured_at, config.num_steps)

        def params_at(step: int) -> vaejax.Params:
            return gradients.params_at(
                step,
                Path(config.out) / f"checkpoints-{seed}",
                initial_params(training, model, images, transform, init_key),
                objective=build_objective(training, model),
                optimizer=build_optimizer(training),
                data=images,
                key=fit_key,
                batch_size=config.batch_size,
                transform=transform,
            )

    require_examples(config, dataset)
    # Nothing compiles before all is looked at, a key's split included.
    init_key, fit_key, rows_key, pixels_key, key = jax.random.split(jax.random.key(seed), 5)
    chosen = drawn(dataset.train, config.measured_examples, rows_key)
    return Subject(model, seen(chosen.images, transform, pixels_key), key, steps, params_at)


# The measurement.


class Point:
    """What is measured at one step, each when it is first asked for: all estimators see the same
    parameters, minibatch and keys.
    """

    def __init__(self, config: Config, subject: Subject, step: int):
        self.config, self.subject, self.step = config, subject, step
        self.reference_key, self.draw_key = jax.random.split(subject.key)
        self.drawn = cache(self._drawn)

    @cached_property
    def params(self) -> vaejax.Params:
        return self.subject.params_at(self.step)

    @cached_property
    def groups(self) -> Groups:
        both = {"theta": vaejax.groups.Part(("theta",)), "phi": vaejax.groups.Part(("phi",))}
        try:
            return both | dict(heads(self.subject.model, self.params, self.subject.xs[0]))
        except ValueError:  # an encoder that does not end in one layer of two heads
            return both | dict(parts(self.params))

    def _drawn(self, estimator: vaejax.Estimator, is_reference: bool = False) -> Moments:
        model, xs, *_ = self.subject
        key = self.reference_key if is_reference else self.draw_key
        num_draws = self.config.reference_draws if is_reference else self.config.num_draws
        settings = {"order": 2, "groups": self.groups, "by": "draws"}
        objective = vaejax.minibatch(estimator, model)
        return vaejax.gradient_moments(objective, self.params, xs, key, num_draws, **settings)

    def rows(self, name: str) -> Rows:
        """A row for each group of parameters: its spread, the ratio to that of the bound's first
        estimator, and the bias against a long run.
        """
        model, xs, key, *_ = self.subject
        estimator, bound = named_estimator(name), bound_of_estimator(name)
        first = next(n for n in self.config.estimators if bound_of_estimator(n) == bound)
        moments, of_first = self.drawn(estimator), self.drawn(named_estimator(first))
        reference = self.drawn(unbiased(name), is_reference=True)
        error = jax.tree.map(lambda v: np.sqrt(v / reference.num_draws), reference.variance)
        facts = {
            "estimator": name,
            "bound": bound,
            "value": moments.value.mean,
            **vaejax.decoder_evaluations(estimator, model, self.params, xs[0], key)._asdict(),
            **vaejax.gradient_cost(
                vaejax.minibatch(estimator, model), self.params, xs, key
            )._asdict(),
        }
        rows = []
        for group, spread in vaejax.gradient_spread(moments, self.groups).items():
            ratio = vaejax.variance_ratio(moments, of_first, group)
            select = self.groups[group]
            bias = vaejax.gradient_bias(moments, reference.mean, error, select=select)._asdict()
            rows.append(
                {**facts, "group": group, **spread._asdict(), "ratio": ratio.ratio}
                | {"ratio_low": ratio.low, "ratio_high": ratio.high}
                | {"mse": spread.trace + max(bias.pop("squared"), 0.0), **bias}
            )
        return rows


def unbiased(name: str) -> vaejax.Estimator:
    """An estimator whose mean is the gradient of the same bound, and noisy as little as may be."""
    estimator: Any = named_estimator(name)
    bound = bound_of_estimator(name)
    if bound == "ELBO":
        return vaejax.Pathwise()
    return vaejax.DReG(estimator.num_samples) if bound.startswith("IWAE-") else estimator


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
    saved = out / "config.json"
    if saved.exists() and (lines := differences(read_json(saved, *manifest), manifest)):
        raise ValueError(
            f"{out} holds rows of another configuration: {told(lines)}; name another --out, or"
            " --overwrite them"
        )
    write_json(saved, manifest)
    rows = measured(config, out, manifest)
    last = max(row["step"] for row in rows)
    phi, theta = (variances.means(rows, last, group) for group in ("phi", "theta"))
    pictures = {
        "along_training": lambda: variances.along_training(rows),
        "against_work": lambda: variances.against_work(rows, last),
    }
    if variances.families(config.estimators):
        pictures["against_samples"] = lambda: variances.against_samples(rows, last)
    best = {f"least_{name}_in_phi": variances.winners(phi, name) for name in ("mse", "work")}
    return Report(
        {"at_step": last, "phi": phi, "theta": theta, "rows": rows, "out": config.out},
        variances.table(rows, last),
        pictures,
        {"at_step": last, **best},
    )


if __name__ == "__main__":
    run_script(Config, experiment)
