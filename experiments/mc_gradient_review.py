"""Monte Carlo gradients of E_q f, q normal: which of four estimators varies least, exactly, and on
a Bayesian logistic regression.

    python experiments/mc_gradient_review.py                      # both parts, under three minutes
                                                                  on two CPU cores
    python experiments/mc_gradient_review.py --part curves        # figures 2 and 3 of the review
                                                                  alone

After Mohamed, Rosca, Figurnov & Mnih 2020, "Monte Carlo Gradient Estimation in Machine Learning".
`Expectation` makes a model of any f, whose ELBO is E_q f, so that the library's own estimators are
what is measured.

1. Curves. q = N(1, 1); f = (x - k)^2, exp(-k x^2) and cos(k x). The variance of one sample's
gradient in mu and in sigma, exact by quadrature in double precision: for the score function f s,
for (f - b) s with the best b for each parameter, for the pathwise gradient, and for the
measure-valued one with coupled pairs. With D = mu - k the square cost has closed forms, such as 4
sigma^2 in mu for the pathwise gradient and (16 / pi - 4) D^2 for the measure-valued one; the tests
hold the quadrature against them. `gradient_moments` measures the same variances at some k.

Expected: the pathwise gradient wins for the square, and loses to the plain score function where f
is steep, since it pays for f' and the score function for f. Measured, on two cores of an Intel Xeon
with 100,000 draws a point: of 135 intervals at 95 %, 96 % cover the exact variance; the worst point
is off by 8 %, one of the score function's with the best b, in sigma. The pathwise gradient loses in
mu from k = 0.89 (exponential) and 1.08 (cosine), in sigma from 1.02 and 1.30, to the end of the
curves, and for the square never:

| variance     | in    | score function | with the best b | pathwise | measure-valued |
|---|---|---|---|---|---|
| (x + 3)^2    | mu    | 495            | 134             | 4        | 17.49          |
|              | sigma | 1546           | 664             | 72       | 68             |
| exp(-10 x^2) | mu    | 0.07694        | 0.06020         | 0.9416   | 0.02066        |
|              | sigma | 0.009035       | 0.008739        | 0.8920   | 0.1167         |
| cos(5 x)     | mu    | 0.5            | 0.5             | 12.5     | 0.2957         |
|              | sigma | 1              | 1               | 12.5     | 1              |

The measure-valued gradient does not win everywhere: it loses to the pathwise one in mu for the
square at k = -3, and to the score function in sigma for the steep exponential. It also takes two
evaluations of f for each parameter.

2. Bayesian logistic regression of the breast-cancer data: 569 rows of 30 standardised features and
a 1, prior N(0, I), q a diagonal normal that starts at the prior, KL(q || prior) in closed form. The
datum of the model is a set of rows, a minibatch of 32 in training and all of them where anything is
measured; its log-likelihood counts N / M times. SGD with 50 samples of q, 5,000 steps. Variances
are of one gradient with 10 samples, on all the rows, along the run that the pathwise gradient
trained. r' w is normal under q, so the ELBO and its gradient are sums of integrals over a line,
exact. The review trained the same model; its variances are scaled otherwise, so no number here is
to be compared with one there.

Measured: no estimator's mean gradient is told from the exact one (18 tests over 62 parameters,
least p-value 0.06). After 5,000 steps:

| estimator                      | trace in mu | in log sigma | exact ELBO of its own run | accuracy
                                 |
|---|---|---|---|---|
| score function, leave one out  | 1,922       | 686          | -67.62                    | 0.988
                                 |
| pathwise                       | 84.4        | 16.2         | -67.468                   | 0.988
                                 |
| measure-valued                 | 91.8        | 15.0         | -67.470                   | 0.988
                                 |

The best ELBO of any diagonal normal is -67.463. So here the score function has 22 (mu) and 42 (log
sigma) times the variance of the pathwise gradient, and at the start, at the prior, 98 and 66 times.
The measure-valued one has about that of the pathwise, 9 % more and 8 % less, with 124 evaluations
of f a sample. Seed 0 alone.
"""

