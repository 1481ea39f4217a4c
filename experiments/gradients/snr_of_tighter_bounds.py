"""Are tighter bounds better? Not for q: with K samples the signal to noise ratio of IWAE's gradient
falls, while that of DReG's grows.

    python experiments/gradients/snr_of_tighter_bounds.py  # two to four minutes on two CPU cores
    python experiments/gradients/snr_of_tighter_bounds.py --scale-of-q deviation --also

p(z) = N(mu, I), p(x|z) = N(z, I), q(z|x) = N(A x + b, 2/3 I) in 20 dimensions, every parameter off
its optimum by N(0, 0.01^2). The posterior is N((x + mu)/2, I/2), so that q is never exact. As K
grows, the theory (Rainforth et al. 2018; Tucker et al. 2019) says of the gradients

    IWAE in b     mean ~ K^-1   standard deviation ~ K^-1/2   ratio ~ K^-1/2
    DReG in b     the same      standard deviation ~ K^-3/2   ratio ~ K^1/2
    either in mu  mean ~ 1      standard deviation ~ K^-1/2   ratio ~ K^1/2

and `large_k` has the constants of this instance in closed form. M independent copies multiply each
ratio by sqrt(M). A mean of n draws is never 0: IWAE's ratio by its own mean cannot fall below about
sqrt(2 / (pi n)), so its signal is taken from DReG, whose mean is the same.

Measured with N = 128 data and 64 draws, means over the coordinates (the slopes from K = 64 to 1024,
the last columns at K = 1024):

| estimator | slope of std | theory | slope of ratio | theory | std / theory | ratio / theory |
|---|---|---|---|---|---|---|
| IWAE | -0.498 | -0.5 | -0.498 | -0.5 | 0.999 | 1.002 |
| DReG | -1.484 | -1.5 | +0.486 | +0.5 | 0.994 | 1.005 |
| STL, with the bound of IWAE | -0.498 | -0.5 | +0.497 | +0.5 | 0.999 | 1.002 |
| RWS | -0.498 | -0.5 | +0.505 | +0.5 | 0.999 | 1.003 |
| IWAE in mu | -0.498 | -0.5 | +0.441 | +0.5 | 0.999 | 1.005 |

At K = 1024 the ratio is 0.017 for IWAE and 20.6 for DReG; by its own mean IWAE's reads 0.092, the
floor being 0.100. What to note:

  - The ratios of STL and RWS grow because their means do not vanish: as gradients of the bound they
    are biased, and that is their signal.
  - IWAE, STL, RWS and the gradient in mu are here the same sum_k w~_k z_k but for a shift and a
    factor, so that their noise is one.
  - In mu the limit of the mean is small (0.01 / 2), and up to K = 64 its term in 1 / K is seen as
    well: from 64 on the theory with that term has +0.487, and the mean of 64 draws adds noise of
    its own.
  - At K = 4 DReG's standard deviation is 0.57 of the constant's; at K = 64 it is 0.95.
  - With the paper's N = 1024 (--num-data 1024 --num-draws 4 --num-samples 64 256 1024 --also, 108
    seconds) the slopes of DReG are -1.483 and +0.482, those of IWAE -0.498 and -0.504, and the
    constants are within 1.5 %: std 0.0583 K^-1/2 and 0.0506 K^-3/2, mean 0.093 / K.
  - Where 2/3 is q's standard deviation, q is narrower than the posterior, and the weights have no
    moment of order 9. DReG's slopes are then -1.363 and +0.383, and at K = 1024 its measured std is
    0.69 of the constant's: the asymptote is not reached, and few samples carry the variance. IWAE
    has -0.492 and -0.491.

Time: 131 seconds with two cores shared with other work and most programs in the compilation cache,
241 seconds at the first run.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import vaejax
from experiments.lib import tables
from experiments.lib.figures import note
from experiments.lib.many_samples import (
    Constants,
    Posterior,
    doubly_reparameterised,
    self_normalised,
)
from experiments.lib.script import Report, run_script
from vaejax.base.checks import Integers
from vaejax.base.fields import Count, Distinct, Plural, PositiveOrZero, Seed
from vaejax.base.types import Key
from vaejax.distributions.normal import DiagNormalDensity
from vaejax.plots.look import BLUE, ORANGE, figure_of, finish, shared_legend, ticks_at
from vaejax.runs.config import Configuration
from vaejax.variance.groups import Part


@dataclasses.dataclass(frozen=True)
class Config(Configuration):
    """The model, the numbers of samples K and the number of draws."""

    dim: Count = 20
    num_data: Annotated[int, Integers(4)] = 128
    """N: the gradient is the mean over these. The paper has 1024, whose standard deviations are
    sqrt(8) times smaller.
    """
    scale_of_q: Literal["covariance", "deviation"] = "covariance"
    """What the 2/3 of q is: its covariance, or its standard deviation."""
    perturbation: PositiveOrZero = 0.01
    """The standard deviation of every parameter about its optimum."""
    num_samples: Distinct[Count] = (4, 16, 64, 256, 1024)
    """The values of K."""
    fit_from: Count = 64
    """Slopes are fitted to K from here on: the theory is asymptotic."""
    num_draws: Plural = 64
    also: tuple[Literal["STL", "RWS"], ...] = ("STL", "RWS")
    """What to measure beside IWAE and DReG."""
    seed: Seed = 0
    out: str = "runs/snr_of_tighter_bounds"

    def check_together(self) -> None:
        if len(self.fitted_ks) < 2:
            values = " ".join(map(str, self.num_samples))
            raise ValueError(
                f"--num-samples {values} has fewer than two values from --fit-from"
                f" {self.fit_from} on; a slope needs two"
            )

    @property
    def variance_of_q(self) -> float:
        return 2 / 3 if self.scale_of_q == "covariance" else (2 / 3) ** 2

    @property
    def ks(self) -> list[int]:
        return sorted(set(self.num_samples))

    @property
    def fitted_ks(self) -> list[int]:
        return [k for k in self.ks if k >= self.fit_from]


IWAE, DREG, STL, RWS = "IWAE", "DReG", "STL", "RWS"
IN_MU = "IWAE and DReG in mu"
ESTIMATORS: dict[str, Callable] = {
    IWAE: lambda k: vaejax.Pathwise(k, vaejax.iwae_bound),
    DREG: vaejax.DReG,
    STL: lambda k: vaejax.StickTheLanding(k, vaejax.iwae_bound),
    RWS: vaejax.RWS,
}
GROUPS = {"b": Part(("phi", "b")), "mu": Part(("theta", "prior", "loc"))}


def estimators(config: Config) -> dict[str, Callable]:
    return {name: ESTIMATORS[name] for name in ESTIMATORS if name in (IWAE, DREG, *config.also)}


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
        vaejax.LearnedNormal(config.dim),
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
    eye = jnp.eye(config.dim)
    truth = parameters(jax.random.normal(mu_key, (config.dim,)), eye, jnp.zeros(config.dim))
    draw = partial(linear_gaussian(config).sample, truth)
    xs = jax.vmap(lambda key: draw(key)[0])(jax.random.split(data_key, config.num_data))
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

    The f that `self_normalised` averages is l for IWAE in b, h for STL, s for RWS, and z - mu for
    IWAE and DReG in mu. E_q w l = 0, so that IWAE's signal falls as 1 / K, and its noise as 1 /
    sqrt(K) alone.
    """
    mu, a, b = params.theta["prior"]["loc"], params.phi["A"], params.phi["b"]
    x, mu, a, b = (np.asarray(array, np.float64) for array in (xs, mu, a, b))
    p = Posterior((x + mu[None]) / 2, x @ a.T + b[None], 0.5, config.variance_of_q)
    constants = {
        IWAE: self_normalised(p, p.joint),
        DREG: doubly_reparameterised(p),
        STL: self_normalised(p, p.path),
        RWS: self_normalised(p, p.score),
        IN_MU: self_normalised(p, lambda z: z - mu[None]),
    }
    return {name: constants[name] for name in constants if name in (*estimators(config), IN_MU)}


