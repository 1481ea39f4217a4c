r"""Are tighter bounds better? Not for q: with K samples the signal to noise ratio of iwae's
gradient falls, while that of dreg's grows.

    python experiments/gradients/snr_of_tighter_bounds.py
    python experiments/gradients/snr_of_tighter_bounds.py --scale-of-q deviation \
        --estimators iwae dreg

p(z) = N(mu, I), p(x|z) = N(z, I), q(z|x) = N(A x + b, 2/3 I) in 20 dimensions, every parameter off
its optimum by N(0, 0.01^2). The posterior is N((x + mu)/2, I/2), so that q is never exact. As K
grows, the theory (Rainforth et al. 2018; Tucker et al. 2019) says of the gradients

    iwae in b     mean ~ K^-1   standard deviation ~ K^-1/2   ratio ~ K^-1/2
    dreg in b     the same      standard deviation ~ K^-3/2   ratio ~ K^1/2
    either in mu  mean ~ 1      standard deviation ~ K^-1/2   ratio ~ K^1/2

and `large_k` has the constants of this instance in closed form. A mean of n draws is never 0:
iwae's ratio by its own mean cannot fall below about sqrt(2 / (pi n)), so its signal is taken from
dreg, whose mean is the same.

Measured with N = 128 data and 64 draws, means over the coordinates (the slopes from K = 64 to 1024,
the last columns at K = 1024; stopped-iwae is iwae without the score of q):

| estimator | slope of std | theory | slope of ratio | theory | std / theory | ratio / theory |
|---|---|---|---|---|---|---|
| iwae | -0.500 | -0.5 | -0.498 | -0.5 | 0.999 | 0.998 |
| dreg | -1.485 | -1.5 | +0.488 | +0.5 | 0.996 | 1.001 |
| stopped-iwae | -0.500 | -0.5 | +0.498 | +0.5 | 0.999 | 0.999 |
| rws | -0.500 | -0.5 | +0.506 | +0.5 | 0.999 | 1.002 |
| iwae in mu | -0.500 | -0.5 | +0.504 | +0.5 | 0.999 | 1.013 |

At K = 1024 the ratio is 0.017 for iwae and 20.6 for dreg; by its own mean iwae's reads 0.081, the
floor being 0.100. The bars of the figure are intervals at 95 %, by the jackknife over eight blocks
of the draws. What to note:

  - The ratios of stopped-iwae and rws grow because their means do not vanish: as gradients of the
    bound they are biased, and that is their signal.
  - iwae, stopped-iwae, rws and the gradient in mu are here the same sum_k w~_k z_k but for a shift
    and a factor, so that their noise is one.
  - In mu the limit of the mean is small (0.01 / 2), and up to K = 64 its term in 1 / K is seen as
    well: from 64 on the theory with that term has +0.487.
  - At K = 4 dreg's standard deviation is 0.57 of the constant's; at K = 64 it is 0.95.
  - With the paper's N = 1024 (--num-examples 1024 --num-draws 4 --sample-counts 64 256 1024
    --estimators iwae dreg, 108 seconds) the slopes of dreg are -1.483 and +0.482, those of iwae
    -0.498 and -0.504, and the constants are within 1.5 %.
  - Where 2/3 is q's standard deviation, q is narrower than the posterior, and the weights have no
    moment of order 9. dreg's slopes are then -1.363 and +0.383, and at K = 1024 its measured std is
    0.69 of the constant's: the asymptote is not reached, and few samples carry the variance.

Duration: 131 s on two cores of an Intel Xeon that had other work, most programs compiled before;
241 s at the first run.
"""

import dataclasses
import itertools
import math
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import t

import vaejax
from experiments.lib import figures, flags, many_samples, tables
from experiments.lib.many_samples import Constants, self_normalised
from experiments.lib.script import Report, run_script
from vaejax import plots
from vaejax.base.fields import Count, Distinct, PositiveOrZero
from vaejax.base.types import Key
from vaejax.runs.named_estimators import named_estimator
from vaejax.variance.groups import Part