import dataclasses
import itertools
import math
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from common import command_line, record
from matplotlib.figure import Figure

import vaejax
from vaejax.distributions.normal import DiagNormalDensity, standard_normal
from vaejax.estimators.gaussian import measure_valued_gradient
from vaejax.variance.groups import Part


@dataclasses.dataclass(frozen=True)
class Config:
    """Which part, and the settings of each; those of the review are the defaults."""

    part: Literal["curves", "regression", "both"] = "both"
    mu: float = 1.0
    sigma: float = 1.0
    num_draws: int = 100_000
    """Draws for each measured point of the curves."""
    num_steps: int = 5_000
    """Of the regression, as all that follows."""
    batch_size: int = 32
    learning_rate: float = 1e-3
    num_samples: int = 50
    """Samples of q in one gradient, where it trains."""
    at: tuple[float, ...] = (0.0, 0.02, 0.1, 0.2, 0.5, 1.0)
    """The parts of the run after which to measure."""
    measured_samples: int = 10
    """Samples of q in one gradient, where its variance is measured."""
    measured_draws: int = 150
    """Such gradients for each measured variance."""
    seed: int = 0
    out: str = "runs/mc_gradient_review"


@vaejax.component
class Expectation:
    """The model with log w = f(x, z), so that its ELBO is E_q f: q, held fixed, is a factor of the
    joint, and cancels.

    What an estimator differentiates is then E_q f alone. The path derivative of log w,
    `StickTheLanding`, is that of f: the pathwise one.
    """

    f: Callable[[Any, jax.Array], jax.Array]
    encoder: vaejax.DiagNormal

    def init(self, key, x) -> vaejax.Params:
        return vaejax.Params((), self.encoder.init(key, x))

    def posterior(self, params, x) -> Any:
        return self.encoder(params.phi, x)

    def log_joint(self, params, x, z):
        return self.f(x, z) + jax.lax.stop_gradient(self.posterior(params, x)).log_prob(z)


# Part 1: the curves.


def square(k, x):
    return (x - k) ** 2


def bump(k, x):
    return jnp.exp(-k * x**2)


def cosine(k, x):
    return jnp.cos(k * x)


class Cost(NamedTuple):
    """f, the k of its curve, and the k at which it is also measured."""

    f: Callable
    title: str
    ks: np.ndarray
    measured: tuple[float, ...]


COSTS = {
    "square": Cost(square, "$(x - k)^2$", np.linspace(-3, 3, 100), (-3, -2, -1, 0, 1, 2, 3)),
    "exponential": Cost(bump, r"$\exp(-k x^2)$", np.geomspace(0.1, 10, 100), (0.1, 0.3, 1, 3, 10)),
    "cosine": Cost(cosine, r"$\cos(k x)$", np.geomspace(0.5, 5, 100), (0.5, 1, 2, 3, 5)),
}
# A moving average that nobody moves is the constant baseline b = psi, an argument of the compiled
# program.
SCORE = vaejax.ScoreFunction(1, vaejax.MovingAverage())
SF, SF_BEST, PW, MVD = NAMES = (
    "score function",
    "score function, best constant",
    "pathwise",
    "measure-valued",
)
ESTIMATORS = {SF: SCORE, SF_BEST: SCORE, PW: vaejax.StickTheLanding(), MVD: vaejax.MeasureValued()}
COLOURS = dict(zip(NAMES, ("#8e99a4", "#2c6fbb", "#d9730d", "#2e8b57"), strict=True))
PARAMETERS = {"mu": "loc", "sigma": "log_scale"}
ENCODER = vaejax.DiagNormal(vaejax.Free(()), max_log_scale=None)


class Rule(NamedTuple):
    """E g(noise) = sum_i weights_i g(points_i)."""

    points: np.ndarray
    weights: np.ndarray

    def variance(self, g):
        """(mean, variance) of g, its values at the points."""
        mean = jnp.sum(self.weights * g)
        return mean, jnp.sum(self.weights * (g - mean) ** 2)


