"""A VAE with Bernoulli latents: trained by each estimator, and the variance of each in phi at one
shared set of parameters.
"""

import dataclasses
from typing import Annotated, Any, Literal, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

import vaejax
from experiments.lib import tables
from experiments.lib.data import drawn, seen
from experiments.lib.discrete_estimators import ESTIMATORS, Known, adam_on, full_name, look
from experiments.lib.flags import (
    MeasuredExamples,
    NumSeeds,
    Script,
    ValidateEvery,
    require_no_warm_up,
)
from experiments.lib.script import tell
from vaejax import Params
from vaejax.base.fields import Count, Distinct, Plural
from vaejax.base.types import Key
from vaejax.data.check import check_data
from vaejax.plots.look import figure_of, finish
from vaejax.runs.build import build_likelihood, build_optimizer, initial_params, load_data
from vaejax.runs.config import Setting, training_config
from vaejax.runs.registry import encoder_net
from vaejax.variance.groups import Part
from vaejax.variance.moments import Moments

PHI = {"phi": Part(("phi",))}


@dataclasses.dataclass(frozen=True)
class VaeSetting(Setting, Script):
    """The VAE, its trainings and its measurement."""

    encoder: Literal["bernoulli"] = "bernoulli"
    hidden: tuple[Count, ...] = (100,)
    latent_dim: Count = 20
    estimators: Distinct[Annotated[str, Known()]] = tuple(ESTIMATORS)
    """As in experiments/lib/discrete_estimators.py."""
    psi_steps: Count = 1_000
    """Steps that a control variate learns for, at fixed parameters, before its variance is
    measured.
    """
    num_steps: Count = 1_000
    num_seeds: NumSeeds = 2
    validate_every: ValidateEvery = 50
    measured_examples: MeasuredExamples = 20
    vae_draws: Plural = 400
    """Gradients for each measured variance, in the VAE."""

    def check_together(self) -> None:
        super().check_together()
        require_no_warm_up(self)
        if self.validate_every > self.num_steps:
            raise ValueError(
                f"validate_every = {self.validate_every}, but num_steps = {self.num_steps};"
                " validate more often"
            )


class Keys(NamedTuple):
    init: Key
    psi: Key
    fit: Key
    rows: Key
    pixels: Key
    draw: Key
    learn: Key


class Problem(NamedTuple):
    """The model, its start, the data, and the minibatch at which gradients are measured."""

    setting: VaeSetting
    keys: Keys
    model: vaejax.VAE
    start: Params
    dataset: vaejax.Dataset
    transform: vaejax.Transform
    xs: jax.Array

    def objective(self, name: str) -> vaejax.Objective:
        return vaejax.minibatch(ESTIMATORS[name].estimator, self.model)

    def start_of(self, name: str) -> Params:
        """With the psi of the estimator's control variate, where it has one."""
        estimator = ESTIMATORS[name].estimator
        psi = estimator.init(self.model, self.start, self.xs[0], self.keys.psi)
        return self.start._replace(psi=psi)

    def fit(self, name: str, start: Params, key, optimizer, num_steps: int, **settings: Any):
        return vaejax.fit(
            self.objective(name),
            start,
            optimizer,
            self.dataset.train.images,
            key,
            num_steps=num_steps,
            batch_size=self.setting.batch_size,
            transform=self.transform,
            progress=False,
            **settings,
        )

    def train(self, name: str, start: Params, key, **settings: Any):
        num_steps = self.setting.num_steps
        optimizer = build_optimizer(training_config(self.setting, num_steps=num_steps))
        return self.fit(name, start, key, optimizer, num_steps, **settings)

    def moments(self, name: str, params: Params, key, num_draws: int) -> Moments:
        objective = self.objective(name)
        return vaejax.gradient_moments(
            objective, params, self.xs, key, num_draws, order=2, groups=PHI
        )


def vae_problem(setting: VaeSetting) -> Problem:
    keys = Keys(*jax.random.split(jax.random.key(setting.seed), 7))
    dataset, transform = load_data(setting)
    images = dataset.train.images
    training = training_config(setting, num_steps=setting.num_steps)
    model = vaejax.VAE(
        vaejax.FactorialBernoulli(setting.latent_dim),
        build_likelihood(training, images[0].shape),
        vaejax.Bernoulli(encoder_net(setting)),
    )
    check_data(images, model.support, transform, name=setting.data)
    start = initial_params(training, model, images, transform, keys.init)
    chosen = drawn(dataset.train, setting.measured_examples, keys.rows)
    xs = seen(chosen.images, transform, keys.pixels)
    return Problem(setting, keys, model, start, dataset, transform, xs)