ESTIMATORS = IWAE, DREG, STOPPED, RWS = "iwae", "dreg", "stopped-iwae", "rws"
IN_MU = "iwae and dreg in mu"


@dataclasses.dataclass(frozen=True)
class Config(flags.Script):
    """The model, the numbers of samples K and the number of draws."""

    latent_dim: flags.LatentDim = 20
    num_examples: flags.NumExamples = 128
    scale_of_q: Literal["covariance", "deviation"] = "covariance"
    """What the 2/3 of q is: its covariance, or its standard deviation."""
    perturbation: PositiveOrZero = 0.01
    """The standard deviation of every parameter about its optimum."""
    sample_counts: Distinct[Count] = (4, 16, 64, 256, 1024)
    """Values of K, the samples of z in each bound."""
    fit_from: Count = 64
    """Slopes are fitted to K from here on: the theory is asymptotic."""
    num_draws: flags.NumDraws = 64
    estimators: Distinct[Literal["iwae", "dreg", "stopped-iwae", "rws"]] = ESTIMATORS
    """As --estimator of train.py: iwae and dreg at least."""
    out: str = "runs/snr_of_tighter_bounds"

    def check_together(self) -> None:
        if not {IWAE, DREG} <= set(self.estimators):
            raise ValueError(
                f"estimators = {self.estimators}; it must name iwae and dreg, whose means are equal"
            )
        if len(self.fitted_ks) < 2:
            raise ValueError(
                f"--sample-counts {' '.join(map(str, self.sample_counts))} has fewer than two"
                f" values from --fit-from {self.fit_from} on; a slope needs two"
            )

    @property
    def variance_of_q(self) -> float:
        return 2 / 3 if self.scale_of_q == "covariance" else (2 / 3) ** 2

    @property
    def ks(self) -> np.ndarray:
        return np.sort(self.sample_counts)

    @property
    def fitted_ks(self) -> np.ndarray:
        return self.ks[self.ks >= self.fit_from]

    @property
    def gradients(self) -> tuple[str, ...]:
        """Those of the estimators in b, and that of two of them in mu."""
        return *self.estimators, IN_MU


# The model.

B = Part(("phi", "net", "params", "Dense_0", "bias"))
GROUPS = {"b": B, "mu": Part(("theta", "prior", "loc"))}


@vaejax.component
class Identity:
    """The net z -> z."""

    def init(self, key: Key, example) -> tuple:
        return ()

    def apply(self, params: tuple, example: jax.Array) -> jax.Array:
        return example


def linear_gaussian(config: Config) -> vaejax.VAE:
    return vaejax.VAE(
        vaejax.LearnedNormal(config.latent_dim),
        vaejax.Gaussian(Identity(), 1.0),
        vaejax.Gaussian(vaejax.MLP(config.latent_dim, ()), math.sqrt(config.variance_of_q)),
    )


def parameters(mu: jax.Array, a: jax.Array, b: jax.Array) -> vaejax.Params:
    prior = {"loc": mu, "log_scale": jnp.zeros_like(mu)}
    affine = {"params": {"Dense_0": {"kernel": a.T, "bias": b}}}
    return vaejax.Params({"prior": prior, "likelihood": {"net": ()}}, {"net": affine})


@partial(jax.jit, static_argnames="config")
def near_the_optimum(config: Config, key: Key) -> tuple[vaejax.Params, jax.Array]:
    """Parameters about mu* = mean x, A* = I/2, b* = mu*/2, and x [N, dim], of mu ~ N(0, I)."""
    mu_key, data_key, *keys = jax.random.split(key, 5)
    mu, eye = jax.random.normal(mu_key, (config.latent_dim,)), jnp.eye(config.latent_dim)
    draw = partial(linear_gaussian(config).sample, parameters(mu, eye, jnp.zeros_like(mu)))
    xs = jax.vmap(lambda key: draw(key)[0])(jax.random.split(data_key, config.num_examples))
    mean = jnp.mean(xs, axis=0)
    perturbed = [
        value + config.perturbation * jax.random.normal(key, value.shape)
        for value, key in zip((mean, eye / 2, mean / 2), keys, strict=True)
    ]
    return parameters(*perturbed), xs