@lru_cache
def rules(num_points: int = 400) -> dict[str, Rule]:
    """Gauss-Legendre on the density of each noise, cut where it is below 1e-31.

    Gauss-Hermite would spread its points over the tails: for exp(-10 x^2) it wants a thousand.
    """
    t, w = np.polynomial.legendre.leggauss(num_points)

    def rule(density, low, high):
        points = low + (high - low) * (t + 1) / 2
        return Rule(points, density(points) * w * (high - low) / 2)

    def normal(x):
        return np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)

    return {
        "normal": rule(normal, -12, 12),
        "rayleigh": rule(lambda r: r * np.exp(-(r**2) / 2), 0, 12),
        "maxwell": rule(lambda m: m**2 * normal(m), -12, 12),
        "uniform": rule(np.ones_like, 0, 1),
    }


class Exact(NamedTuple):
    """Of one estimator's gradient in one parameter, for each k; `baseline` is what is taken from
    f.
    """

    mean: np.ndarray
    variance: np.ndarray
    baseline: np.ndarray


def exact(f: Callable, ks, mu: float = 1.0, sigma: float = 1.0) -> dict[tuple[str, str], Exact]:
    """Mean and variance of each estimator of grad E f(k, x), x ~ N(mu, sigma^2), by quadrature in
    double precision.
    """
    with jax.enable_x64(True):
        q = DiagNormalDensity(jnp.asarray(float(mu)), jnp.log(jnp.asarray(float(sigma))))
        found = jax.jit(jax.vmap(partial(_exact, f), (0, None)))(jnp.asarray(ks, float), q)
        scale = {"mu": 1.0, "sigma": 1 / sigma}  # d/d sigma = d/d log sigma / sigma
        return {
            (name, parameter): Exact(
                np.asarray(mean) * scale[parameter],
                np.asarray(variance) * scale[parameter] ** 2,
                np.asarray(baseline),
            )
            for (name, parameter), (mean, variance, baseline) in found.items()
        }


def _exact(f: Callable, k, q: DiagNormalDensity) -> dict[tuple[str, str], tuple]:
    f = partial(f, k)
    normal, rayleigh, maxwell, uniform = (
        rules()[name] for name in ("normal", "rayleigh", "maxwell", "uniform")
    )
    noise, zero = jnp.asarray(normal.points), jnp.zeros(())
    z = q.loc + jnp.exp(q.log_scale) * noise
    values = jax.vmap(f)(z)
    scores = jax.vmap(lambda z: jax.grad(lambda q: q.log_prob(z))(q))(z)
    paths = jax.vmap(lambda noise: jax.grad(lambda q: f(q.loc + jnp.exp(q.log_scale) * noise))(q))(
        noise
    )
    found = {}
    for parameter, field in PARAMETERS.items():
        score = getattr(scores, field)
        best = jnp.sum(normal.weights * values * score**2) / jnp.sum(normal.weights * score**2)
        found[SF, parameter] = *normal.variance(values * score), zero
        found[SF_BEST, parameter] = *normal.variance((values - best) * score), best
        found[PW, parameter] = *normal.variance(getattr(paths, field)), zero
    in_loc = jax.vmap(lambda r: measure_valued_gradient(f, q, q.loc, r, zero, zero)[0])(
        jnp.asarray(rayleigh.points)
    )
    pairs = jnp.meshgrid(jnp.asarray(maxwell.points), jnp.asarray(uniform.points), indexing="ij")
    in_log_scale = jax.vmap(lambda m, u: measure_valued_gradient(f, q, q.loc, zero, m, u)[1])(
        *map(jnp.ravel, pairs)
    )
    both = Rule(
        np.ravel(pairs[0].shape), np.ravel(maxwell.weights[:, None] * uniform.weights[None])
    )
    found[MVD, "mu"] = *rayleigh.variance(in_loc), zero
    found[MVD, "sigma"] = *both.variance(in_log_scale), zero
    return found


