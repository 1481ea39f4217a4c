"""Monte Carlo gradients of E_q f, q normal: which of four estimators varies least, exactly, and on
a Bayesian logistic regression.

    python experiments/gradients/mc_gradient_review.py
    python experiments/gradients/mc_gradient_review.py --parts curves  # figures 2 and 3 alone

After Mohamed, Rosca, Figurnov & Mnih 2020, "Monte Carlo Gradient Estimation in Machine Learning".
`vaejax.Expectation` makes a model of any f, whose ELBO is E_q f, so that the library's own
estimators are what is measured.

curves: q = N(1, 1); f = (x - k)^2, exp(-k x^2) and cos(k x). The variance of one sample's gradient
in mu and in sigma, exact by quadrature: of the score function f s without a baseline, of (f - b) s
with the best b for each parameter, of the pathwise gradient, and of the measure-valued one with
coupled pairs, which takes two evaluations of f for each parameter.

Expected: the pathwise gradient wins for the square, and loses to the plain score function where f
is steep, since it pays for f' and the score function for f. Measured with 100,000 draws a point: of
135 intervals at 95 %, 96 % cover the exact variance; the worst point is off by 8 %. The pathwise
gradient loses in mu from k = 0.89 (exponential) and 1.08 (cosine), in sigma from 1.02 and 1.30, to
the end of the curves, and for the square never:

| variance     | in    | plain-score-function | optimal-constant | pathwise | measure-valued |
|---|---|---|---|---|---|
| (x + 3)^2    | mu    | 495                  | 134              | 4        | 17.49          |
|              | sigma | 1546                 | 664              | 72       | 68             |
| exp(-10 x^2) | mu    | 0.07694              | 0.06020          | 0.9416   | 0.02066        |
|              | sigma | 0.009035             | 0.008739         | 0.8920   | 0.1167         |
| cos(5 x)     | mu    | 0.5                  | 0.5              | 12.5     | 0.2957         |
|              | sigma | 1                    | 1                | 12.5     | 1              |

regression: 569 rows of 30 standardised features and a 1, prior N(0, I), q a diagonal normal that
starts at the prior, KL(q || prior) in closed form. SGD on minibatches of 32 rows; variances are on
all rows, along the run that the pathwise gradient trained. r' w is normal under q, so the ELBO and
its gradient are sums of integrals over a line, exact. The review's variances are scaled otherwise.

Measured at seed 0: no estimator's mean gradient is told from the exact one (18 tests over 62
parameters, least p-value 0.06). The best ELBO of any diagonal normal is -67.463. At the start the
score function has 98 (mu) and 66 (log sigma) times the variance of the pathwise gradient, and after
5,000 steps 22 and 42 times:

| estimator      | trace in mu | in log sigma | exact ELBO, own run | accuracy |
|---|---|---|---|---|
| score-function | 1,922       | 686          | -67.62              | 0.988    |
| pathwise       | 84.4        | 16.2         | -67.468             | 0.988    |
| measure-valued | 91.8        | 15.0         | -67.470             | 0.988    |

Duration: 180 s on two cores of an Intel Xeon.
"""

import dataclasses
import itertools
from collections.abc import Callable
from functools import partial
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import vaejax
from experiments.lib import figures, flags, gradients, logistic_regression, tables
from experiments.lib.normal_gradients import MVD, NAMES, PARAMETERS, PW, SF, SF_BEST, Curves, exact
from experiments.lib.script import Report, joined, run_script
from vaejax import plots
from vaejax.base.fields import Count, Plural
from vaejax.runs.config import TrainSize


@dataclasses.dataclass(frozen=True)
class Config(flags.Trained):
    """The settings of the curves, then of the regression: those of the review."""

    parts: flags.Parts[Literal["curves", "regression"]] = ("curves", "regression")
    num_draws: flags.NumDraws = 100_000
    num_steps: Count = 5_000
    batch_size: TrainSize = 32
    num_samples: Count = 50
    """K, the samples of z in each bound."""
    measured_at: flags.MeasuredAt = (0.0, 0.02, 0.1, 0.2, 0.5, 1.0)
    measured_samples: Count = 10
    """The samples where a variance is measured."""
    regression_draws: Plural = 150
    """Such gradients for each measured variance."""
    out: str = "runs/mc_gradient_review"


# Part 1: the curves.


class Cost(NamedTuple):
    """f(k, x), the k of its curve, and the k at which it is also measured."""

    f: Callable
    title: str
    ks: np.ndarray
    measured: tuple[float, ...]


