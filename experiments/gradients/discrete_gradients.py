r"""Gradients through discrete latents: what each estimator's variance is, exactly where it can be,
and what it buys in training.

    python experiments/gradients/discrete_gradients.py
    python experiments/gradients/discrete_gradients.py --parts toy
    python experiments/gradients/discrete_gradients.py --parts vae --data binarized_mnist \
        --latent-dim 100 --num-steps 5000

The three parts are E (b - 0.499)^2 of one Bernoulli variable (Tucker et al. 2017), the mean of 200
such (Titsias & Shi 2022), and a Bernoulli VAE on the digits. Every estimator has 6 evaluations of f
for one gradient; those of its derivative are a column of their own. Psi learns for 1,000 steps at
fixed logits, at a rate that falls to zero, before a variance is measured. In the first part all
moments are exact too, by enumeration or quadrature.

Measured: the variance, or for the biased the mean squared error, of the gradient in the logits (phi
in the VAE), and the test ELBO after 1,000 steps, mean of two seeds:

| estimator              | one, p = 0.5 | p = 0.9 | 200, p = 0.5 | p = 0.9 | VAE  | ELBO   |
|---|---|---|---|---|---|---|
| plain-score-function   | 2.6e-3       | 9.3e-4  | 0.52         | 0.19    | 2693 | -26.44 |
| score-function         | 1.7e-8       | 4.1e-8  | 5.0e-8       | 6.7e-9  | 8.12 | -24.86 |
| disarm                 | 0            | 4.3e-8  | 8.3e-8       | 1.1e-8  | 7.66 | -24.94 |
| double-control-variate | 1.7e-8       | 1.4e-10 | 5.0e-8       | 1.5e-11 | 8.14 | -24.87 |
| rebar                  | 5.2e-3       | 1.9e-3  | 1.2e-3       | 1.9e-4  | 9.35 | -25.02 |
| relax                  | 1.0e-6       | 2.8e-6  | 8.1e-4       | 1.6e-4  | 7.64 | -25.01 |
| relaxed (biased)       | 2.3e-3       | 2.0e-3  | 1.2e-5       | 1.0e-5  | 5.00 | -24.98 |
| straight-through       | 1.0e-2       | 5.7e-3  | 5.2e-5       | 2.8e-5  | 9.04 | -25.37 |

What to note: a baseline is most of the gain, four to seven orders where f is large and nearly
constant. double-control-variate is score-function at p = 1/2 and better by more the nearer p is
to 1, on one variable (300 times at p = 0.9) as on 200 (460 times). On the toy rebar has just the
variance of a score function of three samples: its control does not help there. All 49 intervals at
95 % cover the exact variance, but they share keys. Where psi learns at a constant rate it keeps
moving, and double-control-variate has up to three times the variance of score-function, which a
= 0 would give it; the net of relax on 200 variables has not converged in 1,000 steps either way. In
the VAE the relaxed gradient has the least mean squared error at that point, bias included, and not
the best ELBO; those of score-function, disarm and double-control-variate are not told apart by two
seeds.

Duration: 283 s on two cores of an Intel Xeon.
"""

import dataclasses
import math
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import vaejax
from experiments.lib import flags, gradients, tables
from experiments.lib.bernoulli import closed_forms, exact_gradient, exact_moments, expectation
from experiments.lib.discrete_estimators import ESTIMATORS, EVALUATIONS, adam_on, full_name, look
from experiments.lib.discrete_vae import VaeSetting, run_vae, vae_figure, vae_table, with_legend
from experiments.lib.gradients import interval_of
from experiments.lib.script import Report, run_script
from vaejax import plots
from vaejax.base.fields import Count, Distinct, Finite, InnerFraction, Positive
from vaejax.runs.build import load_data