def measured(config: Config, key) -> list[dict]:
    """A row for each cost, k, parameter and estimator: the exact variance, and what
    `gradient_moments` finds.
    """
    groups = {name: Part(("phi", field)) for name, field in PARAMETERS.items()}
    phi = {"loc": jnp.asarray(config.mu), "log_scale": jnp.asarray(math.log(config.sigma))}
    rows = []
    for cost, cost_key in zip(COSTS, jax.random.split(key, len(COSTS)), strict=True):
        f, _, _, ks = COSTS[cost]
        model = Expectation(f, ENCODER)
        curves = exact(f, ks, config.mu, config.sigma)
        cases = list(itertools.product(enumerate(ks), PARAMETERS, NAMES))
        for ((i, k), parameter, name), draw_key in zip(
            cases, jax.random.split(cost_key, len(cases)), strict=True
        ):
            curve = curves[name, parameter]
            params = vaejax.Params((), phi, psi=jnp.asarray(curve.baseline[i], jnp.float32))
            objective = partial(ESTIMATORS[name], model)
            arguments = params, jnp.asarray(float(k)), draw_key, config.num_draws
            moments = vaejax.gradient_moments(objective, *arguments, groups=groups, chunk=500)
            spread = vaejax.gradient_spread(moments, groups)[parameter]
            unit = config.sigma**-2 if parameter == "sigma" else 1.0
            row = {
                "cost": cost,
                "k": k,
                "parameter": parameter,
                "estimator": name,
                "exact": float(curve.variance[i]),
            }
            rows.append(
                row
                | {
                    "measured": spread.trace * unit,
                    "low": spread.low * unit,
                    "high": spread.high * unit,
                }
            )
    return rows


def losses(curves: dict[str, dict[tuple[str, str], Exact]]) -> dict[str, dict[str, float | None]]:
    """For each cost and parameter, the least k of the curve at which the score function, with no
    baseline, beats the pathwise gradient.
    """
    found = {}
    for name, cost in COSTS.items():
        lost = {
            parameter: cost.ks[
                curves[name][PW, parameter].variance > curves[name][SF, parameter].variance
            ]
            for parameter in PARAMETERS
        }
        found[name] = {
            parameter: float(ks.min()) if len(ks) else None for parameter, ks in lost.items()
        }
    return found


def draw_curves(curves: dict[str, dict[tuple[str, str], Exact]], rows: list[dict]) -> Figure:
    """The exact variances as lines, the measured ones as points with intervals; shaded where the
    score function beats the pathwise.
    """
    drawing = Figure(figsize=(12, 6.6), layout="constrained")
    grid = drawing.subplots(2, 3, sharex="col")
    for (row, parameter), (column, (cost, (_, title, ks, _))) in itertools.product(
        enumerate(PARAMETERS), enumerate(COSTS.items())
    ):
        axes = grid[row, column]
        for name in NAMES:
            variance = curves[cost][name, parameter].variance
            axes.plot(ks, np.maximum(variance, 1e-9), color=COLOURS[name], lw=1.6, label=name)
            points = [
                one
                for one in rows
                if (one["cost"], one["parameter"], one["estimator"]) == (cost, parameter, name)
                and one["exact"] > 1e-9
            ]
            errors = np.array(
                [(one["measured"] - one["low"], one["high"] - one["measured"]) for one in points]
            ).T
            at = [one["k"] for one in points]
            axes.errorbar(
                at, [one["measured"] for one in points], errors, fmt="o", ms=4, color=COLOURS[name]
            )
        axes.set(yscale="log", title=title if row == 0 else "")
        lost = curves[cost][PW, parameter].variance > curves[cost][SF, parameter].variance
        axes.fill_between(
            ks,
            0,
            1,
            where=lost,
            transform=axes.get_xaxis_transform(),
            color="#d9730d",
            alpha=0.08,
            lw=0,
        )
        if lost.any():
            axes.text(
                1.04 * ks[lost].min(),
                0.03,
                "pathwise loses",
                transform=axes.get_xaxis_transform(),
                color="#a65308",
                fontsize=9,
            )
        if cost != "square":
            ticks = [k for k in (0.1, 0.3, 0.5, 1, 2, 3, 5, 10) if ks.min() <= k <= ks.max()]
            axes.set(xscale="log")
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    for row, parameter in enumerate((r"$\mu$", r"$\sigma$")):
        grid[row, 0].set_ylabel(f"variance of the gradient in {parameter}")
    grid[0, 0].set_ylim(
        bottom=5e-3
    )  # the measure-valued gradient in mu has no variance where f is symmetric about mu
    grid[0, 2].set_ylim(bottom=5e-4)
    grid[0, 0].text(
        0.03,
        0.03,
        "lines: exact\npoints: measured",
        transform=grid[0, 0].transAxes,
        color="#5f6b76",
        fontsize=9,
    )
    for axes in grid[1]:
        axes.set_xlabel("k")
    drawing.legend(
        *grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False
    )
    return drawing


