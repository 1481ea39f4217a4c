"""A VAE with Bernoulli latents: trained by each estimator, and the variance of each in phi at one
shared set of parameters.
"""

import dataclasses
import sys
from typing import Annotated, Any, Literal, NamedTuple

import jax
import numpy as np
import optax
from matplotlib.figure import Figure

import vaejax
from experiments.lib import tables
from experiments.lib.discrete_estimators import ESTIMATORS, Known, costs, look
from experiments.lib.flags import (
    MeasuredExamples,
    NumSeeds,
    Script,
    ValidateEvery,
    require_no_warm_up,
)
from vaejax import Params
from vaejax.base.checks import Integers
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
    evaluations: Annotated[int, Integers(6, factor=6)] = 6
    """Evaluations of f that each estimator has for one gradient, a multiple of 6, which pairs,
    triples and single samples share."""
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
        return vaejax.minibatch(ESTIMATORS[name].make(self.setting.evaluations), self.model)

    def fit(self, objective: vaejax.Objective, start: Params, optimizer, key, **settings: Any):
        return vaejax.fit(
            objective,
            start,
            optimizer,
            self.dataset.train.images,
            key,
            batch_size=self.setting.batch_size,
            transform=self.transform,
            progress=False,
            **settings,
        )

    def train(self, name: str, start: Params, key, **settings: Any):
        optimizer = build_optimizer(training_config(self.setting, num_steps=self.setting.num_steps))
        steps = {"num_steps": self.setting.num_steps, **settings}
        return self.fit(self.objective(name), start, optimizer, key, **steps)

    def moments(self, name: str, params: Params, key, num_draws: int) -> Moments:
        settings = {"order": 2, "groups": PHI}
        objective = self.objective(name)
        return vaejax.gradient_moments(objective, params, self.xs, key, num_draws, **settings)


def vae_problem(setting: VaeSetting) -> Problem:
    keys = Keys(*jax.random.split(jax.random.key(setting.seed), 7))
    dataset, transform = load_data(setting)
    images = dataset.train.images
    training = training_config(setting, num_steps=setting.num_steps)
    prior = vaejax.FactorialBernoulli(setting.latent_dim)
    likelihood = build_likelihood(training, images[0].shape)
    model = vaejax.VAE(prior, likelihood, vaejax.Bernoulli(encoder_net(setting)))
    check_data(images, model.support, transform, name=setting.data)
    start = initial_params(training, model, images, transform, keys.init)
    count = setting.measured_examples
    rows = np.asarray(jax.random.choice(keys.rows, len(images), (count,), replace=False))
    xs = jax.jit(jax.vmap(transform))(images[rows], jax.random.split(keys.pixels, count))
    return Problem(setting, keys, model, start, dataset, transform, xs)


def run_vae(setting: VaeSetting) -> dict[str, Any]:
    """A row and a curve for each estimator."""
    problem = vae_problem(setting)
    keys = problem.keys
    fit_keys = jax.random.split(keys.fit, setting.num_seeds)
    # Where all are measured is where score-function has come to, whichever are compared.
    shared = problem.train("score-function", problem.start, fit_keys[0]).params
    num_draws = 10 * setting.vae_draws
    reference = problem.moments("score-function", shared, keys.learn, num_draws)
    validation = vaejax.Validation(problem.dataset.test.images, every=setting.validate_every)
    curves, rows = {}, []
    for name in setting.estimators:
        psi = initial_psi(problem, name)
        start = problem.start._replace(psi=psi)
        histories = [
            problem.train(name, start, key, validation=validation).history for key in fit_keys
        ]
        bounds = [history["validation_bound"].tolist() for history in histories]
        curves[name] = {"step": histories[0]["validation_step"].tolist(), "bound": bounds}
        row = measured(problem, name, shared._replace(psi=psi), reference)
        rows.append(row | {"test_bound": [bound[-1] for bound in bounds]})
        numbers = f"trace in phi {row['trace']:.3g}, test ELBO"
        print(f"vae, {name}: {numbers} {np.mean(rows[-1]['test_bound']):.2f}", file=sys.stderr)
    squares = jax.tree.map(
        lambda mean, variance: mean**2 - variance / num_draws,
        reference.mean.phi,
        reference.variance.phi,
    )
    norm = vaejax.tree_sum(squares)
    source = problem.dataset.source
    return {"rows": rows, "curves": curves, "squared_gradient": norm, "data": source}


def initial_psi(problem: Problem, name: str) -> Any:
    """Of the estimator's control variate, where it has one."""
    model, start, xs, keys = problem.model, problem.start, problem.xs, problem.keys
    return ESTIMATORS[name].make(problem.setting.evaluations).init(model, start, xs[0], keys.psi)


def measured(problem: Problem, name: str, params: Params, reference: Moments) -> dict[str, Any]:
    """The variance in phi at these theta and phi, after psi has learned there; and the bias."""
    setting, keys = problem.setting, problem.keys
    if jax.tree.leaves(params.psi):
        only_psi = optax.multi_transform(
            {"learned": optax.adam(0.01), "held": optax.set_to_zero()},
            Params("held", "held", "learned"),
        )
        objective, steps = problem.objective(name), {"num_steps": setting.psi_steps}
        params = problem.fit(objective, params, only_psi, keys.learn, **steps).params
    moments = problem.moments(name, params, keys.draw, setting.vae_draws)
    spread = vaejax.gradient_spread(moments, PHI)["phi"]
    biased = ESTIMATORS[name].biased
    bias = max(squared_bias(moments, reference), 0.0) if biased else 0.0
    numbers = {"trace": spread.trace, "low": spread.low, "high": spread.high}
    return {
        "estimator": name,
        **numbers,
        "squared_bias": bias,
        "mean_squared_error": spread.trace + bias,
    }


def squared_bias(moments: Moments, reference: Moments) -> float:
    """|E g - E reference|^2 in phi, without the noise of the two means."""

    def squares(mean, variance, other, other_variance):
        difference = (mean - other) ** 2
        return difference - variance / moments.num_draws - other_variance / reference.num_draws

    pairs = (moments.mean, moments.variance, reference.mean, reference.variance)
    return vaejax.tree_sum(jax.tree.map(squares, *(tree.phi for tree in pairs)))


def vae_table(setting: VaeSetting, rows: list[dict]) -> str:
    """** the least mean squared error."""
    least = min(row["mean_squared_error"] for row in rows)
    shown = [
        row
        | costs(row["estimator"], setting.evaluations)
        | {"bounds": ", ".join(f"{bound:.2f}" for bound in row["test_bound"])}
        | {
            "error": tables.bold_if(
                row["mean_squared_error"] == least, f"{row['mean_squared_error']:.3g}"
            )
        }
        for row in rows
    ]
    header = "estimator | f | grad f | trace in phi | 95 % interval | squared bias"
    line = "{name} | {f} | {grad_f} | {trace:.3g} | {low:.3g} to {high:.3g} | {squared_bias:.3g}"
    header, line = (
        f"{header} | mean squared error | test ELBO by seed",
        f"{line} | {{error}} | {{bounds}}",
    )
    return tables.table(header, line, shown)


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
