"""A VAE with Bernoulli latents: trained by each estimator, and the variance of each in phi at one
shared set of parameters.
"""

import dataclasses
from collections.abc import Iterable
from typing import Annotated, Any, Literal, NamedTuple

import jax
import numpy as np
import optax
from matplotlib.figure import Figure

import vaejax
from experiments.lib import flags, tables
from experiments.lib.data import drawn, seen
from experiments.lib.discrete_estimators import ESTIMATORS, Known, adam_on, full_name, look
from experiments.lib.gradients import interval_of
from experiments.lib.script import tell
from vaejax import plots
from vaejax.base.fields import Count, Distinct, Plural
from vaejax.data.check import check_data
from vaejax.runs.build import build_likelihood, initial_params, load_data
from vaejax.runs.config import training_config
from vaejax.runs.registry import encoder_net
from vaejax.variance.moments import Moments

PHI = {"phi": vaejax.groups.Part(("phi",))}


@dataclasses.dataclass(frozen=True)
class VaeSetting(flags.PlainSetting):
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
    num_seeds: flags.NumSeeds = 2
    validate_every: flags.ValidateEvery = 50
    measured_examples: flags.MeasuredExamples = 20
    vae_draws: Plural = 400
    """Gradients for each measured variance, in the VAE."""

    def check_together(self) -> None:
        super().check_together()
        if self.validate_every > self.num_steps:
            raise ValueError(
                f"validate_every = {self.validate_every}, but num_steps = {self.num_steps};"
                " validate more often"
            )


class Problem(NamedTuple):
    """The model, the data, and the minibatch at which gradients are measured."""

    setting: VaeSetting
    model: vaejax.VAE
    dataset: vaejax.Dataset
    transform: vaejax.Transform
    xs: jax.Array

    def fit(self, name: str, start: vaejax.Params, key, **settings: Any) -> vaejax.Run:
        """By the estimator of this name, `settings` over those of the configuration."""
        defaults = {
            "optimizer": optax.adam(self.setting.learning_rate),
            "num_steps": self.setting.num_steps,
            "batch_size": self.setting.batch_size,
            "transform": self.transform,
            "progress": False,
        }
        objective = vaejax.minibatch(ESTIMATORS[name].estimator, self.model)
        settings = {"data": self.dataset.train.images, "key": key, **defaults, **settings}
        return vaejax.fit(objective, start, **settings)

    def moments(self, name: str, params: vaejax.Params, key, num_draws: int) -> Moments:
        objective = vaejax.minibatch(ESTIMATORS[name].estimator, self.model)
        settings = {"order": 2, "groups": PHI}
        return vaejax.gradient_moments(objective, params, self.xs, key, num_draws, **settings)


def vae_problem(setting: VaeSetting, init_key, rows_key, pixels_key) -> tuple[Problem, Any]:
    """With the parameters that all trainings start from."""
    dataset, transform = load_data(setting)
    images, training = dataset.train.images, training_config(setting)
    prior = vaejax.FactorialBernoulli(setting.latent_dim)
    likelihood = build_likelihood(training, images[0].shape)
    model = vaejax.VAE(prior, likelihood, vaejax.Bernoulli(encoder_net(setting)))
    check_data(images, model.support, transform, name=setting.data)
    start = initial_params(training, model, images, transform, init_key)
    chosen = drawn(dataset.train, setting.measured_examples, rows_key)
    xs = seen(chosen.images, transform, pixels_key)
    return Problem(setting, model, dataset, transform, xs), start