def curves_part(config: Config, out: Path) -> dict:
    curves = {name: exact(cost.f, cost.ks, config.mu, config.sigma) for name, cost in COSTS.items()}
    rows = measured(config, jax.random.key(config.seed))
    print("Exact variance of one sample's gradient (measured)\n")
    print("| cost | k | in | " + " | ".join(NAMES) + " |\n|" + "---|" * 7)
    for first in range(0, len(rows), len(NAMES)):
        of_one = rows[first : first + len(NAMES)]
        cells = " | ".join(
            f"{row['exact']:.4g} ({row['measured']:.4g})" if row["exact"] > 1e-9 else "0"
            for row in of_one
        )
        print(f"| {of_one[0]['cost']} | {of_one[0]['k']} | {of_one[0]['parameter']} | {cells} |")
    draw_curves(curves, rows).savefig(out / "curves.png", dpi=150)
    noisy = [row for row in rows if row["exact"] > 1e-9]
    summary = {
        "points": len(noisy),
        "intervals_that_cover": float(
            np.mean([row["low"] <= row["exact"] <= row["high"] for row in noisy])
        ),
        "worst_relative_error": max(abs(row["measured"] / row["exact"] - 1) for row in noisy),
        "pathwise_loses_from": losses(curves),
    }
    return summary | {"rows": rows}


# Part 2: Bayesian logistic regression.

LOO = "score function, leave one out"
RIVALS = {LOO: vaejax.ScoreFunction, PW: vaejax.StickTheLanding, MVD: vaejax.MeasureValued}
RIVAL_COLOURS = COLOURS | {LOO: COLOURS[SF_BEST]}


def signed_rows() -> np.ndarray:
    """The breast-cancer data, [569, 31]: 30 standardised features and a 1, times -1 where the label
    is 0. All that the likelihood needs.
    """
    try:
        from sklearn.datasets import load_breast_cancer
    except ImportError:
        raise ValueError(
            "the regression's data come with scikit-learn: pip install 'vaejax[experiments]', or"
            " --part curves"
        ) from None
    features, labels = load_breast_cancer(return_X_y=True)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    rows = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    return (np.where(labels == 1, 1, -1)[:, None] * rows).astype(np.float32)


def log_likelihood(num_data: int, rows, w):
    """(N / M) sum_m log sigmoid(r_m' w), of M signed rows: an unbiased estimate of the sum over the
    data.
    """
    return num_data / len(rows) * jnp.sum(jax.nn.log_sigmoid(rows @ w))


def regression_elbo(estimator, model: Expectation, params, rows, key):
    """E_q log p(y | w), as estimated, less KL(q || N(0, I)) in closed form; nats of the whole data
    set.
    """
    return estimator(model, params, rows, key) - kl_to_prior(model, params)


def kl_to_prior(model: Expectation, params):
    q = model.posterior(params, None)
    return vaejax.kl_divergence(q, standard_normal(q.loc))


def exact_elbo(model: Expectation, params, rows):
    """The ELBO of a mean-field q: r' w is normal, so each row asks for one integral over a line."""
    q, normal = model.posterior(params, None), rules()["normal"]
    mean, scale = rows @ q.loc, jnp.sqrt(rows**2 @ jnp.exp(2 * q.log_scale))
    logits = mean[:, None] + scale[:, None] * normal.points[None]
    return jnp.sum(jax.nn.log_sigmoid(logits) @ normal.weights) - kl_to_prior(model, params)