COSTS = {
    "square": Cost(
        lambda k, x: (x - k) ** 2, "$(x - k)^2$", np.linspace(-3, 3, 100), (-3, -2, -1, 0, 1, 2, 3)
    ),
    "exponential": Cost(
        lambda k, x: jnp.exp(-k * x**2),
        r"$\exp(-k x^2)$",
        np.geomspace(0.1, 10, 100),
        (0.1, 0.3, 1, 3, 10),
    ),
    "cosine": Cost(
        lambda k, x: jnp.cos(k * x), r"$\cos(k x)$", np.geomspace(0.5, 5, 100), (0.5, 1, 2, 3, 5)
    ),
}
# A moving average that nobody moves is the constant baseline b = psi, an argument of the compiled
# program.
SCORE = vaejax.ScoreFunction(1, vaejax.MovingAverage())
ESTIMATORS = {SF: SCORE, SF_BEST: SCORE, PW: vaejax.StickTheLanding(), MVD: vaejax.MeasureValued()}
COLOURS = dict(zip(NAMES, ("#8e99a4", plots.BLUE, plots.ORANGE, "#2e8b57"), strict=True))
GROUPS = {name: vaejax.groups.Part(("phi", field)) for name, field in PARAMETERS.items()}
ENCODER = vaejax.DiagNormal(vaejax.Free(()), max_log_scale=None)
NEGLIGIBLE = 1e-9  # a variance


def curves_part(config: Config) -> Report:
    curves = {name: exact(cost.f, cost.ks) for name, cost in COSTS.items()}
    rows = measured(config, jax.random.key(config.seed))
    noisy = [row for row in rows if row["exact"] > NEGLIGIBLE]
    losses: dict[str, dict] = {cost: {} for cost in COSTS}
    for cost, parameter in itertools.product(COSTS, PARAMETERS):
        lost = COSTS[cost].ks[pathwise_loses(curves[cost], parameter)]
        losses[cost][parameter] = float(lost.min()) if len(lost) else None
    summary = {
        "points": len(noisy),
        "intervals_that_cover": gradients.coverage(noisy),
        "worst_relative_error": gradients.worst_relative_error(noisy),
        "pathwise_loses_from": losses,
    }
    pictures = {"curves": lambda: draw_curves(curves, rows)}
    return Report(summary | {"rows": rows}, table_of_curves(rows), pictures, summary)


def measured(config: Config, key) -> list[dict]:
    """A row for each cost, k, parameter and estimator: the exact variance of its gradient, and what
    `gradient_moments` finds. At sigma = 1 the derivative in sigma is that in log sigma.
    """
    rows, phi = [], {"loc": jnp.asarray(1.0), "log_scale": jnp.asarray(0.0)}
    for cost, cost_key in zip(COSTS, jax.random.split(key, len(COSTS)), strict=True):
        f, _, _, ks = COSTS[cost]
        model, curves = vaejax.Expectation(f, ENCODER), exact(f, ks)
        cases = list(itertools.product(enumerate(ks), PARAMETERS, NAMES))
        keys = jax.random.split(cost_key, len(cases))
        for ((i, k), parameter, name), draw_key in zip(cases, keys, strict=True):
            curve, x = curves[name, parameter], jnp.asarray(float(k))
            params = vaejax.Params((), phi, psi=jnp.asarray(curve.baseline[i], jnp.float32))
            interval = gradients.measured_intervals(
                ESTIMATORS[name], model, params, x, draw_key, config.num_draws, GROUPS
            )[parameter]
            place = {"cost": cost, "k": k, "parameter": parameter, "estimator": name}
            rows.append({**place, "exact": float(curve.variance[i]), **interval})
    return rows


def pathwise_loses(curves: Curves, parameter: str) -> np.ndarray:
    """Where along the curve the score function, with no baseline, beats the pathwise gradient."""
    return curves[PW, parameter].variance > curves[SF, parameter].variance


def table_of_curves(rows: list[dict]) -> str:
    cell = "{exact:.4g} ({measured:.4g})"
    shown = [
        row | {"cell": cell.format(**row) if row["exact"] > NEGLIGIBLE else "0"} for row in rows
    ]
    line = "{cost} | {k} | {parameter}"
    table = tables.wide("cost | k | in", line, "estimator", "{cell}", shown)
    return f"Exact variance of one sample's gradient (measured)\n\n{table}"


def draw_curves(curves: dict[str, Curves], rows: list[dict]) -> Figure:
    """Lines are exact, points measured; shaded where the score function beats the pathwise."""
    drawing, grid = plots.figure_of(2, 3, size=(12, 6.6), sharex="col")
    panels = itertools.product(PARAMETERS, COSTS)
    for axes, (parameter, cost) in zip(grid.ravel(), panels, strict=True):
        shown = tables.where(rows, cost=cost, parameter=parameter)
        draw_panel(axes, curves[cost], cost, parameter, shown)
    for axes, cost in zip(grid[0], COSTS.values(), strict=True):
        axes.set_title(cost.title)
    for axes, parameter in zip(grid[:, 0], (r"$\mu$", r"$\sigma$"), strict=True):
        axes.set_ylabel(f"variance of the gradient in {parameter}")
    for axes in grid[1]:
        axes.set_xlabel("k")
    first, _, third = grid[0]
    # The measure-valued gradient in mu has no variance where f is symmetric about mu.
    first.set_ylim(bottom=5e-3)
    third.set_ylim(bottom=5e-4)
    key = {"transform": first.transAxes, "color": "#5f6b76", "fontsize": 9}
    first.text(0.03, 0.03, "lines: exact\npoints: measured", **key)
    plots.shared_legend(drawing, [first], "outside upper center", ncols=4)
    return drawing