def run_vae(setting: VaeSetting) -> dict[str, Any]:
    """A row and a curve for each estimator."""
    keys = jax.random.split(jax.random.key(setting.seed), 7)
    init_key, psi_key, fit_key, rows_key, pixels_key, draw_key, learn_key = keys
    problem, common = vae_problem(setting, init_key, rows_key, pixels_key)
    fit_keys = jax.random.split(fit_key, setting.num_seeds)
    # Where all are measured is where score-function has come to, whichever are compared.
    shared = problem.fit("score-function", common, fit_keys[0]).params
    reference = problem.moments("score-function", shared, learn_key, 10 * setting.vae_draws)
    validation = vaejax.Validation(problem.dataset.test.images, every=setting.validate_every)
    curves, rows = {}, []
    for name in setting.estimators:
        psi = ESTIMATORS[name].estimator.init(problem.model, common, problem.xs[0], psi_key)
        start = common._replace(psi=psi)
        runs = [problem.fit(name, start, key, validation=validation) for key in fit_keys]
        bounds = [run.history["validation_bound"].tolist() for run in runs]
        curves[name] = {"step": runs[0].history["validation_step"].tolist(), "bound": bounds}
        params = shared._replace(psi=psi)
        if jax.tree.leaves(psi):  # it learns at these theta and phi
            settings = {"optimizer": adam_on(("psi",), 0.01), "num_steps": setting.psi_steps}
            params = problem.fit(name, params, learn_key, **settings).params
        moments = problem.moments(name, params, draw_key, setting.vae_draws)
        ends = [bound[-1] for bound in bounds]
        rows.append({"estimator": name, **errors(name, moments, reference), "test_bound": ends})
        trace = rows[-1]["trace"]
        tell(f"vae, {name}: trace in phi {trace:.3g}, test ELBO {np.mean(ends):.2f}")
    spread = vaejax.gradient_spread(reference, PHI)["phi"]
    norm = spread.snr_squared * spread.trace
    source = problem.dataset.source
    return {"rows": rows, "curves": curves, "squared_gradient": norm, "data": source}


def errors(name: str, moments: Moments, reference: Moments) -> dict[str, float]:
    """The variance in phi, and for a biased estimator the bias."""
    spread, bias = vaejax.gradient_spread(moments, PHI)["phi"], 0.0
    if ESTIMATORS[name].biased:
        error = jax.tree.map(lambda v: np.sqrt(v / reference.num_draws), reference.variance)
        biases = vaejax.gradient_bias(moments, reference.mean, error, select=PHI["phi"])
        bias = max(biases.squared, 0.0)
    total = {"squared_bias": bias, "mean_squared_error": spread.trace + bias}
    return interval_of(spread) | total


HEADER = (
    "estimator | grad f | trace in phi | 95 % interval | squared bias | mean squared error"
    " | test ELBO by seed"
)
LINE = (
    "{name} | {gradients} | {trace:.3g} | {low:.3g} to {high:.3g} | {squared_bias:.3g} | {error}"
    " | {bounds}"
)


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
    return tables.table(HEADER, LINE, shown)


def with_legend(drawing: Figure, names: Iterable[str]) -> Figure:
    """One legend for all panels, of these estimators."""
    for name in names:
        drawing.axes[0].plot([], [], **look(name), label=full_name(name))
    plots.shared_legend(drawing, drawing.axes, ncols=4)
    return drawing


def vae_figure(curves: dict[str, dict], rows: list[dict]) -> Figure:
    """The test bound against the step, and the variance in phi at one shared set of parameters."""
    drawing, [[left, right]] = plots.figure_of(columns=2, size=(11, 4.2), width_ratios=(1.2, 1))
    bounds = {name: np.mean(curve["bound"], axis=0) for name, curve in curves.items()}
    for name, bound in bounds.items():
        left.plot(curves[name]["step"], bound, **look(name) | {"marker": ""}, lw=1.6)
    values = np.concatenate(list(bounds.values()))
    plots.finish(left, xlabel="training step", ylabel="test ELBO, nats")
    left.set_ylim(np.quantile(values, 0.03), max(values) + 0.3)
    for i, row in enumerate(rows):
        style = look(row["estimator"]) | {"ls": ""}
        right.plot(row["mean_squared_error"], i, **style, ms=8)
        ends = [row[name] + row["squared_bias"] for name in ("low", "high")]
        right.plot(ends, [i, i], color=style["color"], lw=1.4)
    label = r"trace of the covariance in $\phi$ (biased: + bias²)"
    plots.finish(right, xscale="log", xlabel=label, yticks=[])
    right.invert_yaxis()
    return with_legend(drawing, curves)