def run_vae(setting: VaeSetting) -> dict[str, Any]:
    """A row and a curve for each estimator."""
    problem = vae_problem(setting)
    keys = problem.keys
    fit_keys = jax.random.split(keys.fit, setting.num_seeds)
    # Where all are measured is where score-function has come to, whichever are compared.
    shared = problem.train("score-function", problem.start, fit_keys[0]).params
    reference = problem.moments("score-function", shared, keys.learn, 10 * setting.vae_draws)
    validation = vaejax.Validation(problem.dataset.test.images, every=setting.validate_every)
    curves, rows = {}, []
    for name in setting.estimators:
        start = problem.start_of(name)
        histories = [
            problem.train(name, start, key, validation=validation).history for key in fit_keys
        ]
        bounds = [history["validation_bound"].tolist() for history in histories]
        curves[name] = {"step": histories[0]["validation_step"].tolist(), "bound": bounds}
        row = measured(problem, name, shared._replace(psi=start.psi), reference)
        rows.append(row | {"test_bound": [bound[-1] for bound in bounds]})
        elbo = np.mean(rows[-1]["test_bound"])
        tell(f"vae, {name}: trace in phi {row['trace']:.3g}, test ELBO {elbo:.2f}")
    spread = vaejax.gradient_spread(reference, PHI)["phi"]
    source = problem.dataset.source
    norm = spread.snr_squared * spread.trace
    return {"rows": rows, "curves": curves, "squared_gradient": norm, "data": source}


def measured(problem: Problem, name: str, params: Params, reference: Moments) -> dict[str, Any]:
    """The variance in phi at these theta and phi, after psi has learned there; and the bias."""
    setting, keys = problem.setting, problem.keys
    if jax.tree.leaves(params.psi):
        only_psi = adam_on(("psi",), 0.01)
        params = problem.fit(name, params, keys.learn, only_psi, setting.psi_steps).params
    moments = problem.moments(name, params, keys.draw, setting.vae_draws)
    spread = vaejax.gradient_spread(moments, PHI)["phi"]
    bias = 0.0
    if ESTIMATORS[name].biased:
        error = jax.tree.map(lambda v: np.sqrt(v / reference.num_draws), reference.variance)
        biases = vaejax.gradient_bias(moments, reference.mean, error, select=PHI["phi"])
        bias = max(biases.squared, 0.0)
    return {
        "estimator": name,
        "trace": spread.trace,
        "low": spread.low,
        "high": spread.high,
        "squared_bias": bias,
        "mean_squared_error": spread.trace + bias,
    }


HEADER = "estimator | grad f | trace in phi | 95 % interval | squared bias | mean squared error"
LINE = "{name} | {gradients} | {trace:.3g} | {low:.3g} to {high:.3g} | {squared_bias:.3g} | {error}"


def vae_table(rows: list[dict]) -> str:
    """** the least mean squared error."""
    least = min(row["mean_squared_error"] for row in rows)
    shown = []
    for row in rows:
        name, error = row["estimator"], row["mean_squared_error"]
        shown.append(
            row
            | {"name": full_name(name), "gradients": ESTIMATORS[name].gradients}
            | {"error": tables.bold_if(error == least, f"{error:.3g}")}
            | {"bounds": ", ".join(f"{bound:.2f}" for bound in row["test_bound"])}
        )
    return tables.table(f"{HEADER} | test ELBO by seed", f"{LINE} | {{bounds}}", shown)


def vae_figure(curves: dict[str, dict], rows: list[dict]) -> Figure:
    """The test bound against the step, and the variance in phi at one shared set of parameters."""
    drawing, [[left, right]] = figure_of(columns=2, size=(11, 4.2), width_ratios=(1.2, 1))
    bounds = {name: np.mean(curve["bound"], axis=0) for name, curve in curves.items()}
    for name, bound in bounds.items():
        left.plot(curves[name]["step"], bound, **look(name) | {"marker": ""}, lw=1.6)
    values = np.concatenate(list(bounds.values()))
    finish(left, xlabel="training step", ylabel="test ELBO, nats")
    left.set_ylim(np.quantile(values, 0.03), max(values) + 0.3)
    for i, row in enumerate(rows):
        style = look(row["estimator"]) | {"ls": ""}
        right.plot(row["mean_squared_error"], i, **style, ms=8)
        ends = [row[name] + row["squared_bias"] for name in ("low", "high")]
        right.plot(ends, [i, i], color=style["color"], lw=1.4)
    label = r"trace of the covariance in $\phi$ (biased: + bias²)"
    finish(right, xscale="log", xlabel=label, yticks=[])
    right.invert_yaxis()
    return drawing
