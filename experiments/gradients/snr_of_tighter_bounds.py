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
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import t

import vaejax
from experiments.lib import tables
from experiments.lib.figures import note
from experiments.lib.flags import NumDraws, NumExamples, Script
from experiments.lib.many_samples import (
    Constants,
    Posterior,
    doubly_reparameterised,
    self_normalised,
)
from experiments.lib.script import Report, run_script
from vaejax.base.fields import Count, Distinct, PositiveOrZero
from vaejax.base.types import Key
from vaejax.distributions.normal import DiagNormalDensity
from vaejax.plots.look import BLUE, ORANGE, figure_of, finish, shared_legend, ticks_at
from vaejax.runs.named_estimators import named_estimator
from vaejax.variance.groups import Part

ESTIMATORS = IWAE, DREG, STOPPED, RWS = "iwae", "dreg", "stopped-iwae", "rws"


@dataclasses.dataclass(frozen=True)
class Config(Script):
    """The model, the numbers of samples K and the number of draws."""

    latent_dim: Count = 20
    """Dimensions of z."""
    num_examples: NumExamples = 128
    scale_of_q: Literal["covariance", "deviation"] = "covariance"
    """What the 2/3 of q is: its covariance, or its standard deviation."""
    perturbation: PositiveOrZero = 0.01
    """The standard deviation of every parameter about its optimum."""
    sample_counts: Distinct[Count] = (4, 16, 64, 256, 1024)
    """Values of K, the samples of z in each bound."""
    fit_from: Count = 64
    """Slopes are fitted to K from here on: the theory is asymptotic."""
    num_draws: NumDraws = 64
    estimators: Distinct[Literal["iwae", "dreg", "stopped-iwae", "rws"]] = ESTIMATORS
    """As --estimator of train.py: iwae and dreg at least."""
    out: str = "runs/snr_of_tighter_bounds"

    def check_together(self) -> None:
        if not {IWAE, DREG} <= set(self.estimators):
            raise ValueError(
                f"estimators = {self.estimators}; it must name iwae and dreg, whose means are equal"
            )
        if len(self.fitted_ks) < 2:
            values = " ".join(map(str, self.sample_counts))
            raise ValueError(
                f"--sample-counts {values} has fewer than two values from --fit-from"
                f" {self.fit_from} on; a slope needs two"
            )

    @property
    def variance_of_q(self) -> float:
        return 2 / 3 if self.scale_of_q == "covariance" else (2 / 3) ** 2

    @property
    def ks(self) -> list[int]:
        return sorted(self.sample_counts)

    @property
    def fitted_ks(self) -> list[int]:
        return [k for k in self.ks if k >= self.fit_from]


IN_MU = "iwae and dreg in mu"
GROUPS = {"b": Part(("phi", "b")), "mu": Part(("theta", "prior", "loc"))}


# The model.


@vaejax.component
class Identity:
    """The net z -> z."""

    def init(self, key: Key, example) -> tuple:
        return ()

    def apply(self, params: tuple, example: jax.Array) -> jax.Array:
        return example


@vaejax.component
class LinearEncoder(vaejax.Conditional):
    """q(z|x) = N(A x + b, variance I), the variance fixed."""

    variance: float
    support = vaejax.supports.REAL

    def init(self, key: Key, given: jax.Array) -> dict[str, jax.Array]:
        return {"A": jnp.zeros((given.size, given.size)), "b": jnp.zeros(given.size)}

    def __call__(self, params: dict[str, jax.Array], given: jax.Array) -> DiagNormalDensity:
        loc = params["A"] @ given + params["b"]
        return DiagNormalDensity(loc, jnp.full_like(loc, 0.5 * math.log(self.variance)))


def linear_gaussian(config: Config) -> vaejax.VAE:
    return vaejax.VAE(
        vaejax.LearnedNormal(config.latent_dim),
        vaejax.Gaussian(Identity(), 1.0),
        LinearEncoder(config.variance_of_q),
    )


def parameters(mu: jax.Array, a: jax.Array, b: jax.Array) -> vaejax.Params:
    prior = {"loc": mu, "log_scale": jnp.zeros_like(mu)}
    return vaejax.Params({"prior": prior, "likelihood": {"net": ()}}, {"A": a, "b": b})


@partial(jax.jit, static_argnames="config")
def near_the_optimum(config: Config, key: Key) -> tuple[vaejax.Params, jax.Array]:
    """Parameters about mu* = mean x, A* = I/2, b* = mu*/2, and the data x [N, dim] of a model whose
    mu is drawn from N(0, I).
    """
    mu_key, data_key, *keys = jax.random.split(key, 5)
    eye = jnp.eye(config.latent_dim)
    truth = parameters(
        jax.random.normal(mu_key, (config.latent_dim,)), eye, jnp.zeros(config.latent_dim)
    )
    draw = partial(linear_gaussian(config).sample, truth)
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
    mu, a, b = params.theta["prior"]["loc"], params.phi["A"], params.phi["b"]
    x, mu, a, b = (np.asarray(array, np.float64) for array in (xs, mu, a, b))
    p = Posterior((x + mu[None]) / 2, x @ a.T + b[None], 0.5, config.variance_of_q)
    constants = {
        IWAE: self_normalised(p, p.joint),
        DREG: doubly_reparameterised(p),
        STOPPED: self_normalised(p, p.path),
        RWS: self_normalised(p, p.score),
        IN_MU: self_normalised(p, lambda z: z - mu[None]),
    }
    return {name: constants[name] for name in (*config.estimators, IN_MU)}