@dataclasses.dataclass(frozen=True)
class Config(VaeSetting):
    """The estimators, the two functions of Bernoulli variables, and the Bernoulli VAE."""

    parts: flags.Parts[Literal["toy", "quadratic", "vae"]] = ("toy", "quadratic", "vae")
    t: Finite = 0.499
    """f(b) = mean_i (b_i - t)^2."""
    quadratic_dim: Count = 200
    """Variables of the quadratic."""
    probabilities: Distinct[InnerFraction] = (0.5, 0.6, 0.7, 0.8, 0.9)
    """Where the variance is measured in the toy and the quadratic, the same for every b_i."""
    num_draws: flags.NumDraws = 20_000
    ascent_steps: Count = 2_000
    """Steps of gradient ascent in the logits, in the toy and the quadratic."""
    ascent_rate: Positive = 0.01
    """Of that ascent."""
    ascent_seeds: Count = 20
    """Seeds of that ascent."""
    out: str = "runs/discrete_gradients"

    @property
    def stride(self) -> int:
        """Of the steps of an ascent that are kept: about 200 of them."""
        return max(1, self.ascent_steps // 200)


LOGITS = {"logits": vaejax.groups.Part(("phi",))}
NO_DATA = np.zeros(())
ROUNDING = 1e-25  # a variance that is below is none
ERROR = "mean_squared_error"


def start_of(config: Config, dim: int, name: str, key) -> tuple[vaejax.Expectation, vaejax.Params]:
    """The model of f, and parameters at p = 1/2, with the start of the estimator's psi."""
    entry = ESTIMATORS[name]
    model = expectation(config.t, dim, held=not entry.biased)
    params = model.init(key, NO_DATA)
    return model, params._replace(psi=entry.estimator.init(model, params, NO_DATA, key))


@partial(jax.jit, static_argnames=("name", "model", "optimizer", "num_steps"))
def ascend(
    name: str, model: vaejax.Expectation, params: vaejax.Params, key, optimizer, num_steps: int
):
    """Gradient ascent: the last params, and the mean probability after each step."""
    estimator = ESTIMATORS[name].estimator

    def step(carry, key):
        params, state = carry
        descent = jax.grad(lambda params: -estimator(model, params, NO_DATA, key))(params)
        updates, state = optimizer.update(descent, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        return (params, state), jnp.mean(jax.nn.sigmoid(params.phi["logits"]))

    keys = jax.random.split(key, num_steps)
    (params, _), path = jax.lax.scan(step, (params, optimizer.init(params)), keys)
    return params, path


# The toy and the quadratic, in double precision: f hardly depends on b.

TINY = 1e-20  # the eps of Adam: gradients here are far below the usual one


def measured(config: Config, dim: int, name: str, p: float, key) -> dict[str, Any]:
    """The row of an estimator at p, after psi learned there; at D = 1 its variance is exact."""
    init_key, learn_key, draw_key = jax.random.split(key, 3)
    model, start = start_of(config, dim, name, init_key)
    params = start._replace(phi={"logits": jnp.full(dim, math.log(p / (1 - p)))})
    if jax.tree.leaves(params.psi):
        only_psi = adam_on(("psi",), 0.01, config.psi_steps, TINY)
        params, _ = ascend(name, model, params, learn_key, only_psi, config.psi_steps)
    objective = vaejax.per_example(ESTIMATORS[name].estimator, model)
    settings = {"order": 2, "groups": LOGITS, "chunk": 500}
    moments = vaejax.gradient_moments(
        objective, params, NO_DATA, draw_key, config.num_draws, **settings
    )
    spread = vaejax.gradient_spread(moments, LOGITS)["logits"]
    row = {"estimator": name, "p": p, **interval_of(spread)}
    exact = closed_forms(config.t, p, dim, EVALUATIONS).get(name)
    gradient = exact_gradient(config.t, p, dim)
    if dim == 1:
        mean, exact = exact_moments(name, config.t, p, EVALUATIONS, params.psi)
        row["exact_mean"], squared_bias = mean, (mean - gradient) ** 2
    else:
        reference = jax.tree.map(lambda mean: np.full_like(mean, gradient), moments.mean)
        squared_bias = vaejax.gradient_bias(moments, reference, select=LOGITS["logits"]).squared
    squared_bias = squared_bias if ESTIMATORS[name].biased else 0.0
    error = max(squared_bias, 0.0) + (spread.trace if exact is None else exact)
    return row | {"squared_bias": squared_bias, "exact": exact, ERROR: error}


def ascent(config: Config, dim: int, name: str, key) -> np.ndarray:
    """The mean probability at each step [seed, step], from 1/2 on, psi learned along."""
    optimizer = adam_on(("phi", "psi"), config.ascent_rate, eps=TINY)

    def path(key):
        init_key, step_key = jax.random.split(key)
        model, start = start_of(config, dim, name, init_key)
        return ascend(name, model, start, step_key, optimizer, config.ascent_steps)[1]

    return np.asarray(jax.vmap(path)(jax.random.split(key, config.ascent_seeds)))


def quadratic(config: Config, dim: int) -> dict[str, Any]:
    """Variances and ascents of every estimator on f(b) = mean_i (b_i - t)^2."""
    rows, paths, ends = [], {}, {}
    with jax.enable_x64(True):
        measure_key, ascent_key = jax.random.split(jax.random.key(config.seed + dim))
        keys = jax.random.split(measure_key, len(config.probabilities))
        for name in config.estimators:
            points = zip(config.probabilities, keys, strict=True)
            rows += [measured(config, dim, name, p, key) for p, key in points]
            path = ascent(config, dim, name, ascent_key)
            paths[name] = path[:, :: config.stride].tolist()
            ends[name] = np.quantile(path[:, -1], [0.25, 0.5, 0.75]).tolist()
    known = [row for row in rows if row["exact"] is not None and row["exact"] > ROUNDING]
    return {
        "rows": rows,
        "paths": paths,
        "intervals_that_cover": sum(map(gradients.covers, known)),
        "intervals": len(known),
        "probability_at_the_end": ends,
    }


# What is reported.


def quadratic_table(config: Config, dim: int, result: dict[str, Any]) -> str:
    """Variance, or mean squared error of the biased, by probability; ** the least."""
    rows, lines = result["rows"], []
    by_probability = {p: tables.where(rows, p=p) for p in config.probabilities}
    least = {p: min(tables.columns(part, ERROR)[0]) for p, part in by_probability.items()}
    for name in config.estimators:
        cells = []
        for row in tables.where(rows, estimator=name):
            cell = "0" if row[ERROR] < 1e-30 else f"{row[ERROR]:.2e}"
            cells.append(tables.bold_if(row[ERROR] == least[row["p"]], cell))
        low, median, high = result["probability_at_the_end"][name]
        end = f"{median:.2f} [{low:.2f}, {high:.2f}]"
        lines.append([full_name(name), ESTIMATORS[name].gradients, *cells, end])
    columns = *(f"p = {p}" for p in least), f"P(b = 1) after {config.ascent_steps}"
    table = tables.markdown(["estimator", "grad f", *columns], lines)
    heading = (
        f"variance, or mean squared error of the biased, in {dim} logits, of {EVALUATIONS}"
        " evaluations of f; P after the ascent: median [quartiles]"
    )
    covered = f"{result['intervals_that_cover']} of {result['intervals']} intervals at 95 %"
    return f"{heading}\n{table}\n{covered} cover the exact variance"


def quadratic_figure(config: Config, results: dict[str, dict]) -> Figure:
    """A row for each problem: the variance against p; the ascent, with quartiles over seeds."""
    size = (11, 3.9 * len(results))
    drawing, panels = plots.figure_of(len(results), 2, size)
    titles = {
        "toy": f"one variable: E(b − {config.t})²",
        "quadratic": f"{config.quadratic_dim} variables: E mean (b − {config.t})²",
    }
    for (part, result), (left, right) in zip(results.items(), panels, strict=True):
        draw_errors(left, config, result["rows"])
        draw_paths(right, config, result["paths"])
        left.set_title(titles[part], loc="left")
    return with_legend(drawing, config.estimators)


def draw_errors(axes: Axes, config: Config, rows: list[dict]) -> None:
    for name in config.estimators:
        points = [row for row in tables.where(rows, estimator=name) if row[ERROR] > ROUNDING]
        axes.plot(*tables.columns(points, "p", ERROR), **look(name), ms=6, lw=1.4)
    label = "variance (dashed: + bias²)"
    plots.finish(axes, yscale="log", xlabel=r"$p = P(b_i = 1)$", ylabel=label)


def draw_paths(axes: Axes, config: Config, paths: dict[str, list]) -> None:
    for name in config.estimators:
        values, style = np.asarray(paths[name]), look(name)
        steps = np.arange(values.shape[1]) * config.stride
        low, median, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
        if not ESTIMATORS[name].biased:  # theirs go from 0 to 1, and would cover the panel
            axes.fill_between(steps, low, high, color=style["color"], alpha=0.12, lw=0)
        axes.plot(steps, median, **style | {"marker": "", "lw": 1.6})
    label = r"mean of $P(b_i = 1)$; the best is 1"
    plots.finish(axes, ylim=(-0.02, 1.02), xlabel="step of gradient ascent", ylabel=label)


def experiment(config: Config) -> Report:
    if "vae" in config.parts:  # refused before anything runs
        load_data(config)
    results, written, pictures = {}, [], {}
    for part, dim in (("toy", 1), ("quadratic", config.quadratic_dim)):
        if part in config.parts:
            results[part] = quadratic(config, dim)
            written.append(f"{part}: {quadratic_table(config, dim, results[part])}")
    if results:
        quadratics = dict(results)
        pictures["quadratic"] = lambda: quadratic_figure(config, quadratics)
    if "vae" in config.parts:
        result = results["vae"] = run_vae(config)
        rows, norm = result["rows"], result["squared_gradient"]
        heading = f"vae: {config.data}, {config.latent_dim} Bernoulli latents; |E g|^2 in phi is"
        written.append(f"{heading} {norm:.3g}\n{vae_table(rows)}")
        pictures["vae"] = lambda: vae_figure(result["curves"], rows)
    errors = {
        part: {row["estimator"]: row[ERROR] for row in result["rows"]}
        for part, result in results.items()
    }
    return Report(results, "\n\n".join(written), pictures, {"mean_squared_error": errors})


if __name__ == "__main__":
    run_script(Config, experiment)