# The measurement.


def measured(config: Config, params: vaejax.Params, xs: jax.Array, k: int, key: Key) -> list[dict]:
    """A row for each estimator, means over the coordinates. All see the same noise.

    The signal to noise ratio has the gradient's own mean over its standard deviation; `snr` of IWAE
    in b that of DReG, which is the same in expectation and far less noisy. With the noisy one,
    `plug_in`, a gradient of mean zero has a ratio of sqrt(2 / (pi num_draws)).
    """
    model = linear_gaussian(config)
    settings = {"order": 2, "groups": GROUPS, "by": "examples"}
    moments = {
        name: vaejax.gradient_moments(
            vaejax.minibatch(make(k), model), params, xs, key, config.num_draws, **settings
        )
        for name, make in estimators(config).items()
    }
    measurements = [(name, moments[name], GROUPS["b"]) for name in moments]
    measurements.append((IN_MU, moments[IWAE], GROUPS["mu"]))
    means = {name: select(moment.mean) for name, moment, select in measurements}
    variances = {name: select(moment.variance) for name, moment, select in measurements}
    rows = []
    for name, mean in means.items():
        std = np.sqrt(variances[name])
        signal = np.abs(means[DREG] if name == IWAE else mean)
        averages = {"std": std, "snr": signal / std, "plug_in": np.abs(mean) / std, "mean": signal}
        row = {quantity: float(np.mean(values)) for quantity, values in averages.items()}
        rows.append({"estimator": name, "num_samples": k} | row)
    return rows


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
COLOURS = {IWAE: BLUE, DREG: ORANGE, STL: GREEN, RWS: VIOLET, IN_MU: SLATE}
MARKERS = {IWAE: "o", DREG: "s", STL: "^", RWS: "v", IN_MU: "D"}
BIASED = (STL, RWS)
POWERS = {
    ("std", IWAE): "$K^{-1/2}$",
    ("std", DREG): "$K^{-3/2}$",
    ("snr", IWAE): "$K^{-1/2}$",
    ("snr", DREG): "$K^{1/2}$",
}