# The theory.


def large_k(config: Config, params: vaejax.Params, xs: jax.Array) -> dict[str, Constants]:
    """The constants of this instance, with w normalised by p(x), so that E_q w f = E f over the
    posterior.

    The f that `self_normalised` averages is l for iwae in b, h for stopped-iwae, s for rws, and z -
    mu for iwae and dreg in mu. E_q w l = 0, so that iwae's signal falls as 1 / K, and its noise as
    1 / sqrt(K) alone.
    """
    affine = params.phi["net"]["params"]["Dense_0"]
    arrays = xs, params.theta["prior"]["loc"], affine["kernel"], affine["bias"]
    x, mu, kernel, b = (np.asarray(array, np.float64) for array in arrays)
    p = many_samples.Posterior((x + mu) / 2, x @ kernel + b, 0.5, config.variance_of_q)
    constants = {
        IWAE: self_normalised(p, p.joint),
        DREG: many_samples.doubly_reparameterised(p),
        STOPPED: self_normalised(p, p.path),
        RWS: self_normalised(p, p.score),
        IN_MU: self_normalised(p, lambda z: z - mu),
    }
    return {name: constants[name] for name in config.gradients}


def predicted(constants: Constants, ks) -> dict[str, np.ndarray]:
    """At each K the averages over the coordinates, from the theory."""
    ks = np.asarray(ks)[:, None]
    std, mean = constants.std(ks), np.abs(constants.mean(ks))
    return {"std": std.mean(axis=1), "snr": (mean / std).mean(axis=1), "mean": mean.mean(axis=1)}


def floor(num_draws: int) -> float:
    """E |mean| / sd of a mean of n normal draws of expectation 0: sqrt(2 / (pi n))."""
    return math.sqrt(2 / (math.pi * num_draws))


# The measurement.