# The measurement.

NUM_BLOCKS = 8  # of draws, each of two at least


def measured(config: Config, params: vaejax.Params, xs: jax.Array, k: int, key: Key) -> list[dict]:
    """A row for each estimator, averages over the coordinates, each with its half-width at 95 %.
    All see the same noise, in independent blocks of draws, of which each is left out once.
    """
    count = min(NUM_BLOCKS, config.num_draws // 2)
    blocks = [block(config, params, xs, k, key) for key in jax.random.split(key, count)]
    whole = averages(blocks)
    others = [averages(blocks[:i] + blocks[i + 1 :]) for i in range(count)] if count > 1 else []
    rows = []
    for name, row in whole.items():
        half_widths = {
            f"{quantity}_error": jackknife([other[name][quantity] for other in others])
            for quantity in row
        }
        rows.append({"estimator": name, "num_samples": k} | row | half_widths)
    return rows


def block(config: Config, params: vaejax.Params, xs: jax.Array, k: int, key: Key) -> dict:
    """{estimator: (mean, variance) of its gradient} in b, and of iwae's in mu."""
    model, count = linear_gaussian(config), min(NUM_BLOCKS, config.num_draws // 2)
    settings: dict = {"order": 2, "groups": GROUPS, "by": "examples"}
    moments = {}
    for name in config.estimators:
        objective = vaejax.minibatch(named_estimator(name, k), model)
        moments[name] = vaejax.gradient_moments(
            objective, params, xs, key, config.num_draws // count, **settings
        )
    gradients = {name: (moment, GROUPS["b"]) for name, moment in moments.items()}
    gradients[IN_MU] = moments[IWAE], GROUPS["mu"]
    return {
        name: np.stack([select(moment.mean), select(moment.variance)])
        for name, (moment, select) in gradients.items()
    }


def averages(blocks: list[dict]) -> dict[str, dict[str, float]]:
    """Of each estimator, over the blocks and then over the coordinates: the standard deviation, the
    mean, and their ratio.

    `snr` of iwae in b has the mean of dreg, which is the same in expectation and far less noisy.
    With its own, in `plug_in`, a gradient of mean zero has a ratio of sqrt(2 / (pi num_draws)).
    """
    moments = {name: np.mean([block[name] for block in blocks], axis=0) for name in blocks[0]}
    found = {}
    for name, (mean, variance) in moments.items():
        std = np.sqrt(variance)
        signal = np.abs(moments[DREG][0] if name == IWAE else mean)
        values = {"std": std, "snr": signal / std, "plug_in": np.abs(mean) / std, "mean": signal}
        found[name] = {quantity: float(np.mean(value)) for quantity, value in values.items()}
    return found


def jackknife(values: list[float]) -> float:
    """Half of the interval at 95 % of what takes these values without each of n blocks; nan where
    there are none.
    """
    n = len(values)
    return float(t.ppf(0.975, n - 1) * np.sqrt((n - 1) * np.var(values))) if n else math.nan


def predicted(constants: Constants, k: float) -> dict[str, float]:
    """The same averages over the coordinates, from the theory."""
    std, mean = constants.std(k), np.abs(constants.mean(k))
    averages = {"std": std, "snr": mean / std, "mean": mean}
    return {quantity: float(np.mean(values)) for quantity, values in averages.items()}


def slope(ks, values) -> float:
    """Of log values against log K, by least squares."""
    return float(np.polyfit(np.log(ks), np.log(values), 1)[0])


def floor(num_draws: int) -> float:
    """E |mean| / sd of a mean of n normal draws whose expectation is zero, at known sd: sqrt(2 /
    (pi n)).
    """
    return math.sqrt(2 / (math.pi * num_draws))


def by_k(rows: list[dict], name: str) -> dict[int, dict]:
    return {row["num_samples"]: row for row in rows if row["estimator"] == name}


def comparison(
    config: Config, constants: dict[str, Constants], rows: list[dict]
) -> dict[str, dict]:
    """Per estimator: the slopes with those of the theory, and at the largest K what was measured
    over what is predicted.
    """
    ks, result = config.fitted_ks, {}
    for name in constants:
        measurement = by_k(rows, name)
        theory = {k: predicted(constants[name], k) for k in ks}
        slopes, ratios = {}, {}
        for quantity in ("std", "snr"):
            slopes[f"slope of {quantity}"] = {
                "measured": slope(ks, [measurement[k][quantity] for k in ks]),
                "theory": slope(ks, [theory[k][quantity] for k in ks]),
            }
            ratio = measurement[ks[-1]][quantity] / theory[ks[-1]][quantity]
            ratios[f"{quantity} over theory"] = ratio
        result[name] = slopes | ratios
    return result


# What is reported.

GREEN, VIOLET, SLATE = "#2e8b57", "#8e5ea2", "#6b7280"
COLOURS = {IWAE: BLUE, DREG: ORANGE, STOPPED: GREEN, RWS: VIOLET, IN_MU: SLATE}
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
    drawing, [panels] = figure_of(columns=2, size=(10, 5))
    for name, (quantity, axes) in itertools.product(
        constants, zip(("std", "snr"), panels, strict=True)
    ):
        if (quantity, name) != ("std", IN_MU):
            draw(axes, config.ks, constants[name], by_k(rows, name), name, quantity)
    left, right = panels
    style = {"color": COLOURS[IWAE]}
    own = points_of(by_k(rows, IWAE), config.ks, "plug_in")
    label, open_marker = (
        "iwae by its own noisy mean",
        {"fmt": MARKERS[IWAE], "ms": 5, "mfc": "white"},
    )
    right.errorbar(config.ks, *own, label=label, capsize=4, **open_marker, **style)
    right.axhline(floor(config.num_draws), lw=1, ls=":", label="the floor of that", **style)
    left.set(
        title="standard deviation of the gradient in b",
        ylabel=f"mean of {config.latent_dim} coordinates",
    )
    right.set_title("signal to noise ratio of the gradient in b, and in mu")
    for axes in panels:
        finish(axes, xscale="log", yscale="log", xlabel="K, samples")
        ticks_at(axes, config.ks, str)
    left.plot([], [], "--", color="black", lw=1.2, label="theory of large K")
    shared_legend(drawing, panels, ncols=4)
    return drawing


def points_of(measurement: dict, ks, quantity: str) -> tuple[list[float], list[float]]:
    """What was measured at each K, and the half-widths."""
    rows = [measurement[k] for k in ks]
    return [row[quantity] for row in rows], [row[f"{quantity}_error"] for row in rows]


def draw(axes: Axes, ks, constants: Constants, measurement: dict, name: str, quantity: str) -> None:
    """One estimator in one panel."""
    grid = np.geomspace(ks[0], ks[-1], 51)
    line = [predicted(constants, k)[quantity] for k in grid]
    axes.plot(grid, line, "--", color=COLOURS[name], lw=1.2)
    points, bars = points_of(measurement, ks, quantity)
    style = {"fmt": MARKERS[name], "ms": 5, "color": COLOURS[name], "capsize": 4, "elinewidth": 1.4}
    label = f"{name}, biased" if name in BIASED else name
    axes.errorbar(ks, points, bars, label=label, **style)
    if (quantity, name) in POWERS:
        side, align = (-3, "center") if line[-1] > line[0] else (4, "left")
        style = {"ha": align, "color": COLOURS[name], "fontsize": 10}
        note(axes, POWERS[quantity, name], (grid[32], line[32]), (side, 4), **style)


def report(config: Config, rows: list[dict], summary: dict[str, dict]) -> str:
    names = config.estimators
    header = [f"{title} {name}" for title in ("std", "SNR") for name in names]
    lines = []
    for k in config.ks:
        at_k = {row["estimator"]: row for row in rows if row["num_samples"] == k}
        numbers = [at_k[name][quantity] for quantity in ("std", "snr") for name in names]
        numbers += [at_k[IWAE]["plug_in"], at_k[IN_MU]["snr"]]
        lines.append([k, *(f"{number:.3g}" for number in numbers)])
    by_samples = tables.markdown(["K", *header, "SNR iwae, own mean", "SNR in mu"], lines)
    lines = []
    for name, row in summary.items():
        slopes = [row[f"slope of {quantity}"] for quantity in ("std", "snr")]
        cells = [f"{pair[part]:+.3f}" for pair in slopes for part in ("measured", "theory")]
        ratios = [f"{row[f'{quantity} over theory']:.3f}" for quantity in ("std", "snr")]
        lines.append([name, *cells, *ratios])
    header = "estimator, slope of std, theory, slope of SNR, theory, std / theory, SNR / theory"
    note_of_floor = f"The floor of a ratio with its own mean: {floor(config.num_draws):.3f}"
    return "\n\n".join([by_samples, note_of_floor, tables.markdown(header.split(", "), lines)])


def experiment(config: Config) -> Report:
    instance_key, draw_key = jax.random.split(jax.random.key(config.seed))
    params, xs = near_the_optimum(config, instance_key)
    constants = large_k(config, params, xs)
    keys = {k: jax.random.fold_in(draw_key, k) for k in config.ks}
    rows = [row for k, key in keys.items() for row in measured(config, params, xs, k, key)]
    summary = comparison(config, constants, rows)
    at_one = {
        name: predicted(constants[name], 1) | {"exponent of std": constants[name].exponent}
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