def figure(config: Config, constants: dict[str, Constants], rows: list[dict]) -> Figure:
    """What was measured as points, the theory of large K as dashed lines, the floor of IWAE's ratio
    with its own mean dotted.
    """
    drawing, [panels] = figure_of(columns=2, size=(10, 5))
    for name, (quantity, axes) in itertools.product(
        constants, zip(("std", "snr"), panels, strict=True)
    ):
        if (quantity, name) != ("std", IN_MU):
            draw(axes, config.ks, constants[name], by_k(rows, name), name, quantity)
    left, right = panels
    style = {"color": COLOURS[IWAE]}
    own = [row["plug_in"] for row in by_k(rows, IWAE).values()]
    label = "IWAE by its own noisy mean"
    right.plot(config.ks, own, MARKERS[IWAE], ms=6, mfc="white", label=label, **style)
    right.axhline(floor(config.num_draws), lw=1, ls=":", label="the floor of that", **style)
    left.set(
        title="standard deviation of the gradient in b", ylabel=f"mean of {config.dim} coordinates"
    )
    right.set_title("signal to noise ratio of the gradient in b, and in mu")
    for axes in panels:
        finish(axes, xscale="log", yscale="log", xlabel="K, samples")
        ticks_at(axes, config.ks, str)
    left.plot([], [], "--", color="black", lw=1.2, label="theory of large K")
    shared_legend(drawing, panels, ncols=4)
    return drawing


def draw(axes: Axes, ks, constants: Constants, measurement: dict, name: str, quantity: str) -> None:
    """One estimator in one panel."""
    grid = np.geomspace(ks[0], ks[-1], 51)
    line = [predicted(constants, k)[quantity] for k in grid]
    axes.plot(grid, line, "--", color=COLOURS[name], lw=1.2)
    points = [measurement[k][quantity] for k in ks]
    label = f"{name}, biased" if name in BIASED else name
    axes.plot(ks, points, MARKERS[name], ms=6, color=COLOURS[name], label=label)
    if (quantity, name) in POWERS:
        side, align = (-3, "center") if line[-1] > line[0] else (4, "left")
        style = {"ha": align, "color": COLOURS[name], "fontsize": 10}
        note(axes, POWERS[quantity, name], (grid[32], line[32]), (side, 4), **style)


def report(config: Config, rows: list[dict], summary: dict[str, dict]) -> str:
    names = tuple(estimators(config))
    header = [f"{title} {name}" for title in ("std", "SNR") for name in names]
    lines = []
    for k in config.ks:
        at_k = {row["estimator"]: row for row in rows if row["num_samples"] == k}
        numbers = [at_k[name][quantity] for quantity in ("std", "snr") for name in names]
        numbers += [at_k[IWAE]["plug_in"], at_k[IN_MU]["snr"]]
        lines.append([k, *(f"{number:.3g}" for number in numbers)])
    by_samples = tables.markdown(["K", *header, "SNR IWAE, own mean", "SNR in mu"], lines)
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