def measured(config: Config, params: vaejax.Params, xs: jax.Array, k: int, key: Key) -> list[dict]:
    """A row for each gradient, averages over the coordinates, each with its half-width at 95 %. All
    see the same noise, in independent blocks of two draws at least.
    """
    keys = jax.random.split(key, min(8, config.num_draws // 2))
    num_draws = config.num_draws // len(keys)
    blocks = np.stack([block(config, params, xs, k, key, num_draws) for key in keys])
    columns = averages(config, blocks)
    for quantity, values in half_widths(config, blocks).items():
        columns[f"{quantity}_error"] = values
    return [
        {"estimator": name, "num_samples": k}
        | {column: float(values[i]) for column, values in columns.items()}
        for i, name in enumerate(config.gradients)
    ]


def block(
    config: Config, params: vaejax.Params, xs: jax.Array, k: int, key: Key, num_draws: int
) -> np.ndarray:
    """[gradient, (mean, variance), coordinate], from one block of draws."""
    model, settings = linear_gaussian(config), {"order": 2, "groups": GROUPS, "by": "examples"}
    moments = {}
    for name in config.estimators:
        objective = vaejax.minibatch(named_estimator(name, k), model)
        moments[name] = vaejax.gradient_moments(objective, params, xs, key, num_draws, **settings)
    in_b = [(part, GROUPS["b"]) for part in moments.values()]
    gradients = [*in_b, (moments[IWAE], GROUPS["mu"])]
    return np.stack([(select(part.mean), select(part.variance)) for part, select in gradients])


def averages(config: Config, blocks: np.ndarray) -> dict[str, np.ndarray]:
    """For each gradient, over the blocks and then over the coordinates: the standard deviation, the
    mean, and their ratio.

    `snr` of iwae in b has the mean of dreg, which is the same in expectation and far less noisy.
    With its own, in `plug_in`, a gradient of mean zero has a ratio of sqrt(2 / (pi num_draws)).
    """
    mean, variance = np.moveaxis(np.mean(blocks, axis=0), 1, 0)
    std, own = np.sqrt(variance), np.abs(mean)
    signal = own.copy()
    signal[config.gradients.index(IWAE)] = own[config.gradients.index(DREG)]
    values = {"std": std, "snr": signal / std, "plug_in": own / std, "mean": signal}
    return {quantity: np.mean(value, axis=1) for quantity, value in values.items()}


def half_widths(config: Config, blocks: np.ndarray) -> dict[str, np.ndarray]:
    """Of intervals at 95 %, by the jackknife over blocks; nan where there is one alone."""
    n = len(blocks)
    parts = [np.delete(blocks, i, axis=0) for i in range(n)] if n > 1 else [blocks]
    others = [averages(config, part) for part in parts]
    return {
        quantity: t.ppf(0.975, n - 1)
        * np.sqrt((n - 1) * np.var([other[quantity] for other in others], axis=0))
        for quantity in others[0]
    }


def comparison(
    config: Config, constants: dict[str, Constants], rows: list[dict]
) -> dict[str, dict]:
    """Per gradient: slopes, and at the largest K the measured over the predicted."""
    ks, result = config.fitted_ks, {name: {} for name in constants}
    for name, quantity in itertools.product(constants, ("std", "snr")):
        [measured] = tables.columns(tables.where(rows, estimator=name)[-len(ks) :], quantity)
        expected = predicted(constants[name], ks)[quantity]
        slopes = {"measured": slope(ks, measured), "theory": slope(ks, expected)}
        result[name][f"slope of {quantity}"] = slopes
        result[name][f"{quantity} over theory"] = float(measured[-1] / expected[-1])
    return result


def slope(ks, values) -> float:
    """Of log values against log K, by least squares."""
    return float(np.polyfit(np.log(ks), np.log(values), 1)[0])


# What is reported.


def report(config: Config, rows: list[dict], summary: dict[str, dict]) -> str:
    """What was measured at each K, the floor of a ratio, and the slopes."""
    titles = {
        f"{title} {name}": (name, title.lower())
        for title in ("std", "SNR")
        for name in config.estimators
    }
    titles |= {"SNR iwae, own mean": (IWAE, "plug_in"), "SNR in mu": (IN_MU, "snr")}
    cells = [
        {"K": row["num_samples"], "title": title, "number": row[quantity]}
        for title, (name, quantity) in titles.items()
        for row in tables.where(rows, estimator=name)
    ]
    by_samples = tables.wide("K", "{K}", "title", "{number:.3g}", cells)
    note_of_floor = f"The floor of a ratio with its own mean: {floor(config.num_draws):.3f}"
    pair = "{{slope of {0}[measured]:+.3f}} | {{slope of {0}[theory]:+.3f}}"
    ratios = "{std over theory:.3f} | {snr over theory:.3f}"
    line = f"{{name}} | {pair.format('std')} | {pair.format('snr')} | {ratios}"
    slopes = "slope of std | theory | slope of SNR | theory | std / theory | SNR / theory"
    shown = [{"name": name, **row} for name, row in summary.items()]
    table = tables.table(f"estimator | {slopes}", line, shown)
    return "\n\n".join([by_samples, note_of_floor, table])


GREEN, VIOLET, SLATE = "#2e8b57", "#8e5ea2", "#6b7280"
COLOURS = {IWAE: plots.BLUE, DREG: plots.ORANGE, STOPPED: GREEN, RWS: VIOLET, IN_MU: SLATE}
MARKERS = {IWAE: "o", DREG: "s", STOPPED: "^", RWS: "v", IN_MU: "D"}
BIASED = (STOPPED, RWS)
POWERS = {
    ("std", IWAE): "$K^{-1/2}$",
    ("std", DREG): "$K^{-3/2}$",
    ("snr", IWAE): "$K^{-1/2}$",
    ("snr", DREG): "$K^{1/2}$",
}


def figure(config: Config, constants: dict[str, Constants], rows: list[dict]) -> Figure:
    """What was measured as points with intervals at 95 %, the theory of large K as dashed lines,
    the floor of iwae's ratio with its own mean dotted.
    """
    drawing, [[left, right]] = plots.figure_of(columns=2, size=(10, 5))
    for axes, quantity, names in (
        (left, "std", config.estimators),
        (right, "snr", config.gradients),
    ):
        for name in names:
            draw(axes, config.ks, constants[name], rows, name, quantity)
        plots.finish(axes, xscale="log", yscale="log", xlabel="K, samples")
        plots.ticks_at(axes, config.ks, str)
    draw_points(right, rows, IWAE, "plug_in", label="iwae by its own noisy mean", mfc="white")
    floor_style = {"lw": 1, "ls": ":", "label": "the floor of that", "color": COLOURS[IWAE]}
    right.axhline(floor(config.num_draws), **floor_style)
    left.set_title("standard deviation of the gradient in b")
    left.set_ylabel(f"mean of {config.latent_dim} coordinates")
    right.set_title("signal to noise ratio of the gradient in b, and in mu")
    left.plot([], [], "--", color="black", lw=1.2, label="theory of large K")
    plots.shared_legend(drawing, [left, right], ncols=4)
    return drawing


def draw(axes: Axes, ks, constants: Constants, rows: list[dict], name: str, quantity: str) -> None:
    """One gradient in one panel."""
    colour, grid = COLOURS[name], np.geomspace(ks[0], ks[-1], 51)
    line = predicted(constants, grid)[quantity]
    axes.plot(grid, line, "--", color=colour, lw=1.2)
    label = f"{name}, biased" if name in BIASED else name
    draw_points(axes, rows, name, quantity, label=label, elinewidth=1.4)
    if (quantity, name) in POWERS:
        side, align = (-3, "center") if line[-1] > line[0] else (4, "left")
        style = {"ha": align, "color": colour, "fontsize": 10}
        figures.note(axes, POWERS[quantity, name], (grid[32], line[32]), (side, 4), **style)


def draw_points(axes: Axes, rows: list[dict], name: str, quantity: str, **style: Any) -> None:
    points = [
        row | {"shown": (row[quantity], row[f"{quantity}_error"])}
        for row in tables.where(rows, estimator=name)
    ]
    marks = {"ls": "", "marker": MARKERS[name], "ms": 5, "color": COLOURS[name], "capsize": 4}
    figures.curve(axes, points, "num_samples", "shown", **marks, **style)


def experiment(config: Config) -> Report:
    instance_key, draw_key = jax.random.split(jax.random.key(config.seed))
    params, xs = near_the_optimum(config, instance_key)
    constants = large_k(config, params, xs)
    keys = {k: jax.random.fold_in(draw_key, k) for k in config.ks.tolist()}
    rows = [row for k, key in keys.items() for row in measured(config, params, xs, k, key)]
    summary = comparison(config, constants, rows)
    at_one = {
        name: {"exponent of std": constants[name].exponent}
        | {quantity: values[0] for quantity, values in predicted(constants[name], [1]).items()}
        for name in constants
    }
    return Report(
        {"rows": rows, "constants": at_one, "comparison": summary},
        report(config, rows, summary),
        {"snr": lambda: figure(config, constants, rows)},
        {"comparison": summary, "floor": floor(config.num_draws)},
    )


if __name__ == "__main__":
    run_script(Config, experiment)