def draw_panel(axes: Axes, curves: Curves, cost: str, parameter: str, rows: list[dict]) -> None:
    ks = COSTS[cost].ks
    for name, colour in COLOURS.items():
        variance = np.maximum(curves[name, parameter].variance, NEGLIGIBLE)
        axes.plot(ks, variance, color=colour, lw=1.6, label=name)
        noisy = [row for row in tables.where(rows, estimator=name) if row["exact"] > NEGLIGIBLE]
        figures.curve(axes, noisy, "k", "measured", color=colour, ls="")
    plots.finish(axes, yscale="log", xscale="linear" if cost == "square" else "log")
    lost, across = pathwise_loses(curves, parameter), axes.get_xaxis_transform()
    shade = {"color": plots.ORANGE, "alpha": 0.08, "lw": 0}
    axes.fill_between(ks, 0, 1, where=lost, transform=across, **shade)
    if lost.any():
        label = {"transform": across, "color": "#a65308", "fontsize": 9}
        axes.text(1.04 * ks[lost].min(), 0.03, "pathwise loses", **label)
    if cost != "square":
        ticks = (0.1, 0.3, 0.5, 1, 2, 3, 5, 10)
        plots.ticks_at(axes, [k for k in ticks if ks.min() <= k <= ks.max()])


# Part 2: Bayesian logistic regression.

LOO = "score-function"
RIVALS = {LOO: vaejax.ScoreFunction, PW: vaejax.StickTheLanding, MVD: vaejax.MeasureValued}
RIVAL_COLOURS = COLOURS | {LOO: COLOURS[SF_BEST]}
REGRESSION_GROUPS = {
    "mu": vaejax.groups.Part(("phi", "loc")),
    "log sigma": vaejax.groups.Part(("phi", "log_scale")),
}


def regression_part(config: Config) -> Report:
    """Gradients along the pathwise run, each estimator's own run, the best mean-field ELBO."""
    rows = logistic_regression.signed_rows()
    encoder = vaejax.DiagNormal(vaejax.Free(rows.shape[1]), max_log_scale=None)
    model = vaejax.Expectation(partial(logistic_regression.log_likelihood, len(rows)), encoder)
    fit_key, draw_key = jax.random.split(jax.random.key(config.seed))
    runs = {name: trained(config, name, model, rows, fit_key) for name in RIVALS}
    elbos, best = exact_values(model, runs, rows)
    learning = [
        {"estimator": name, "step": step, "elbo": elbo, "accuracy": accuracy(params, rows)}
        for (name, step), (params, elbo, _) in elbos.items()
    ]
    traces = [
        row | {"step": step}
        for step, params in runs[PW].items()
        for row in measured_gradients(config, model, elbos[PW, step][2], params, rows, draw_key)
    ]
    ends = tables.where(learning, step=config.num_steps)
    summary = {
        "best_elbo": best,
        "least_p_value": min(row["p_value"] for row in traces),
        "ends": {row["estimator"]: {n: row[n] for n in ("elbo", "accuracy")} for row in ends},
    }
    title = f"The end of each run; the best ELBO of a mean-field q is {best:.3f}"
    header, line = "trained by | exact ELBO | accuracy", "{estimator} | {elbo:.3f} | {accuracy:.4f}"
    written = table_of_traces(traces), title, tables.table(header, line, ends)
    pictures = {"regression": lambda: draw_regression(config, traces, learning, best)}
    numbers = summary | {"gradients": traces, "learning": learning}
    return Report(numbers, "\n\n".join(written), pictures, summary)


def trained(
    config: Config, name: str, model: vaejax.Expectation, rows, key
) -> dict[int, vaejax.Params]:
    """The parameters at each measured step and at both ends, of a run from q = the prior."""
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.num_steps)
    estimator, start = RIVALS[name](config.num_samples), model.init(key, rows)
    settings = {
        "objective": logistic_regression.RegressionELBO(estimator, model),
        "optimizer": optax.sgd(schedule),
        "batch_size": config.batch_size,
        "progress": False,
    }
    steps = gradients.measured_steps((0, *config.measured_at, 1), config.num_steps)
    with TemporaryDirectory() as folder:
        params_at = partial(gradients.params_at, data=rows, key=key, **settings)
        return {step: params_at(step, folder, start) for step in steps}