@partial(jax.jit, static_argnames="model")
def best_elbo(model: Expectation, params, rows):
    """The maximum of the exact ELBO, by 2,000 steps of Adam from `params`."""
    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, 2_000))

    def step(_, carry):
        params, state = carry
        updates, state = optimizer.update(
            jax.grad(lambda params: -exact_elbo(model, params, rows))(params), state, params
        )
        return optax.apply_updates(params, updates), state

    return exact_elbo(
        model, jax.lax.fori_loop(0, 2_000, step, (params, optimizer.init(params)))[0], rows
    )


def trained(
    config: Config, estimator, model: Expectation, rows, steps: list[int], key
) -> dict[int, vaejax.Params]:
    """The parameters after each of the steps, of one run that starts at q = the prior."""
    optimizer = optax.sgd(optax.cosine_decay_schedule(config.learning_rate, config.num_steps))
    objective = partial(regression_elbo, estimator, model)
    start = model.init(key, rows)
    found = {0: start}
    with TemporaryDirectory() as folder:
        for step in steps:
            if step:
                settings = {"num_steps": step, "batch_size": config.batch_size, "progress": False}
                found[step] = vaejax.fit(
                    objective,
                    start,
                    optimizer,
                    rows,
                    key,
                    checkpoints=folder,
                    resume=True,
                    **settings,
                ).params
    return found


def regression(config: Config) -> tuple[list[dict], list[dict], float]:
    """Rows of the gradients along the pathwise run; rows of each estimator's own run; the best ELBO
    that a mean-field q can have.
    """
    rows = signed_rows()
    model = Expectation(
        partial(log_likelihood, len(rows)),
        vaejax.DiagNormal(vaejax.Free(rows.shape[1]), max_log_scale=None),
    )
    steps = sorted({round(part * config.num_steps) for part in config.at} | {0, config.num_steps})
    fit_key, draw_key = jax.random.split(jax.random.key(config.seed))
    runs = {
        name: trained(config, kind(config.num_samples), model, rows, steps, fit_key)
        for name, kind in RIVALS.items()
    }
    with jax.enable_x64(True):
        elbo_and_gradient = jax.jit(jax.value_and_grad(partial(exact_elbo, model)))
        precise = partial(jax.tree.map, partial(jnp.asarray, dtype=float))
        found = {
            (name, step): elbo_and_gradient(precise(run[step]), precise(rows))
            for name, run in runs.items()
            for step in steps
        }
        best = float(best_elbo(model, precise(runs[PW][0]), precise(rows)))
    learning = []
    for (name, step), (elbo, _) in found.items():
        accuracy = float(
            np.mean(rows @ np.asarray(runs[name][step].phi["loc"]) > 0)
        )  # E_q sigmoid(x'w) > 1/2 where E_q x'w > 0
        learning.append(
            {"estimator": name, "step": step, "elbo": float(elbo), "accuracy": accuracy}
        )
    groups = {"mu": Part(("phi", "loc")), "log sigma": Part(("phi", "log_scale"))}
    gradients = []
    for step, (name, kind) in itertools.product(steps, RIVALS.items()):
        objective = partial(regression_elbo, kind(config.measured_samples), model)
        arguments = runs[PW][step], rows, draw_key, config.measured_draws
        moments = vaejax.gradient_moments(objective, *arguments, order=2, by="draws", groups=groups)
        check = vaejax.gradient_bias(moments, jax.tree.map(np.asarray, found[PW, step][1]))
        for parameter, spread in vaejax.gradient_spread(moments, groups).items():
            row = {
                "estimator": name,
                "step": step,
                "parameter": parameter,
                "trace": spread.trace,
                "low": spread.low,
                "high": spread.high,
            }
            gradients.append(row | {"largest_z": check.largest_z, "p_value": check.p_value})
    return gradients, learning, best


def draw_regression(
    config: Config, gradients: list[dict], learning: list[dict], best: float
) -> Figure:
    """The trace in each parameter along the pathwise run, and how far each run is from the best
    ELBO.
    """
    drawing = Figure(figsize=(12, 3.9), layout="constrained")
    steps = sorted({row["step"] for row in learning})
    panels = drawing.subplots(1, 3)
    for name in RIVALS:
        style = {"color": RIVAL_COLOURS[name], "marker": "o", "ms": 4, "lw": 1.6, "label": name}
        for axes, parameter in zip(panels, ("mu", "log sigma"), strict=False):
            of_one = [
                row
                for row in gradients
                if (row["estimator"], row["parameter"]) == (name, parameter)
            ]
            errors = np.array(
                [(row["trace"] - row["low"], row["high"] - row["trace"]) for row in of_one]
            ).T
            axes.errorbar(
                np.sqrt([row["step"] for row in of_one]),
                [row["trace"] for row in of_one],
                errors,
                **style,
            )
        of_one = [row for row in learning if row["estimator"] == name]
        panels[2].plot(
            np.sqrt([row["step"] for row in of_one]),
            [best - row["elbo"] for row in of_one],
            **style,
        )
    titles = (
        r"gradient in $\mu$, pathwise run",
        r"gradient in $\log\sigma$, pathwise run",
        "each estimator's own run",
    )
    labels = (
        f"trace of the covariance, {config.measured_samples} samples",
        "",
        "ELBO below the best q, nats",
    )
    for axes, title, label in zip(panels, titles, labels, strict=True):
        axes.set(
            yscale="log", title=title, xlabel="step, on an axis of its square root", ylabel=label
        )
        axes.set_xticks(np.sqrt(steps), [f"{step:,}" for step in steps])
        axes.spines[["top", "right"]].set_visible(False)
    drawing.legend(
        *panels[2].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False
    )
    return drawing


def regression_part(config: Config, out: Path) -> dict:
    gradients, learning, best = regression(config)
    print("\nTrace of the gradient's covariance along the pathwise run\n")
    print("| step | in | " + " | ".join(RIVALS) + " | SF / PW | MVD / PW |\n|" + "---|" * 7)
    for step, parameter in itertools.product(
        sorted({row["step"] for row in gradients}), ("mu", "log sigma")
    ):
        traces = [
            row["trace"]
            for row in gradients
            if (row["step"], row["parameter"]) == (step, parameter)
        ]
        loo, pathwise, measure_valued = traces
        numbers = " | ".join(f"{trace:.4g}" for trace in traces)
        print(
            f"| {step} | {parameter} | {numbers} | {loo / pathwise:.1f} |"
            f" {measure_valued / pathwise:.2f} |"
        )
    print(f"\nThe end of each run; the best ELBO of a mean-field q is {best:.3f}\n")
    print("| trained by | exact ELBO | below the best | accuracy |\n|---|---|---|---|")
    ends = [row for row in learning if row["step"] == config.num_steps]
    for row in ends:
        print(
            f"| {row['estimator']} | {row['elbo']:.3f} | {best - row['elbo']:.3f} |"
            f" {row['accuracy']:.4f} |"
        )
    draw_regression(config, gradients, learning, best).savefig(out / "regression.png", dpi=150)
    summary = {"best_elbo": best, "least_p_value": min(row["p_value"] for row in gradients)}
    ends = {row["estimator"]: {"elbo": row["elbo"], "accuracy": row["accuracy"]} for row in ends}
    return summary | {"ends": ends, "gradients": gradients, "learning": learning}


def main(config: Config) -> dict:
    if not (math.isfinite(config.mu) and 0 < config.sigma < math.inf):
        raise ValueError(
            f"mu = {config.mu}, sigma = {config.sigma}; give finite numbers, and a sigma above 0"
        )
    if not all(0 <= part <= 1 for part in config.at):
        raise ValueError(f"at = {config.at}; each is a part of the run, from 0 to 1")
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    parts = {"curves": curves_part, "regression": regression_part}
    results = {
        name: part(config, out) for name, part in parts.items() if config.part in (name, "both")
    }
    record(out, config, **results)
    lists = {"rows", "gradients", "learning"}
    summary = {
        name: {key: value for key, value in result.items() if key not in lists}
        for name, result in results.items()
    }
    return summary | {"out": str(out)}


if __name__ == "__main__":
    sys.exit(command_line(lambda: main(tyro.cli(Config))))