def exact_values(model: vaejax.Expectation, runs: dict[str, dict], rows) -> tuple[dict, float]:
    """{(estimator, step): parameters, exact ELBO, its gradient}, and the best ELBO, in float64."""
    precise = partial(jax.tree.map, partial(jnp.asarray, dtype=float))
    values = {}
    with jax.enable_x64(True):
        elbo_and_gradient = jax.jit(
            jax.value_and_grad(partial(logistic_regression.exact_elbo, model))
        )
        for name, run in runs.items():
            for step, params in run.items():
                elbo, gradient = elbo_and_gradient(precise(params), precise(rows))
                values[name, step] = params, float(elbo), jax.tree.map(np.asarray, gradient)
        return values, float(
            logistic_regression.best_elbo(model, precise(runs[PW][0]), precise(rows))
        )


def accuracy(params: vaejax.Params, rows) -> float:
    """E_q sigmoid(x'w) > 1/2 where E_q x'w > 0; a row is x, or -x where the label is 0."""
    return float(np.mean(rows @ np.asarray(params.phi["loc"]) > 0))


def measured_gradients(
    config: Config, model: vaejax.Expectation, exact_gradient, params, rows, key
) -> list[dict]:
    """A row for each estimator and parameter: the trace of the covariance, and the bias."""
    measurements, settings = [], {"order": 2, "by": "draws", "groups": REGRESSION_GROUPS}
    for name, kind in RIVALS.items():
        objective = logistic_regression.RegressionELBO(kind(config.measured_samples), model)
        moments = vaejax.gradient_moments(
            objective, params, rows, key, config.regression_draws, **settings
        )
        bias = vaejax.gradient_bias(moments, exact_gradient)
        measurements += [
            {"estimator": name, "parameter": parameter, **gradients.interval_of(spread)}
            | {"largest_z": bias.largest_z, "p_value": bias.p_value}
            for parameter, spread in vaejax.gradient_spread(moments, REGRESSION_GROUPS).items()
        ]
    return measurements


def table_of_traces(rows: list[dict]) -> str:
    """The trace of each estimator, and how many times that of the pathwise gradient it is."""
    shown = [row | {"title": row["estimator"], "cell": f"{row['trace']:.4g}"} for row in rows]
    for name, title, digits in ((LOO, "SF / PW", 1), (MVD, "MVD / PW", 2)):
        pairs = zip(
            tables.where(rows, estimator=name), tables.where(rows, estimator=PW), strict=True
        )
        shown += [
            row | {"title": title, "cell": f"{row['trace'] / pathwise['trace']:.{digits}f}"}
            for row, pathwise in pairs
        ]
    table = tables.wide("step | in", "{step} | {parameter}", "title", "{cell}", shown)
    return f"Trace of the gradient's covariance along the pathwise run\n\n{table}"


def draw_regression(
    config: Config, traces: list[dict], learning: list[dict], best: float
) -> Figure:
    """The traces along the pathwise run, and how far each run is from the best ELBO."""
    drawing, [panels] = plots.figure_of(columns=3, size=(12, 3.9))
    shown = [row | {"root": row["step"] ** 0.5} for row in traces]
    ends = [{**row, "root": row["step"] ** 0.5, "below": best - row["elbo"]} for row in learning]
    for name in RIVALS:
        style = {"color": RIVAL_COLOURS[name], "label": name}
        for axes, parameter in zip(panels, REGRESSION_GROUPS, strict=False):
            points = tables.where(shown, estimator=name, parameter=parameter)
            figures.curve(axes, points, "root", "trace", **style)
        figures.curve(panels[2], tables.where(ends, estimator=name), "root", "below", **style)
    titles = (
        *(rf"gradient in ${symbol}$, pathwise run" for symbol in (r"\mu", r"\log\sigma")),
        "each estimator's own run",
    )
    steps = {row["root"]: f"{row['step']:,}" for row in ends}
    for axes, title in zip(panels, titles, strict=True):
        label = "step, on an axis of its square root"
        plots.finish(axes, yscale="log", xlabel=label, title=title)
        axes.set_xticks(list(steps), list(steps.values()))
    panels[0].set_ylabel(f"trace of the covariance, {config.measured_samples} samples")
    panels[2].set_ylabel("ELBO below the best q, nats")
    plots.shared_legend(drawing, [panels[2]], "outside upper center", ncols=3)
    return drawing


def experiment(config: Config) -> Report:
    parts = {"curves": curves_part, "regression": regression_part}
    return joined({name: parts[name](config) for name in config.parts})


if __name__ == "__main__":
    run_script(Config, experiment)
